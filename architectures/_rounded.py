"""A matrix product of operands rounded to bfloat16, with sums and results in float32.

JAX's own `dot_general` can do so, but its gradients then multiply float32 by bfloat16, for which
no processor has an instruction. Here the products of the gradient round their operands, too.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

# What is contracted and what is batched, by the axes of the left and of the right operand, as in
# `jax.lax.dot_general`, whose order of the result's axes it has, too: batch, left, right.
_Axes = tuple[tuple[int, ...], tuple[int, ...]]


def rounded_matmul(
    x: Float[Array, " size"], weight: Float[Array, "dim size"]
) -> Float[Array, " dim"]:
    r"""$W x$ with $W$ and $x$ rounded to bfloat16 (8 bits of mantissa), summed in float32; so
    are the products of its gradients."""
    return _dot(x, weight, ((0,), (1,)), ((), ()))


def _dot(x: Array, y: Array, contract: _Axes, batch: _Axes) -> Array:
    return _rounded_dot.bind(x, y, contract=contract, batch=batch)


def _compute(x: Array, y: Array, *, contract: _Axes, batch: _Axes) -> Array:
    x, y = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
    return jax.lax.dot_general(x, y, (contract, batch), preferred_element_type=jnp.float32)


def _free(ndim: int, *taken: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(axis for axis in range(ndim) if axis not in sum(taken, ()))


def _gradient_left(g: Array, x: Any, y: Array, *, contract: _Axes, batch: _Axes) -> Array:
    """The left operand's cotangent: the result's, contracted with what the right one kept."""
    kept = _free(y.ndim, contract[1], batch[1])
    count = len(batch[0])
    rest = g.ndim - len(kept)
    out = _dot(g, y, (tuple(range(rest, g.ndim)), kept), (tuple(range(count)), batch[1]))
    # Its axes are now those of the batch, those that the left one kept, and the contracted ones,
    # in the order in which the right one has them.
    order = sorted(range(len(contract[1])), key=lambda i: contract[1][i])
    places = (*batch[0], *_free(x.aval.ndim, contract[0], batch[0]))
    places += tuple(contract[0][i] for i in order)
    return jnp.transpose(out, _inverse(places))


def _gradient_right(g: Array, x: Array, y: Any, *, contract: _Axes, batch: _Axes) -> Array:
    kept = _free(x.ndim, contract[0], batch[0])
    count = len(batch[0])
    of_left = tuple(range(count, count + len(kept)))
    out = _dot(g, x, (of_left, kept), (tuple(range(count)), batch[0]))
    order = sorted(range(len(contract[0])), key=lambda i: contract[0][i])
    places = (*batch[1], *_free(y.aval.ndim, contract[1], batch[1]))
    places += tuple(contract[1][i] for i in order)
    return jnp.transpose(out, _inverse(places))


def _inverse(places: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(places.index(axis) for axis in range(len(places)))


def _vectorized(
    operands: tuple[Array, Array], axes: tuple[int | None, int | None], *, contract: Any, batch: Any
) -> tuple[Array, int]:
    """The product of operands with one more axis: a batch axis where both have it, and else one
    more axis that is kept."""
    (x, y), (left, right) = operands, axes
    both = left is not None and right is not None
    if left is not None:
        x = jnp.moveaxis(x, left, 0)
    if right is not None:
        y = jnp.moveaxis(y, right, 0)
    moved = [int(left is not None), int(right is not None)]
    contract = tuple(tuple(a + m for a in side) for side, m in zip(contract, moved, strict=True))
    batch = tuple(tuple(a + m for a in side) for side, m in zip(batch, moved, strict=True))
    if both:
        return _dot(x, y, contract, ((0, *batch[0]), (0, *batch[1]))), 0
    count = len(batch[0])
    kept_left = x.ndim - len(contract[0]) - count
    return _dot(x, y, contract, batch), count if left is not None else count + kept_left


_rounded_dot = Primitive("rounded_dot")
_rounded_dot.def_impl(jax.jit(_compute, static_argnames=("contract", "batch")))


@_rounded_dot.def_abstract_eval
def _(x: Any, y: Any, *, contract: _Axes, batch: _Axes) -> Any:
    left = tuple(x.shape[a] for a in _free(x.ndim, contract[0], batch[0]))
    right = tuple(y.shape[a] for a in _free(y.ndim, contract[1], batch[1]))
    shape = (*(x.shape[a] for a in batch[0]), *left, *right)
    return x.update(shape=shape, dtype=jnp.dtype(jnp.float32))


ad.defbilinear(_rounded_dot, _gradient_left, _gradient_right)
batching.primitive_batchers[_rounded_dot] = _vectorized
mlir.register_lowering(_rounded_dot, mlir.lower_fun(_compute, multiple_results=False))
