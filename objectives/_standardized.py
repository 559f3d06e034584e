import dataclasses
from typing import Generic, TypeVar

import equinox as eqx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from crlx import (
    AbstractActor,
    AbstractArchitecture,
    AbstractObjective,
    AbstractPaced,
    AbstractRows,
    AbstractScaled,
    AbstractScoring,
    Affine,
    Metrics,
    Moments,
    Pace,
    RunningUnits,
    Spec,
    with_moments,
)

from ._checks import scoring

Params = TypeVar("Params")
State = TypeVar("State")
Batch = TypeVar("Batch")


class StandardizedState(eqx.Module, Generic[State]):
    """Statistics of observations, and the state of the objective that reads them."""

    moments: Moments
    inner: State


class Standardized(
    AbstractPaced[Params, StandardizedState[State], Batch],
    AbstractScaled[Params, StandardizedState[State], Batch],
    AbstractScoring[Params, StandardizedState[State], Batch],
):
    """Any objective, on networks that scale what they read by running statistics.

    The statistics start as mean 0 and variance 1. The loop puts those of sources that act, such as
    `crlx.Online`, in their place; otherwise nothing but `observe` moves them. Rows that are
    replayed are scaled by those of the moment. Goals use the statistics of the observed coordinates
    that they copy, so that a goal and the state that reaches it look alike.

    **Arguments:**

    - `objective`: what to learn. Its networks apply the units of their spec.
    - `goal_columns`: the coordinates of observations, counted from 0, that goals are; None if
      goals are whole observations.

    ??? cite
        RSNorm of Lee et al., Hyperspherical Normalization for Scalable Deep RL (ICML 2025).
    """

    objective: AbstractObjective[Params, State, Batch]
    goal_columns: tuple[int, ...] | None = None

    def init(
        self, architecture: AbstractArchitecture, spec: Spec, *, key: PRNGKeyArray
    ) -> tuple[Params, StandardizedState[State]]:
        if any(units != Affine() for units in (spec.observation_units, spec.goal_units)):
            raise ValueError(
                "Running statistics replace the units of `spec`, which has some already: "
                "give a `Spec` without `observation_units` and `goal_units`."
            )
        running = dataclasses.replace(
            spec, observation_units=RunningUnits(), goal_units=RunningUnits(self.goal_columns)
        )
        params, inner = self.objective.init(architecture, running, key=key)
        return params, StandardizedState(Moments.start(spec.observation_size), inner)

    def relabel(
        self, rows: AbstractRows, index: Int[Array, " batch"], *, key: PRNGKeyArray
    ) -> Batch:
        return self.objective.relabel(rows, index, key=key)

    def loss(
        self, params: Params, state: StandardizedState[State], batch: Batch, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        # The state may hold networks too, such as targets.
        params, inner = with_moments((params, state.inner), state.moments)
        return self.objective.loss(params, inner, batch, key=key)

    def advance(self, params: Params, state: StandardizedState[State]) -> StandardizedState[State]:
        return StandardizedState(state.moments, self.objective.advance(params, state.inner))

    def policy(self, params: Params, state: StandardizedState[State]) -> AbstractActor:
        params, inner = with_moments((params, state.inner), state.moments)
        return self.objective.policy(params, inner)

    def score(
        self,
        params: Params,
        state: StandardizedState[State],
        observation: Float[Array, " obs"],
        action: Float[Array, " act"],
        goal: Float[Array, " goal"],
    ) -> Float[Array, ""]:
        params, inner = with_moments((params, state.inner), state.moments)
        return scoring(self.objective).score(params, inner, observation, action, goal)

    def pace(self, state: StandardizedState[State]) -> Pace:
        if not isinstance(self.objective, AbstractPaced):
            return {}
        return self.objective.pace(state.inner)

    def observe(
        self, state: StandardizedState[State], observations: Float[Array, "rows obs"]
    ) -> StandardizedState[State]:
        """The state after these observations.

        For what is met when acting in training, once, or for a whole dataset before training;
        never for a minibatch, whose rows would count at every gradient step.
        """
        return self.scale(state, state.moments.merge(observations))

    def scale(self, state: StandardizedState[State], moments: Moments) -> StandardizedState[State]:
        return StandardizedState(moments, state.inner)
