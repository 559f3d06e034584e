import dataclasses
import math
import signal
import time
from collections.abc import Callable
from typing import Any, NoReturn

import equinox as eqx
import jax
import numpy as np

from crlx import JSON, Checkpoints, anywhere, is_first

from ._compile import compile_ahead
from ._divergence import Diverged, find_divergence
from ._job import AbstractJob
from ._memory import check_fits, gigabytes, program_size, size_of, size_on_device
from ._reporter import Reporter
from ._run_directory import RunDirectory
from ._snapshot import Record
from ._stop import Stopped, StopRequest
from ._task import count_parameters
from ._xla import CompilerOptions

_SECONDS_BETWEEN_SAVES = 300


class Trainer:
    """The driver: advances in compiled calls, evaluates, logs, saves, stops and resumes."""

    def __init__(
        self, job: AbstractJob, directory: RunDirectory, reporter: Reporter, xla: CompilerOptions
    ):
        self._job, self._directory, self._reporter = job, directory, reporter
        self._xla = xla
        self._skeleton: Any = job.mesh.described(eqx.filter_eval_shape(job.init, job.seed))
        check_fits(size_on_device(self._skeleton), "Parameters and data")
        self._most = job.rounds_per_call(count_parameters(job.trained(self._skeleton)))
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
                self.carry = self._restore()
                if self.carry is None:
                    self.carry = self._start()
                while self._rounds < self._job.rounds or not self._evaluated:
                    self._turn()
        finally:
            self._checkpoints.close()

    def _start(self) -> Any:
        job = self._job
        return eqx.filter_jit(lambda: job.mesh.constrain(job.init(job.seed)))()

    @property
    def _rounds(self) -> int:
        return self._job.rounds_done(self.carry)

    @property
    def _step(self) -> int:
        return self._job.step(self._rounds)

    @property
    def _evaluated(self) -> bool:
        rounds, job = self._rounds, self._job
        due = rounds > 0 and (rounds % job.interval == 0 or rounds == job.rounds)
        return not due or any(e["step"] == self._step for e in self.record.evaluations)

    def _turn(self) -> None:
        if anywhere(bool(self._stop)):
            self._leave()
        elif not self._evaluated:
            self._evaluate()
        else:
            self._advance()
            if anywhere(time.monotonic() - self._saved_at > _SECONDS_BETWEEN_SAVES):
                self._save()

    def _advance(self) -> None:
        before, job = self._rounds, self._job
        left = min(job.rounds - before, job.interval - before % job.interval)
        rounds = min(self._most, left)
        step = self._compile(rounds)
        start = time.perf_counter()
        self.carry, metrics = step(job.kept, self.carry)
        metrics = job.curves(jax.device_get(metrics))
        seconds = time.perf_counter() - start
        updates = len(metrics["total/loss"])
        self.record.seconds += seconds
        self.record.updates += updates
        problem = find_divergence(metrics)
        sound = updates if problem is None else problem[0]
        if sound:
            means: dict[str, JSON] = {n: float(np.mean(v[:sound])) for n, v in metrics.items()}
            line = {"step": job.step(before + rounds * sound // updates), **means}
            self._directory.log({**line, **job.speeds(before, rounds, seconds)})
        if problem is not None:
            first = before + math.ceil(rounds * (1 + problem[0]) / updates)
            self._diverge(job.step(first), problem[1])
        self._loss = float(np.mean(metrics["total/loss"]))
        self._show(updates / seconds)

    def _compile(self, rounds: int) -> Callable[[Any, Any], Any]:
        if rounds not in self._compiled:
            self._reporter.say("Compiling ...")
            job = self._job

            def several(kept: Any, carry: Any) -> Any:
                carry, metrics = job.advance(kept, carry, rounds)
                return job.mesh.constrain(carry), job.mesh.whole(metrics)

            step, seconds = compile_ahead(several, job.kept, self.carry, self._xla)
            size = program_size(step)
            check_fits(size, "What is trained, its data and the work space")
            self._reporter.say(f"Compiled in {seconds:.1f} s; all needs {gigabytes(size)}.")
            self._compiled[rounds] = step
            self.record.compile_seconds += seconds
        return self._compiled[rounds]

    def _diverge(self, step: int, text: str) -> NoReturn:
        saved = self._checkpoints.steps()
        good = f"The last good checkpoint is that of step {saved[-1]}. " if saved else ""
        raise Diverged(f"Step {step}: {text}. {good}A smaller --learning-rate may help.")

    def _evaluate(self) -> None:
        step, start = self._step, time.perf_counter()
        alone = jax.process_count() == 1
        found = self._job.evaluate(
            self.carry,
            step,
            stop=lambda: bool(self._stop) and alone,  # Several processes stop together, later.
            show=lambda done, total: self._reporter.update("evaluating", done, total),
        )
        if found is None:
            self._leave()
        self._reporter.finish("evaluating")
        line = {"step": step, "overall_success": found.overall_success, "tasks": found.tasks}
        line |= found.scores
        seconds = {"evaluation_seconds": time.perf_counter() - start}
        self._directory.log({**line, **found.figures, **seconds, "event": "evaluation"})
        self.record.evaluations.append(line)
        self._reporter.say(f"Step {step:,}: {found.text}")
        if is_first():
            found.draw(self.record.evaluations, self._directory)
        self._save()

    def _show(self, speed: float) -> None:
        last = self.record.evaluations[-1:]
        success = f"{last[0]['overall_success']:.1%}" if last else "–"
        figures = f"{speed:.1f} updates/s  loss {self._loss:.3f}  success {success}"
        total = self._job.step(self._job.rounds)
        self._reporter.update("training", self._step, total, figures)

    def _save(self) -> None:
        start, items = time.perf_counter(), self._job.packed(self.carry)
        self._checkpoints.save(self._step, items, dataclasses.asdict(self.record))
        seconds = time.perf_counter() - start
        self._reporter.say(f"Saved {gigabytes(size_of(items))} in {seconds:.1f} s.")
        self._saved_at = time.monotonic()

    def _restore(self) -> Any:
        found = self._checkpoints.restore(self._job.packed(self._skeleton))
        if found is None:
            return None
        self._checkpoints.set_aside(found.step)
        self.record = Record(**found.note)
        self._reporter.say(f"Resuming from step {found.step:,}.")
        return self._job.unpacked(found.items)

    def _leave(self) -> NoReturn:
        self._save()
        self._checkpoints.wait()
        raise Stopped(
            self._stop.signal or signal.SIGTERM,  # Another process got it.
            f"Stopped at step {self._step:,}; everything is saved. Continue with "
            f"--resume --out {self._directory.path}",
        )
