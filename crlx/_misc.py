from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

T = TypeVar("T")


def is_shaped(x: object) -> bool:
    """Whether a leaf is an array, or stands for one of which only the shape is known."""
    return isinstance(x, jax.Array | jax.ShapeDtypeStruct)


def frozen(tree: T) -> T:
    """The same values, through which no gradient passes."""
    arrays, rest = eqx.partition(tree, eqx.is_inexact_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), rest)


def field_norms(tree: PyTree) -> dict[str, Float[Array, ""]]:
    """The Euclidean norm of the leaves below each top-level field of a module, and of all."""
    squares: dict[str, Array] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(eqx.filter(tree, eqx.is_inexact_array)):
        square = jnp.sum(jnp.square(leaf.astype(jnp.float32)))
        name = _name(path)
        squares[name] = squares[name] + square if name in squares else square
    squares["all"] = sum(squares.values(), start=jnp.zeros((), jnp.float32))
    return {name: jnp.sqrt(square) for name, square in squares.items()}


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path[:1], simple=True)
