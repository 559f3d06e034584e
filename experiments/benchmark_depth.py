"""Time, memory and health of one update against depth: `experiments/benchmark_depth.py --help`."""

import dataclasses
import pathlib
import sys
from typing import Annotated

import jax
import tyro
from rich.console import Console
from rich.table import Table

from crlx import JSON, AbstractArchitecture
from experiments._depth import Looped, measure_apart
from experiments._depth_plot import plot_depth
from experiments._parts import ARCHITECTURES, choose, sized
from experiments._run_directory import provenance, write_json

_COLUMNS = (
    "architecture",
    "depth",
    "twin",
    "compile_seconds",
    "seconds_per_update",
    "peak_bytes",
    "logit_mean",
    "logit_spread",
    "penalty",
    "saturated",
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Trace, compile and run the full contrastive update (critic, actor, Adam), layers applied by
    one scan and by a Python loop; and read off what the networks are like at initialization."""

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
    loops: bool = True
    """Measure the Python loop, too."""
    seconds_to_compile: float = 60.0
    """A loop that takes longer to compile is left out, and so are deeper ones."""
    out: pathlib.Path | None = None
    """A JSON file to write; the plot goes beside it, as PNG."""

    def __post_init__(self):
        for name in ("batch_size", "repeats", "seconds_to_compile"):
            if not getattr(self, name) > 0:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} must be positive; got {getattr(self, name)}.")

    def build(self, name: str, depth: int) -> AbstractArchitecture:
        """The networks of that name and depth."""
        architecture = choose("architecture", name, ARCHITECTURES)()
        return sized(architecture, depth=depth, width=self.width)


def main(options: Options) -> None:
    # All are built before any is measured, so that a wrong size is refused at once.
    networks = {(n, d): options.build(n, d) for n in options.architectures for d in options.depths}
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, 130)  # The table is wide; terminals may wrap it.
    rows: list[dict[str, JSON]] = []
    slow: set[str] = set()
    for (name, depth), scanned in networks.items():
        for twin, architecture in (("scan", scanned), ("loop", Looped(scanned))):
            if twin == "loop" and (not options.loops or name in slow):
                continue
            found = _measure(architecture, twin, options)
            if found is None:
                slow.add(name)
                limit = f"{options.seconds_to_compile:g} s"
                console.print(f"{name}, depth {depth}, {twin}: not compiled in {limit}, left out")
                continue
            rows.append({"architecture": name, "depth": depth, "twin": twin, **found})
            console.print(", ".join(f"{column} {_show(rows[-1][column])}" for column in _COLUMNS))
            if options.out is not None:
                _write(rows, options, options.out)
    console.print(_table(rows, options))


def _measure(
    architecture: AbstractArchitecture, twin: str, options: Options
) -> dict[str, float] | None:
    return measure_apart(
        architecture,
        # A scan gets all the time that it needs.
        seconds_to_compile=options.seconds_to_compile if twin == "loop" else None,
        batch_size=options.batch_size,
        compilations=1 if twin == "loop" else options.repeats,
        calls=options.repeats,
    )


def _write(rows: list[dict[str, JSON]], options: Options, path: pathlib.Path) -> None:
    settings = {"width": options.width, "batch_size": options.batch_size}
    write_json(path, {**provenance(), "settings": settings, "rows": rows})
    plot_depth(rows, path.with_suffix(".png"))


def _table(rows: list[dict[str, JSON]], options: Options) -> Table:
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
