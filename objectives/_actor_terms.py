import abc
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
)

from ._box import into_box

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
        actor: AbstractActor,
        batch: ActorBatch,
        *,
        score: Score | None,
        advantage: Float[Array, " batch"] | None,
        key: PRNGKeyArray,
    ) -> tuple[Float[Array, ""], Metrics]:
        """**Arguments:**

        - `trainables`: what `init` returned.
        - `actor`: the policy.
        - `batch`: the minibatch.
        - `score`: the frozen critic's values of actions, in the states and for the goals of
          the batch.
        - `advantage`: one number per row, for the actions of the batch.

        **Returns:** the loss and metrics named `actor/name`.
        """


class DDPGBC(AbstractActorTerm):
    r"""Deterministic policy gradient with behavioural cloning:

    $$-\overline{q} / (\mathrm{sg}\,\overline{|q|} + 10^{-6})
      - \alpha\, \overline{\log \pi(a_{data} \mid s, g)},$$

    where $q$ is the score of the policy's mode, clipped to [-1, 1].

    **Arguments:**

    - `alpha`: weight of cloning.
    - `recover`: let the score draw modes that have left the box back to it. In OGBench only
      cloning does, which takes long where its weight is small.

    ??? cite
        Park et al., OGBench (arXiv 2410.20092).
    """

    alpha: float = 0.1
    recover: bool = False
    needs_score: ClassVar[bool] = True
    needs_advantage: ClassVar[bool] = False

    def __check_init__(self):
        _check_non_negative("alpha", self.alpha)

    def init(self, architecture: AbstractArchitecture, spec: Spec, *, key: PRNGKeyArray) -> None:
        del architecture, key
        check_box("DDPGBC", spec)

    def __call__(self, trainables, actor, batch, *, score, advantage, key):
        del trainables, advantage, key
        policy = act(actor, batch)
        mode = modes(policy)
        q = supplied(score)(into_box(mode) if self.recover else jnp.clip(mode, -1, 1))
        scale = jax.lax.stop_gradient(jnp.mean(jnp.abs(q)))
        log_prob = jnp.mean(log_probs(policy, batch.action))
        loss = -jnp.mean(q) / (scale + 1e-6) - self.alpha * log_prob
        return loss, {"actor/q": jnp.mean(q), "actor/log_prob": log_prob, **saturation(mode)}


class Deterministic(AbstractActorTerm):
    r"""Climbs the score: $-\overline{q}$, where $q$ is the score of the policy's mode, clipped to
    [-1, 1].

    ??? cite
        Silver et al., Deterministic Policy Gradient Algorithms (ICML 2014).
    """

    needs_score: ClassVar[bool] = True
    needs_advantage: ClassVar[bool] = False

    def init(self, architecture: AbstractArchitecture, spec: Spec, *, key: PRNGKeyArray) -> None:
        del architecture, key
        check_box("Deterministic", spec)

    def __call__(self, trainables, actor, batch, *, score, advantage, key):
        del trainables, advantage, key
        mode = modes(act(actor, batch))
        q = jnp.mean(supplied(score)(into_box(mode)))
        return -q, {"actor/q": q, **saturation(mode)}


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
        _check_non_negative("alpha", self.alpha)
        _check_non_negative("cap", self.cap)

    def init(self, architecture: AbstractArchitecture, spec: Spec, *, key: PRNGKeyArray) -> None:
        del architecture, spec, key

    def __call__(self, trainables, actor, batch, *, score, advantage, key):
        del trainables, score, key
        policy = act(actor, batch)
        advantage = jax.lax.stop_gradient(supplied(advantage))
        weight = jnp.minimum(jnp.exp(self.alpha * advantage), self.cap)
        log_prob = log_probs(policy, batch.action)
        return -jnp.mean(weight * log_prob), {
            "actor/advantage": jnp.mean(advantage),
            "actor/weight": jnp.mean(weight),
            "actor/log_prob": jnp.mean(log_prob),
            **mode_metrics(policy, batch),
        }


class MaxEntropy(AbstractActorTerm):
    r"""The soft actor, with a temperature that holds entropy at a target $H$:

    $$\overline{\mathrm{sg}(\alpha) \log \pi(a \mid s, g) - q(a)}
      + \alpha\, \mathrm{sg}(\overline{-\log \pi} - H), \quad a \sim \pi.$$

    **Arguments:**

    - `target_entropy`: the entropy to hold, $H$, in nats; None for minus half the size of the
      action.

    ??? cite
        Haarnoja et al., Soft Actor-Critic (2018); the actor of Wang et al. (NeurIPS 2025).
    """

    target_entropy: float | None = None
    needs_score: ClassVar[bool] = True
    needs_advantage: ClassVar[bool] = False

    def init(
        self, architecture: AbstractArchitecture, spec: Spec, *, key: PRNGKeyArray
    ) -> Float[Array, ""]:
        """The logarithm of the temperature."""
        del architecture, key
        check_box("MaxEntropy", spec)
        return jnp.zeros((), jnp.float32)

    def __call__(self, trainables, actor, batch, *, score, advantage, key):
        del advantage
        action, log_prob = sample(act(actor, batch), len(batch.action), key=key)
        q = supplied(score)(jnp.clip(action, -1, 1))
        target = self.target_entropy
        target = -0.5 * batch.action.shape[-1] if target is None else target
        alpha, entropy = jnp.exp(trainables), -jnp.mean(log_prob)
        loss = jnp.mean(jax.lax.stop_gradient(alpha) * log_prob - q)
        loss += alpha * jax.lax.stop_gradient(entropy - target)
        return loss, {
            "actor/q": jnp.mean(q),
            "actor/entropy": entropy,
            "actor/temperature": alpha,
            **saturation(action),
        }


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
    """Raises `ValueError` where no gradient with respect to actions is to be had."""
    if spec.actions is ActionSpace.CHOICE:
        raise ValueError(
            f"{term} follows the gradient of the score with respect to actions, but this task's "
            "are finitely many: use AWR."
        )


def supplied(value: Supplied | None) -> Supplied:
    """What the objective passed, which a term that declares its need may rely on."""
    if value is None:
        raise ValueError("The objective does not supply what its actor term declares to need.")
    return value


def _check_non_negative(name: str, value: float) -> None:
    if not value >= 0:
        raise ValueError(f"`{name}` must not be negative; got {value}.")
