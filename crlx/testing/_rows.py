import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from .._behaviours import Agent
from .._rows import AbstractRows
from .._source import AbstractSource, Data
from .._types import Metrics
from ._jaxprs import check_memory, stored
from ._loss import NAME
from ._require import require, require_close, require_finite, require_same_structure
from ._statistics import chi_square


def check_rows(
    rows: AbstractRows, drawable: Int[np.ndarray, " drawable"], *, key: PRNGKeyArray
) -> None:
    """`draw`, `take` and `last` keep their promises.

    `draw` is uniform over the drawable rows and over nothing else; `last` satisfies its
    invariants; `take` gathers row by row. With more than 64 rows: none of them needs memory in
    proportion to the rows.

    **Arguments:**

    - `rows`: what to check; some hundred will do.
    - `drawable`: the row numbers with an action and a stored successor, all of them.
    """
    drawable = np.asarray(drawable)
    dkey, tkey = jr.split(key)
    _check_draw(rows, drawable, key=dkey)
    _check_last(rows, drawable)
    index = rows.draw(7, key=tkey)
    _check_take(rows, index)
    if stored(rows) <= 64:
        return
    check_memory(lambda rows, key: rows.draw(7, key=key), rows, tkey, what="`draw`")
    check_memory(lambda rows, index: rows.last(index), rows, index, what="`last`")
    check_memory(lambda rows, index: rows.take(index), rows, index, what="`take`")


def check_source(
    source: AbstractSource[Data],
    agent: Agent,
    *,
    collections: int = 3,
    batch_size: int = 16,
    key: PRNGKeyArray,
) -> None:
    """Data keep their structure through `collect`, so that `epoch` can scan; rows can be drawn.

    **Arguments:**

    - `source`: what to check. Test its rows with `check_rows`, which needs to know them.
    - `agent`: acts while collecting.
    - `collections`: how often to collect before looking at the rows.
    - `batch_size`: how many rows to draw.
    """
    ikey, ckey, dkey = jr.split(key, 3)
    first = before = data = source.init(key=ikey)
    require_close(source.init(key=ikey), data, "`init`, twice with one key: ", rtol=0.0, atol=0.0)
    collect = eqx.filter_jit(source.collect)
    metrics: Metrics = {}
    keys = jr.split(ckey, collections)
    for k in keys:
        before = data
        data, metrics = collect(data, agent, key=k)
        require_same_structure(before, data, "After `collect`, data")
    again, _ = collect(before, agent, key=keys[-1])
    require_close(again, data, "`collect`, twice from one state: ", rtol=0.0, atol=0.0)
    require_same_structure(first, data, "After all collections, data")
    for name, metric in metrics.items():
        require(
            NAME.fullmatch(name) and metric.shape == (),
            f"Metric {name!r} of shape {metric.shape}: return scalars named `group/name`.",
        )
    require_finite(metrics, "Metrics of `collect`: ")
    rows = source.rows(data)
    require(isinstance(rows, AbstractRows), f"`rows` returns a {type(rows).__name__}.")
    index = np.asarray(rows.draw(batch_size, key=dkey))
    _check_last(rows, np.unique(index))
    _check_take(rows, jnp.asarray(index))
    require_finite(rows.take(jnp.asarray(index) + 1), "Successors of drawn rows: ")


def _check_draw(
    rows: AbstractRows, drawable: Int[np.ndarray, " drawable"], *, key: PRNGKeyArray
) -> None:
    size = 50 * len(drawable)
    drawn = eqx.filter_jit(lambda rows, key: rows.draw(size, key=key))(rows, key)
    require(
        drawn.shape == (size,) and jnp.issubdtype(drawn.dtype, jnp.integer),
        f"`draw({size})` returns {drawn.dtype}{drawn.shape}; return {size} integers.",
    )
    other = np.setdiff1d(drawn, drawable)
    require(
        not len(other),
        f"`draw` returned rows {other[:5]}, which have no action or no stored successor.",
    )
    counts = np.bincount(drawn, minlength=drawable.max() + 1)[drawable]
    chance = chi_square(counts, np.full(len(drawable), 1 / len(drawable)))
    require(
        1e-5 < chance < 1 - 1e-5,
        f"`draw` is not uniform and independent: a fit as bad has chance {chance:.1g} (near 1: too "
        f"even). Rows {drawable[counts == 0][:5]} never came, in {size} draws.",
    )


def _check_last(rows: AbstractRows, index: Int[np.ndarray, " some"]) -> None:
    last = np.asarray(rows.last(jnp.asarray(index)))
    require(last.shape == index.shape, f"`last` of {index.shape} rows has shape {last.shape}.")
    early = index[last < index]
    require(not len(early), f"`last` lies before the row itself, at rows {early[:5]}.")
    again = np.asarray(rows.last(jnp.asarray(last)))
    moved = last[again != last]
    require(not len(moved), f"`last` of `last` is not itself, at rows {moved[:5]}.")
    inner = index[index < last]
    follows = np.asarray(rows.last(jnp.asarray(inner + 1)))
    torn = inner[follows != last[index < last]]
    require(not len(torn), f"Rows {torn[:5]} and their successors have a different `last`.")


def _check_take(rows: AbstractRows, index: Array) -> None:
    steps = rows.take(index)
    for leaf in jax.tree.leaves(steps):
        require(
            leaf.shape[0] == len(index),
            f"`take` of {len(index)} rows returns an array of shape {leaf.shape}.",
        )
    turned = rows.take(index[::-1])
    require_close(turned, jax.tree.map(lambda x: x[::-1], steps), "`take` of rows turned round: ")
    single = rows.take(index[:1])
    require_close(single, jax.tree.map(lambda x: x[:1], steps), "`take` of one row: ")
