from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from brax import base
from brax.spring import base as spring
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..walls import Collisions, Walls, step
from ._arenas import AbstractArena
from ._body import AbstractBody
from ._models import add_walls, load
from ._physics import advance, loose_types
from ._spec import Backend
from ._task import AbstractTask, Moment, Scalars, Start, Traits


class Locomotion(AbstractTask):
    """A body that is to go to a place in an arena.

    The achieved goal is where it is, the distance Euclidean.

    **Arguments:**

    - `body`, `arena`: which.
    - `near_walls`: look only at the walls that are near enough to be touched, which gives the same
      states to rounding; False to simulate the box of every wall, as the references do, which
      takes 20 to 40 times as long.
    """

    body: AbstractBody
    arena: AbstractArena
    near_walls: bool = eqx.field(default=True, static=True)

    def traits(self) -> Traits:
        return self.body.traits(walled=self._walled)

    def system(self, backend: Backend) -> base.System:
        return self._load(backend, boxes=not self.near_walls)

    def scene(self, backend: Backend) -> base.System:
        return self._load(backend, boxes=True)

    def start(self, sys: base.System, *, key: PRNGKeyArray) -> Start:
        pkey, bkey = jr.split(key)
        places = self.arena.draw(self.body.scale, key=pkey)
        return self.body.start(sys, places, exact=self.arena.exact, key=bkey)

    def controls(
        self, sys: base.System, state: base.State, action: Float[Array, " act"]
    ) -> Float[Array, " ctrl"]:
        del state
        return self.body.controls(sys, action)

    def advance(
        self, sys: base.System, backend: Backend, state: base.State, ctrl: Float[Array, " ctrl"]
    ) -> base.State:
        maze = self.arena.maze()
        if maze is None or not self.near_walls:
            return advance(sys, backend, state, ctrl)
        with loose_types():
            with jax.ensure_compile_time_eval():  # The model is known before any program runs.
                collisions = Collisions.of(sys, Walls(maze.walls, self.body.scale))
            return step(sys, cast(spring.State, state), ctrl, collisions)

    def observe(
        self, sys: base.System, state: base.State, ctrl: Float[Array, " ctrl"]
    ) -> Float[Array, " state"]:
        return self.body.observe(sys, state, ctrl)

    def follow(
        self, sys: base.System, state: base.State, goal: Float[Array, " goal"]
    ) -> Float[Array, " goal"]:
        del sys, state
        return goal

    def distance(
        self, state: Float[Array, " state"], goal: Float[Array, " goal"]
    ) -> Float[Array, ""]:
        start, end = self.traits().goal_indices
        return jnp.linalg.norm(state[start:end] - goal)

    def healthy(self, state: base.State) -> Bool[Array, ""]:
        return self.body.healthy(state)

    def rewards(self, moment: Moment) -> Scalars:
        return self.body.rewards(moment, walled=self._walled)

    def readings(self, moment: Moment) -> Scalars:
        return self.body.readings(moment)

    def _load(self, backend: Backend, *, boxes: bool) -> base.System:
        model = self.body.model(walled=self._walled)
        maze = self.arena.maze()
        if maze is not None and boxes:
            add_walls(model, maze, self.body.scale)
        return self.body.strengthen(load(model), backend)

    @property
    def _walled(self) -> bool:
        return self.arena.maze() is not None
