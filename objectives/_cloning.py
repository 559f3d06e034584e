import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from crlx import (
    AbstractActor,
    AbstractArchitecture,
    AbstractHindsight,
    AbstractObjective,
    AbstractRows,
    Metrics,
    Spec,
    Uniform,
)

from ._actor_terms import ActorBatch, act, log_probs, saturation


class GCBCParams(eqx.Module):
    """Cloning trains nothing but the actor."""

    actor: AbstractActor


class GCBC(AbstractObjective[GCBCParams, None, ActorBatch]):
    r"""Goal-conditioned behavioural cloning: $-\overline{\log \pi(a \mid s, g)}$, with `g` a later
    state of the same trajectory.

    **Arguments:**

    - `goals`: where goals come from.

    ??? cite
        Lynch et al. (2020); Ghosh et al. (2021); as in OGBench (Park et al., arXiv 2410.20092).
    """

    goals: AbstractHindsight = eqx.field(default_factory=Uniform)

    def init(
        self, architecture: AbstractArchitecture, spec: Spec, *, key: PRNGKeyArray
    ) -> tuple[GCBCParams, None]:
        return GCBCParams(architecture.actor(spec, key=key)), None

    def relabel(
        self, rows: AbstractRows, index: Int[Array, " batch"], *, key: PRNGKeyArray
    ) -> ActorBatch:
        steps = rows.take(index)
        goal = rows.take(self.goals(index, rows.last(index), key=key)).achieved
        return ActorBatch(steps.observation, steps.action, goal)

    def loss(
        self, params: GCBCParams, state: None, batch: ActorBatch, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        del state, key
        policy = act(params.actor, batch)
        mode = jax.vmap(lambda p: p.mode())(policy)
        log_prob = jnp.mean(log_probs(policy, batch.action))
        error = jnp.mean((mode - batch.action) ** 2)
        metrics = {"actor/loss": -log_prob, "actor/log_prob": log_prob, "actor/mse": error}
        return -log_prob, {**metrics, **saturation(mode)}

    def advance(self, params: GCBCParams, state: None) -> None:
        del params, state

    def policy(self, params: GCBCParams, state: None) -> AbstractActor:
        del state
        return params.actor
