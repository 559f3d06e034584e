import functools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import references
from scipy import stats

from crlx.envs.tasks import GoalEnv, Timing
from crlx.envs.tasks._reacher import Reacher


@functools.cache
def compiled(backend):
    env = GoalEnv("reacher", Reacher(), backend=backend)
    return env, jax.jit(env.place), jax.jit(env.step)


@functools.cache
def starts():
    env = compiled("generalized")[0]
    start = functools.partial(env.task.start, env.sys)
    drawn = jax.jit(jax.vmap(lambda key: start(key=key)))(jr.split(jr.key(1), 4000))
    return np.array(drawn.q), np.array(drawn.qd), np.array(drawn.goal)


def test_specification():
    record, spec = references.task("reacher"), compiled("generalized")[0].spec
    for key in ("backend", "action_size", "state_size", "goal_size"):
        assert getattr(spec, key) == record[key]
    assert list(range(*spec.goal_indices)) == record["goal_indices"]
    assert spec.timing == Timing(record["physics_dt"], record["frames"])
    assert (spec.radii.success, spec.radii.easy, spec.radii.hard) == (0.05, None, None)


@pytest.mark.parametrize("case", references.task("reacher")["cases"])
def test_trajectory(case):
    env, place, step = compiled("generalized")
    references.compare(place, step, env.spec, references.task("reacher")["cases"][case])


def test_goals():
    q, qd, goal = starts()
    radius, angle = np.hypot(*goal[:, :2].T), np.arctan2(goal[:, 1], goal[:, 0])
    assert stats.kstest(radius, stats.uniform(0, 0.2).cdf).pvalue > 0.01
    assert stats.kstest(angle, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 0.01
    assert abs(stats.pearsonr(radius, angle).statistic) < 0.05
    assert np.allclose(goal[:, 2], 0.01)
    assert np.array_equal(q[:, 2:], goal[:, :2])
    assert not qd[:, 2:].any()


def test_starts():
    q, qd, _ = starts()
    assert stats.kstest(q[:, :2].ravel(), stats.uniform(-0.1, 0.2).cdf).pvalue > 0.01
    assert stats.kstest(qd[:, :2].ravel(), stats.uniform(-0.005, 0.01).cdf).pvalue > 0.01


def test_starts_are_the_same_for_the_same_key():
    env = compiled("generalized")[0]
    one, same, other = (env.task.start(env.sys, key=jr.key(seed)) for seed in (1, 1, 2))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, one, same))
    assert not jnp.array_equal(one.q, other.q)


@pytest.mark.parametrize("backend", ["generalized", "spring"])
def test_random_steps(backend):
    """The tip is where the angles say, as exactly as the physics keeps links together."""
    env, place, step = compiled(backend)
    start = env.task.start(env.sys, key=jr.key(3))
    state = place(start.q, start.qd, start.goal)
    for action in jr.uniform(jr.key(4), (30, 2), minval=-1.0, maxval=1.0):
        state = step(state, action)
        cosines, sines, tip = np.split(np.array(state.obs)[:7], (2, 4))
        inner, outer = np.arctan2(sines, cosines)
        angles = np.array([inner, inner + outer])
        place_of_tip = np.array([0.1, 0.11]) @ np.stack([np.cos(angles), np.sin(angles)], 1)
        assert np.allclose(tip, [*place_of_tip, 0.01], atol=1e-5 if backend != "spring" else 0.02)
        distance = np.linalg.norm(tip - np.array(start.goal))
        assert state.metrics["dist"] == pytest.approx(distance, abs=1e-6)
        assert state.reward == -state.metrics["dist"]
        assert bool(state.metrics["success"]) == bool(distance < 0.05)
        assert np.isfinite(state.obs).all()
        assert not state.done


def test_the_springs_have_weaker_motors():
    gears = {name: compiled(name)[0].sys.actuator.gear for name in ("generalized", "spring")}
    assert gears["generalized"].tolist() == [200, 200]
    assert gears["spring"].tolist() == [25, 25]
    assert compiled("spring")[0].spec.timing == Timing(0.005, 4)
