import abc
from typing import Generic, TypeVar

import equinox as eqx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ._instances import check_parts
from ._moments import Moments
from ._networks import AbstractActor, AbstractArchitecture
from ._rows import AbstractRows
from ._types import Metrics, Pace, Scalar, Spec

Params = TypeVar("Params")
State = TypeVar("State")
Batch = TypeVar("Batch")


class AbstractObjective(eqx.Module, Generic[Params, State, Batch]):
    """What to learn. Whatever a gradient moves is `params`; whatever a rule moves is `state`.

    One update is: gradient of `loss` with respect to `params`, optimizer step, `advance`.
    """

    def __check_init__(self):
        check_parts(self)

    @abc.abstractmethod
    def init(
        self, architecture: AbstractArchitecture, spec: Spec, *, key: PRNGKeyArray
    ) -> tuple[Params, State]:
        """Asks the architecture for networks and adds the objective's own trainables and memory.

        `params` is a module with one field per role (`critic`, `actor`, …): gradient norms are
        logged by field.
        """

    @abc.abstractmethod
    def relabel(
        self, rows: AbstractRows, index: Int[Array, " batch"], *, key: PRNGKeyArray
    ) -> Batch:
        """Chooses goals for one minibatch by index and gathers exactly what `loss` reads."""

    @abc.abstractmethod
    def loss(
        self, params: Params, state: State, batch: Batch, *, key: PRNGKeyArray
    ) -> tuple[Scalar, Metrics]:
        """One scalar, the sum of all terms, and metrics named `group/name`.

        Each term uses `frozen` on the fields that it must not train.
        """

    @abc.abstractmethod
    def advance(self, params: Params, state: State) -> State:
        """Moves target networks and counters, after each optimizer step."""

    @abc.abstractmethod
    def policy(self, params: Params, state: State) -> AbstractActor:
        """What acts, is evaluated and is deployed: complete, with all that it needs of `state`."""


class AbstractPaced(AbstractObjective[Params, State, Batch]):
    """An objective some of whose fields of `params` learn at a pace of their own.

    Multipliers may need a larger learning rate than networks; a policy may be trained less often
    than its critic. Each such field gets its own state of the optimizer.
    """

    @abc.abstractmethod
    def pace(self, state: State) -> Pace:
        """For some fields of `params`, by name, the factor on what the optimizer adds to them.

        Where an array is zero, the field and its state of the optimizer, with the count of its
        steps, stay exactly as they are. The names must not depend on `state`.
        """


class AbstractScaled(AbstractObjective[Params, State, Batch]):
    """An objective whose networks scale what they read by the statistics of all that was met."""

    @abc.abstractmethod
    def scale(self, state: State, moments: Moments) -> State:
        """The state with these statistics of observations in place of its own."""


class AbstractScoring(AbstractObjective[Params, State, Batch]):
    """An objective that can tell how good an action is."""

    @abc.abstractmethod
    def score(
        self,
        params: Params,
        state: State,
        observation: Float[Array, " obs"],
        action: Float[Array, " act"],
        goal: Float[Array, " goal"],
    ) -> Scalar:
        """How well an action leads to a goal; higher is better. For one example.

        Raises `ValueError` where settings of the objective leave nothing that tells.
        """
