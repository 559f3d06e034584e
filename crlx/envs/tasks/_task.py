import abc
import dataclasses
from collections.abc import Callable, Mapping

import equinox as eqx
import jax.numpy as jnp
from brax import base
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..walls import Walls
from ._spec import Backend, Radii, Timing

Scalars = Mapping[str, Float[Array, ""]]


def euclidean(achieved: Float[Array, " goal"], goal: Float[Array, " goal"]) -> Float[Array, ""]:
    """The length of the difference."""
    return jnp.linalg.norm(achieved - goal)


@dataclasses.dataclass(frozen=True)
class Traits:
    """What is fixed about a task.

    **Arguments:**

    - `state_size`, `goal_size`, `action_size`, `goal_indices`, `radii`: see `TaskSpec`.
    - `timings`: the physics that it can run on, the paper's first.
    - `walls`: walls that are not in the model, for the spring physics alone.
    - `distance`: from an achieved to a commanded goal, in metres; radii are compared with it.
    - `follow`: the commanded goal from now on, of `(sys, state, goal)`, where it moves with things.
    """

    state_size: int
    goal_size: int
    action_size: int
    goal_indices: tuple[int, int]
    radii: Radii
    timings: Mapping[Backend, Timing]
    walls: Walls | None = None
    distance: Callable[[Array, Array], Array] = euclidean
    follow: Callable[[base.System, base.State, Array], Array] | None = None


class Start(eqx.Module):
    """Where an episode begins: generalized positions and velocities, and the commanded goal."""

    q: Float[Array, " q"]
    qd: Float[Array, " qd"]
    goal: Float[Array, " goal"]


class Moment(eqx.Module):
    """One control step, for rewards and metrics.

    **Arguments:**

    - `before`, `after`: states of the physics.
    - `action`, `ctrl`: the action in [-1, 1] and what the actuators got.
    - `state`: the state part of the observation after the step.
    - `goal`: the commanded goal.
    - `distance`: from the achieved to the commanded goal, in metres.
    - `dt`: seconds of the step.
    """

    before: base.State
    after: base.State
    action: Float[Array, " act"]
    ctrl: Float[Array, " ctrl"]
    state: Float[Array, " state"]
    goal: Float[Array, " goal"]
    distance: Float[Array, ""]
    dt: float = eqx.field(static=True)


class AbstractTask(eqx.Module):
    """A problem that `GoalEnv` makes an environment of: a model, a law of starts and goals, and
    what is observed, rewarded and refused. All for one environment; batches are by `jax.vmap`."""

    @abc.abstractmethod
    def traits(self) -> Traits: ...

    @abc.abstractmethod
    def system(self, backend: Backend, *, drawn: bool) -> base.System:
        """What is simulated; the time step is set later. Where it is `drawn`, the same links, with
        geometry that need not be simulated."""

    @abc.abstractmethod
    def start(self, sys: base.System, *, key: PRNGKeyArray) -> Start:
        """Draws the start of an episode."""

    @abc.abstractmethod
    def controls(
        self, sys: base.System, state: base.State, action: Float[Array, " act"]
    ) -> Float[Array, " ctrl"]:
        """What the actuators get during a control step, from an action in [-1, 1]."""

    @abc.abstractmethod
    def observe(
        self, sys: base.System, state: base.State, ctrl: Float[Array, " ctrl"]
    ) -> Float[Array, " state"]:
        """The state part of the observation. At a start, `ctrl` is zero."""

    @abc.abstractmethod
    def healthy(self, state: base.State) -> Bool[Array, ""]:
        """False where the episode must end."""

    @abc.abstractmethod
    def rewards(self, moment: Moment) -> Scalars:
        """Terms of the dense reward, `reward_name`, which is their sum. Without any, the dense
        reward is the sparse one."""

    @abc.abstractmethod
    def readings(self, moment: Moment) -> Scalars:
        """Further metrics of a step. Those named `success`, `success_easy` and `success_hard` take
        the place of the ones by radii, for goals that are more than a distance."""
