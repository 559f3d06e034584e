import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, PRNGKeyArray


class Exploration(eqx.Module):
    r"""How agents act, in part, otherwise than by the behaviour.

    Samples of a policy slide along a wall where its mode is stuck, so a critic that sees samples
    alone never learns that the mode fails there, nor what would help. And samples end near each
    other, since their noise averages out: a push that lasts carries the agent elsewhere.

    - The first environments act by the mode of the policy, as it is evaluated.
    - In all environments, pushes begin and end: with probability `1 / hold` a step, what is added
      to the actions is drawn anew, $u \sim U(-1, 1)^{act}$ with probability `pushed`, and nothing
      otherwise. The sum is clipped to [-1, 1] and stored as the action. Pushes do not end with
      episodes.

    **Arguments:**

    - `greedy`: the share of environments that act by the mode.
    - `pushed`: the share of the time in which an agent is pushed.
    - `hold`: steps that a push lasts, in the mean.

    ??? cite
        Environments that explore differently side by side are those of Horgan et al., Distributed
        Prioritized Experience Replay (ICLR 2018); exploration that lasts is that of Dabney et al.,
        Temporally-Extended ε-Greedy Exploration (ICLR 2021), which repeats a random action in place
        of the agent's.
    """

    greedy: float = 0.0
    pushed: float = 0.0
    hold: int = 20

    def __check_init__(self):
        for name in ("greedy", "pushed"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` is a share, 0 to 1; got {getattr(self, name)}.")
        if self.hold < 1:
            raise ValueError(f"`hold` is at least 1; got {self.hold}.")

    def acts_greedily(self, envs: int) -> Bool[Array, " envs"]:
        """Which of the environments act by the mode."""
        return jnp.arange(envs) < round(self.greedy * envs)

    def next_push(
        self, push: Float[Array, "envs act"], *, key: PRNGKeyArray
    ) -> Float[Array, "envs act"]:
        """What is added to the next actions, where `push` was added to those before (nothing at
        first)."""
        if self.pushed == 0:
            return push
        dkey, wkey, ukey = jr.split(key, 3)
        due = jr.bernoulli(dkey, 1 / self.hold, (len(push), 1))
        begins = jr.bernoulli(wkey, self.pushed, (len(push), 1))
        drawn = jr.uniform(ukey, push.shape, push.dtype, minval=-1, maxval=1)
        return jnp.where(due, jnp.where(begins, drawn, 0), push)
