"""The checks of goals, rows and sources refuse each fault; strategies draw what they promise."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings

from architectures import MLPNetworks
from crlx import AbstractHindsight, AbstractRows, AbstractSource, Agent, OfflineRows, Spec
from crlx.testing import (
    batch_sizes,
    batches,
    check_hindsight,
    check_rows,
    check_source,
    chi_square,
    configurations,
    depths,
    episodes,
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
        room = last - index
        step = {
            "others": jnp.max(room) % 7,
            "least": jnp.min(room),
            "most": jnp.max(room) // 2,
            "rank": jnp.argsort(jnp.argsort(room)),
            "mean": jnp.mean(room.astype(jnp.float32)) / 1e6,
        }[self.fault]
        return jnp.minimum(last, index + step.astype(index.dtype))


@pytest.mark.parametrize(
    "fault, message",
    [
        ("beyond", "its trajectory ends at row"),
        ("before", "its trajectory ends at row"),
        ("float", "one row number per row, of the same type"),
        *((name, "choose row by row") for name in ("others", "least", "most", "rank", "mean")),
    ],
)
def test_faulty_goals_are_refused(fault, message, getkey):
    with refuses(message):
        check_hindsight(Faulty(fault), key=getkey())


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

    def collect(self, data, agent, *, key):
        del agent, key
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
    agent = Agent(MLP.actor(SPEC, key=getkey()))
    source = Endless(numbered_rows([30, 70]), "")
    check_source(source, agent, key=getkey())
    with refuses(message):
        check_source(dataclasses.replace(source, fault=fault), agent, key=getkey())


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
    seen = set()

    @settings(max_examples=100)
    @given(batches(4, 3))
    def look(x):
        x = np.asarray(x)
        pairs = [(a, b) for i, a in enumerate(x) for b in x[:i] if a.any()]
        factors = {f for a, b in pairs for f in (1, 2, -1) if np.array_equal(a, f * b)}
        seen.update(factors | {0} if np.any(np.all(x == 0, axis=1)) else factors)

    look()
    assert seen == {0, 1, 2, -1}


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


@given(lengths=episodes(30))
def test_episodes_fill_the_rows(lengths):
    assert sum(lengths) == 30
    assert min(lengths) >= 2
    assert len(lengths) in (1, 2, 3, 6)
