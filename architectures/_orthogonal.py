import jax
import jax.numpy as jnp
import jax.random as jr
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray


def orthogonal(scale: float = 1.0) -> Initializer:
    """Weights with orthonormal rows or columns, whichever are fewer, times `scale`, uniformly
    distributed among such.

    For one layer: build stacks by `stacked`, since an orthogonal array of three axes holds no
    orthogonal layers.
    """

    def draw(key, shape, dtype=jnp.float32, out_sharding=None):
        del out_sharding
        if len(shape) != 2:
            raise ValueError(
                f"An orthogonal weight has two axes; got the shape {tuple(shape)}. Draw the "
                "layers of a stack one by one under `jax.vmap`."
            )
        # On a CPU, two batches of decompositions that meet may each wait for threads that the
        # other holds, for ever; so under `vmap` they are made one after another.
        factor = jax.custom_batching.sequential_vmap(
            lambda key: _orthonormal_rows(min(shape), max(shape), dtype, key)
        )(key)
        return scale * (factor if shape[0] <= shape[1] else factor.T)

    return draw


def _orthonormal_rows(
    rows: int, columns: int, dtype: DTypeLike, key: PRNGKeyArray
) -> Float[Array, "rows columns"]:
    if columns < 2 * rows:
        return jax.nn.initializers.orthogonal()(key, (rows, columns), dtype)
    # A wide Gaussian matrix is so well conditioned that its Gram matrix may be factored instead,
    # which is many times faster and gives the same distribution.
    matrix = jr.normal(key, (rows, columns), dtype)
    gram = jnp.matmul(matrix, matrix.T, precision=jax.lax.Precision.HIGHEST)
    return jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(gram), matrix, lower=True)
