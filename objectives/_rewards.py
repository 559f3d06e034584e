import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._checks import check_positive


class AbstractReached(eqx.Module):
    """Tells in which rows of a minibatch the goal counts as reached."""

    @abc.abstractmethod
    def __call__(
        self,
        index: Int[Array, " batch"],
        goal_index: Int[Array, " batch"],
        achieved: Float[Array, "batch goal"],
        goal: Float[Array, "batch goal"],
    ) -> Bool[Array, " batch"]:
        """**Arguments:**

        - `index`: row numbers.
        - `goal_index`: those that the goals were taken from; -1 for goals that were commanded.
        - `achieved`: what the action led to.
        - `goal`: the goals.
        """


class SameRow(AbstractReached):
    """The goal is the row itself, so the state *before* the action is what counts.

    ??? cite
        OGBench's goal sampler (Park et al., arXiv 2410.20092).
    """

    def __call__(self, index, goal_index, achieved, goal):
        del achieved, goal
        return index == goal_index


class Within(AbstractReached):
    """The action led to within `tolerance` of the goal.

    **Arguments:**

    - `tolerance`: Euclidean distance, in the units of goals.
    """

    tolerance: float

    def __check_init__(self):
        check_positive("tolerance", self.tolerance)

    def __call__(self, index, goal_index, achieved, goal):
        del index, goal_index
        return jnp.sum((achieved - goal) ** 2, axis=1) <= self.tolerance**2


class Reward(eqx.Module):
    """A sparse reward, computed anew for the goals of hindsight.

    **Arguments:**

    - `reached`: when the goal counts as reached.
    - `cost`: -1 for each step until then, and 0; otherwise 0, and 1 when reached.
    - `absorbing`: nothing follows a goal that is reached: its value is its reward alone.
    """

    reached: AbstractReached = eqx.field(default_factory=SameRow)
    cost: bool = True
    absorbing: bool = True

    def __call__(
        self,
        index: Int[Array, " batch"],
        goal_index: Int[Array, " batch"],
        achieved: Float[Array, "batch goal"],
        goal: Float[Array, "batch goal"],
    ) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
        """The rewards, and masks: 1 where the episode goes on and 0 where it ends."""
        success = self.reached(index, goal_index, achieved, goal).astype(jnp.float32)
        mask = 1 - success if self.absorbing else jnp.ones_like(success)
        return success - 1 if self.cost else success, mask
