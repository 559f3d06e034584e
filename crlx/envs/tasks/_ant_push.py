import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import mujoco
from brax import base
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ._ant import Ant
from ._arenas import Places
from ._models import add_target, load, packaged
from ._spec import Backend, Radii, Timing
from ._task import AbstractTask, Moment, Scalars, Start, Traits

# Centres and half sizes of walls along x and y, in metres. All reach up to 4 m.
_WALLS = (
    ((-4.0, 20.0), (8.0, 8.0)),
    ((8.0, 24.0), (4.0, 4.0)),
    ((20.0, 20.0), (8.0, 8.0)),
    ((-8.0, 4.0), (4.0, 8.0)),
    ((24.0, 8.0), (4.0, 4.0)),
    ((20.0, -4.0), (8.0, 8.0)),
    ((0.0, -8.0), (12.0, 4.0)),
)
_ANT, _BLOCK = 15, slice(15, 18)  # In `q`: the ant is before, the block there, the goal after.
_GOALS = ((16.0, 8.0), (8.0, 16.0))


class AntPush(AbstractTask):
    r"""Brax's ant, eight times as dense, among walls: a block must be pushed aside to get to the
    goal.

    Cells are 8 m wide; `#` is a wall, `M` the block, `R` the start at (0, 0), `G` the two corners
    where goals may be:

        y = 24   # # # # #
        y = 16   # # G # #
        y =  8   # . M G #
        y =  0   # R # # #
        y = -8   # # # # #
           x =  -8 0 8 16 24

    The goal is one of them plus $U(0, 2)$ along x and along y. The ant starts at rest with noise
    from `U(-0.1, 0.1)` on every position and from `0.1 N(0, 1)` on every velocity; the block is
    displaced likewise along x and y, and does not move. (JaxGCRL also lifts it and leaves it a
    random velocity.)

    The state is the ant's positions (15) and velocities (14), then the block's centre along x and
    y (2). Its first two entries are the achieved goal. It ends when the torso's centre is below
    0.2 m or above 1 m. Places of links lag behind positions by one physics step, in MJX.

    ??? cite
        Wang et al. (NeurIPS 2025) and JaxGCRL (Bortkiewicz et al., ICLR 2025), on Brax's model.
    """

    ant: Ant = eqx.field(default_factory=Ant)

    def traits(self) -> Traits:
        return Traits(31, 2, 8, (0, 2), Radii(0.5, easy=2.0), {"mjx": Timing(0.01, 5)})

    def system(self, backend: Backend, *, drawn: bool) -> base.System:
        del backend, drawn
        model = packaged("ant.xml")
        _add_walls(model)
        _add_block(model)
        for geom in model.geoms:
            geom.density = 40
            geom.solimp[:3] = 0.995, 0.995, 0.01
            if geom.name == "torso_geom" or geom.name.endswith("_foot_geom"):
                geom.contype = 1
        add_target(model, height=0.01, radius=0.9, reach=20.0)
        (rest,) = (own for own in model.numerics if own.name == "init_qpos")
        rest.size, rest.data = 20, [0.0, 0.0, 0.75, *list(rest.data)[3:], *[0.0] * 5]
        model.option.solver = mujoco.mjtSolver.mjSOL_NEWTON
        model.option.iterations, model.option.ls_iterations = 4, 8
        model.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_EULERDAMP
        return load(model)

    def start(self, sys: base.System, *, key: PRNGKeyArray) -> Start:
        ckey, okey, akey = jr.split(key, 3)
        goal = jnp.asarray(_GOALS)[jr.randint(ckey, (), 0, 2)] + jr.uniform(okey, (2,), maxval=2.0)
        places = Places(jnp.zeros(2, jnp.float32), goal)
        start = self.ant.start(sys, places, exact=False, key=akey)
        q = start.q.at[_BLOCK.stop - 1].set(0.0)
        return Start(q, start.qd.at[_ANT - 1 :].set(0.0), goal)

    def controls(
        self, sys: base.System, state: base.State, action: Float[Array, " act"]
    ) -> Float[Array, " ctrl"]:
        del sys, state
        return action

    def observe(
        self, sys: base.System, state: base.State, ctrl: Float[Array, " ctrl"]
    ) -> Float[Array, " state"]:
        block = state.x.pos[sys.link_names.index("block"), :2]
        return jnp.concatenate([self.ant.observe(sys, state, ctrl), block])

    def healthy(self, state: base.State) -> Bool[Array, ""]:
        return self.ant.healthy(state)

    def rewards(self, moment: Moment) -> Scalars:
        """As of ants in mazes."""
        return self.ant.rewards(moment, walled=True)

    def readings(self, moment: Moment) -> Scalars:
        return self.ant.readings(moment)


def _add_walls(model: mujoco.MjSpec) -> None:
    for k, (centre, half) in enumerate(_WALLS):
        model.worldbody.add_geom(
            name=f"wall_{k}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[*centre, 2],
            size=[*half, 2],
            contype=0,
            conaffinity=1,
            rgba=[0.55, 0.5, 0.45, 1],
        )


def _add_block(model: mujoco.MjSpec) -> None:
    """On slides along x, y and z, so that it does not turn."""
    body = model.worldbody.add_body(name="block", pos=[8, 8, 2])
    for axis in "xyz":
        body.add_joint(
            name=f"block_{axis}",
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=[float(axis == other) for other in "xyz"],
            limited=False,
            armature=0,
            damping=[0, 0, 0],
        )
    body.add_geom(
        name="block",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[3.6, 3.6, 1.8],
        mass=0.0002,
        contype=1,
        conaffinity=1,
        rgba=[0.3, 0.5, 0.7, 1],
    )
