"""Every implementation keeps the contract of its interface: adding one is adding a line."""

import functools

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import pytest
from lengths import at_length

from architectures import (
    IQE,
    L1,
    MRN,
    PQE,
    Cosine,
    Dot,
    Encoder,
    HyperDense,
    HyperHead,
    HyperLerp,
    HyperResidual,
    HypersphericalNetworks,
    HyperStem,
    MLPNetworks,
    Norm,
    NormalizedDense,
    Plain,
    Remat,
    Residual,
    ResidualNetworks,
    ResidualStyle,
    ScaledDot,
    Scaler,
    SphereBlock,
    SquaredNorm,
    dense,
    fan_average_uniform,
    plain_trunk,
    stacked,
)
from crlx import (
    AbstractLearnedEnergy,
    Agent,
    Anywhere,
    ClippedGeometric,
    Current,
    Ensemble,
    Final,
    Geometric,
    Mixture,
    Offline,
    Spec,
    Uniform,
    Windowed,
)
from crlx.testing import (
    check_architecture,
    check_block,
    check_encoder,
    check_energy,
    check_hindsight,
    check_quasimetric,
    check_relabel,
    check_rows,
    check_source,
    random_rows,
)
from objectives import GCBC

SPEC = Spec(3, 2, 2)
MLP = MLPNetworks(depth=1, width=8, dim=4)
RESIDUAL = ResidualNetworks(depth=4, width=8, dim=4, squashed=True, learn_scale=True)
SHARED = ResidualNetworks(depth=4, width=8, dim=4, energy=IQE(2), shared=True)
SPHERE = functools.partial(HypersphericalNetworks, depth=4, width=8, dim=4)

# Strategies, and whether their goals come from the row's own trajectory.
HINDSIGHTS = {
    "geometric": (Geometric(), True),
    "geometric far": (Geometric(1 - 1e-8), True),
    "clipped far": (ClippedGeometric(1 - 1e-8), True),
    "clipped": (ClippedGeometric(), True),
    "uniform": (Uniform(), True),
    "current": (Current(), True),
    "final": (Final(), True),
    "windowed": (Windowed(Geometric(), 50), True),
    "anywhere": (Anywhere(), False),
    "mixture": (Mixture((Current(), Uniform(), Anywhere()), (0.2, 0.5, 0.3)), False),
}
BLOCKS = {
    "residual": functools.partial(Residual, 8),
    "plain": functools.partial(Plain, 8, 8, normalize=False, initializer=fan_average_uniform()),
    "normalized": functools.partial(Plain, 8, 8, normalize=True, initializer=fan_average_uniform()),
    "dense": functools.partial(NormalizedDense, 8, 8),
    "hyper lerp": functools.partial(HyperLerp, 8, step=0.3),
    "hyper residual": functools.partial(HyperResidual, 8, step=0.3),
}
ENCODERS = {
    "residual": lambda key: ResidualStyle().trunk(3, 8, 8, remat=Remat.BLOCK, unroll=1, key=key),
    "plain": lambda key: plain_trunk(3, 8, 3, normalize=True, remat=Remat.NONE, unroll=2, key=key),
    "dense": lambda key: NormalizedDense(3, 8, key=key),
    "stacked": lambda key: stacked(BLOCKS["residual"], 2, key=key),
    "sequential": lambda key: stacked(BLOCKS["plain"], 2, key=key).unstack(),
    "encoder": lambda key: Encoder(
        plain_trunk(3, 8, 2, normalize=True, remat=Remat.NONE, unroll=1, key=key),
        dense(8, 4, fan_average_uniform(), key=key),
    ),
    "hyper dense": lambda key: HyperDense(3, 8, key=key),
    "hyper stem": lambda key: HyperStem(3, 8, key=key),
    "hyper head": lambda key: HyperHead(3, 8, key=key),
    "scaler": lambda key: Scaler(3, 0.5, 0.1),
}
QUASIMETRICS = (MRN(), MRN(groups=2), IQE(4), IQE(2), PQE(4))
ENERGIES = (Norm(), SquaredNorm(), L1(), Dot(), ScaledDot(), Cosine(), *QUASIMETRICS)
ARCHITECTURES = {
    "residual": RESIDUAL,
    "mlp": MLP,
    "hyperspherical": SPHERE(block=SphereBlock.RESIDUAL, squashed=True),
}


@pytest.fixture(scope="module")
def rows():
    return random_rows(SPEC, [40, 2, 60, 7, 91], key=jr.key(0))


@pytest.mark.parametrize("name", HINDSIGHTS)
def test_hindsight(name, rows, getkey):
    hindsight, own = HINDSIGHTS[name]
    check_hindsight(hindsight, own_trajectory=own, key=getkey())
    check_relabel(GCBC(hindsight), rows, own_trajectory=own, key=getkey())


@pytest.mark.parametrize("name", BLOCKS)
def test_block(name, getkey):
    check_block(BLOCKS[name], 8, key=getkey())


@pytest.mark.parametrize("name", ENCODERS)
def test_encoder(name, getkey):
    check_encoder(
        ENCODERS[name](getkey()), 8 if name in ("stacked", "sequential") else 3, key=getkey()
    )


@pytest.mark.parametrize("energy", ENERGIES, ids=lambda e: type(e).__name__)
def test_energy(energy, getkey):
    check_energy(energy, key=getkey())


@pytest.mark.parametrize("energy", QUASIMETRICS, ids=lambda e: type(e).__name__)
def test_quasimetric(energy, getkey):
    check_quasimetric(energy, key=getkey())
    if isinstance(energy, AbstractLearnedEnergy):
        built = energy.init(8, key=getkey())
        check_quasimetric(built, key=getkey())
        check_energy(built, key=getkey())


@pytest.mark.parametrize("name", at_length(ARCHITECTURES, {"residual", "mlp"}))
def test_architecture(name, getkey):
    check_architecture(ARCHITECTURES[name], SPEC, key=getkey())


def test_source(rows, getkey):
    check_source(Offline(rows), Agent(MLP.actor(SPEC, key=getkey())), key=getkey())


def test_rows(rows, getkey):
    check_rows(rows, np.setdiff1d(np.arange(200), [39, 41, 101, 108, 199]), key=getkey())


def test_ensemble(getkey):
    """Members are independent; all pairs and single calls are theirs, stacked."""
    build = eqx.filter_jit(lambda key: Ensemble(functools.partial(MLP.critic, SPEC), 3, key=key))
    ensemble, pairs = build(getkey()), eqx.filter_jit(lambda critic, *inputs: critic.pairs(*inputs))
    inputs = [jr.normal(getkey(), (rows, size)) for rows, size in ((4, 3), (4, 2), (5, 2))]
    table = pairs(ensemble, *inputs)
    assert table.shape == (3, 4, 5)
    assert np.all(np.std(table, axis=0) > 0)  # No two members agree.
    arrays, static = eqx.partition(ensemble.members, eqx.is_array)
    for i, scores in enumerate(table):
        member = eqx.combine(jax.tree.map(lambda x, i=i: x[i], arrays), static)
        np.testing.assert_allclose(scores, pairs(member, *inputs), rtol=1e-5, atol=1e-5)
    single = ensemble(*(x[0] for x in inputs))
    np.testing.assert_allclose(single, table[:, 0, 0], rtol=1e-5, atol=1e-5)
