import dataclasses
import functools

import equinox as eqx
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from crlx import Moments

PRIOR = float(np.float32(1e-4))
COLUMNS = 3


def reference(rows, prior=0.0):
    """Count, mean and variance in double precision, of the rows and of the start, whose weight is
    1e-4 and whose mean is `prior`."""
    rows = np.float64(rows)
    count = len(rows) + PRIOR
    mean = (rows.sum(0) + PRIOR * prior) / count
    return count, mean, (((rows - mean) ** 2).sum(0) + PRIOR * (1 + (prior - mean) ** 2)) / count


def make(count, *, offset=0.0, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return (offset + scale * rng.normal(size=(count, COLUMNS))).astype(np.float32)


merge = eqx.filter_jit(Moments.merge)


@functools.cache
def scanned(chunk):
    """Merges `[chunks, chunk, columns]`."""
    del chunk
    return jax.jit(lambda m, x: jax.lax.scan(lambda m, c: (m.merge(c), None), m, x)[0])


def assert_moments(moments, rows, rtol=1e-4, prior=0.0):
    """To `rtol` in the variance, and to that share of a standard deviation in the mean, which is
    rounded besides."""
    count, mean, variance = reference(rows, prior)
    np.testing.assert_allclose(moments.count, count, rtol=1e-6)
    np.testing.assert_allclose(moments.variance, variance, rtol=rtol)
    error = np.abs(np.float64(moments.mean) - mean)
    assert np.all(error <= rtol * np.sqrt(variance) + np.spacing(np.abs(moments.mean)))


def test_the_start_is_the_identity():
    start = Moments.start(COLUMNS)
    np.testing.assert_allclose(start.mean, np.zeros(COLUMNS))
    np.testing.assert_allclose(start.variance, np.ones(COLUMNS))
    np.testing.assert_allclose(start.count, 1e-4)


# Few sizes, each of which is compiled once.
@given(
    st.lists(st.sampled_from((0, 1, 2, 7)), min_size=1, max_size=12),
    st.sampled_from((0.0, 3.0, -400.0)),
    st.sampled_from((1e-2, 1.0, 50.0)),
    st.randoms(use_true_random=False),
)
def test_any_chunks_in_any_order_equal_all_rows_at_once(sizes, offset, scale, random):
    rows = make(sum(sizes), offset=offset, scale=scale)
    chunks = np.split(rows, np.cumsum(sizes)[:-1])
    random.shuffle(chunks)
    moments = Moments.start(COLUMNS)
    for chunk in chunks:
        moments = merge(moments, jnp.asarray(chunk))
    if len(rows):
        assert_moments(moments, rows)
    else:
        assert eqx.tree_equal(moments, Moments.start(COLUMNS))


@pytest.mark.parametrize("chunk", (1, 50, 2000))
@pytest.mark.parametrize("offset", (0.0, 1e4, -1e6))
def test_a_large_offset_costs_no_digits(offset, chunk):
    rows = make(2000, offset=offset).reshape(-1, chunk, COLUMNS)
    start = Moments.start(COLUMNS)
    assert_moments(scanned(chunk)(start, rows), rows.reshape(-1, COLUMNS))
    # Where the start is so far away, most of the variance is its own: now begin nearby.
    near = dataclasses.replace(start, mean=jnp.full(COLUMNS, offset))
    moments = scanned(chunk)(near, rows)
    assert_moments(moments, rows.reshape(-1, COLUMNS), prior=offset, rtol=1e-5)


def test_many_rows_forget_the_start():
    rows = make(2000, offset=3.0, scale=0.5)
    moments = merge(Moments.start(COLUMNS), jnp.asarray(rows))
    np.testing.assert_allclose(moments.mean, rows.mean(0, dtype=np.float64), rtol=1e-5)
    np.testing.assert_allclose(moments.variance, rows.var(0, dtype=np.float64), rtol=1e-4)


@pytest.mark.parametrize("chunk", (1, 3, 300))
def test_columns_that_never_change(chunk):
    """The variance shrinks with the start's weight, precisely, and never below zero."""
    rows = np.full((300, COLUMNS), [0.0, 0.1, -700.3], np.float32)
    moments = scanned(chunk)(Moments.start(COLUMNS), rows.reshape(-1, chunk, COLUMNS))
    _, mean, variance = reference(rows)
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(moments.variance, variance, rtol=1e-4)
    assert np.all(np.asarray(moments.variance) > 0)


@pytest.mark.parametrize("chunk", (1, 64))
def test_a_billion_rows_are_not_the_end(chunk):
    """Float32 cannot count single rows there, and a mean would no longer move."""
    old, new = 10**9, 4096
    zero, full = jnp.zeros(COLUMNS), jnp.full(COLUMNS, 1e9)
    start = Moments(jnp.asarray(1e9), zero, full, (jnp.zeros(()), zero, zero))
    rows = make(new, offset=30.0, scale=2.0)
    moments = scanned(chunk)(start, rows.reshape(-1, chunk, COLUMNS))
    total = old + new
    fresh, spread = np.float64(rows).mean(0), np.float64(rows).var(0)
    assert float(moments.count) + float(moments.lost[0]) == total
    np.testing.assert_allclose(moments.mean, fresh * new / total, rtol=1e-5)
    grown = np.float64(moments.squares) + np.float64(moments.lost[2]) - old
    np.testing.assert_allclose(grown, new * spread + new * old / total * fresh**2, rtol=1e-4)


def test_coordinates_are_independent():
    rows = make(40)
    both = merge(Moments.start(COLUMNS), jnp.asarray(rows))
    one = merge(Moments.start(1), jnp.asarray(rows[:, 1:2]))
    np.testing.assert_allclose(both.mean[1], one.mean[0], rtol=1e-6)
    np.testing.assert_allclose(both.variance[1], one.variance[0], rtol=1e-6)


def test_it_can_be_scanned_and_vmapped():
    """Dtypes and shapes stay; many runs at once are each like one."""
    rows = jnp.stack([jnp.asarray(make(8, seed=s)) for s in range(3)])
    starts = jax.vmap(lambda _: Moments.start(COLUMNS))(jnp.arange(3))
    many = eqx.filter_vmap(Moments.merge)(starts, rows)
    for i in range(3):
        one = merge(Moments.start(COLUMNS), rows[i])
        np.testing.assert_allclose(many.mean[i], one.mean, rtol=1e-6)
        np.testing.assert_allclose(many.squares[i], one.squares, rtol=1e-6)
