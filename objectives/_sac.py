import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from crlx import (
    AbstractActor,
    AbstractArchitecture,
    AbstractHindsight,
    AbstractRows,
    AbstractScoring,
    Ensemble,
    Metrics,
    Spec,
    frozen,
)

from ._actor_terms import act, improve, sample
from ._checks import check_between, check_share
from ._climbing_terms import MaxEntropy
from ._targets import polyak, target
from ._td import TDParams, init_td, regress
from ._transitions import Relabelling, Transitions, relabelled
from ._values import smallest


class SAC(AbstractScoring[TDParams, Ensemble, Transitions]):
    r"""Soft actor-critic, with goals and hindsight.

    $$L_Q = \tfrac12 \overline{(y - Q_e(s, a, g))^2}, \qquad
      y = r + \gamma m \left(\min_e \bar Q_e(s', a', g) - \alpha \log \pi(a' \mid s', g)\right),
      \quad a' \sim \pi(s', g),$$

    with slowly moving targets $\bar Q_e$. The actor climbs $\min_e Q_e$ and tunes $\alpha$.

    **Arguments:**

    - `actor`: the maximum-entropy term; it brings the temperature, $\alpha$.
    - `relabelling`: goals and rewards.
    - `actor_goals`: where the actor's goals come from; None for the critic's own.
    - `discount`: of later rewards, $\gamma$.
    - `target_rate`: how far targets go towards the critics after each update.

    ??? cite
        Haarnoja et al., Soft Actor-Critic Algorithms and Applications (2018).
    """

    actor: MaxEntropy = eqx.field(default_factory=MaxEntropy)
    relabelling: Relabelling = eqx.field(default_factory=Relabelling)
    actor_goals: AbstractHindsight | None = None
    discount: float = 0.99
    target_rate: float = 0.005

    def __check_init__(self):
        check_between("discount", self.discount)
        check_share("target_rate", self.target_rate)

    def init(
        self, architecture: AbstractArchitecture, spec: Spec, *, key: PRNGKeyArray
    ) -> tuple[TDParams, Ensemble]:
        params = init_td(architecture, spec, self.actor, key=key)
        return params, target(params.critic)

    def relabel(
        self, rows: AbstractRows, index: Int[Array, " batch"], *, key: PRNGKeyArray
    ) -> Transitions:
        goals = self.actor_goals
        return relabelled(self.relabelling, goals, rows, index, discount=self.discount, key=key)

    def loss(
        self, params: TDParams, state: Ensemble, batch: Transitions, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        nkey, akey = jr.split(key)
        wanted = self._wanted(frozen(params), frozen(state), batch, key=nkey)
        critic_loss, metrics = regress(params.critic, wanted, batch)
        critic = frozen(params.critic)

        def score(action: Float[Array, "batch act"]) -> Float[Array, " batch"]:
            return smallest(jax.vmap(critic)(batch.observation, action, batch.actor_goal))

        rows = batch.for_actor()
        actor_loss, actor_metrics = improve(
            self.actor,
            params.actor_term,
            act(params.actor, rows),
            rows,
            score=score,
            key=akey,
        )
        metrics |= actor_metrics
        return critic_loss + actor_loss, metrics

    def advance(self, params: TDParams, state: Ensemble) -> Ensemble:
        return polyak(state, params.critic, self.target_rate)

    def policy(self, params: TDParams, state: Ensemble) -> AbstractActor:
        del state
        return params.actor

    def score(
        self,
        params: TDParams,
        state: Ensemble,
        observation: Float[Array, " obs"],
        action: Float[Array, " act"],
        goal: Float[Array, " goal"],
    ) -> Float[Array, ""]:
        del state
        return jnp.min(params.critic(observation, action, goal))

    def _wanted(
        self, params: TDParams, slow: Ensemble, batch: Transitions, *, key: PRNGKeyArray
    ) -> Float[Array, " batch"]:
        policy = jax.vmap(params.actor)(batch.next_observation, batch.goal)
        action, log_prob = sample(policy, len(batch.reward), key=key)
        after = jax.vmap(slow)(batch.next_observation, jnp.clip(action, -1, 1), batch.goal)
        soft = jnp.min(after, axis=1) - jnp.exp(params.actor_term) * log_prob
        return batch.reward + self.discount * batch.mask * soft
