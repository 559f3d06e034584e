import jax.numpy as jnp
import mujoco
from brax import base
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ._ant import torso_readings
from ._arenas import Places
from ._body import AbstractBody
from ._models import add_target
from ._spec import Backend, Radii, Timing
from ._task import Moment, Scalars, Start, Traits

# A ball of 1 kg (Brax weighs it so) that floats at a fixed height and slides along x and y.
_MODEL = """
<mujoco model="point">
  <option timestep="0.005"/>
  <custom>
    <numeric name="constraint_stiffness" data="4000"/>
    <numeric name="constraint_ang_damping" data="10"/>
    <numeric name="constraint_vel_damping" data="20"/>
    <numeric name="spring_mass_scale" data="1"/>
    <numeric name="spring_inertia_scale" data="1"/>
  </custom>
  <worldbody>
    <light pos="0 0 30" dir="0 0 -1" directional="true"/>
    <geom name="floor" type="plane" size="100 100 1" contype="0" conaffinity="0"
          rgba="0.8 0.8 0.78 1"/>
    <body name="point" pos="0 0 0.75">
      <joint name="x" type="slide" axis="1 0 0" limited="true" range="-100 100"/>
      <joint name="y" type="slide" axis="0 1 0" limited="true" range="-100 100"/>
      <geom name="ball" type="sphere" size="0.25" contype="1" conaffinity="1"
            rgba="0.2 0.4 0.8 1"/>
    </body>
  </worldbody>
  <actuator>
    <motor joint="x" gear="5" ctrllimited="true" ctrlrange="-1 1"/>
    <motor joint="y" gear="5" ctrllimited="true" ctrlrange="-1 1"/>
  </actuator>
</mujoco>
"""


class Point(AbstractBody):
    """A ball that is pushed along x and y by up to 5 N.

    The state is its position (2) and velocity (2); the position is the achieved goal. The cheapest
    of all bodies, to learn on and for tests. It never ends early.

    ??? cite
        The simple mazes of JaxGCRL (Bortkiewicz et al., ICLR 2025).
    """

    @property
    def scale(self) -> float:
        return 4.0

    def traits(self, *, walled: bool) -> Traits:
        del walled
        return Traits(4, 2, 2, (0, 2), Radii(0.5, easy=2.0), {"spring": Timing(0.005, 10)})

    def model(self, *, walled: bool) -> mujoco.MjSpec:
        del walled
        model = mujoco.MjSpec.from_string(_MODEL)
        add_target(model, height=0.01, radius=0.9, reach=100.0)
        return model

    def strengthen(self, sys: base.System, backend: Backend) -> base.System:
        del backend
        return sys

    def start(self, sys: base.System, places: Places, *, exact: bool, key: PRNGKeyArray) -> Start:
        """At rest, on the spot."""
        del exact, key
        q = jnp.concatenate([places.start, places.goal])
        return Start(q, jnp.zeros(sys.qd_size(), jnp.float32), places.goal)

    def controls(self, sys: base.System, action: Float[Array, " act"]) -> Float[Array, " ctrl"]:
        del sys
        return action

    def observe(
        self, sys: base.System, state: base.State, ctrl: Float[Array, " ctrl"]
    ) -> Float[Array, " state"]:
        del sys, ctrl
        return jnp.concatenate([state.q[:2], state.qd[:2]])

    def healthy(self, state: base.State) -> Bool[Array, ""]:
        del state
        return jnp.ones((), bool)

    def rewards(self, moment: Moment, *, walled: bool) -> Scalars:
        """One for each step, less half the squared norm of the action and less the distance."""
        del walled
        return {
            "reward_survive": jnp.ones((), jnp.float32),
            "reward_ctrl": -0.5 * jnp.sum(moment.action**2),
            "reward_dist": -moment.distance,
        }

    def readings(self, moment: Moment) -> Scalars:
        return torso_readings(moment)
