from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from ._behaviours import AbstractBehaviour, Agent, Greedy, Stochastic
from ._exploration import Exploration
from ._moments import Moments
from ._plan import Plan
from ._replay import Replay
from ._replay_rows import ReplayRows
from ._source import AbstractMeasured
from ._types import Metrics, Outcome


@runtime_checkable
class GoalSpec(Protocol):
    """What `Online` must know of observations, each of which is a state and a commanded goal."""

    @property
    def action_size(self) -> int:
        """Numbers in the action of one step."""
        ...

    def state(self, observation: Array) -> Array:
        """What of `[..., obs]` is the state."""
        ...

    def goal(self, observation: Array) -> Array:
        """What of `[..., obs]` is the commanded goal."""
        ...

    def achieved(self, state: Array) -> Array:
        """The goals that states `[..., state]` have reached."""
        ...


@runtime_checkable
class BatchState(Protocol):
    """The state of a batch of environments, a pytree as Brax has it."""

    obs: Float[Array, "envs obs"]
    reward: Float[Array, " envs"]
    done: Float[Array, " envs"]
    metrics: Mapping[str, Float[Array, " envs"]]
    info: Mapping[str, Any]


@runtime_checkable
class BatchEnv(Protocol):
    """A batch of environments that begin new episodes by themselves, such as
    `crlx.envs.wrappers.training` makes.

    After a step, `obs` is what is observed now, `info["last_observation"]` what the action led to,
    and `info["truncation"]`, which a reset has too, tells where `done` comes of a time limit.
    """

    @property
    def spec(self) -> GoalSpec: ...
    def reset(self, rng: Array) -> Any: ...
    def step(self, state: Any, action: Array) -> Any: ...


_BATCH = (
    "`Online` resets with one key for each environment: make one environment a batch with "
    "`crlx.envs.wrappers.training`."
)


class Collected(eqx.Module):
    """What collection changes.

    **Arguments:**

    - `env`: the environments' state.
    - `replay`: what they have met.
    - `steps`: how many steps each has made.
    - `plan`: the actions that they are about to take.
    - `push`: what was last added to their actions; see `Exploration`.
    - `moments`: statistics of the states that were acted in.
    """

    env: PyTree
    replay: Replay
    steps: Int[Array, ""]
    plan: Plan
    push: Float[Array, "envs act"]
    moments: Moments


class Online(AbstractMeasured[Collected]):
    """Environments that the agent acts in, and a memory of the newest steps.

    The first collection makes `warm_up` steps of each environment, every later one `unroll`. Any
    numbers go together.

    **Arguments:**

    - `env`: the environments, such as `training(make(name))`.
    - `envs`: how many.
    - `capacity`: rows that are kept for each of them; see `Replay`.
    - `unroll`, `warm_up`: steps of each environment in a collection, and in the first.
    - `behaviour`: how the agent acts.
    - `exploration`: how it acts, in part, otherwise.
    - `chunk`: how many actions the policy decides on at once; they are carried out one after the
      other, up to the end of the episode.
    - `outcomes`: keep an `Outcome` of each step too, which objectives with rewards read.
    """

    env: BatchEnv = eqx.field(static=True)
    envs: int = 64
    capacity: int = 10_000
    unroll: int = 62
    warm_up: int = 1000
    behaviour: AbstractBehaviour = eqx.field(default_factory=Stochastic)
    exploration: Exploration = eqx.field(default_factory=Exploration)
    chunk: int = 1
    outcomes: bool = True

    def __check_init__(self):
        for name in ("envs", "unroll", "warm_up", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is at least 1; got {getattr(self, name)}.")

    def init(self, *, key: PRNGKeyArray) -> Collected:
        try:
            state = self.env.reset(jr.split(key, self.envs))
        except (TypeError, ValueError) as error:
            error.add_note(_BATCH)
            raise
        if state.done.shape != (self.envs,):
            raise ValueError(_BATCH)
        observation = self.env.spec.state(state.obs)
        if observation.dtype == jnp.float64:
            raise ValueError("Observations are float64: leave JAX's 64-bit mode off.")
        plan = Plan.start(self.envs, self.chunk, self.env.spec.action_size)
        extras = self._outcome(state, state)
        push = jnp.zeros_like(plan.actions[:, 0])
        replay = Replay.start(observation, push, extras, capacity=self.capacity)
        moments = Moments.start(observation.shape[1])
        return Collected(state, replay, jnp.zeros((), jnp.int32), plan, push, moments)

    def collect(
        self, data: Collected, agent: Agent, *, key: PRNGKeyArray
    ) -> tuple[Collected, Metrics]:
        """Steps all environments. The metrics are means over the steps of the environments' own,
        of the reward, and of how often an episode ended."""
        steps = jnp.where(data.steps == 0, self.warm_up, self.unroll)
        # A loop that takes its length as it runs, so that the first collection needs no program
        # of its own. What it changes is in place: nothing is stacked.
        sums = jax.tree.map(jnp.zeros_like, _readings(data.env))

        def step(i: Int[Array, ""], carry: tuple[Collected, Metrics]) -> tuple[Collected, Metrics]:
            data = self._step(carry[0], agent, key=jr.fold_in(key, i))
            return data, jax.tree.map(jnp.add, carry[1], _readings(data.env))

        data, sums = jax.lax.fori_loop(0, steps, step, (data, sums))
        return data, {
            f"collect/{name}": total / steps.astype(total.dtype) for name, total in sums.items()
        }

    def rows(self, data: Collected) -> ReplayRows:
        return data.replay.rows(self.env.spec.achieved)

    def moments(self, data: Collected) -> Moments:
        return data.moments

    def _step(self, data: Collected, agent: Agent, *, key: PRNGKeyArray) -> Collected:
        spec, now = self.env.spec, data.env.obs
        dkey, pkey = jr.split(key)
        decided = jax.vmap(self._decide, (None, 0, 0, 0, 0))(
            agent,
            spec.state(now),
            spec.goal(now),
            self.exploration.acts_greedily(self.envs),
            jr.split(dkey, self.envs),
        )
        action, plan = data.plan.follow(jnp.clip(decided, -1, 1))
        push = self.exploration.next_push(data.push, key=pkey)
        action = jnp.clip(action + push, -1, 1)
        state = self.env.step(data.env, action)
        done = state.done > 0
        replay = data.replay.insert(
            action,
            self._outcome(data.env, state),
            after=spec.state(_info(state, "last_observation")),
            done=done,
            now=spec.state(state.obs),
        )
        moments = data.moments.merge(spec.state(now))
        return Collected(state, replay, data.steps + 1, plan.drop(done), push, moments)

    def _decide(
        self,
        agent: Agent,
        observation: Float[Array, " obs"],
        goal: Float[Array, " goal"],
        greedy: Bool[Array, ""],
        key: PRNGKeyArray,
    ) -> Float[Array, " decision"]:
        usual = self.behaviour(agent, observation, goal, key=key)
        if self.exploration.greedy == 0:
            return usual
        return jnp.where(greedy, Greedy()(agent, observation, goal, key=key), usual)

    def _outcome(self, before: BatchState, after: BatchState) -> Outcome | None:
        if not self.outcomes:
            return None
        terminated = (after.done > 0) & (_info(after, "truncation") == 0)
        return Outcome(self.env.spec.goal(before.obs), terminated)


def _info(state: BatchState, name: str) -> Array:
    if name not in state.info:
        raise ValueError(f"`info` of the environments' states has no {name!r}; see `BatchEnv`.")
    return state.info[name]


def _readings(state: BatchState) -> dict[str, Float[Array, ""]]:
    """Means over the environments."""
    own = {**state.metrics, "reward": state.reward, "done": state.done}
    return {name: jnp.mean(value) for name, value in own.items()}
