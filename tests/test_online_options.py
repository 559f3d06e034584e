import jax
import jax.numpy as jnp
import numpy as np
import pytest

import objectives as obj
from architectures import ResidualNetworks
from crlx import Anywhere, BestOf, DeviceMesh, Exploration, Greedy, Mixture, Stochastic
from experiments._online_job import OnlineJob
from experiments._online_objectives import ONLINE
from experiments._online_options import parse
from experiments._online_pictures import Pictures


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
    assert options.exploration == Exploration()
    assert (options.episode_length, options.eval_length) == (1000, 1000)
    assert options.architecture.dim == 64
    # 31,744 environment steps for 800 updates.
    assert options.num_envs * options.unroll == 31_744


def test_the_preset_of_the_laptop():
    options = parse([])
    assert options.exploration == Exploration(greedy=0.5, pushed=0.25)
    assert (options.episode_length, options.eval_length) == (300, 1000)
    assert options.architecture.dim == 16
    assert parse(["--exploration.pushed", "0"]).exploration == Exploration(greedy=0.5)
    # Only distances between embeddings are worth shortening, unless it is asked for.
    assert parse(["--objective", "cmd"]).architecture.dim == 64
    assert parse(["--architecture.dim", "32"]).architecture.dim == 32


def test_a_job_gathers_and_evaluates_as_asked():
    options = parse(["--episode-length", "7", "--eval-length", "9", "--exploration.hold", "4"])
    env = options.task()
    assert env.spec.episode_length == 9
    _, source = OnlineJob(options, DeviceMesh(), env, Pictures(env)).kept
    gathers = source.source.source
    assert gathers.env.spec.episode_length == 7
    assert gathers.exploration == Exploration(greedy=0.5, pushed=0.25, hold=4)


def test_critic_and_actor_have_depths_of_their_own():
    deep = parse(["--critic-depth", "16", "--actor-depth", "8"]).architecture
    assert isinstance(deep, ResidualNetworks)
    assert (deep.depth, deep.actor_depth) == (16, 8)
    assert parse(["--critic-depth", "16"]).architecture.actor_depth == 4


@pytest.mark.parametrize("flags", (("--decay",), ("--no-decay",)))
def test_the_learning_rate_falls_or_is_held(flags):
    """A constant gradient makes Adam step by the learning rate."""
    options = parse(["--learning-rate", "0.5", *flags])
    optimizer, one = options.learner.optimizer, jnp.ones(())

    def step(state, _):
        change, state = optimizer.update(one, state, one)
        return state, -change

    total = options.rounds * options.updates
    with jax.numpy_dtype_promotion("standard"):
        rates = jax.lax.scan(step, optimizer.init(one), length=total)[1]
    fallen = 0.25 * (1 + np.cos(np.pi * np.arange(total) / total))
    expected = fallen if flags == ("--decay",) else 0.5
    np.testing.assert_allclose(rates, expected, rtol=0, atol=1e-3)


def test_behaviours_and_chunks():
    assert parse(["--collect", "best", "--behaviour.samples", "3"]).behaviour == BestOf(3)
    assert parse(["--collect", "deterministic"]).behaviour == Greedy()
    options = parse(["--action-chunk", "3", "--inputs", "raw"])
    assert isinstance(options.objective, obj.Chunked)
    assert options.objective.length == 3


@pytest.mark.parametrize(
    "arguments, weights",
    [
        ([], (0.5, 0.5)),
        (["--elsewhere", "0.25"], (0.75, 0.25)),
        (["--elsewhere", "0"], None),
        (["--preset", "paper"], None),
    ],
)
def test_goals_from_other_episodes(arguments, weights):
    objective = parse([*arguments, "--inputs", "raw"]).objective
    assert isinstance(objective, obj.Contrastive)
    wanted = None if weights is None else Mixture((objective.goals, Anywhere()), weights)
    assert objective.actor_goals == wanted


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
        (["--objective", "gcbc", "--elsewhere", "0.5"], "leave --elsewhere out, or use infonce"),
        (["--elsewhere", "1.5"], "--elsewhere is a share, 0 to 1; got 1.5"),
        (["--objective", "infonse"], "did you mean 'infonce'"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        parse(arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--steps", "100"], "use at least 25600."),
        (["--steps", "20000"], "use at least 25600, or --num-envs 100, or --warm-up 156"),
        (["--replay", "50"], "use at least 202, or at most 48 for --unroll and --warm-up"),
        (["--replay", "202", "--unroll", "300"], "use at least 302, or at most 200 for"),
        (["--replay", "2"], "use at least 202."),
        (["--replay", "30000000"], "use at most --replay 16777215, or --num-envs 71"),
        (["--episode-length", "5", "--replay", "200"], "use at least 241, or at most 165 for"),
        (["--action-chunk", "4", "--episode-length", "3"], "longer than an episode: use at most 3"),
        (["--batch-size", "1"], "use a batch of at least 2"),
        (["--objective.objective.length", "2", "--action-chunk", "3"], "expects 3 x 2"),
        (["--learning-rate", "0"], "--learning-rate must be positive; got 0.0: use one such as"),
        (["--learning-rate", "inf"], "--learning-rate must be positive"),
        (["--seed", "-1"], "--seed must not be negative"),
    ],
)
def test_impossible_numbers_are_refused(arguments, message, capsys):
    assert message in refusal(arguments, capsys)


def refusal(arguments, capsys):
    """What a command line is told, as one line."""
    with pytest.raises(SystemExit):
        parse(arguments)
    return " ".join(capsys.readouterr().err.replace("│", "").split())


@pytest.mark.parametrize(
    "flag",
    [
        *("steps", "num-envs", "warm-up", "unroll", "updates", "batch-size", "replay"),
        *("episode-length", "eval-length", "eval-every", "eval-episodes"),
    ],
)
@pytest.mark.parametrize("value", ("0", "-5"))
def test_no_size_is_zero_or_less(flag, value, capsys):
    message = f"--{flag} must be positive; got {value}: use 1 or more"
    assert message in refusal([f"--{flag}", value], capsys)


@pytest.mark.parametrize("value", ("0", "-1"))
def test_no_chunk_is_empty(value):
    with pytest.raises(ValueError, match=f"--action-chunk must be positive; got {value}"):
        parse(["--action-chunk", value])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--steps", "25600"],
        ["--steps", "20000", "--num-envs", "100"],
        ["--steps", "20000", "--warm-up", "156"],
        ["--replay", "202"],
        ["--replay", "50", "--unroll", "48", "--warm-up", "48"],
        ["--episode-length", "5", "--replay", "241"],
        ["--episode-length", "5", "--replay", "200", "--unroll", "165", "--warm-up", "165"],
        ["--replay", "16777215"],
        ["--action-chunk", "3", "--episode-length", "3", "--replay", "300"],
        ["--num-envs", "7", "--unroll", "13", "--batch-size", "11", "--updates", "3"],
    ],
)
def test_the_values_that_refusals_name_are_taken(arguments):
    parse(arguments)
