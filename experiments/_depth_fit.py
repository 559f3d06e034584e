from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# The paper's run of 1024 layers: 134.15 hours at about 131 ms an update.
PAPER_UPDATES = 134.15 * 3600 / 0.131


def line(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[float, float, float]:
    """The straight line through a column against depth, by least squares of relative errors.

    **Returns:** its value at depth 0, its slope for each layer, and the largest relative error.
    """
    depth = np.array([row["depth"] for row in rows], float)
    value = np.array([row[name] for row in rows], float)
    terms = np.stack([np.ones_like(depth), depth], axis=1) / value[:, None]
    offset, slope = np.linalg.lstsq(terms, np.ones_like(value), rcond=None)[0]
    return offset, slope, float(np.abs(terms @ (offset, slope) - 1).max())


def hours(seconds_per_update: float) -> float:
    """How long the paper's run would take, of updates alone."""
    return seconds_per_update * PAPER_UPDATES / 3600
