"""Objectives, datasets and seeds in one table: `python experiments/compare_offline.py --help`."""

import dataclasses
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Annotated

import jax
import tyro

from crlx.envs.ogbench import check_name
from experiments._comparison import Cell, alone_in, check_stored, plan
from experiments._comparison_pool import Failure, Pool
from experiments._comparison_report import write_report
from experiments._data import Places, load_data
from experiments._objectives import OBJECTIVES
from experiments._options import parse
from experiments._parts import choose
from experiments._reporter import Reporter
from experiments._stop import Stopped


@dataclasses.dataclass(frozen=True)
class Options:
    """Trains every objective on every dataset with every seed, and writes success beside what
    OGBench reports to one table and one figure. Flags after a bare -- go to every run, and those
    after the name of an objective and a colon to it alone, as in
    `-- --architecture mlp --steps 50000 hiql: --objective.dim 20`. The same command again does
    what is left to do."""

    objectives: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="{" + ",".join(OBJECTIVES) + "}...")
    ] = ("crl", "gcbc", "gcivl", "gciql", "qrl", "hiql")
    """What to learn."""
    datasets: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...")] = (
        "pointmaze-medium-navigate-local",
        "pointmaze-medium-stitch-local",
    )
    """OGBench's names of datasets; those that end in -local are collected here on first use."""
    seeds: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N...")] = (0, 1, 2)
    """The random seeds of the runs."""
    out: pathlib.Path = pathlib.Path("runs/compare")
    """Where everything is written: the runs to dataset/objective/seed in it."""
    jobs: int = 1
    """How many runs at once."""

    def __post_init__(self):
        for name in ("objectives", "datasets", "seeds"):
            given = getattr(self, name)
            if not given:
                raise ValueError(f"--{name} needs at least one.")
            for repeated in (entry for entry in given if given.count(entry) > 1):
                raise ValueError(f"--{name} names {repeated} more than once.")
        for objective in self.objectives:
            choose("objective", objective, OBJECTIVES)
        for dataset in self.datasets:
            check_name(dataset)
        if min(self.seeds) < 0:
            raise ValueError(f"--seeds must not be negative; got {min(self.seeds)}.")
        if self.jobs < 1:
            raise ValueError(f"--jobs must be positive; got {self.jobs}.")


def main(options: Options, passed: Sequence[str]) -> list[Failure]:
    """Runs what is not finished yet.

    **Returns:** the runs that failed.
    """
    cells = plan(options.objectives, options.datasets, options.seeds, options.out, passed)
    with alone_in(options.out), Reporter() as reporter:
        check_stored(cells)
        left = [cell for cell in cells if not cell.finished]
        write_report(cells, options.out)
        reporter.say(f"{len(cells)} runs, of which {len(cells) - len(left)} are finished.")
        if options.jobs > 1:
            _get_data(left, reporter)
        pool = Pool(options.jobs, reporter)
        failures = pool.run(left, lambda _: write_report(cells, options.out))
        table = write_report(cells, options.out)
        reporter.say(
            f"\n{table}\n\nIt is in {options.out}, as comparison.md, .csv, .json and .png."
        )
    return failures


def _get_data(cells: Sequence[Cell], reporter: Reporter) -> None:
    """Or else several runs would download or collect the same dataset at once."""
    for flags in {cell.dataset: cell.flags for cell in cells}.values():
        options = parse(list(flags))
        places = Places(options.data_dir, options.dataset_dir, options.dataset_path)
        load_data(options.dataset, places, reporter)


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The flags before and after the first bare `--`."""
    at = list(arguments).index("--") if "--" in arguments else len(arguments)
    return list(arguments[:at]), list(arguments[at + 1 :])


if __name__ == "__main__":
    # What this process computes is little; a GPU is left to the runs.
    jax.config.update("jax_platforms", "cpu")
    again = f"Continue with: python {shlex.join(sys.argv)}"
    try:
        own, passed = split(sys.argv[1:])
        failures = main(tyro.cli(Options, args=own), passed)
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"Interrupted. {again}")
    except Stopped as end:
        print(f"{end}\n{again}", file=sys.stderr)
        sys.exit(end.exit_code)
    if failures:
        sys.exit("\n".join((*map(str, failures), f"{len(failures)} runs failed. {again}")))
