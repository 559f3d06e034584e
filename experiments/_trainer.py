import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray

from crlx import JSON, Checkpoints, Progress, best_actions, epoch
from crlx.envs.ogbench import Evaluation, EvaluationStopped, Evaluator

from ._compile import compile_ahead
from ._divergence import Diverged, find_divergence
from ._plots import plot_curve, plot_trajectories
from ._reporter import Reporter
from ._run_directory import RunDirectory
from ._snapshot import Record, packed, unpacked
from ._stop import Stopped, StopRequest
from ._task import Task, chunk_length, count_parameters

_SECONDS_BETWEEN_SAVES = 300


class Trainer:
    """The driver: advances in compiled chunks, evaluates, logs, saves, stops and resumes."""

    def __init__(
        self, task: Task, evaluator: Evaluator, directory: RunDirectory, reporter: Reporter
    ):
        self._task, self._evaluator = task, evaluator
        self._directory, self._reporter = directory, reporter
        self._skeleton: Any = eqx.filter_eval_shape(task.init)
        parameters = count_parameters(self._skeleton[0].params)
        suited = chunk_length(task.interval, parameters, task.batch_size)
        self._chunk = suited if task.log_every is None else min(task.log_every, task.interval)
        self._compiled: dict[int, Callable[[Any, Any], Any]] = {}
        self._stop = StopRequest()
        self._loss = math.nan
        self.record = Record()

    def run(self) -> None:
        """Trains to the end.

        Raises `Stopped` after a signal, with everything saved, and `Diverged` at the first
        metric that is not finite.
        """
        self._checkpoints = Checkpoints(self._directory.checkpoints)
        self._saved_at = time.monotonic()
        try:
            with self._stop:
                self._progress, key = self._restore() or eqx.filter_jit(self._task.init)()
                self._key = key
                self._source_key, self._update_key, self._measure_key = jr.split(key, 3)
                while self._step < self._task.steps or not self._evaluated:
                    self._turn()
        finally:
            self._checkpoints.close()

    @property
    def _step(self) -> int:
        return int(self._progress.step)

    @property
    def _evaluated(self) -> bool:
        step, task = self._step, self._task
        due = step > 0 and (step % task.interval == 0 or step == task.steps)
        return not due or any(e["step"] == step for e in self.record.evaluations)

    def _turn(self) -> None:
        if self._stop:
            self._leave()
        elif not self._evaluated:
            self._evaluate()
        else:
            self._advance()
            if time.monotonic() - self._saved_at > _SECONDS_BETWEEN_SAVES:
                self._save()

    def _advance(self) -> None:
        before, task = self._step, self._task
        left = min(task.steps - before, task.interval - before % task.interval)
        updates = min(self._chunk, left)
        step = self._compile(updates)
        start = time.perf_counter()
        self._progress, metrics = step(self._kept, self._progress)
        metrics = {name: np.ravel(values) for name, values in jax.device_get(metrics).items()}
        seconds = time.perf_counter() - start
        self.record.seconds += seconds
        self.record.updates += updates
        problem = find_divergence(metrics)
        sound = updates if problem is None else problem[0]
        if sound:
            means: dict[str, JSON] = {n: float(np.mean(v[:sound])) for n, v in metrics.items()}
            speed = updates / seconds
            self._directory.log({"step": before + sound, **means, "updates_per_second": speed})
        if problem is not None:
            self._diverge(before + 1 + problem[0], problem[1])
        self._loss = float(np.mean(metrics["total/loss"]))
        self._show(updates / seconds)

    @property
    def _kept(self) -> Any:
        return self._task.learner, self._task.source, self._source_key, self._update_key

    def _compile(self, updates: int) -> Callable[[Any, Any], Any]:
        if updates not in self._compiled:
            self._reporter.say("Compiling ...")

            def several(kept: Any, progress: Any) -> Any:
                learner, source, skey, ukey = kept
                data, size = source.init(key=skey), self._task.batch_size
                progress, _, metrics = epoch(
                    learner, source, progress, data, updates=updates, batch_size=size, key=ukey
                )
                return progress, metrics

            step, seconds = compile_ahead(several, self._kept, self._progress)
            self._compiled[updates] = step
            self.record.compile_seconds += seconds
        return self._compiled[updates]

    def _diverge(self, step: int, text: str) -> NoReturn:
        saved = self._checkpoints.steps()
        good = f"The last good checkpoint is that of step {saved[-1]}. " if saved else ""
        raise Diverged(f"Step {step}: {text}. {good}A smaller --learning-rate may help.")

    def _evaluate(self) -> None:
        step, task = self._step, self._task
        actor = task.learner.objective.policy(self._progress.params, self._progress.state)

        def policy(observations: np.ndarray, goals: np.ndarray) -> np.ndarray:
            return np.asarray(best_actions(actor, jnp.asarray(observations), jnp.asarray(goals)))

        def show(done: int, total: int) -> None:
            self._reporter.update("evaluating", done, total)

        start = time.perf_counter()
        try:
            found = self._evaluator(policy, step=step, stop=lambda: bool(self._stop), progress=show)
        except EvaluationStopped:
            self._leave()
        self._reporter.finish("evaluating")
        line = {"step": step, "overall_success": found.overall_success, "tasks": found.tasks}
        self.record.evaluations.append(line)
        held_out = {f"validation/{name}": value for name, value in self._measure().items()}
        seconds = {"evaluation_seconds": time.perf_counter() - start}
        self._directory.log({**line, **held_out, **seconds, "event": "evaluation"})
        scores = ", ".join(f"{name} {score:.0%}" for name, score in found.tasks.items())
        self._reporter.say(f"Step {step:,}: success {found.overall_success:.1%} ({scores})")
        self._draw(found)
        self._save()

    def _measure(self) -> dict[str, float]:
        task = self._task
        measured = _measure(
            task.learner, self._progress, task.validation, task.batch_size, self._measure_key
        )
        return {name: float(value) for name, value in measured.items()}

    def _draw(self, found: Evaluation) -> None:
        path = self._directory.path
        plot_curve(self._directory.lines(), self.record.evaluations, path / "curve.png")
        if self._evaluator.maze is not None:
            plot_trajectories(self._evaluator.maze, found, path / "trajectories.png")

    def _show(self, speed: float) -> None:
        last = self.record.evaluations[-1:]
        success = f"{last[0]['overall_success']:.1%}" if last else "–"
        figures = f"{speed:.1f} updates/s  loss {self._loss:.3f}  success {success}"
        self._reporter.update("training", self._step, self._task.steps, figures)

    def _save(self) -> None:
        items = packed(self._progress, self._key)
        self._checkpoints.save(self._step, items, dataclasses.asdict(self.record))
        self._saved_at = time.monotonic()

    def _restore(self) -> tuple[Progress[Any, Any], PRNGKeyArray] | None:
        found = self._checkpoints.restore(packed(*self._skeleton))
        if found is None:
            return None
        self._checkpoints.set_aside(found.step)
        self.record = Record(**found.note)
        self._reporter.say(f"Resuming from step {found.step:,}.")
        return unpacked(found.items)

    def _leave(self) -> NoReturn:
        self._save()
        self._checkpoints.wait()
        assert self._stop.signal is not None
        raise Stopped(
            self._stop.signal,
            f"Stopped at step {self._step:,}; everything is saved. Continue with "
            f"--resume --out {self._directory.path}",
        )


@eqx.filter_jit
def _measure(learner, progress, rows, batch_size, key):
    return learner.measure(progress, rows, batches=8, batch_size=batch_size, key=key)
