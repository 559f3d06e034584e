import jax.numpy as jnp
import jax.random as jr
from brax import base
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ._models import load, packaged
from ._physics import loose_types
from ._spec import Backend, Radii, Timing
from ._task import AbstractTask, Moment, Scalars, Start, Traits

_HEIGHT = 0.01  # Of the arm and of goals, in metres.


class Reacher(AbstractTask):
    r"""Brax's arm of two links in a plane, whose tip is to go to a point.

    The state is the cosines (2) and sines (2) of the joint angles, the tip's position (3) and its
    velocity (3), which takes the tip to lie 11 cm along the world's x axis from the elbow, as in
    Brax: the true velocity only while the outer link points that way. The achieved goal is the
    tip's position. It never ends early.

    The joints start at noise from `U(-0.1, 0.1)`, with velocities from `U(-0.005, 0.005)`. The goal
    is $r (\cos\phi, \sin\phi)$ with $r \sim U(0, 0.2)$ and $\phi \sim U[0, 2\pi)$, so not uniform
    in area.

    ??? cite
        Wang et al. (NeurIPS 2025) and JaxGCRL (Bortkiewicz et al., ICLR 2025), on Brax's model.
        The physics is JaxGCRL's.
    """

    def traits(self) -> Traits:
        timings: dict[Backend, Timing] = {
            "generalized": Timing(0.01, 2),
            "spring": Timing(0.005, 4),
        }
        return Traits(10, 3, 2, (4, 7), Radii(0.05), timings)

    def system(self, backend: Backend, *, drawn: bool) -> base.System:
        """With gears of 25 in place of 200 on springs."""
        del drawn
        model = packaged("reacher.xml")
        model.geom("target").rgba = [0.8, 0.2, 0.2, 0.5]  # It is painted like the arm there.
        sys = load(model)
        if backend != "spring":
            return sys
        return sys.replace(actuator=sys.actuator.replace(gear=jnp.full(2, 25.0, jnp.float32)))

    def start(self, sys: base.System, *, key: PRNGKeyArray) -> Start:
        qkey, vkey, rkey, akey = jr.split(key, 4)
        angle = jr.uniform(akey, maxval=2 * jnp.pi)
        goal = jr.uniform(rkey, maxval=0.2) * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        q = sys.init_q[:2] + jr.uniform(qkey, (2,), minval=-0.1, maxval=0.1)
        qd = jr.uniform(vkey, (2,), minval=-0.005, maxval=0.005)
        return Start(
            jnp.concatenate([q, goal]),
            jnp.concatenate([qd, jnp.zeros(2, jnp.float32)]),
            jnp.concatenate([goal, jnp.full(1, _HEIGHT, jnp.float32)]),
        )

    def controls(
        self, sys: base.System, state: base.State, action: Float[Array, " act"]
    ) -> Float[Array, " ctrl"]:
        del sys, state
        return action

    def observe(
        self, sys: base.System, state: base.State, ctrl: Float[Array, " ctrl"]
    ) -> Float[Array, " state"]:
        del sys, ctrl
        with loose_types():
            offset = base.Transform.create(pos=jnp.asarray([0.11, 0.0, 0.0], jnp.float32))
            tip = state.x.take(1).do(offset)
            speed = offset.do(state.xd.take(1))
        angles = state.q[:2]
        return jnp.concatenate([jnp.cos(angles), jnp.sin(angles), tip.pos, speed.vel])

    def healthy(self, state: base.State) -> Bool[Array, ""]:
        del state
        return jnp.ones((), bool)

    def rewards(self, moment: Moment) -> Scalars:
        """Minus the distance."""
        return {"reward_dist": -moment.distance}

    def readings(self, moment: Moment) -> Scalars:
        del moment
        return {}
