from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


def require(condition: Any, message: str) -> None:
    """Raises `AssertionError` with `message` unless the condition holds.

    Unlike a bare `assert`, it also works under `python -O` and in modules that pytest does not
    rewrite.
    """
    if not bool(condition):
        raise AssertionError(message)


def require_finite(tree: PyTree, what: str) -> None:
    """All floating numbers of a tree are finite."""
    for name, leaf in named_arrays(eqx.filter(tree, eqx.is_inexact_array)):
        require(
            np.all(np.isfinite(leaf)),
            f"{what}{name} has an entry that is not finite. Give square roots, logarithms and "
            "divisions a floor, and select a safe argument before them, not their result after.",
        )


def require_close(
    actual: PyTree, expected: PyTree, what: str, *, rtol: float = 1e-5, atol: float = 1e-5
) -> None:
    """Two trees agree in structure and, up to a tolerance, in every array."""
    require_same_structure(actual, expected, what)
    for (name, a), (_, b) in zip(named_arrays(actual), named_arrays(expected), strict=True):
        wide_a, wide_b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if not np.allclose(wide_a, wide_b, rtol=rtol, atol=atol, equal_nan=True):
            raise AssertionError(
                f"{what}{name}: values differ, by up to {np.max(np.abs(wide_a - wide_b)):.3g} "
                f"where the largest is {np.max(np.abs(wide_b)):.3g}."
            )


def require_same_structure(before: PyTree, after: PyTree, what: str) -> None:
    """Two trees agree in structure, and their arrays in shape, dtype and weakness of type."""
    before = eqx.filter_eval_shape(lambda: before)
    after = eqx.filter_eval_shape(lambda: after)
    require(
        jax.tree.structure(before) == jax.tree.structure(after),
        f"{what}: the structure changed.\n{jax.tree.structure(before)}\n"
        f"became\n{jax.tree.structure(after)}",
    )
    olds = jax.tree_util.tree_leaves_with_path(before)
    for (path, old), new in zip(olds, jax.tree.leaves(after), strict=True):
        require(
            _describe(old) == _describe(new),
            f"{what}{jax.tree_util.keystr(path)}: {_describe(old)} became {_describe(new)}. A "
            "scan needs the same shape and type at every step, and changes arrays alone: give "
            "scalars a dtype, as in `jnp.zeros((), jnp.float32)`.",
        )


def _describe(leaf: Any) -> str:
    """Dtype and shape, as in `float32[8,2]`, with a mark on weak types; else the leaf itself."""
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return repr(leaf)
    weak = " (weak)" if leaf.weak_type else ""
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]{weak}"


def named_arrays(tree: PyTree) -> list[tuple[str, np.ndarray]]:
    """The arrays of a tree with their paths, without random keys."""
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(tree, _is_number))
    return [(jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in leaves]


def _is_number(leaf: Any) -> bool:
    return eqx.is_array(leaf) and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
