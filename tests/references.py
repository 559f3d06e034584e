"""Trajectories of the reference environments: see `data/environments/README.md`."""

import json
import pathlib

import numpy as np

_FOLDER = pathlib.Path(__file__).parent / "data" / "environments"


def task(name):
    """The record of one task."""
    return json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def cases(*names):
    """Pairs of a task's name and a case's, for `pytest.mark.parametrize`."""
    return [(name, case) for name in names for case in task(name)["cases"]]


def actions(case, size):
    """`[steps, size]`, the actions of a case."""
    rule, steps, entry = case["actions"], case["steps"], np.arange(size)
    match rule["kind"]:
        case "sine":
            time = np.arange(steps)[:, None]
            angle = rule["frequency"] * time + rule["phase"] * entry
            values = rule["amplitude"] * np.sin(angle)
        case "constant":
            values = np.full((steps, size), rule["value"])
        case "list":
            values = np.array(rule["values"])
        case "held":
            values = np.repeat(rule["values"], rule["hold"], axis=0)[:steps]
        case kind:
            raise ValueError(kind)
    return values.astype(np.float32)


def compare(place, step, spec, case):
    """Runs a case and compares all that it records.

    `place(q, qd, goal)` and `step(state, action)` give states of Brax; `spec` is the task's.
    """
    state = place(*(np.array(case[name], np.float32) for name in ("q", "qd", "goal")))
    expected = {record["step"]: record for record in case["expected"]}
    _compare_state(spec, state, expected[0])
    steps = case["comparable_until"]
    for time, action in enumerate(actions(case, spec.action_size)[:steps], start=1):
        state = step(state, action)
        if time in expected:
            _compare_state(spec, state, expected[time])
        tolerance = expected[min(t for t in expected if t >= time)]["tolerance"]
        near = time in case["near_threshold"]
        for name, series in case["series"].items():
            _compare_scalar(name, state, series[time - 1], tolerance, near, f"{name}, step {time}")


def _compare_state(spec, state, record):
    observed, tolerance = np.array(state.obs), record["tolerance"]
    where = f"step {record['step']}"
    np.testing.assert_array_less(
        _error(observed[: spec.state_size], record["state"]), tolerance, err_msg=where
    )
    if "goal" in record:
        np.testing.assert_array_less(
            _error(observed[spec.state_size :], record["goal"]), tolerance, err_msg=where
        )


def _compare_scalar(name, state, expected, tolerance, near, where):
    own = {"done": state.done, "reward_dense": state.reward}.get(name)
    own = np.array(state.metrics[name] if own is None else own)
    if name in ("dist", "reward_dense"):
        assert _error(own, expected) <= tolerance, where
    elif not near:
        assert own == expected, where


def _error(actual, expected):
    expected = np.array(expected)
    return np.abs(actual - expected) / np.maximum(1, np.abs(expected))
