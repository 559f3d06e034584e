import math
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from crlx import JSON, Checkpoints, Progress, best_actions, epoch
from crlx.envs.ogbench import Evaluation, EvaluationStopped, Evaluator

from ._compile import compile_ahead
from ._divergence import Diverged, find_divergence
from ._plots import plot_curve, plot_trajectories
from ._reporter import Reporter
from ._run_directory import RunDirectory
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
        self._checkpoints = Checkpoints(directory.checkpoints)
        self._skeleton: Any = eqx.filter_eval_shape(task.init)
        self._chunk = chunk_length(task.interval, count_parameters(self._skeleton[0].params))
        self._stop = StopRequest()
        self._compiled: Any = None
        self._saved_at = time.monotonic()
        self._seconds, self._updates, self._loss = 0.0, 0, math.nan
        self.compile_seconds: float | None = None
        self.evaluations: list[dict[str, Any]] = []

    def run(self) -> None:
        """Trains to the end.

        Raises `Stopped` after a signal, with everything saved, and `Diverged` at the first
        metric that is not finite.
        """
        self._progress, self._key = self._restore() or eqx.filter_jit(self._task.init)()
        try:
            with self._stop:
                while self._step < self._task.steps or not self._evaluated:
                    self._turn()
        finally:
            self._checkpoints.close()

    @property
    def updates_per_second(self) -> float | None:
        """Gradient steps per second of this process, compilation and evaluations left out."""
        return self._updates / self._seconds if self._updates else None

    @property
    def _step(self) -> int:
        return int(self._progress.step)

    @property
    def _evaluated(self) -> bool:
        due = self._step > 0 and self._step % self._task.interval == 0
        return not due or any(e["step"] == self._step for e in self.evaluations)

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
        kept = (self._task.learner, self._task.source, self._key)
        if self._compiled is None:
            self._reporter.say("Compiling ...")
            self._compiled, self.compile_seconds = compile_ahead(
                self._chunk_of_updates, kept, self._progress
            )
        before, start = self._step, time.perf_counter()
        self._progress, metrics = self._compiled(kept, self._progress)
        metrics = {name: np.ravel(values) for name, values in jax.device_get(metrics).items()}
        seconds = time.perf_counter() - start
        self._check_finite(metrics, before)
        self._seconds, self._updates = self._seconds + seconds, self._updates + self._chunk
        means: dict[str, JSON] = {name: float(np.mean(v)) for name, v in metrics.items()}
        speed = self._chunk / seconds
        self._directory.log({"step": self._step, **means, "updates_per_second": speed})
        self._loss = float(np.mean(metrics["total/loss"]))
        self._show(speed)

    def _chunk_of_updates(self, kept: Any, progress: Progress[Any, Any]):
        learner, source, key = kept
        progress, _, metrics = epoch(
            learner,
            source,
            progress,
            source.init(key=key),
            updates=self._chunk,
            batch_size=self._task.batch_size,
            key=key,
        )
        return progress, metrics

    def _check_finite(self, metrics: Mapping[str, np.ndarray], before: int) -> None:
        problem = find_divergence(metrics)
        if problem is None:
            return
        index, text = problem
        saved = self._checkpoints.steps()
        good = f"The last good checkpoint is that of step {saved[-1]}. " if saved else ""
        raise Diverged(
            f"Step {before + index + 1}: {text}. {good}A smaller --learning-rate may help."
        )

    def _evaluate(self) -> None:
        step, task = self._step, self._task
        actor = task.learner.objective.policy(self._progress.params)

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
        line: dict[str, Any] = {
            "step": step,
            "overall_success": found.overall_success,
            "tasks": dict(found.tasks),
        }
        self.evaluations.append(line)
        held_out = {f"validation/{k}": v for k, v in self._measure().items()}
        seconds = time.perf_counter() - start
        self._directory.log(
            {**line, **held_out, "event": "evaluation", "evaluation_seconds": seconds}
        )
        scores = ", ".join(f"{name} {score:.0%}" for name, score in found.tasks.items())
        self._reporter.say(f"Step {step:,}: success {found.overall_success:.1%} ({scores})")
        self._draw(found)
        self._save()

    def _measure(self) -> dict[str, float]:
        task = self._task
        measured = _measure(
            task.learner, self._progress, task.validation, task.batch_size, self._key
        )
        return {name: float(value) for name, value in measured.items()}

    def _draw(self, found: Evaluation) -> None:
        path = self._directory.path
        plot_curve(self._directory.lines(), self.evaluations, path / "curve.png")
        if self._evaluator.maze is not None:
            plot_trajectories(self._evaluator.maze, found, path / "trajectories.png")

    def _show(self, speed: float) -> None:
        success = f"{self.evaluations[-1]['overall_success']:.1%}" if self.evaluations else "–"
        figures = f"{speed:.1f} updates/s  loss {self._loss:.3f}  success {success}"
        self._reporter.update("training", self._step, self._task.steps, figures)

    def _save(self) -> None:
        progress = self._progress
        rest = (progress.state, progress.opt_state, progress.step, self._key)
        items = {"params": progress.params, "rest": rest}
        self._checkpoints.save(self._step, items, {"evaluations": list(self.evaluations)})
        self._saved_at = time.monotonic()

    def _restore(self) -> tuple[Progress[Any, Any], jax.Array] | None:
        progress, key = self._skeleton
        rest = (progress.state, progress.opt_state, progress.step, key)
        found = self._checkpoints.restore({"params": progress.params, "rest": rest})
        if found is None:
            return None
        self._checkpoints.discard_after(found.step)
        self.evaluations = list(found.note["evaluations"])
        self._reporter.say(f"Resuming from step {found.step:,}.")
        state, opt_state, step, key = found.items["rest"]
        return Progress(found.items["params"], state, opt_state, step), key

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
