import collections
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import BinaryIO

from ._comparison import Cell
from ._reporter import Reporter
from ._stop import Stopped, StopRequest

_ROOT = pathlib.Path(__file__).parents[1]
_PAUSE = 0.2  # Seconds between two looks at the runs.
_TAIL = 15  # Lines of a failed run's output that are shown.

Command = Callable[[Cell], Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Failure:
    """A run that ended without results."""

    cell: Cell
    reason: str
    tail: str

    def __str__(self) -> str:
        said = "\n".join(f"    {line}" for line in self.tail.splitlines())
        return f"{self.cell.name} failed ({self.reason}). {self.cell.log} ends with\n{said}"


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
    cell: Cell
    process: "subprocess.Popen[bytes]"
    log: BinaryIO
    begins: int  # Where the output of this start begins in the log.
    started_at: float


def offline_command(cell: Cell) -> list[str]:
    """Starts or resumes the training of a cell."""
    script = str(pathlib.Path(__file__).with_name("offline_ogbench.py"))
    return [sys.executable, script, *(["--resume"] if cell.started else []), *cell.flags]


class Pool:
    """Runs cells in processes of their own, a few at once.

    **Arguments:**

    - `jobs`: how many at once.
    - `reporter`: told what starts, what ends, and how far it is.
    - `command`: the command line of a cell.
    - `seconds`: between two figures of how far a run is.
    """

    def __init__(
        self,
        jobs: int,
        reporter: Reporter,
        command: Command = offline_command,
        seconds: float = 2.0,
    ):
        self._jobs, self._reporter, self._command = jobs, reporter, command
        self._seconds, self._shown_at = seconds, time.monotonic()
        self._running: list[_Run] = []
        self._failures: list[Failure] = []
        self._done, self._stopping = 0, False

    def run(self, cells: Sequence[Cell], conclude: Callable[[Cell], object]) -> list[Failure]:
        """Runs all cells; one that fails does not stop the others.

        Raises `Stopped` after a signal, when all runs have saved and ended.

        **Arguments:**

        - `conclude`: called with every cell that has its results.

        **Returns:** what failed.
        """
        waiting = collections.deque(cells)
        with StopRequest() as stop:
            try:
                while (waiting or self._running) and not stop:
                    while waiting and len(self._running) < self._jobs:
                        self._start(waiting.popleft())
                    time.sleep(_PAUSE)
                    self._collect(conclude, len(cells))
                    self._show(len(cells))
                if stop:
                    self._terminate()
                    self._collect(conclude, len(cells))
            finally:
                for run in self._running:  # Only if something unforeseen, or a second Ctrl-C, came.
                    run.process.kill()
                    run.process.wait()
                    run.log.close()
        if stop.signal is not None:
            text = f"Stopped: {self._done} of {len(cells)} runs had ended; those under way saved."
            raise Stopped(stop.signal, text)
        return self._failures

    def _start(self, cell: Cell) -> None:
        verb = "Resuming" if cell.started else "Starting"
        self._reporter.say(f"{verb} {cell.name}")
        cell.path.mkdir(parents=True, exist_ok=True)
        log = cell.log.open("ab")
        begins = log.tell()  # Before the run writes to it, too.
        # In a session of its own, so that Ctrl-C reaches a run once, through this process: runs
        # save at the first signal and leave at the second.
        process = subprocess.Popen(
            self._command(cell),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=self._environment(),
            start_new_session=True,
        )
        self._running.append(_Run(cell, process, log, begins, time.monotonic()))

    def _environment(self) -> dict[str, str]:
        found = os.environ.get("PYTHONPATH")
        path = str(_ROOT) if found is None else os.pathsep.join((str(_ROOT), found))
        changed = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        if self._jobs > 1:
            # Or else the first run would take most of a GPU's memory at once.
            changed.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        return changed

    def _collect(self, conclude: Callable[[Cell], object], total: int) -> None:
        """Attends to the runs that have ended."""
        for run in [run for run in self._running if run.process.poll() is not None]:
            self._running.remove(run)
            run.log.close()
            self._reporter.finish(run.cell.name)
            if self._stopping and run.process.returncode != 0:
                continue  # It was asked to.
            self._done += 1
            taken = f"after {_duration(time.monotonic() - run.started_at)}"
            ended = f"({self._done} of {total})"
            if run.process.returncode == 0 and run.cell.finished:
                self._reporter.say(f"Finished {run.cell.name} {taken} {ended}")
                conclude(run.cell)
            else:
                failure = _failure(run)
                self._failures.append(failure)
                self._reporter.say(f"Failed: {run.cell.name} {taken}, {failure.reason} {ended}")

    def _show(self, total: int) -> None:
        """Bars, on a terminal."""
        if not self._reporter.console.is_terminal:
            return
        if time.monotonic() - self._shown_at < self._seconds:
            return
        self._shown_at = time.monotonic()
        self._reporter.update("runs", self._done, total)
        for run in self._running:
            steps = run.cell.config["steps"]
            assert isinstance(steps, int)
            self._reporter.update(run.cell.name, last_step(run.cell.path), steps)

    def _terminate(self) -> None:
        self._stopping = True
        self._reporter.say("Stopping; the runs save first. Ctrl-C again kills them.")
        for run in self._running:
            run.process.terminate()
        for run in self._running:
            run.process.wait()


def _failure(run: _Run) -> Failure:
    code = run.process.returncode
    with run.cell.log.open("rb") as file:
        file.seek(run.begins)
        said = file.read().decode(errors="replace").rstrip().splitlines()
    reason = f"exit status {code}" if code >= 0 else f"killed by signal {-code}"
    if code == 0:
        reason = "it ended without results"
    return Failure(run.cell, reason, "\n".join(said[-_TAIL:]))


def last_step(path: pathlib.Path) -> int:
    """How many gradient steps a run has logged."""
    log = path / "metrics.jsonl"
    if not log.exists():
        return 0
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 2**14))
        lines = file.read().splitlines()
    for line in reversed(lines):
        try:
            return json.loads(line)["step"]
        except (ValueError, KeyError, TypeError):
            continue  # Cut short, or of another kind.
    return 0


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min"
