import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from brax import base
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ._models import load, packaged
from ._physics import loose_types
from ._spec import Backend, Radii, Timing
from ._task import AbstractTask, Moment, Scalars, Start, Traits

Box = tuple[tuple[float, float], tuple[float, float]]

EASY_GOALS: Box = ((-0.55, -0.25), (-0.2, 0.2))
HARD_GOALS: Box = ((-0.65, 0.35), (-0.55, 0.45))
_OBJECTS: Box = ((-0.3, 0.0), (-0.2, 0.2))
_APART = 0.17  # The least distance between object and goal at a start, in metres.


class Pusher(AbstractTask):
    """Brax's arm of seven joints, which is to push an object across a table to a goal.

    The state is the joint angles (7), the places of the wrist (3) and of the object (3), and the
    joint velocities (7). The achieved goal is the object's place; a commanded goal lies on the
    table, 4.8 cm lower, so distances are measured along the table. (In JaxGCRL they are in space,
    and from the state before the step.) It never ends early.

    Object and goal are uniform in boxes; where they are less than 0.17 m apart, the object is moved
    straight away from the goal until they are 0.17 m apart. (JaxGCRL stretches the offset of the
    object instead, which may bring it closer.) The arm starts stretched out, with velocities from
    `U(-0.005, 0.005)`.

    **Arguments:**

    - `goals`: where goals may be, the least and the most along y and along x, in metres from
      (-0.05, 0.45). Objects are in [-0.3, 0] × [-0.2, 0.2].

    ??? cite
        JaxGCRL (Bortkiewicz et al., ICLR 2025), on Brax's model.
    """

    goals: Box = eqx.field(default=EASY_GOALS, static=True)

    def __check_init__(self):
        if any(low > high for low, high in self.goals):
            raise ValueError(f"A box has the least before the most along each axis: {self.goals}.")

    def traits(self) -> Traits:
        timings: dict[Backend, Timing] = {
            "generalized": Timing(0.01, 5),
            "spring": Timing(0.001, 50),
        }
        return Traits(20, 3, 7, (10, 13), Radii(0.1, hard=0.05), timings, distance=_along_the_table)

    def system(self, backend: Backend, *, drawn: bool) -> base.System:
        """With gears of 20 in place of 1 on springs."""
        del drawn
        sys = load(packaged("pusher.xml"))
        if backend != "spring":
            return sys
        return sys.replace(actuator=sys.actuator.replace(gear=jnp.full(7, 20.0, jnp.float32)))

    def start(self, sys: base.System, *, key: PRNGKeyArray) -> Start:
        okey, gkey, vkey = jr.split(key, 3)
        goal = _within(self.goals, gkey)
        item = _apart(_within(_OBJECTS, okey), goal)
        q = sys.init_q.at[-4:].set(jnp.concatenate([item, goal]))
        qd = jr.uniform(vkey, (sys.qd_size(),), minval=-0.005, maxval=0.005)
        place = sys.link.transform.pos[sys.link_names.index("goal")]
        offset = jnp.stack([goal[1], goal[0], jnp.zeros((), jnp.float32)])
        return Start(q, qd.at[-4:].set(0.0), place + offset)

    def controls(
        self, sys: base.System, state: base.State, action: Float[Array, " act"]
    ) -> Float[Array, " ctrl"]:
        del sys, state
        return 2.0 * action

    def observe(
        self, sys: base.System, state: base.State, ctrl: Float[Array, " ctrl"]
    ) -> Float[Array, " state"]:
        del ctrl
        # Brax fuses the fingertips with links further up the arm.
        wrist, item = (_centre(sys, state, link) for link in ("r_wrist_flex_link", "object"))
        return jnp.concatenate([state.q[:7], wrist, item, state.qd[:7]])

    def healthy(self, state: base.State) -> Bool[Array, ""]:
        del state
        return jnp.ones((), bool)

    def rewards(self, moment: Moment) -> Scalars:
        """Minus the distance, minus a tenth of the squared norm of the controls, which are twice
        the action, and minus half the distance in space from the wrist to the object."""
        wrist, item = moment.state[7:10], moment.state[10:13]
        return {
            "reward_dist": -moment.distance,
            "reward_ctrl": -0.1 * jnp.sum(moment.ctrl**2),
            "reward_near": -0.5 * jnp.linalg.norm(item - wrist),
        }

    def readings(self, moment: Moment) -> Scalars:
        del moment
        return {}


def _along_the_table(
    achieved: Float[Array, " xyz"], goal: Float[Array, " xyz"]
) -> Float[Array, ""]:
    return jnp.linalg.norm(achieved[:2] - goal[:2])


def _within(box: Box, key: PRNGKeyArray) -> Float[Array, " yx"]:
    low, high = jnp.asarray(box, jnp.float32).T
    return jr.uniform(key, (2,), minval=low, maxval=high)


def _apart(item: Float[Array, " yx"], goal: Float[Array, " yx"]) -> Float[Array, " yx"]:
    """Moves the item straight away from the goal to where it is no closer than 0.17 m."""
    away = item - goal
    distance = jnp.maximum(jnp.linalg.norm(away), 1e-6)  # Where they coincide, it does not move.
    return goal + away * jnp.maximum(1.0, _APART / distance)


def _centre(sys: base.System, state: base.State, link: str) -> Float[Array, " xyz"]:
    """Where the centre of mass of a link is."""
    index = sys.link_names.index(link)
    offset = sys.link.inertia.transform.pos[index]
    with loose_types():
        return state.x.take(index).do(base.Transform.create(pos=offset)).pos
