from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import PRNGKeyArray

from .._networks import AbstractArchitecture
from .._rows import OfflineRows
from ._samples import numbered_rows


def keys() -> st.SearchStrategy[PRNGKeyArray]:
    """Random keys."""
    return st.integers(0, 2**32 - 1).map(jr.key)


def depths() -> st.SearchStrategy[int]:
    """Depths that every architecture accepts; few, as each is compiled anew."""
    return st.sampled_from((4, 8, 16))


def widths() -> st.SearchStrategy[int]:
    """Sizes of hidden layers."""
    return st.sampled_from((8, 16, 32))


def batch_sizes() -> st.SearchStrategy[int]:
    """Rows of a minibatch, at least two."""
    return st.sampled_from((2, 3, 8, 16))


def batches(rows: int, size: int) -> st.SearchStrategy[jax.Array]:
    """Vectors `[rows, size]` of magnitudes 1e-3 to 1e2, in which some rows are zero, equal to
    another row, a multiple of it, or its negative.

    **Arguments:**

    - `rows`, `size`: of the array.
    """
    number = st.builds(_number, st.sampled_from((-1, 1)), st.floats(-3, 2, width=32))
    factor = st.sampled_from((None, None, 0.0, 1.0, 2.0, -1.0))
    return st.builds(
        _degenerate,
        hnp.arrays(np.float32, (rows, size), elements=number),
        st.lists(factor, min_size=rows, max_size=rows),
        st.lists(st.integers(0, rows - 1), min_size=rows, max_size=rows),
    )


def episodes(rows: int = 40) -> st.SearchStrategy[list[int]]:
    """Lengths of one, two, three or six trajectories, of at least two rows each.

    **Arguments:**

    - `rows`: what the lengths sum to, at least 12: the same each time, so that few shapes are
      compiled.
    """
    share = st.integers(0, 100)
    shares = st.sampled_from((1, 2, 3, 6)).flatmap(
        lambda n: st.lists(share, min_size=n, max_size=n)
    )
    return shares.map(lambda shares: _lengths(rows, np.asarray(shares)))


def datasets(rows: int = 40) -> st.SearchStrategy[OfflineRows]:
    """`numbered_rows` of random trajectory lengths: each observation carries its row number.

    **Arguments:**

    - `rows`: as for `episodes`.
    """
    return episodes(rows).map(numbered_rows)


def configurations(
    *makes: Callable[..., AbstractArchitecture],
) -> st.SearchStrategy[AbstractArchitecture]:
    """Architectures of small sizes.

    **Arguments:**

    - `makes`: constructors that take `depth` and `width`; fix other fields by a partial function.
    """
    return st.one_of([st.builds(make, depth=depths(), width=widths()) for make in makes])


def _number(sign: int, power: float) -> np.float32:
    return np.float32(sign * 10.0**power)


def _degenerate(
    array: np.ndarray, factors: Sequence[float | None], others: Sequence[int]
) -> jax.Array:
    array = array.copy()
    for row, (factor, other) in enumerate(zip(factors, others, strict=True)):
        if factor is not None:
            array[row] = np.float32(factor) * array[other]
    return jnp.asarray(np.clip(array, -1e2, 1e2))


def _lengths(rows: int, shares: np.ndarray) -> list[int]:
    """Two rows for each trajectory, and the rest by its share."""
    ends = np.cumsum(shares) / max(shares.sum(), 1)
    ends[-1] = 1
    rest = np.round(ends * (rows - 2 * len(shares))).astype(int)
    return (2 + np.diff(rest, prepend=0)).tolist()
