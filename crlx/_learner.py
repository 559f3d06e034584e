import dataclasses
from collections.abc import Callable
from typing import Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from ._behaviours import Agent
from ._instances import check_instance, check_parts
from ._misc import field_norms
from ._networks import AbstractArchitecture
from ._objective import (
    AbstractObjective,
    AbstractPaced,
    AbstractScaled,
    AbstractScoring,
    Batch,
    Params,
    State,
)
from ._optimizer_check import check_optimizer
from ._pace import by_field, held, scaled
from ._projection import project
from ._rows import AbstractRows
from ._source import AbstractMeasured, AbstractSource, Data
from ._types import History, Metrics, Pace, Spec

Carry = TypeVar("Carry")


class Progress(eqx.Module, Generic[Params, State]):
    """Everything that training changes."""

    params: Params
    state: State
    opt_state: optax.OptState
    step: Int[Array, ""]


class Learner(eqx.Module, Generic[Params, State, Batch]):
    """Trains any objective with any optimizer, by one scanned update.

    **Arguments:**

    - `objective`: what to learn.
    - `optimizer`: an Optax transformation, applied to all parameters at once, or, for fields with
      a pace of their own (`AbstractPaced`), to each of those and to the rest. Layers are stacked
      in parameters, which many Optax transformations take for larger matrices: `init` refuses
      those that it recognizes, and `crlx.per_layer` makes them right.
    """

    objective: AbstractObjective[Params, State, Batch]
    optimizer: optax.GradientTransformation

    def __check_init__(self):
        check_parts(self)

    def init(
        self, architecture: AbstractArchitecture, spec: Spec, *, key: PRNGKeyArray
    ) -> Progress[Params, State]:
        """The start of a run."""
        check_instance("architecture", architecture)
        if not isinstance(spec, Spec):
            raise ValueError(
                f"Networks are built for a `Spec`; got {type(spec).__name__}. The one of a task is "
                "its `spec.networks()`."
            )
        built = self.objective.init(architecture, spec, key=key)
        _check_pair(built, self.objective, "init", "`params, state`, with None for no state")
        return self.begin(*built)

    def begin(self, params: Params, state: State) -> Progress[Params, State]:
        """The start of a run from given parameters and state of the objective."""
        params = project(params)
        trained = eqx.filter(params, eqx.is_inexact_array)
        check_optimizer(self.optimizer, trained)
        opt_state = self._optimizer(self._pace(state)).init(trained)
        return Progress(params, state, opt_state, jnp.zeros((), jnp.int32))

    def agent(self, progress: Progress[Params, State]) -> Agent:
        """What acts with the parameters of the moment."""
        objective, params, state = self.objective, progress.params, progress.state
        score = None
        if isinstance(objective, AbstractScoring):
            score = eqx.Partial(objective.score, params, state)
        return Agent(objective.policy(params, state), score)

    def meet(
        self, progress: Progress[Params, State], source: AbstractSource[Data], data: Data
    ) -> Progress[Params, State]:
        """The progress after a collection, whose observations an `AbstractScaled` objective takes
        note of; others do not change."""
        if not isinstance(self.objective, AbstractScaled):
            return progress
        if not isinstance(source, AbstractMeasured):
            return progress
        state = self.objective.scale(progress.state, source.moments(data))
        return dataclasses.replace(progress, state=state)

    def update(
        self, progress: Progress[Params, State], batch: Batch, *, key: PRNGKeyArray
    ) -> tuple[Progress[Params, State], Metrics]:
        """One gradient step on one minibatch: gradient, optimizer, projection, `advance`. Fields
        with a pace of their own move at it.

        **Returns:** the new progress and the objective's metrics, plus `total/loss`, the norm of
        the gradient of each field of the parameters (`grad_norm/field`) and the norm of all
        parameters after the step (`param_norm/all`), which tells when the step itself diverged.
        """

        def loss(params: Params):
            found = self.objective.loss(params, progress.state, batch, key=key)
            _check_pair(found, self.objective, "loss", "`value, metrics`, with {} for no metrics")
            return found

        (value, metrics), grads = eqx.filter_value_and_grad(loss, has_aux=True)(progress.params)
        norms = {f"grad_norm/{name}": norm for name, norm in field_norms(grads).items()}
        trained = eqx.filter(progress.params, eqx.is_inexact_array)
        pace = self._pace(progress.state)
        with jax.numpy_dtype_promotion("standard"):  # Optax mixes dtypes of its scalars.
            updates, opt_state = self._optimizer(pace).update(grads, progress.opt_state, trained)
        params = project(eqx.apply_updates(progress.params, scaled(updates, pace)))
        old = progress.params, progress.opt_state
        params, opt_state = held((params, opt_state), old, pace)
        norms["param_norm/all"] = field_norms(params)["all"]
        state = self.objective.advance(params, progress.state)
        progress = Progress(params, state, opt_state, progress.step + 1)
        return progress, {"total/loss": value, **metrics, **norms}

    def fit(
        self,
        progress: Progress[Params, State],
        rows: AbstractRows,
        *,
        updates: int,
        batch_size: int,
        key: PRNGKeyArray,
    ) -> tuple[Progress[Params, State], History]:
        """Scans `updates` times over draw, relabel, update.

        Randomness depends on `key` and on the step alone, so a run may be cut into any number
        of calls with the same key and ends the same.

        **Returns:** the new progress and every metric of every update, `[updates]`.
        """

        def one(progress: Progress[Params, State]):
            dkey, rkey, lkey = jr.split(jr.fold_in(key, progress.step), 3)
            index = rows.draw(batch_size, key=dkey)
            batch = self.objective.relabel(rows, index, key=rkey)
            return self.update(progress, batch, key=lkey)

        return scan_module(one, progress, updates)

    def _pace(self, state: State) -> Pace:
        return self.objective.pace(state) if isinstance(self.objective, AbstractPaced) else {}

    def _optimizer(self, pace: Pace) -> optax.GradientTransformation:
        return by_field(self.optimizer, pace) if pace else self.optimizer

    def measure(
        self,
        progress: Progress[Params, State],
        rows: AbstractRows,
        *,
        batches: int,
        batch_size: int,
        key: PRNGKeyArray,
    ) -> Metrics:
        """The objective's metrics on other rows (a validation set), averaged over minibatches."""

        def one(key: PRNGKeyArray) -> Metrics:
            dkey, rkey, lkey = jr.split(key, 3)
            index = rows.draw(batch_size, key=dkey)
            batch = self.objective.relabel(rows, index, key=rkey)
            _, metrics = self.objective.loss(progress.params, progress.state, batch, key=lkey)
            return metrics

        return jax.tree.map(jnp.mean, jax.lax.map(one, jr.split(key, batches)))


def scan_module(
    step: Callable[[Carry], tuple[Carry, History]], carry: Carry, length: int
) -> tuple[Carry, History]:
    """`jax.lax.scan` over a carry that also holds leaves that are not arrays.

    Raises `ValueError` where a step changes a Python number, which would stay what it was.
    """
    arrays, static = eqx.partition(carry, eqx.is_array)

    def body(arrays, _):
        carry, metrics = step(eqx.combine(arrays, static))
        before, after = _numbers(static), _numbers(carry)
        if before != after:
            raise ValueError(
                f"A step changes Python's number {before} to {after}. A loop carries "
                "arrays alone: start with one, such as `jnp.zeros((), jnp.int32)`."
            )
        return eqx.filter(carry, eqx.is_array), metrics

    arrays, metrics = jax.lax.scan(body, arrays, length=length)
    return eqx.combine(arrays, static), metrics


def _numbers(tree: PyTree) -> str:
    # As text, in which NaN equals itself.
    leaves = jax.tree.leaves(tree)
    return ", ".join(repr(x) for x in leaves if isinstance(x, int | float | complex))


def _check_pair(found: object, objective: object, method: str, advice: str) -> None:
    if not (isinstance(found, tuple) and len(found) == 2):
        what = f"{len(found)} values" if isinstance(found, tuple) else type(found).__name__
        name = type(objective).__name__
        raise ValueError(f"`{method}` of {name} returns {what}; return {advice}.")
