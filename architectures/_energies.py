import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from crlx import AbstractDistance, AbstractEnergy


class Norm(AbstractDistance):
    r"""The Euclidean distance with its sign turned: $-\lVert x - y \rVert_2$.

    Exactly zero, with a gradient of zero, where the embeddings meet: the released code of the
    paper has a gradient of NaN there.

    ??? cite
        Wang et al., 1000 Layer Networks for Self-Supervised RL (NeurIPS 2025): the energy that
        its text calls L2.
    """

    def distance(self, x: Float[Array, " dim"], y: Float[Array, " dim"]) -> Float[Array, ""]:
        square = jnp.sum((x - y) ** 2)
        apart = square > 0
        return jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1)), 0)


class SquaredNorm(AbstractDistance):
    r"""The squared Euclidean distance with its sign turned: $-\lVert x - y \rVert_2^2$."""

    def distance(self, x: Float[Array, " dim"], y: Float[Array, " dim"]) -> Float[Array, ""]:
        return jnp.sum((x - y) ** 2)


class L1(AbstractDistance):
    r"""The taxicab distance with its sign turned: $-\sum_k |x_k - y_k|$.

    The gradient is zero along coordinates that meet.
    """

    def distance(self, x: Float[Array, " dim"], y: Float[Array, " dim"]) -> Float[Array, ""]:
        difference = x - y  # JAX gives abs a slope of one at zero.
        return jnp.sum(jnp.where(difference == 0, 0, jnp.abs(difference)))


class Dot(AbstractEnergy):
    r"""The inner product: $x \cdot y$."""

    def __call__(self, x: Float[Array, " dim"], y: Float[Array, " dim"]) -> Float[Array, ""]:
        return jnp.dot(x, y)


class ScaledDot(AbstractEnergy):
    r"""The inner product over the root of the dimension: $x \cdot y / \sqrt{dim}$.

    ??? cite
        OGBench's bilinear critic (Park et al., arXiv 2410.20092).
    """

    def __call__(self, x: Float[Array, " dim"], y: Float[Array, " dim"]) -> Float[Array, ""]:
        return jnp.dot(x, y) / math.sqrt(x.shape[0])


class Cosine(AbstractEnergy):
    r"""The cosine over a temperature: $x \cdot y / (\lVert x \rVert \lVert y \rVert \tau)$.

    Without a small temperature the scores of a row differ by at most 2, and InfoNCE over 512
    goals cannot fall below 4.25.

    **Arguments:**

    - `temperature`: $\tau$.
    - `eps`: floor of each norm.
    """

    temperature: float = 0.1
    eps: float = 1e-6

    def __check_init__(self):
        if not self.temperature > 0:
            raise ValueError(f"The temperature must be positive; got {self.temperature}.")

    def __call__(self, x: Float[Array, " dim"], y: Float[Array, " dim"]) -> Float[Array, ""]:
        floor = self.eps**2
        x = x / jnp.sqrt(jnp.maximum(jnp.sum(x**2), floor))
        y = y / jnp.sqrt(jnp.maximum(jnp.sum(y**2), floor))
        return jnp.dot(x, y) / self.temperature
