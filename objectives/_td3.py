import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from crlx import (
    AbstractActor,
    AbstractArchitecture,
    AbstractHindsight,
    AbstractPaced,
    AbstractRows,
    AbstractScoring,
    Ensemble,
    Metrics,
    Pace,
    Spec,
    frozen,
)

from ._actor_terms import AbstractActorTerm, act, improve, modes, over_mode
from ._checks import check_between, check_count, check_not_negative, check_share
from ._climbing_terms import Deterministic
from ._targets import polyak, target
from ._td import TDParams, init_td, regress
from ._transitions import Relabelling, Transitions, relabelled


class TD3State(eqx.Module):
    """Slowly moving targets, and the number of updates so far."""

    critic: Ensemble
    actor: AbstractActor
    updates: Int[Array, ""]


class TD3(
    AbstractPaced[TDParams, TD3State, Transitions],
    AbstractScoring[TDParams, TD3State, Transitions],
):
    r"""Twin delayed deterministic policy gradients, with goals and hindsight.

    $$L_Q = \tfrac12 \overline{(y - Q_e(s, a, g))^2}, \qquad
      y = r + \gamma m \min_e \bar Q_e(s', a', g), \qquad
      a' = \mathrm{clip}(\mathrm{clip}(\bar\mu(s', g)) + \epsilon).$$

    The actor climbs $Q_1$; with `DDPGBC` this is TD3+BC, for offline data. The actor, its state of
    the optimizer and all targets move at every `policy_delay`-th update only.

    **Arguments:**

    - `actor`: how values become a policy.
    - `relabelling`: goals and rewards.
    - `actor_goals`: where the actor's goals come from; None for the critic's own.
    - `discount`: of later rewards, $\gamma$.
    - `target_rate`: how far targets go when they move.
    - `policy_delay`: updates of the critic for each of the actor.
    - `target_noise`: standard deviation of the noise on the targets' actions, $\epsilon$.
    - `noise_clip`: greatest size of that noise.

    ??? cite
        Fujimoto et al., Addressing Function Approximation Error in Actor-Critic Methods (ICML
        2018); Fujimoto and Gu, A Minimalist Approach to Offline Reinforcement Learning (NeurIPS
        2021).
    """

    actor: AbstractActorTerm = eqx.field(default_factory=Deterministic)
    relabelling: Relabelling = eqx.field(default_factory=Relabelling)
    actor_goals: AbstractHindsight | None = None
    discount: float = 0.99
    target_rate: float = 0.005
    policy_delay: int = 2
    target_noise: float = 0.2
    noise_clip: float = 0.5

    def __check_init__(self):
        check_between("discount", self.discount)
        check_share("target_rate", self.target_rate)
        check_count("policy_delay", self.policy_delay)
        check_not_negative("target_noise", self.target_noise)
        check_not_negative("noise_clip", self.noise_clip)

    def init(
        self, architecture: AbstractArchitecture, spec: Spec, *, key: PRNGKeyArray
    ) -> tuple[TDParams, TD3State]:
        params = init_td(architecture, spec, self.actor, key=key)
        updates = jnp.zeros((), jnp.int32)
        return params, TD3State(target(params.critic), target(params.actor), updates)

    def relabel(
        self, rows: AbstractRows, index: Int[Array, " batch"], *, key: PRNGKeyArray
    ) -> Transitions:
        goals = self.actor_goals
        return relabelled(self.relabelling, goals, rows, index, discount=self.discount, key=key)

    def loss(
        self, params: TDParams, state: TD3State, batch: Transitions, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        nkey, akey = jr.split(key)
        wanted = self._wanted(frozen(state), batch, key=nkey)
        critic_loss, metrics = regress(params.critic, wanted, batch)
        critic = frozen(params.critic)

        def score(action: Float[Array, "batch act"]) -> Float[Array, " batch"]:
            return jax.vmap(critic)(batch.observation, action, batch.actor_goal)[:, 0]

        rows = batch.for_actor()
        policy, advantage = act(params.actor, rows), None
        if self.actor.needs_advantage:
            advantage = over_mode(score, policy, rows)
        actor_loss, actor_metrics = improve(
            self.actor,
            params.actor_term,
            policy,
            rows,
            score=score,
            advantage=advantage,
            key=akey,
        )
        metrics |= actor_metrics
        return critic_loss + actor_loss, metrics

    def advance(self, params: TDParams, state: TD3State) -> TD3State:
        due = self._due(state)
        return TD3State(
            polyak(state.critic, params.critic, self.target_rate, due=due),
            polyak(state.actor, params.actor, self.target_rate, due=due),
            state.updates + 1,
        )

    def policy(self, params: TDParams, state: TD3State) -> AbstractActor:
        del state
        return params.actor

    def score(
        self,
        params: TDParams,
        state: TD3State,
        observation: Float[Array, " obs"],
        action: Float[Array, " act"],
        goal: Float[Array, " goal"],
    ) -> Float[Array, ""]:
        del state
        return jnp.min(params.critic(observation, action, goal))

    def pace(self, state: TD3State) -> Pace:
        due = self._due(state)
        return {} if due is None else {"actor": due, "actor_term": due}

    def _due(self, state: TD3State) -> Float[Array, ""] | None:
        """1 where the actor and the targets move and 0 where they wait; None if they never wait."""
        if self.policy_delay == 1:
            return None
        return (state.updates % self.policy_delay == 0).astype(jnp.float32)

    def _wanted(
        self, slow: TD3State, batch: Transitions, *, key: PRNGKeyArray
    ) -> Float[Array, " batch"]:
        policy = jax.vmap(slow.actor)(batch.next_observation, batch.goal)
        mode = jnp.clip(modes(policy), -1, 1)
        noise = self.target_noise * jr.normal(key, mode.shape)
        noise = jnp.clip(noise, -self.noise_clip, self.noise_clip)
        action = jnp.clip(mode + noise, -1, 1)
        after = jax.vmap(slow.critic)(batch.next_observation, action, batch.goal)
        return batch.reward + self.discount * batch.mask * jnp.min(after, axis=1)
