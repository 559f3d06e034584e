import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._contrasts import AbstractContrast, Logits, negatives, normalized


class FlatNCE(AbstractContrast):
    r"""InfoNCE over goals with the positive left out of the sum:
    $\frac{1}{B} \sum_i c_i$ with $c_i = \log \sum_{j \neq i} e^{S_{ij} - S_{ii}}$.

    Published as $\frac{1}{B} \sum_i e^{c_i - \mathrm{sg}(c_i)}$, which has the same gradient but
    is always 1. The pull on a positive is the same however well it is told apart, where that of
    `Forward`, whose value is the mean of $\log(1 + e^{c_i})$, vanishes.

    Its optimum leaves an offset per state and action free, as that of `Forward` does: use it with
    the log-sum-exp penalty. With $r = p(g \mid s, a) / p(g)$ it is $\log r + (r - 1) / (B - 1)$ to
    first order in $1 / B$. There is none where some set of goals is likelier to be reached than
    to be among the $B - 1$ negatives, as is always so for $B = 2$.

    ??? cite
        Chen et al., Simpler, Faster, Stronger: Breaking the log-K Curse on Contrastive Learners
        with FlatNCE (arXiv 2107.01152). As a value it is the loss of Yeh et al., Decoupled
        Contrastive Learning (ECCV 2022).
    """

    def __call__(self, logits: Logits) -> Float[Array, ""]:
        others = jnp.where(negatives(logits), logits, -jnp.inf)
        return jnp.mean(jax.nn.logsumexp(others, axis=1) - jnp.diagonal(logits))

    def logsumexp(self, logits: Logits) -> Float[Array, " sums"]:
        return jax.nn.logsumexp(logits, axis=1)

    def log_ratio(self, logits: Logits) -> Logits:
        return normalized(logits, 1)
