import contextlib
from collections.abc import Iterator
from types import ModuleType
from typing import cast

import jax
import jax.numpy as jnp
from brax import base
from brax.generalized import pipeline as generalized
from brax.mjx import pipeline as mjx
from brax.spring import pipeline as spring
from brax.spring.base import State as SpringState
from jaxtyping import Array, Float

from ..walls import Collisions, Walls, step
from ._spec import Backend

_PIPELINES: dict[Backend, ModuleType] = {"spring": spring, "mjx": mjx, "generalized": generalized}


@contextlib.contextmanager
def loose_types() -> Iterator[None]:
    """Lets Brax and MJX mix dtypes and ranks, as they do, where JAX is told to refuse it."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def place(
    sys: base.System, backend: Backend, q: Float[Array, " q"], qd: Float[Array, " qd"]
) -> base.State:
    """The state of Brax's physics at given positions and velocities, with idle actuators."""
    idle = jnp.zeros(sys.act_size(), jnp.float32)
    with loose_types():
        return _PIPELINES[backend].init(sys, q, qd, idle, idle)


def advance(
    sys: base.System,
    backend: Backend,
    state: base.State,
    ctrl: Float[Array, " ctrl"],
    walls: Walls | None,
) -> base.State:
    """One step of Brax's physics, with walls in addition to those that the model has."""
    with loose_types():
        if walls is not None:
            with jax.ensure_compile_time_eval():  # The model is known before any program runs.
                collisions = Collisions.of(sys, walls)
            return step(sys, cast(SpringState, state), ctrl, collisions)
        return _PIPELINES[backend].step(sys, state, ctrl)
