import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ._networks import AbstractActor
from ._types import Scalar

# Of an observation, an action and a goal.
Score = Callable[[Array, Array, Array], Scalar]


class Agent(eqx.Module):
    """What a source acts with.

    **Arguments:**

    - `actor`: the policy.
    - `score`: how good an action is, of (observation, action, goal), higher being better; None
      where the objective learns nothing that tells.
    """

    actor: AbstractActor
    score: Score | None = None


class AbstractBehaviour(eqx.Module):
    """How an agent acts when it gathers experience."""

    @abc.abstractmethod
    def __call__(
        self,
        agent: Agent,
        observation: Float[Array, " obs"],
        goal: Float[Array, " goal"],
        *,
        key: PRNGKeyArray,
    ) -> Float[Array, " act"]:
        """One action; it will be clipped to [-1, 1]."""


class Stochastic(AbstractBehaviour):
    """A sample of the policy."""

    def __call__(self, agent, observation, goal, *, key):
        return agent.actor(observation, goal).sample_and_log_prob(key=key)[0]


class Greedy(AbstractBehaviour):
    """The mode of the policy, plus normal noise.

    **Arguments:**

    - `noise`: standard deviation of what is added to each component.
    """

    noise: float = 0.0

    def __check_init__(self):
        if self.noise < 0:
            raise ValueError(f"`noise` is a standard deviation, 0 or more; got {self.noise}.")

    def __call__(self, agent, observation, goal, *, key):
        mode = agent.actor(observation, goal).mode()
        return mode if self.noise == 0 else mode + self.noise * jr.normal(key, mode.shape)


class BestOf(AbstractBehaviour):
    """The best of several samples of the policy, by the agent's own scores.

    **Arguments:**

    - `samples`: how many.
    """

    samples: int = 8

    def __check_init__(self):
        if self.samples < 1:
            raise ValueError(f"`samples` is at least 1; got {self.samples}.")

    def __call__(self, agent, observation, goal, *, key):
        score = agent.score
        if score is None:
            raise ValueError(
                "BestOf ranks actions by the objective's scores, but this objective scores no "
                "actions: use Stochastic() or Greedy()."
            )
        policy, keys = agent.actor(observation, goal), jr.split(key, self.samples)
        actions = jax.vmap(lambda k: policy.sample_and_log_prob(key=k)[0])(keys)
        actions = jnp.clip(actions, -1, 1)
        scores = jax.vmap(lambda action: score(observation, action, goal))(actions)
        return actions[jnp.argmax(scores)]
