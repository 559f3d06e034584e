import abc

import equinox as eqx
import jax.numpy as jnp
import mujoco
import numpy as np
from brax import base
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ._arm_model import FINGERS, FLANGE, JOINTS
from ._models import load
from ._spec import Backend
from ._task import AbstractTask, Moment, Scalars, Start, Traits

# In radians. Joints 3, 5 and 7 are commanded one angle always; joints 4, 6 and 7 leave the pose
# at once, since they do not come to rest where they are commanded.
_POSE = (1.571, 0.742, 0.0, -1.571, 0.0, 3.054, 1.449)
_COMMANDS = (
    (0.3491, 2.7925),
    (0.0, 1.48353),
    (0.0, 0.0),
    (-3.0718, -0.0698),
    (0.0, 0.0),
    (2.3562, 3.7525),
    (1.4487, 1.4487),
)
_MOVED = (0, 1, 3, 5)  # The joints that actions move.
_AJAR, _OPEN = 0.04, 255.0  # Fingers at a start, in metres; the command to open.


class AbstractJob(eqx.Module):
    """What an arm is to do, and with what."""

    @abc.abstractmethod
    def traits(self) -> Traits: ...

    @abc.abstractmethod
    def model(self, *, drawn: bool) -> mujoco.MjSpec:
        """The arm and its surroundings; where they are `drawn`, with what only is looked at."""

    @abc.abstractmethod
    def start(self, sys: base.System, *, key: PRNGKeyArray) -> Start: ...

    @abc.abstractmethod
    def observe(self, sys: base.System, state: base.State) -> Float[Array, " state"]: ...

    @abc.abstractmethod
    def readings(self, moment: Moment) -> Scalars: ...


class Arm(AbstractTask):
    """A robot arm of seven joints at a table, that always starts in the same pose.

    Actions are targets of joints 1, 2, 4 and 6, from one end of a range to the other, held during
    the step; with fingers, the fifth closes them if it is positive and opens them otherwise. The
    reward is success, be it dense or sparse, and episodes never end early.

    Positions and velocities of links are from the beginning of the last physics step, joint angles
    and the cube's place from its end, as in the paper's environments.

    ??? cite
        Wang et al. (NeurIPS 2025) and JaxGCRL (Bortkiewicz et al., ICLR 2025), on MuJoCo
        Menagerie's model of the Franka Emika Panda.
    """

    job: AbstractJob

    def traits(self) -> Traits:
        return self.job.traits()

    def system(self, backend: Backend, *, drawn: bool) -> base.System:
        """Where it is drawn, also links and regions of things and goals; no mark where the goal
        is, which would be one more link."""
        del backend
        return load(self.job.model(drawn=drawn))

    def start(self, sys: base.System, *, key: PRNGKeyArray) -> Start:
        return self.job.start(sys, key=key)

    def controls(
        self, sys: base.System, state: base.State, action: Float[Array, " act"]
    ) -> Float[Array, " ctrl"]:
        del sys, state
        low, high = np.array(_COMMANDS, np.float32).T
        moved = jnp.zeros(len(JOINTS), jnp.float32).at[np.array(_MOVED)].set(action[:4])
        targets = (low + high) / 2 + (high - low) / 2 * moved
        gripped = jnp.where(action[4:] > 0, 0.0, _OPEN)
        return jnp.concatenate([targets, jnp.tile(gripped, len(FINGERS))])

    def observe(
        self, sys: base.System, state: base.State, ctrl: Float[Array, " ctrl"]
    ) -> Float[Array, " state"]:
        del ctrl
        return self.job.observe(sys, state)

    def healthy(self, state: base.State) -> Bool[Array, ""]:
        del state
        return jnp.ones((), bool)

    def rewards(self, moment: Moment) -> Scalars:
        del moment
        return {}

    def readings(self, moment: Moment) -> Scalars:
        return self.job.readings(moment)


def rest(sys: base.System) -> Float[Array, " q"]:
    """Positions in which episodes start: the pose, fingers half open, and the cube where the model
    has it, 4 cm above the table."""
    q = jnp.asarray(sys.init_q, jnp.float32)
    q = q.at[_places(sys, JOINTS)].set(jnp.asarray(_POSE, jnp.float32))
    fingers = FINGERS if FINGERS[0] in sys.link_names else ()
    return q.at[_places(sys, fingers)].set(_AJAR)


def cube(sys: base.System, state: base.State) -> Float[Array, " xyz"]:
    """Where the cube is."""
    return state.q[cube_places(sys)]


def cube_places(sys: base.System) -> np.ndarray:
    """Which positions are the cube's x, y and z."""
    return _places(sys, ("cube",)) + np.arange(3)


def angles_and_flange(sys: base.System, state: base.State) -> Float[Array, " 13"]:
    """Seven joint angles, and position and velocity of the flange, the origin of the last link."""
    flange = sys.link_names.index(FLANGE)
    angles = state.q[_places(sys, JOINTS)]
    return jnp.concatenate([angles, state.x.pos[flange], state.xd.vel[flange]])


def fingers(
    sys: base.System, state: base.State, point: tuple[float, float, float]
) -> Float[Array, "2 xyz"]:
    """Where a point of each finger is, given from the finger's origin."""
    links = np.array([sys.link_names.index(name) for name in FINGERS])
    local = base.Transform.create(jnp.array(point, jnp.float32))
    return state.x.take(links).vmap(in_axes=(0, None)).do(local).pos


def _places(sys: base.System, joints: tuple[str, ...]) -> np.ndarray:
    return np.array([sys.mj_model.joint(name).qposadr[0] for name in joints], int)
