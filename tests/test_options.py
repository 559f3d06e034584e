"""The command line of the offline experiment."""

import signal

import pytest

from architectures import IQE, MRN, Activation
from crlx import decode, encode
from experiments._options import parse
from experiments._parts import ARCHITECTURES
from experiments._stop import Stopped


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset", "pointmaze-medum-navigate-local"], "pointmaze-medium-navigate-local"),
        (["--objective", "infonse"], "did you mean 'infonce'"),
        (["--architecture", "residul"], "did you mean 'residual'"),
        (["--energy", "norn"], "did you mean 'norm'"),
        (["--actor", "ddpg"], "did you mean 'ddpgbc'"),
        (["--depth", "6"], "multiple of 4"),
        (["--width", "0"], "must be positive"),
        (["--architecture", "mlp", "--depth", "0"], "1 or more"),
        (["--objective", "gcbc", "--actor", "awr"], "--actor means nothing"),
        (["--architecture", "iqe", "--objective", "gcbc"], "how embeddings are compared"),
        (["--architecture", "shared-mrn"], "objective that passes the future action"),
        (["--objective", "cmd", "--actor", "awr"], "takes ddpgbc, maxent"),
        (["--objective", "gcivl", "--actor", "ddpgbc"], "takes awr"),
        (["--objective", "hiql", "--actor", "awr"], "leaves no choice of the actor"),
        (["--objective", "gciql", "--energy", "mrn"], "compares no embeddings"),
        (["--objective", "qrl", "--energy", "norm"], "needs a quasimetric"),
        (["--objective", "cmd", "--contrast", "forward"], "leave --contrast out"),
        (["--contrast", "binary"], "scores of both signs"),
        (["--architecture", "mlp", "--energy", "mrn", "--contrast", "binary"], "both signs"),
        (["--architecture", "hyperspherical", "--depth", "7"], "multiple of 2"),
        (["--architecture", "shared-mrn", "--objective", "cmd", "--energy", "norm"], "quasimetric"),
    ],
)
def test_impossible_parts_are_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        parse(flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", "0"], "--steps must be positive"),
        (["--steps", "-5"], "--steps must be positive"),
        (["--batch-size", "0"], "--batch-size must be positive"),
        (["--episodes", "0"], "--episodes must be positive"),
        (["--learning-rate", "0"], "--learning-rate must be positive"),
        (["--eval-every", "0"], "--eval-every must be positive"),
        (["--log-every", "0"], "--log-every must be positive"),
        (["--seed", "-1"], "--seed must not be negative"),
        (["--batch-size", "1"], "A contrast needs negatives"),
        (["--objective", "qrl", "--batch-size", "1"], "use a batch of at least 2"),
    ],
)
def test_impossible_numbers_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit):
        parse(flags)
    printed = " ".join(capsys.readouterr().err.replace("│", "").split())
    assert message in printed


def test_help_names_the_settings_of_the_dataset(capsys):
    with pytest.raises(SystemExit):
        parse(["--help", "--dataset", "antmaze-giant-navigate-v0"])
    printed = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert "--objective.actor.alpha FLOAT Weight of cloning. (default: 0.1)" in printed
    assert "--objective.goals.discount FLOAT" in printed
    assert "(default: 0.995)" in printed


def test_nested_fields_are_flags():
    options = parse(["--objective.actor.alpha", "0.7", "--architecture.dim", "5"])
    assert options.objective.actor.alpha == 0.7
    assert options.architecture.dim == 5


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_has_a_name_and_sizes(name):
    objective = "cmd" if name == "shared-mrn" else "infonce"
    flags = ["--depth", "8", "--width", "16", "--objective", objective, "--architecture", name]
    options = parse(flags)
    assert (options.architecture.depth, options.architecture.width) == (8, 16)
    assert decode(encode(options.architecture)) == options.architecture


def test_options_of_networks_are_flags():
    flags = "--architecture stable --architecture.style.activation GELU"
    style = parse([*flags.split(), "--architecture.style.residual-scale", "0.5"]).architecture.style
    assert (style.activation, style.residual_scale) == (Activation.GELU, 0.5)
    assert style.final_norm
    iqe = parse(["--architecture", "iqe", "--architecture.energy.size", "4"]).architecture.energy
    assert iqe == IQE(size=4)


def test_stopping_tells_the_shell():
    assert Stopped(signal.SIGTERM, "").exit_code == 143


def test_an_energy_that_is_named_has_the_settings_that_suit_the_objective():
    qrl, cmd = ["--objective", "qrl"], ["--objective", "cmd"]
    named = (["--energy", "iqe"], ["--architecture", "iqe"])
    for flags in ([], *named):
        assert parse([*qrl, *flags]).architecture.energy == IQE(mix=0.0)
    for flags in ([], ["--energy", "mrn"], ["--architecture", "mrn"]):
        assert parse([*cmd, *flags]).architecture.energy == MRN(groups=16)
    assert parse([*qrl, "--energy", "mrn"]).architecture.energy == MRN()


def test_awr_is_as_tempered_as_ogbench_has_it():
    assert parse(["--objective", "gcivl"]).objective.actor.alpha == 10
    assert parse(["--objective", "gciql", "--actor", "awr"]).objective.actor.alpha == 3
