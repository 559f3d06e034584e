"""What the depth benchmark counts, fits and compares."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from architectures import Precision, ResidualNetworks
from architectures._products import product
from experiments._depth_fit import PAPER_UPDATES, hours, line
from experiments._machine import Machine, measure_machine, shares
from experiments._program_costs import costs
from experiments._score_errors import score_errors


@pytest.mark.parametrize("precision", Precision)
def test_products_are_counted_as_often_as_they_run(precision):
    """By hand: in seven turns, one product forwards and two in the gradient, each of 5 rows."""
    weights = jnp.ones((7, 4, 4))

    def loss(weights, x):
        def body(x, weight):
            return jax.vmap(product, (0, None))(x, weight), None

        with precision.scope():
            return jnp.sum(jax.lax.scan(body, x, weights)[0])

    gradient = jax.grad(loss, (0, 1))
    found = costs(eqx.filter_make_jaxpr(gradient)(weights, jnp.ones((5, 4)))[0])
    assert found.flops == 7 * 3 * 2 * 5 * 4 * 4
    assert found.bytes == 7 * 3 * 4 * (5 * 4 + 4 * 4 + 5 * 4)


def test_the_line_through_points_on_a_line():
    rows = [{"depth": d, "seconds": 3.0 + 0.5 * d} for d in (4, 16, 1024)]
    np.testing.assert_allclose(line(rows, "seconds"), (3, 0.5, 0), rtol=1e-6, atol=1e-9)
    rows[1]["seconds"] *= 1.3
    assert 0.05 < line(rows, "seconds")[2] < 0.3


def test_the_paper_took_its_own_hours():
    assert hours(0.131) == pytest.approx(134.15)
    assert pytest.approx(3.69e6, rel=0.01) == PAPER_UPDATES


def test_rates_are_those_of_a_machine():
    machine = measure_machine(size=128, length=1 << 16, repeats=2)
    assert 1e7 < machine.flops < 1e17
    assert 1e7 < machine.bytes < 1e15


def test_shares_are_of_the_rates_of_a_machine():
    row = {"product_flops": 6.0, "product_bytes": 10.0, "seconds_per_update": 2.0}
    found = shares(row, Machine(flops=12.0, bytes=4.0))
    assert found == {"share_of_products": 0.25, "share_of_bytes": 1.25}


def test_rounding_blocks_changes_scores_and_leaves_energies_alone():
    errors = {
        precision: score_errors(
            ResidualNetworks(depth=8, width=16, dim=8, precision=precision), batch_size=16
        )
        for precision in (Precision.DEFAULT, Precision.BFLOAT16)
    }
    exact, rough = errors[Precision.DEFAULT], errors[Precision.BFLOAT16]
    assert exact["score_error"] < 1e-4 < 1e-3 < rough["score_error"] < 0.5
    assert max(exact["energy_error"], rough["energy_error"]) < 1e-4
