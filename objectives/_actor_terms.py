import abc
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from crlx import (
    AbstractActor,
    AbstractArchitecture,
    AbstractChoice,
    AbstractDistribution,
    ActionSpace,
    Metrics,
    Spec,
    frozen,
)

from ._checks import check_not_negative, check_positive

if TYPE_CHECKING:
    from typing import ClassVar as AbstractClassVar  # What type checkers take it for.
else:
    from equinox import AbstractClassVar

Supplied = TypeVar("Supplied")
Score = Callable[[Float[Array, "batch act"]], Float[Array, " batch"]]


class ActorBatch(eqx.Module):
    """What an actor term reads: states, the actions taken there, and goals."""

    observation: Float[Array, "batch obs"]
    action: Float[Array, "batch act"]
    goal: Float[Array, "batch goal"]


class AbstractActorTerm(eqx.Module):
    """How a critic's scores become a policy. A field of every objective that needs an actor.

    `needs_score` and `needs_advantage` say what the objective must supply; one that cannot
    refuses the term when it is built.
    """

    needs_score: AbstractClassVar[bool]
    needs_advantage: AbstractClassVar[bool]

    @abc.abstractmethod
    def init(self, architecture: AbstractArchitecture, spec: Spec, *, key: PRNGKeyArray) -> PyTree:
        """The term's own trainables, or None."""

    @abc.abstractmethod
    def __call__(
        self,
        trainables: PyTree,
        policy: AbstractDistribution,
        batch: ActorBatch,
        *,
        score: Score | None,
        advantage: Float[Array, " batch"] | None,
        key: PRNGKeyArray,
    ) -> tuple[Float[Array, ""], Metrics]:
        """**Arguments:**

        - `trainables`: what `init` returned.
        - `policy`: the actor's distributions in the states and for the goals of the batch, with
          a leading axis: see `act`.
        - `batch`: the minibatch.
        - `score`: the frozen critic's values of actions, in the states and for the goals of
          the batch.
        - `advantage`: one number per row, for the actions of the batch.

        **Returns:** the loss and metrics named `actor/name`.
        """


class AWR(AbstractActorTerm):
    r"""Advantage-weighted regression:
    $-\overline{w \log \pi(a_{data} \mid s, g)}$ with $w = \mathrm{sg} \min(e^{\alpha A}, cap)$.

    **Arguments:**

    - `alpha`: inverse temperature of the weights.
    - `cap`: largest weight.

    ??? cite
        Park et al., OGBench (arXiv 2410.20092).
    """

    alpha: float = 10.0
    cap: float = 100.0
    needs_score: ClassVar[bool] = False
    needs_advantage: ClassVar[bool] = True

    def __check_init__(self):
        check_not_negative("alpha", self.alpha)
        check_positive("cap", self.cap)

    def init(self, architecture: AbstractArchitecture, spec: Spec, *, key: PRNGKeyArray) -> None:
        del architecture, spec, key

    def __call__(self, trainables, policy, batch, *, score, advantage, key):
        del trainables, score, key
        advantage = jax.lax.stop_gradient(supplied(advantage))
        weight = jnp.exp(jnp.minimum(self.alpha * advantage, math.log(self.cap)))
        log_prob = log_probs(policy, batch.action)
        return -jnp.mean(weight * log_prob), {
            "actor/advantage": jnp.mean(advantage),
            "actor/weight": jnp.mean(weight),
            "actor/log_prob": jnp.mean(log_prob),
            **mode_metrics(policy, batch),
        }


def improve(
    term: AbstractActorTerm,
    trainables: PyTree,
    policy: AbstractDistribution,
    batch: ActorBatch,
    *,
    score: Score | None = None,
    advantage: Float[Array, " batch"] | None = None,
    key: PRNGKeyArray,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """An objective's loss of its actor, and metrics, `actor/loss` among them."""
    loss, metrics = term(trainables, policy, batch, score=score, advantage=advantage, key=key)
    return loss, {"actor/loss": loss, **metrics}


def act(actor: AbstractActor, batch: ActorBatch) -> AbstractDistribution:
    """The policy's distributions, with a leading batch axis."""
    return jax.vmap(actor)(batch.observation, batch.goal)


def sample(
    policy: AbstractDistribution, size: int, *, key: PRNGKeyArray
) -> tuple[Float[Array, "batch act"], Float[Array, " batch"]]:
    """One action from each of `size` distributions, and their log-densities."""
    return jax.vmap(lambda p, k: p.sample_and_log_prob(key=k))(policy, jr.split(key, size))


def modes(policy: AbstractDistribution) -> Float[Array, "batch act"]:
    """The actions of batched distributions without noise."""
    return jax.vmap(lambda p: p.mode())(policy)


def log_probs(
    policy: AbstractDistribution, action: Float[Array, "batch act"]
) -> Float[Array, " batch"]:
    """Log-densities under batched distributions."""
    return jax.vmap(lambda p, a: p.log_prob(a))(policy, action)


def saturation(action: Float[Array, "batch act"]) -> dict[str, Float[Array, ""]]:
    """The share of action components at or beyond 0.999 in size."""
    return {"actor/saturated": jnp.mean((jnp.abs(action) >= 0.999).astype(action.dtype))}


def mode_metrics(policy: AbstractDistribution, batch: ActorBatch) -> dict[str, Float[Array, ""]]:
    """What the actions without noise are like: `actor/saturated`, or, among finitely many actions,
    `actor/accuracy`, the share of rows whose action is that of the data."""
    action = modes(policy)
    if not isinstance(policy, AbstractChoice):
        return saturation(action)
    right = jnp.argmax(action, axis=1) == jnp.argmax(batch.action, axis=1)
    return {"actor/accuracy": jnp.mean(right.astype(action.dtype))}


def check_box(term: str, spec: Spec) -> None:
    """Raises `ValueError` unless actions can be improved along a gradient within a box."""
    if spec.actions is not ActionSpace.BOX:
        raise ValueError(
            f"{term} follows the gradient of the score with respect to actions in a box, but those "
            f"of this task are of the kind {spec.actions.name}: use AWR."
        )


def supplied(value: Supplied | None) -> Supplied:
    """What the objective passed, which a term that declares its need may rely on."""
    if value is None:
        raise ValueError("The objective does not supply what its actor term declares to need.")
    return value


def over_mode(
    score: Score, policy: AbstractDistribution, batch: ActorBatch
) -> Float[Array, " batch"]:
    """The advantage of the data's actions over the policy's own, which is not trained by it."""
    mode = modes(frozen(policy))
    return score(batch.action) - score(jnp.clip(mode, -1, 1))


def refuse_score(actor: AbstractActorTerm, objective: str, values: str) -> None:
    """Raises `ValueError` if the actor wants scores of actions, where there are none."""
    if actor.needs_score:
        raise ValueError(
            f"{objective} learns {values}, which cannot score the actions that "
            f"{type(actor).__name__} asks about: use AWR, or an objective that scores actions, "
            "such as GCIQL."
        )
