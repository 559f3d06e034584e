"""The command line of the offline experiment."""

import signal

import pytest

from experiments._options import parse
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
        (["--architecture", "mlp", "--actor", "maxent"], "use --architecture residual"),
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
        (["--seed", "-1"], "--seed must not be negative"),
        (["--batch-size", "1"], "contrasts need negatives"),
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


def test_stopping_tells_the_shell():
    assert Stopped(signal.SIGTERM, "").exit_code == 143
