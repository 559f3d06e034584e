import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from crlx import (
    AbstractActor,
    AbstractArchitecture,
    AbstractEncoder,
    AbstractHindsight,
    AbstractPaced,
    AbstractRows,
    AbstractSharedCritic,
    Anywhere,
    Metrics,
    Pace,
    Spec,
    Uniform,
    frozen,
)

from ._actor_terms import AbstractActorTerm, ActorBatch, act, improve
from ._checks import check_positive
from ._climbing_terms import DDPGBC

Embeddings = Float[Array, "batch dim"]


class QRLParams(eqx.Module):
    """Minus the quasimetric, the model of its embeddings' dynamics, the multiplier's logarithm,
    and the policy."""

    critic: AbstractSharedCritic
    dynamics: AbstractEncoder | None
    log_multiplier: Float[Array, ""]
    actor: AbstractActor
    actor_term: PyTree


class QRLBatch(eqx.Module):
    """Rows with what followed, a state to keep far from, and a goal for the actor."""

    observation: Float[Array, "batch obs"]
    action: Float[Array, "batch act"]
    next_observation: Float[Array, "batch obs"]
    goal: Float[Array, "batch goal"]
    actor_goal: Float[Array, "batch goal"]


class QRL(AbstractPaced[QRLParams, None, QRLBatch]):
    r"""Quasimetric RL: states are as far apart as single steps of cost one allow.

    $$\max_\phi \; \overline{d(s, g)} \quad \text{subject to} \quad
      c = \overline{\max(0, d(s, s') - 1)^2} \le \epsilon,$$

    by $\overline{\mathrm{softplus}(\beta (b - d(s, g))) / \beta} + \mathrm{sg}(\lambda)\, c +
    \lambda\, \mathrm{sg}(\epsilon - c)$, where $\lambda = \exp(\cdot)$ ascends. A model predicts
    the embedding of the next state, $\hat z = z + f(z, a)$, and is trained with the embeddings by
    $\tfrac12 \overline{d(z', \hat z) + d(\hat z, z')}$. Actors get the score $-d(\hat z, z_g)$ and
    the advantage $d(s, g) - d(s', g)$.

    Goals are whole states. The architecture gives one encoder for both, `shared=True`, and a
    quasimetric such as `IQE`.

    **Arguments:**

    - `actor`: how distances become a policy. Without a score there is no model of the dynamics.
    - `goals`: states to keep far from.
    - `actor_goals`: where the actor's goals come from.
    - `epsilon`: the violation that is allowed, $\epsilon$.
    - `sharpness`: how suddenly that ends, $\beta$.
    - `offset`: distance beyond which states are no longer pushed apart, $b$.
    - `multiplier`: weight of the constraint at first, $\lambda$.
    - `multiplier_pace`: learning rate of the multiplier's logarithm, as a multiple of the
      networks'.

    ??? cite
        Wang et al., Optimal Goal-Reaching Reinforcement Learning via Quasimetric Learning (ICML
        2023); constants as in OGBench (Park et al., arXiv 2410.20092).
    """

    actor: AbstractActorTerm = eqx.field(default_factory=lambda: DDPGBC(0.003))
    goals: AbstractHindsight = eqx.field(default_factory=Anywhere)
    actor_goals: AbstractHindsight = eqx.field(default_factory=Uniform)
    epsilon: float = 0.05
    sharpness: float = 0.01
    offset: float = 500.0
    multiplier: float = 1.0
    multiplier_pace: float = 1.0

    def __check_init__(self):
        for name in ("epsilon", "sharpness", "multiplier", "multiplier_pace"):
            check_positive(name, getattr(self, name))

    def init(
        self, architecture: AbstractArchitecture, spec: Spec, *, key: PRNGKeyArray
    ) -> tuple[QRLParams, None]:
        if spec.goal_size != spec.observation_size:
            raise ValueError(
                f"QRL measures distances between states of {spec.observation_size} numbers, but "
                f"this task's goals have {spec.goal_size}: use an objective whose critic has an "
                "encoder for goals, such as Contrastive or GCIQL."
            )
        ckey, dkey, akey, tkey = jr.split(key, 4)
        critic = architecture.critic(dataclasses.replace(spec, action_size=0), key=ckey)
        if not isinstance(critic, AbstractSharedCritic):
            raise ValueError(
                "QRL needs one encoder for states and goals and a quasimetric: use an architecture "
                "with shared=True and an energy such as IQE()."
            )
        dynamics = None
        if self.actor.needs_score:
            dim = _dim(critic, spec)
            dynamics = architecture.encoder(dim + spec.action_size, dim, key=dkey)
        multiplier = jnp.log(jnp.asarray(self.multiplier, jnp.float32))
        actor = architecture.actor(spec, key=akey)
        term = self.actor.init(architecture, spec, key=tkey)
        return QRLParams(critic, dynamics, multiplier, actor, term), None

    def relabel(
        self, rows: AbstractRows, index: Int[Array, " batch"], *, key: PRNGKeyArray
    ) -> QRLBatch:
        gkey, akey = jr.split(key)
        last, steps, after = rows.last(index), rows.take(index), rows.take(index + 1)
        goal = rows.take(self.goals(index, last, key=gkey)).achieved
        actor_goal = rows.take(self.actor_goals(index, last, key=akey)).achieved
        return QRLBatch(steps.observation, steps.action, after.observation, goal, actor_goal)

    def loss(
        self, params: QRLParams, state: None, batch: QRLBatch, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        del state
        distance_loss, violation, metrics = self._distance(params, batch)
        multiplier = jnp.exp(params.log_multiplier)
        multiplier_loss = multiplier * (self.epsilon - jax.lax.stop_gradient(violation))
        actor_loss, actor_metrics = self._actor(params, batch, key=key)
        metrics |= {"multiplier/loss": multiplier_loss, "multiplier/value": multiplier}
        metrics |= actor_metrics
        return distance_loss + multiplier_loss + actor_loss, metrics

    def advance(self, params: QRLParams, state: None) -> None:
        del params, state

    def policy(self, params: QRLParams, state: None) -> AbstractActor:
        del state
        return params.actor

    def pace(self, state: None) -> Pace:
        del state
        return {} if self.multiplier_pace == 1 else {"log_multiplier": self.multiplier_pace}

    def _distance(
        self, params: QRLParams, batch: QRLBatch
    ) -> tuple[Float[Array, ""], Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The loss of embeddings and model, the constraint's value, and metrics."""
        critic = params.critic
        here, there, goal = (
            _embed(critic, x) for x in (batch.observation, batch.next_observation, batch.goal)
        )
        far, near = _distances(critic, here, goal), _distances(critic, here, there)
        push = jnp.mean(jax.nn.softplus(self.sharpness * (self.offset - far))) / self.sharpness
        violation = jnp.mean(jax.nn.relu(near - 1) ** 2)
        loss = push + jnp.exp(frozen(params.log_multiplier)) * violation
        metrics = {
            "critic/push": push,
            "critic/violation": violation,
            "critic/distance_goal": jnp.mean(far),
            "critic/distance_step": jnp.mean(near),
        }
        if params.dynamics is not None:
            guess = _predict(params.dynamics, here, batch.action)
            both = _distances(critic, there, guess) + _distances(critic, guess, there)
            metrics["critic/dynamics"] = 0.5 * jnp.mean(both)
            loss += metrics["critic/dynamics"]
        return loss, violation, {"critic/loss": loss, **metrics}

    def _actor(
        self, params: QRLParams, batch: QRLBatch, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        critic, dynamics = frozen(params.critic), frozen(params.dynamics)
        here, goal = _embed(critic, batch.observation), _embed(critic, batch.actor_goal)

        def score(action: Float[Array, "batch act"]) -> Float[Array, " batch"]:
            return -_distances(critic, _predict(dynamics, here, action), goal)

        advantage = None
        if self.actor.needs_advantage:
            there = _embed(critic, batch.next_observation)
            advantage = _distances(critic, here, goal) - _distances(critic, there, goal)
        rows = ActorBatch(batch.observation, batch.action, batch.actor_goal)
        return improve(
            self.actor,
            params.actor_term,
            act(params.actor, rows),
            rows,
            score=None if dynamics is None else score,
            advantage=advantage,
            key=key,
        )


def _embed(critic: AbstractSharedCritic, states: Float[Array, "batch obs"]) -> Embeddings:
    return jax.vmap(critic.embed)(states, states[:, :0])


def _distances(
    critic: AbstractSharedCritic, x: Embeddings, y: Embeddings
) -> Float[Array, " batch"]:
    return -jax.vmap(critic.compare)(x, y)


def _predict(
    dynamics: AbstractEncoder | None, here: Embeddings, action: Float[Array, "batch act"]
) -> Embeddings:
    assert dynamics is not None  # There is one wherever a score is needed.
    return here + jax.vmap(dynamics)(jnp.concatenate([here, action], axis=1))


def _dim(critic: AbstractSharedCritic, spec: Spec) -> int:
    state = jnp.zeros(spec.observation_size)
    return eqx.filter_eval_shape(critic.embed, state, state[:0]).shape[0]
