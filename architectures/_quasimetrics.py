import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from crlx import AbstractLearnedEnergy, AbstractQuasimetric


class MRN(AbstractQuasimetric):
    r"""A Euclidean distance plus the largest positive difference, the mean over groups:

    $$d(x, y) = \frac{1}{G} \sum_{g=1}^{G} \Bigl( \lVert \delta_g^{sym} \rVert_2 + \max_k \,
    \max(0, \delta_{gk}^{asym}) \Bigr), \qquad \delta = x - y.$$

    The embedding is cut into $G$ equal groups, and each group into halves: first the symmetric,
    then the asymmetric one. The norm is not squared, as its square breaks the triangle
    inequality. Where embeddings meet, distance and gradient are exactly zero.

    Zero where the symmetric halves agree and `x <= y` in the asymmetric ones. Length of the
    embeddings: a multiple of `2 * groups`.

    **Arguments:**

    - `groups`: $G$. With 16 groups of 4 numbers it is the nearest public form of what the paper
      (1000 Layer Networks, appendix A.4) calls MRN.

    ??? cite
        Liu et al., Metric Residual Networks for Sample Efficient Goal-Conditioned Reinforcement
        Learning (AAAI 2023).
    """

    groups: int = 1

    def __check_init__(self):
        if self.groups < 1:
            raise ValueError(f"MRN needs at least one group; got {self.groups}.")

    def distance(self, x: Float[Array, " dim"], y: Float[Array, " dim"]) -> Float[Array, ""]:
        _parts(x.shape[0], 2 * self.groups, f"MRN with `groups={self.groups}`")
        difference = (x - y).reshape(self.groups, 2, -1)
        symmetric, asymmetric = difference[:, 0], difference[:, 1]
        square = jnp.sum(symmetric**2, axis=1)
        apart = square > 0
        norm = jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1)), 0)
        return jnp.mean(norm + jnp.max(jax.nn.relu(asymmetric), axis=1))


class IQE(AbstractQuasimetric, AbstractLearnedEnergy):
    r"""Lengths of unions of intervals, between their largest and their mean:

    $$d(x, y) = a \max_c u_c + (1 - a) \operatorname{mean}_c u_c, \qquad
    u_c = \Bigl| \bigcup_{j=1}^{m} [x_{cj}, \max(x_{cj}, y_{cj})] \Bigr|, \qquad
    a = \operatorname{sigmoid}(\text{mix}).$$

    Zero where `y <= x` in every coordinate: the opposite orientation of `MRN` and `PQE`. Length
    of the embeddings: a multiple of `size`.

    **Arguments:**

    - `size`: $m$, the number of intervals in a component.
    - `mix`: a number, or, in a critic, the array that `init` makes of it and a gradient moves.

    ??? cite
        Wang and Isola, Improved Representation of Asymmetrical Distances with Interval
        Quasimetric Embeddings (NeurReps 2022).
    """

    size: int = 8
    mix: Float[Array, ""] | float = -1.0

    def __check_init__(self):
        if self.size < 1:
            raise ValueError(f"IQE needs at least one interval per component; got {self.size}.")

    def init(self, dim: int, *, key: PRNGKeyArray) -> "IQE":
        """The same with `mix` as an array."""
        del key
        _parts(dim, self.size, f"IQE with `size={self.size}`")
        return dataclasses.replace(self, mix=jnp.asarray(self.mix, jnp.float32))

    def distance(self, x: Float[Array, " dim"], y: Float[Array, " dim"]) -> Float[Array, ""]:
        components = _parts(x.shape[0], self.size, f"IQE with `size={self.size}`")
        lefts = x.reshape(components, self.size)
        # By `x` alone: in a table of all pairs, the sort then happens once per row.
        order = jnp.argsort(lefts, axis=1)
        union = _union(_permute(lefts, order), _permute(y.reshape(lefts.shape), order))
        largest = jax.nn.sigmoid(self.mix)
        return largest * jnp.max(union) + (1 - largest) * jnp.mean(union)


class PQE(AbstractQuasimetric, AbstractLearnedEnergy):
    r"""A weighted sum of bounded components, the Poisson quasimetric embedding of the form LH
    (Lebesgue measure, half-lines):

    $$d(x, y) = \sum_c w_c \Bigl( 1 - \exp \bigl( -\tfrac{1}{m} \sum_{j=1}^{m}
    \max(0, x_{cj} - y_{cj}) \bigr) \Bigr), \qquad w_c = \operatorname{softplus}(\text{weight}_c).$$

    At most $\sum_c w_c$, however far apart the embeddings are. The reference keeps weights
    positive by a deep linear network; here it is a softplus. Zero where `x <= y` in every
    coordinate. Length of the embeddings: a multiple of `size`.

    **Arguments:**

    - `size`: $m$, the number of coordinates in a component.
    - `weight`: one number for all components, by default such that $w = 1$, or, in a critic, the
      array that `init` makes of it and a gradient moves.

    ??? cite
        Wang and Isola, On the Learning and Learnability of Quasimetrics (ICLR 2022).
    """

    size: int = 8
    weight: Float[Array, " components"] | float = math.log(math.expm1(1))

    def __check_init__(self):
        if self.size < 1:
            raise ValueError(f"PQE needs at least one coordinate per component; got {self.size}.")

    def init(self, dim: int, *, key: PRNGKeyArray) -> "PQE":
        """The same with one `weight` for each component."""
        del key
        components = _parts(dim, self.size, f"PQE with `size={self.size}`")
        weight = jnp.broadcast_to(jnp.asarray(self.weight, jnp.float32), (components,))
        return dataclasses.replace(self, weight=weight)

    def distance(self, x: Float[Array, " dim"], y: Float[Array, " dim"]) -> Float[Array, ""]:
        components = _parts(x.shape[0], self.size, f"PQE with `size={self.size}`")
        excess = jax.nn.relu(x - y).reshape(components, self.size)
        return jnp.sum(jax.nn.softplus(self.weight) * -jnp.expm1(-jnp.mean(excess, axis=1)))


def _parts(dim: int, size: int, name: str) -> int:
    """How many parts of one size an embedding has."""
    if dim == 0 or dim % size:
        raise ValueError(
            f"{name} takes embeddings whose length is a multiple of {size}, and not 0; got {dim}."
        )
    return dim // size


def _permute(
    x: Float[Array, "components size"], order: Int[Array, "components size"]
) -> Float[Array, "components size"]:
    """Each row in its own order."""
    rows = jnp.arange(x.shape[0])[:, None]
    # Said to be a permutation, the gradient need not guard against writing twice to one place.
    return x.at[rows, order].get(mode="promise_in_bounds", unique_indices=True)


def _union(
    left: Float[Array, "components size"], right: Float[Array, "components size"]
) -> Float[Array, " components"]:
    """Length of the union of intervals, which are empty where `right <= left`, along rows in
    which `left` ascends."""
    # An empty interval never raises the end above later left ends. Unrolled, the sweep fuses: by
    # `lax.cummax` it takes twice the memory and, at 8 intervals, half as much time again.
    end = right[:, 0]
    length = jax.nn.relu(end - left[:, 0])
    for i in range(1, left.shape[1]):
        length += jax.nn.relu(right[:, i] - jnp.maximum(left[:, i], end))
        end = jnp.maximum(end, right[:, i])
    return length
