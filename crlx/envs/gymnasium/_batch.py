import contextlib
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float32
from numpy.random import mtrand
from numpy.typing import ArrayLike

Policy = Callable[[Float32[np.ndarray, "envs obs"], Float32[np.ndarray, "envs goal"]], ArrayLike]


@runtime_checkable
class Unended(Protocol):
    """An episode that has not ended, with the observations so far."""

    goal: Float32[np.ndarray, " goal"]
    observations: list[Float32[np.ndarray, " obs"]]

    def step(self, action: np.ndarray) -> float | None:
        """Acts once; returns the success when that ended the episode."""
        ...


Own = TypeVar("Own", bound=Unended)


class Batch(Generic[Own]):
    """The running episodes by row, and what the policy sees of them."""

    def __init__(self, rows: int, observation_size: int, goal_size: int):
        self.observations = np.zeros((rows, observation_size), np.float32)
        self.goals = np.zeros((rows, goal_size), np.float32)
        self.running: dict[int, Own] = {}

    def start(self, row: int, episode: Own):
        self.running[row] = episode
        self.observations[row] = episode.observations[0]
        self.goals[row] = episode.goal

    def act(self, policy: Policy, action_size: int) -> np.ndarray:
        # Copies, since the policy may keep its arguments, or read them later.
        actions = np.asarray(policy(self.observations.copy(), self.goals.copy()), np.float32)
        shape = len(self.goals), action_size
        if actions.shape != shape:
            raise ValueError(
                f"The policy must return actions of shape {shape}; got {actions.shape}."
            )
        # Clipping lets NaN through, and the simulator answers it with a reset of its own.
        if not np.isfinite(actions[list(self.running)]).all():
            raise ValueError("The policy returned actions that are not finite numbers.")
        return np.clip(actions, -1.0, 1.0)

    def step(self, actions: np.ndarray) -> list[tuple[Own, float]]:
        """Acts once in every running episode; returns those that ended, with their success."""
        ended = []
        with numpy_untouched():
            for row, episode in list(self.running.items()):
                success = episode.step(actions[row])
                self.observations[row], self.goals[row] = episode.observations[-1], episode.goal
                if success is not None:
                    ended.append((self.running.pop(row), success))
        return ended


@contextlib.contextmanager
def numpy_untouched() -> Iterator[None]:
    """Restores the global generator of numpy, which must not notice what happens inside."""
    generator = mtrand.get_bit_generator()
    state = np.random.get_state(legacy=False)  # noqa: NPY002 (this is the one to restore)
    try:
        yield
    finally:
        mtrand.set_bit_generator(generator)
        np.random.set_state(state)  # noqa: NPY002
