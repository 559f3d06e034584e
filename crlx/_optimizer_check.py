import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any

import optax
from jaxtyping import PyTree

from ._stacking import stacking

# Names of functions that make transformations, with what they do. Aliases are here too: as the
# factories of `optax.inject_hyperparams` they appear by themselves.
_AXES = "may take the axis of layers for an axis of the matrix"
_NORM = "takes one norm of all layers together"
_SUMS = "sums over the layers"
_RANK = "tells matrices by their two axes, so that it finds biases of stacks and not their weights"
_WRONG_ON_STACKS = {  # What says most comes first: one optimizer may be made of several.
    "adafactor": _AXES,
    "scale_by_factored_rms": _AXES,
    "muon": _RANK,
    "scale_by_muon": _RANK,
    "galore": _RANK,
    "scale_by_galore": _RANK,
    "adaptive_grad_clip": _SUMS,
    "centralize": _SUMS,
    "scale_by_sm3": _SUMS,
    "sm3": _SUMS,
    "clip_by_block_rms": _NORM,
    "fromage": _NORM,
    "lamb": _NORM,
    "lars": _NORM,
    "novograd": _NORM,
    "scale_by_distance_over_gradients": _NORM,
    "scale_by_novograd": _NORM,
    "scale_by_param_block_norm": _NORM,
    "scale_by_param_block_rms": _NORM,
    "scale_by_trust_ratio": _NORM,
}

_PARTS = "reduces over all parameters"
_RANDOM = "would draw the same random numbers for every layer"
_WRONG_WITHIN = {
    "add_noise": _RANDOM,
    "clip_by_global_norm": f"{_PARTS} (`crlx.clip_by_layer_norm` clips layer by layer)",
    "dadapt_adamw": _PARTS,
    "differentially_private_aggregate": _RANDOM,
    "dog": _PARTS,
    "dowg": _PARTS,
    "dpsgd": _RANDOM,
    "hutchinson_estimator_diag_hessian": _RANDOM,
    "lbfgs": _PARTS,
    "mechanize": _PARTS,
    "momo": _PARTS,
    "momo_adam": _PARTS,
    "noisy_sgd": _RANDOM,
    "normalize": _PARTS,
    "normalize_by_update_norm": _PARTS,
    "polyak_sgd": _PARTS,
    "prodigy": _PARTS,
    "sam": _PARTS,
    "scale_by_backtracking_linesearch": _PARTS,
    "scale_by_lbfgs": _PARTS,
    "scale_by_polyak": _PARTS,
    "scale_by_zoom_linesearch": _PARTS,
    "skip_large_updates": _PARTS,
    "sophia": _RANDOM,
}


def check_optimizer(optimizer: optax.GradientTransformation, params: PyTree) -> None:
    """Refuses an optimizer that is known to be wrong for the stacked layers in `params`.

    Looks at the functions of which the optimizer is made, through what they close over, and
    computes nothing. It knows the transformations of Optax alone, and finds them in `optax.chain`,
    `partition`, `masked`, `inject_hyperparams`, `MultiSteps` and all else that closes over them.
    It does not find those that a function of your own builds or refers to by a global name; to
    check such an optimizer by what it does, use `crlx.testing.check_optimizer_on_stacks`.
    """
    if not any(axes for _, axes in stacking(params)):
        return
    found = set(_makers(optimizer))
    for name, fault in _WRONG_ON_STACKS.items():
        if name in found:
            raise ValueError(
                f"The layers of these networks are stacked, and `{name}` {fault}. Wrap the "
                "optimizer, or the part of it that does so, to apply it layer by layer: "
                f"`crlx.per_layer(optax.{_WRITTEN.get(name, name)}(...))`."
            )


# What to write where it is not the name that was found.
_WRITTEN = {
    "galore": "contrib.galore",
    "muon": "contrib.muon",
    "scale_by_factored_rms": "adafactor",
    "scale_by_galore": "contrib.galore",
    "scale_by_muon": "contrib.muon",
}


def check_separable(transformation: optax.GradientTransformation) -> None:
    """Refuses what is known to be wrong when it is applied layer by layer."""
    found = set(_makers(transformation))
    for name, fault in _WRONG_WITHIN.items():
        if name in found:
            raise ValueError(
                f"`{name}` {fault}: keep it outside `crlx.per_layer`, as in "
                f"`optax.chain({name}(...), crlx.per_layer(...))`."
            )


def _makers(transformation: optax.GradientTransformation) -> Iterator[str]:
    """Names of the functions of Optax that made the parts of a transformation."""
    for function in _functions(transformation):
        if _package(function) == "optax":
            # Of `adafactor.<locals>.init`, what comes first.
            yield function.__qualname__.split(".")[0]


def _functions(root: object) -> Iterator[types.FunctionType]:
    """All functions that can be reached from `root` through containers and closures.

    Those of this library are left out, with what they close over: `per_layer` repairs it.
    """
    seen: dict[int, object] = {}  # Holds the objects, since the ids of dead ones come again.
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen[id(node)] = node
        if isinstance(node, types.FunctionType):
            if _package(node) == __name__.split(".")[0]:
                continue
            yield node
        waiting.extend(_within(node))


def _within(node: object) -> list[Any]:
    """What an object holds that may be, or lead to, a function."""
    match node:
        case list() | tuple() | set() | frozenset():
            return list(node)
        case Mapping():
            return list(node.values())
        case functools.partial():
            return [node.func, node.args, node.keywords]
        case types.MethodType():
            return [node.__func__, vars(node.__self__)]
        case types.FunctionType():
            cells = [_contents(cell) for cell in node.__closure__ or ()]
            return [*cells, node.__defaults__, node.__kwdefaults__, node.__dict__]
        case type():
            return []
    if callable(node):  # Such as what `jax.jit` returns, which has no `__dict__`.
        return [getattr(node, "__wrapped__", None), getattr(node, "__dict__", None)]
    return []


def _contents(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # Not yet assigned.
        return None


def _package(function: types.FunctionType) -> str:
    return (function.__module__ or "").split(".")[0]
