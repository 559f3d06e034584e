import json

import jax
import numpy as np
import pytest

from architectures import ResidualNetworks, Sequential, Stacked
from crlx import Spec
from experiments._depth import Looped, measure, measure_apart
from experiments.benchmark_depth import Options, main

OPTION = "xla_cpu_prefer_vector_width=128"
SMALL = {"batch_size": 8, "compilations": 1, "calls": 1}


@pytest.mark.thorough
def test_twins_compute_the_same_update():
    scanned = ResidualNetworks(depth=8, width=8)
    rows = [list(measure(a, **SMALL))[-1] for a in (scanned, Looped(scanned))]
    assert rows[0]["loss"] == pytest.approx(rows[1]["loss"], rel=1e-4)
    assert all(row["peak_bytes"] > 0 and row["seconds_per_update"] > 0 for row in rows)


def test_the_twin_has_no_scan_left(getkey):
    critic = Looped(ResidualNetworks(depth=8, width=8)).critic(Spec(3, 2, 3), key=getkey())
    kinds = jax.tree.leaves(critic, is_leaf=lambda n: isinstance(n, Stacked | Sequential))
    assert any(isinstance(node, Sequential) for node in kinds)
    assert not any(isinstance(node, Stacked) for node in kinds)


@pytest.mark.thorough
def test_rows_are_written_as_promised(tmp_path):
    out = tmp_path / "new" / "depth.json"
    sizes = {"width": 8, "batch_size": 8, "repeats": 1}
    main(
        Options(
            ("hyperspherical",), (4,), **sizes, meshes=("data=2,layers=2",), xla=(OPTION,), out=out
        )
    )
    found = json.loads(out.read_text())
    cases = {(row["architecture"], row["depth"], row["twin"]) for row in found["rows"]}
    twins = {"fused", "scan", "loop", "fused data=2,layers=2", f"fused {OPTION}"}
    assert cases == {("hyperspherical", 4, twin) for twin in twins}
    losses = [row["loss"] for row in found["rows"]]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-4)
    promised = {"architecture", "depth", "twin", "compile_seconds", "seconds_per_update"}
    promised |= {
        "share_of_products",
        "share_of_bytes",
        "peak_bytes",
        "logit_mean",
        "logit_spread",
        "penalty",
        "saturated",
    }
    assert all(promised <= row.keys() for row in found["rows"])
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.thorough
def test_statistics_are_those_of_initialization():
    """The penalty is 0.1 times the mean square of log-sums near the mean score plus log B."""
    row = list(measure(ResidualNetworks(depth=64, width=8), **SMALL))[-1]
    estimate = 0.1 * (row["logit_mean"] + np.log(SMALL["batch_size"])) ** 2
    assert row["penalty"] == pytest.approx(estimate, rel=0.1)
    assert 0 < row["logit_spread"] < -row["logit_mean"]
    assert 0 <= row["saturated"] <= 1


@pytest.mark.thorough
def test_what_compiles_too_long_is_left_out():
    network = Looped(ResidualNetworks(depth=16, width=8))
    assert measure_apart(network, seconds_to_compile=0.01, **SMALL) is None


@pytest.mark.thorough
def test_a_measurement_that_fails_is_not_waited_for():
    with pytest.raises(RuntimeError, match="ended early"):
        measure_apart(ResidualNetworks(width=8), seconds_to_compile=None, **{**SMALL, "calls": -1})


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        ("model=2", "written as data=N or data=N,layers=M"),
        ("data=3", "--batch-size 8 cannot be split over 3 devices: use 6 or 9"),
        ("data=1,layers=4", "--width 6 cannot be split in 4 .* such as 8"),
    ],
)
def test_meshes_that_do_not_fit_are_refused(mesh, message):
    with pytest.raises(ValueError, match=message):
        Options(width=6, batch_size=8, meshes=(mesh,))


@pytest.mark.parametrize("field", ["batch_size", "repeats", "seconds_to_compile"])
def test_impossible_numbers_are_refused(field):
    with pytest.raises(ValueError, match="must be positive"):
        Options(**{field: 0})
