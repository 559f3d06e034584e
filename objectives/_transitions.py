import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from crlx import (
    AbstractHindsight,
    AbstractRows,
    Anywhere,
    ClippedGeometric,
    Current,
    Mixture,
    Outcome,
    Step,
)

from ._actor_terms import ActorBatch
from ._checks import check_share
from ._rewards import Reward, SameRow


class Transitions(eqx.Module):
    """Rows with what followed, a goal for the value and one for the actor.

    `mask` is 0 where the episode ends with this step, so that nothing is to be expected of the
    next state, and 1 elsewhere.
    """

    observation: Float[Array, "batch obs"]
    action: Float[Array, "batch act"]
    next_observation: Float[Array, "batch obs"]
    goal: Float[Array, "batch goal"]
    actor_goal: Float[Array, "batch goal"]
    reward: Float[Array, " batch"]
    mask: Float[Array, " batch"]

    def for_actor(self) -> ActorBatch:
        """What actor terms read."""
        return ActorBatch(self.observation, self.action, self.actor_goal)


class Relabelling(eqx.Module):
    """Which goals transitions are learnt with, and what reaching them is worth.

    **Arguments:**

    - `goals`: where goals come from; None for OGBench's: the row itself, a later row of its
      trajectory, geometrically far by the objective's discount, or any row, with chances of 0.2,
      0.5 and 0.3.
    - `fraction`: the chance of a goal from hindsight. Other rows keep the goal that the policy
      was told to reach, which the rows must hold as an `Outcome`.
    - `reward`: what reaching a goal is worth.

    ??? cite
        Andrychowicz et al., Hindsight Experience Replay (NeurIPS 2017), with a `fraction` of 0.8;
        the default goals are those of OGBench (Park et al., arXiv 2410.20092).
    """

    goals: AbstractHindsight | None = None
    fraction: float = 1.0
    reward: Reward = eqx.field(default_factory=Reward)

    def __check_init__(self):
        check_share("fraction", self.fraction)
        if self.fraction < 1 and isinstance(self.reward.reached, SameRow):
            raise ValueError(
                "A goal that was commanded is no row of the data, so `SameRow` would never count "
                "it as reached: use Reward(reached=Within(tolerance)) or fraction=1."
            )

    def __call__(
        self,
        rows: AbstractRows,
        index: Int[Array, " batch"],
        actor_index: Int[Array, " batch"] | None,
        *,
        discount: float,
        key: PRNGKeyArray,
    ) -> Transitions:
        """One minibatch.

        **Arguments:**

        - `rows`, `index`: the data, and the rows to learn from.
        - `actor_index`: the rows of the actor's goals; None for the value's own goals.
        - `discount`: of the objective.
        """
        gkey, fkey = jr.split(key)
        steps, after = rows.take(index), rows.take(index + 1)
        goals = _usual(discount) if self.goals is None else self.goals
        goal_index = goals(index, rows.last(index), key=gkey)
        goal = rows.take(goal_index).achieved
        if self.fraction < 1:
            kept = jr.uniform(fkey, index.shape) >= self.fraction
            goal = jnp.where(kept[:, None], _outcome(steps).goal, goal)
            goal_index = jnp.where(kept, -1, goal_index)
        reward, mask = self.reward(index, goal_index, after.achieved, goal)
        if isinstance(steps.extras, Outcome):
            mask *= 1 - steps.extras.terminated.astype(mask.dtype)
        actor_goal = goal if actor_index is None else rows.take(actor_index).achieved
        return Transitions(
            steps.observation, steps.action, after.observation, goal, actor_goal, reward, mask
        )


def relabelled(
    relabelling: Relabelling,
    actor_goals: AbstractHindsight | None,
    rows: AbstractRows,
    index: Int[Array, " batch"],
    *,
    discount: float,
    key: PRNGKeyArray,
) -> Transitions:
    """One minibatch, with the actor's goals from a strategy of their own, or None for the
    value's."""
    vkey, akey = jr.split(key)
    actor_index = None
    if actor_goals is not None:
        actor_index = actor_goals(index, rows.last(index), key=akey)
    return relabelling(rows, index, actor_index, discount=discount, key=vkey)


def _usual(discount: float) -> AbstractHindsight:
    choices = Current(), ClippedGeometric(discount), Anywhere()
    return Mixture(choices, (0.2, 0.5, 0.3))


def _outcome(steps: Step) -> Outcome:
    if not isinstance(steps.extras, Outcome):
        raise ValueError(
            "These rows do not hold the goals that were commanded, as data that were collected "
            "without a policy do not: use fraction=1, or give each Step an Outcome as its extras."
        )
    return steps.extras
