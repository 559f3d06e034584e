import jax.numpy as jnp

from ._box_contacts import Contact
from ._vectors import Values, Vector, dot, minus, plus, scaled, where

_DENOMINATOR = 1e-6  # What mjx adds to the squared length of a segment.
_SAME = 1e-8  # Centres this close, per coordinate, count as the same in mjx.


def sphere_floor(centre: Vector, radius: Values) -> Contact:
    """The contact between a sphere and the floor at height 0, as in mjx's `plane_sphere`."""
    distance = centre[2] - radius
    zero = jnp.zeros_like(distance)
    point = centre[0], centre[1], centre[2] - radius - 0.5 * distance
    return Contact(distance, point, (zero, zero, zero + 1.0))


def sphere_capsule(
    centre: Vector, radius: Values, other: Vector, axis: Vector, half: Values, other_radius: Values
) -> Contact:
    """The contact between a sphere and a capsule, or another sphere if `half` is zero.

    It is that with the closest sphere inside the capsule, as in mjx: equal centres part along x.
    """
    along = dot(minus(centre, other), axis)
    share = (along + half) * (2 * half) / (4 * half * half + _DENOMINATOR)
    spot = 2 * half * jnp.clip(share, 0.0, 1.0) - half
    away = minus(centre, plus(other, scaled(spot, axis)))
    same = (jnp.abs(away[0]) <= _SAME) & (jnp.abs(away[1]) <= _SAME) & (jnp.abs(away[2]) <= _SAME)
    zero = jnp.zeros_like(away[0])
    away = where(same, (zero - 1.0, zero, zero), away)
    length = jnp.sqrt(dot(away, away))
    normal = scaled(1 / length, away)
    distance = jnp.where(same, 0.0, length) - (radius + other_radius)
    return Contact(distance, minus(centre, scaled(radius + 0.5 * distance, normal)), normal)
