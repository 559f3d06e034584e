import dataclasses

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from crlx import (
    AbstractActor,
    AbstractArchitecture,
    AbstractChoice,
    AbstractDistribution,
    AbstractHindsight,
    AbstractObjective,
    AbstractRows,
    Affine,
    Metrics,
    Spec,
    Uniform,
)

from ._actor_terms import ActorBatch, act, log_probs, mode_metrics, modes


class CloningParams(eqx.Module):
    """Cloning trains nothing but the actor."""

    actor: AbstractActor


class GoalBlind(AbstractActor):
    """A policy that does not look at the goal."""

    inner: AbstractActor

    def __call__(
        self, observation: Float[Array, " obs"], goal: Float[Array, " goal"]
    ) -> AbstractDistribution:
        return self.inner(observation, goal[:0])


class BC(AbstractObjective[CloningParams, None, ActorBatch]):
    r"""Behavioural cloning, without goals: $-\overline{\log \pi(a \mid s)}$."""

    def init(
        self, architecture: AbstractArchitecture, spec: Spec, *, key: PRNGKeyArray
    ) -> tuple[CloningParams, None]:
        spec = dataclasses.replace(spec, goal_size=0, goal_units=Affine())
        return CloningParams(GoalBlind(architecture.actor(spec, key=key))), None

    def relabel(
        self, rows: AbstractRows, index: Int[Array, " batch"], *, key: PRNGKeyArray
    ) -> ActorBatch:
        del key
        steps = rows.take(index)
        return ActorBatch(steps.observation, steps.action, steps.achieved[:, :0])

    def loss(
        self, params: CloningParams, state: None, batch: ActorBatch, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        del state, key
        return _clone(params.actor, batch, jnp.ones(len(batch.action)))

    def advance(self, params: CloningParams, state: None) -> None:
        del params, state

    def policy(self, params: CloningParams, state: None) -> AbstractActor:
        del state
        return params.actor


class GCBC(AbstractObjective[CloningParams, None, ActorBatch]):
    r"""Goal-conditioned behavioural cloning: $-\overline{\log \pi(a \mid s, g)}$, with `g` a later
    state of the same trajectory.

    **Arguments:**

    - `goals`: where goals come from. Online, `Geometric` gives the goals of contrastive RL.

    ??? cite
        Lynch et al. (2020); Ghosh et al. (2021); as in OGBench (Park et al., arXiv 2410.20092).
    """

    goals: AbstractHindsight = eqx.field(default_factory=Uniform)

    def init(
        self, architecture: AbstractArchitecture, spec: Spec, *, key: PRNGKeyArray
    ) -> tuple[CloningParams, None]:
        return CloningParams(architecture.actor(spec, key=key)), None

    def relabel(
        self, rows: AbstractRows, index: Int[Array, " batch"], *, key: PRNGKeyArray
    ) -> ActorBatch:
        steps = rows.take(index)
        goal = rows.take(self.goals(index, rows.last(index), key=key)).achieved
        return ActorBatch(steps.observation, steps.action, goal)

    def loss(
        self, params: CloningParams, state: None, batch: ActorBatch, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        del state, key
        return _clone(params.actor, batch, jnp.ones(len(batch.action)))

    def advance(self, params: CloningParams, state: None) -> None:
        del params, state

    def policy(self, params: CloningParams, state: None) -> AbstractActor:
        del state
        return params.actor


class GCSLBatch(eqx.Module):
    """Rows with a later state as the goal, and how many such states there are."""

    rows: ActorBatch
    later: Float[Array, " batch"]


class GCSL(AbstractObjective[CloningParams, None, GCSLBatch]):
    r"""Goal-conditioned supervised learning: cloning with pairs of distinct times, drawn uniformly
    from a trajectory, of which the earlier is the state and the later the goal.

    Such a pair begins at a row in proportion to the number $n$ of rows that follow it, whereas
    rows are drawn uniformly: they are weighted by $n / \overline{n}$, so that all pairs of the data
    count alike. A last row begins none.

    ??? cite
        Ghosh et al., Learning to Reach Goals via Iterated Supervised Learning (ICLR 2021).
    """

    def init(
        self, architecture: AbstractArchitecture, spec: Spec, *, key: PRNGKeyArray
    ) -> tuple[CloningParams, None]:
        return CloningParams(architecture.actor(spec, key=key)), None

    def relabel(
        self, rows: AbstractRows, index: Int[Array, " batch"], *, key: PRNGKeyArray
    ) -> GCSLBatch:
        steps, last = rows.take(index), rows.last(index)
        goal = rows.take(Uniform()(index, last, key=key)).achieved
        batch = ActorBatch(steps.observation, steps.action, goal)
        return GCSLBatch(batch, (last - index).astype(jnp.float32))

    def loss(
        self, params: CloningParams, state: None, batch: GCSLBatch, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        del state, key
        weight = batch.later / jnp.maximum(jnp.mean(batch.later), 1e-6)
        return _clone(params.actor, batch.rows, weight)

    def advance(self, params: CloningParams, state: None) -> None:
        del params, state

    def policy(self, params: CloningParams, state: None) -> AbstractActor:
        del state
        return params.actor


def _clone(
    actor: AbstractActor, batch: ActorBatch, weight: Float[Array, " batch"]
) -> tuple[Float[Array, ""], Metrics]:
    """Minus the weighted mean of the log-densities of the data's actions."""
    policy = act(actor, batch)
    log_prob = log_probs(policy, batch.action)
    loss = -jnp.mean(weight * log_prob)
    metrics = {"actor/loss": loss, "actor/log_prob": jnp.mean(log_prob)}
    if not isinstance(policy, AbstractChoice):
        metrics["actor/mse"] = jnp.mean((modes(policy) - batch.action) ** 2)
    return loss, {**metrics, **mode_metrics(policy, batch)}
