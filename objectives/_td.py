import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from crlx import AbstractActor, AbstractArchitecture, ActionSpace, Ensemble, Spec, joint_critics

from ._actor_terms import AbstractActorTerm
from ._transitions import Transitions


class TDParams(eqx.Module):
    """Two values of actions, and the policy."""

    critic: Ensemble
    actor: AbstractActor
    actor_term: PyTree


def init_td(
    architecture: AbstractArchitecture, spec: Spec, term: AbstractActorTerm, *, key: PRNGKeyArray
) -> TDParams:
    """Networks for an objective whose policy is asked what it would do next."""
    if spec.actions is not ActionSpace.BOX:
        raise ValueError(
            "TD3 and SAC ask their policy what it would do next, in a box of actions, but those of "
            f"this task are of the kind {spec.actions.name}: use GCIQL or Contrastive with AWR."
        )
    ckey, akey, tkey = jr.split(key, 3)
    critic = joint_critics(architecture, spec, 2, key=ckey)
    actor = architecture.actor(spec, key=akey)
    return TDParams(critic, actor, term.init(architecture, spec, key=tkey))


def regress(
    critic: Ensemble, wanted: Float[Array, " batch"], batch: Transitions
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    r"""$\tfrac12 \overline{(y - Q_e(s, a, g))^2}$ over rows and members."""
    q = jax.vmap(critic)(batch.observation, batch.action, batch.goal)
    loss = 0.5 * jnp.mean((wanted[:, None] - q) ** 2)
    return loss, {
        "critic/loss": loss,
        "critic/mean": jnp.mean(q),
        "critic/target": jnp.mean(wanted),
        "critic/disagreement": jnp.mean(jnp.std(q, axis=1)),
    }
