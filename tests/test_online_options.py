import pytest

import objectives as obj
from architectures import ResidualNetworks
from crlx import BestOf, Greedy, Stochastic
from experiments._online_objectives import ONLINE
from experiments._online_options import parse

pytestmark = pytest.mark.usefixtures("lightly_compiled")


@pytest.mark.parametrize("name", ONLINE)
def test_every_objective_can_be_composed(name):
    options = parse(["--objective", name])
    assert isinstance(options.objective, obj.Standardized)
    assert isinstance(
        options.behaviour, Greedy if name in ("td3", "td3-her", "gcsl", "gcbc") else Stochastic
    )
    assert options.outcomes == (name.startswith(("sac", "td3")))


def test_the_preset_of_the_paper():
    options = parse(["--preset", "paper", "--env", "humanoid"])
    sizes = options.num_envs, options.unroll, options.updates, options.batch_size, options.replay
    assert sizes == (512, 62, 800, 512, 10_000)
    assert (options.architecture.depth, options.architecture.width) == (64, 256)
    assert options.objective == obj.Contrastive(actor=obj.MaxEntropy())
    assert options.learning_rate == 3e-4
    # 31,744 environment steps for 800 updates.
    assert options.num_envs * options.unroll == 31_744


def test_critic_and_actor_have_depths_of_their_own():
    deep = parse(["--critic-depth", "16", "--actor-depth", "8"]).architecture
    assert isinstance(deep, ResidualNetworks)
    assert (deep.depth, deep.actor_depth) == (16, 8)
    assert parse(["--critic-depth", "16"]).architecture.actor_depth == 4


def test_behaviours_and_chunks():
    assert parse(["--collect", "best", "--behaviour.samples", "3"]).behaviour == BestOf(3)
    assert parse(["--collect", "deterministic"]).behaviour == Greedy()
    options = parse(["--action-chunk", "3", "--inputs", "raw"])
    assert isinstance(options.objective, obj.Chunked)
    assert options.objective.length == 3


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--depth", "6"], "multiple of 4"),
        (["--depth", "0"], "multiple of 4"),
        (["--width", "0"], "must be positive"),
        (["--env", "ant_u4_mase"], "ant_u4_maze"),
        (["--objective", "sac", "--action-chunk", "2"], "takes no chunks"),
        (["--objective", "gcbc", "--collect", "best"], "scores no actions"),
        (["--objective", "cmd", "--collect", "best"], "cannot be scored for a commanded goal"),
        (["--objective", "sac", "--contrast", "forward"], "loss of its own"),
        (["--inputs", "rav"], "did you mean 'raw'"),
        (["--objective", "infonse"], "did you mean 'infonce'"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        parse(arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--steps", "100"], "use at least 32000, or less of --warm-up"),
        (["--replay", "50"], "use at least 52"),
        (["--updates", "0"], "--updates must be positive"),
        (["--learning-rate", "0"], "--learning-rate must be positive"),
        (["--seed", "-1"], "--seed must not be negative"),
    ],
)
def test_impossible_numbers_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        parse(arguments)
    assert message in " ".join(capsys.readouterr().err.replace("│", "").split())
