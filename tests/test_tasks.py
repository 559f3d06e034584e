import functools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats

from crlx.envs.tasks import (
    LAYOUTS,
    Cells,
    GoalEnv,
    Layout,
    Locomotion,
    Point,
    Timing,
    far_goals,
    make,
    task_names,
)
from crlx.testing import check_environment

_PAPER = """ant_big_maze ant_hardest_maze ant_u4_maze ant_u5_maze humanoid humanoid_u_maze
humanoid_big_maze arm_push_easy arm_push_hard arm_binpick_hard"""


def _repeats(name):
    """Whether other mazes or starts and goals are all that sets a task apart."""
    maze = "maze" in name and not name.endswith(("_u_maze", "_hardest_maze", "ball_big_maze"))
    return maze or "eval" in name or "_gen_" in name or "random_start" in name


@functools.cache
def _compiled(name):
    env = make(name)
    return env, jax.jit(jax.vmap(env.reset)), jax.jit(env.step)


def test_contract():
    check_environment(make("point_u_maze"), steps=20, key=jr.key(0))


@pytest.mark.thorough
@pytest.mark.parametrize("name", [name for name in task_names() if not _repeats(name)])
def test_every_contract(name):
    check_environment(make(name), batch=64, steps=1000, key=jr.key(0))


def test_steps_of_a_task_that_compiles_long_can_be_traced():
    """At length, `test_every_contract` takes these steps, and those of the arms."""
    env = make("ant_push")
    state = jax.eval_shape(env.reset, jr.key(0))
    after = jax.eval_shape(env.step, state, jnp.zeros(env.action_size))
    assert after.obs.shape == (env.observation_size,)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)


def test_names():
    names = task_names()
    assert set(_PAPER.split()) <= set(names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["ant_u_maze_gen_1f2f3f", "ant_u5_maze_gen_16f"])
def test_stitching_at_distances_of_choice(name):
    assert make(name).spec.name == name


@pytest.mark.parametrize(
    "name, message",
    [
        ("ant_v_maze", "Do you mean one of ant_u_maze"),
        ("", "task_names"),
        ("ant_u_maze_gen_7f", "1 to 6 cells ahead"),
        ("ant_big_maze_gen_1f", "no task"),
    ],
)
def test_names_that_do_not_exist(name, message):
    with pytest.raises(ValueError, match=message):
        make(name)


def test_physics_that_a_task_does_not_run_on():
    with pytest.raises(ValueError, match="runs on spring, not on 'mjx'"):
        make("humanoid", backend="mjx")


@pytest.mark.parametrize(
    "options, message",
    [({"episode_length": 0}, "one step or more"), ({"episode_length": -5}, "not -5")],
)
def test_options_that_do_not_exist(options, message):
    with pytest.raises(ValueError, match=message):
        make("point_u_maze", **options)


@pytest.mark.parametrize("timestep, frames", [(0.0, 1), (-1.0, 5), (0.01, 0)])
def test_timings_that_do_not_exist(timestep, frames):
    with pytest.raises(ValueError, match="more than 0 s"):
        Timing(timestep, frames)


def test_far_goals():
    assert far_goals("ant_big_maze") == "ant_big_maze_eval"
    assert far_goals("ant_hardest_maze") is None
    assert far_goals("ant") is None
    counts = {body: len(_maze(f"{body}_big_maze_eval").cells("G")) for body in ("ant", "humanoid")}
    assert counts == {"ant": 9, "humanoid": 10}


def _maze(name):
    return make(name).task.arena.maze()


def test_a_new_grid_is_a_new_task():
    drawing = "#####\n#RGG#\n#####"
    env = GoalEnv("mine", Locomotion(Point(), Cells(drawing)))
    assert env.spec.name == "mine"
    assert env.task.arena.maze() == Layout(drawing)


def test_ant_starts():
    env, reset, _ = _compiled("ant_u4_maze")
    state = reset(jr.split(jr.key(1), 2000))
    q, qd = np.array(state.pipeline_state.q), np.array(state.pipeline_state.qd)
    rest = np.array([8, 4, 0.55, 1, 0, 0, 0, 0, 1, 0, -1, 0, -1, 0, 1])
    noise = (q[:, :15] - rest).ravel()
    assert stats.kstest(noise, stats.uniform(-0.1, 0.2).cdf).pvalue > 0.01
    assert stats.kstest(qd[:, :14].ravel(), stats.norm(0, 0.1).cdf).pvalue > 0.01
    goals = np.array(env.spec.goal(state.obs))
    assert np.array_equal(q[:, 15:], goals)
    assert not qd[:, 14:].any()
    assert stats.chisquare(np.unique(goals, axis=0, return_counts=True)[1]).pvalue > 0.01


def test_stretches_start_on_the_spot():
    env, reset, _ = _compiled("ant_u_maze_gen_1f2f3f")
    state = reset(jr.split(jr.key(2), 200))
    cells = np.array(env.spec.achieved(state.obs)) / 4
    assert np.array_equal(cells, cells.round())


def test_humanoid_starts():
    env, reset, _ = _compiled("humanoid")
    state = reset(jr.split(jr.key(1), 2000))
    q = np.array(state.pipeline_state.q)
    assert (q[:, :24] == np.array([0, 0, 1.4, 1] + [0] * 20, np.float32)).all()
    goals = np.array(env.spec.goal(state.obs))
    radius = np.linalg.norm(goals[:, :2], axis=1)
    assert stats.kstest(radius, stats.uniform(1, 4).cdf).pvalue > 0.01
    assert (goals[:, 2] == 1.25).all()


@pytest.mark.parametrize("name, low, high", [("ant_u4_maze", 0.2, 1.0), ("humanoid", 1.0, 2.0)])
def test_health(name, low, high):
    env = _compiled(name)[0]
    heights = jnp.asarray([low - 0.01, low + 0.01, high - 0.01, high + 0.01], jnp.float32)
    state = jax.eval_shape(env.reset, jr.key(0)).pipeline_state
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), state)

    def healthy(height):
        x = zeros.x.replace(pos=zeros.x.pos.at[0, 2].set(height))
        return env.task.healthy(zeros.replace(x=x))

    assert jax.vmap(healthy)(heights).tolist() == [False, True, True, False]


def test_success_and_rewards():
    env, _, step = _compiled("point_u_maze")
    place = jax.jit(env.place)
    still, goal = jnp.zeros(4), jnp.asarray([4.0, 8.0])
    for offset, flags in ((0.4, (1, 1)), (1.9, (0, 1)), (2.5, (0, 0))):
        q = jnp.asarray([4.0, 8.0 - offset, 4.0, 8.0])
        state = step(place(q, still, goal), jnp.asarray([0.3, 0.0]))
        distance = np.linalg.norm(np.array(state.obs[:2] - goal))
        assert (state.metrics["success"], state.metrics["success_easy"]) == flags
        assert state.metrics["dist"] == pytest.approx(distance, abs=1e-5)
        assert state.reward == pytest.approx(1 - 0.5 * 0.09 - distance, abs=1e-5)
    sparse = make("point_u_maze", reward="sparse")
    q = jnp.asarray([4.0, 7.8, 4.0, 8.0])
    assert jax.jit(sparse.step)(sparse.place(q, still, goal), jnp.zeros(2)).reward == 1.0


def test_actions_are_clipped():
    _, reset, step = _compiled("point_u_maze")
    state = jax.tree.map(lambda a: a[0], reset(jr.split(jr.key(0), 1)))
    wild, most = (step(state, jnp.full(2, size)) for size in (50.0, 1.0))
    assert jnp.array_equal(wild.obs, most.obs)


def test_spec_slices():
    spec = make("humanoid").spec
    observation = jnp.arange(271.0)
    assert spec.goal(observation).tolist() == [268, 269, 270]
    assert spec.achieved(spec.state(observation)).tolist() == [0, 1, 2]
    networks = spec.networks()
    assert (networks.observation_size, networks.action_size, networks.goal_size) == (268, 17, 3)


def test_one_trace_per_environment():
    env, traces = make("point_u_maze"), 0

    def rollout(state, key):
        nonlocal traces
        traces += 1

        def one(state, key):
            action = jr.uniform(key, (2,), minval=-1.0, maxval=1.0)
            state = env.step(state, action)
            return state, state.reward

        return jax.lax.scan(one, state, jr.split(key, 5))

    rollout = jax.jit(rollout)
    state = jax.jit(env.reset)(jr.key(0))
    for seed in range(3):
        state, _ = rollout(state, jr.key(seed))
    assert traces == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_a_task_of_every_body(layout):
    names = task_names()
    assert all(f"{body}_{layout}" in names for body in ("ant", "humanoid", "point"))
    assert isinstance(make(f"point_{layout}").task.body, Point)
