"""Networks in one loop do what they do apart."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lengths import at_length

from architectures import MLPNetworks, Precision, Remat, ResidualNetworks, unstacked
from architectures._side_by_side import alike, batched, side_by_side
from crlx import Pass, loops, run


def encoder(depth=8, width=8, size=3, seed=0, kind=ResidualNetworks, **options):
    make = kind(depth=depth, width=width, **options).encoder
    return eqx.filter_jit(make)(size, 4, key=jr.key(seed))


def both(networks, inputs):
    """Outputs and gradients of a weighted sum of them: together and one by one."""

    def value(networks, together):
        passes = [Pass(n, x) for n, x in zip(networks, inputs, strict=True)]
        outputs = run(passes) if together else [jax.vmap(p.network)(p.inputs) for p in passes]
        return sum(jnp.sum(jnp.sin(y + i)) for i, y in enumerate(outputs)), outputs

    compute = eqx.filter_jit(eqx.filter_value_and_grad(value, has_aux=True))
    return compute(networks, True), compute(networks, False)


def assert_same(found, expected, tolerance=1e-5):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1e-3, np.abs(b).max()))


@settings(max_examples=3)
@given(
    st.lists(
        st.tuples(st.sampled_from((4, 8)), st.sampled_from((4, 8)), st.integers(1, 5)),
        min_size=1,
        max_size=4,
    )
)
def test_together_is_apart(shapes):
    """Other widths, sizes of inputs and of batches do not keep networks out of a loop; another
    depth does."""
    networks = [encoder(d, w, n, seed=i) for i, (d, w, n) in enumerate(shapes)]
    inputs = [jr.normal(jr.key(i), (i + 2, n)) for i, (_, _, n) in enumerate(shapes)]
    assert_same(*both(networks, inputs))
    groups = loops(networks)
    assert sorted(i for group in groups for i in group) == list(range(len(shapes)))
    for group in groups:
        assert len({shapes[i][0] for i in group}) == 1
    assert len(groups) == len({depth for depth, _, _ in shapes})


OTHERS = {
    "depth": lambda: encoder(depth=4),
    "remat": lambda: encoder(remat=Remat.BLOCK),
    "unroll": lambda: encoder(unroll=2),
    "precision": lambda: encoder(precision=Precision.BFLOAT16),
    "loop": lambda: unstacked(encoder()),
}


@pytest.mark.parametrize("kind", at_length(OTHERS, {"depth"}))
def test_what_does_not_fit_runs_alone(kind):
    networks = [encoder(), OTHERS[kind](), encoder(seed=1)]
    assert loops(networks) == [[0, 2], [1]]
    assert_same(*both(networks, [jr.normal(jr.key(i), (5, 3)) for i in range(3)]))


def test_a_network_of_one_layer_runs_alone():
    networks = [encoder(1, kind=MLPNetworks), encoder(3, kind=MLPNetworks)] * 2
    assert loops(networks) == [[0], [1, 3], [2]]
    assert_same(*both(networks, [jr.normal(jr.key(i), (5, 3)) for i in range(4)]))


def test_one_loop_forwards_and_one_backwards():
    networks = [encoder(seed=i) for i in range(3)]
    x = jnp.ones((2, 3))

    def value(networks):
        return sum(jnp.sum(y) for y in run([Pass(n, x) for n in networks]))

    arrays, rest = eqx.partition(networks, eqx.is_array)
    text = str(jax.make_jaxpr(jax.grad(lambda a: value(eqx.combine(a, rest))))(arrays))
    assert text.count("scan[") == 2


@pytest.mark.parametrize("way", ("side by side", "batched"))
def test_both_layouts_of_a_step(way):
    networks = [encoder(seed=i).trunk.stack for i in range(3)]
    streams = [jr.normal(jr.key(i), (5, 8)) for i in range(3)]
    assert alike(networks, streams)
    arrays, static = zip(*(eqx.partition(n.blocks, eqx.is_array) for n in networks), strict=True)
    makers = [lambda a, s=s: eqx.combine(a, s) for s in static]
    step = side_by_side(makers) if way == "side by side" else batched(makers[0])
    found, _ = jax.lax.scan(step, tuple(streams), arrays)
    expected = [jax.vmap(n)(x) for n, x in zip(networks, streams, strict=True)]
    assert_same(found, tuple(expected))


def test_what_is_alike():
    network, x = encoder().trunk.stack, jnp.ones((2, 8))
    assert not alike([network, encoder(width=16).trunk.stack], [x, x])
    assert not alike([network, encoder(seed=1).trunk.stack], [x, x[:1]])
    other = encoder(kind=MLPNetworks, depth=3).trunk.stack
    assert not alike([network, other], [x, x])
