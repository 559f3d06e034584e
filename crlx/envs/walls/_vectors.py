"""Vectors as three arrays of coordinates, so that arithmetic runs along the batch."""

from typing import TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Values: TypeAlias = Float[Array, "..."]
"""One number per contact; shapes broadcast against each other, batches last."""
Vector: TypeAlias = tuple[Values, Values, Values]


def dot(a: Vector, b: Vector) -> Values:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a: Vector, b: Vector) -> Vector:
    x = a[1] * b[2] - a[2] * b[1]
    y = a[2] * b[0] - a[0] * b[2]
    return x, y, a[0] * b[1] - a[1] * b[0]


def plus(a: Vector, b: Vector) -> Vector:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def minus(a: Vector, b: Vector) -> Vector:
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def scaled(by: Values | float, a: Vector) -> Vector:
    return by * a[0], by * a[1], by * a[2]


def halfway(a: Vector, b: Vector) -> Vector:
    return scaled(0.5, plus(a, b))


def where(take: Bool[Array, "..."], a: Vector, b: Vector) -> Vector:
    return jnp.where(take, a[0], b[0]), jnp.where(take, a[1], b[1]), jnp.where(take, a[2], b[2])


def rotated(a: Vector, rotation: tuple[Values, Values, Values, Values]) -> Vector:
    """A vector rotated by a quaternion of length 1, real part first."""
    real, *imaginary = rotation
    axis = imaginary[0], imaginary[1], imaginary[2]
    along = scaled(2 * dot(axis, a), axis)
    kept = scaled(real * real - dot(axis, axis), a)
    return plus(plus(along, kept), scaled(2 * real, cross(axis, a)))


def once(value: Values) -> Values:
    """The same values, computed once.

    On CPUs, XLA computes cheap values anew for everything that uses them, which would be many
    times as much work as all of a contact. It never repeats a division, though, and it cannot see
    that this one is by 1.
    """
    return value / jnp.minimum(1.0, 1.0 + value * value)


def kept(a: Vector) -> Vector:
    """The same vector, computed once."""
    return once(a[0]), once(a[1]), once(a[2])
