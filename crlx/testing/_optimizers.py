from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from .._stacking import AbstractStacked
from ._require import require

_STEPS = 3


class _Matrices(AbstractStacked):
    weight: Float[Array, "layers out in"]
    bias: Float[Array, "layers out"]


class _Vectors(AbstractStacked):
    scale: Float[Array, "layers width"]


def check_optimizer_on_stacks(optimizer: optax.GradientTransformation) -> None:
    """An optimizer updates the stacked layers of a network as it would update separate ones.

    Compares several updates of a tree with stacks to those of the same tree with every layer in
    arrays of its own, up to 1e-4 of the largest number in each array. The gradients of layers
    differ in size. A second stack, of so many vectors that Optax would factor it as a matrix, is
    compared with its two halves.

    Optimizers that need arguments other than `value` (which is 1 here), and those that draw
    random numbers, cannot be checked so.

    **Arguments:**

    - `optimizer`: any Optax transformation. Its masks and labels, if any, are functions.
    """
    stacked, separate = (
        _updates(optimizer, separate=choice, key=jr.key(0)) for choice in (False, True)
    )
    for step, (ours, theirs) in enumerate(zip(stacked, separate, strict=True)):
        for name, layer in _layers(ours).items():
            expected = jax.tree.leaves(theirs[name])[0]
            error = np.max(np.abs(jax.tree.leaves(layer)[0] - expected))
            size = np.max(np.abs(expected))
            require(
                error <= 1e-4 * size,
                f"Update {step} of {name} is off by {error:.3g}, where the largest number is "
                f"{size:.3g}, when layers are stacked: wrap the optimizer in `crlx.per_layer`.",
            )


def _updates(
    optimizer: optax.GradientTransformation, *, separate: bool, key: PRNGKeyArray
) -> list[dict[str, Any]]:
    inner = optax.with_extra_args_support(optimizer)
    split = _layers if separate else lambda tree: tree
    params = split(_tree(jr.fold_in(key, _STEPS)))
    found = []
    with jax.numpy_dtype_promotion("standard"), jax.default_matmul_precision("highest"):
        state = inner.init(params)
        for step in range(_STEPS):
            grads = split(_tree(jr.fold_in(key, step)))
            updates, state = inner.update(grads, state, params, value=jnp.ones(()))
            params = optax.apply_updates(params, updates)
            found.append(updates)
    return found


def _tree(key: PRNGKeyArray) -> dict[str, Any]:
    wkey, bkey, skey, okey = jr.split(key, 4)
    scales = jnp.asarray([0.1, 1.0, 10.0])
    matrices = _Matrices(
        jr.normal(wkey, (3, 6, 5)) * scales[:, None, None],
        jr.normal(bkey, (3, 6)) * scales[:, None],
    )
    vectors = _Vectors(jr.normal(skey, (130, 129)) * jnp.linspace(0.1, 10, 130)[:, None])
    return {"matrices": matrices, "vectors": vectors, "outside": jr.normal(okey, (6, 5))}


def _layers(tree: dict[str, Any]) -> dict[str, Any]:
    """Matrices and biases layer by layer; vectors in two smaller stacks."""
    matrices, vectors = tree["matrices"], tree["vectors"]
    found: dict[str, Any] = {"outside": tree["outside"]}
    found |= {f"weight[{i}]": matrices.weight[i] for i in range(3)}
    found |= {f"bias[{i}]": matrices.bias[i] for i in range(3)}
    halves = {"scale[:65]": vectors.scale[:65], "scale[65:]": vectors.scale[65:]}
    return found | {name: _Vectors(half) for name, half in halves.items()}
