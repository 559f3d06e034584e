import dataclasses
from collections.abc import Collection
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from .._learner import Learner, Progress
from .._networks import AbstractActor, AbstractArchitecture
from .._objective import AbstractObjective, Batch, Params, State
from .._rows import AbstractRows
from .._types import Spec
from ._loss import check_gradients, check_loss, check_metrics, check_order, perturb
from ._relabel import check_relabel
from ._require import named_arrays, require, require_close, require_finite, require_same_structure


def check_objective(
    objective: AbstractObjective[Params, State, Batch],
    architecture: AbstractArchitecture,
    spec: Spec,
    rows: AbstractRows,
    *,
    batch_size: int = 8,
    own_trajectory: bool = True,
    may_vanish: Collection[str] = (),
    chunk: int = 1,
    key: PRNGKeyArray,
) -> None:
    """The parts of an objective fit together under the learner.

    - The rows have the sizes of `spec`.
    - `init` uses its key; `params` is a module of floating arrays, without weak types, and no field
      of it is a Python number.
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
    - `rows`: more than 128, and more than any vector is long, as from `random_rows`.
    - `batch_size`: rows of each minibatch.
    - `own_trajectory`: see `check_relabel`.
    - `may_vanish`: metrics that are rightly zero in untrained and in wildly perturbed networks.
    - `chunk`: actions that the policy decides on at once.
    """
    ikey, rkey, tkey, nkey, pkey = jr.split(key, 5)
    learner = Learner(objective, optax.chain(_record(), optax.adam(1e-2)))
    _check_sizes(spec, rows)
    progress = _check_init(learner, architecture, spec, key=ikey)
    check_relabel(objective, rows, own_trajectory=own_trajectory, key=rkey)
    _check_scan(learner, progress, rows, batch_size)
    probe = eqx.filter_jit(learner.update)
    batches = [_batch(objective, rows, batch_size, key=k) for k in jr.split(tkey, 3)]
    after, metrics = probe(progress, batches[0], key=nkey)
    check_loss(objective, progress, batches[0], metrics, key=nkey)

    def total(batch: Batch, key: PRNGKeyArray) -> float:
        return float(probe(progress, batch, key=key)[1]["total/loss"])

    check_order(total, batches[0], batch_size, key=nkey)
    trials = [(after, metrics), probe(after, batches[1], key=nkey)]
    require_finite(trials, "After two updates, progress and metrics: ")
    wild = eqx.tree_at(lambda p: p.params, progress, perturb(progress.params, key=pkey))
    trials += [probe(wild, batch, key=nkey) for batch in batches]
    recorded: list[Any] = [progress.opt_state for progress, _ in trials]
    check_gradients([state[0] for state in recorded])
    check_metrics([metrics for _, metrics in trials], may_vanish)
    _check_policy(objective, after, chunk * spec.action_size, rows)


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


def _check_sizes(spec: Spec, rows: AbstractRows) -> None:
    step = rows.take(jnp.zeros((1,), jnp.int32))
    sizes = {"observation": spec.observation_size, "action": spec.action_size}
    for name, size in {**sizes, "achieved": spec.goal_size}.items():
        found = getattr(step, name).shape[1]
        require(
            found == size,
            f"`{name}` of the rows has {found} numbers, and the spec says {size}.",
        )


def _check_init(
    learner: Learner[Params, State, Batch],
    architecture: AbstractArchitecture,
    spec: Spec,
    *,
    key: PRNGKeyArray,
) -> Progress[Params, State]:
    akey, bkey = jr.split(key)
    progress = learner.init(architecture, spec, key=akey)
    traced = eqx.filter_eval_shape(learner.init, architecture, spec, key=akey)
    require_same_structure(progress, traced, "Traced, as in `vmap` over whole runs, `init`")
    require(
        isinstance(progress.params, eqx.Module),
        f"`params` is a {type(progress.params).__name__}; make it an `eqx.Module` with one field "
        "per role, by which gradient norms are logged.",
    )
    params: Any = progress.params
    for field in dataclasses.fields(params):
        value = getattr(params, field.name)
        require(
            field.metadata.get("static", False) or not isinstance(value, int | float | complex),
            f"`{field.name}` of `params` is the number {value}, which no gradient moves: make it "
            "an array, as in `jnp.zeros((), jnp.float32)`, or a field of the objective.",
        )
    for leaf in jax.tree.leaves(eqx.filter(progress.params, eqx.is_array)):
        require(
            jnp.issubdtype(leaf.dtype, jnp.inexact) and not leaf.weak_type,
            f"`params` holds an array of {leaf.dtype} (weak type: {leaf.weak_type}). Gradients "
            "move floating arrays alone: what a rule moves belongs into `state`; give scalars a "
            "dtype, as in `jnp.zeros((), jnp.float32)`.",
        )
    again = learner.init(architecture, spec, key=akey)
    require_close(again, progress, "`init`, twice with one key: ", rtol=0.0, atol=0.0)
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


def _check_policy(
    objective: AbstractObjective[Params, State, Batch],
    progress: Progress[Params, State],
    size: int,
    rows: AbstractRows,
) -> None:
    actor = objective.policy(progress.params, progress.state)
    require(
        isinstance(actor, AbstractActor),
        f"`policy` returns a {type(actor).__name__}; return an `AbstractActor`.",
    )
    steps = rows.take(rows.draw(1, key=jr.key(0)))
    mode = actor(steps.observation[0], steps.achieved[0]).mode()
    require(
        mode.shape == (size,),
        f"The policy's action has shape {mode.shape}; the task's has ({size},).",
    )
    require_finite(mode, "The policy's action: ")
