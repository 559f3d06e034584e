import abc
from collections.abc import Mapping

import equinox as eqx
import mujoco
from brax import base
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ._arenas import Places
from ._spec import Backend
from ._task import Moment, Scalars, Start, Traits


class AbstractBody(eqx.Module):
    """What moves about in an arena, with a target link at the goal."""

    @property
    @abc.abstractmethod
    def scale(self) -> float:
        """Width of a maze's cells in metres."""

    @abc.abstractmethod
    def traits(self, *, walled: bool) -> Traits: ...

    @abc.abstractmethod
    def model(self, *, walled: bool) -> mujoco.MjSpec:
        """The body on open ground; where it is `walled`, ready to collide with walls."""

    @abc.abstractmethod
    def strengthen(self, sys: base.System, backend: Backend) -> base.System:
        """The gears of its actuators on this physics."""

    @abc.abstractmethod
    def start(
        self, sys: base.System, places: Places, *, exact: bool, key: PRNGKeyArray
    ) -> Start: ...

    @abc.abstractmethod
    def controls(self, sys: base.System, action: Float[Array, " act"]) -> Float[Array, " ctrl"]: ...

    @abc.abstractmethod
    def observe(
        self, sys: base.System, state: base.State, ctrl: Float[Array, " ctrl"]
    ) -> Float[Array, " state"]: ...

    @abc.abstractmethod
    def healthy(self, state: base.State) -> Bool[Array, ""]: ...

    @abc.abstractmethod
    def rewards(self, moment: Moment, *, walled: bool) -> Mapping[str, Float[Array, ""]]: ...

    @abc.abstractmethod
    def readings(self, moment: Moment) -> Scalars: ...
