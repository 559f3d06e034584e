import math

import numpy as np
from jaxtyping import Float, Int


def chi_square(
    counts: Int[np.ndarray, " cells"], probabilities: Float[np.ndarray, " cells"]
) -> float:
    """The chance of a worse fit than that of `counts`, if `probabilities` were the truth.

    Pearson's test, with the approximation of Wilson and Hilferty (1931). Cells are sorted by
    expectation and merged until each expects at least five.

    **Arguments:**

    - `counts`: how often each cell was drawn.
    - `probabilities`: of each cell; they sum to one.

    **Returns:** a number in [0, 1]: near 0 for a wrong law, near 1 for draws that are too even to
    be independent.
    """
    counts, expected = np.asarray(counts), np.asarray(probabilities, np.float64)
    expected = expected * counts.sum()
    if np.any(counts[expected == 0] > 0):
        return 0.0
    statistic, cells = 0.0, 0
    for drawn, mean in _merge(counts, expected):
        statistic, cells = statistic + (drawn - mean) ** 2 / mean, cells + 1
    if cells < 2:
        return 0.5  # Only one outcome is possible.
    spread = 2 / (9 * (cells - 1))
    z = ((statistic / (cells - 1)) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
    return 0.5 * math.erfc(z / math.sqrt(2))


def _merge(counts: np.ndarray, expected: np.ndarray) -> list[tuple[float, float]]:
    merged, drawn, mean = [], 0.0, 0.0
    for cell in np.argsort(expected):
        drawn, mean = drawn + counts[cell], mean + expected[cell]
        if mean >= 5:
            merged.append((drawn, mean))
            drawn, mean = 0.0, 0.0
    if merged:  # The largest cells come last, so what is left over is zero or joins the last.
        last = merged.pop()
        merged.append((last[0] + drawn, last[1] + mean))
    return merged
