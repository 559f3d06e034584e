import functools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats

from crlx.envs.tasks import GoalEnv, Timing
from crlx.envs.tasks._cheetah import Cheetah


@functools.cache
def compiled():
    env = GoalEnv("cheetah", Cheetah())
    return env, jax.jit(env.place), jax.jit(env.step)


def test_specification():
    spec = compiled()[0].spec
    assert (spec.state_size, spec.goal_size, spec.action_size) == (18, 1, 6)
    assert spec.goal_indices == (0, 1)
    assert (spec.backend, spec.timing) == ("mjx", Timing(0.01, 5))
    assert (spec.radii.success, spec.radii.easy, spec.radii.hard) == (0.5, 2.0, None)


def test_model():
    sys = compiled()[0].sys
    assert sys.mj_model.body_mass[1:-1].sum() == pytest.approx(13.37, abs=0.005)
    assert sys.actuator.gear.tolist() == [120, 90, 60, 120, 60, 30]
    assert sys.mj_model.opt.iterations == 4
    assert sys.link_names[-1] == "target"


def test_starts():
    env = compiled()[0]
    start = functools.partial(env.task.start, env.sys)
    drawn = jax.jit(jax.vmap(lambda key: start(key=key)))(jr.split(jr.key(0), 2000))
    q, qd = np.array(drawn.q), np.array(drawn.qd)
    assert stats.kstest(q[:, :9].ravel(), stats.uniform(-0.1, 0.2).cdf).pvalue > 0.01
    assert stats.kstest(qd[:, :9].ravel(), stats.norm(0, 0.1).cdf).pvalue > 0.01
    assert (q[:, 9] == 5.0).all()
    assert (drawn.goal == 5.0).all()
    assert not qd[:, 9].any()


def test_starts_are_the_same_for_the_same_key():
    env = compiled()[0]
    one, same, other = (env.task.start(env.sys, key=jr.key(seed)) for seed in (1, 1, 2))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, one, same))
    assert not jnp.array_equal(one.q, other.q)


def test_a_goal_of_choice():
    env = GoalEnv("back", Cheetah(place=-3.0))
    assert env.task.start(env.sys, key=jr.key(0)).goal.tolist() == [-3.0]


@pytest.mark.thorough
def test_random_steps():
    env, place, step = compiled()
    start = env.task.start(env.sys, key=jr.key(3))
    state = place(start.q, start.qd, start.goal)
    for action in jr.uniform(jr.key(4), (10, 6), minval=-1.0, maxval=1.0):
        before, state = state, step(state, action)
        x = float(state.obs[0])
        distance = abs(x - 5.0)
        assert np.isfinite(state.obs).all()
        assert not state.done
        assert state.metrics["dist"] == pytest.approx(distance, abs=1e-5)
        reward = -0.1 * np.sum(np.array(action) ** 2) - distance
        assert state.reward == pytest.approx(reward, abs=1e-5)
        velocity = (x - float(before.obs[0])) / 0.05
        assert state.metrics["x_velocity"] == pytest.approx(velocity, abs=1e-4)


@pytest.mark.thorough
def test_success():
    """By the place along x alone, whatever the height; in the air, so that it goes on as it is."""
    _, place, step = compiled()
    for x, flags in ((4.6, (1, 1)), (5.4, (1, 1)), (3.2, (0, 1)), (7.2, (0, 0))):
        q = jnp.zeros(10).at[0].set(x).at[1].set(3.0).at[9].set(5.0)
        state = step(place(q, jnp.zeros(10), jnp.asarray([5.0])), jnp.zeros(6))
        assert (state.metrics["success"], state.metrics["success_easy"]) == flags
        assert not state.done
