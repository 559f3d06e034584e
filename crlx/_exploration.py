import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray


class Exploration(eqx.Module):
    r"""How a part of the environments acts otherwise than by the behaviour.

    Samples of a policy slide along a wall where its mode is stuck, so a critic that sees samples
    alone never learns that the mode fails there. And samples end near each other, since their noise
    averages out: a push that lasts carries the agent elsewhere.

    - The first environments act by the mode of the policy, as it is evaluated.
    - The last ones are pushed: to each action is added $u \sim U(-1, 1)^{act}$, drawn anew at each
      step with probability `1 / hold`. The sum is clipped to [-1, 1] and stored as the action.

    **Arguments:**

    - `greedy`: the share of environments that act by the mode.
    - `pushed`: the share of those that are pushed.
    - `hold`: steps that a push lasts, in the mean.

    ??? cite
        Environments that explore differently side by side are those of Horgan et al., Distributed
        Prioritized Experience Replay (ICLR 2018); noise with a memory is that of Lillicrap et al.,
        Continuous control with deep reinforcement learning (ICLR 2016).
    """

    greedy: float = 0.0
    pushed: float = 0.0
    hold: int = 20

    def __check_init__(self):
        for name in ("greedy", "pushed"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` is a share, 0 to 1; got {getattr(self, name)}.")
        if self.greedy + self.pushed > 1:
            raise ValueError(
                f"The shares `greedy` and `pushed` are of different environments, together at most "
                f"1; got {self.greedy} and {self.pushed}: use `pushed` {1 - self.greedy:g} or less."
            )
        if self.hold < 1:
            raise ValueError(f"`hold` is at least 1; got {self.hold}.")

    def acts_greedily(self, envs: int) -> Bool[Array, " envs"]:
        """Which of the environments act by the mode."""
        return jnp.asarray(_middles(envs) < self.greedy)

    def is_pushed(self, envs: int) -> Bool[Array, " envs"]:
        """Which of them are pushed."""
        return jnp.asarray(_middles(envs) > 1 - self.pushed)

    def push(
        self, push: Float[Array, "envs act"], *, key: PRNGKeyArray
    ) -> Float[Array, "envs act"]:
        """What is added to the next actions, where `push` was added to those before (zero at
        first)."""
        if self.pushed == 0:
            return push
        dkey, ukey = jr.split(key)
        envs = len(push)
        started = jnp.any(push != 0, axis=1)
        due = ~started | jr.bernoulli(dkey, 1 / self.hold, (envs,))
        drawn = jr.uniform(ukey, push.shape, push.dtype, minval=-1, maxval=1)
        return jnp.where((due & self.is_pushed(envs))[:, None], drawn, push)


def _middles(envs: int) -> np.ndarray:
    """Where each environment lies among all, from 0 to 1."""
    return (np.arange(envs) + 0.5) / envs
