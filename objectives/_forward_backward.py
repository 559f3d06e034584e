import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._contrasts import AbstractSignedContrast, Logits, negative_means


class ForwardBackward(AbstractSignedContrast):
    r"""The loss of forward-backward representations, a least-squares fit of the density ratio:
    $\frac{1}{B} \sum_i [-S_{ii} + \frac{1}{2 (B - 1)} \sum_{j \neq i} S_{ij}^2]$.

    Scores are ratios, not their logarithms: the optimum, at any batch size, is
    $S = p(g \mid s, a) / p(g)$, and `log_ratio` is $\log S$, with scores that are not positive
    raised to the smallest number that is. Nothing is left free: use it without the log-sum-exp
    penalty, which would pull the scores away from the ratio.

    Needs an energy that takes both signs, such as `ScaledDot`. Not the sum of `Forward`
    and `Backward`, which is `Symmetric`: the name is that of the two factors of the ratio.

    ??? cite
        Touati and Ollivier, Learning One Representation to Optimize All Rewards (NeurIPS 2021),
        with sampled futures in place of bootstrapped ones, as in Bortkiewicz et al., JaxGCRL
        (2024). For the fit, Kanamori et al., A Least-squares Approach to Direct Importance
        Estimation (JMLR 2009).
    """

    def __call__(self, logits: Logits) -> Float[Array, ""]:
        return jnp.mean(0.5 * negative_means(logits**2) - jnp.diagonal(logits))

    def logsumexp(self, logits: Logits) -> Float[Array, " sums"]:
        return jax.nn.logsumexp(logits, axis=1)

    def log_ratio(self, logits: Logits) -> Logits:
        return jnp.log(jnp.maximum(logits, jnp.finfo(logits.dtype).tiny))
