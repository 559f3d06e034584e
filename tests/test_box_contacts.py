import contextlib

import hypothesis
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import strategies as st
from mujoco.mjx._src import collision_convex, mesh
from mujoco.mjx._src.collision_types import GeomInfo

from crlx.envs.walls._box_contacts import Contact, Corner, capsule_box, sphere_box
from crlx.envs.walls._pair_contacts import sphere_capsule


@contextlib.contextmanager
def lenient():
    """MJX relies on promotion."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def mjx(centre, rotation, size, middle, half):
    """MJX's own contacts of a sphere and of a capsule with a box."""
    info = GeomInfo(middle, jnp.eye(3, dtype=half.dtype), half[None])
    box = mesh.box(info)
    box = box.replace(size=half, vert=box.vert[0], face=box.face[0])
    body = GeomInfo(centre, rotation, size)
    return collision_convex._sphere_convex(body, box), collision_convex._capsule_convex(body, box)


def bodies(key, scale, rows=4000):
    """Spheres and capsules within a cell of a corner: inside, around and on top of the box, often
    near an edge or a face, often nearly parallel to some of them."""
    keys = jr.split(key, 9)
    low, high = jnp.array([-0.5, -0.5, -0.1]) * scale, jnp.array([0.5, 0.5, 0.7]) * scale
    anywhere = jr.uniform(keys[0], (rows, 3), minval=low, maxval=high)
    edges = 0.15 * jr.normal(keys[1], (rows, 3))
    edges = edges.at[:, 2].add(0.5 * scale * jr.bernoulli(keys[2], 0.8, (rows,)))
    centre = jnp.where(jr.bernoulli(keys[3], 0.5, (rows, 3)), edges, anywhere)
    frame = jr.normal(keys[4], (rows, 3))
    frame = jnp.where(jr.bernoulli(keys[5], 0.2, (rows, 3)), 0.02 * frame, frame)
    axis = frame / jnp.linalg.norm(frame, axis=1, keepdims=True)
    half = 0.5 * scale * jr.uniform(keys[6], (rows,), minval=0.05, maxval=0.2)
    radius = jr.uniform(keys[7], (rows,), minval=0.03, maxval=0.15)
    side = jnp.where(jr.bernoulli(keys[8], 0.5, (2, rows)), 1.0, -1.0)
    return centre, axis, half, radius, side


def check(contact, distance, point, normal, tolerance):
    touching = (np.asarray(distance) < 0) | (np.asarray(contact.distance) < 0)
    assert touching.mean() > 0.1
    np.testing.assert_allclose(contact.distance, distance, atol=tolerance)
    mine = np.stack(contact.point, -1), -np.stack(contact.normal, -1)
    for value, expected in zip(mine, (point, normal), strict=True):
        np.testing.assert_allclose(value[touching], np.asarray(expected)[touching], atol=tolerance)


@hypothesis.settings(max_examples=4)
@hypothesis.given(seed=st.integers(0, 2**20), scale=st.sampled_from((2.0, 4.0)))
def test_boxes_equal_those_of_mjx(seed, scale):
    with jax.enable_x64(True), lenient():
        centre, axis, half, radius, side = bodies(jr.key(seed), scale)
        other = jnp.cross(axis, jnp.array([0.3, 0.5, 0.7]))
        other = other / jnp.linalg.norm(other, axis=1, keepdims=True)
        rotation = jnp.stack([other, jnp.cross(axis, other), axis], axis=-1)
        size = jnp.stack([radius, half, 0 * half], axis=-1)
        middle = jnp.stack([*(0.5 * scale * side), jnp.full_like(half, 0.25 * scale)], axis=-1)
        box = jnp.array([0.5, 0.5, 0.25]) * scale
        both = jax.jit(jax.vmap(mjx, (0, 0, 0, 0, None)))
        sphere, capsule = both(centre, rotation, size, middle, box)
    with jax.enable_x64(True):
        mine = jax.jit(
            lambda *a: (
                sphere_box(a[0], a[3], Corner(a[4], a[5], scale, 0.5 * scale)),
                capsule_box(*a[:4], Corner(a[4], a[5], scale, 0.5 * scale)),
            )
        )(tuple(centre.T), tuple(axis.T), half, radius, *side)
    # Spheres differ by mjx's regularisation, which is turned by up to 1e-6 over their distance.
    touching = np.asarray(sphere[0]) < 0
    np.testing.assert_allclose(mine[0].distance, sphere[0], atol=1e-9)
    points = np.stack(mine[0].point, -1)[touching], np.asarray(sphere[1])[touching]
    np.testing.assert_allclose(*points, atol=1e-4)
    assert np.quantile(np.abs(points[0] - points[1]), 0.99) < 1e-6
    for i, contact in enumerate(mine[1]):
        check(contact, *(value[:, i] for value in capsule), tolerance=1e-9)


@pytest.mark.parametrize(
    "centre, distance, point, normal",
    (
        ((-1.0, 0.1, 0.5), -0.1, (-1.0, -0.05, 0.5), (0, 1, 0)),  # Before a face.
        ((0.06, 0.08, 0.5), -0.1, (-0.03, -0.04, 0.5), (0.6, 0.8, 0)),  # Before the edge.
        ((-0.5, -0.1, 0.5), -0.3, (-0.5, -0.15, 0.5), (0, 1, 0)),  # Inside.
        ((-1.0, -1.0, 1.1), -0.1, (-1.0, -1.0, 0.95), (0, 0, 1)),  # On top.
        ((1.0, -1.0, 0.5), 1.0, None, None),
    ),
)
def test_known_spheres(centre, distance, point, normal):
    corner = Corner(jnp.array([-1.0]), jnp.array([-1.0]), 2.0, 1.0)
    x, y, z = (jnp.array([value]) for value in centre)
    contact = sphere_box((x, y, z), jnp.array([0.2]), corner)
    np.testing.assert_allclose(contact.distance, [distance], atol=1e-6)
    if point is not None:
        np.testing.assert_allclose(np.stack(contact.normal)[:, 0], normal, atol=1e-6)
        np.testing.assert_allclose(np.stack(contact.point)[:, 0], point, atol=1e-6)


def test_a_capsule_of_no_length_meets_as_a_sphere(getkey):
    centre, other, axis = (tuple(jr.normal(getkey(), (3, 50))) for _ in range(3))
    radius = jnp.full(50, 0.5)
    contact: Contact = sphere_capsule(centre, radius, other, axis, 0 * radius, 2 * radius)
    gap = np.linalg.norm(np.stack(centre) - np.stack(other), axis=0) - 1.5
    np.testing.assert_allclose(contact.distance, gap, atol=1e-5)
