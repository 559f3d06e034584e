from collections.abc import Mapping

import numpy as np


class Diverged(Exception):
    """A metric is no longer a number."""

    exit_code = 1


def find_divergence(metrics: Mapping[str, np.ndarray]) -> tuple[int, str] | None:
    """The first update at which a metric is not finite, and which metrics to suspect.

    **Arguments:**

    - `metrics`: every metric of every update, `[updates]`.
    """
    finite = {name: np.isfinite(values) for name, values in metrics.items()}
    whole = np.logical_and.reduce(list(finite.values()))
    if whole.all():
        return None
    first = int(np.argmin(whole))
    names = [name for name in metrics if not finite[name][first]]
    text = f"{', '.join(names)} not finite"
    if first > 0:
        largest = max(metrics, key=lambda name: abs(metrics[name][first - 1]))
        text += f" (one step before, the largest was {largest} = {metrics[largest][first - 1]:.3g})"
    return first, text
