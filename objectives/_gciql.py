import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from crlx import (
    AbstractActor,
    AbstractArchitecture,
    AbstractHindsight,
    AbstractRows,
    AbstractScoring,
    Ensemble,
    Metrics,
    Spec,
    Uniform,
    frozen,
    joint_critics,
)

from ._actor_terms import AbstractActorTerm, act, improve
from ._checks import check_between, check_share
from ._climbing_terms import DDPGBC
from ._targets import polyak, target
from ._transitions import Relabelling, Transitions, relabelled
from ._values import expectile_loss, smallest, state_values


class GCIQLParams(eqx.Module):
    """Two values of actions, and one of states, as an ensemble of one."""

    critic: Ensemble
    value: Ensemble
    actor: AbstractActor
    actor_term: PyTree


class GCIQL(AbstractScoring[GCIQLParams, Ensemble, Transitions]):
    r"""Goal-conditioned implicit Q-learning: no action outside the data is ever evaluated.

    $$L_V = \overline{\rho_\kappa(\min_e \bar Q_e(s, a, g) - V(s, g))}, \qquad
      \rho_\kappa(x) = |\kappa - 1[x < 0]|\, x^2,$$
    $$L_Q = \sum_e \overline{(r + \gamma m\, \mathrm{sg} V(s', g) - Q_e(s, a, g))^2},$$

    with slowly moving targets $\bar Q_e$. Actors get the score $\min_e Q_e$ and the advantage
    $\min_e Q_e - V$.

    **Arguments:**

    - `actor`: how values become a policy.
    - `relabelling`: goals and rewards.
    - `actor_goals`: where the actor's goals come from; None for the critic's own.
    - `discount`: of later rewards, $\gamma$.
    - `expectile`: how far values lean towards the best, $\kappa$: not at all at 0.5.
    - `target_rate`: how far targets go towards the critics after each update.

    ??? cite
        Kostrikov et al., Offline Reinforcement Learning with Implicit Q-Learning (ICLR 2022); with
        goals as in OGBench (Park et al., arXiv 2410.20092).
    """

    actor: AbstractActorTerm = eqx.field(default_factory=lambda: DDPGBC(0.3))
    relabelling: Relabelling = eqx.field(default_factory=Relabelling)
    actor_goals: AbstractHindsight | None = eqx.field(default_factory=Uniform)
    discount: float = 0.99
    expectile: float = 0.9
    target_rate: float = 0.005

    def __check_init__(self):
        check_between("discount", self.discount)
        check_between("expectile", self.expectile)
        check_share("target_rate", self.target_rate)

    def init(
        self, architecture: AbstractArchitecture, spec: Spec, *, key: PRNGKeyArray
    ) -> tuple[GCIQLParams, Ensemble]:
        ckey, vkey, akey, tkey = jr.split(key, 4)
        critic = joint_critics(architecture, spec, 2, key=ckey)
        value = joint_critics(architecture, dataclasses.replace(spec, action_size=0), 1, key=vkey)
        actor = architecture.actor(spec, key=akey)
        term = self.actor.init(architecture, spec, key=tkey)
        return GCIQLParams(critic, value, actor, term), target(critic)

    def relabel(
        self, rows: AbstractRows, index: Int[Array, " batch"], *, key: PRNGKeyArray
    ) -> Transitions:
        goals = self.actor_goals
        return relabelled(self.relabelling, goals, rows, index, discount=self.discount, key=key)

    def loss(
        self, params: GCIQLParams, state: Ensemble, batch: Transitions, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        value_loss, value_metrics = self._value(params.value, frozen(state), batch)
        critic_loss, critic_metrics = self._critic(params.critic, frozen(params.value), batch)
        actor_loss, actor_metrics = self._actor(params, batch, key=key)
        metrics = {**value_metrics, **critic_metrics, **actor_metrics}
        return value_loss + critic_loss + actor_loss, metrics

    def advance(self, params: GCIQLParams, state: Ensemble) -> Ensemble:
        return polyak(state, params.critic, self.target_rate)

    def policy(self, params: GCIQLParams, state: Ensemble) -> AbstractActor:
        del state
        return params.actor

    def score(
        self,
        params: GCIQLParams,
        state: Ensemble,
        observation: Float[Array, " obs"],
        action: Float[Array, " act"],
        goal: Float[Array, " goal"],
    ) -> Float[Array, ""]:
        del state
        return jnp.min(params.critic(observation, action, goal))

    def _value(
        self, value: Ensemble, slow: Ensemble, batch: Transitions
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        q = jnp.min(jax.vmap(slow)(batch.observation, batch.action, batch.goal), axis=1)
        v = state_values(value, batch.observation, batch.goal)[:, 0]
        loss = jnp.mean(expectile_loss(q - v, q - v, self.expectile))
        advantage = jnp.mean(q - v)
        return loss, {
            "value/loss": loss,
            "value/mean": jnp.mean(v),
            "value/advantage": advantage,
        }

    def _critic(
        self, critic: Ensemble, value: Ensemble, batch: Transitions
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        after = state_values(value, batch.next_observation, batch.goal)[:, 0]
        wanted = batch.reward + self.discount * batch.mask * after
        q = jax.vmap(critic)(batch.observation, batch.action, batch.goal)
        loss = jnp.sum(jnp.mean((wanted[:, None] - q) ** 2, axis=0))
        return loss, {
            "critic/loss": loss,
            "critic/mean": jnp.mean(q),
            "critic/target": jnp.mean(wanted),
        }

    def _actor(
        self, params: GCIQLParams, batch: Transitions, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        critic, value = frozen(params.critic), frozen(params.value)
        states, goals, rows = batch.observation, batch.actor_goal, batch.for_actor()

        def score(action: Float[Array, "batch act"]) -> Float[Array, " batch"]:
            return smallest(jax.vmap(critic)(states, action, goals))

        advantage = None
        if self.actor.needs_advantage:
            advantage = score(batch.action) - state_values(value, states, goals)[:, 0]
        return improve(
            self.actor,
            params.actor_term,
            act(params.actor, rows),
            rows,
            score=score,
            advantage=advantage,
            key=key,
        )
