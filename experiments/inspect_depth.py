"""What each block of a deep network does: `python experiments/inspect_depth.py --help`."""

import dataclasses
import pathlib
import sys
from typing import Annotated

import tyro
from rich.console import Console

from crlx import encode
from experiments._data import Places
from experiments._inspection_plot import plot_inspections
from experiments._inspection_report import as_json, blocks, summary
from experiments._options import Names
from experiments._run_directory import default_path, provenance, write_json
from experiments._subjects import Subject, describe, fresh, probe, trained


@dataclasses.dataclass(frozen=True)
class Options:
    """Feed one minibatch to a run's networks, or to fresh ones, and tell what every block does."""

    run: pathlib.Path | None = None
    """The folder of a run, whose newest checkpoint is taken; by default fresh networks."""
    compare: tuple[str, ...] = ()
    """More of them for the same figure: folders of runs, or names of architectures."""
    architecture: Annotated[str, tyro.conf.arg(metavar="NAME")] = "residual"
    """Fresh networks, by the names of offline_ogbench.py."""
    depth: int | None = None
    """Their layers."""
    width: int | None = None
    """The size of their hidden layers."""
    objective: Annotated[str, tyro.conf.arg(metavar="NAME")] = "infonce"
    """Whose gradient is measured in fresh networks."""
    actor: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """The objective's actor term; maxent makes a squashed actor."""
    dataset: Annotated[str, tyro.conf.arg(metavar="NAME")] = Names.dataset
    """What fresh networks are fed; a run is fed its own."""
    batch_size: int = 256
    """Rows of the minibatch."""
    seed: int = 0
    """The random seed of fresh networks and of the minibatch."""
    out: pathlib.Path | None = None
    """Where depth.png and depth.json are written; by default to the run, or to a new folder under
    runs/."""
    dataset_dir: pathlib.Path | None = None
    """Where official files are sought and put; by default OGBench's own folder."""
    dataset_path: pathlib.Path | None = None
    """A training file to read instead, also for runs; its -val.npz lies beside it."""
    data_dir: pathlib.Path = pathlib.Path("data")
    """Where local datasets are kept."""

    def __post_init__(self):
        if self.batch_size < 2:
            raise ValueError(f"--batch-size must be at least 2; got {self.batch_size}.")
        if self.seed < 0:
            raise ValueError(f"--seed must not be negative; got {self.seed}.")


def main(options: Options) -> None:
    names = [options.architecture if options.run is None else str(options.run), *options.compare]
    subjects = {_label(name): _subject(name, options) for name in dict.fromkeys(names)}
    if len(subjects) < len(set(names)):
        raise ValueError("Folders of runs to compare need different names.")
    probed = {
        name: probe(subject, batch_size=options.batch_size, seed=options.seed)
        for name, subject in subjects.items()
    }
    console = Console(highlight=False, soft_wrap=True)
    console.print(summary(probed))
    for name, inspection in probed.items():
        console.print(blocks(name, inspection))
        for network, reason in inspection.left_out.items():
            console.print(f"{name}: the blocks of the {network} are left out: {reason}.")
    out = options.out or options.run or _new_folder(options)
    out.mkdir(parents=True, exist_ok=True)
    plot_inspections(probed, out / "depth.png")
    found = {name: describe(subjects[name]) | as_json(probed[name]) for name in probed}
    write_json(out / "depth.json", {**provenance(), "options": encode(options), "found": found})
    console.print(f"Wrote depth.png and depth.json to {out}")


def _label(name: str) -> str:
    return pathlib.Path(name).resolve().name if pathlib.Path(name).is_dir() else name


def _subject(name: str, options: Options) -> Subject:
    if (options.run is not None and name == str(options.run)) or pathlib.Path(name).is_dir():
        return trained(pathlib.Path(name), options.dataset_path)
    names = Names(
        dataset=options.dataset,
        objective_name=options.objective,
        architecture_name=name,
        actor=options.actor,
        depth=options.depth,
        width=options.width,
    )
    places = Places(options.data_dir, options.dataset_dir, options.dataset_path)
    return fresh(names, places, options.seed)


def _new_folder(options: Options) -> pathlib.Path:
    path = default_path(options.dataset, options.objective, options.architecture)
    return path.with_name(f"inspect-{path.name}")


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
