import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Array, PyTree, UInt32

from crlx import JSON, DeviceMesh

from ._run_directory import RunDirectory

Seed = int | UInt32[Array, ""]


@dataclasses.dataclass(frozen=True)
class Found:
    """What an evaluation found.

    **Arguments:**

    - `overall_success`, `tasks`: between 0 and 1, in all and by name; the run's record keeps them.
    - `scores`: further numbers that the run's record keeps.
    - `figures`: everything else that is logged.
    - `text`: the same for people.
    - `draw`: makes the pictures, given all evaluations of the run and its directory.
    """

    overall_success: float
    tasks: dict[str, float]
    scores: Mapping[str, JSON]
    figures: Mapping[str, JSON]
    text: str
    draw: Callable[[list[dict[str, Any]], RunDirectory], None]


class AbstractJob(abc.ABC):
    """What a `Trainer` drives: something that is trained in rounds.

    **Arguments:**

    - `rounds`, `interval`: in all, and between evaluations, the last of which comes at the end.
    - `mesh`: the devices that it is trained on.
    - `seed`: of everything random.
    """

    seed: int
    rounds: int
    interval: int
    mesh: DeviceMesh

    @abc.abstractmethod
    def init(self, seed: Seed) -> PyTree:
        """All that training changes, at the start of a run with this seed. Pure."""

    @abc.abstractmethod
    def trained(self, carry: PyTree) -> PyTree:
        """The objective's parameters."""

    @abc.abstractmethod
    def packed(self, carry: PyTree) -> dict[str, PyTree]:
        """The trees of a checkpoint: `params` and `state`, which policies are made of and are
        read alone for that, and others."""

    @abc.abstractmethod
    def unpacked(self, items: Mapping[str, PyTree]) -> PyTree:
        """What was packed."""

    @abc.abstractmethod
    def rounds_done(self, carry: PyTree) -> int: ...

    @abc.abstractmethod
    def step(self, rounds: int) -> int:
        """What is logged, and shown, as how far the run is after so many rounds."""

    @abc.abstractmethod
    def rounds_per_call(self, parameters: int) -> int:
        """How many rounds one compiled call makes at most, so that it takes seconds."""

    @property
    @abc.abstractmethod
    def kept(self) -> PyTree:
        """What calls read and do not change."""

    @abc.abstractmethod
    def advance(self, kept: PyTree, carry: PyTree, rounds: int) -> tuple[PyTree, PyTree]:
        """Some rounds and their metrics. Pure, and traced once for each number of rounds."""

    @abc.abstractmethod
    def curves(self, metrics: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Every metric of every update of a call, `[updates]`."""

    @abc.abstractmethod
    def speeds(self, before: int, rounds: int, seconds: float) -> dict[str, float]:
        """How fast so many rounds were, after those before, for the log."""

    @abc.abstractmethod
    def evaluate(
        self,
        carry: PyTree,
        step: int,
        *,
        stop: Callable[[], bool],
        show: Callable[[int, int], None],
    ) -> Found | None:
        """How good the policy is; None if it was stopped."""
