import abc
from typing import Generic, TypeVar

import equinox as eqx
from jaxtyping import PRNGKeyArray

from ._behaviours import Agent
from ._instances import check_parts
from ._moments import Moments
from ._rows import AbstractRows
from ._types import Metrics

Data = TypeVar("Data")


class AbstractSource(eqx.Module, Generic[Data]):
    """Where rows come from. All methods are pure and may be traced."""

    def __check_init__(self):
        check_parts(self)

    @abc.abstractmethod
    def init(self, *, key: PRNGKeyArray) -> Data:
        """What collection changes, at the start."""

    @abc.abstractmethod
    def collect(self, data: Data, agent: Agent, *, key: PRNGKeyArray) -> tuple[Data, Metrics]:
        """Gathers new experience with the current policy.

        **Returns:** the data, and metrics named `group/name`.
        """

    @abc.abstractmethod
    def rows(self, data: Data) -> AbstractRows:
        """What may be drawn from now."""


class AbstractMeasured(AbstractSource[Data]):
    """A source that keeps statistics of the observations that it has met."""

    @abc.abstractmethod
    def moments(self, data: Data) -> Moments:
        """Of all observations so far, each of which counts once."""


class Offline(AbstractSource[None]):
    """A fixed dataset, whole on the device. Collection changes nothing, so nothing is copied."""

    dataset: AbstractRows

    def init(self, *, key: PRNGKeyArray) -> None:
        del key

    def collect(self, data: None, agent: Agent, *, key: PRNGKeyArray) -> tuple[None, Metrics]:
        del data, agent, key
        return None, {}

    def rows(self, data: None) -> AbstractRows:
        del data
        return self.dataset
