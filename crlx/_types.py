import enum
from collections.abc import Mapping
from typing import Any

import equinox as eqx
from jaxtyping import Array, Bool, Float, PyTree

from ._units import AbstractUnits, Affine, RunningUnits

# Shape vocabulary: `obs`, `act` and `goal` are sizes of one vector; `dim` is an embedding's,
# `width` a hidden layer's; `rows` counts stored time steps, `batch` the rows of one minibatch.
Scalar = Float[Array, ""]
Metrics = Mapping[str, Scalar]
# Factors on the optimizer's steps of some fields of the parameters, by name.
Pace = Mapping[str, float | Scalar]
# Metrics of many updates: each array has leading axes, which the function that returns it names.
History = Mapping[str, Array]


class ActionSpace(enum.Enum):
    """Which vectors are actions.

    - `BOX`: those whose components lie in [-1, 1].
    - `REAL`: any, such as the subgoals that one policy sets for another.
    - `CHOICE`: one of finitely many actions, as a one-hot vector with an entry for each.
    """

    BOX = enum.auto()
    REAL = enum.auto()
    CHOICE = enum.auto()


class Spec(eqx.Module):
    """What networks must know of a task: sizes and units of observations, actions and goals.

    **Arguments:**

    - `observation_size`, `action_size`, `goal_size`: lengths of the vectors. Critics of states
      alone have actions of length 0, and policies that see no goal have goals of length 0.
    - `observation_units`, `goal_units`: rescaling that networks apply to their inputs.
    - `actions`: which vectors are actions.
    """

    observation_size: int = eqx.field(static=True)
    action_size: int = eqx.field(static=True)
    goal_size: int = eqx.field(static=True)
    observation_units: AbstractUnits = eqx.field(default_factory=Affine)
    goal_units: AbstractUnits = eqx.field(default_factory=Affine)
    actions: ActionSpace = eqx.field(default=ActionSpace.BOX, static=True)

    def __check_init__(self):
        if self.observation_size < 1 or self.goal_size < 0 or self.action_size < 0:
            raise ValueError(
                "Observations need at least one number, goals and actions none or more; got "
                f"{self.observation_size}, {self.goal_size} and {self.action_size}."
            )
        _check_units("observation", self.observation_units, self.observation_size, self)
        _check_units("goal", self.goal_units, self.goal_size, self)


def _check_units(name: str, units: AbstractUnits, size: int, spec: Spec) -> None:
    if isinstance(units, Affine) and len(units.shift) not in (0, size):
        raise ValueError(
            f"`{name}_units` rescale {len(units.shift)} coordinates of a vector of {size}; "
            "give one number per coordinate."
        )
    if not isinstance(units, RunningUnits):
        return
    columns = range(spec.observation_size) if units.columns is None else units.columns
    if len(columns) != size:
        raise ValueError(
            f"`{name}_units` use the statistics of {len(columns)} coordinates of observations for "
            f"a vector of {size}; give `columns`, one per number of the vector."
        )
    if not all(0 <= column < spec.observation_size for column in columns):
        raise ValueError(
            f"`{name}_units` use the columns {columns} of observations of "
            f"{spec.observation_size} numbers; count from 0."
        )


class Outcome(eqx.Module):
    """What came of time steps, for objectives that learn from more than hindsight.

    **Arguments:**

    - `goal`: what the policy was told to reach.
    - `terminated`: whether the action ended the episode for good, as a fall does and a time limit
      does not.
    """

    goal: Float[Array, "rows goal"]
    terminated: Bool[Array, " rows"]


class Step(eqx.Module):
    """Time steps of an environment, one per row.

    `achieved` is what the goal space sees of the observation. `extras` holds what only some
    objectives read, such as an `Outcome`.
    """

    observation: Float[Array, "rows obs"]
    action: Float[Array, "rows act"]
    achieved: Float[Array, "rows goal"]
    extras: PyTree[Any] = None
