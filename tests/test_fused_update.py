"""The fused loss of contrastive RL against its plain form."""

import dataclasses
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from lengths import at_length

from architectures import (
    MRN,
    HypersphericalNetworks,
    MLPNetworks,
    Precision,
    ResidualNetworks,
)
from crlx import OfflineRows, Spec, Step, Uniform
from objectives import AWR, DDPGBC, Backward, Contrastive, MaxEntropy

SPEC = Spec(5, 2, 3)
ARCHITECTURES = {
    "residual": ResidualNetworks(depth=8, width=8, dim=4, squashed=True),
    "another depth of the actor": ResidualNetworks(
        depth=8, actor_depth=4, width=8, dim=4, squashed=True
    ),
    "hyperspherical": HypersphericalNetworks(depth=4, width=8, dim=4, squashed=True),
    "mlp": MLPNetworks(width=8, dim=4, squashed=True),
    "rounded": ResidualNetworks(
        depth=8, width=8, dim=4, squashed=True, precision=Precision.BFLOAT16
    ),
}


def rows():
    rng = np.random.default_rng(0)
    observations = jnp.asarray(rng.normal(size=(60, 5)), jnp.float32)
    actions = jnp.asarray(rng.uniform(-1, 1, size=(60, 2)), jnp.float32)
    ends = np.arange(60) % 20 == 19
    return OfflineRows(Step(observations, actions, observations[:, :3]), ends)


@eqx.filter_jit
def start(objective, architecture, seed):
    return objective.init(architecture, SPEC, key=jr.key(seed))[0]


@eqx.filter_jit
def losses(objective, params, batch):
    def loss(params):
        return objective.loss(params, None, batch, key=jr.key(3))

    return eqx.filter_value_and_grad(loss, has_aux=True)(params)


def check(objective, architecture, seed=0, tolerance=2e-5):
    params = start(objective, architecture, seed)
    data = rows()
    batch = objective.relabel(data, data.draw(9, key=jr.key(seed)), key=jr.key(seed + 1))
    (value, metrics), grads = losses(objective, params, batch)
    plain = dataclasses.replace(objective, fuse=False)
    (expected, known), plain_grads = losses(plain, params, batch)
    np.testing.assert_allclose(value, expected, rtol=tolerance)
    assert metrics.keys() == known.keys()
    for name in known:
        np.testing.assert_allclose(metrics[name], known[name], rtol=1e-4, atol=1e-5, err_msg=name)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(plain_grads), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1e-2, np.abs(b).max()))


ACTORS = {"ddpg+bc": DDPGBC(), "awr": AWR(), "maxent": MaxEntropy()}
PAIRS = list(itertools.product(ARCHITECTURES, ACTORS))
QUICK = [("another depth of the actor", "ddpg+bc"), ("residual", "maxent"), ("mlp", "awr")]


@pytest.mark.parametrize("name, actor", at_length(PAIRS, QUICK))
def test_losses_metrics_and_gradients_of_the_plain_form(name, actor):
    """Every other pair with two critics, every other architecture with the actor's own goals."""
    number = PAIRS.index((name, actor))
    ensemble, own_goals = 1 + number % 2, number // len(ACTORS) % 2
    objective = Contrastive(
        actor=ACTORS[actor], actor_goals=Uniform() if own_goals else None, ensemble=ensemble
    )
    check(objective, ARCHITECTURES[name], number, 2e-3 if name == "rounded" else 2e-5)


@pytest.mark.thorough
def test_metric_distillation():
    networks = ResidualNetworks(depth=8, width=8, dim=4, shared=True, energy=MRN())
    check(Contrastive(Backward(), future_actions=True), networks)


def loops_in_gradient(objective, architecture):
    """Counted on shapes, without computing anything."""
    params = eqx.filter_eval_shape(start, objective, architecture, 0)
    data = rows()
    batch = jax.eval_shape(
        lambda: objective.relabel(data, data.draw(4, key=jr.key(0)), key=jr.key(1))
    )

    def loss(params, batch):
        return objective.loss(params, None, batch, key=jr.key(2))[0]

    jaxpr, *_ = eqx.filter_make_jaxpr(eqx.filter_grad(loss))(params, batch)
    return str(jaxpr).count("scan[")


@pytest.mark.parametrize(
    "actor_goals, plain", ((None, 9), (Uniform(), 9)), ids=("same goals", "other goals")
)
def test_how_many_loops(actor_goals, plain):
    """Plain: five forwards (states and goals of each loss, and the actor), four backwards, since
    frozen goals need none. Fused: one forwards and one for the actor's actions, each with its
    gradient."""
    objective = Contrastive(actor_goals=actor_goals)
    networks = ARCHITECTURES["residual"]
    assert loops_in_gradient(dataclasses.replace(objective, fuse=False), networks) == plain
    assert loops_in_gradient(objective, networks) == 4


def test_loops_are_told_by_name():
    objective = Contrastive(ensemble=2)
    towers = [f"critic {i}, {what}" for i in range(2) for what in ("states", "goals")]
    params = start(objective, ARCHITECTURES["residual"], 0)
    assert objective.loops(params) == [[*towers, "actor"]]
    params = start(objective, ARCHITECTURES["another depth of the actor"], 0)
    assert objective.loops(params) == [towers, ["actor"]]
    assert dataclasses.replace(objective, fuse=False).loops(params) == []
