from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from crlx import JSON, run_axes, take_run

from ._job import AbstractJob, Found, Seed
from ._run_directory import RunDirectory


class SeedsJob(AbstractJob):
    """Several runs that differ in their seeds alone, as one program: `jax.vmap` over whole runs.

    What is logged and recorded of all are means; what belongs to a run goes by its name.

    **Arguments:**

    - `jobs`: one for each seed, by the name of its part of the run's directory. They differ in what
      evaluates them, at most: everything else is taken of the first.
    """

    def __init__(self, jobs: Mapping[str, AbstractJob]):
        self._jobs = jobs
        self._one = one = next(iter(jobs.values()))
        self.seed, self.mesh = one.seed, one.mesh
        self.rounds, self.interval = one.rounds, one.interval
        self._axes = run_axes(eqx.filter_eval_shape(one.init, one.seed))

    def init(self, seed: Seed) -> PyTree:
        seeds = seed + jnp.arange(len(self._jobs), dtype=jnp.uint32)
        return eqx.filter_vmap(self._one.init, out_axes=self._axes)(seeds)

    def trained(self, carry: PyTree) -> PyTree:
        return self._one.trained(carry)

    def packed(self, carry: PyTree) -> dict[str, PyTree]:
        return self._one.packed(carry)

    def unpacked(self, items: Mapping[str, PyTree]) -> PyTree:
        return self._one.unpacked(items)

    def rounds_done(self, carry: PyTree) -> int:
        return self._one.rounds_done(carry)

    def step(self, rounds: int) -> int:
        return self._one.step(rounds)

    def rounds_per_call(self, parameters: int) -> int:
        return self._one.rounds_per_call(parameters)

    @property
    def kept(self) -> PyTree:
        return self._one.kept

    def advance(self, kept: PyTree, carry: PyTree, rounds: int) -> tuple[PyTree, PyTree]:
        advance = eqx.filter_vmap(
            lambda carry: self._one.advance(kept, carry, rounds),
            in_axes=(self._axes,),
            out_axes=(self._axes, 0),
        )
        return advance(carry)

    def curves(self, metrics: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        each = {
            name: job.curves({metric: values[i] for metric, values in metrics.items()})
            for i, (name, job) in enumerate(self._jobs.items())
        }
        return {**means(list(each.values())), **_prefixed(each)}

    def speeds(self, before: int, rounds: int, seconds: float) -> dict[str, float]:
        """Those of each run."""
        return self._one.speeds(before, rounds, seconds)

    def evaluate(
        self,
        carry: PyTree,
        step: int,
        *,
        stop: Callable[[], bool],
        show: Callable[[int, int], None],
    ) -> Found | None:
        found = {}
        for i, (name, job) in enumerate(self._jobs.items()):
            one = job.evaluate(take_run(carry, i), step, stop=stop, show=show)
            if one is None:
                return None
            found[name] = one
        return _together(found)


def means(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean over several runs of what all have, and the standard deviation of the sample, under
    the same name with `_std`."""
    together = {name: np.stack([one[name] for one in each]) for name in each[0]}
    return {name: np.mean(v, axis=0) for name, v in together.items()} | {
        f"{name}_std": np.std(v, axis=0, ddof=1) for name, v in together.items()
    }


def own_evaluations(evaluations: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """Those of one run, from the record of all."""
    return [{"step": line["step"], **line[name]} for line in evaluations]


def _together(found: Mapping[str, Found]) -> Found:
    every = list(found.values())
    tasks = {name: float(np.mean([f.tasks[name] for f in every])) for name in every[0].tasks}
    spread = _floats(means([{"overall_success": f.overall_success, **f.scores} for f in every]))
    scores: dict[str, JSON] = {name: spread[name] for name in every[0].scores}
    for name, one in found.items():
        own = {"overall_success": one.overall_success, "tasks": one.tasks}
        scores[name] = {**own, **one.scores}
    deviations = {name: value for name, value in spread.items() if name.endswith("_std")}
    figures = {name: one.figures for name, one in found.items()}
    texts = [f"{name}: {one.text}" for name, one in found.items()]
    success, deviation = spread["overall_success"], spread["overall_success_std"]

    def draw(evaluations: list[dict[str, Any]], directory: RunDirectory) -> None:
        for name, one in found.items():
            one.draw(own_evaluations(evaluations, name), directory.parts[name])

    return Found(
        success,
        tasks,
        scores,
        {**deviations, **_floats(means(list(figures.values()))), **_prefixed(figures)},
        "\n  ".join([f"success {success:.1%} ± {deviation:.1%}", *texts]),
        draw,
    )


def _floats(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def _prefixed(each: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{name}/{key}": value for name, one in each.items() for key, value in one.items()}
