from collections.abc import Callable

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from ._rows import AbstractRows
from ._types import Step

Achieved = Callable[[Float[Array, "rows obs"]], Float[Array, "rows goal"]]


class ReplayRows(AbstractRows):
    """What a `Replay` holds at one moment. A row's number is its environment's first, plus its age
    in order, the oldest being 0; where a row lies in memory is known here alone.

    **Arguments:**

    - `observation`, `action`, `extras`: the replay's.
    - `oldest`: for each environment, the number of its oldest row, counted from the first ever.
    - `ends`: for each row, the last row of its trajectory with an action.
    - `listed`, `count`: the rows that may be drawn, the first `count` of the list.
    - `achieved`: what the goal space sees of observations.
    """

    observation: Float[Array, "slots obs"]
    action: Float[Array, "slots act"]
    extras: PyTree
    oldest: Int[Array, " envs"]
    ends: Int[Array, " slots"]
    listed: Int[Array, " slots"]
    count: Int[Array, ""]
    achieved: Achieved = eqx.field(static=True)

    def draw(self, size: int, *, key: PRNGKeyArray) -> Int[Array, " batch"]:
        return self.listed[jr.randint(key, (size,), 0, self.count)]

    def take(self, index: Int[Array, " batch"]) -> Step:
        capacity = len(self.ends) // len(self.oldest)
        env, age = index // capacity, index % capacity
        where = slot(env, self.oldest[env] + age, capacity)
        observation = self.observation[where]
        extras = jax.tree.map(lambda x: x[where], self.extras)
        return Step(observation, self.action[where], self.achieved(observation), extras)

    def last(self, index: Int[Array, " batch"]) -> Int[Array, " batch"]:
        return self.ends[index]


def slot(
    env: Int[Array, "*#shape"], number: Int[Array, "*#shape"], capacity: int
) -> Int[Array, "*#shape"]:
    """Where the row of that number, counted from the first ever, lies in memory."""
    return capacity * env + number % capacity
