import time
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback
from jaxtyping import PRNGKeyArray

from crlx import AbstractMeasured, AbstractRows, Agent, Metrics, Moments

T = TypeVar("T")
_SMALL = 4096  # Numbers of an array that is copied for nothing.


class Stopwatch:
    """How long parts of a running program take, told by the program itself as it passes marks."""

    def __init__(self):
        self._parts: dict[str, float] = {}
        self._since = 0.0

    def start(self) -> None:
        """Begins a part."""
        self._since = time.perf_counter()

    def stop(self, part: str) -> None:
        """Ends a part, and begins the next."""
        now = time.perf_counter()
        self._parts[part] = self._parts.get(part, 0.0) + now - self._since
        self._since = now

    def read(self) -> dict[str, float]:
        """Seconds of each part since this was last asked."""
        parts, self._parts = self._parts, {}
        return parts


class Timed(AbstractMeasured[Any]):
    """A source whose collection, the part "simulation", and whose tables of what may be drawn, the
    part "replay", are timed. Nothing else of it changes.

    **Arguments:**

    - `source`: what to time.
    - `watch`: what notes the times.
    """

    source: AbstractMeasured[Any]
    watch: Stopwatch = eqx.field(static=True)

    def init(self, *, key: PRNGKeyArray) -> Any:
        return self.source.init(key=key)

    def collect(self, data: Any, agent: Agent, *, key: PRNGKeyArray) -> tuple[Any, Metrics]:
        # All that is random waits for the key, so nothing begins before the mark.
        key = _marked(key, self.watch.start)
        data, metrics = self.source.collect(data, agent, key=key)
        return _marked(data, lambda: self.watch.stop("simulation")), metrics

    def moments(self, data: Any) -> Moments:
        return self.source.moments(data)

    def rows(self, data: Any) -> AbstractRows:
        return _marked(self.source.rows(data), lambda: self.watch.stop("replay"))


def _marked(tree: T, note: Callable[[], None]) -> T:
    """The same tree, whose small arrays are there only when `note` has been called, which is when
    all of it has been computed. Large ones do not wait, since they might have to be copied."""
    arrays, rest = eqx.partition(tree, eqx.is_array)
    small, large = eqx.partition(arrays, lambda x: x.size <= _SMALL)
    waited = [x.ravel()[:1] for x in jax.tree.leaves(arrays) if jnp.issubdtype(x.dtype, jnp.number)]

    def call(*_: np.ndarray) -> np.ndarray:
        note()
        return np.zeros((), np.int32)

    token = io_callback(call, jax.ShapeDtypeStruct((), np.int32), *waited, ordered=True)
    small, _ = jax.lax.optimization_barrier((small, token))
    return eqx.combine(small, large, rest)
