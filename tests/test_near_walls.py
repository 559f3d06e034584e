import dataclasses
import functools

import hypothesis
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from brax.spring import pipeline
from hypothesis import strategies as st
from lengths import at_length

from crlx.envs.tasks import (
    BALL_LAYOUTS,
    LAYOUTS,
    Ant,
    AntBall,
    Cells,
    GoalEnv,
    Humanoid,
    Layout,
    Locomotion,
    Point,
)
from crlx.envs.tasks import loose_types as lenient
from crlx.envs.walls import Collisions, Walls, step

TASKS = {
    "ant": lambda text: Locomotion(Ant(), Cells(text)),
    "humanoid": lambda text: Locomotion(Humanoid(), Cells(text)),
    "point": lambda text: Locomotion(Point(), Cells(text)),
    "ant_ball": AntBall,
}
MAZES = {"ant": LAYOUTS, "humanoid": LAYOUTS, "point": LAYOUTS, "ant_ball": BALL_LAYOUTS}
CASES = [(task, name) for task in MAZES for name in MAZES[task]]
QUICK = {("point", "u_maze")}  # The others compile long.
SHAPE = tuple(np.max([Layout(text).walls.shape for text in LAYOUTS.values()], axis=0))
FAR = -1000.0
BATCH, STEPS = 64, 20


def make(task, drawing):
    return GoalEnv(task, TASKS[task](drawing))


@functools.cache
def compiled(task):
    """Walks beside near walls and, from the same states, steps beside all walls.

    One program serves every maze: it has as many boxes as the largest, of which those that a maze
    does not need are far away.
    """
    largest = max(MAZES[task].values(), key=lambda text: Layout(text).walls.sum())
    env = make(task, largest)
    near, full, scale = env.sys, env.task.system("spring", drawn=True), env.traits.walls.scale
    full = full.tree_replace({"opt.timestep": near.opt.timestep})
    boxes = np.flatnonzero(full.geom_type == 6)  # As in `mujoco.mjtGeom`.
    with lenient():
        collisions = Collisions.of(near, Walls(np.ones(SHAPE, bool), scale))

    @jax.jit
    def walk(cells, places, q, qd, key):
        some = dataclasses.replace(collisions, walls=Walls(cells, scale))
        every = full.replace(geom_pos=full.geom_pos.at[boxes, :2].set(places))

        def advance(state, key):
            ctrl = jr.uniform(key, (BATCH, near.act_size()), minval=-1.0)
            ours = jax.vmap(lambda s, a: step(near, s, a, some))(state, ctrl)
            theirs = jax.vmap(lambda s, a: pipeline.step(every, s, a))(state, ctrl)
            return ours, [(s.x, s.xd) for s in (ours, theirs)]

        state = jax.vmap(lambda q, qd: pipeline.init(near, q, qd))(q, qd)
        return jax.lax.scan(advance, state, jr.split(key, STEPS))[1]

    return near, len(boxes), scale, walk


def edges(cells):
    """The corners of cells around which there are walls and free cells, in cells."""
    around = np.stack([cells[:-1, :-1], cells[:-1, 1:], cells[1:, :-1], cells[1:, 1:]])
    return np.argwhere(around.any(0) & ~around.all(0)) + np.float32(0.5)


def starts(task, near, cells, scale, getkey):
    """In corridors and corners, on wall tops and inside walls, half of them lying anyhow; a ball
    beside its ant."""
    where = jr.choice(getkey(), jnp.asarray(edges(cells)), (BATCH,))
    where = scale * (where + jr.uniform(getkey(), (BATCH, 2), minval=-0.5, maxval=0.5))
    q = jnp.tile(jnp.asarray(near.init_q), (BATCH, 1)).at[:, :2].set(where)
    if near.q_size() > 7:  # More than a point and its target.
        q = q.at[:, 2].set(jr.uniform(getkey(), (BATCH,), minval=0.4, maxval=0.6 * scale))
        turn = jr.normal(getkey(), (BATCH // 2, 4))
        turn = turn / jnp.linalg.norm(turn, axis=1, keepdims=True)
        q = q.at[: BATCH // 2, 3:7].set(turn)
    if task == "ant_ball":
        q = q.at[:, 15:17].set(where + jr.normal(getkey(), where.shape))
    return q, jr.normal(getkey(), (BATCH, near.qd_size()))


@pytest.mark.parametrize("task, name", at_length(CASES, QUICK))
def test_near_walls_do_what_all_walls_do(task, name, getkey):
    near, boxes, scale, walk = compiled(task)
    walls = Layout(MAZES[task][name]).walls
    cells, places = np.zeros(SHAPE, bool), np.full((boxes, 2), FAR, np.float32)
    cells[np.nonzero(walls)] = True
    places[: walls.sum()] = scale * np.argwhere(walls)
    with lenient():
        own = *starts(task, near, walls, scale, getkey), getkey()
        ours, theirs = walk(cells, places, *own)
        free = walk(np.zeros_like(cells), np.full_like(places, FAR), *own)[0]
    for mine, other in zip(ours, theirs, strict=True):
        for value, expected in zip(jax.tree.leaves(mine), jax.tree.leaves(other), strict=True):
            # Contacts amplify rounding: from a state changed in its last digit, a humanoid's link
            # beside all walls ends up to 5e-3 m/s faster or slower, too.
            np.testing.assert_allclose(value, expected, atol=1e-2)
            apart = ~np.isclose(value, expected, atol=2e-4, rtol=2e-5)
            assert apart.mean() < 1e-3
    touching = jnp.any(jnp.abs(ours[1].vel - free[1].vel)[0] > 1e-2, axis=(1, 2))
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


@pytest.mark.thorough
def test_one_example_equals_a_batch(getkey):
    cells = np.ones((3, 3), bool)
    with lenient():
        near = make("ant", LAYOUTS["u_maze"]).sys
        collisions = Collisions.of(near, Walls(cells, 4.0))
    links = jr.normal(getkey(), (5, collisions.links, 18))
    impulses = jax.jit(lambda links: jnp.stack(collisions.impulses(links), -1))
    alone = jnp.stack([impulses(x) for x in links])
    together = impulses(jnp.moveaxis(links, 0, -1))
    np.testing.assert_allclose(alone, jnp.moveaxis(together, 1, 0), rtol=1e-3, atol=1e-3)


def test_geoms_that_are_too_large_are_refused():
    with lenient():
        near = make("ant", LAYOUTS["u_maze"]).sys
        with pytest.raises(ValueError, match="half a cell"):
            Collisions.of(near, Walls(np.ones((1, 1), bool), 0.5))
