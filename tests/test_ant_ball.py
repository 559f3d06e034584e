import functools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import references
from lengths import at_length
from scipy import stats

from crlx.envs.tasks import GoalEnv, Timing
from crlx.envs.tasks._ant_ball import BALL_LAYOUTS, AntBall


@functools.cache
def compiled(layout):
    drawing = None if layout is None else BALL_LAYOUTS[layout]
    env = GoalEnv("ant_ball", AntBall(drawing))
    return env, jax.jit(env.place), jax.jit(env.step)


@functools.cache
def starts(layout):
    env = compiled(layout)[0]
    start = functools.partial(env.task.start, env.sys)
    drawn = jax.jit(jax.vmap(lambda key: start(key=key)))(jr.split(jr.key(0), 4000))
    return np.array(drawn.q), np.array(drawn.qd), np.array(drawn.goal)


@pytest.mark.parametrize("layout", [None, *BALL_LAYOUTS])
def test_specification(layout):
    spec = compiled(layout)[0].spec
    assert (spec.state_size, spec.goal_size, spec.action_size) == (31, 2, 8)
    assert spec.goal_indices == (29, 31)
    assert (spec.backend, spec.timing) == ("spring", Timing(0.005, 10))
    assert (spec.radii.success, spec.radii.easy, spec.radii.hard) == (0.5, 2.0, None)


@pytest.mark.parametrize(
    "layout, walls, pairs", [(None, 0, 20), ("u_maze", 18, 128), ("big_maze", 38, 248)]
)
def test_what_may_collide(layout, walls, pairs):
    """The floor with feet and ball, the ball with torso and feet, the feet with each other and the
    torso; each wall with torso, feet and ball."""
    model = compiled(layout)[0].task.system("spring", drawn=True).mj_model
    names = [model.geom(i).name for i in range(model.ngeom)]
    assert sum(name.startswith("wall") for name in names) == walls
    assert pairs == 20 + 6 * walls
    found = [
        (a, b)
        for a in range(model.ngeom)
        for b in range(a)
        if model.geom_bodyid[a] != model.geom_bodyid[b]
        and (
            model.geom_contype[a] & model.geom_conaffinity[b]
            or model.geom_contype[b] & model.geom_conaffinity[a]
        )
    ]
    assert len(found) == pairs


def test_goals_and_balls_on_open_ground():
    q, qd, goal = starts(None)
    ball = q[:, 15:17] - 0.2 * goal
    assert np.allclose(np.hypot(*goal.T), 5.0, atol=1e-5)
    assert np.allclose(np.hypot(*ball.T), 1.0, atol=1e-5)
    assert np.array_equal(q[:, 17:], goal)
    angles = [np.arctan2(y, x) for x, y in (goal.T, ball.T)]
    for angle in angles:
        assert stats.kstest(angle, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 0.01
    table = np.histogram2d(*angles, bins=6, range=[(-np.pi, np.pi)] * 2)[0]
    assert stats.chisquare(table.ravel()).pvalue > 0.01
    assert not qd[:, 14:].any()


def test_starts_on_open_ground():
    q, qd, _ = starts(None)
    rest = np.array([0, 0, 0.55, 1, 0, 0, 0, 0, 1, 0, -1, 0, -1, 0, 1])
    assert stats.kstest((q[:, :15] - rest).ravel(), stats.uniform(-0.1, 0.2).cdf).pvalue > 0.01
    assert stats.kstest(qd[:, :14].ravel(), stats.norm(0, 0.1).cdf).pvalue > 0.01


@pytest.mark.parametrize("layout, balls, goals", [("u_maze", 1, 5), ("big_maze", 2, 20)])
def test_mazes_draw_ball_and_goal_independently(layout, balls, goals):
    q, qd, goal = starts(layout)
    assert (q[:, :2] == 4.0).all()
    both, counts = np.unique(np.concatenate([q[:, 15:17], goal], 1) / 4, axis=0, return_counts=True)
    assert len(both) == balls * goals
    assert stats.chisquare(counts).pvalue > 0.01
    rows = BALL_LAYOUTS[layout].split()
    for i, j, k, m in both.astype(int):
        assert (rows[i][j], rows[k][m]) == ("B", "G")
    assert not qd[:, 14:].any()


def test_a_maze_without_a_ball():
    with pytest.raises(ValueError, match="no ball"):
        AntBall("#####\n#R.G#\n#####")


def test_starts_are_the_same_for_the_same_key():
    env = compiled(None)[0]
    one, same, other = (env.task.start(env.sys, key=jr.key(seed)) for seed in (1, 1, 2))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, one, same))
    assert not jnp.array_equal(one.q, other.q)


@pytest.mark.parametrize("layout", at_length([None, "u_maze"], [None]))
def test_random_steps(layout):
    env, place, step = compiled(layout)
    start = env.task.start(env.sys, key=jr.key(3))
    state = place(start.q, start.qd, start.goal)
    for action in jr.uniform(jr.key(4), (10, 8), minval=-1.0, maxval=1.0):
        state = step(state, action)
        observed = np.array(state.obs)
        assert np.isfinite(observed).all()
        assert not state.done
        assert np.array_equal(observed[31:], start.goal)
        distance = np.linalg.norm(observed[29:31] - np.array(start.goal))
        assert state.metrics["dist"] == pytest.approx(distance, abs=1e-5)
        reward = 1.0 - 0.5 * np.sum(np.array(action) ** 2) - distance
        assert state.reward == pytest.approx(reward, abs=1e-4)


@pytest.mark.parametrize("case", references.task("ant")["cases"])
def test_far_from_the_ball_it_is_the_ant(case):
    """Of the reference's, where it touches no foot with another."""
    _, place, step = compiled(None)
    record = references.task("ant")["cases"][case]
    q, qd = (np.array(record[name], np.float32) for name in ("q", "qd"))
    state = place(np.insert(q, 15, [9.0, 9.0]), np.insert(qd, 14, [0.0, 0.0]), q[15:])
    expected = {own["step"]: own for own in record["expected"]}
    for time, action in enumerate(references.actions(record, 8)[: record["comparable_until"]], 1):
        state = step(state, action)
        if time in expected:
            own, known = np.array(state.obs)[:29], np.array(expected[time]["state"])
            error = np.abs(own - known) / np.maximum(1, np.abs(known))
            assert error.max() <= expected[time]["tolerance"]
        assert state.done == record["series"]["done"][time - 1]


def _roll(layout, ant, ball, velocity, steps):
    """The ball, thrown, and the ant at rest."""
    env, place, step = compiled(layout)
    q = env.sys.init_q.at[:2].set(jnp.asarray(ant)).at[15:17].set(jnp.asarray(ball))
    qd = jnp.zeros(18).at[14:16].set(jnp.asarray(velocity))
    state = place(q, qd, jnp.zeros(2))
    path = []
    for _ in range(steps):
        state = step(state, jnp.zeros(8))
        path.append(np.array(state.obs))
    return state, np.stack(path)


def test_success_is_the_ball_at_the_goal():
    for x, flags in ((0.4, (1, 1)), (1.9, (0, 1)), (2.1, (0, 0))):
        state, _ = _roll(None, [9.0, 0.0], [x, 0.0], [0.0, 0.0], 1)
        assert (state.metrics["success"], state.metrics["success_easy"]) == flags


def test_the_ball_pushes_the_ant():
    """It slows down, and the ant moves away."""
    _, path = _roll(None, [2.0, 0.0], [0.6, 0.0], [6.0, 0.0], 10)
    _, alone = _roll(None, [2.0, 5.0], [0.6, 0.0], [6.0, 0.0], 10)
    assert path[-1, 0] > 2.05
    assert path[-1, 29] < alone[-1, 29] - 0.1


@pytest.mark.thorough
def test_the_ball_stops_at_walls():
    """The wall's surface is at x = 2 m, the ball's 0.5 m from its centre."""
    _, path = _roll("u_maze", [4.0, 4.0], [4.0, 8.0], [-8.0, 0.0], 15)
    assert path[:, 29].min() < 2.8
    assert path[:, 29].min() > 2.3


@pytest.mark.parametrize("height, velocity, ends", [(0.55, 0.0, False), (0.9, 5.0, True)])
def test_it_ends_when_the_ant_leaves_the_ground(height, velocity, ends):
    env, place, step = compiled(None)
    q = env.sys.init_q.at[2].set(height).at[15].set(5.0)
    state = step(place(q, jnp.zeros(18).at[2].set(velocity), jnp.zeros(2)), jnp.zeros(8))
    assert bool(state.done) == ends
