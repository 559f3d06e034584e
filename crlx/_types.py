from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, Shaped

# Shape vocabulary: `obs`, `act` and `goal` are sizes of one vector; `dim` is an embedding's,
# `width` a hidden layer's; `rows` counts stored time steps, `batch` the rows of one minibatch.
Scalar = Float[Array, ""]
Metrics = Mapping[str, Scalar]
# The same of many updates: each array has leading axes, which the function that returns it names.
History = Mapping[str, Array]


class Affine(eqx.Module):
    """Fixed rescaling of a vector to order one: `(x - shift) / scale`.

    The numbers are static, so no optimizer can move them.

    **Arguments:**

    - `shift`, `scale`: one number per coordinate, in the units of `x`; empty tuples are the
      identity. A scale must be positive.
    """

    shift: tuple[float, ...] = eqx.field(default=(), static=True)
    scale: tuple[float, ...] = eqx.field(default=(), static=True)

    def __check_init__(self):
        if len(self.shift) != len(self.scale):
            raise ValueError(
                f"`shift` has {len(self.shift)} numbers and `scale` {len(self.scale)}; "
                "give one of each per coordinate."
            )
        if any(not s > 0 for s in self.scale):
            raise ValueError(f"Every scale must be positive; got {self.scale}.")

    def __call__(self, x: Float[Array, " size"]) -> Float[Array, " size"]:
        if not self.shift:
            return x
        shift = jnp.asarray(self.shift, x.dtype)
        scale = jnp.asarray(self.scale, x.dtype)
        return (x - shift) / scale


def standardization(data: np.ndarray) -> Affine:
    """The rescaling of `[rows, size]` to mean zero and standard deviation one.

    A coordinate that never changes keeps its scale.
    """
    mean, std = data.mean(0, dtype=np.float64), data.std(0, dtype=np.float64)
    std = np.where(std > 1e-6 * np.maximum(np.abs(mean), 1), std, 1.0)
    return Affine(tuple(mean.tolist()), tuple(std.tolist()))


class Spec(eqx.Module):
    """What networks must know of a task: sizes and units of observations, actions and goals.

    **Arguments:**

    - `observation_size`, `action_size`, `goal_size`: lengths of the vectors.
    - `observation_units`, `goal_units`: rescaling that networks apply to their inputs.
    """

    observation_size: int = eqx.field(static=True)
    action_size: int = eqx.field(static=True)
    goal_size: int = eqx.field(static=True)
    observation_units: Affine = eqx.field(default_factory=Affine)
    goal_units: Affine = eqx.field(default_factory=Affine)

    def __check_init__(self):
        if self.observation_size < 1 or self.goal_size < 1 or self.action_size < 0:
            raise ValueError(
                "Observations and goals need at least one number and actions none or more; got "
                f"{self.observation_size}, {self.goal_size} and {self.action_size}."
            )
        sizes = {"observation": self.observation_size, "goal": self.goal_size}
        for name, units in (("observation", self.observation_units), ("goal", self.goal_units)):
            if len(units.shift) not in (0, sizes[name]):
                raise ValueError(
                    f"`{name}_units` rescale {len(units.shift)} coordinates of a vector of "
                    f"{sizes[name]}; give one number per coordinate."
                )


class Step(eqx.Module):
    """Time steps of an environment, one per row.

    `achieved` is what the goal space sees of the observation. `extras` holds what only some
    objectives read (rewards, terminations, commanded goals).
    """

    observation: Float[Array, "rows obs"]
    action: Shaped[Array, "rows act"]
    achieved: Float[Array, "rows goal"]
    extras: PyTree[Any] = None
