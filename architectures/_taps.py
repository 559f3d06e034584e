import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from crlx import AbstractEncoder


class BlockStatistics(eqx.Module):
    r"""What each block does to the stream $h_i$ that runs through a network, where $F_i = h_{i+1}
    - h_i$ is what block $i$ adds. One number per block, through which no gradient passes.

    - `branch`: $\lVert F_i \rVert_2$, which the paper plots against the block.
    - `stream`: $\lVert h_{i+1} \rVert_2$.
    - `ratio`: $\lVert F_i \rVert_2 / \lVert h_i \rVert_2$.
    - `cosine`: of the angle between $F_i$ and $h_i$.
    - `mean`: the mean of the entries of $h_{i+1}$.

    ??? cite
        Wang et al., 1000 Layer Networks for Self-Supervised RL (NeurIPS 2025), appendix A.7.
    """

    branch: Float[Array, "*depth"]
    stream: Float[Array, "*depth"]
    ratio: Float[Array, "*depth"]
    cosine: Float[Array, "*depth"]
    mean: Float[Array, "*depth"]


class AbstractTapped(AbstractEncoder):
    """An encoder that can tell what its blocks do."""

    @abc.abstractmethod
    def tap(self, x: Float[Array, " size"]) -> tuple[Float[Array, " dim"], BlockStatistics]:
        """The output for one example, as `__call__` computes it, and the statistics of each
        block, `[depth]`."""


def block_statistics(x: Float[Array, " width"], y: Float[Array, " width"]) -> BlockStatistics:
    """The statistics of one block with input `x` and output `y`."""
    # The barrier keeps the compiler from fusing the statistics into the network, whose numbers
    # would then differ in the last bit.
    x, y = jax.lax.optimization_barrier(jax.lax.stop_gradient((x, y)))
    branch = y - x
    size, before = jnp.linalg.norm(branch), jnp.linalg.norm(x)
    floor = jnp.finfo(x.dtype).tiny
    return BlockStatistics(
        branch=size,
        stream=jnp.linalg.norm(y),
        ratio=size / jnp.maximum(before, floor),
        cosine=jnp.dot(branch, x) / jnp.maximum(size * before, floor),
        mean=jnp.mean(y),
    )


def effective_rank(embeddings: Float[Array, "rows dim"]) -> Float[Array, ""]:
    r"""The number of directions that centred embeddings fill: $\exp(-\sum_k p_k \log p_k)$ with
    $p_k = \sigma_k / \sum \sigma$ over their singular values. Between 1 and `dim`; 0 if all
    embeddings are equal.

    ??? cite
        Roy and Vetterli, The effective rank (EUSIPCO 2007).
    """
    centred = embeddings - jnp.mean(embeddings, axis=0, keepdims=True)
    # One by one under `vmap`, as in `orthogonal`: batches of decompositions may lock one another.
    decompose = jax.custom_batching.sequential_vmap(lambda x: jnp.linalg.svd(x, compute_uv=False))
    values = decompose(jax.lax.stop_gradient(centred))
    total = jnp.sum(values)
    share = values / jnp.where(total > 0, total, 1)
    entropy = -jnp.sum(jnp.where(share > 0, share * jnp.log(jnp.where(share > 0, share, 1)), 0))
    return jnp.where(total > 0, jnp.exp(entropy), 0)
