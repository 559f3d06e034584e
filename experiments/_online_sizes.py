"""Which sizes of an online run go together."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._online_options import Options

_POSITIVE = (
    *("steps", "num_envs", "warm_up", "unroll", "updates", "batch_size", "replay"),
    *("action_chunk", "episode_length", "eval_length", "eval_episodes", "eval_every"),
)
_ROWS = 2**31 - 1  # Rows are numbered with 32 bits.


def check_sizes(sizes: "Options") -> None:
    """Raises `ValueError` for what does not go together, with the nearest values that do."""
    for name in _POSITIVE:
        value = getattr(sizes, name)
        if value is not None and value < 1:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag} must be positive; got {value}: use 1 or more.")
    if not 0 < sizes.learning_rate < math.inf:
        raise ValueError(
            f"--learning-rate must be positive; got {sizes.learning_rate}: use one such as 3e-4."
        )
    if sizes.seed < 0:
        raise ValueError(f"--seed must not be negative; got {sizes.seed}: use 0 or more.")
    if sizes.action_chunk > sizes.episode_length:
        raise ValueError(
            f"--action-chunk {sizes.action_chunk} is longer than an episode: use at most "
            f"{sizes.episode_length}."
        )
    _check_steps(sizes)
    _check_replay(sizes)


def _check_steps(sizes: "Options") -> None:
    least = sizes.num_envs * sizes.warm_up
    if sizes.steps >= least:
        return
    others = {"num-envs": sizes.steps // sizes.warm_up, "warm-up": sizes.steps // sizes.num_envs}
    raise ValueError(
        f"--steps {sizes.steps} ends before the first update: use at least {least}"
        f"{_alternatives(others)}."
    )


def _check_replay(sizes: "Options") -> None:
    longest = max(sizes.unroll, sizes.warm_up)
    # What a collection writes: its steps, the ends of episodes, and what is observed now.
    rows = longest + math.ceil(longest / sizes.episode_length) + 1
    if sizes.replay < rows:
        held = _held(sizes)
        shorter = f", or at most {held} for --unroll and --warm-up" if held else ""
        raise ValueError(
            f"--replay {sizes.replay} cannot hold a collection of {longest} steps: use at least "
            f"{rows}{shorter}."
        )
    if sizes.num_envs * sizes.replay > _ROWS:
        fewer = {"num-envs": _ROWS // sizes.replay}
        raise ValueError(
            f"{sizes.num_envs} environments with {sizes.replay} rows each are more than {_ROWS}: "
            f"use at most --replay {_ROWS // sizes.num_envs}{_alternatives(fewer)}."
        )


def _held(sizes: "Options") -> int:
    """The most steps that the replay holds."""
    episodes, rest = divmod(sizes.replay - 1, sizes.episode_length + 1)
    return episodes * sizes.episode_length + max(rest - 1, 0)


def _alternatives(flags: dict[str, int]) -> str:
    """Other flags that would do, each by itself, with the values they could have."""
    return "".join(f", or --{flag} {value}" for flag, value in flags.items() if value > 0)
