import math
import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from crlx import is_first


class Reporter:
    """A progress bar with live figures; plain lines where there is no terminal.

    **Arguments:**

    - `seconds`: at least so long between two plain lines of one activity.

    Of several processes that train one run, the first speaks.
    """

    def __init__(self, seconds: float = 10.0):
        self.console = Console(highlight=False, soft_wrap=True, quiet=not is_first())
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._tasks = {}
        self._seconds = seconds
        self._spoken: dict[str, float] = {}

    def __enter__(self) -> "Reporter":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Prints a line, above the bar."""
        self.console.print(text, markup=False)

    def update(self, activity: str, done: int, total: int, figures: str = "") -> None:
        """Shows how far an activity is."""
        if self.console.is_terminal:
            if activity not in self._tasks:
                self._tasks[activity] = self._bar.add_task(activity, total=total, figures="")
            self._bar.update(self._tasks[activity], completed=done, total=total, figures=figures)
            return
        now = time.monotonic()
        if done == total or now - self._spoken.get(activity, -math.inf) >= self._seconds:
            self._spoken[activity] = now
            self.say(f"{activity}: {done:,} of {total:,}  {figures}".rstrip())

    def finish(self, activity: str) -> None:
        """Takes an activity off the bar."""
        if activity in self._tasks:
            self._bar.remove_task(self._tasks.pop(activity))
        self._spoken.pop(activity, None)
