import jax.numpy as jnp
import jax.random as jr
import mujoco
from brax import base
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ._models import add_target, load, packaged
from ._spec import Backend, Radii, Timing
from ._task import AbstractTask, Moment, Scalars, Start, Traits


class Cheetah(AbstractTask):
    """Brax's half cheetah, which is to run forwards to a place and stay there.

    The state is its positions (9) and velocities (9); the first entry, its place along x, is the
    achieved goal. It starts at rest with noise from `U(-0.1, 0.1)` on every position and from
    `0.1 N(0, 1)` on every velocity. It never ends early.

    It weighs 13.37 kg: in JaxGCRL, the model's 14 kg include the target.

    **Arguments:**

    - `place`: the goal, the same in all episodes, in metres along x.

    ??? cite
        JaxGCRL (Bortkiewicz et al., ICLR 2025), on Brax's model.
    """

    place: float = 5.0
    noise: float = 0.1

    def traits(self) -> Traits:
        return Traits(18, 1, 6, (0, 1), Radii(0.5, easy=2.0), {"mjx": Timing(0.01, 5)})

    def system(self, backend: Backend, *, drawn: bool) -> base.System:
        del backend, drawn
        model = packaged("half_cheetah.xml")
        _weigh(model)
        add_target(model, height=0.01, radius=0.9, reach=20.0, axes="x")
        # Brax wants a value for each link, though only its own physics read it.
        (damping,) = (own for own in model.numerics if own.name == "constraint_ang_damping")
        damping.size, damping.data = 8, [*damping.data, 1.0]
        return load(model)

    def start(self, sys: base.System, *, key: PRNGKeyArray) -> Start:
        qkey, vkey = jr.split(key)
        q = sys.init_q + jr.uniform(qkey, sys.init_q.shape, minval=-self.noise, maxval=self.noise)
        qd = self.noise * jr.normal(vkey, (sys.qd_size(),))
        goal = jnp.full(1, self.place, jnp.float32)
        return Start(q.at[-1:].set(goal), qd.at[-1].set(0.0), goal)

    def controls(
        self, sys: base.System, state: base.State, action: Float[Array, " act"]
    ) -> Float[Array, " ctrl"]:
        del sys, state
        return action

    def observe(
        self, sys: base.System, state: base.State, ctrl: Float[Array, " ctrl"]
    ) -> Float[Array, " state"]:
        del sys, ctrl
        return jnp.concatenate([state.q[:9], state.qd[:9]])

    def healthy(self, state: base.State) -> Bool[Array, ""]:
        del state
        return jnp.ones((), bool)

    def rewards(self, moment: Moment) -> Scalars:
        """Minus a tenth of the squared norm of the action and minus the distance. (JaxGCRL adds the
        first, by mistake.)"""
        return {
            "reward_ctrl": -0.1 * jnp.sum(moment.action**2),
            "reward_dist": -moment.distance,
        }

    def readings(self, moment: Moment) -> Scalars:
        """Place and mean velocity along x."""
        before, after = moment.before.q[0], moment.after.q[0]
        return {"x_position": after, "x_velocity": (after - before) / moment.dt}


def _weigh(model: mujoco.MjSpec) -> None:
    """Gives it 14 kg together with a target that has 1 kg before all is scaled. The model's own
    attribute for it is deprecated."""
    model.compiler.settotalmass = -1
    density = 14.0 / (model.copy().compile().body_mass.sum() + 1.0)
    for geom in model.geoms:
        geom.density *= density
