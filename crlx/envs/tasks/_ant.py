import jax.numpy as jnp
import jax.random as jr
import mujoco
from brax import base
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ._arenas import Places
from ._body import AbstractBody
from ._models import add_target, packaged
from ._spec import Backend, Radii, Timing
from ._task import Moment, Scalars, Start, Traits

_FEET = tuple(f"{leg}_foot_geom" for leg in ("left", "right", "third", "fourth"))
_SOLIDS = ("torso_geom", *(f"aux_{leg}_geom" for leg in (1, 2, 3, 4)), *_FEET)


class Ant(AbstractBody):
    """Brax's ant.

    The state is the position of the torso (3), its orientation as a quaternion (4), eight joint
    angles, and the velocities of all of them (14). Its first two entries are the achieved goal. It
    ends when the torso's centre is below 0.2 m or above 1 m.

    In mazes the torso, the inner legs and the feet collide with walls, and the feet with each
    other and with those; outer legs pass through walls. So it is in the paper's environments.

    ??? cite
        Wang et al. (NeurIPS 2025) and JaxGCRL (Bortkiewicz et al., ICLR 2025), on Brax's model.
    """

    noise: float = 0.1

    @property
    def scale(self) -> float:
        return 4.0

    def traits(self, *, walled: bool) -> Traits:
        fine, coarse = Timing(0.005, 10), Timing(0.01, 5)
        timings: dict[Backend, Timing] = {"spring": fine}
        if not walled:
            timings |= {"mjx": coarse, "generalized": coarse}
        return Traits(29, 2, 8, (0, 2), Radii(0.5, easy=2.0), timings)

    def model(self, *, walled: bool) -> mujoco.MjSpec:
        model = packaged("ant.xml")
        add_target(model, height=0.01, radius=0.9, reach=100.0 if walled else 20.0)
        (rest,) = (own for own in model.numerics if own.name == "init_qpos")
        rest.size, rest.data = 17, [*rest.data, 0.0, 0.0]
        if walled:
            for name in _SOLIDS:
                model.geom(name).conaffinity = 1
        return model

    def strengthen(self, sys: base.System, backend: Backend) -> base.System:
        del backend
        return sys

    def start(self, sys: base.System, places: Places, *, exact: bool, key: PRNGKeyArray) -> Start:
        """Rest, with noise from `U(-0.1, 0.1)` on every position, also those on the ground unless
        `exact`, and from `0.1 N(0, 1)` on every velocity."""
        qkey, vkey = jr.split(key)
        q = sys.init_q.at[:2].add(places.start)
        q += jr.uniform(qkey, q.shape, minval=-self.noise, maxval=self.noise)
        q = q.at[:2].set(places.start) if exact else q
        qd = self.noise * jr.normal(vkey, (sys.qd_size(),))
        return Start(q.at[-2:].set(places.goal), qd.at[-2:].set(0.0), places.goal)

    def controls(self, sys: base.System, action: Float[Array, " act"]) -> Float[Array, " ctrl"]:
        del sys
        return action

    def observe(
        self, sys: base.System, state: base.State, ctrl: Float[Array, " ctrl"]
    ) -> Float[Array, " state"]:
        del sys, ctrl
        return jnp.concatenate([state.q[:15], state.qd[:14]])

    def healthy(self, state: base.State) -> Bool[Array, ""]:
        height = state.x.pos[0, 2]
        return (height >= 0.2) & (height <= 1.0)

    def rewards(self, moment: Moment, *, walled: bool) -> Scalars:
        """One for each step, less half the squared norm of the action, and: on open ground the
        velocity along x, in a maze minus the distance to the goal."""
        ctrl = -0.5 * jnp.sum(moment.action**2)
        survive = jnp.ones((), jnp.float32)
        own = {"reward_survive": survive, "reward_ctrl": ctrl}
        if walled:
            return {**own, "reward_dist": -moment.distance}
        return {**own, "reward_forward": _velocity(moment)[0]}

    def readings(self, moment: Moment) -> Scalars:
        return torso_readings(moment)


def torso_readings(moment: Moment) -> Scalars:
    """Position and mean velocity of the first link along x and y, and its distance from the
    origin in space."""
    position, velocity = moment.after.x.pos[0], _velocity(moment)
    return {
        "x_position": position[0],
        "y_position": position[1],
        "distance_from_origin": jnp.linalg.norm(position),
        "x_velocity": velocity[0],
        "y_velocity": velocity[1],
    }


def _velocity(moment: Moment) -> Float[Array, " xyz"]:
    return (moment.after.x.pos[0] - moment.before.x.pos[0]) / moment.dt
