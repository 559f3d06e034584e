import functools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import references
from scipy import stats

from crlx.envs.tasks import GoalEnv, Timing
from crlx.envs.tasks._ant_push import AntPush


@functools.cache
def compiled():
    env = GoalEnv("ant_push", AntPush())
    return env, jax.jit(env.place), jax.jit(env.step)


@functools.cache
def starts():
    env = compiled()[0]
    start = functools.partial(env.task.start, env.sys)
    drawn = jax.jit(jax.vmap(lambda key: start(key=key)))(jr.split(jr.key(0), 4000))
    return np.array(drawn.q), np.array(drawn.qd), np.array(drawn.goal)


def test_specification():
    record, spec = references.task("ant_push"), compiled()[0].spec
    for key in ("backend", "action_size", "state_size", "goal_size"):
        assert getattr(spec, key) == record[key]
    assert list(range(*spec.goal_indices)) == record["goal_indices"]
    assert spec.timing == Timing(record["physics_dt"], record["frames"])
    assert (spec.radii.success, spec.radii.easy, spec.radii.hard) == (0.5, 2.0, None)


@pytest.mark.thorough
@pytest.mark.parametrize("case", references.task("ant_push")["cases"])
def test_trajectory(case):
    env, place, step = compiled()
    references.compare(place, step, env.spec, references.task("ant_push")["cases"][case])


def test_what_may_collide():
    """The floor with six things, seven walls with six, the block with five."""
    model = compiled()[0].sys.mj_model
    pairs = [
        (a, b)
        for a in range(model.ngeom)
        for b in range(a)
        if model.geom_bodyid[a] != model.geom_bodyid[b]
        and (
            model.geom_contype[a] & model.geom_conaffinity[b]
            or model.geom_contype[b] & model.geom_conaffinity[a]
        )
    ]
    assert len(pairs) == 53


def test_goals_are_beyond_the_block():
    _, _, goal = starts()
    right = goal[:, 0] > goal[:, 1]
    assert stats.binomtest(int(right.sum()), len(right)).pvalue > 0.01
    offsets = goal - np.where(right[:, None], (16, 8), (8, 16))
    for own in offsets.T:
        assert stats.kstest(own, stats.uniform(0, 2).cdf).pvalue > 0.01
    assert abs(stats.pearsonr(*offsets.T).statistic) < 0.05


def test_starts():
    q, qd, goal = starts()
    rest = np.array([0, 0, 0.75, 1, 0, 0, 0, 0, 1, 0, -1, 0, -1, 0, 1, 0, 0])
    assert stats.kstest((q[:, :17] - rest).ravel(), stats.uniform(-0.1, 0.2).cdf).pvalue > 0.01
    assert stats.kstest(qd[:, :14].ravel(), stats.norm(0, 0.1).cdf).pvalue > 0.01
    assert not q[:, 17].any()
    assert not qd[:, 14:].any()
    assert np.array_equal(q[:, 18:], goal)


def test_starts_are_the_same_for_the_same_key():
    env = compiled()[0]
    one, same, other = (env.task.start(env.sys, key=jr.key(seed)) for seed in (1, 1, 2))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, one, same))
    assert not jnp.array_equal(one.q, other.q)


@pytest.mark.thorough
def test_random_steps():
    env, place, step = compiled()
    start = env.task.start(env.sys, key=jr.key(3))
    state = place(start.q, start.qd, start.goal)
    for action in jr.uniform(jr.key(4), (5, 8), minval=-1.0, maxval=1.0):
        state = step(state, action)
        assert np.isfinite(state.obs).all()
        assert not state.done
        distance = np.linalg.norm(np.array(state.obs)[:2] - np.array(start.goal))
        assert state.metrics["dist"] == pytest.approx(distance, abs=1e-5)
        reward = 1.0 - 0.5 * np.sum(np.array(action) ** 2) - distance
        assert state.reward == pytest.approx(reward, abs=1e-4)


@pytest.mark.thorough
def test_the_ant_pushes_the_block():
    """Thrown at the block from the side, it moves it along x."""
    env, place, step = compiled()
    rest = env.sys.init_q.at[:2].set(jnp.asarray([3.5, 8.0])).at[-2:].set(jnp.asarray([16.0, 8.0]))
    state = place(rest, jnp.zeros(19).at[0].set(5.0), rest[-2:])
    for _ in range(8):
        state = step(state, jnp.zeros(8))
    assert state.obs[29] > 8.1
    assert state.obs[30] == pytest.approx(8.0, abs=0.2)
