import contextlib
import dataclasses
import fcntl
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from crlx import JSON

from ._options import parse
from ._parts import choose
from ._run_directory import differences, read_json

_SHOWN = 5  # Of the runs that have the same problem.
_OWN = ("dataset", "objective", "seed", "out", "resume")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a comparison.

    **Arguments:**

    - `dataset`, `objective`, `seed`: what is run.
    - `path`: its folder.
    - `flags`: all flags of the run, but `--resume`.
    - `own`: those of them that only this objective gets.
    - `config`: the settings that they stand for, as `config.json` holds them.
    """

    dataset: str
    objective: str
    seed: int
    path: pathlib.Path
    flags: tuple[str, ...]
    own: tuple[str, ...]
    config: Mapping[str, JSON]

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.objective} on {self.dataset}, seed {self.seed}"

    @property
    def log(self) -> pathlib.Path:
        """What the run printed, all starts of it."""
        return self.path / "output.log"

    @property
    def started(self) -> bool:
        """Whether there is a run to resume."""
        return (self.path / "config.json").exists()

    @property
    def finished(self) -> bool:
        """Whether the run has its results."""
        return (self.path / "results.json").exists()

    def results(self) -> Mapping[str, Any] | None:
        """Those of a finished run."""
        if not self.finished:
            return None
        found = read_json(self.path / "results.json")
        if not isinstance(found, dict) or not isinstance(found.get("config"), dict):
            raise ValueError(f"{self.path / 'results.json'} holds no results of a run.")
        return found


def plan(
    objectives: Sequence[str],
    datasets: Sequence[str],
    seeds: Sequence[int],
    out: pathlib.Path,
    passed: Sequence[str],
) -> list[Cell]:
    """All runs of a comparison; those of the first seed come first, so that a whole table is
    there early.

    Raises `ValueError`, or `SystemExit` as tyro does, if the flags do not suit one of them.

    **Arguments:**

    - `passed`: flags that every run gets as they are; after the name of an objective and a colon
      follow those for it alone.
    """
    _check_passed(passed, datasets)
    common, own = _by_objective(passed, objectives)
    cells = [
        _cell(dataset, objective, seed, out, common, own[objective])
        for seed in seeds
        for dataset in datasets
        for objective in objectives
    ]
    _check_protocol(cells)
    return cells


def _by_objective(
    passed: Sequence[str], objectives: Sequence[str]
) -> tuple[list[str], dict[str, list[str]]]:
    """Common flags, and each objective's own."""
    common: list[str] = []
    own: dict[str, list[str]] = {name: [] for name in objectives}
    flags = common
    for flag in passed:
        if flag.endswith(":") and not flag.startswith("-"):
            flags = choose("objective of this comparison", flag.removesuffix(":"), own)
        else:
            flags.append(flag)
    return common, own


def _check_protocol(cells: Sequence[Cell]) -> None:
    """What makes scores comparable is the same for all."""
    for name in ("steps", "batch_size", "episodes", "eval_every"):
        if len({str(cell.config[name]) for cell in cells}) > 1:
            raise ValueError(
                f"--{name.replace('_', '-')} must be the same for all objectives of a comparison: "
                "write it before the flags of a single one."
            )


def _check_passed(passed: Sequence[str], datasets: Sequence[str]) -> None:
    names = [flag.split("=")[0].replace("_", "-") for flag in passed]
    for name in _OWN:
        if f"--{name}" in names or f"--no-{name}" in names:
            raise ValueError(
                f"--{name} is set for every run by the comparison itself: leave it out after --."
            )
    if "--dataset-path" in names and len(datasets) > 1:
        raise ValueError(
            f"--dataset-path names one file, and there are {len(datasets)} datasets; compare on "
            "one of them, or leave it out."
        )


def _cell(
    dataset: str,
    objective: str,
    seed: int,
    out: pathlib.Path,
    common: Sequence[str],
    own: Sequence[str],
) -> Cell:
    path = out / dataset / objective / str(seed)
    what = ("--dataset", dataset, "--objective", objective, "--seed", str(seed), "--out", str(path))
    flags = (*what, *common, *own)
    try:
        options = parse(list(flags))
    except ValueError as error:
        raise ValueError(f"{objective} on {dataset}: {error}") from error
    except SystemExit as end:
        if end.code:
            print(f"The flags after -- do not suit {objective} on {dataset}.", file=sys.stderr)
        raise
    return Cell(dataset, objective, seed, path, flags, tuple(own), options.config)


def check_stored(cells: Sequence[Cell]) -> None:
    """Refuses runs that were started with other settings than those that are asked for now."""
    problems: dict[str, list[pathlib.Path]] = {}
    for cell in cells:
        differing = _differing(cell)
        if differing:
            problems.setdefault("; ".join(differing), []).append(cell.path)
    if problems:
        lines = [f"  {what}, in {_listed(paths)}" for what, paths in problems.items()]
        raise ValueError(
            "These runs have another configuration (stored → asked):\n"
            + "\n".join(lines)
            + "\nRepeat the flags that they were started with, choose another --out, or remove "
            "their folders. Nothing was started."
        )


def _differing(cell: Cell) -> list[str]:
    results = cell.results()
    if results is None and not cell.started:
        return []
    stored = read_json(cell.path / "config.json") if results is None else results["config"]
    if not isinstance(stored, dict):
        raise ValueError(f"{cell.path / 'config.json'} does not describe a run.")
    return differences({k: v for k, v in stored.items() if k in cell.config}, cell.config)


def _listed(paths: Sequence[pathlib.Path]) -> str:
    more = len(paths) - _SHOWN
    shown = ", ".join(str(path) for path in paths[:_SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown


@contextlib.contextmanager
def alone_in(out: pathlib.Path) -> Iterator[None]:
    """Refuses a folder in which another comparison is at work."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"Another comparison is at work in {out}. Wait, or choose another --out."
            ) from None
        yield
