import dataclasses
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from brax import base, envs
from jaxtyping import Array, Float, Int, PRNGKeyArray

from crlx import AbstractActor, Agent, Greedy, Metrics, Plan, Stochastic

from ..tasks import GoalEnv
from ._scores import Scored, Scores
from ._wrappers import TimeLimit


class Trace(eqx.Module):
    """How some episodes of an evaluation went, step by step; their starts come first.

    **Arguments:**

    - `q`: generalized positions, from which Brax's kinematics gives the links'.
    - `achieved`, `goal`: what was reached, and what was to be.
    - `length`: steps of each episode; what is stored beyond them is zero.
    - `reached`: 1 where the goal was reached.
    """

    q: Float[Array, "episodes steps q"]
    achieved: Float[Array, "episodes steps goal"]
    goal: Float[Array, "episodes steps goal"]
    length: Int[Array, " episodes"]
    reached: Float[Array, " episodes"]


class TaskEvaluation(eqx.Module):
    """Metrics of each set of goals, as `Scores.means` names them, and some episodes of each."""

    metrics: dict[str, Metrics]
    traces: dict[str, Trace]


class TaskEvaluator:
    """Evaluates policies on several sets of starts and goals at once.

    All sets together are one batch of one program, so that a maze is compiled once.

    **Arguments:**

    - `tasks`: environments that differ in starts and goals alone, such as a maze and the same
      with `far_goals`. Metrics go by their names.
    - `episodes`: how many of each.
    - `traced`: how many of each are kept step by step.
    - `chunk`: actions that the policy decides on at once.
    - `sampled`: act by samples of the policy, as most do in training, in place of its mode.

    Raises `ValueError` for environments that do not step alike.
    """

    def __init__(
        self,
        tasks: Sequence[GoalEnv],
        *,
        episodes: int = 128,
        traced: int = 8,
        chunk: int = 1,
        sampled: bool = False,
    ):
        if not 0 <= traced <= episodes:
            raise ValueError(f"Of {episodes} episodes, {traced} cannot be traced.")
        for other in tasks[1:]:
            if not _alike(tasks[0], other):
                raise ValueError(
                    f"{tasks[0].spec.name} and {other.spec.name} differ in more than starts and "
                    "goals: evaluate them one by one."
                )
        self.tasks = tuple(tasks)
        self.episodes, self.traced, self.chunk = episodes, traced, chunk
        self._behaviour = Stochastic() if sampled else Greedy()
        self._env = Scored(TimeLimit(_Sets(self.tasks), tasks[0].spec.episode_length))

    @eqx.filter_jit
    def __call__(self, actor: AbstractActor, *, key: PRNGKeyArray) -> TaskEvaluation:
        """The result, which depends on the policy and the key alone."""
        rkey, akey = jr.split(key)
        state = self._env.reset(jr.split(rkey, self.episodes * len(self.tasks)))
        spec = self.tasks[0].spec
        envs = state.obs.shape[0]
        watched = np.flatnonzero(np.arange(envs) % self.episodes < self.traced)
        frame = self._frame(state, watched)
        frames = spec.episode_length + 1
        film = jax.tree.map(lambda x: jnp.zeros((frames, *x.shape), x.dtype).at[0].set(x), frame)
        plan = Plan.start(envs, self.chunk, spec.action_size)

        def going(carry):
            step, state, _, _ = carry
            return (step < spec.episode_length) & jnp.any(state.info["scores"].active > 0)

        def advance(carry):
            step, state, plan, film = carry
            keys = jr.split(jr.fold_in(akey, step), envs)
            decided = jax.vmap(lambda s, g, key: self._behaviour(Agent(actor), s, g, key=key))(
                spec.state(state.obs), spec.goal(state.obs), keys
            )
            action, plan = plan.follow(jnp.clip(decided, -1, 1))
            state = self._env.step(state, action)
            film = jax.tree.map(
                lambda f, x: f.at[step + 1].set(x), film, self._frame(state, watched)
            )
            return step + 1, state, plan, film

        start = jnp.zeros((), jnp.int32), state, plan, film
        _, state, _, film = jax.lax.while_loop(going, advance, start)
        return self._result(state.info["scores"], film)

    def _frame(self, state: envs.State, watched: np.ndarray) -> tuple[Array, Array, Array]:
        spec = self.tasks[0].spec
        if not isinstance(state.pipeline_state, base.State):
            raise ValueError(
                f"TaskEvaluator films the positions of Brax's states, and {spec.name} has none: "
                "use crlx.envs.wrappers.evaluation, and scores."
            )
        assert isinstance(state.obs, jax.Array)
        seen = state.obs[watched]
        return state.pipeline_state.q[watched], spec.achieved(spec.state(seen)), spec.goal(seen)

    def _result(self, scores: Scores, film: tuple[Array, Array, Array]) -> TaskEvaluation:
        metrics, traces = {}, {}
        for i, task in enumerate(self.tasks):
            here = slice(i * self.episodes, (i + 1) * self.episodes)
            own: Scores = jax.tree.map(lambda x, here=here: x[here], scores)
            metrics[task.spec.name] = own.means()
            q, achieved, goal = (
                jnp.swapaxes(x[:, i * self.traced :][:, : self.traced], 0, 1) for x in film
            )
            length, reached = own.length[: self.traced], own.reached[: self.traced]
            traces[task.spec.name] = Trace(q, achieved, goal, length, reached)
        return TaskEvaluation(metrics, traces)


class _Sets(envs.Wrapper):
    """A batch whose starts and goals come of several environments, as many of each, one after the
    other."""

    def __init__(self, tasks: Sequence[GoalEnv]):
        self.env, self.tasks = tasks[0], tasks

    def reset(self, rng: Array) -> envs.State:
        keys = jnp.split(rng, len(self.tasks))
        states = [jax.vmap(task.reset)(k) for task, k in zip(self.tasks, keys, strict=True)]
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), *states)

    def step(self, state: envs.State, action: Float[Array, "envs act"]) -> envs.State:
        return jax.vmap(self.env.step)(state, action)


def _alike(one: GoalEnv, other: GoalEnv) -> bool:
    """Whether a step of one is a step of the other."""
    same = dataclasses.replace(other.spec, name=one.spec.name) == one.spec
    walls, others = one.traits.walls, other.traits.walls
    if walls is None or others is None:
        return same and walls is others
    return same and walls.scale == others.scale and np.array_equal(walls.cells, others.cells)
