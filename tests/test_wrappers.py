import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from brax.envs.wrappers import training as brax_training
from walk import Walk

from crlx.envs.tasks import make
from crlx.envs.wrappers import Scores, evaluation, scores, training

SIZE = 5


def rollout(env, keys, actions):
    """The state at the start, and those after each action, along a leading axis."""

    def step(state, action):
        state = env.step(state, action)
        return state, state

    @jax.jit
    def run(keys, actions):
        start = env.reset(keys)
        return start, jax.lax.scan(step, start, actions)[1]

    return run(keys, actions)


def pushes(key, steps, size=1):
    return jr.uniform(key, (steps, SIZE, size), minval=-1.5, maxval=1.5)


@pytest.mark.parametrize("repeat_first", (False, True))
def test_episodes_end_at_the_limit_or_with_the_environment(repeat_first, getkey):
    actions = pushes(getkey(), 30)
    env = training(Walk(), repeat_first=repeat_first)
    start, after = rollout(env, jr.split(getkey(), SIZE), actions)
    steps, number = np.zeros(SIZE, int), np.zeros(SIZE, int)
    obs, first = np.asarray(start.obs), np.asarray(start.obs)
    seen = {tuple(row) for row in obs}
    fallen = truncated = 0
    for t in range(len(actions)):
        here = jax.tree.map(lambda x, t=t: np.asarray(x[t]), after.replace(info={}, metrics={}))
        info = {name: np.asarray(after.info[name][t]) for name in ("steps", "truncation")}
        last = np.asarray(after.info["last_observation"][t])
        np.testing.assert_allclose(last[:, 0], obs[:, 0] + np.asarray(actions[t, :, 0]), rtol=1e-6)
        np.testing.assert_array_equal(last[:, 1], obs[:, 1])
        steps += 1
        outside, over = np.abs(last[:, 0]) > 2.0, steps == 4
        np.testing.assert_array_equal(info["steps"], steps)
        np.testing.assert_array_equal(here.done, outside | over)
        np.testing.assert_array_equal(info["truncation"], over & ~outside)
        fallen, truncated = fallen + outside.sum(), truncated + (over & ~outside).sum()
        done = outside | over
        obs = here.obs
        np.testing.assert_array_equal(obs[~done], last[~done])
        np.testing.assert_array_equal(here.pipeline_state, obs[:, :1])
        np.testing.assert_array_equal(after.info["goal"][t], obs[:, 1:])
        number += done
        steps[done] = 0
        np.testing.assert_array_equal(after.info["trajectory"][t], number)
        np.testing.assert_array_equal(after.info["pushes"][t], steps)
        if repeat_first:
            np.testing.assert_array_equal(obs[done], first[done])
        else:
            fresh = {tuple(row) for row in obs[done]}
            assert len(fresh) == done.sum()
            assert not fresh & seen
            seen |= fresh
    assert fallen > 5
    assert truncated > 5


def test_episodes_depend_on_the_key_alone(getkey):
    env, keys, actions = training(Walk()), jr.split(getkey(), SIZE), pushes(getkey(), 9)
    _, one = rollout(env, keys, actions)
    _, other = rollout(env, keys[::-1], actions[:, ::-1])
    np.testing.assert_array_equal(one.obs, other.obs[:, ::-1])


@pytest.mark.parametrize("repeat_first", (False, True))
def test_nothing_is_drawn_while_nothing_is_done(repeat_first, getkey):
    calls = []
    env = training(Walk(4, lambda x: calls.append(x)), repeat_first=repeat_first)
    state = jax.jit(env.reset)(jr.split(getkey(), SIZE))
    step, counts = jax.jit(env.step), []
    for _ in range(9):
        jax.block_until_ready(state)
        jax.effects_barrier()
        counts.append(len(calls) // SIZE)
        state = step(state, jnp.zeros((SIZE, 1)))
    assert counts == ([1] * 9 if repeat_first else [1, 1, 1, 1, 2, 2, 2, 2, 3])


@pytest.mark.parametrize("wrap", (training, lambda e: training(e, repeat_first=True), evaluation))
def test_a_state_keeps_its_types_so_that_steps_compile_once(wrap, getkey):
    env = wrap(Walk())
    keys = jr.split(getkey(), SIZE)
    start = jax.eval_shape(env.reset, keys)
    after = jax.eval_shape(env.step, start, jnp.zeros((SIZE, 1)))
    assert jax.tree.structure(start) == jax.tree.structure(after)
    for a, b in zip(jax.tree.leaves(start), jax.tree.leaves(after), strict=True):
        assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)
        assert not a.weak_type
    types = {name: start.info[name].dtype for name in ("steps", "truncation")}
    assert types == {"steps": jnp.int32, "truncation": jnp.float32}

    @jax.jit
    @eqx.debug.assert_max_traces(max_traces=1)
    def run(state, actions):
        return jax.lax.scan(lambda s, a: (env.step(s, a), None), state, actions)[0]

    state = env.reset(keys)
    for _ in range(3):
        state = run(state, pushes(getkey(), 3))


def test_scores_equal_a_loop_over_recorded_steps(getkey):
    actions = pushes(getkey(), 8)
    env = evaluation(Walk(length=6))
    start, after = rollout(env, jr.split(getkey(), SIZE), actions)
    known = {"reward": after.reward, **after.metrics}
    record = {name: np.asarray(value) for name, value in known.items()}
    done, episodes = np.asarray(after.done), []
    for i in range(SIZE):
        own = dict.fromkeys(record, 0.0)
        length, reached = 0, 0.0
        for t in range(len(actions)):
            length += 1
            own = {name: own[name] + record[name][t, i] for name in own}
            reached = max(reached, record["success"][t, i])
            if done[t, i]:
                break
        episode = {f"episode_{name}": value for name, value in own.items()}
        episode |= {"episode_success_any": reached, "episode_length": length}
        episodes.append({**episode, "final_dist": record["dist"][length - 1, i]})
    lengths = [episode["episode_length"] for episode in episodes]
    assert min(lengths) < 6 == max(lengths)
    last = jax.tree.map(lambda x: x[-1], after)
    result = scores(last)
    assert result.keys() == episodes[0].keys()
    for name, value in result.items():
        np.testing.assert_allclose(
            value, np.mean([e[name] for e in episodes]), rtol=1e-6, err_msg=name
        )
    assert not last.info["scores"].active.any()
    assert set(map(float, scores(start).values())) == {0.0}


def test_what_is_not_finite_after_the_end_does_not_count(getkey):
    env = evaluation(Walk(length=2))
    state = env.reset(jr.split(getkey(), SIZE))
    for _ in range(2):
        state = env.step(state, jnp.zeros((SIZE, 1)))
    before = scores(state)
    state = env.step(state, jnp.full((SIZE, 1), jnp.nan))
    assert scores(state) == before
    assert isinstance(state.info["scores"], Scores)


@pytest.mark.thorough
def test_a_maze_begins_new_episodes(getkey):
    env = make("point_u_maze", episode_length=3)
    wrapped, actions = training(env), jnp.ones((6, SIZE, 2))
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):  # For Brax.
        _, after = rollout(wrapped, jr.split(getkey(), SIZE), actions)
    assert after.info["trajectory"].tolist() == [[n] * SIZE for n in (0, 0, 1, 1, 1, 2)]
    goal = env.spec.goal(after.obs)
    np.testing.assert_array_equal(goal, after.info["goal"])
    # The ball that shows the goal moves with it, and the point is back where episodes start.
    np.testing.assert_array_equal(after.pipeline_state.q[..., -2:], goal)
    np.testing.assert_array_equal(after.obs[2, :, :4], [[4.0, 4.0, 0.0, 0.0]] * SIZE)
    goals = {tuple(row) for row in goal.reshape(-1, 2).tolist()}
    assert len(goals) > 2
    places = env.task.arena.maze().centres("G", 4.0)
    assert goals <= {tuple(row) for row in places.tolist()}


def test_brax_wraps_and_scores_our_environments():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        env = brax_training.wrap(make("point_u_maze"), episode_length=3)
        env = brax_training.EvalWrapper(env)
        start, after = rollout(env, jr.split(jr.PRNGKey(0), SIZE), jnp.ones((4, SIZE, 2)))
    assert after.done.tolist() == [[0.0] * SIZE, [0.0] * SIZE, [1.0] * SIZE, [0.0] * SIZE]
    np.testing.assert_array_equal(after.obs[2], start.obs)
    sums = after.info["eval_metrics"].episode_metrics
    np.testing.assert_allclose(sums["dist"][-1], after.metrics["dist"][:3].sum(0), rtol=1e-6)
