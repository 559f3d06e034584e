import concurrent.futures
import contextlib
import functools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import typing
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool

from ._errors import DatasetError
from ._manipulation import Columns, Manipulation


class Job(typing.NamedTuple):
    """What to collect: `episodes` of `rows` each; the rest as in `Manipulation`."""

    environment: str
    style: str
    episodes: int
    rows: int
    seed: int


def collect_episodes(job: Job, *, processes: int, keep: Callable[[int, Columns], None]) -> None:
    """Collects all episodes of a job, in this process or in others.

    **Arguments:**

    - `job`: what to collect. The result does not depend on the number of processes.
    - `processes`: how many, at most one per episode; a single one is this.
    - `keep`: given the number of each episode and its arrays, in any order, in this process.
    """
    if min(processes, job.episodes) > 1:
        _share(job, min(processes, job.episodes), keep)
        return
    maker = Manipulation(job.environment, job.style)
    for number in range(job.episodes):
        keep(number, maker.episode(job.rows, seed=job.seed, number=number).columns)


def available_processes() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Not on macOS.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _share(job: Job, processes: int, keep: Callable[[int, Columns], None]) -> None:
    # Spawned, since a fork of a process in which jax has threads may hang.
    context = multiprocessing.get_context("spawn")
    pipe: tuple[typing.Any, typing.Any] = context.Pipe(duplex=False)
    theirs, ours = pipe
    pool = concurrent.futures.ProcessPoolExecutor(
        processes, mp_context=context, initializer=_obey, initargs=(theirs,)
    )
    running: dict[concurrent.futures.Future[Columns], int] = {}
    # Left in the opposite order: when something is raised here, `ours` closes, the processes end
    # at once, and the pool need not wait for their episodes.
    with contextlib.closing(theirs), pool, contextlib.closing(ours):
        try:
            for number in range(job.episodes):
                # Never all at once, or results would be held twice.
                if len(running) == 2 * processes:
                    _settle(running, keep)
                running[pool.submit(_episode, job, number)] = number
            while running:
                _settle(running, keep)
        except BrokenProcessPool as error:
            raise DatasetError(_broken(processes)) from error
        pool.shutdown()


def _settle(
    running: dict[concurrent.futures.Future[Columns], int], keep: Callable[[int, Columns], None]
) -> None:
    first = concurrent.futures.FIRST_COMPLETED
    for future in concurrent.futures.wait(running, return_when=first).done:
        keep(running.pop(future), future.result())


def _broken(processes: int) -> str:
    return (
        f"One of the {processes} processes that collect data ended early. If memory ran out, take "
        "fewer. If this was called by a script without `if __name__ == '__main__':` around its "
        "main part, which each process runs again, add that line. Or pass processes=1."
    )


def _obey(alive: multiprocessing.connection.Connection) -> None:
    """Prepares a process: it lives until the parent closes the other end of `alive`, or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent's to handle, at Ctrl-C.
    threading.Thread(target=_leave_with, args=(alive,), daemon=True).start()


def _leave_with(alive: multiprocessing.connection.Connection) -> None:
    multiprocessing.connection.wait([alive])
    os._exit(1)  # Without the clean-up that waits for the episode to end.


@functools.cache
def _maker(environment: str, style: str) -> Manipulation:
    """One per process, since an environment takes a second to build."""
    return Manipulation(environment, style)


def _episode(job: Job, number: int) -> Columns:
    maker = _maker(job.environment, job.style)
    return maker.episode(job.rows, seed=job.seed, number=number).columns
