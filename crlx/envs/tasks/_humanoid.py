import jax
import jax.numpy as jnp
import mujoco
from brax import actuator, base
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ._ant import torso_readings
from ._arenas import Places
from ._body import AbstractBody
from ._models import add_target, packaged
from ._physics import loose_types
from ._spec import Backend, Radii, Timing
from ._task import Moment, Scalars, Start, Traits

_HEIGHT = 1.25  # Of goals, in metres.


class Humanoid(AbstractBody):
    r"""Brax's humanoid, whose goals are in space: it must stand there, 1.25 m high.

    The state, of 268 numbers, is all positions (26) and velocities (25), those of the target
    included; of each of twelve links the inertia about the common centre of mass and the mass
    (10), then the velocity, weighted by the share of the mass, and the angular velocity (6); and
    the torques (25). Its first three entries are the achieved goal. It ends when the torso's centre
    is below 1 m or above 2 m.

    On its own ground the paper's humanoid has physics steps of 3 ms; JaxGCRL's and those in mazes
    have 1.5 ms.

    ??? cite
        Wang et al. (NeurIPS 2025) and JaxGCRL (Bortkiewicz et al., ICLR 2025), on Brax's model.
    """

    @property
    def scale(self) -> float:
        return 2.0

    def traits(self, *, walled: bool) -> Traits:
        timing = Timing(0.0015 if walled else 0.003, 10)
        return Traits(268, 3, 17, (0, 3), Radii(0.5, easy=2.0), {"spring": timing})

    def model(self, *, walled: bool) -> mujoco.MjSpec:
        model = packaged("humanoid.xml")
        for geom in model.geoms:
            if geom.name != "floor":
                geom.contype = 1
        add_target(model, height=_HEIGHT, radius=0.5, reach=100.0 if walled else 20.0)
        return model

    def strengthen(self, sys: base.System, backend: Backend) -> base.System:
        """Gears of 350 for the trunk and the legs, of 100 for the arms."""
        del backend
        gears = jnp.asarray([350.0] * 11 + [100.0] * 6, jnp.float32)
        return sys.replace(actuator=sys.actuator.replace(gear=gears))

    def start(self, sys: base.System, places: Places, *, exact: bool, key: PRNGKeyArray) -> Start:
        """Upright and at rest."""
        del exact, key
        q = sys.init_q.at[:2].set(places.start).at[-2:].set(places.goal)
        goal = jnp.concatenate([places.goal, jnp.full(1, _HEIGHT, jnp.float32)])
        return Start(q, jnp.zeros(sys.qd_size(), jnp.float32), goal)

    def controls(self, sys: base.System, action: Float[Array, " act"]) -> Float[Array, " ctrl"]:
        del sys
        return 0.4 * action

    def observe(
        self, sys: base.System, state: base.State, ctrl: Float[Array, " ctrl"]
    ) -> Float[Array, " state"]:
        masses = sys.link.inertia.mass
        total = jnp.sum(masses)
        centres, velocities = _links(sys, state)
        offsets = centres - jnp.sum(masses[:, None] * centres, axis=0, keepdims=True) / total
        # The spring physics takes the inertia of each link for one.
        inertias = jnp.eye(3)[None] + masses[:, None, None] * jax.vmap(_steiner)(offsets)
        bodies = jnp.concatenate([inertias.reshape(-1, 9), masses[:, None]], axis=1)
        moving = jnp.concatenate([masses[:, None] * velocities / total, state.xd.ang], axis=1)
        with loose_types():
            torques = actuator.to_tau(sys, ctrl, state.q, state.qd)
        return jnp.concatenate([state.q, state.qd, bodies.ravel(), moving.ravel(), torques])

    def healthy(self, state: base.State) -> Bool[Array, ""]:
        height = state.x.pos[0, 2]
        return (height >= 1.0) & (height <= 2.0)

    def rewards(self, moment: Moment, *, walled: bool) -> Scalars:
        """Five for each step, less a tenth of the squared norm of the controls and less the
        distance."""
        del walled
        return {
            "reward_alive": jnp.full((), 5.0, jnp.float32),
            "reward_quadctrl": -0.1 * jnp.sum(moment.ctrl**2),
            "reward_dist": -moment.distance,
        }

    def readings(self, moment: Moment) -> Scalars:
        return torso_readings(moment)


def _links(
    sys: base.System, state: base.State
) -> tuple[Float[Array, "links xyz"], Float[Array, "links xyz"]]:
    """Centres of mass and their velocities."""
    with loose_types():
        centre = state.x.vmap().do(sys.link.inertia.transform).pos
    return centre, state.xd.vel + jnp.cross(state.xd.ang, centre - state.x.pos)


def _steiner(r: Float[Array, " xyz"]) -> Float[Array, "xyz xyz"]:
    r"""$[r]_\times [r]_\times^\top$: inertia of a unit mass at $r$ about the origin."""
    return jnp.dot(r, r) * jnp.eye(3) - jnp.outer(r, r)
