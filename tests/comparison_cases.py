"""Runs of a comparison without any training, shared by its tests."""

import json

from experiments._comparison import Cell

NAVIGATE, STITCH = "pointmaze-medium-navigate-local", "pointmaze-medium-stitch-local"


def results(cell, scores):
    """As a run writes them, with a score for each of its evaluations."""
    evaluations = [
        {
            "step": 10 * (i + 1),
            "overall_success": s,
            "tasks": {"task1": s - 0.01, "task2": s + 0.01},
        }
        for i, s in enumerate(scores)
    ]
    return {
        "config": {**cell.config, "dataset_digest": "abc"},
        "versions": {"jax": "1.2.3"},
        "commit": "c0ffee",
        "device": {"kind": "cpu"},
        "updates_per_second": 100.0 + cell.seed,
        "evaluations": evaluations,
        "overall_success": sum(scores[-3:]) / 3,
    }


def make_cell(out, seed=0, objective="gcbc", dataset=NAVIGATE):
    config = {
        "dataset": dataset,
        "seed": seed,
        **{"steps": 50_000, "batch_size": 256, "learning_rate": 3e-4, "episodes": 50},
        "normalize": False,
        "architecture_name": "mlp",
        "architecture": {"type": "architectures.MLPNetworks", "depth": 3, "width": 8},
    }
    path = out / dataset / objective / str(seed)
    return Cell(dataset, objective, seed, path, ("--seed", str(seed)), (), config)


def finish(cell, scores):
    cell.path.mkdir(parents=True)
    (cell.path / "config.json").write_text(json.dumps(cell.config))
    (cell.path / "results.json").write_text(json.dumps(results(cell, scores)))


def parse_table(text):
    """The rows of a Markdown table, by the names in its header."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    header, rule, *rows = ([c.strip() for c in line.strip("|").split("|")] for line in lines)
    assert all(set(dashes) <= set("-:") for dashes in rule)
    assert {len(row) for row in rows} == {len(header)} == {len(rule)}
    return [dict(zip(header, row, strict=True)) for row in rows]
