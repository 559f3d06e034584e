import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import mujoco
from brax import base
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..walls import Walls
from ._ant import Ant
from ._arenas import Cells, Ring
from ._layout import Layout
from ._models import add_target, add_walls, load, packaged
from ._spec import Backend, Radii, Timing
from ._task import AbstractTask, Moment, Scalars, Start, Traits

BALL_LAYOUTS = {
    "u_maze": """
        #####
        #RGB#
        ###G#
        #GGG#
        #####
    """,
    "big_maze": """
        ########
        #R.##GG#
        #..#GGG#
        ##BGB###
        #GG#GGG#
        #G#GG#G#
        #GGG#GG#
        ########
    """,
}
_BALL = slice(15, 17)  # In `q`: the ant is before, the goal after.


class AntBall(AbstractTask):
    r"""Brax's ant and a ball, of 1 kg and half a metre in radius, that it must push to the goal.

    The ball slides, it does not roll. The ant's torso and feet collide with it, and with walls.

    On open ground the goal is $g = 5 (\cos\phi, \sin\phi)$ and the ball is at $0.2 g + (\cos\theta,
    \sin\theta)$, with $\phi, \theta \sim U[0, 2\pi)$, which may be where the ant stands. (The
    references have $\sin\phi$ there.) In a maze, the start is uniform over its cells `R`, the ball
    over its cells `B` and the goal over its cells `G`, all drawn independently. (JaxGCRL draws ball
    and goal with one key.) On open ground the ant starts near the origin, in mazes on the spot.

    The state is the ant's (29), then the ball's place along x and y (2), which is the achieved
    goal. It ends when the torso's centre is below 0.2 m or above 1 m.

    **Arguments:**

    - `drawing`: a maze with cells of 4 m, such as one of `BALL_LAYOUTS`; None for open ground.

    ??? cite
        Wang et al. (NeurIPS 2025) and JaxGCRL (Bortkiewicz et al., ICLR 2025), on Brax's model.
    """

    drawing: str | None = eqx.field(default=None, static=True)
    ant: Ant = eqx.field(default_factory=Ant)

    def __check_init__(self):
        if self.drawing is not None and not Layout(self.drawing).cells("B"):
            raise ValueError("The maze has no ball: mark a cell with 'B'.")

    def traits(self) -> Traits:
        walls = None
        if self.drawing is not None:
            walls = Walls(Layout(self.drawing).walls, self.ant.scale)
        timings: dict[Backend, Timing] = {"spring": Timing(0.005, 10)}
        return Traits(31, 2, 8, (29, 31), Radii(0.5, easy=2.0), timings, walls)

    def system(self, backend: Backend, *, drawn: bool) -> base.System:
        del backend
        model, open_ground = packaged("ant.xml"), self.drawing is None
        for geom in model.geoms:
            if geom.name == "torso_geom" or geom.name.endswith("_foot_geom"):
                geom.conaffinity = 1
        _add_ball(model, (-10.32, 10.3) if open_ground else (-100.0, 100.0))
        add_target(model, height=0.01, radius=0.9, reach=20.0 if open_ground else 100.0)
        (rest,) = (own for own in model.numerics if own.name == "init_qpos")
        rest.size, rest.data = 19, [*rest.data, 0.0, 0.0, 0.0, 0.0]
        if self.drawing is not None and drawn:
            add_walls(model, Layout(self.drawing), self.ant.scale)
        return load(model)

    def start(self, sys: base.System, *, key: PRNGKeyArray) -> Start:
        pkey, bkey, akey = jr.split(key, 3)
        if self.drawing is None:
            places = Ring(5.0, 5.0).draw(self.ant.scale, key=pkey)
            ball = 0.2 * places.goal + Ring(1.0, 1.0).draw(self.ant.scale, key=bkey).goal
        else:
            places = Cells(self.drawing).draw(self.ant.scale, key=pkey)
            balls = jnp.asarray(Layout(self.drawing).centres("B", self.ant.scale))
            ball = balls[jr.randint(bkey, (), 0, len(balls))]
        start = self.ant.start(sys, places, exact=self.drawing is not None, key=akey)
        q, qd = start.q.at[_BALL].set(ball), start.qd.at[_BALL.start - 1 :].set(0.0)
        return Start(q, qd, places.goal)

    def controls(
        self, sys: base.System, state: base.State, action: Float[Array, " act"]
    ) -> Float[Array, " ctrl"]:
        del state
        return self.ant.controls(sys, action)

    def observe(
        self, sys: base.System, state: base.State, ctrl: Float[Array, " ctrl"]
    ) -> Float[Array, " state"]:
        return jnp.concatenate([self.ant.observe(sys, state, ctrl), state.q[_BALL]])

    def healthy(self, state: base.State) -> Bool[Array, ""]:
        return self.ant.healthy(state)

    def rewards(self, moment: Moment) -> Scalars:
        """As of ants in mazes; the distance is the ball's."""
        return self.ant.rewards(moment, walled=True)

    def readings(self, moment: Moment) -> Scalars:
        return self.ant.readings(moment)


def _add_ball(model: mujoco.MjSpec, reach: tuple[float, float]) -> None:
    body = model.worldbody.add_body(name="object", pos=[0, 0, 0.5])
    for axis in "xy":
        body.add_joint(
            name=f"object_{axis}",
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=[float(axis == other) for other in "xyz"],
            range=list(reach),
            limited=True,
            armature=0,
            damping=[0, 0, 0],
        )
    body.add_geom(
        name="object",
        type=mujoco.mjtGeom.mjGEOM_SPHERE,
        size=[0.5, 0, 0],
        contype=1,
        conaffinity=0,
        rgba=[0.3, 0.5, 0.7, 1],
    )
