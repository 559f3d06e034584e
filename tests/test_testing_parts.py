"""The checks of networks, goals, rows and sources refuse each fault; strategies draw what they say."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import find, given
from jaxtyping import Array, Float

from architectures import MLPNetworks, Norm, TanhGaussian
from crlx import (
    AbstractActor,
    AbstractArchitecture,
    AbstractCritic,
    AbstractDistribution,
    AbstractEnergy,
    AbstractHindsight,
    AbstractRows,
    AbstractSource,
    OfflineRows,
    Spec,
)
from crlx.testing import (
    batch_sizes,
    batches,
    check_actor,
    check_architecture,
    check_block,
    check_critic,
    check_encoder,
    check_energy,
    check_hindsight,
    check_rows,
    check_source,
    chi_square,
    configurations,
    depths,
    numbered_rows,
    widths,
)

SPEC = Spec(3, 2, 2)
MLP = MLPNetworks(depth=1, width=8, dim=4)


def refuses(message):
    return pytest.raises(AssertionError, match=message)


class Faulty(AbstractHindsight):
    fault: str = eqx.field(static=True)

    def __call__(self, index, last, *, key):
        del key
        if self.fault == "beyond":
            return index + 1
        if self.fault == "before":
            return jnp.maximum(index - 1, 0)
        if self.fault == "float":
            return index.astype(jnp.float32)
        return jnp.minimum(last, index + jnp.max(last - index) % 7)


@pytest.mark.parametrize(
    "fault, message",
    [
        ("beyond", "its trajectory ends at row"),
        ("before", "its trajectory ends at row"),
        ("float", "one row number per row, of the same type"),
        ("others", "choose row by row"),
    ],
)
def test_faulty_goals_are_refused(fault, message, getkey):
    with refuses(message):
        check_hindsight(Faulty(fault), key=getkey())


class NaiveNorm(AbstractEnergy):
    def __call__(self, x, y):
        return -jnp.sqrt(jnp.sum((x - y) ** 2))


class NaiveCosine(AbstractEnergy):
    def __call__(self, x, y):
        return x @ y / jnp.linalg.norm(x) / jnp.linalg.norm(y)


class Blind(AbstractEnergy):
    def __call__(self, x, y):
        return -jnp.sum(x**2) + 0 * y[0]


@pytest.mark.parametrize(
    "energy, message",
    [
        (NaiveNorm(), "embeddings equal.* not finite"),
        (NaiveCosine(), "embeddings zero.* not finite"),
        (Blind(), "does not depend on both"),
    ],
)
def test_faulty_energies_are_refused(energy, message, getkey):
    check_energy(Norm(), key=getkey())
    with refuses(message):
        check_energy(energy, key=getkey())


class Layer(eqx.Module):
    linear: eqx.nn.Linear
    unused: Float[Array, ""] | None

    def __init__(self, in_size, out_size, *, unused=False, key):
        self.linear = eqx.nn.Linear(in_size, out_size, key=key)
        self.unused = jnp.zeros(()) if unused else None

    def __call__(self, x):
        return self.linear(x)


class UnitLength(eqx.Module):
    def __call__(self, x):
        return x / jnp.sqrt(jnp.sum(x**2))


def test_faulty_encoders_are_refused(getkey):
    check_encoder(Layer(3, 4, key=getkey()), 3, key=getkey())
    with refuses("not depend on its array or input .*unused"):
        check_encoder(Layer(3, 4, unused=True, key=getkey()), 3, key=getkey())
    with refuses("not finite"):
        check_encoder(UnitLength(), 3, key=getkey())


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda *, key: Layer(4, 5, key=key), "preserve the shape"),
        (lambda *, key: Layer(4, 4, key=jr.key(0)), "Two keys give the same block"),
        (lambda *, key: Layer(4, 4, unused=bool(jr.key_data(key)[1] % 2), key=key), "structure"),
    ],
)
def test_faulty_blocks_are_refused(make, message, getkey):
    check_block(lambda *, key: Layer(4, 4, key=key), 4, key=getkey())
    with refuses(message):
        check_block(make, 4, key=jr.key(0))


class Bilinear(AbstractCritic):
    weight: Float[Array, "inputs goal"]
    fault: str = eqx.field(static=True)

    def __call__(self, observation, action, goal):
        return jnp.concatenate([observation, action]) @ self.weight @ goal

    def pairs(self, observations, actions, goals):
        if self.fault == "no actions":
            actions = jnp.zeros_like(actions)
        table = jnp.concatenate([observations, actions], axis=1) @ self.weight @ goals.T
        if self.fault == "batch norm":
            return table / jnp.linalg.norm(table)
        return table.T if self.fault == "transposed" else table


@pytest.mark.parametrize(
    "fault, message",
    [
        ("transposed", "with states as rows"),
        ("batch norm", "`pairs` and single calls"),
        ("no actions", "`pairs` and single calls"),
    ],
)
def test_faulty_critics_are_refused(fault, message, getkey):
    weight = jr.normal(getkey(), (5, 2))
    check_critic(Bilinear(weight, ""), SPEC, key=getkey())
    with refuses(message):
        check_critic(Bilinear(weight, fault), SPEC, key=getkey())


class Distribution(AbstractDistribution):
    """A squashed normal distribution, or one with a fault."""

    right: TanhGaussian
    fault: str = eqx.field(static=True)

    def mode(self):
        return self.right.mode()[:1] if self.fault == "shape" else self.right.mode()

    def log_prob(self, action):
        if self.fault == "border":
            noise = (jnp.arctanh(action) - self.right.mean) / jnp.exp(self.right.log_std)
            return -0.5 * jnp.sum(noise**2)
        return self.right.log_prob(action)

    def sample_and_log_prob(self, *, key):
        key = jr.key(0) if self.fault == "one sample" else key
        action, log_prob = self.right.sample_and_log_prob(key=key)
        if self.fault == "no correction":
            return action, log_prob + jnp.sum(jnp.log(1 - action**2 + 1e-6))
        return action, log_prob


class Policy(AbstractActor):
    weight: Float[Array, "act inputs"]
    log_std: Float[Array, " act"]
    fault: str = eqx.field(default="", static=True)

    def __call__(self, observation, goal):
        mean = self.weight @ jnp.concatenate([observation, goal])
        log_std = jnp.full_like(mean, -1) if self.fault == "unused" else self.log_std
        return Distribution(TanhGaussian(mean, log_std), self.fault)


@pytest.mark.parametrize(
    "fault, message",
    [
        ("shape", r"mode has shape \(1,\)"),
        ("one sample", "Two keys give one sample"),
        ("no correction", "`log_prob` of samples"),
        ("unused", "log_std: use it"),
    ],
)
def test_faulty_actors_are_refused(fault, message, getkey):
    weight = 0.3 * jr.normal(getkey(), (2, 5))
    check_actor(Policy(weight, jnp.full(2, -1.0)), SPEC, key=getkey())
    with refuses(message):
        check_actor(Policy(weight, jnp.full(2, -1.0), fault), SPEC, key=getkey())


class Networks(AbstractArchitecture):
    fault: str = eqx.field(static=True)

    def critic(self, spec, *, key):
        if self.fault == "units":
            spec = Spec(spec.observation_size, spec.action_size, spec.goal_size)
        return MLP.critic(spec, key=jr.key(0) if self.fault == "key" else key)

    def actor(self, spec, *, key):
        return MLP.actor(spec, key=key)


@pytest.mark.parametrize(
    "fault, message", [("units", "critic does not rescale"), ("key", "Pass `key` on")]
)
def test_faulty_architectures_are_refused(fault, message, getkey):
    with refuses(message):
        check_architecture(Networks(fault), SPEC, key=getkey())


class FaultyRows(AbstractRows):
    rows: OfflineRows
    fault: str = eqx.field(static=True)

    def draw(self, size, *, key):
        if self.fault == "final rows":
            return jr.randint(key, (size,), 0, 100)
        index = self.rows.draw(size, key=key)
        if self.fault == "uneven":
            return jnp.where(index == 5, 6, index)
        if self.fault == "too even":
            return self.rows.drawable[jnp.arange(size) % len(self.rows.drawable)]
        return index

    def take(self, index):
        if self.fault == "whole":
            return jax.tree.map(lambda x: (2 * x)[index], self.rows.steps)
        return self.rows.take(jnp.sort(index) if self.fault == "sorted" else index)

    def last(self, index):
        last = self.rows.last(index)
        if self.fault == "before":
            return last - 1
        return jnp.minimum(last, index + 3) if self.fault == "moving" else last


@pytest.mark.parametrize(
    "fault, message",
    [
        ("final rows", "no stored successor"),
        ("uneven", "not uniform.*Rows \\[5\\] never came"),
        ("too even", "near 1: too even"),
        ("sorted", "rows turned round"),
        ("before", "lies before the row itself"),
        ("moving", "`last` of `last` is not itself"),
        ("whole", "Choose row numbers first"),
    ],
)
def test_faulty_rows_are_refused(fault, message, getkey):
    rows = numbered_rows([30, 70])
    drawable = np.setdiff1d(np.arange(100), [29, 99])
    check_rows(FaultyRows(rows, ""), drawable, key=getkey())
    with refuses(message):
        check_rows(FaultyRows(rows, fault), drawable, key=getkey())


class Endless(AbstractSource):
    dataset: OfflineRows
    fault: str = eqx.field(static=True)

    def init(self, *, key):
        del key
        return jnp.zeros((), jnp.int32)

    def collect(self, data, actor, *, key):
        del actor, key
        metrics = {"Length" if self.fault == "name" else "collect/count": jnp.ones(())}
        return jnp.asarray(1) if self.fault == "weak" else data + 1, metrics

    def rows(self, data):
        return None if self.fault == "no rows" else self.dataset


@pytest.mark.parametrize(
    "fault, message",
    [
        ("weak", "After `collect`, data.*weak"),
        ("name", "scalars named `group/name`"),
        ("no rows", "`rows` returns a NoneType"),
    ],
)
def test_faulty_sources_are_refused(fault, message, getkey):
    actor = MLP.actor(SPEC, key=getkey())
    source = Endless(numbered_rows([30, 70]), "")
    check_source(source, actor, key=getkey())
    with refuses(message):
        check_source(dataclasses.replace(source, fault=fault), actor, key=getkey())


def test_chi_square_agrees_with_the_tables():
    """Eleven cells, ten degrees of freedom: a statistic of 18.307 has a chance of 5 %."""
    even = np.full(11, 1 / 11)
    counts = np.full(11, 100)
    assert chi_square(counts, even) > 0.9999
    counts[[0, 1]] += 30, -30
    assert chi_square(counts, even) == pytest.approx(0.0550, abs=0.001)
    assert chi_square(np.array([5, 1]), np.array([1.0, 0.0])) == 0
    assert chi_square(np.array([5]), np.array([1.0])) == 0.5


def test_chi_square_is_uniform_for_the_right_law():
    rng = np.random.default_rng(0)
    law = np.array([0.5, 0.3, 0.1, 0.05, 0.04, 0.01])
    chances = [chi_square(rng.multinomial(2000, law), law) for _ in range(2000)]
    quantiles = np.quantile(chances, [0.01, 0.1, 0.5, 0.9])
    np.testing.assert_allclose(quantiles, [0.01, 0.1, 0.5, 0.9], atol=0.03)


def test_batches_include_degenerate_rows():
    def some(condition):
        return np.asarray(find(batches(4, 3), condition))

    def pairs(x):
        return [(a, b) for i, a in enumerate(x) for b in x[:i] if jnp.any(a != 0)]

    assert np.any(np.all(some(lambda x: bool(jnp.any(jnp.all(x == 0, axis=1)))) == 0, axis=1))
    assert len(some(lambda x: any(bool(jnp.all(a == b)) for a, b in pairs(x)))) == 4
    assert len(some(lambda x: any(bool(jnp.all(a == -b)) for a, b in pairs(x)))) == 4
    assert len(some(lambda x: any(bool(jnp.all(a == 2 * b)) for a, b in pairs(x)))) == 4


@given(x=batches(4, 3))
def test_batches_are_bounded(x):
    sizes = np.abs(x[x != 0])
    assert x.shape == (4, 3)
    assert np.all((sizes >= 0.99e-3) & (sizes <= 100))


@given(architecture=configurations(MLPNetworks), depth=depths(), width=widths(), rows=batch_sizes())
def test_configurations_can_be_built(architecture, depth, width, rows):
    assert isinstance(architecture, MLPNetworks)
    assert architecture.depth in (4, 8, 16)
    assert depth % 4 == 0
    assert width >= 8
    assert rows >= 2
