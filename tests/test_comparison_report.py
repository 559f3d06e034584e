"""The table and the figure of a comparison."""

import csv
import json

import numpy as np
import pytest
from comparison_cases import NAVIGATE, STITCH, finish, make_cell, parse_table

from experiments._comparison_report import write_report
from experiments._comparison_rows import Row, summarise


def test_mean_and_deviation_are_numpys(tmp_path):
    scores = np.random.default_rng(0).uniform(size=(4, 5))
    for seed, values in enumerate(scores):
        finish(make_cell(tmp_path, seed), list(values))
    (row,) = summarise([make_cell(tmp_path, seed) for seed in range(4)])
    ours = 100 * scores[:, -3:].mean(axis=1)
    assert list(row.scores.values()) == pytest.approx(ours)
    assert row.mean == pytest.approx(np.mean(ours))
    assert row.std == pytest.approx(np.std(ours, ddof=1))
    assert row.tasks[2] == pytest.approx({"task1": ours[2] - 1, "task2": ours[2] + 1})
    assert row.speed == pytest.approx(101.5)


def test_one_seed_has_no_deviation_and_none_no_mean(tmp_path):
    finish(make_cell(tmp_path), [0.5, 0.5, 0.5])
    (row,) = summarise([make_cell(tmp_path)])
    assert (row.mean, row.std) == (pytest.approx(50), None)
    empty = Row(NAVIGATE, "gcbc", (0,), {})
    assert (empty.mean, empty.std, empty.speed, empty.scores) == (None, None, None, {})


@pytest.fixture
def partial(tmp_path):
    """Two finished runs of crl, one of infonce, none of the rest."""
    finish(make_cell(tmp_path, 0, "crl"), [0.9, 0.1, 0.2, 0.3])
    finish(make_cell(tmp_path, 1, "crl"), [0.9, 0.3, 0.4, 0.5])
    finish(make_cell(tmp_path, 0, "infonce"), [0.25, 0.25, 0.25])
    names = [(d, o) for d in (NAVIGATE, STITCH) for o in ("crl", "infonce")]
    cells = [make_cell(tmp_path, seed, o, d) for seed in (0, 1) for d, o in names]
    write_report(cells, tmp_path)
    return tmp_path


def test_a_partial_table_is_readable(partial):
    text = (partial / "comparison.md").read_text()
    rows = parse_table(text)
    shown = [[row[n] for n in ("success (%)", "published (%)", "seeds")] for row in rows]
    assert [(row["dataset"], row["objective"]) for row in rows] == [
        *((NAVIGATE, "crl"), (NAVIGATE, "infonce"), (STITCH, "crl"), (STITCH, "infonce"))
    ]
    assert shown[0] == ["30.0 ± 14.1", "29 ± 7", "2"]
    assert shown[1] == ["25.0", "–", "1 of 2"]
    assert shown[2] == ["…", "0 ± 1", "0 of 2"]
    assert shown[3] == ["…", "–", "0 of 2"]


def test_the_table_says_the_protocol(partial):
    text = (partial / "comparison.md").read_text()
    said = ("3 of 8 runs", "50,000 gradient steps", "batches of 256", "mlp (depth 3, width 8)")
    said += ("50 episodes", "2 seeds (0, 1)", "after 20, 30 and 40 steps", "jax 1.2.3", "c0ffee")
    said += ("1,000,000 gradient steps", "batches of 1024", "over 8 seeds", "2410.20092")
    assert [words for words in said if words not in text] == []
    assert "different data" not in text


def test_numbers_for_machines_are_those_of_the_table(partial):
    with (partial / "comparison.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    found = json.loads((partial / "comparison.json").read_text())
    assert len(lines) == len(found["rows"]) == 4
    for line, row in zip(lines, found["rows"], strict=True):
        assert (line["dataset"], line["objective"]) == (row["dataset"], row["objective"])
        for name in ("mean", "std", "published_mean", "published_std", "updates_per_second"):
            assert line[name] == ("" if row[name] is None else str(row[name]))
    assert lines[0]["scores"] == "0:20 1:40"
    assert lines[0]["architecture"] == "mlp (depth 3, width 8)"
    assert found["rows"][0]["scores"] == pytest.approx({"0": 20, "1": 40})
    assert found["rows"][0]["tasks"]["1"] == pytest.approx({"task1": 39, "task2": 41})
    assert [run["finished"] for run in found["runs"]] == [
        True,
        True,
        *[False] * 2,
        True,
        *[False] * 3,
    ]
    assert found["runs"][0]["updates_per_second"] == 100
    assert found["runs"][0]["config"]["steps"] == found["protocol"]["steps"] == 50_000


def test_a_figure_is_drawn(partial):
    assert (partial / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert not list(partial.glob(".*.part"))


def test_runs_on_different_data_are_pointed_out(tmp_path):
    cells = [make_cell(tmp_path, seed) for seed in (0, 1)]
    for cell, digest in zip(cells, "ab", strict=True):
        finish(cell, [0.5, 0.5, 0.5])
        found = json.loads((cell.path / "results.json").read_text())
        found["config"]["dataset_digest"] = digest
        (cell.path / "results.json").write_text(json.dumps(found))
    write_report(cells, tmp_path)
    assert f"Runs on {NAVIGATE} had different data" in (tmp_path / "comparison.md").read_text()
