import re
from collections.abc import Collection
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from .._learner import Learner, Progress
from .._networks import AbstractActor, AbstractArchitecture
from .._objective import AbstractObjective, Batch, Params, State
from .._rows import AbstractRows
from .._types import Metrics, Spec
from ._relabel import check_relabel
from ._require import named_arrays, require, require_close, require_finite, require_same_structure

NAME = re.compile(r"[a-z0-9_]+/[a-z0-9_]+")


def check_objective(
    objective: AbstractObjective[Params, State, Batch],
    architecture: AbstractArchitecture,
    spec: Spec,
    rows: AbstractRows,
    *,
    batch_size: int = 8,
    own_trajectory: bool = True,
    may_vanish: Collection[str] = (),
    key: PRNGKeyArray,
) -> None:
    """The parts of an objective fit together under the learner.

    - `init` uses its key; `params` is a module of floating arrays, without weak types.
    - `relabel` passes `check_relabel`.
    - `loss` is one finite float32 scalar; metrics are finite scalars named `group/name`, none of
      which is always zero; compiled and eager runs agree; a loss that draws no noise does not
      depend on the order of the minibatch.
    - Every array of `params` receives a gradient that is not always zero.
    - An update keeps the structure of `params` and `state`, so that `fit` can scan.
    - `policy` acts.

    `check_term_gradients` checks what this cannot know: which term trains which field.

    **Arguments:**

    - `objective`, `architecture`, `spec`: what to check, with small networks and sizes.
    - `rows`: more rows than `batch_size` and than any vector is long, as from `random_rows`.
    - `batch_size`: rows of each minibatch.
    - `own_trajectory`: see `check_relabel`.
    - `may_vanish`: metrics that are rightly zero in untrained and in wildly perturbed networks.
    """
    ikey, rkey, tkey, nkey, pkey = jr.split(key, 5)
    learner = Learner(objective, optax.chain(_record(), optax.adam(1e-2)))
    progress = _check_init(learner, architecture, spec, key=ikey)
    check_relabel(objective, rows, own_trajectory=own_trajectory, key=rkey)
    _check_scan(learner, progress, rows, batch_size)
    probe = eqx.filter_jit(learner.update)
    batches = [_batch(objective, rows, batch_size, key=k) for k in jr.split(tkey, 3)]
    after, metrics = probe(progress, batches[0], key=nkey)
    _check_loss(objective, progress, batches[0], metrics, key=nkey)
    _check_order(probe, progress, batches[0], metrics, key=nkey)
    trials = [(after, metrics), probe(after, batches[1], key=nkey)]
    require_finite(trials, "After two updates, progress and metrics: ")
    wild = eqx.tree_at(lambda p: p.params, progress, _perturb(progress.params, key=pkey))
    trials += [probe(wild, batch, key=nkey) for batch in batches]
    _check_metrics([metrics for _, metrics in trials], may_vanish)
    _check_gradients([progress.opt_state[0] for progress, _ in trials])
    _check_policy(objective, after.params, spec, rows)


def _record() -> optax.GradientTransformation:
    """Leaves gradients as they are and remembers the last ones, to be read after an update."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del state, params
        return updates, updates

    return optax.GradientTransformation(lambda params: params, update)


def _batch(
    objective: AbstractObjective[Params, State, Batch],
    rows: AbstractRows,
    size: int,
    *,
    key: PRNGKeyArray,
) -> Batch:
    dkey, rkey = jr.split(key)
    return objective.relabel(rows, rows.draw(size, key=dkey), key=rkey)


def _check_init(
    learner: Learner[Params, State, Batch],
    architecture: AbstractArchitecture,
    spec: Spec,
    *,
    key: PRNGKeyArray,
) -> Progress[Params, State]:
    akey, bkey = jr.split(key)
    progress = learner.init(architecture, spec, key=akey)
    require(
        isinstance(progress.params, eqx.Module),
        f"`params` is a {type(progress.params).__name__}; make it an `eqx.Module` with one field "
        "per role, by which gradient norms are logged.",
    )
    for leaf in jax.tree.leaves(eqx.filter(progress.params, eqx.is_array)):
        require(
            jnp.issubdtype(leaf.dtype, jnp.inexact) and not leaf.weak_type,
            f"`params` holds an array of {leaf.dtype} (weak type: {leaf.weak_type}). Gradients "
            "move floating arrays alone: what a rule moves belongs into `state`; give scalars a "
            "dtype, as in `jnp.zeros((), jnp.float32)`.",
        )
    again = learner.objective.init(architecture, spec, key=akey)
    require_close(again, (progress.params, progress.state), "`init`, twice with one key: ", rtol=0)
    other = learner.init(architecture, spec, key=bkey).params
    same = zip(named_arrays(progress.params), named_arrays(other), strict=True)
    require(
        any(np.any(a != b) for (_, a), (_, b) in same),
        "`init` returns the same parameters for two keys: pass its `key` on.",
    )
    return progress


def _check_scan(
    learner: Learner[Params, State, Batch],
    progress: Progress[Params, State],
    rows: AbstractRows,
    batch_size: int,
) -> None:
    def update(progress: Progress[Params, State]) -> Progress[Params, State]:
        batch = _batch(learner.objective, rows, batch_size, key=jr.key(0))
        return learner.update(progress, batch, key=jr.key(0))[0]

    after = eqx.filter_eval_shape(update, progress)
    require_same_structure(progress.params, after.params, "After an update, params")
    require_same_structure(progress.state, after.state, "After an update, state")
    eqx.filter_eval_shape(
        learner.fit, progress, rows, updates=2, batch_size=batch_size, key=jr.key(0)
    )


def _check_loss(
    objective: AbstractObjective[Params, State, Batch],
    progress: Progress[Params, State],
    batch: Batch,
    metrics: Metrics,
    *,
    key: PRNGKeyArray,
) -> None:
    value, eager = objective.loss(progress.params, progress.state, batch, key=key)
    require(
        value.shape == () and value.dtype == jnp.float32,
        f"`loss` is {value.dtype}{value.shape}; return one float32 scalar, the sum of all terms.",
    )
    for name, metric in eager.items():
        require(
            NAME.fullmatch(name) and name.split("/")[0] not in ("total", "grad_norm"),
            f"Metric {name!r}: name it `group/name`, in lower case; the learner itself writes the "
            "groups `total` and `grad_norm`.",
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


def _check_order(
    probe: Any,
    progress: Progress[Params, State],
    batch: Batch,
    metrics: Metrics,
    *,
    key: PRNGKeyArray,
) -> None:
    def value(batch: Batch, key: PRNGKeyArray) -> float:
        return float(probe(progress, batch, key=key)[1]["total/loss"])

    base = float(metrics["total/loss"])
    if value(batch, jr.fold_in(key, 0)) != base:
        return  # Rows draw noise of their own: another order is another sample.
    size = max((leaf.shape[0] for leaf in jax.tree.leaves(batch) if leaf.ndim), default=0)
    order = jnp.roll(jnp.arange(size), 1)[::-1]
    turned = value(_reorder(batch, order), key)
    require(
        abs(turned - base) <= 1e-4 * max(1, abs(base)),
        f"The loss is {base:.6g}, but {turned:.6g} with the rows of the minibatch in another "
        "order: pair rows by their position in the batch alone.",
    )


def _reorder(batch: PyTree, order: Int[Array, " batch"]) -> PyTree:
    def turn(x: Array) -> Array:
        return x[order] if x.ndim and x.shape[0] == len(order) else x

    return jax.tree.map(turn, batch)


def _perturb(params: Params, *, key: PRNGKeyArray) -> Params:
    """Large random parameters, which saturate what can saturate."""
    arrays, rest = eqx.partition(params, eqx.is_inexact_array)
    leaves, tree = jax.tree.flatten(arrays)
    keys = jr.split(key, len(leaves))
    noise = [x + 3 * jr.normal(k, x.shape, x.dtype) for x, k in zip(leaves, keys, strict=True)]
    return eqx.combine(jax.tree.unflatten(tree, noise), rest)


def _check_metrics(trials: list[Metrics], may_vanish: Collection[str]) -> None:
    unknown = set(may_vanish) - set(trials[0])
    require(not unknown, f"`may_vanish` names metrics that do not exist: {sorted(unknown)}.")
    for name in trials[0]:
        require(
            name in may_vanish or any(float(trial[name]) != 0 for trial in trials),
            f"Metric {name!r} is zero on every batch, for fresh, trained and perturbed parameters. "
            "Log only what is computed, or list it in `may_vanish` if it can differ from zero.",
        )


def _check_gradients(trials: list[PyTree]) -> None:
    for leaves in zip(*(named_arrays(gradient) for gradient in trials), strict=True):
        require(
            any(np.any(leaf != 0) for _, leaf in leaves),
            f"params{leaves[0][0]} never receives a gradient. Use it in the loss, look for a "
            "`frozen` too many, or move it to `state`.",
        )


def _check_policy(
    objective: AbstractObjective[Params, State, Batch],
    params: Params,
    spec: Spec,
    rows: AbstractRows,
) -> None:
    actor = objective.policy(params)
    require(
        isinstance(actor, AbstractActor),
        f"`policy` returns a {type(actor).__name__}; return an `AbstractActor`.",
    )
    steps = rows.take(rows.draw(1, key=jr.key(0)))
    mode = actor(steps.observation[0], steps.achieved[0]).mode()
    require(
        mode.shape == (spec.action_size,),
        f"The policy's action has shape {mode.shape}; the task's has ({spec.action_size},).",
    )
    require_finite(mode, "The policy's action: ")
