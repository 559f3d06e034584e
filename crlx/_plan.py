import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Plan(eqx.Module):
    """Actions that were decided on together and are carried out one after the other, for each of
    several environments.

    **Arguments:**

    - `actions`: those of the newest decision.
    - `done`: how many of them have been carried out; 0 where the next decision is due.
    """

    actions: Float[Array, "envs chunk act"]
    done: Int[Array, " envs"]

    @staticmethod
    def start(envs: int, chunk: int, action_size: int) -> "Plan":
        """Nothing is decided yet."""
        return Plan(jnp.zeros((envs, chunk, action_size), jnp.float32), jnp.zeros(envs, jnp.int32))

    def follow(
        self, decided: Float[Array, "envs decision"]
    ) -> tuple[Float[Array, "envs act"], "Plan"]:
        """The actions to take now, from the decisions of this moment where one is due.

        Raises `ValueError` for decisions on another number of actions.
        """
        envs, chunk, size = self.actions.shape
        if decided.shape != (envs, chunk * size):
            raise ValueError(
                f"The policy decides on {decided.shape[1]} numbers at once, but what acts with it "
                f"expects {chunk} x {size}: `chunk` must be the `length` of `objectives.Chunked`."
            )
        due = (self.done == 0)[:, None, None]
        actions = jnp.where(due, decided.reshape(self.actions.shape), self.actions)
        return actions[jnp.arange(envs), self.done], Plan(actions, (self.done + 1) % chunk)

    def drop(self, ended: Bool[Array, " envs"]) -> "Plan":
        """The plan, with a decision due where an episode has ended."""
        return Plan(self.actions, jnp.where(ended, 0, self.done))
