import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from brax import envs
from brax.envs.wrappers import training as brax_training
from brax.io import mjcf
from flax import struct
from lengths import at_length

from crlx.envs.adapters import Aims, FromBrax, FromPlayground
from crlx.envs.tasks import Radii
from crlx.envs.wrappers import training
from crlx.testing import check_environment

_MODEL = """
<mujoco>
  <option timestep="0.01"/>
  <worldbody>
    <body>
      <joint name="x" type="slide" axis="1 0 0"/>
      <joint name="y" type="slide" axis="0 1 0"/>
      <geom size="0.1" mass="1"/>
    </body>
  </worldbody>
  <actuator> <motor joint="x" gear="9"/> <motor joint="y" gear="9"/> </actuator>
</mujoco>
"""
# Physics compiles much longer than it runs here.

RADII = Radii(0.5, easy=1.0)


class Slider(envs.PipelineEnv):
    """A ball on a plane, which says what it costs, and writes into what it is given."""

    def __init__(self, backend="generalized", dictionary=False):
        super().__init__(mjcf.loads(_MODEL), backend=backend, n_frames=2)
        self.dictionary = dictionary

    def _observe(self, physics):
        obs = jnp.concatenate([physics.qd, physics.q])
        return {"state": obs, "extra": obs[:1]} if self.dictionary else obs

    def reset(self, rng):
        q = jr.uniform(rng, (2,), minval=-1.0)
        physics = self.pipeline_init(q, jnp.zeros(2))
        info = {"steps_left": jnp.array(30), "rng": rng}
        metrics = {"cost": 0.0 * q[0]}
        return envs.State(
            physics, self._observe(physics), jnp.array(0.0), jnp.array(0.0), metrics, info
        )

    def step(self, state, action):
        physics = self.pipeline_step(state.pipeline_state, action)
        left = state.info["steps_left"] - 1
        state.info.update(steps_left=left)
        cost = jnp.sum(action**2)
        state.metrics.update(cost=cost)
        done = jnp.where(left == 0, 1.0, 0.0)
        return state.replace(
            pipeline_state=physics, obs=self._observe(physics), reward=-cost, done=done
        )


@struct.dataclass
class Foreign:
    """A state as MuJoCo Playground has it."""

    data: dict
    obs: dict
    reward: jax.Array
    done: jax.Array
    metrics: dict
    info: dict


class Cart:
    """Playground's interface: a mass on a line."""

    action_size, dt, sim_dt = 1, 0.04, 0.01

    def reset(self, rng):
        data = {"x": jr.uniform(rng, (1,)), "v": jnp.zeros(1)}
        zero = jnp.zeros(())
        info = {"rng": rng, "steps_left": jnp.array(30)}
        return Foreign(data, self._observe(data), zero, zero, {"reward/slow": zero}, info)

    def step(self, state, action):
        v = state.data["v"] + self.dt * action
        data = {"x": state.data["x"] + self.dt * v, "v": v}
        slow = jnp.exp(-jnp.abs(v[0]))
        state.metrics["reward/slow"] = slow
        state.info["steps_left"] = state.info["steps_left"] - 1
        done = jnp.isnan(data["x"]).any().astype(float)
        return state.replace(data=data, obs=self._observe(data), reward=slow, done=done)

    def _observe(self, data):
        return {"state": jnp.concatenate([data["x"], data["v"]]), "privileged_state": data["x"]}


def square(key):
    return jr.uniform(key, (2,), minval=-1.0)


def position(state):
    return state.pipeline_state.q


def cart(**options):
    aims = Aims((0, 1), lambda key: jr.uniform(key, (1,)), RADII, lambda s: s.obs["state"])
    return FromPlayground("cart", Cart(), aims, **options)


CASES = {
    "slice": lambda: FromBrax("slider", Slider(), Aims((2, 4), square, RADII)),
    "function": lambda: FromBrax("slider", Slider(), Aims(position, square, RADII)),
    "playground": cart,
}


# Physics compiles long, and that of "slice" is that of "function".
some_cases = pytest.mark.parametrize("case", at_length(CASES, {"function", "playground"}))


@some_cases
def test_contract(case, getkey):
    check_environment(CASES[case](), steps=20, key=getkey())


def test_specifications():
    spec = CASES["slice"]().spec
    assert (spec.state_size, spec.goal_size, spec.goal_indices, spec.action_size) == (
        4,
        2,
        (2, 4),
        2,
    )
    assert (spec.timing.timestep, spec.timing.frames) == (pytest.approx(0.01), 2)
    assert spec.backend == "generalized"
    # What a function makes of the state comes after what the environment observes.
    spec = CASES["function"]().spec
    assert (spec.state_size, spec.goal_indices) == (6, (4, 6))
    spec = cart(episode_length=7).spec
    assert (spec.state_size, spec.goal_size, spec.goal_indices) == (2, 1, (0, 1))
    assert (spec.timing.frames, spec.episode_length, spec.backend) == (4, 7, "mjx")


@some_cases
def test_steps_are_those_of_the_environment(case, getkey):
    env, key = CASES[case](), getkey()
    state, step, own_step = env.reset(key), jax.jit(env.step), jax.jit(env.env.step)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        own = env.env.reset(jr.split(key)[0])
    goal = state.info["goal"]
    np.testing.assert_array_equal(env.spec.goal(state.obs), goal)
    for action in jr.uniform(getkey(), (4, env.action_size), minval=-2.0, maxval=2.0):
        state = step(state, action)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            own = own_step(own, jnp.clip(action, -1.0, 1.0))
        observed = env.aims.observed(own)
        np.testing.assert_array_equal(state.obs, jnp.concatenate([observed, goal]))
        achieved = np.asarray(env.spec.achieved(state.obs))
        dist = np.linalg.norm(achieved - np.asarray(goal))
        np.testing.assert_allclose(state.metrics["dist"], dist, rtol=1e-5)
        assert state.metrics["success"] == state.reward == float(dist < 0.5)
        assert state.metrics["success_easy"] == float(dist < 1.0)
        (name,) = own.metrics
        np.testing.assert_array_equal(state.metrics[name], own.metrics[name])
    assert state.info["inner"].info["steps_left"] == 26


def test_the_environments_own_reward(getkey):
    env = cart(reward="dense")
    state = env.step(env.reset(getkey()), jnp.ones(1))
    assert state.reward == state.metrics["reward/slow"] != state.metrics["success"]


@pytest.mark.parametrize("case", ("slice", "playground"))
def test_new_episodes_reset_what_the_environment_keeps(case, getkey):
    env = CASES[case]()
    env.spec.__dict__["episode_length"] = 3
    env = training(env)
    state = jax.jit(env.reset)(jr.split(getkey(), 2))
    step, first = jax.jit(env.step), state.info["goal"]
    for left in (29, 28, 30, 29):
        state = step(state, jnp.ones((2, env.action_size)))
        assert state.info["inner"].info["steps_left"].tolist() == [left] * 2
    assert not (state.info["goal"] == first).any()
    assert state.info["trajectory"].tolist() == [1, 1]


def test_brax_wraps_what_is_adapted():
    env = brax_training.wrap(cart(), episode_length=2)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        start = env.reset(jr.split(jr.PRNGKey(0), 3))
        state = start
        for _ in range(2):
            state = env.step(state, jnp.ones((3, 1)))
    np.testing.assert_array_equal(state.obs, start.obs)


def test_a_state_of_dictionaries_needs_a_choice():
    with pytest.raises(ValueError, match=r"\['extra', 'state'\], not one vector.*`observe`"):
        FromBrax("slider", Slider(dictionary=True), Aims((0, 2), square, RADII))
    aims = Aims((2, 4), square, RADII, lambda state: state.obs["state"])
    assert FromBrax("slider", Slider(dictionary=True), aims).spec.state_size == 4


def test_impossible_aims_are_refused():
    with pytest.raises(ValueError, match=r"Goals have 2 entries, .* goal is \(1, 4\)"):
        FromBrax("slider", Slider(), Aims((1, 4), square, RADII))
    with pytest.raises(ValueError, match=r"achieved goal is \(3, 5\) of the state's 4"):
        FromBrax("slider", Slider(), Aims((3, 5), square, RADII))
    with pytest.raises(ValueError, match="vectors"):
        FromBrax("slider", Slider(), Aims((0, 2), lambda key: jr.uniform(key), RADII))
    with pytest.raises(ValueError, match="not on positional"):
        FromBrax("slider", Slider("positional"), Aims((2, 4), square, RADII))
