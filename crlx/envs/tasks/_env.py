import dataclasses
from typing import cast

import jax
import jax.numpy as jnp
from brax import base, envs
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ._physics import advance, place
from ._spec import Backend, Reward, TaskSpec, Timing
from ._task import AbstractTask, Moment, Scalars, Traits


class GoalEnv(envs.Env):
    """A task as a Brax environment.

    Observations are the state followed by the commanded goal. A step whose physics is not finite,
    as after an action of NaN, is undone: the state stays what it was and the episode ends.

    `info` holds the commanded `goal`. Metrics are `dist` and `success`, where they exist
    `success_easy` and `success_hard`, and what the task adds.
    """

    spec: TaskSpec
    task: AbstractTask
    traits: Traits
    sys: base.System

    def __init__(
        self,
        name: str,
        task: AbstractTask,
        *,
        backend: Backend | None = None,
        timing: Timing | None = None,
        reward: Reward = "dense",
        episode_length: int = 1000,
    ):
        """**Arguments:**

        - `name`: what to call it.
        - `task`: what it is.
        - `backend`: of Brax's physics; None for the task's first.
        - `timing`: None for the task's own on that backend.
        - `reward`, `episode_length`: see `TaskSpec`.
        """
        traits = task.traits()
        backend = next(iter(traits.timings)) if backend is None else backend
        if backend not in traits.timings:
            raise ValueError(f"{name} runs on {' and '.join(traits.timings)}, not on {backend!r}.")
        if reward not in ("dense", "sparse"):
            raise ValueError(f'`reward` is "dense" or "sparse", not {reward!r}.')
        if episode_length < 1:
            raise ValueError(f"Episodes have one step or more, not {episode_length}.")
        timing = traits.timings[backend] if timing is None else timing
        self.spec = TaskSpec(
            name,
            traits.state_size,
            traits.goal_size,
            traits.action_size,
            traits.goal_indices,
            episode_length,
            timing,
            backend,
            traits.radii,
            reward,
        )
        self.traits = traits
        self.task = task
        system = task.system(backend, drawn=False)
        self.sys = system.tree_replace({"opt.timestep": jnp.float32(timing.timestep)})

    def reset(self, rng: PRNGKeyArray) -> envs.State:
        """The start of an episode, drawn with the key `rng`."""
        start = self.task.start(self.sys, key=rng)
        return self.place(start.q, start.qd, start.goal)

    def place(
        self, q: Float[Array, " q"], qd: Float[Array, " qd"], goal: Float[Array, " goal"]
    ) -> envs.State:
        """The start of an episode at given positions and velocities, with a given goal."""
        nothing = jnp.zeros(self.sys.act_size(), jnp.float32)
        state = place(self.sys, self.spec.backend, q, qd)
        goal = self._follow(state, goal)
        observed = self.task.observe(self.sys, state, nothing)
        zero = jnp.zeros((), jnp.float32)
        action = jnp.zeros(self.spec.action_size, jnp.float32)
        moment = self._moment((state, state), (action, nothing), observed, goal)
        _, metrics = self._judge(moment)
        metrics = {name: zero for name in metrics}
        return envs.State(
            state, jnp.concatenate([observed, goal]), zero, zero, metrics, {"goal": goal}
        )

    def step(self, state: envs.State, action: Float[Array, " act"]) -> envs.State:
        """One control step. Actions are clipped to [-1, 1]."""
        before, goal = cast(base.State, state.pipeline_state), state.info["goal"]
        action = jnp.clip(action, -1.0, 1.0)
        ctrl = self.task.controls(self.sys, before, action)
        after = self._advance(before, ctrl)
        finite = jnp.all(jnp.isfinite(after.q)) & jnp.all(jnp.isfinite(after.qd))
        after = _choose(finite, after, before)
        action, ctrl = _choose(finite, (action, ctrl), jax.tree.map(jnp.zeros_like, (action, ctrl)))
        goal = self._follow(after, goal)
        observed = self.task.observe(self.sys, after, ctrl)
        moment = self._moment((before, after), (action, ctrl), observed, goal)
        reward, metrics = self._judge(moment)
        done = 1.0 - (finite & self.task.healthy(after)).astype(jnp.float32)
        return dataclasses.replace(
            state,
            pipeline_state=after,
            obs=jnp.concatenate([observed, goal]),
            reward=reward,
            done=done,
            metrics={**state.metrics, **metrics},
            info={**state.info, "goal": goal},
        )

    @property
    def observation_size(self) -> int:
        """Length of an observation."""
        return self.spec.observation_size

    @property
    def action_size(self) -> int:
        """Length of an action."""
        return self.spec.action_size

    @property
    def backend(self) -> str:
        """Brax's name of the physics."""
        return self.spec.backend

    @property
    def dt(self) -> float:
        """Seconds between two actions."""
        return self.spec.control_dt

    def _advance(self, state: base.State, ctrl: Float[Array, " ctrl"]) -> base.State:
        def once(state: base.State, _):
            return advance(self.sys, self.spec.backend, state, ctrl, self.traits.walls), None

        return jax.lax.scan(once, state, None, self.spec.timing.frames)[0]

    def _follow(self, state: base.State, goal: Float[Array, " goal"]) -> Float[Array, " goal"]:
        follow = self.traits.follow
        return goal if follow is None else follow(self.sys, state, goal)

    def _moment(
        self,
        physics: tuple[base.State, base.State],
        inputs: tuple[Array, Array],
        observed: Float[Array, " state"],
        goal: Float[Array, " goal"],
    ) -> Moment:
        distance = self.traits.distance(self.spec.achieved(observed), goal)
        return Moment(*physics, *inputs, observed, goal, distance, self.spec.control_dt)

    def _judge(self, moment: Moment) -> tuple[Float[Array, ""], Scalars]:
        radii, distance = self.spec.radii, moment.distance
        metrics = {"dist": distance, "success": _within(distance, radii.success)}
        for name, radius in (("success_easy", radii.easy), ("success_hard", radii.hard)):
            if radius is not None:
                metrics[name] = _within(distance, radius)
        terms = self.task.rewards(moment)
        metrics |= {**terms, **self.task.readings(moment)}
        if self.spec.reward == "sparse" or not terms:
            return metrics["success"], metrics
        return jnp.sum(jnp.stack(list(terms.values()))), metrics


def _within(distance: Float[Array, ""], radius: float) -> Float[Array, ""]:
    return (distance < radius).astype(jnp.float32)


def _choose(condition: Bool[Array, ""], yes, no):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
