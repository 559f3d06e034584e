import dataclasses
from typing import Literal

from jaxtyping import Array, Float

from crlx import Spec

Backend = Literal["spring", "mjx", "generalized"]
Reward = Literal["dense", "sparse"]


@dataclasses.dataclass(frozen=True)
class Timing:
    """Physics steps of `timestep` seconds, `frames` of them in a control step."""

    timestep: float
    frames: int

    def __post_init__(self):
        if not self.timestep > 0 or self.frames < 1:
            raise ValueError(
                "A control step is one or more physics steps of more than 0 s; got "
                f"{self.frames} of {self.timestep} s."
            )


@dataclasses.dataclass(frozen=True)
class Radii:
    """Distances to the goal, in metres, below which a step counts as a success."""

    success: float
    easy: float | None = None
    hard: float | None = None


@dataclasses.dataclass(frozen=True)
class TaskSpec:
    """All that a consumer must know of a task.

    **Arguments:**

    - `name`: as `make` knows it.
    - `state_size`, `goal_size`, `action_size`: an observation is the state, then the goal.
    - `goal_indices`: the achieved goal is `state[start:end]`.
    - `episode_length`: control steps.
    - `timing`, `backend`: the physics.
    - `radii`: when a goal counts as reached.
    - `reward`: "dense" as the paper's code has it, or "sparse", 1 at the goal and 0 elsewhere.
    """

    name: str
    state_size: int
    goal_size: int
    action_size: int
    goal_indices: tuple[int, int]
    episode_length: int
    timing: Timing
    backend: Backend
    radii: Radii
    reward: Reward

    @property
    def observation_size(self) -> int:
        """Length of state and goal together."""
        return self.state_size + self.goal_size

    @property
    def control_dt(self) -> float:
        """Seconds between two actions."""
        return self.timing.timestep * self.timing.frames

    def state(self, observation: Float[Array, "*batch obs"]) -> Float[Array, "*batch state"]:
        """The state part of observations."""
        return observation[..., : self.state_size]

    def goal(self, observation: Float[Array, "*batch obs"]) -> Float[Array, "*batch goal"]:
        """The commanded goals of observations."""
        return observation[..., self.state_size :]

    def achieved(self, state: Float[Array, "*batch state"]) -> Float[Array, "*batch goal"]:
        """The goals that states, or observations, have reached."""
        start, end = self.goal_indices
        return state[..., start:end]

    def networks(self) -> Spec:
        """What networks must know: the state is their observation."""
        return Spec(self.state_size, self.action_size, self.goal_size)
