import dataclasses
from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..tasks import Radii, TaskSpec


@runtime_checkable
class Observed(Protocol):
    """A state as Brax and MuJoCo Playground have it."""

    @property
    def obs(self) -> Array | Mapping[str, Array]: ...

    @property
    def reward(self) -> Array: ...

    @property
    def done(self) -> Array: ...

    @property
    def metrics(self) -> Mapping[str, Array]: ...


Inner = TypeVar("Inner", bound=Observed)


@dataclasses.dataclass(frozen=True)
class Aims(Generic[Inner]):
    """What to reach in an environment without goals.

    **Arguments:**

    - `achieved`: start and end of the achieved goal in the observation; or a function from the
      environment's state to it, whose value is then appended to the observation.
    - `goals`: draws a commanded goal from a key.
    - `radii`: the Euclidean distances, in units of the goal, that count as success.
    - `observe`: from the environment's state to what is observed; None for its own observation,
      which must be one vector then.
    """

    achieved: tuple[int, int] | Callable[[Inner], Float[Array, " goal"]]
    goals: Callable[[PRNGKeyArray], Float[Array, " goal"]]
    radii: Radii
    observe: Callable[[Inner], Float[Array, " obs"]] | None = None

    def observed(self, inner: Inner) -> Float[Array, " state"]:
        """The state part of the observation."""
        own = inner.obs if self.observe is None else self.observe(inner)
        if isinstance(own, Mapping):
            raise ValueError(
                f"The environment observes {sorted(own)}, not one vector. Choose what is seen "
                "with `observe`, such as `lambda state: state.obs['state']`."
            )
        if isinstance(self.achieved, tuple):
            return own
        return jnp.concatenate([own, self.achieved(inner)])

    def sizes(self, reset: Callable[[PRNGKeyArray], Inner]) -> tuple[int, int, tuple[int, int]]:
        """Lengths of state and goal, and where the achieved goal is in the state.

        **Raises:** `ValueError` if goals and achieved goals are not vectors of one length.
        """
        key = jr.key(0)
        state = jax.eval_shape(lambda: self.observed(reset(key)))
        goal = jax.eval_shape(lambda: self.goals(key))
        if state.ndim != 1 or goal.ndim != 1:
            raise ValueError(
                f"Observations and goals are vectors, not of shapes {state.shape} and {goal.shape}."
            )
        if isinstance(self.achieved, tuple):
            where = self.achieved
        else:
            achieved = jax.eval_shape(lambda: self.achieved_by(reset(key)))
            where = state.size - achieved.size, state.size
        if not 0 <= where[0] < where[1] <= state.size or where[1] - where[0] != goal.size:
            raise ValueError(
                f"Goals have {goal.size} entries, but the achieved goal is {where} of the state's "
                f"{state.size}."
            )
        return state.size, goal.size, where

    def achieved_by(self, inner: Inner) -> Float[Array, " goal"]:
        """The achieved goal."""
        if isinstance(self.achieved, tuple):
            return self.observed(inner)[slice(*self.achieved)]
        return self.achieved(inner)


def judge(
    spec: TaskSpec, observation: Float[Array, " obs"], inner: Observed
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The reward and the metrics of a step: `dist` and `success` as in `GoalEnv`, in the place of
    the environment's own of those names, and its others."""
    distance = jnp.linalg.norm(spec.achieved(observation) - spec.goal(observation))
    radii = {"success": spec.radii.success}
    radii |= {"success_easy": spec.radii.easy, "success_hard": spec.radii.hard}
    own = {name: value.astype(jnp.float32) for name, value in inner.metrics.items()}
    metrics = {**own, "dist": distance}
    for name, radius in radii.items():
        if radius is not None:
            metrics[name] = (distance < radius).astype(jnp.float32)
    dense = spec.reward == "dense"
    return inner.reward.astype(jnp.float32) if dense else metrics["success"], metrics


def settle(before: Inner, after: Inner, observed: Float[Array, " state"]) -> tuple[Inner, Array]:
    """The state after a step, or before it where what is observed is not finite; and `done`."""
    finite = jnp.all(jnp.isfinite(observed))
    done = jnp.where(finite, after.done.astype(jnp.float32), 1.0)
    return _choose(finite, after, before), done


def strong(tree: Inner) -> Inner:
    """The same, with types that do not yield to others: those change from one step to the next,
    and all is compiled twice."""

    def own(x):
        keys = jnp.issubdtype(x.dtype, jax.dtypes.extended)
        return x if keys else jax.lax.convert_element_type(x, x.dtype)

    return jax.tree.map(lambda x: own(jnp.asarray(x)), tree)


def _choose(condition: Bool[Array, ""], yes, no):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
