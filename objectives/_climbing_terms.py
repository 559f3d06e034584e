import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from crlx import AbstractArchitecture, AbstractConstantEntropy, Spec

from ._actor_terms import (
    AbstractActorTerm,
    check_box,
    log_probs,
    modes,
    sample,
    saturation,
    supplied,
)
from ._box import into_box
from ._checks import check_not_negative, check_positive


class DDPGBC(AbstractActorTerm):
    r"""Deterministic policy gradient with behavioural cloning:

    $$-\overline{q} / (\mathrm{sg}\,\overline{|q|} + 10^{-6})
      - \alpha\, \overline{\log \pi(a_{data} \mid s, g)},$$

    where $q$ is the score of the policy's mode, clipped to [-1, 1]. (For policies whose standard
    deviation depends on the state, OGBench takes a sample in its place.)

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
        check_not_negative("alpha", self.alpha)

    def init(self, architecture: AbstractArchitecture, spec: Spec, *, key: PRNGKeyArray) -> None:
        del architecture, key
        check_box("DDPGBC", spec)

    def __call__(self, trainables, policy, batch, *, score, advantage, key):
        del trainables, advantage, key
        mode = modes(policy)
        q = supplied(score)(into_box(mode) if self.recover else jnp.clip(mode, -1, 1))
        scale = jax.lax.stop_gradient(jnp.mean(jnp.abs(q)))
        log_prob = jnp.mean(log_probs(policy, batch.action))
        loss = -jnp.mean(q) / (scale + 1e-6) - self.alpha * log_prob
        return loss, {"actor/q": jnp.mean(q), "actor/log_prob": log_prob, **saturation(mode)}


class Deterministic(AbstractActorTerm):
    r"""Climbs the score: $-\overline{q}$, where $q$ is the score of the policy's mode, clipped to
    [-1, 1]. Modes that have left the box are drawn back to it.

    ??? cite
        Silver et al., Deterministic Policy Gradient Algorithms (ICML 2014).
    """

    needs_score: ClassVar[bool] = True
    needs_advantage: ClassVar[bool] = False

    def init(self, architecture: AbstractArchitecture, spec: Spec, *, key: PRNGKeyArray) -> None:
        del architecture, key
        check_box("Deterministic", spec)

    def __call__(self, trainables, policy, batch, *, score, advantage, key):
        del trainables, advantage, key
        mode = modes(policy)
        q = jnp.mean(supplied(score)(into_box(mode)))
        return -q, {"actor/q": q, **saturation(mode)}


class MaxEntropy(AbstractActorTerm):
    r"""The soft actor, with a temperature that holds entropy at a target $H$:

    $$\overline{\mathrm{sg}(\alpha) \log \pi(a \mid s, g) - q(a)}
      + \alpha\, \mathrm{sg}(\overline{-\log \pi} - H), \quad a \sim \pi.$$

    **Arguments:**

    - `target_entropy`: the entropy to hold, $H$, in nats; None for minus half the size of the
      action.
    - `temperature`: where $\alpha$ starts. The paper's 1 makes the policy nearly uniform for the
      first thousands of updates.

    ??? cite
        Haarnoja et al., Soft Actor-Critic (2018); the actor of Wang et al. (NeurIPS 2025).
    """

    target_entropy: float | None = None
    temperature: float = 1.0
    needs_score: ClassVar[bool] = True
    needs_advantage: ClassVar[bool] = False

    def __check_init__(self):
        check_positive("temperature", self.temperature)

    def init(
        self, architecture: AbstractArchitecture, spec: Spec, *, key: PRNGKeyArray
    ) -> Float[Array, ""]:
        """The logarithm of the temperature."""
        check_box("MaxEntropy", spec)
        actor = eqx.filter_eval_shape(architecture.actor, spec, key=key)
        if isinstance(actor, AbstractConstantEntropy):
            raise ValueError(
                "MaxEntropy holds entropy at a target, but the standard deviation of this "
                "architecture's actor is constant: use one such as "
                "ResidualNetworks(squashed=True)."
            )
        return jnp.asarray(math.log(self.temperature), jnp.float32)

    def __call__(self, trainables, policy, batch, *, score, advantage, key):
        del advantage
        action, log_prob = sample(policy, len(batch.action), key=key)
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
