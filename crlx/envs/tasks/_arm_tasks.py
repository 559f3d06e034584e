from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import mujoco
from brax import base
from jaxtyping import Array, Float, PRNGKeyArray

from ._arm import AbstractJob, Arm, angles_and_flange, cube, cube_places, fingers, rest
from ._arm_model import FINGERS, FINGERTIP, add_box, add_pairs, arm_model
from ._spec import Backend, Radii, Timing
from ._task import Moment, Scalars, Start, Traits

_TIMINGS: dict[Backend, Timing] = {"mjx": Timing(0.002, 25)}
_RADII = Radii(0.1, easy=0.3, hard=0.03)
_GREEN, _BLUE, _GREY = (0.2, 0.7, 0.3, 0.4), (0.2, 0.4, 0.8, 0.4), (0.6, 0.6, 0.62, 1.0)

Triple = tuple[float, float, float]


class Block(eqx.Module):
    """A block of space with its sides along the axes: its centre and half of its sides, in
    metres."""

    centre: Triple = eqx.field(static=True)
    half: Triple = eqx.field(static=True)

    def draw(self, *, key: PRNGKeyArray) -> Float[Array, " xyz"]:
        """A point uniform over the block."""
        spread = jr.uniform(key, (3,), minval=-1.0, maxval=1.0)
        return jnp.array(self.centre) + jnp.array(self.half) * spread


class Bins(eqx.Module):
    """Two open bins, `apart` metres left and right of the table's middle, that touch the cube, the
    hand and the fingers.

    Each has four walls, 1 cm thick and 6.6 cm high, `half` metres from its centre to their middle.
    Fast fingers can pass through.
    """

    apart: float = eqx.field(static=True)
    half: float = eqx.field(static=True)

    def add(self, model: mujoco.MjSpec) -> None:
        """Adds them to a model, and makes contacts slip less, as the paper's bins do."""
        model.option.impratio = 10
        # Of 140 points that may touch, random actions make 18 at most touch at once. Room for the
        # deepest 32 changes nothing unless there are more, and halves the cost.
        model.add_numeric(name="max_contact_points", data=[32], size=1)
        half, thin, height = self.half, 0.005, 0.033
        for side, x in (("left", -self.apart), ("right", self.apart)):
            walls = {
                "near": ((x, 0.6 - half, height), (half + thin, thin, height)),
                "far": ((x, 0.6 + half, height), (half + thin, thin, height)),
                "west": ((x - half, 0.6, height), (thin, half - thin, height)),
                "east": ((x + half, 0.6, height), (thin, half - thin, height)),
            }
            for place, (centre, size) in walls.items():
                name = f"{side}_{place}"
                add_box(model, name, centre, size, _GREY)
                add_pairs(model, [(own, name) for own in ("cube", *FINGERS, "hand")])


class Reach(AbstractJob):
    """To bring the flange to a place in the air.

    The state is the angles of the joints (7), and the position and velocity of the flange (3 and
    3). The arm has no fingers.
    """

    goals: Block = Block((0.0, 0.5, 0.3), (0.2, 0.2, 0.2))

    def traits(self) -> Traits:
        return Traits(13, 3, 4, (7, 10), _RADII, _TIMINGS)

    def model(self, *, drawn: bool) -> mujoco.MjSpec:
        model = arm_model(cube=False, drawn=drawn)
        if drawn:
            add_box(model, "goals", self.goals.centre, self.goals.half, _GREEN)
        return model

    def start(self, sys: base.System, *, key: PRNGKeyArray) -> Start:
        return Start(rest(sys), jnp.zeros(sys.qd_size(), jnp.float32), self.goals.draw(key=key))

    def observe(self, sys: base.System, state: base.State) -> Float[Array, " state"]:
        return angles_and_flange(sys, state)

    def readings(self, moment: Moment) -> Scalars:
        del moment
        return {}


class Move(AbstractJob):
    """To bring a cube from one side of the table to the other: over the table, or out of one bin
    into another.

    The state is the position of the cube (3), the angles of the joints (7), the position and
    velocity of the flange (3 and 3) and the distance between the fingers (1). Its first three
    entries are the achieved goal. The regions of the cube and of its goal may touch, so a cube can
    start at its goal.

    **Arguments:**

    - `cubes`, `goals`: where the cube and its goal may be at a start; the cube falls 4 cm.
    - `bins`: None for a bare table.
    """

    cubes: Block
    goals: Block
    bins: Bins | None = None

    def traits(self) -> Traits:
        return Traits(17, 3, 5, (0, 3), _RADII, _TIMINGS)

    def model(self, *, drawn: bool) -> mujoco.MjSpec:
        model = arm_model(cube=True, drawn=drawn)
        if self.bins is not None:
            self.bins.add(model)
        if drawn:
            _add_region(model, "cubes", self.cubes, _BLUE)
            _add_region(model, "goals", self.goals, _GREEN)
        return model

    def start(self, sys: base.System, *, key: PRNGKeyArray) -> Start:
        ckey, gkey = jr.split(key)
        q = rest(sys).at[cube_places(sys)].set(self.cubes.draw(key=ckey))
        return Start(q, jnp.zeros(sys.qd_size(), jnp.float32), self.goals.draw(key=gkey))

    def observe(self, sys: base.System, state: base.State) -> Float[Array, " state"]:
        left, right = fingers(sys, state, (0.0, 0.0, 0.0))
        opening = jnp.linalg.norm(left - right, keepdims=True)
        return jnp.concatenate([cube(sys, state), angles_and_flange(sys, state), opening])

    def readings(self, moment: Moment) -> Scalars:
        del moment
        return {}


class Grasp(AbstractJob):
    r"""To take hold of a cube where it lies.

    The state is the position of the cube (3), the angles of the joints (7), the position and
    velocity of the flange (3 and 3), the positions of both fingertips (3 and 3) and their distance
    (1). The goal, which moves with the cube, is tips 3.75 cm to both sides of it along x, 7.5 cm
    apart; what of the state is alike is the achieved goal.

    The distance is from the middle between the tips to the middle of the goal. A step succeeds
    where also the tips are about as far apart as in the goal, to 2 cm, or easily to 5 cm and
    hardly to 0.5 cm.

    **Arguments:**

    - `cubes`: where the cube may be at a start; it falls 4 cm.
    """

    cubes: Block = Block((0.0, 0.6, 0.07), (0.3, 0.3, 0.0))

    def traits(self) -> Traits:
        radii = Radii(0.05, easy=0.15, hard=0.02)
        moving = {"distance": _between_middles, "follow": _around_the_cube}
        return Traits(23, 7, 5, (16, 23), radii, _TIMINGS, **moving)

    def model(self, *, drawn: bool) -> mujoco.MjSpec:
        model = arm_model(cube=True, tips=True, drawn=drawn)
        if drawn:
            _add_region(model, "cubes", self.cubes, _BLUE)
        return model

    def start(self, sys: base.System, *, key: PRNGKeyArray) -> Start:
        place = self.cubes.draw(key=key)
        q = rest(sys).at[cube_places(sys)].set(place)
        return Start(q, jnp.zeros(sys.qd_size(), jnp.float32), _around(place))

    def observe(self, sys: base.System, state: base.State) -> Float[Array, " state"]:
        tips = fingers(sys, state, FINGERTIP)
        apart = jnp.linalg.norm(tips[0] - tips[1], keepdims=True)
        own = [cube(sys, state), angles_and_flange(sys, state)]
        return jnp.concatenate([*own, tips.ravel(), apart])

    def successes(
        self,
        state: Float[Array, " state"],
        goal: Float[Array, " goal"],
        distance: Float[Array, ""],
    ) -> Scalars:
        """Whether a state is at a goal, by three measures."""
        error = jnp.abs(state[22] - goal[6])
        bounds = {
            "success": (0.05, 0.02),
            "success_easy": (0.15, 0.05),
            "success_hard": (0.02, 0.005),
        }
        return {
            name: ((distance < near) & (error < slack)).astype(jnp.float32)
            for name, (near, slack) in bounds.items()
        }

    def readings(self, moment: Moment) -> Scalars:
        """Successes, in place of those by the distance alone."""
        return self.successes(moment.state, moment.goal, moment.distance)


def _push(x: float, y: float) -> Arm:
    return Arm(Move(Block((-x, y, 0.07), (x, x, 0.0)), Block((x, y, 0.03), (x, x, 0.0))))


def _binpick(start: float, goal: float, spread: float, bins: Bins) -> Arm:
    cubes = Block((-start, 0.6, 0.07), (spread, spread, 0.0))
    return Arm(Move(cubes, Block((goal, 0.6, 0.03), (spread, spread, 0.0)), bins))


ARMS: dict[str, Callable[[], Arm]] = {
    "arm_reach": lambda: Arm(Reach()),
    "arm_grasp": lambda: Arm(Grasp()),
    "arm_push_easy": lambda: _push(0.1, 0.6),
    "arm_push_hard": lambda: _push(0.25, 0.65),
    "arm_binpick_easy": lambda: _binpick(0.15, 0.17, 0.09, Bins(0.17, 0.14)),
    "arm_binpick_hard": lambda: _binpick(0.3, 0.3, 0.15, Bins(0.3, 0.19)),
}


def _add_region(model: mujoco.MjSpec, name: str, block: Block, rgba: tuple[float, ...]) -> None:
    """Marks a region on the table, to look at."""
    (x, y, _), (width, length, _) = block.centre, block.half
    add_box(model, name, (x, y, 0.0), (width, length, 0.001), rgba)


def _around(place: Float[Array, " xyz"]) -> Float[Array, " 7"]:
    """Tips to both sides of a place, and how far they are apart."""
    aside = jnp.array([0.0375, 0.0, 0.0])
    return jnp.concatenate([place + aside, place - aside, jnp.array([0.075])])


def _around_the_cube(
    sys: base.System, state: base.State, goal: Float[Array, " 7"]
) -> Float[Array, " 7"]:
    del goal
    return _around(cube(sys, state))


def _between_middles(achieved: Float[Array, " 7"], goal: Float[Array, " 7"]) -> Float[Array, ""]:
    return jnp.linalg.norm(_middle(achieved) - _middle(goal))


def _middle(grip: Float[Array, " 7"]) -> Float[Array, " xyz"]:
    return (grip[:3] + grip[3:6]) / 2
