import dataclasses

import equinox as eqx
import jax.random as jr
from brax import base
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..walls import Walls
from ._arenas import AbstractArena
from ._body import AbstractBody
from ._models import add_walls, load
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
        traits, maze = self.body.traits(walled=self._walled), self.arena.maze()
        if maze is None or not self.near_walls:
            return traits
        return dataclasses.replace(traits, walls=Walls(maze.walls, self.body.scale))

    def system(self, backend: Backend, *, drawn: bool) -> base.System:
        model, maze = self.body.model(walled=self._walled), self.arena.maze()
        if maze is not None and (drawn or not self.near_walls):
            add_walls(model, maze, self.body.scale)
        return self.body.strengthen(load(model), backend)

    def start(self, sys: base.System, *, key: PRNGKeyArray) -> Start:
        pkey, bkey = jr.split(key)
        places = self.arena.draw(self.body.scale, key=pkey)
        return self.body.start(sys, places, exact=self.arena.exact, key=bkey)

    def controls(
        self, sys: base.System, state: base.State, action: Float[Array, " act"]
    ) -> Float[Array, " ctrl"]:
        del state
        return self.body.controls(sys, action)

    def observe(
        self, sys: base.System, state: base.State, ctrl: Float[Array, " ctrl"]
    ) -> Float[Array, " state"]:
        return self.body.observe(sys, state, ctrl)

    def healthy(self, state: base.State) -> Bool[Array, ""]:
        return self.body.healthy(state)

    def rewards(self, moment: Moment) -> Scalars:
        return self.body.rewards(moment, walled=self._walled)

    def readings(self, moment: Moment) -> Scalars:
        return self.body.readings(moment)

    @property
    def _walled(self) -> bool:
        return self.arena.maze() is not None
