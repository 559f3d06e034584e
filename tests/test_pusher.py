import functools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats

from crlx.envs.tasks import GoalEnv, Timing
from crlx.envs.tasks._pusher import EASY_GOALS, HARD_GOALS, Pusher

_OBJECTS = ((-0.3, 0.0), (-0.2, 0.2))


@functools.cache
def compiled(backend):
    env = GoalEnv("pusher_easy", Pusher(), backend=backend)
    return env, jax.jit(env.place), jax.jit(env.step)


@functools.cache
def starts(goals):
    """Offsets of object and goal along y and x, positions, velocities, and commanded goals."""
    sys = compiled("generalized")[0].sys
    start = functools.partial(Pusher(goals).start, sys)
    drawn = jax.jit(jax.vmap(lambda key: start(key=key)))(jr.split(jr.key(0), 4000))
    q = np.array(drawn.q)
    return q[:, 7:9], q[:, 9:], q, np.array(drawn.qd), np.array(drawn.goal)


def test_specification():
    spec = compiled("generalized")[0].spec
    assert (spec.state_size, spec.goal_size, spec.action_size) == (20, 3, 7)
    assert spec.goal_indices == (10, 13)
    assert (spec.backend, spec.timing) == ("generalized", Timing(0.01, 5))
    assert (spec.radii.success, spec.radii.easy, spec.radii.hard) == (0.1, None, 0.05)


def test_a_box_that_does_not_exist():
    with pytest.raises(ValueError, match="least before the most"):
        Pusher(((0.0, 0.1), (0.2, -0.2)))


@pytest.mark.parametrize("goals", [EASY_GOALS, HARD_GOALS])
def test_goals(goals):
    _, offset, _, _, goal = starts(goals)
    for own, (low, high) in zip(offset.T, goals, strict=True):
        assert stats.kstest(own, stats.uniform(low, high - low).cdf).pvalue > 0.01
    assert abs(stats.pearsonr(*offset.T).statistic) < 0.05
    place = np.stack([0.45 + offset[:, 1], -0.05 + offset[:, 0], np.full(len(goal), -0.323)], 1)
    assert np.allclose(goal, place, atol=1e-6)


@pytest.mark.parametrize("goals", [EASY_GOALS, HARD_GOALS])
def test_objects_keep_their_distance(goals):
    """Where they were drawn far enough from the goal, they are as drawn; else 0.17 m from it."""
    item, goal, *_ = starts(goals)
    distance = np.linalg.norm(item - goal, axis=1)
    assert (distance > 0.17 - 1e-6).all()
    moved = distance < 0.17 + 1e-6
    low, high = np.array(_OBJECTS).T
    assert ((item[~moved] >= low) & (item[~moved] <= high)).all()

    rng = np.random.default_rng(0)
    items, places = (rng.uniform(*np.array(box).T, (400_000, 2)) for box in (_OBJECTS, goals))
    apart = np.linalg.norm(items - places, axis=1)
    near = float(np.mean(apart < 0.17))
    assert stats.binomtest(int(moved.sum()), len(moved), near).pvalue > 0.01
    kept = items[apart >= 0.17]
    for own, expected in zip(item[~moved].T, kept.T, strict=True):
        assert stats.ks_2samp(own, expected[:50_000]).pvalue > 0.01


def test_the_arm_starts_stretched_out():
    *_, q, qd, _ = starts(EASY_GOALS)
    assert not q[:, :7].any()
    assert stats.kstest(qd[:, :7].ravel(), stats.uniform(-0.005, 0.01).cdf).pvalue > 0.01
    assert not qd[:, 7:].any()


def test_starts_are_the_same_for_the_same_key():
    env = compiled("generalized")[0]
    one, same, other = (env.task.start(env.sys, key=jr.key(seed)) for seed in (1, 1, 2))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, one, same))
    assert not jnp.array_equal(one.q, other.q)


@pytest.mark.thorough
@pytest.mark.parametrize("backend", ["generalized", "spring"])
def test_random_steps(backend):
    env, place, step = compiled(backend)
    start = env.task.start(env.sys, key=jr.key(3))
    state = place(start.q, start.qd, start.goal)
    x, y = 0.45 + float(start.q[8]), -0.05 + float(start.q[7])
    assert np.allclose(state.obs[10:13], [x, y, -0.275], atol=1e-6)
    for action in jr.uniform(jr.key(4), (5, 7), minval=-1.0, maxval=1.0):
        state = step(state, action)
        observed = np.array(state.obs)
        wrist, item, goal = observed[7:10], observed[10:13], observed[20:]
        distance = np.hypot(*(item - goal)[:2])
        control = 0.1 * np.sum((2 * np.array(action)) ** 2)
        reward = -distance - control - 0.5 * np.linalg.norm(item - wrist)
        assert state.reward == pytest.approx(reward, abs=1e-5)
        assert state.metrics["dist"] == pytest.approx(distance, abs=1e-6)
        assert np.isfinite(observed).all()
        assert not state.done


@pytest.mark.thorough
def test_success_is_measured_along_the_table():
    _, place, step = compiled("generalized")
    for offset, flags in ((0.045, (1, 1)), (0.095, (1, 0)), (0.105, (0, 0))):
        q = jnp.zeros(11).at[9:].set(jnp.asarray([-0.3 + offset, 0.0])).at[7].set(-0.3)
        goal = jnp.asarray([0.45, -0.35 + offset, -0.323])
        state = step(place(q, jnp.zeros(11), goal), jnp.zeros(7))
        assert state.metrics["dist"] == pytest.approx(offset, abs=1e-3)
        assert (state.metrics["success"], state.metrics["success_hard"]) == flags


def test_the_springs_have_stronger_motors():
    gears = {name: compiled(name)[0].sys.actuator.gear for name in ("generalized", "spring")}
    assert gears["generalized"].tolist() == [1] * 7
    assert gears["spring"].tolist() == [20] * 7
    assert compiled("spring")[0].spec.timing == Timing(0.001, 50)
