import math

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
    Anywhere,
    JointNetwork,
    Metrics,
    Spec,
    Uniform,
    frozen,
    joint_network,
)

from ._actor_terms import AbstractActorTerm, ActorBatch, act, improve, over_mode
from ._checks import check_between
from ._climbing_terms import DDPGBC

Logits = Float[Array, " spans"]


class SurvivalParams(eqx.Module):
    """The classifier of times, whose outputs are the logits of hazards, and the policy."""

    hazards: JointNetwork
    actor: AbstractActor
    actor_term: PyTree


class SurvivalBatch(eqx.Module):
    """Rows, each with a goal that comes `ahead` steps later, one that does not come in the `left`
    steps until the end, and one for the actor."""

    observation: Float[Array, "batch obs"]
    action: Float[Array, "batch act"]
    goal: Float[Array, "batch goal"]
    ahead: Int[Array, " batch"]
    missed: Float[Array, "batch goal"]
    left: Int[Array, " batch"]
    actor_goal: Float[Array, "batch goal"]


class Survival(AbstractScoring[SurvivalParams, None, SurvivalBatch]):
    r"""Experimental: classifies the time until a goal, as survival analysis does.

    Time is cut into spans that grow with distance. With $h_b(s, a, g)$ the chance of reaching
    `g` in span $b$ if not before, a goal that comes after $k$ steps, in span $b$, costs
    $-\log h_b - \sum_{c < b} \log (1 - h_c)$; a goal from elsewhere, which does not come until the
    trajectory ends, is censored there and costs $-\sum_c \log (1 - h_c)$ over the spans that end
    by then. Half of all goals are of either kind, so what is learnt is relative to how common a
    goal is. Actors get the score $\log \sum_b \gamma^{k_b} P(b)$, $P(b) = h_b \prod_{c < b} (1 -
    h_c)$, with $k_b$ the first step of a span.

    The idea of time-to-goal classification is that of Survival RL; this formulation is our own,
    without its dwell times, and was not compared with its authors' code.

    **Arguments:**

    - `actor`: how scores become a policy; the advantage is over the policy's own action.
    - `goals`: where goals that come are taken from.
    - `elsewhere`: where goals that do not come are taken from.
    - `actor_goals`: where the actor's goals come from.
    - `spans`: the first step of each span of time, ascending from 1; the last has no end.
    - `discount`: what a step later is worth to the actor, $\gamma$.

    ??? cite
        Tiofack et al., Survival RL (arXiv 2605.31273).
    """

    actor: AbstractActorTerm = eqx.field(default_factory=DDPGBC)
    goals: AbstractHindsight = eqx.field(default_factory=Uniform)
    elsewhere: AbstractHindsight = eqx.field(default_factory=Anywhere)
    actor_goals: AbstractHindsight = eqx.field(default_factory=Uniform)
    spans: tuple[int, ...] = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610)
    discount: float = 0.99

    def __check_init__(self):
        check_between("discount", self.discount)
        steps = tuple(self.spans)
        if not steps or steps[0] != 1 or sorted(set(steps)) != list(steps):
            raise ValueError(f"`spans` ascend from 1, as in (1, 2, 4, 8); got {steps}.")

    def init(
        self, architecture: AbstractArchitecture, spec: Spec, *, key: PRNGKeyArray
    ) -> tuple[SurvivalParams, None]:
        hkey, akey, tkey = jr.split(key, 3)
        hazards = joint_network(architecture, spec, len(self.spans), key=hkey)
        actor = architecture.actor(spec, key=akey)
        return SurvivalParams(hazards, actor, self.actor.init(architecture, spec, key=tkey)), None

    def relabel(
        self, rows: AbstractRows, index: Int[Array, " batch"], *, key: PRNGKeyArray
    ) -> SurvivalBatch:
        gkey, ekey, akey = jr.split(key, 3)
        last, steps = rows.last(index), rows.take(index)
        later = self.goals(index, last, key=gkey)
        return SurvivalBatch(
            steps.observation,
            steps.action,
            rows.take(later).achieved,
            later - index,
            rows.take(self.elsewhere(index, last, key=ekey)).achieved,
            last - index,
            rows.take(self.actor_goals(index, last, key=akey)).achieved,
        )

    def loss(
        self, params: SurvivalParams, state: None, batch: SurvivalBatch, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        del state
        critic_loss, metrics = self._classify(params.hazards, batch)
        actor_loss, actor_metrics = self._actor(params, batch, key=key)
        metrics |= actor_metrics
        return critic_loss + actor_loss, metrics

    def advance(self, params: SurvivalParams, state: None) -> None:
        del params, state

    def policy(self, params: SurvivalParams, state: None) -> AbstractActor:
        del state
        return params.actor

    def score(
        self,
        params: SurvivalParams,
        state: None,
        observation: Float[Array, " obs"],
        action: Float[Array, " act"],
        goal: Float[Array, " goal"],
    ) -> Float[Array, ""]:
        del state
        return self.worth(params.hazards(observation, action, goal))

    def worth(self, logits: Logits) -> Float[Array, ""]:
        r"""$\log \sum_b \gamma^{k_b} P(b)$ from the logits of hazards."""
        alive = jnp.cumsum(jax.nn.log_sigmoid(-logits))
        before = jnp.pad(alive[:-1], (1, 0))
        steps = jnp.asarray(self.spans, jnp.float32)
        discounted = before + jax.nn.log_sigmoid(logits) + steps * math.log(self.discount)
        return jax.nn.logsumexp(discounted)

    def reached(self, logits: Logits, steps: Int[Array, ""]) -> Float[Array, ""]:
        """The loss of a goal that comes after so many steps; zero for none, as of a last row."""
        starts = jnp.asarray(self.spans)
        span = jnp.searchsorted(starts, steps, side="right") - 1
        came = jax.nn.one_hot(span, len(starts))
        passed = (jnp.arange(len(starts)) < span).astype(jnp.float32)
        return -jnp.sum(came * jax.nn.log_sigmoid(logits) + passed * jax.nn.log_sigmoid(-logits))

    def censored(self, logits: Logits, steps: Int[Array, ""]) -> Float[Array, ""]:
        """The loss of a goal that does not come in so many steps."""
        ends = jnp.asarray((*self.spans[1:], 2**31 - 1)) - 1
        passed = (ends <= steps).astype(jnp.float32)
        return -jnp.sum(passed * jax.nn.log_sigmoid(-logits))

    def _classify(
        self, hazards: JointNetwork, batch: SurvivalBatch
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        came, missed = (
            jax.vmap(hazards)(batch.observation, batch.action, goal)
            for goal in (batch.goal, batch.missed)
        )
        reached = jnp.mean(jax.vmap(self.reached)(came, batch.ahead))
        censored = jnp.mean(jax.vmap(self.censored)(missed, batch.left))
        loss = 0.5 * (reached + censored)
        return loss, {"critic/loss": loss, "critic/reached": reached, "critic/censored": censored}

    def _actor(
        self, params: SurvivalParams, batch: SurvivalBatch, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        hazards = frozen(params.hazards)
        rows = ActorBatch(batch.observation, batch.action, batch.actor_goal)

        def score(action: Float[Array, "batch act"]) -> Float[Array, " batch"]:
            return jax.vmap(self.worth)(jax.vmap(hazards)(rows.observation, action, rows.goal))

        policy, advantage = act(params.actor, rows), None
        if self.actor.needs_advantage:
            advantage = over_mode(score, policy, rows)
        return improve(
            self.actor,
            params.actor_term,
            policy,
            rows,
            score=score,
            advantage=advantage,
            key=key,
        )
