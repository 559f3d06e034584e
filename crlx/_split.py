from typing import Any

from jaxtyping import Array, Int, PRNGKeyArray

from ._behaviours import Agent
from ._mesh import DeviceMesh
from ._moments import Moments
from ._rows import AbstractRows
from ._source import AbstractMeasured
from ._types import Metrics, Step


class SplitRows(AbstractRows):
    """Rows of which each device of a mesh handles its share of those that are taken, so that all
    that follows from them (relabelling, losses, gradients) is shared out too. The numbers drawn are
    those of the rows themselves.

    **Arguments:**

    - `rows`: the rows.
    - `mesh`: the devices.
    """

    rows: AbstractRows
    mesh: DeviceMesh

    def draw(self, size: int, *, key: PRNGKeyArray) -> Int[Array, " batch"]:
        return self.rows.draw(size, key=key)

    def take(self, index: Int[Array, " batch"]) -> Step:
        return self.mesh.split(self.rows.take(index))

    def last(self, index: Int[Array, " batch"]) -> Int[Array, " batch"]:
        return self.rows.last(index)


class SplitSource(AbstractMeasured[Any]):
    """A source of which each device of a mesh has its share of environments and of what they met.

    **Arguments:**

    - `source`: such as `Online`.
    - `mesh`: the devices.
    """

    source: AbstractMeasured[Any]
    mesh: DeviceMesh

    def init(self, *, key: PRNGKeyArray) -> Any:
        return self.mesh.constrain(self.source.init(key=key))

    def collect(self, data: Any, agent: Agent, *, key: PRNGKeyArray) -> tuple[Any, Metrics]:
        data, metrics = self.source.collect(data, agent, key=key)
        return self.mesh.constrain(data), metrics

    def rows(self, data: Any) -> AbstractRows:
        return SplitRows(self.source.rows(data), self.mesh)

    def moments(self, data: Any) -> Moments:
        return self.source.moments(data)
