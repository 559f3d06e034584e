import contextlib
import pathlib
import warnings

import brax.envs
import hypothesis
import jax
import jax.numpy as jnp
import jax.random as jr
import mujoco
import numpy as np
import pytest
from brax.io import mjcf
from brax.spring import pipeline
from hypothesis import strategies as st

from crlx.envs.walls._collisions import Collisions
from crlx.envs.walls._near_walls import Walls
from crlx.envs.walls._spring import step

MAZES = {
    "u": "##### #..## ###.# #...# #####",
    "rooms": "######## #..##..# #..#...# ##...### #..#...# #.#..#.# #...#..# ########",
}
BODIES = {"ant": (4.0, 0.005), "humanoid": (2.0, 0.0015)}


@contextlib.contextmanager
def lenient():
    """Brax and MJX rely on promotion."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def model(body, cells, walls):
    """A body that collides with walls, with or without a box for each of them."""
    scale, timestep = BODIES[body]
    file = pathlib.Path(brax.envs.__file__).parent / "assets" / f"{body}.xml"
    spec = mujoco.MjSpec.from_file(str(file))
    for geom in spec.geoms:
        if body == "humanoid" and geom.name != "floor":
            geom.contype = 1
        if geom.name == "torso_geom" or geom.name.startswith("aux") or "foot_geom" in geom.name:
            geom.conaffinity = 1
    for i, j in np.argwhere(cells) if walls else ():
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[i * scale, j * scale, scale / 4],
            size=[scale / 2, scale / 2, scale / 4],
            contype=1,
            conaffinity=1,
        )
    spec.option.timestep = timestep
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return mjcf.loads(spec.to_xml())


@pytest.mark.parametrize(
    "body, maze", (("ant", "rooms"), pytest.param("humanoid", "u", marks=pytest.mark.thorough))
)
def test_near_walls_do_what_all_walls_do(body, maze, getkey):
    """Random walks from corridors, corners, wall tops and the insides of walls."""
    cells = np.array([[c == "#" for c in row] for row in MAZES[maze].split()])
    near, full = model(body, cells, False), model(body, cells, True)
    with lenient():
        collisions = Collisions.of(near, Walls(cells, BODIES[body][0]))
    batch, steps, scale = 32, 20, BODIES[body][0]
    free = jnp.asarray(np.argwhere(~cells), jnp.float32)
    with lenient():
        where = jr.choice(getkey(), free, (batch,))
        where = scale * (where + jr.uniform(getkey(), (batch, 2), minval=-0.6, maxval=0.6))
        q = jnp.tile(jnp.asarray(near.init_q), (batch, 1)).at[:, :2].set(where)
        q = q.at[:, 2].set(jr.uniform(getkey(), (batch,), minval=0.4, maxval=0.6 * scale))
        turn = jr.normal(getkey(), (batch, 4))
        turn = turn / jnp.linalg.norm(turn, axis=1, keepdims=True)
        q = q.at[: batch // 2, 3:7].set(turn[: batch // 2])
        qd = jr.normal(getkey(), (batch, near.qd_size()))
        start = jax.vmap(lambda q, qd: pipeline.init(near, q, qd))(q, qd)

        @jax.jit
        def walk(state, key):
            def advance(state, key):
                ctrl = jr.uniform(key, (batch, near.act_size()), minval=-1.0)
                ours = jax.vmap(lambda s, a: step(near, s, a, collisions))(state, ctrl)
                theirs = jax.vmap(lambda s, a: pipeline.step(full, s, a))(state, ctrl)
                free = jax.vmap(lambda s, a: pipeline.step(near, s, a))(state, ctrl)
                return ours, [(s.x, s.xd) for s in (ours, theirs, free)]

            return jax.lax.scan(advance, state, jr.split(key, steps))[1]

        ours, theirs, free = walk(start, getkey())
    for mine, other in zip(ours, theirs, strict=True):
        for value, expected in zip(jax.tree.leaves(mine), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(value, expected, atol=2e-3, rtol=1e-4)
    touching = jnp.any(jnp.abs(theirs[1].vel - free[1].vel) > 1e-2, axis=(2, 3))
    assert touching.mean() > 0.03


@hypothesis.settings(max_examples=5)
@hypothesis.given(seed=st.integers(0, 2**20), scale=st.sampled_from((2.0, 4.0)))
def test_every_wall_that_a_sphere_touches_is_near(seed, scale):
    rng = np.random.default_rng(seed)
    cells = rng.random((4, 6)) < 0.5
    centre = rng.uniform(-scale, 7 * scale, (3, 64)).astype(np.float32)
    centre[2] = rng.uniform(0, 0.6 * scale, 64)
    radius = np.full(64, 0.49 * scale, np.float32)
    walls = Walls(cells, scale)
    _, contact = walls.spheres(tuple(map(jnp.asarray, centre)), jnp.asarray(radius))
    found = (np.asarray(contact.distance) < 0).sum((0, 1))
    middle = np.argwhere(cells) * scale
    gap = np.maximum(np.abs(centre[:2, None] - middle.T[:, :, None]) - 0.5 * scale, 0)
    over = np.maximum(centre[2] - 0.5 * scale, 0)
    distance = np.sqrt((gap**2).sum(0) + over**2)
    sure = (np.abs(distance - radius) > 1e-4).all(0)
    np.testing.assert_array_equal(found[sure], (distance < radius).sum(0)[sure])


def test_one_example_equals_a_batch(getkey):
    cells = np.ones((3, 3), bool)
    with lenient():
        near = model("ant", cells, False)
        collisions = Collisions.of(near, Walls(cells, 4.0))
    links = jr.normal(getkey(), (5, collisions.links, 18))
    impulses = jax.jit(lambda links: jnp.stack(collisions.impulses(links), -1))
    alone = jnp.stack([impulses(x) for x in links])
    together = impulses(jnp.moveaxis(links, 0, -1))
    np.testing.assert_allclose(alone, jnp.moveaxis(together, 1, 0), rtol=1e-3, atol=1e-3)


def test_geoms_that_are_too_large_are_refused():
    with lenient():
        near = model("ant", np.ones((1, 1), bool), False)
        with pytest.raises(ValueError, match="half a cell"):
            Collisions.of(near, Walls(np.ones((1, 1), bool), 0.5))
