import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Logits = Float[Array, "batch batch"]


class AbstractContrast(eqx.Module):
    """A loss on the table of scores `S[i, j]` of state-action `i` with goal `j`.

    Positives are on the diagonal; every other goal of the minibatch is a negative.
    """

    @abc.abstractmethod
    def __call__(self, logits: Logits) -> Float[Array, ""]:
        """The loss."""

    @abc.abstractmethod
    def logsumexp(self, logits: Logits) -> Float[Array, " sums"]:
        """The log-sums over which the loss normalizes; the penalty keeps them near zero."""

    @abc.abstractmethod
    def log_ratio(self, logits: Logits) -> Logits:
        """The scores, mapped so that zero separates positives from negatives: the estimate of
        `log p(g | s, a) / p(g)` that the loss makes, for `Binary` less `log(B - 1)`, and for
        `IPO` of its sign alone."""


class AbstractSignedContrast(AbstractContrast):
    """A contrast that scores which are never positive cannot satisfy; an objective refuses it
    with minus a distance as the energy."""


class Forward(AbstractContrast):
    r"""InfoNCE over goals: $-\frac{1}{B} \sum_i [S_{ii} - \log \sum_j e^{S_{ij}}]$.

    Its optimum leaves an offset per state and action free, which would corrupt the choice of
    actions: use it with the log-sum-exp penalty.

    ??? cite
        The loss of Wang et al. (NeurIPS 2025) and of JaxGCRL.
    """

    def __call__(self, logits: Logits) -> Float[Array, ""]:
        return jnp.mean(self.logsumexp(logits) - jnp.diagonal(logits))

    def logsumexp(self, logits: Logits) -> Float[Array, " sums"]:
        return jax.nn.logsumexp(logits, axis=1)

    def log_ratio(self, logits: Logits) -> Logits:
        return normalized(logits, 1)


class Backward(AbstractContrast):
    r"""InfoNCE over states and actions: $-\frac{1}{B} \sum_j [S_{jj} - \log \sum_i e^{S_{ij}}]$.

    Its optimum leaves only an offset per goal free, which no choice of actions sees.
    """

    def __call__(self, logits: Logits) -> Float[Array, ""]:
        return jnp.mean(self.logsumexp(logits) - jnp.diagonal(logits))

    def logsumexp(self, logits: Logits) -> Float[Array, " sums"]:
        return jax.nn.logsumexp(logits, axis=0)

    def log_ratio(self, logits: Logits) -> Logits:
        return normalized(logits, 0)


class Symmetric(AbstractContrast):
    """The sum of `Forward` and `Backward`."""

    def __call__(self, logits: Logits) -> Float[Array, ""]:
        return Forward()(logits) + Backward()(logits)

    def logsumexp(self, logits: Logits) -> Float[Array, " sums"]:
        return jnp.concatenate([Forward().logsumexp(logits), Backward().logsumexp(logits)])

    def log_ratio(self, logits: Logits) -> Logits:
        return 0.5 * (normalized(logits, 1) + normalized(logits, 0))


class Binary(AbstractSignedContrast):
    r"""Noise-contrastive estimation with labels: the mean over all $B^2$ pairs of the binary
    cross-entropy between $\sigma(S_{ij})$ and $1[i = j]$.

    Needs an energy that takes both signs, such as `ScaledDot`.

    ??? cite
        The critic loss of OGBench's contrastive agent (Park et al., arXiv 2410.20092).
    """

    def __call__(self, logits: Logits) -> Float[Array, ""]:
        return jnp.mean(jax.nn.softplus(logits)) - jnp.trace(logits) / logits.size

    def logsumexp(self, logits: Logits) -> Float[Array, " sums"]:
        return jax.nn.logsumexp(logits, axis=1)

    def log_ratio(self, logits: Logits) -> Logits:
        return logits


def normalized(logits: Logits, axis: int) -> Logits:
    """The scores, shifted so that their exponentials average to one along an axis."""
    mean = jax.nn.logsumexp(logits, axis=axis, keepdims=True) - jnp.log(float(len(logits)))
    return logits - mean


def negatives(logits: Logits) -> Bool[Array, "batch batch"]:
    """Which pairs are off the diagonal."""
    if len(logits) < 2:
        raise ValueError("A contrast needs negatives: use a batch of at least 2 rows.")
    return ~jnp.eye(len(logits), dtype=bool)


def negative_means(table: Logits) -> Float[Array, " batch"]:
    """The mean of each row off the diagonal."""
    return jnp.sum(jnp.where(negatives(table), table, 0), axis=1) / (len(table) - 1)


def diagnostics(contrast: AbstractContrast, logits: Logits) -> dict[str, Float[Array, ""]]:
    """What a table of scores says about its critic.

    - `categorical_accuracy`: share of rows whose best goal is their own.
    - `binary_accuracy`: share of pairs told apart rightly by the sign of `log_ratio`. (The sign
      of the raw score would say nothing for energies that are never positive.)
    - `logits_positive`, `logits_negative`: mean score on and off the diagonal.
    - `logits_spread`: standard deviation of scores within a row, averaged.
    - `logsumexp`: mean of the log-sums.
    """
    size = len(logits)
    own = jnp.eye(size, dtype=bool)
    positive = jnp.trace(logits) / size
    negative = (jnp.sum(logits) - jnp.trace(logits)) / max(size * (size - 1), 1)
    best = jnp.argmax(logits, axis=1) == jnp.arange(size)
    told = (contrast.log_ratio(logits) > 0) == own
    return {
        "categorical_accuracy": jnp.mean(best.astype(logits.dtype)),
        "binary_accuracy": jnp.mean(told.astype(logits.dtype)),
        "logits_positive": positive,
        "logits_negative": negative,
        "logits_spread": jnp.mean(jnp.std(logits, axis=1)),
        "logsumexp": jnp.mean(contrast.logsumexp(logits)),
    }
