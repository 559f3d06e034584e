"""Copies the log of a run into an Aim repository, while it is being written or afterwards."""

import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import tyro
from aim import Repo, Run

from crlx import replacing

_PAUSE = 1.0  # Seconds between two looks at the log.


@dataclasses.dataclass(frozen=True)
class Mirror:
    """Copies RUN_DIR/metrics.jsonl into an Aim repository.

    RUN_DIR/aim.json notes how far this came, so that a later call goes on from there.
    """

    # Directory of the run.
    run_dir: Annotated[pathlib.Path, tyro.conf.Positional]
    # Directory of the repository. By default the one that holds RUN_DIR.
    repo: pathlib.Path | None = None
    # Wait for further lines until the log says that it ends or this process is gone.
    follow: int | None = None


def main(mirror: Mirror) -> None:
    """Copies all complete lines that are not in the repository yet."""
    log = mirror.run_dir / "metrics.jsonl"
    if mirror.follow is None and not log.exists():
        raise SystemExit(f"There is no {log}.")
    run, position = _open(mirror)
    ended = False
    try:
        while True:
            # Asked before reading, so that the last words of a process are not lost.
            alive = mirror.follow is not None and _is_alive(mirror.follow)
            for row, end in _rows(log, position):
                position = end
                _track(run, row)
                ended = row.get("event") == "end"
            _note(mirror.run_dir, run.hash, position)
            if ended or not alive:
                return
            time.sleep(_PAUSE)
    finally:
        run.close()


def _open(mirror: Mirror) -> tuple[Run, int]:
    """The Aim run of this directory, and how many bytes of the log it holds."""
    root = (mirror.repo or mirror.run_dir.resolve().parent).resolve()
    # Aim sends nothing home, at least from 3.29 on; the rest of what it observes is turned off.
    quiet: dict[str, Any] = {"system_tracking_interval": None, "capture_terminal_logs": False}
    repo = Repo.from_path(str(root), init=not Repo.exists(str(root)))
    note = mirror.run_dir / "aim.json"
    known = json.loads(note.read_text()) if note.exists() else None
    if known is not None and repo.run_exists(known["run"]):
        if (mirror.run_dir / "metrics.jsonl").stat().st_size < known["bytes"]:
            raise SystemExit(f"The log is shorter than {note} says; delete that to start over.")
        return Run(known["run"], repo=repo, **quiet), known["bytes"]
    run = Run(repo=repo, **quiet)
    run.name = mirror.run_dir.resolve().name
    # Noted before anything is tracked: an interruption must not leave a second run behind.
    _note(mirror.run_dir, run.hash, 0)
    return run, 0


def _note(run_dir: pathlib.Path, run: str, position: int) -> None:
    with replacing(run_dir / "aim.json") as temporary:
        temporary.write_text(json.dumps({"run": run, "bytes": position}))


def _rows(log: pathlib.Path, position: int) -> Iterator[tuple[dict[str, Any], int]]:
    """The rows after `position`, each with the position of its end; empty ones where not JSON."""
    if not log.exists():
        return
    with log.open("rb") as file:
        file.seek(position)
        for line in file:
            if not line.endswith(b"\n"):
                return  # Still being written.
            position += len(line)
            try:
                yield json.loads(line), position
            except json.JSONDecodeError:
                # A killed process leaves half a line, to which a resumed one appends.
                print(f"Skipped what is no JSON, before byte {position} of {log}.", flush=True)
                yield {}, position


def _track(run: Run, row: Mapping[str, Any]) -> None:
    """Adds one row. Aim keeps one value per name and step, so that nothing can be there twice."""
    if row.get("event") == "start":
        run["config"] = row["config"]
    if "step" not in row:
        return
    values = {name: row[name] for name in row if name not in ("step", "time")}
    if row.get("event") == "evaluation":
        scores = {"overall_success": values.pop("overall_success"), **row["tasks"]}
        values |= {f"evaluation/{name}": score for name, score in scores.items()}
    for name, value in values.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            run.track(float(value), name=name, step=row["step"])


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # It exists, and belongs to someone else.
    return True


if __name__ == "__main__":
    main(tyro.cli(Mirror))
