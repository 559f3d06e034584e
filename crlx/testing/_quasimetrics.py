import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._encoders import AbstractQuasimetric, pairwise
from ._require import require, require_close, require_finite


def check_quasimetric(energy: AbstractQuasimetric, *, dim: int = 8, key: PRNGKeyArray) -> None:
    """The distance is never negative, zero from a point to itself, obeys the triangle inequality
    and is not symmetric; the energy is minus the distance.

    Points are random, near and far, equal, zero, and in rows along lines, where the triangle
    inequality is tightest. Shapes and gradients are left to `check_energy`: run both.

    **Arguments:**

    - `energy`: what to check.
    - `dim`: length of the embeddings.
    """
    points = _points(dim, key)
    distance, score = eqx.filter_jit(_tables)(energy, points)
    require_finite(distance, "Distance")
    require_close(score, -distance, "A quasimetric's score is minus its distance: score")
    distance = np.asarray(distance, np.float64)
    require(
        np.all(distance >= 0),
        f"A distance is {distance.min():.3g}. Build it of what cannot be negative: norms, "
        "positive parts, and sums and maxima of them with weights that are not negative.",
    )
    require(
        not np.any(np.diagonal(distance)),
        f"A point is {np.max(np.diagonal(distance)):.3g} away from itself. Return exactly zero: "
        "select the root's argument before it and its result after, instead of adding to it.",
    )
    _require_triangle(distance)
    require(
        np.any(np.abs(distance - distance.T) > 1e-3 * distance),
        "The distance is the same both ways. Give it an asymmetric part, such as the positive "
        "part of a difference; or make it an `AbstractEnergy`, not a quasimetric.",
    )


def _points(dim: int, key: PRNGKeyArray) -> Float[Array, "points dim"]:
    gkey, akey, bkey = jr.split(key, 3)
    generic = jr.normal(gkey, (8, dim))
    start, step = jr.normal(akey, (dim,)), jr.normal(bkey, (dim,))
    times = jnp.array([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0, 100.0])[:, None]
    through_zero, elsewhere = times * step[None], start[None] + times * step[None]
    several = (generic, generic[:2], through_zero, elsewhere, 1e-3 * generic, 1e2 * generic)
    return jnp.concatenate(several)


def _tables(energy: AbstractQuasimetric, points: Float[Array, "points dim"]) -> tuple[Array, Array]:
    distances = jax.vmap(jax.vmap(energy.distance, (None, 0)), (0, None))
    return distances(points, points), pairwise(energy, points, points)


def _require_triangle(distance: np.ndarray) -> None:
    direct, first, second = distance[:, None, :], distance[:, :, None], distance[None]
    excess = direct - (first + second) * (1 + 1e-5) - 1e-6
    i, j, k = np.unravel_index(np.argmax(excess), excess.shape)
    require(
        excess[i, j, k] <= 0,
        f"From x to z it is {distance[i, k]:.4g}, but by way of y only {distance[i, j]:.4g} + "
        f"{distance[j, k]:.4g}: the triangle inequality fails. Squares and minima of distances "
        "break it; sums, maxima, and increasing concave functions that are zero at zero, keep it.",
    )
