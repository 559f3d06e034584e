import math
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

# With operands rounded to bfloat16, it computes the same as the first.
_PRODUCTS = ("dot_general", "rounded_dot")


class Costs(NamedTuple):
    """What the matrix products of a program add up to.

    - `flops`: multiplications and additions.
    - `bytes`: of their operands and results, as stored; what a cache saves is not known.
    """

    flops: float
    bytes: float


def costs(program: ClosedJaxpr) -> Costs:
    """Counts the matrix products of a traced program, those in a loop as often as it runs: XLA's
    own analysis of costs counts the inside of a loop once."""
    return _total(program.jaxpr)


def _total(jaxpr: Jaxpr) -> Costs:
    found = [_equation(equation) for equation in jaxpr.eqns]
    return Costs(sum(c.flops for c in found), sum(c.bytes for c in found))


def _equation(equation: JaxprEqn) -> Costs:
    if equation.primitive.name in _PRODUCTS:
        return _product(equation)
    times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
    values = jax.tree.leaves(tuple(equation.params.values()), is_leaf=_is_jaxpr)
    inner = [_total(getattr(v, "jaxpr", v)) for v in values if _is_jaxpr(v)]
    return Costs(times * sum(c.flops for c in inner), times * sum(c.bytes for c in inner))


def _product(equation: JaxprEqn) -> Costs:
    left, right, out = (_array(v) for v in (*equation.invars, *equation.outvars))
    params = equation.params
    contracted = params["contract" if "contract" in params else "dimension_numbers"][0]
    axes = contracted if "contract" in params else contracted[0]
    summed = math.prod(left.shape[axis] for axis in axes)
    size = sum(aval.size * aval.dtype.itemsize for aval in (left, right, out))
    return Costs(2.0 * out.size * summed, float(size))


def _array(variable: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(variable.aval.shape, variable.aval.dtype)


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, ClosedJaxpr | Jaxpr)
