from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from .._objective import AbstractObjective, Batch, Params, State
from ._require import named_arrays, require


def check_term_gradients(
    objective: AbstractObjective[Params, State, Batch],
    params: Params,
    state: State,
    batch: Batch,
    *,
    terms: Mapping[str, AbstractSet[str]],
    key: PRNGKeyArray,
) -> None:
    """Each term of the loss trains its own fields of `params`, and nothing else.

    A missing `frozen` is silent: this check is what notices it. Terms are read off metrics, such
    as `actor/loss`, which therefore must be computed from values that are not frozen, and must
    sum to the loss.

    **Arguments:**

    - `objective`, `params`, `state`, `batch`: as its `loss` takes them.
    - `terms`: for each term's metric, the fields that it trains, as in
      `{"critic/loss": {"critic"}, "actor/loss": {"actor", "actor_term"}}`.
    """

    def values(params: Params) -> jax.Array:
        loss, metrics = objective.loss(params, state, batch, key=key)
        unknown = set(terms) - set(metrics)
        require(not unknown, f"No metrics {sorted(unknown)}; there are {sorted(metrics)}.")
        return jnp.stack([loss, *(metrics[name] for name in terms)])

    def gradients(params: Params) -> Params:
        """One for each value, along a leading axis: a single backward pass to compile."""
        value, pull = eqx.filter_vjp(values, params)
        return eqx.filter_vmap(lambda unit: pull(unit)[0])(jnp.eye(len(value), dtype=value.dtype))

    stacked = named_arrays(eqx.filter_jit(gradients)(params))
    total, *parts = (
        [(path, np.asarray(g[i])) for path, g in stacked] for i in range(1 + len(terms))
    )
    fields = {_field(path) for path, _ in total}
    named = set().union(*terms.values())
    require(named <= fields, f"Fields {sorted(named - fields)} of `terms` are no trained fields.")
    require(fields <= named, f"No term is said to train the fields {sorted(fields - named)}.")
    for (term, own), part in zip(terms.items(), parts, strict=True):
        _check_term(term, own, part)
    _check_sum(total, parts)


def _check_term(term: str, own: AbstractSet[str], part: list[tuple[str, np.ndarray]]) -> None:
    touched = {_field(path) for path, gradient in part if np.any(gradient != 0)}
    require(
        touched <= own,
        f"{term!r} also trains {sorted(touched - own)}: use `frozen` on what it reads of them.",
    )
    require(
        own <= touched,
        f"{term!r} does not train {sorted(own - touched)}. Look for a `frozen` too many, or for a "
        "metric that is computed from frozen values.",
    )


def _check_sum(
    total: list[tuple[str, np.ndarray]], parts: list[list[tuple[str, np.ndarray]]]
) -> None:
    for (path, whole), *pieces in zip(total, *parts, strict=True):
        summed = np.sum([piece for _, piece in pieces], axis=0)
        largest = max(np.max(np.abs(piece), initial=0) for _, piece in pieces)
        require(
            np.allclose(summed, whole, rtol=1e-4, atol=1e-5 * largest),
            f"At params{path} the gradients of the terms do not sum to that of the loss: name "
            "every term, each with the weight that it has in the loss.",
        )


def _field(path: str) -> str:
    """The top-level field of a path such as `.critic.members.goal`."""
    return path.removeprefix(".").split(".")[0].split("[")[0]
