import jax.numpy as jnp
import jax.random as jr
from brax import base
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ._arenas import AbstractArena
from ._body import AbstractBody
from ._models import add_walls, load
from ._physics import advance
from ._spec import Backend
from ._task import AbstractTask, Moment, Scalars, Start, Traits


class Locomotion(AbstractTask):
    """A body that is to go to a place in an arena.

    The achieved goal is where it is, the distance Euclidean.
    """

    body: AbstractBody
    arena: AbstractArena

    def traits(self) -> Traits:
        return self.body.traits(walled=self._walled)

    def system(self, backend: Backend) -> base.System:
        return self.scene(backend)

    def scene(self, backend: Backend) -> base.System:
        model = self.body.model(walled=self._walled)
        maze = self.arena.maze()
        if maze is not None:
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

    def advance(
        self, sys: base.System, backend: Backend, state: base.State, ctrl: Float[Array, " ctrl"]
    ) -> base.State:
        return advance(sys, backend, state, ctrl)

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

    @property
    def _walled(self) -> bool:
        return self.arena.maze() is not None
