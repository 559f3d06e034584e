import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from crlx import JSON

from ._inspection import GRADIENT, Inspection

# How statistics of blocks are written, with F what a block adds to its input h.
TITLES = {
    "branch": "|F|",
    "stream": "|h+F|",
    "ratio": "|F|/|h|",
    "cosine": "cos(F,h)",
    "mean": "mean",
    GRADIENT: "|grad|",
}


def summary(inspections: Mapping[str, Inspection]) -> Table:
    """Every scalar, one column for each subject."""
    table = Table(title="one minibatch")
    table.add_column("")
    columns = [_scalars(inspection) for inspection in inspections.values()]
    for label in inspections:
        table.add_column(label, justify="right")
    for name in dict.fromkeys(name for column in columns for name in column):
        table.add_row(name, *(_show(column.get(name)) for column in columns))
    return table


def blocks(label: str, inspection: Inspection) -> Table:
    """The statistics of the first block, the last, and three between them."""
    table = Table(title=f"blocks: {label}", box=box.SIMPLE_HEAD)
    table.add_column("network", min_width=len("state-action"))
    for name in ("block", *TITLES.values()):
        table.add_column(name, justify="right", no_wrap=True)
    for name, network in inspection.networks.items():
        if not network.blocks:
            continue
        depth = len(network.blocks["branch"])
        for i in sorted({round(share * (depth - 1) / 4) for share in range(5)}):
            numbers = (_show(_at(network.blocks, key, i)) for key in TITLES)
            table.add_row(name if i == 0 else "", f"{i + 1:,}", *numbers)
        table.add_section()
    return table


def as_json(inspection: Inspection) -> dict[str, JSON]:
    """All of an inspection; numbers that are not finite become null."""
    networks = {
        name: {
            "effective_rank": _finite(network.effective_rank),
            "similarity": _finite(network.similarity),
            "blocks": {key: [_finite(x) for x in v.tolist()] for key, v in network.blocks.items()},
        }
        for name, network in inspection.networks.items()
    }
    scalars = {name: _finite(value) for name, value in inspection.scalars.items()}
    return {"scalars": scalars, "networks": networks, "left_out": dict(inspection.left_out)}


def _scalars(inspection: Inspection) -> dict[str, float]:
    found = dict(inspection.scalars)
    for name, network in inspection.networks.items():
        found[f"{name}: effective rank"] = network.effective_rank
        found[f"{name}: cosine between rows"] = network.similarity
    return found


def _at(found: Mapping[str, np.ndarray], key: str, i: int) -> float | None:
    return float(found[key][i]) if key in found else None


def _show(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
