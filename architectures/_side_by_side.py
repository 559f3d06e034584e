from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from crlx import AbstractEncoder

Streams = tuple[Float[Array, "_ _"], ...]  # Rows of vectors; other networks have others.
Step = Callable[[Streams, tuple[PyTree, ...]], tuple[Streams, None]]


def side_by_side(blocks: Sequence[Callable[[PyTree], AbstractEncoder]]) -> Step:
    """One step of a loop over the layers of several networks, each with its own batch.

    **Arguments:**

    - `blocks`: make each network's block from its arrays.
    """

    def step(streams: Streams, arrays: tuple[PyTree, ...]) -> tuple[Streams, None]:
        nets = zip(streams, arrays, blocks, strict=True)
        return tuple(jax.vmap(block(a))(x) for x, a, block in nets), None

    return step


def batched(block: Callable[[PyTree], AbstractEncoder]) -> Step:
    """As `side_by_side`, for networks of one shape and kind: their products are one, batched.

    On CPUs that takes longer; a GPU starts fewer programs.
    """

    def step(streams: Streams, arrays: tuple[PyTree, ...]) -> tuple[Streams, None]:
        together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *arrays)
        ys = jax.vmap(lambda a, x: jax.vmap(block(a))(x))(together, jnp.stack(streams))
        return tuple(ys), None

    return step


def alike(networks: Sequence[PyTree], streams: Sequence[Array]) -> bool:
    """Whether `batched` is possible: networks that differ in numbers alone, batches of one size."""

    def described(tree: PyTree) -> PyTree:
        return eqx.filter_eval_shape(lambda: tree)

    same = all(eqx.tree_equal(described(networks[0]), described(n)) for n in networks[1:])
    return bool(same) and len({x.shape for x in streams}) == 1
