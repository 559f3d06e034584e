import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._contrasts import (
    AbstractContrast,
    AbstractSignedContrast,
    Logits,
    negative_means,
    normalized,
)

# Losses by which language models learn what people prefer, with the goal that was reached
# preferred to each goal that was not.


class DPO(AbstractContrast):
    r"""Direct preference optimization, the logistic loss of each negative against its positive:
    $-\frac{1}{B (B - 1)} \sum_{i \neq j} \log \sigma(S_{ii} - S_{ij})$.

    The optimum, at any batch size, is $\log p(g \mid s, a) / p(g)$ plus an offset of state and
    action, which is free: use it with the log-sum-exp penalty.

    The mean over all $B^2$ pairs in JaxGCRL is $[(B - 1) \ell + \log 2] / B$ of this value $\ell$:
    pairs on the diagonal add a constant.

    ??? cite
        Rafailov et al., Direct Preference Optimization (NeurIPS 2023); for contrastive RL,
        Bortkiewicz et al., JaxGCRL (2024).
    """

    def __call__(self, logits: Logits) -> Float[Array, ""]:
        return jnp.mean(negative_means(jax.nn.softplus(-_gaps(logits))))

    def logsumexp(self, logits: Logits) -> Float[Array, " sums"]:
        return jax.nn.logsumexp(logits, axis=1)

    def log_ratio(self, logits: Logits) -> Logits:
        return normalized(logits, 1)


class IPO(AbstractContrast):
    r"""Identity preference optimization, a least-squares fit of each positive to one more than
    its negatives: $\frac{1}{B (B - 1)} \sum_{i \neq j} (S_{ii} - S_{ij} - 1)^2$.

    With $r = p(g \mid s, a) / p(g)$, the optimum, at any batch size, is
    $k \tanh(\frac{1}{2} \log r)$ plus an offset, which is free: use it with the log-sum-exp
    penalty. Like the offset, $k = 2 / (2 + \sum_g [p(g \mid s, a) - p(g)]^2 / [p(g \mid s, a) +
    p(g)])$ depends on state and action. Goals of one state and action are in the right order,
    but actions need not be.

    `log_ratio` is each row less the middle between its positive and the mean of its negatives,
    which in expectation is the offset. Only its sign is that of $\log r$.

    The mean over all $B^2$ pairs in JaxGCRL is $[(B - 1) \ell + 1] / B$ of this value $\ell$:
    pairs on the diagonal add a constant.

    ??? cite
        Azar et al., A General Theoretical Paradigm to Understand Learning from Human Preferences
        (arXiv 2310.12036); for contrastive RL, Bortkiewicz et al., JaxGCRL (2024).
    """

    def __call__(self, logits: Logits) -> Float[Array, ""]:
        return jnp.mean(negative_means((_gaps(logits) - 1) ** 2))

    def logsumexp(self, logits: Logits) -> Float[Array, " sums"]:
        return jax.nn.logsumexp(logits, axis=1)

    def log_ratio(self, logits: Logits) -> Logits:
        middle = 0.5 * (jnp.diagonal(logits) + negative_means(logits))
        return logits - middle[:, None]


class SPPO(AbstractSignedContrast):
    r"""Self-play preference optimization, a least-squares fit of positives to 1 and of negatives
    to -1: $\frac{1}{B} \sum_i [(S_{ii} - 1)^2 + \frac{1}{B - 1} \sum_{j \neq i} (S_{ij} + 1)^2]$.

    With $r = p(g \mid s, a) / p(g)$, the optimum, at any batch size, is
    $\tanh(\frac{1}{2} \log r)$, and `log_ratio` is $\log (1 + S) / (1 - S)$, with $1 + S$ and
    $1 - S$ held above the rounding error of 1. Nothing is left free: use it without the
    log-sum-exp penalty.

    Needs an energy that takes both signs, such as `ScaledDot`. JaxGCRL weighs negatives by
    $(B - 1) / B$, which moves the optimum a little.

    ??? cite
        Wu et al., Self-Play Preference Optimization for Language Model Alignment (arXiv
        2405.00675); for contrastive RL, Bortkiewicz et al., JaxGCRL (2024).
    """

    def __call__(self, logits: Logits) -> Float[Array, ""]:
        return jnp.mean((jnp.diagonal(logits) - 1) ** 2 + negative_means((logits + 1) ** 2))

    def logsumexp(self, logits: Logits) -> Float[Array, " sums"]:
        return jax.nn.logsumexp(logits, axis=1)

    def log_ratio(self, logits: Logits) -> Logits:
        least = jnp.finfo(logits.dtype).eps - 1
        return jnp.log1p(jnp.maximum(logits, least)) - jnp.log1p(jnp.maximum(-logits, least))


def _gaps(logits: Logits) -> Logits:
    return jnp.diagonal(logits)[:, None] - logits
