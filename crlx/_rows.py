import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from ._types import Step


class AbstractRows(eqx.Module):
    """Stored time steps, addressed by logical row number; a trajectory's rows are consecutive.

    Goals are chosen by index and gathered, so a minibatch needs O(batch) memory beside the data.
    """

    @abc.abstractmethod
    def draw(self, size: int, *, key: PRNGKeyArray) -> Int[Array, " batch"]:
        """`size` rows, independent and uniform over those with an action and a stored successor
        (row `index + 1`)."""

    @abc.abstractmethod
    def take(self, index: Int[Array, " batch"]) -> Step:
        """Gathers rows."""

    @abc.abstractmethod
    def last(self, index: Int[Array, " batch"]) -> Int[Array, " batch"]:
        """The last row of each row's trajectory that may serve as its goal.

        Invariants: `index <= last(index)` and `last(last(index)) == last(index)`.
        """


class OfflineRows(AbstractRows):
    """A whole dataset in OGBench's compact layout: `length + 1` rows for `length` transitions.

    The final row of an episode is a successor only: it is never drawn and never a trajectory
    goal. Every number is stored once.

    ??? cite
        OGBench (Park et al., arXiv 2410.20092), `compact_dataset=True`.
    """

    steps: Step
    ends: Int[Array, " rows"]
    drawable: Int[Array, " drawable"]

    def __init__(self, steps: Step, terminals: np.ndarray):
        """**Arguments:**

        - `steps`: the rows. Where goals are observations, pass one array twice: it is stored once.
        - `terminals`: `[rows]`, true on the final row of each episode.
        """
        arrays = {id(x): x for x in jax.tree.leaves(steps)}
        arrays = {name: jnp.asarray(x) for name, x in arrays.items()}
        steps = jax.tree.map(lambda x: arrays[id(x)], steps)
        terminals = np.asarray(terminals, bool)
        _check(steps, terminals)
        final = np.flatnonzero(terminals)
        ends = np.repeat(final, np.diff(final, prepend=-1)) - 1
        ends[final] = final
        self.steps = steps
        self.ends = jnp.asarray(ends, jnp.int32)
        self.drawable = jnp.asarray(np.flatnonzero(~terminals), jnp.int32)

    def draw(self, size: int, *, key: PRNGKeyArray) -> Int[Array, " batch"]:
        return self.drawable[jr.randint(key, (size,), 0, self.drawable.shape[0])]

    def take(self, index: Int[Array, " batch"]) -> Step:
        return jax.tree.map(lambda x: x[index], self.steps)

    def last(self, index: Int[Array, " batch"]) -> Int[Array, " batch"]:
        return self.ends[index]


def _check(steps: Step, terminals: np.ndarray) -> None:
    for name in ("observation", "action", "achieved"):
        array = getattr(steps, name)
        if not isinstance(array, jax.Array):
            raise ValueError(f"`{name}` is {type(array).__name__}; give an array `[rows, size]`.")
        if array.ndim != 2 or not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(
                f"`{name}` is {array.dtype}{list(array.shape)}; give floats of `[rows, size]`."
            )
    if terminals.ndim != 1:
        raise ValueError(f"`terminals` has the shape {list(terminals.shape)}; give `[rows]`.")
    lengths = {x.shape[0] for x in jax.tree.leaves(steps)} | {terminals.shape[0]}
    if len(lengths) != 1:
        raise ValueError(f"All arrays need the same number of rows; got {sorted(lengths)}.")
    if terminals.size == 0 or not terminals[-1]:
        raise ValueError("The last row must end an episode: set its entry of `terminals`.")
    if np.diff(np.flatnonzero(terminals), prepend=-1).min() < 2:
        raise ValueError(
            "An episode has a single row, hence no transition; remove such episodes first."
        )
    if terminals.size >= 2**31:
        raise ValueError(f"At most 2**31 - 1 rows are supported; got {terminals.size}.")
