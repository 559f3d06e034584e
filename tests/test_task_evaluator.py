import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jaxtyping import Array, Float
from lengths import at_length

from architectures import Gaussian
from crlx import AbstractActor
from crlx.envs.rendering import posed
from crlx.envs.tasks import make
from crlx.envs.wrappers import TaskEvaluator, evaluation, scores

LENGTH, EPISODES, TRACED = 12, 24, 20


class Headlong(AbstractActor):
    """Heads straight for the goal, with the same force for `chunk` steps."""

    chunk: int = 1

    def __call__(self, observation, goal):
        action = jnp.tile(jnp.clip(goal - observation[:2], -1, 1), self.chunk)
        return Gaussian(action, jnp.zeros_like(action))


@pytest.fixture(scope="module")
def tasks():
    names = ("point_u_maze", "point_u_maze_eval")
    return [make(name, episode_length=LENGTH) for name in names]


@pytest.fixture(scope="module")
def alone(tasks):
    """How episodes of each set begin, and how they go on, which is all the same."""
    envs = [evaluation(task) for task in tasks]
    step = jax.jit(envs[0].step)
    return [(jax.jit(env.reset), step) for env in envs]


@pytest.fixture(scope="module")
def evaluator(tasks):
    return TaskEvaluator(tasks, episodes=EPISODES, traced=TRACED)


@pytest.mark.parametrize("chunk", at_length((1, 3), {1}))
def test_both_sets_of_goals_are_scored_as_if_alone(tasks, alone, evaluator, chunk, getkey):
    """Against a plain loop over each set, from the same keys."""
    key, actor = getkey(), Headlong(chunk)
    if chunk > 1:
        evaluator = TaskEvaluator(tasks, episodes=EPISODES, traced=TRACED, chunk=chunk)
    found = evaluator(actor, key=key)
    keys = jr.split(jr.split(key)[0], 2 * EPISODES)
    for i, (task, (reset, step)) in enumerate(zip(tasks, alone, strict=True)):
        state = reset(keys[i * EPISODES : (i + 1) * EPISODES])
        q, plan = [state.pipeline_state.q[:TRACED]], None
        for t in range(LENGTH):
            if t % chunk == 0:
                spec = task.spec
                plan = jax.vmap(lambda o, spec=spec: actor(spec.state(o), spec.goal(o)).mode())(
                    state.obs
                ).reshape(EPISODES, chunk, 2)
            state = step(state, plan[:, t % chunk])
            q.append(state.pipeline_state.q[:TRACED])
        for name, value in scores(state).items():
            np.testing.assert_allclose(
                found.metrics[task.spec.name][name], value, rtol=1e-4, atol=1e-4
            )
        trace = found.traces[task.spec.name]
        np.testing.assert_allclose(trace.q, np.stack(q, 1), atol=1e-3)
        np.testing.assert_array_equal(trace.length, [LENGTH] * TRACED)
        np.testing.assert_allclose(trace.achieved, trace.q[..., :2], atol=1e-6)


def test_goals_are_those_of_their_set(evaluator, getkey):
    found = evaluator(Headlong(), key=getkey())
    goals = {name: trace.goal[:, 0] for name, trace in found.traces.items()}
    # Far goals lie beyond the wall, those of training on both sides.
    assert np.all(goals["point_u_maze_eval"][:, 0] > 10)
    assert np.any(goals["point_u_maze"][:, 0] < 10)


class Wavering(AbstractActor):
    """Its mode stays, its samples move along x."""

    def __call__(self, observation, goal):
        return Gaussian(jnp.zeros(2), jnp.array([0.0, -jnp.inf]))


@pytest.mark.parametrize("sampled", at_length((True, False), {True}))
def test_the_mode_or_samples_of_a_policy_act(tasks, sampled, getkey):
    evaluator = TaskEvaluator(tasks[:1], episodes=4, traced=4, sampled=sampled)
    paths = np.asarray(evaluator(Wavering(), key=getkey()).traces["point_u_maze"].q[..., :2])
    far = np.abs(paths - paths[:, :1]).max(axis=(0, 1))
    assert far[1] < 1e-6
    assert (far[0] > 0.01) == sampled
    assert len({path.tobytes() for path in paths}) == (4 if sampled else 1)


def test_a_program_serves_all_policies_of_a_kind(tasks, getkey):
    traces = []

    class Counted(AbstractActor):
        gain: Float[Array, ""]

        def __call__(self, observation, goal):
            traces.append(1)
            return Gaussian(self.gain * goal, jnp.zeros_like(goal))

    evaluator = TaskEvaluator(tasks[:1], episodes=2, traced=0)
    for gain in (0.1, -0.1):
        evaluator(Counted(jnp.asarray(gain)), key=getkey())
    assert len(traces) == 1


def test_posed_states_are_those_of_the_physics(tasks, getkey):
    state = eqx.filter_jit(tasks[0].reset)(getkey()).pipeline_state
    again = posed(tasks[0], state.q[None])
    np.testing.assert_allclose(again.x.pos[0], state.x.pos, atol=1e-5)
    np.testing.assert_allclose(again.x.rot[0], state.x.rot, atol=1e-5)


def test_tasks_that_step_otherwise_are_refused(tasks):
    for other in (make("point_u2_maze", episode_length=LENGTH), make("point_u_maze")):
        with pytest.raises(ValueError, match="differ in more than starts and goals"):
            TaskEvaluator([tasks[0], other])
    with pytest.raises(ValueError, match="5 cannot be traced"):
        TaskEvaluator(tasks, episodes=4, traced=5)
