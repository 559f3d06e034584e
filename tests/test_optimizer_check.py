"""Optimizers that are wrong on stacked layers are refused, and no others."""

import functools
import inspect

import jax
import jax.numpy as jnp
import jax.random as jr
import optax
import optax.contrib
import pytest
from jaxtyping import Array, Float

from architectures import ResidualNetworks
from crlx import AbstractStacked, Learner, Spec, clip_by_layer_norm, per_layer, weight_decay_mask
from crlx._optimizer_check import _WRONG_ON_STACKS, _WRONG_WITHIN, check_optimizer
from crlx.testing import check_optimizer_on_stacks
from objectives import GCBC

SPEC = Spec(3, 2, 2)
ADAM = optax.adam(1e-2)
contrib = optax.contrib


class Layers(AbstractStacked):
    weight: Float[Array, "layers out in"]


STACK = Layers(jnp.zeros((3, 4, 5)))


def initialized(optimizer, getkey):
    architecture = ResidualNetworks(depth=8, width=8, dim=4)
    return Learner(GCBC(), optimizer).init(architecture, SPEC, key=getkey())


REFUSED = {
    "adafactor": optax.adafactor(1e-3),
    "scale_by_factored_rms": optax.scale_by_factored_rms(),
    "clip_by_block_rms": optax.clip_by_block_rms(1.0),
    "scale_by_trust_ratio": optax.chain(optax.identity(), optax.chain(optax.lamb(1e-3))),
    "adaptive_grad_clip": optax.MultiSteps(
        optax.adaptive_grad_clip(0.1), 2
    ).gradient_transformation(),
    "muon": contrib.muon(1e-3),
    "lars": optax.inject_hyperparams(optax.lars)(1e-3),
    "scale_by_sm3": optax.masked(optax.sm3(1e-3), weight_decay_mask),
    "scale_by_novograd": optax.partition(
        {True: optax.novograd(1e-3), False: optax.sgd(1e-3)}, weight_decay_mask
    ),
    "centralize": optax.GradientTransformation(
        optax.sgd(0.1).init, jax.jit(optax.centralize().update)
    ),
    "scale_by_param_block_rms": optax.GradientTransformation(
        optax.identity().init, functools.partial(optax.scale_by_param_block_rms().update)
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_learners_refuse_what_is_wrong_on_stacks(name, getkey):
    message = "scale_by_factored_rms` may" if name == "adafactor" else f"`{name}` "
    with pytest.raises(ValueError, match=rf"{message}.*crlx\.per_layer\(optax\."):
        initialized(REFUSED[name], getkey)


@pytest.mark.parametrize(
    "optimizer",
    [
        ADAM,
        optax.adamw(1e-3),
        optax.sgd(1e-3),
        optax.lion(1e-3),
        optax.rmsprop(1e-3),
        optax.chain(optax.clip_by_global_norm(1.0), ADAM),
        optax.chain(clip_by_layer_norm(1.0), ADAM),
        optax.chain(optax.clip_by_global_norm(1.0), per_layer(optax.adafactor(1e-3))),
    ],
)
def test_learners_accept_what_is_right_on_stacks(optimizer, getkey):
    initialized(optimizer, getkey)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.chain(optax.clip_by_global_norm(1.0), optax.adafactor(1e-3)),
        optax.inject_hyperparams(optax.clip_by_global_norm)(1.0),
        optax.add_noise(0.1, 0.9, jr.key(0)),
        contrib.prodigy(),
    ],
)
def test_per_layer_refuses_what_needs_all_parameters(optimizer):
    with pytest.raises(ValueError, match=r"keep it outside `crlx\.per_layer`"):
        per_layer(optimizer)


# What transformations are called with, by the name of the argument.
ARGUMENTS = {
    "b1": 0.9,
    "base_optimizer": ADAM,
    "clipping": 0.01,
    "decay": 0.9,
    "eta": 0.1,
    "gamma": 0.5,
    "inner": ADAM,
    "k": 2,
    "learning_rate": 1e-2,
    "max_consecutive_errors": 1,
    "max_delta": 1.0,
    "max_norm": 1.0,
    "step_size": 1e-2,
    "step_size_fn": lambda count: 1e-2,
    "threshold": 1.0,
}
# Those that act through what they are given, and have none of their own.
WRAPPERS = {
    "chain",
    "conditionally_mask",
    "conditionally_transform",
    "freeze",
    "inject_hyperparams",
    "inject_stateful_hyperparams",
    "lookahead",
    "masked",
    "measure_with_ema",
    "multi_transform",
    "named_chain",
    "partition",
    "sam",
    "selective_transform",
    "snapshot",
    "stateless",
    "stateless_with_tree_map",
    "with_extra_args_support",
}
UNANNOTATED = {
    "dog",
    "dowg",
    "scale_by_factored_rms",
}  # Their signatures do not say what they make.
# What cannot be compared: what draws numbers; what needs functions, or gradients per example, which
# learners do not give; what subtracts large sums, whose order then matters; what is deprecated.
UNCHECKED = {
    "optimistic_adam",
    "add_noise",
    "differentially_private_aggregate",
    "dpsgd",
    "hutchinson_estimator_diag_hessian",
    "lbfgs",
    "momo",
    "momo_adam",
    "noisy_sgd",
    "scale_by_backtracking_linesearch",
    "scale_by_zoom_linesearch",
    "sophia",
}


def exported():
    """All functions of Optax that make transformations."""
    for module in (optax, contrib):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            made = str(inspect.signature(function).return_annotation)
            left_out = name.startswith("_") or name in WRAPPERS | UNCHECKED
            if ("GradientTransformation" in made or name in UNANNOTATED) and not left_out:
                yield pytest.param(function, id=name)


@pytest.mark.thorough
@pytest.mark.parametrize("make", list(exported()))
def test_all_of_optax_is_right_on_stacks_or_refused(make):
    parameters = inspect.signature(make).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty]
    optimizer = make(**{name: ARGUMENTS[name] for name in needed})
    try:
        check_optimizer(optimizer, STACK)
    except ValueError:
        return
    check_optimizer_on_stacks(optimizer)


@pytest.mark.parametrize("make", [optax.sm3, optax.lamb, optax.scale_by_factored_rms])
def test_the_check_finds_what_is_wrong_on_stacks(make):
    parameters = inspect.signature(make).parameters
    with pytest.raises(AssertionError, match=r"wrap the optimizer in `crlx.per_layer`"):
        check_optimizer_on_stacks(make(1e-2) if "learning_rate" in parameters else make())


def test_per_layer_satisfies_the_check():
    check_optimizer_on_stacks(per_layer(optax.scale_by_factored_rms()))


def test_the_names_that_are_refused_exist():
    for name in _WRONG_ON_STACKS | _WRONG_WITHIN:
        assert name in dir(optax) or name in dir(contrib), name
