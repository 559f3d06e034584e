from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, PyTree

from ._types import Pace

Params = TypeVar("Params")

_REST = ""  # The label of all other fields; no field has this name.


def by_field(
    optimizer: optax.GradientTransformation, pace: Pace
) -> optax.GradientTransformationExtraArgs:
    """The same optimizer, with a state of its own for each field that has a pace."""

    def labels(params: PyTree) -> PyTree:
        unknown = [name for name in pace if not hasattr(params, name)]
        if unknown:
            raise ValueError(f"`pace` names {unknown}, which are no fields of the parameters.")

        def label(path: tuple[Any, ...], _: Array) -> str:
            name = jax.tree_util.keystr(path[:1], simple=True)
            return name if name in pace else _REST

        return jax.tree_util.tree_map_with_path(label, params)

    return optax.partition({name: optimizer for name in (*pace, _REST)}, labels)


def scaled(updates: Params, pace: Pace) -> Params:
    """Updates times the pace of their fields."""
    for name, factor in pace.items():
        part = jax.tree.map(lambda x, factor=factor: x * factor, getattr(updates, name))
        updates = eqx.tree_at(
            lambda u, name=name: getattr(u, name), updates, part, is_leaf=lambda x: x is None
        )
    return updates


def held(
    new: tuple[Params, optax.OptState], old: tuple[Params, optax.OptState], pace: Pace
) -> tuple[Params, optax.OptState]:
    """The new parameters and state of the optimizer, but the old ones of fields whose pace is an
    array that is zero."""
    for name, factor in pace.items():
        if eqx.is_array(factor):
            new = _held_field(new, old, name, jnp.equal(factor, 0))
    return new


def _held_field(
    new: tuple[Params, optax.OptState],
    old: tuple[Params, optax.OptState],
    name: str,
    hold: Bool[Array, ""],
) -> tuple[Params, optax.OptState]:
    def parts(pair: tuple[Params, Any]) -> tuple[PyTree, PyTree]:
        return getattr(pair[0], name), pair[1].inner_states[name]

    arrays, rest = eqx.partition(parts(new), eqx.is_array)
    kept = jax.tree.map(
        lambda n, o: jnp.where(hold, o, n), arrays, eqx.filter(parts(old), eqx.is_array)
    )
    return eqx.tree_at(parts, new, eqx.combine(kept, rest), is_leaf=lambda x: x is None)
