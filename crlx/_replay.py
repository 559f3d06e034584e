import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ._replay_rows import Achieved, ReplayRows, slot


class Replay(eqx.Module):
    """The newest rows of several environments, in memory of a fixed size.

    Rows lie as in `OfflineRows`: an episode of `length` steps has `length + 1` rows, the last of
    which holds the observation that ended it and no action. Every number is stored once. The newest
    row of an environment holds what is observed now; its action is still to come.

    **Arguments:**

    - `observation`, `action`, `extras`: `[slots, …]`, `capacity` slots for each environment.
    - `final`: whether a row only ends its episode.
    - `newest`: for each environment, the number of its newest row, counted from the first ever.
    - `capacity`: rows that are kept for each environment.
    """

    observation: Float[Array, "slots obs"]
    action: Float[Array, "slots act"]
    extras: PyTree
    final: Bool[Array, " slots"]
    newest: Int[Array, " envs"]
    capacity: int = eqx.field(static=True)

    @staticmethod
    def start(
        observation: Float[Array, "envs obs"],
        action: Float[Array, "envs act"],
        extras: PyTree = None,
        *,
        capacity: int,
    ) -> "Replay":
        """A replay memory that holds the first observations.

        **Arguments:**

        - `observation`: of each environment.
        - `action`, `extras`: anything of the shapes that are to be stored.
        - `capacity`: rows for each environment, 3 or more, so that one of them is a step even
          between the ends of two episodes.

        Raises `ValueError` for a capacity that is too small, or too large for 32-bit row numbers.
        """
        envs = observation.shape[0]
        if capacity < 3:
            raise ValueError(
                f"A replay memory keeps 3 rows or more of each environment; got {capacity}."
            )
        if envs * capacity >= 2**31:
            raise ValueError(
                f"At most 2**31 - 1 rows are supported; got {envs} environments with {capacity} "
                f"each: keep at most {(2**31 - 1) // envs}."
            )

        def room(x: Array) -> Array:
            return jnp.zeros((envs * capacity, *x.shape[1:]), x.dtype)

        newest = jnp.zeros(envs, jnp.int32)
        replay = Replay(
            room(observation),
            room(action),
            jax.tree.map(room, extras),
            jnp.zeros(envs * capacity, bool),
            newest,
            capacity,
        )
        first = _put(replay.observation, replay._slots(newest), observation)
        return eqx.tree_at(lambda r: r.observation, replay, first)

    def insert(
        self,
        action: Float[Array, "envs act"],
        extras: PyTree,
        *,
        after: Float[Array, "envs obs"],
        done: Bool[Array, " envs"],
        now: Float[Array, "envs obs"],
    ) -> "Replay":
        """The memory after one step of all environments.

        **Arguments:**

        - `action`, `extras`: of this step, which began at the newest rows.
        - `after`: the observation that it led to.
        - `done`: whether it ended the episode.
        - `now`: what is observed now: `after`, or where it is done the start of a new episode.
        """
        here, following = self._slots(self.newest), self.newest + 1
        newest = following + done.astype(jnp.int32)
        there, new = self._slots(following), self._slots(newest)
        return Replay(
            _put(_put(self.observation, there, after), new, now),
            _put(self.action, here, action),
            jax.tree.map(lambda store, x: _put(store, here, x), self.extras, extras),
            _put(_put(self.final, there, done), new, jnp.zeros_like(done)),
            newest,
            self.capacity,
        )

    def rows(self, achieved: Achieved) -> ReplayRows:
        """What may be drawn from now. Of temporary memory, it takes a few integers per row.

        **Arguments:**

        - `achieved`: what the goal space sees of observations.
        """
        age = jnp.arange(self.capacity, dtype=jnp.int32)[None, :]
        oldest = jnp.maximum(self.newest + 1 - self.capacity, 0)
        final = self.final[self._slots(oldest[:, None] + age)]
        newest = (self.newest - oldest)[:, None]
        # The age of the row with which each row's trajectory ends, so far.
        end = jnp.where(final | (age >= newest), age, self.capacity)
        end = jax.lax.cummin(end, axis=1, reverse=True)
        first = self.capacity * jnp.arange(len(oldest), dtype=jnp.int32)[:, None]
        last = first + jnp.where(end == age, age, end - 1)
        drawable = jnp.ravel((age < newest) & ~final)
        rank = jnp.cumsum(drawable, dtype=jnp.int32)
        # Rows that may not be drawn are sent beyond the end, where they are dropped.
        place = jnp.where(drawable, rank - 1, len(rank))
        index = jnp.arange(len(rank), dtype=jnp.int32)
        listed = jnp.zeros_like(rank).at[place].set(index, mode="drop")
        return ReplayRows(
            self.observation,
            self.action,
            self.extras,
            oldest,
            jnp.ravel(last),
            listed,
            rank[-1],
            achieved,
        )

    def _slots(self, number: Int[Array, "envs *ages"]) -> Int[Array, "envs *ages"]:
        envs = jnp.arange(len(number), dtype=jnp.int32)
        return slot(envs.reshape(-1, *[1] * (number.ndim - 1)), number, self.capacity)


def _put(store: Array, slots: Int[Array, " envs"], values: Array) -> Array:
    """One row for each environment, in place where the store is not needed any more."""
    return store.at[slots].set(values, indices_are_sorted=True, unique_indices=True)
