import re
from collections.abc import Callable, Collection

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from .._learner import Progress
from .._objective import AbstractObjective, Batch, Params, State
from .._types import Metrics
from ._require import named_arrays, require, require_close, require_finite

NAME = re.compile(r"[a-z0-9_]+/[a-z0-9_]+")
RESERVED = ("total", "grad_norm", "param_norm")


def check_loss(
    objective: AbstractObjective[Params, State, Batch],
    progress: Progress[Params, State],
    batch: Batch,
    metrics: Metrics,
    *,
    key: PRNGKeyArray,
) -> None:
    """Eager: shapes, names, finite values; and the same as in the compiled `metrics`."""
    value, eager = objective.loss(progress.params, progress.state, batch, key=key)
    require(
        value.shape == () and value.dtype == jnp.float32,
        f"`loss` is {value.dtype}{value.shape}; return one float32 scalar, the sum of all terms.",
    )
    for name, metric in eager.items():
        require(
            NAME.fullmatch(name) and name.split("/")[0] not in RESERVED,
            f"Metric {name!r}: name it `group/name`, in lower case; the learner itself writes the "
            f"groups {', '.join(RESERVED)}.",
        )
        require(
            metric.shape == () and jnp.issubdtype(metric.dtype, jnp.inexact),
            f"Metric {name!r} is {metric.dtype}{metric.shape}; reduce it to one floating scalar.",
        )
    require_finite((value, eager), "The loss and its metrics, on fresh parameters: ")
    jitted = {name: metrics[name] for name in eager}
    require_close(
        (metrics["total/loss"], jitted),
        (value, dict(eager)),
        "`loss` compiled and eager: ",
        rtol=1e-4,
    )


def check_order(
    total: Callable[[Batch, PRNGKeyArray], float],
    batch: Batch,
    batch_size: int,
    *,
    key: PRNGKeyArray,
) -> None:
    """Unless rows draw noise of their own, the loss ignores the order of the minibatch."""
    base = total(batch, key)
    if total(batch, jr.fold_in(key, 0)) != base:
        return  # With noise, another order is another sample.
    order = jnp.roll(jnp.arange(batch_size), 1)[::-1]
    turned = total(_reorder(batch, order), key)
    require(
        abs(turned - base) <= 1e-4 * max(1, abs(base)),
        f"The loss is {base:.6g}, but {turned:.6g} with the rows of the minibatch in another "
        "order: pair rows by their position in the batch alone.",
    )


def _reorder(batch: PyTree, order: Int[Array, " batch"]) -> PyTree:
    def turn(x: Array) -> Array:
        return x[order] if x.ndim and x.shape[0] == len(order) else x

    return jax.tree.map(turn, batch)


def perturb(params: Params, *, key: PRNGKeyArray) -> Params:
    """Large random parameters, which saturate what can saturate."""
    arrays, rest = eqx.partition(params, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(arrays)
    return eqx.combine(unravel(flat + 3 * jr.normal(key, flat.shape, flat.dtype)), rest)


def check_metrics(trials: list[Metrics], may_vanish: Collection[str]) -> None:
    """No metric of the objective is zero in every trial."""
    unknown = set(may_vanish) - set(trials[0])
    require(not unknown, f"`may_vanish` names metrics that do not exist: {sorted(unknown)}.")
    for name in trials[0]:
        require(
            name in may_vanish or any(float(trial[name]) != 0 for trial in trials),
            f"Metric {name!r} is zero on every batch, for fresh, trained and perturbed parameters. "
            "Log only what is computed, or list it in `may_vanish` if it can differ from zero.",
        )


def check_gradients(trials: list[PyTree]) -> None:
    """Every array has a gradient that is not zero in every trial."""
    for leaves in zip(*(named_arrays(gradient) for gradient in trials), strict=True):
        require(
            any(np.any(np.nan_to_num(leaf) != 0) for _, leaf in leaves),
            f"params{leaves[0][0]} never receives a gradient. Use it in the loss, look for a "
            "`frozen` too many, or move it to `state`.",
        )
