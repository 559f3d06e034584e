import abc
import math

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray


class AbstractHindsight(eqx.Module):
    """Chooses, for each row of a minibatch, the row whose achieved state serves as its goal."""

    @abc.abstractmethod
    def __call__(
        self,
        index: Int[Array, " batch"],
        last: Int[Array, " batch"],
        *,
        key: PRNGKeyArray,
    ) -> Int[Array, " batch"]:
        """**Arguments:**

        - `index`: row numbers.
        - `last`: for each, the last row of its trajectory that may be a goal.
        - `key`: a random key.

        **Returns:** goal row numbers. Strategies that stay in the trajectory return one in
        `[index, last]`, and `index` itself where nothing follows.
        """


class Geometric(AbstractHindsight):
    r"""A later row of the trajectory, `k` steps on, truncated at its end:

    $$P(k) = (1 - \gamma)\,\gamma^{k-1} / (1 - \gamma^n), \quad 1 \le k \le n = last - index.$$

    In float32 the farthest offset is about 1,586 at a discount of 0.99; the lost tail has
    mass 1.2e-7.

    **Arguments:**

    - `discount`: chance of going one row further, between 0 and 1.
    """

    discount: float = 0.99

    def __check_init__(self):
        _check_discount(self.discount)

    def __call__(self, index, last, *, key):
        left = last - index
        decay = math.log(self.discount)
        mass = -jnp.expm1(decay * left.astype(jnp.float32))  # 1 - discount**left
        # Rounding may overshoot by one.
        return index + _geometric(mass * jr.uniform(key, index.shape), decay, left)


class ClippedGeometric(AbstractHindsight):
    r"""A later row of the trajectory, geometrically far; what falls beyond it is its last row:
    $goal = \min(index + k, last)$ with $P(k) = (1 - \gamma)\gamma^{k-1}$.

    **Arguments:**

    - `discount`: chance of going one row further, between 0 and 1.

    ??? cite
        OGBench's goal sampler (Park et al., arXiv 2410.20092).
    """

    discount: float = 0.99

    def __check_init__(self):
        _check_discount(self.discount)

    def __call__(self, index, last, *, key):
        decay = math.log(self.discount)
        return index + _geometric(jr.uniform(key, index.shape), decay, last - index)


class Uniform(AbstractHindsight):
    """Any later row of the trajectory, each with the same chance."""

    def __call__(self, index, last, *, key):
        left = last - index
        chance = jr.uniform(key, index.shape)
        ahead = 1 + jnp.floor(chance * left.astype(jnp.float32)).astype(index.dtype)
        return index + jnp.minimum(ahead, left)


class Current(AbstractHindsight):
    """The row itself."""

    def __call__(self, index, last, *, key):
        del last, key
        return index


class Final(AbstractHindsight):
    """The last row of the trajectory."""

    def __call__(self, index, last, *, key):
        del index, key
        return last


class Anywhere(AbstractHindsight):
    """A row of the whole data: the minibatch's own rows, rolled by a random non-zero shift.

    Rows are drawn independently, so each pair has the law of two independent draws.
    """

    def __call__(self, index, last, *, key):
        del last
        if index.shape[0] < 2:
            raise ValueError("`Anywhere` takes goals from other rows: use a batch of at least 2.")
        return jnp.roll(index, jr.randint(key, (), 1, index.shape[0]))


class Mixture(AbstractHindsight):
    """One of several strategies, chosen for each row by weight.

    **Arguments:**

    - `choices`: the strategies.
    - `weights`: the chance of each; they sum to one.
    """

    choices: tuple[AbstractHindsight, ...]
    weights: tuple[float, ...]

    def __check_init__(self):
        if len(self.choices) != len(self.weights) or not self.choices:
            raise ValueError(
                f"Give one weight per choice; got {len(self.choices)} choices and "
                f"{len(self.weights)} weights."
            )
        if min(self.weights) < 0 or not math.isclose(sum(self.weights), 1, abs_tol=1e-6):
            raise ValueError(f"Weights must be non-negative and sum to one; got {self.weights}.")

    def __call__(self, index, last, *, key):
        pkey, *keys = jr.split(key, 1 + len(self.choices))
        goals = jnp.stack([c(index, last, key=k) for c, k in zip(self.choices, keys, strict=True)])
        weights: Float[Array, " choices"] = jnp.asarray(self.weights, jnp.float32)
        choice = jr.choice(pkey, len(self.choices), index.shape, p=weights)
        return jnp.take_along_axis(goals, choice[None], axis=0)[0]


class Windowed(AbstractHindsight):
    """`inner`, but with the trajectory cut at most `1 … length - 1` rows ahead, at random.

    Reproduces the horizon of the paper's released code, whose goals end with a random window of
    `length` steps.

    **Arguments:**

    - `inner`: chooses among the rows that are left.
    - `length`: rows of the window.
    """

    inner: AbstractHindsight
    length: int = 1000

    def __check_init__(self):
        if self.length < 2:
            raise ValueError(f"A window has at least 2 rows; got {self.length}.")

    def __call__(self, index, last, *, key):
        wkey, ikey = jr.split(key)
        window = jr.randint(wkey, index.shape, 1, self.length, index.dtype)
        return self.inner(index, jnp.minimum(last, index + window), key=ikey)


def _geometric(
    chance: Float[Array, " batch"], decay: float, most: Int[Array, " batch"]
) -> Int[Array, " batch"]:
    """The smallest `k >= 1` with `1 - exp(decay * k) > chance`, or `most` if that is smaller."""
    ahead = 1 + jnp.floor(jnp.log1p(-chance) / decay)
    # Discounts next to one reach beyond the integers: cut before the cast.
    return jnp.minimum(jnp.minimum(ahead, 2.0**30).astype(most.dtype), most)


def _check_discount(discount: float) -> None:
    if not 0 < discount < 1:
        raise ValueError(f"A discount lies strictly between 0 and 1; got {discount}.")
