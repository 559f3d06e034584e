import dataclasses

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from crlx import (
    AbstractActor,
    AbstractArchitecture,
    AbstractHindsight,
    AbstractObjective,
    AbstractRows,
    Ensemble,
    Metrics,
    Spec,
    Uniform,
    frozen,
    joint_critics,
)

from ._actor_terms import AWR, AbstractActorTerm, act, improve, refuse_score
from ._checks import check_between, check_share
from ._targets import polyak, target
from ._transitions import Relabelling, Transitions, relabelled
from ._values import implicit_value, state_values


class GCIVLParams(eqx.Module):
    """Values of states alone."""

    value: Ensemble
    actor: AbstractActor
    actor_term: PyTree


class GCIVL(AbstractObjective[GCIVLParams, Ensemble, Transitions]):
    r"""Goal-conditioned implicit value learning: state values towards the best that the data show.

    $$\sum_e \overline{|\kappa - 1[A < 0]|\,
      (r + \gamma m \bar V_e(s', g) - V_e(s, g))^2}, \qquad
      A = r + \gamma m \min_e \bar V_e(s', g) - \overline{\bar V_e(s, g)}$$

    with slowly moving targets $\bar V_e$ of two values. The actor's advantage is
    $\overline{V_e(s', g)} - \overline{V_e(s, g)}$. Where chance decides, values are optimistic.

    **Arguments:**

    - `actor`: how values become a policy; a term that needs the score of actions is refused.
    - `relabelling`: goals and rewards.
    - `actor_goals`: where the actor's goals come from; None for the value's own.
    - `discount`: of later rewards, $\gamma$.
    - `expectile`: how far values lean towards the best, $\kappa$: not at all at 0.5.
    - `target_rate`: how far targets go towards the values after each update.

    ??? cite
        Kostrikov et al. (ICLR 2022) without the action value, as in OGBench (Park et al., arXiv
        2410.20092).
    """

    actor: AbstractActorTerm = eqx.field(default_factory=AWR)
    relabelling: Relabelling = eqx.field(default_factory=Relabelling)
    actor_goals: AbstractHindsight | None = eqx.field(default_factory=Uniform)
    discount: float = 0.99
    expectile: float = 0.9
    target_rate: float = 0.005

    def __check_init__(self):
        check_between("discount", self.discount)
        check_between("expectile", self.expectile)
        check_share("target_rate", self.target_rate)
        refuse_score(self.actor, "GCIVL", "values of states alone")

    def init(
        self, architecture: AbstractArchitecture, spec: Spec, *, key: PRNGKeyArray
    ) -> tuple[GCIVLParams, Ensemble]:
        vkey, akey, tkey = jr.split(key, 3)
        value = joint_critics(architecture, dataclasses.replace(spec, action_size=0), 2, key=vkey)
        actor = architecture.actor(spec, key=akey)
        term = self.actor.init(architecture, spec, key=tkey)
        return GCIVLParams(value, actor, term), target(value)

    def relabel(
        self, rows: AbstractRows, index: Int[Array, " batch"], *, key: PRNGKeyArray
    ) -> Transitions:
        goals = self.actor_goals
        return relabelled(self.relabelling, goals, rows, index, discount=self.discount, key=key)

    def loss(
        self, params: GCIVLParams, state: Ensemble, batch: Transitions, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        value_loss, metrics = implicit_value(
            state_values(params.value, batch.observation, batch.goal),
            state_values(frozen(state), batch.observation, batch.goal),
            state_values(frozen(state), batch.next_observation, batch.goal),
            batch,
            discount=self.discount,
            expectile=self.expectile,
        )
        value, goals, rows = frozen(params.value), batch.actor_goal, batch.for_actor()
        rise = state_values(value, batch.next_observation, goals)
        advantage = jnp.mean(rise - state_values(value, batch.observation, goals), axis=1)
        actor_loss, actor_metrics = improve(
            self.actor,
            params.actor_term,
            act(params.actor, rows),
            rows,
            advantage=advantage,
            key=key,
        )
        metrics |= actor_metrics
        return value_loss + actor_loss, metrics

    def advance(self, params: GCIVLParams, state: Ensemble) -> Ensemble:
        return polyak(state, params.value, self.target_rate)

    def policy(self, params: GCIVLParams, state: Ensemble) -> AbstractActor:
        del state
        return params.actor
