"""Time, memory and health of one update against depth: `experiments/benchmark_depth.py --help`."""

import dataclasses
import pathlib
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple

import jax
import tyro
from rich.console import Console
from rich.table import Table

from architectures import Precision, Remat
from crlx import JSON, AbstractArchitecture, DeviceMesh
from experiments._depth import Looped, measure_apart
from experiments._depth_fit import PAPER_UPDATES, hours, line
from experiments._depth_plot import plot_depth
from experiments._machine import Machine, measure_machine, shares
from experiments._parts import ARCHITECTURES, choose, sized
from experiments._run_directory import provenance, write_json
from experiments._xla import read_xla

_COLUMNS = (
    "architecture",
    "depth",
    "twin",
    "compile_seconds",
    "seconds_per_update",
    "share_of_products",
    "share_of_bytes",
    "peak_bytes",
    "logit_mean",
    "logit_spread",
    "penalty",
    "saturated",
)
_PARTS = ("sampling", "critic_forward", "critic_backward", "actor", "optimizer")
_ERRORS = ("score_error", "energy_error")


class _Twin(NamedTuple):
    form: str
    mesh: str | None = None
    xla: str | None = None

    def __str__(self) -> str:
        return " ".join(part for part in self if part is not None)


@dataclasses.dataclass(frozen=True)
class Options:
    """Trace, compile and run the full contrastive update (critic, actor, Adam) in several forms,
    and read off what the networks are like at initialization.

    Forms ("twins"): `fused`, the library's own: one scan over the layers of both towers and the
    actor; `scan`, each network by a scan of its own, as often as a loss asks for it; `block`, the
    same but keeping only the inputs of blocks for the gradient; `loop`, layers by a Python loop.
    """

    architectures: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="{" + ",".join(ARCHITECTURES) + "}...")
    ] = ("residual",)
    """Which networks."""
    depths: tuple[int, ...] = (4, 16, 64, 256, 1024)
    """Layers of each network."""
    width: int = 256
    """Size of the hidden layers."""
    batch_size: int = 256
    """Rows of a minibatch."""
    repeats: int = 3
    """Compilations (of scans; loops are compiled once) and calls, of which the median is taken."""
    twins: tuple[Literal["fused", "scan", "block", "loop"], ...] = ("fused", "scan", "loop")
    """Which forms of the update."""
    meshes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="AXES...")] = ()
    """Meshes of devices, such as data=1 data=2 data=4,layers=2, on which the fused form is timed
    too, to see how it scales. CPUs get as many virtual devices."""
    xla: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE...")] = ()
    """Options of the compiler, such as xla_cpu_prefer_vector_width=512. With each alone, the fused
    form is timed, too."""
    precision: Literal["default", "highest", "bfloat16"] = "default"
    """Of the matrix products of blocks."""
    parts: bool = False
    """Time the parts of an update, too (sampling, critic, actor, optimizer), and compare scores
    with those in double precision."""
    seconds_to_compile: float = 60.0
    """A loop that takes longer to compile is left out, and so are deeper ones."""
    out: pathlib.Path | None = None
    """A JSON file to write; the plot goes beside it, as PNG."""

    def __post_init__(self):
        for name in ("batch_size", "repeats", "seconds_to_compile"):
            if not getattr(self, name) > 0:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} must be positive; got {getattr(self, name)}.")
        for text in self.meshes:
            _check(DeviceMesh.read(text), text, self)
        for text in self.xla:
            read_xla([text])
        if (self.xla or self.meshes) and "fused" not in self.twins:
            raise ValueError("--xla and --meshes go with the fused form: add fused to --twins.")
        if self.xla and self.parts:
            raise ValueError("--parts are timed without options of the compiler: leave --xla out.")

    @property
    def all_twins(self) -> list[_Twin]:
        """The forms of the update, and the fused one on meshes and with options of the compiler."""
        forms = [_Twin(form) for form in self.twins]
        meshes = [_Twin("fused", mesh=mesh) for mesh in self.meshes]
        return [*forms, *meshes, *(_Twin("fused", xla=option) for option in self.xla)]

    def build(self, name: str, depth: int) -> AbstractArchitecture:
        """The networks of that name and depth."""
        architecture = choose("architecture", name, ARCHITECTURES)()
        architecture = sized(architecture, depth=depth, width=self.width)
        return dataclasses.replace(architecture, precision=Precision[self.precision.upper()])


def main(options: Options) -> None:
    # All are built before any is measured, so that a wrong size is refused at once.
    networks = {(n, d): options.build(n, d) for n in options.architectures for d in options.depths}
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, 150)  # The table is wide; terminals may wrap it.
    machine = measure_machine()
    console.print(f"This machine: {machine.flops:.3g} flop/s, {machine.bytes:.3g} bytes/s")
    rows: list[dict[str, Any]] = []
    slow: set[str] = set()
    for (name, depth), architecture in networks.items():
        for twin in options.all_twins:
            if twin.form == "loop" and name in slow:
                continue
            found = _measure(architecture, twin, options)
            if found is None:
                slow.add(name)
                limit = f"{options.seconds_to_compile:g} s"
                console.print(f"{name}, depth {depth}, {twin}: not compiled in {limit}, left out")
                continue
            row = {"architecture": name, "depth": depth, "twin": str(twin)}
            rows.append({**row, **shares(found, machine), **found})
            shown = (*_COLUMNS, *((*_PARTS, *_ERRORS) if options.parts else ()))
            console.print(", ".join(f"{column} {_show(rows[-1][column])}" for column in shown))
            if options.out is not None:
                _write(rows, options, options.out, machine)
    console.print(_table(rows, options))
    for text in _conclusions(rows):
        console.print(text)


def _measure(
    architecture: AbstractArchitecture, twin: _Twin, options: Options
) -> dict[str, float] | None:
    form = twin.form
    if form == "block":
        architecture = dataclasses.replace(architecture, remat=Remat.BLOCK)
    return measure_apart(
        Looped(architecture) if form == "loop" else architecture,
        # A scan gets all the time that it needs.
        seconds_to_compile=options.seconds_to_compile if form == "loop" else None,
        fuse=form == "fused",
        mesh=None if twin.mesh is None else DeviceMesh.read(twin.mesh),
        xla=None if twin.xla is None else read_xla([twin.xla]),
        parts=options.parts,
        batch_size=options.batch_size,
        compilations=1 if form == "loop" else options.repeats,
        calls=options.repeats,
    )


def _check(mesh: DeviceMesh, text: str, options: Options) -> None:
    """Refuses meshes that the sizes or the devices do not fit."""
    mesh.check_split("--batch-size", options.batch_size)
    if options.width % mesh.layers:
        width = -(-options.width // mesh.layers) * mesh.layers
        raise ValueError(
            f"--width {options.width} cannot be split in {mesh.layers} as --meshes {text} asks: "
            f"use a multiple, such as {width}."
        )
    there = jax.device_count()
    if jax.default_backend() != "cpu" and mesh.size > there:
        raise ValueError(f"--meshes {text} asks for {mesh.size} devices, but there are {there}.")


def _conclusions(rows: list[dict[str, Any]]) -> Iterator[str]:
    """How time and memory grow, how the forms compare, and how long the paper's run would take."""
    for name, twin in dict.fromkeys((row["architecture"], row["twin"]) for row in rows):
        mine = [row for row in rows if (row["architecture"], row["twin"]) == (name, twin)]
        if len(mine) > 2:
            for column, unit in (("seconds_per_update", "s"), ("peak_bytes", "bytes")):
                offset, slope, error = line(mine, column)
                yield (
                    f"{name}, {twin}: {column} = {offset:.3g} + {slope:.3g} {unit} a layer, "
                    f"within {error:.0%}"
                )
    seconds = {(r["architecture"], r["depth"], r["twin"]): r["seconds_per_update"] for r in rows}
    for (name, depth, twin), value in seconds.items():
        own = seconds.get((name, depth, "fused"))
        if own is not None and twin != "fused":
            yield f"{name}, depth {depth}: fused {value / own:.2f} times as fast as {twin}"
        if depth == 1024 and twin == "fused":
            yield (
                f"{name}: the updates of the paper's run of 1024 layers ({PAPER_UPDATES:.3g}) "
                f"would take {hours(value):.0f} hours here"
            )


def _write(
    rows: list[dict[str, Any]], options: Options, path: pathlib.Path, machine: Machine
) -> None:
    settings = {
        "width": options.width,
        "batch_size": options.batch_size,
        "precision": options.precision,
    }
    rates = machine._asdict()
    write_json(path, {**provenance(), "settings": settings, "machine": rates, "rows": rows})
    plot_depth(rows, path.with_suffix(".png"))


def _table(rows: list[dict[str, Any]], options: Options) -> Table:
    title = f"width {options.width}, batch {options.batch_size}, {jax.devices()[0].device_kind}"
    table = Table(title=title)
    for name in _COLUMNS:
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(_show(row[name]) for name in _COLUMNS))
    return table


def _show(value: JSON) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
