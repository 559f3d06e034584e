from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from jaxtyping import PyTree

from ._require import require


def check_memory(function: Callable[..., PyTree], rows: PyTree, *args: Any, what: str) -> None:
    """Nothing that `function(rows, *args)` computes has an axis as long as the stored rows.

    Looks at the traced program, so it costs no run and does not depend on the device.
    """
    count = stored(rows)
    for equation in _equations(eqx.filter_make_jaxpr(function)(rows, *args)[0].jaxpr):
        for variable in equation.outvars:
            shape = getattr(variable.aval, "shape", ())
            require(
                not shape or max(shape) < count,
                f"{what} computes `{equation.primitive}` of shape {tuple(shape)} beside the "
                f"{count} stored rows. Choose row numbers first and gather only those; or pass "
                "more rows to this check, if that axis has nothing to do with them.",
            )


def stored(rows: PyTree) -> int:
    """The longest leading axis of the arrays that hold the rows."""
    arrays = jax.tree.leaves(eqx.filter(rows, eqx.is_array))
    return max((axis for leaf in arrays for axis in leaf.shape[:1]), default=0)


def _equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(tuple(equation.params.values()), is_leaf=_is_jaxpr):
            if isinstance(value, ClosedJaxpr):
                yield from _equations(value.jaxpr)
            elif isinstance(value, Jaxpr):
                yield from _equations(value)


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, ClosedJaxpr | Jaxpr)
