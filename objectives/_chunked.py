import dataclasses
from typing import TypeVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from crlx import (
    AbstractActor,
    AbstractArchitecture,
    AbstractObjective,
    AbstractRows,
    AbstractScoring,
    Metrics,
    Spec,
    Step,
    check_instance,
)

from ._checks import scoring
from ._cloning import BC, GCBC, GCSL
from ._contrastive import Contrastive
from ._survival import Survival

Params = TypeVar("Params")
State = TypeVar("State")
Batch = TypeVar("Batch")


class ChunkedRows(AbstractRows):
    """The same rows, whose action is that of `length` steps in a row, one after the other. Beyond
    the end of a trajectory its last action is repeated."""

    rows: AbstractRows
    length: int

    def draw(self, size: int, *, key: PRNGKeyArray) -> Int[Array, " batch"]:
        return self.rows.draw(size, key=key)

    def take(self, index: Int[Array, " batch"]) -> Step:
        last = self.rows.last(index)
        steps = [self.rows.take(jnp.minimum(index + i, last)) for i in range(self.length)]
        action = jnp.concatenate([step.action for step in steps], axis=1)
        return dataclasses.replace(steps[0], action=action)

    def last(self, index: Int[Array, " batch"]) -> Int[Array, " batch"]:
        return self.rows.last(index)


class Chunked(AbstractScoring[Params, State, Batch]):
    """An objective whose critic and actor see the actions of several steps at once, which are
    carried out one after the other.

    **Arguments:**

    - `objective`: what to learn: `Contrastive`, `Survival`, `GCBC`, `GCSL` or `BC`. Others look at
      what follows a single step.
    - `length`: steps of a chunk.

    ??? cite
        Korniak et al., Three Steps at a Time (arXiv 2608.30640), with 3 steps.
    """

    objective: AbstractObjective[Params, State, Batch]
    length: int = 3

    def __check_init__(self):
        check_instance("objective", self.objective)
        if self.length < 1:
            raise ValueError(f"`length` is at least 1; got {self.length}.")
        if not isinstance(self.objective, Contrastive | Survival | GCBC | GCSL | BC):
            raise ValueError(
                f"{type(self.objective).__name__} learns from what follows a single step, so it "
                "takes no chunks of actions: use Contrastive, Survival, GCBC, GCSL or BC."
            )

    def init(
        self, architecture: AbstractArchitecture, spec: Spec, *, key: PRNGKeyArray
    ) -> tuple[Params, State]:
        spec = dataclasses.replace(spec, action_size=self.length * spec.action_size)
        return self.objective.init(architecture, spec, key=key)

    def relabel(
        self, rows: AbstractRows, index: Int[Array, " batch"], *, key: PRNGKeyArray
    ) -> Batch:
        return self.objective.relabel(ChunkedRows(rows, self.length), index, key=key)

    def loss(
        self, params: Params, state: State, batch: Batch, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        return self.objective.loss(params, state, batch, key=key)

    def advance(self, params: Params, state: State) -> State:
        return self.objective.advance(params, state)

    def policy(self, params: Params, state: State) -> AbstractActor:
        return self.objective.policy(params, state)

    def score(
        self,
        params: Params,
        state: State,
        observation: Float[Array, " obs"],
        action: Float[Array, " act"],
        goal: Float[Array, " goal"],
    ) -> Float[Array, ""]:
        return scoring(self.objective).score(params, state, observation, action, goal)
