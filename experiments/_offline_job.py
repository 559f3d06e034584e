import functools
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray

from crlx import DeviceMesh, Progress, best_actions, epoch, local
from crlx.envs.ogbench import Evaluation, EvaluationStopped, Evaluator

from ._job import AbstractJob, Found, Seed
from ._plots import plot_curve, plot_trajectories
from ._run_directory import RunDirectory
from ._snapshot import packed, unpacked
from ._task import Task, chunk_length

Carry = tuple[Progress[Any, Any], PRNGKeyArray]


class OfflineJob(AbstractJob):
    """Training on a fixed dataset, evaluated by OGBench's protocol. A round is a gradient step.

    **Arguments:**

    - `task`: what is trained on what.
    - `mesh`: the devices to train on, which the data of the task already lie on.
    - `evaluator`: of the dataset's environment.
    - `seed`: of networks and minibatches.
    """

    def __init__(self, task: Task, mesh: DeviceMesh, evaluator: Evaluator, *, seed: int):
        self._task, self._evaluator = task, evaluator
        self.mesh, self.seed = mesh, seed
        self.rounds, self.interval = task.steps, task.interval

    def init(self, seed: Seed) -> Carry:
        return self._task.init(seed)

    def trained(self, carry: Carry) -> Any:
        return carry[0].params

    def packed(self, carry: Carry) -> dict[str, Any]:
        return packed(*carry)

    def unpacked(self, items: Mapping[str, Any]) -> Carry:
        return unpacked(items)

    def rounds_done(self, carry: Carry) -> int:
        return int(carry[0].step)

    def step(self, rounds: int) -> int:
        return rounds

    def rounds_per_call(self, parameters: int) -> int:
        task = self._task
        suited = chunk_length(task.interval, parameters, task.batch_size)
        return suited if task.log_every is None else min(task.log_every, task.interval)

    @property
    def kept(self) -> Any:
        return self._task.learner, self._task.source

    def advance(self, kept: Any, carry: Carry, rounds: int) -> tuple[Carry, Any]:
        (learner, source), (progress, key) = kept, carry
        skey, ukey, _ = jr.split(key, 3)
        data, size = source.init(key=skey), self._task.batch_size
        progress, _, metrics = epoch(
            learner, source, progress, data, updates=rounds, batch_size=size, key=ukey
        )
        return (progress, key), metrics

    def curves(self, metrics: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return {name: np.ravel(values) for name, values in metrics.items()}

    def speeds(self, before: int, rounds: int, seconds: float) -> dict[str, float]:
        del before
        return {"updates_per_second": rounds / seconds}

    def evaluate(
        self,
        carry: Carry,
        step: int,
        *,
        stop: Callable[[], bool],
        show: Callable[[int, int], None],
    ) -> Found | None:
        carry = local(carry)
        progress = carry[0]
        actor = self._task.learner.objective.policy(progress.params, progress.state)

        def policy(observations: np.ndarray, goals: np.ndarray) -> np.ndarray:
            return np.asarray(best_actions(actor, jnp.asarray(observations), jnp.asarray(goals)))

        try:
            found = self._evaluator(policy, step=step, stop=stop, progress=show)
        except EvaluationStopped:
            return None
        scores = ", ".join(f"{name} {score:.0%}" for name, score in found.tasks.items())
        return Found(
            found.overall_success,
            found.tasks,
            {},
            self._held_out(carry),
            f"success {found.overall_success:.1%} ({scores})",
            functools.partial(self._draw, found),
        )

    def _held_out(self, carry: Carry) -> dict[str, float]:
        task, (progress, key) = self._task, carry
        measure_key = jr.split(key, 3)[2]
        measured = _measure(task.learner, progress, task.validation, task.batch_size, measure_key)
        return {f"validation/{name}": float(value) for name, value in measured.items()}

    def _draw(
        self, found: Evaluation, evaluations: list[dict[str, Any]], directory: RunDirectory
    ) -> None:
        path = directory.path
        plot_curve(directory.lines(), evaluations, path / "curve.png")
        if self._evaluator.maze is not None:
            plot_trajectories(self._evaluator.maze, found, path / "trajectories.png")


@eqx.filter_jit
def _measure(learner, progress, rows, batch_size, key):
    return learner.measure(progress, rows, batches=8, batch_size=batch_size, key=key)
