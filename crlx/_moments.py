import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float


class Moments(eqx.Module):
    r"""Mean and variance, per coordinate, of all rows that were ever merged.

    With $n$ rows of mean $\bar x$ joining $m$ of mean $\mu$, and $\delta = \bar x - \mu$,

    $$\mu \leftarrow \mu + \tfrac{n}{m + n} \delta, \quad
      Q \leftarrow Q + \sum_i (x_i - \bar x)^2 + \tfrac{m n}{m + n} \delta^2, \quad
      \sigma^2 = Q / (m + n),$$

    so that however rows are cut into chunks, the result is that of all at once.

    **Arguments:**

    - `count`: number of rows, the weight of the start included.
    - `mean`: of each coordinate.
    - `squares`: sum of squared deviations from the mean, $Q$.
    - `lost`: of these three, what rounding has cut off so far and the next merge will add. In
      float32 alone, counting single rows ends at 2**24, and later ones would weigh too much.

    ??? cite
        Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample
        Variances (1979); as in the RSNorm of Lee et al., Hyperspherical Normalization for
        Scalable Deep RL (ICML 2025).
    """

    count: Float[Array, ""]
    mean: Float[Array, " size"]
    squares: Float[Array, " size"]
    lost: tuple[Float[Array, ""], Float[Array, " size"], Float[Array, " size"]]

    @staticmethod
    def start(size: int) -> "Moments":
        """Mean 0 and variance 1, with the weight of 1e-4 rows: the first merge replaces them."""
        count = jnp.asarray(1e-4, jnp.float32)
        zeros = jnp.zeros(size, jnp.float32)
        nothing = jnp.zeros((), jnp.float32), zeros, zeros
        return Moments(count, zeros, jnp.full(size, 1e-4, jnp.float32), nothing)

    @property
    def variance(self) -> Float[Array, " size"]:
        """The mean squared deviation from the mean, which is never negative."""
        return self.squares / self.count

    def merge(self, rows: Float[Array, "rows size"]) -> "Moments":
        """These moments with more rows, each of which counts as much as every earlier one."""
        if not len(rows):
            return self
        # Deviations from one of the rows are small and exact, whatever the offset. A rounded mean
        # in its place, which compilers may round differently at each use, would cost digits.
        deviations = rows - rows[:1]
        shift = jnp.mean(deviations, axis=0)
        squares = jnp.sum((deviations - shift[None]) ** 2, axis=0)
        delta = (rows[0] - self.mean) + (shift - self.lost[1])
        added = jnp.asarray(len(rows), jnp.float32)
        share = added / (self.count + added)
        count, no_count = _add(self.count, self.lost[0], added)
        mean, no_mean = _add(self.mean, self.lost[1], share * delta)
        squares = squares + share * self.count * delta**2
        squares, no_squares = _add(self.squares, self.lost[2], squares)
        return Moments(count, mean, squares, (no_count, no_mean, no_squares))


def _add(
    total: Float[Array, "*size"], lost: Float[Array, "*size"], more: Float[Array, "*size"]
) -> tuple[Float[Array, "*size"], Float[Array, "*size"]]:
    """A sum and what rounding cut off from it, exactly, whichever term is larger.

    ??? cite
        Knuth, The Art of Computer Programming, volume 2, section 4.2.2.
    """
    more = more + lost
    result = total + more
    part = result - total
    return result, (total - (result - part)) + (more - part)
