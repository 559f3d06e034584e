import itertools

import jax.random as jr
import mujoco
import numpy as np
import pytest
from arms import FINGERS, JOINTS, NAMES, POSE, environment, places, starts
from scipy import stats


@pytest.mark.parametrize("name", NAMES)
def test_model(name):
    sys = environment(name).sys
    model, full = sys.mj_model, name != "arm_reach"
    links = [*(f"link{number}" for number in range(1, 8)), *(FINGERS if full else ())]
    assert list(sys.link_names) == [*(("cube",) if full else ()), *links]
    assert (model.nq, model.nv) == ((16, 15) if full else (7, 7))
    option = model.opt
    assert (option.iterations, option.ls_iterations, option.timestep) == (6, 12, 0.002)
    assert option.impratio == (10 if "binpick" in name else 1)
    assert option.integrator == mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    assert (option.solver, option.cone) == (2, 0)  # Newton, pyramids.
    dofs = [model.joint(joint).dofadr[0] for joint in JOINTS]
    for values in (model.dof_armature, model.dof_damping, model.dof_frictionloss):
        np.testing.assert_array_equal(values[dofs], 0)
    limits = dict(enumerate(((), (-1.7628, 1.7628), (), (-3.0718, -0.0698), (), (-0.0175, 3.7525))))
    for number, joint in enumerate(JOINTS):
        own = model.joint(joint)
        assert bool(own.limited[0]) == bool(limits.get(number))
        if own.limited[0]:
            np.testing.assert_allclose(own.range, limits[number], atol=1e-5)
    if full:
        fingers = [model.joint(joint).dofadr[0] for joint in FINGERS]
        np.testing.assert_array_equal(model.dof_armature[fingers], 0.1)
        np.testing.assert_array_equal(model.dof_damping[fingers], 5)
        assert model.body("cube").mass[0] == pytest.approx(0.216)
        np.testing.assert_allclose(model.body("cube").inertia, 1.296e-4)
        np.testing.assert_allclose(
            model.body("left_finger").mass, 0.016 if "grasp" in name else 0.015
        )


def about_origin(model, name):
    """Inertia of a link about its origin."""
    body = model.body(name)
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, body.iquat)
    rotation = rotation.reshape(3, 3)
    return rotation @ np.diag(body.inertia) @ rotation.T + steiner(body.mass[0], body.ipos)


def steiner(mass, at):
    return mass * (np.dot(at, at) * np.eye(3) - np.outer(at, at))


def test_inertia_of_a_link():
    mass, centre = 3.587895, np.array([-0.05317, 0.104419, 0.027454])
    own = np.array(
        [
            [0.025853, 0.007796, -0.001332],
            [0.007796, 0.019552, 0.008641],
            [-0.001332, 0.008641, 0.028323],
        ]
    )
    model = environment("arm_reach").sys.mj_model
    expected = own + steiner(mass, centre)
    np.testing.assert_allclose(about_origin(model, "link4"), expected, atol=1e-6)


def test_tipped_fingers_weigh_what_their_parts_do():
    own, tip = np.diag([2.375e-6, 2.375e-6, 7.5e-7]), np.array([0, 0.005, 0.07])
    expected = own + np.eye(3) * 0.001 * 0.01**2 / 6 + steiner(0.001, tip)
    model = environment("arm_grasp").sys.mj_model
    for name in FINGERS:
        np.testing.assert_allclose(about_origin(model, name), expected, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_pairs(name):
    """What may touch, exactly; and as MuJoCo has it for pairs that say nothing."""
    model = environment(name).sys.mj_model
    hand = ("hand", *FINGERS)
    pairs = {("table", "hand")}
    if name != "arm_reach":
        pairs |= {(one, other) for one in ("table", "cube") for other in hand}
        pairs |= {("table", "cube"), FINGERS}
    if "binpick" in name:
        sides = itertools.product(("left", "right"), ("near", "far", "west", "east"))
        walls = ["_".join(side) for side in sides]
        pairs |= set(itertools.product(walls, ("cube", *hand)))
    both = zip(model.pair_geom1, model.pair_geom2, strict=True)
    own = [frozenset(model.geom(geom).name for geom in pair) for pair in both]
    assert len(own) == {"arm_reach": 1}.get(name, 40 if "binpick" in name else 8)
    assert set(own) == set(map(frozenset, pairs))
    for values in (model.geom_contype, model.geom_conaffinity, model.pair_margin):
        np.testing.assert_array_equal(values, 0)
    np.testing.assert_array_equal(model.pair_dim, 3)
    for values, default in (
        (model.pair_friction, (1, 1, 0.005, 0.0001, 0.0001)),
        (model.pair_solref, (0.02, 1)),
        (model.pair_solimp, (0.9, 0.95, 0.001, 0.5, 2)),
    ):
        np.testing.assert_allclose(values, np.broadcast_to(default, values.shape))


@pytest.mark.parametrize(
    "name, apart, opening", (("arm_binpick_easy", 0.17, 0.27), ("arm_binpick_hard", 0.3, 0.37))
)
def test_bins(name, apart, opening):
    """Walls 6.6 cm high and 1 cm thick around square openings, without gaps or overlaps."""
    model = environment(name).sys.mj_model
    for side, x in (("left", -apart), ("right", apart)):
        low, high = {}, {}
        for place in ("near", "far", "west", "east"):
            wall = model.geom(f"{side}_{place}")
            low[place], high[place] = wall.pos - wall.size, wall.pos + wall.size
            np.testing.assert_allclose((low[place][2], high[place][2]), (0, 0.066), atol=1e-9)
            np.testing.assert_allclose(min(2 * wall.size), 0.01)
        inner = (high["west"][0], low["east"][0], high["near"][1], low["far"][1])
        half = opening / 2
        np.testing.assert_allclose(inner, (x - half, x + half, 0.6 - half, 0.6 + half))
        for place in ("west", "east"):
            np.testing.assert_allclose((low[place][1], high[place][1]), inner[2:])
        for place in ("near", "far"):
            ends = (low[place][0], high[place][0])
            np.testing.assert_allclose(ends, (low["west"][0], high["east"][0]))


@pytest.mark.parametrize("name", NAMES)
def test_scene_has_the_same_links(name):
    env = environment(name)
    scene = env.task.system("mjx", drawn=True)
    assert scene.link_names == env.sys.link_names
    assert scene.q_size() == env.sys.q_size()
    np.testing.assert_array_equal(scene.mj_model.body_mass, env.sys.mj_model.body_mass)
    assert scene.mj_model.npair == env.sys.mj_model.npair
    assert scene.mj_model.ngeom > env.sys.mj_model.ngeom


REGIONS = {  # Centres and half widths along x and y, of cubes and goals.
    "arm_push_easy": ((-0.1, 0.6, 0.1), (0.1, 0.6, 0.1)),
    "arm_push_hard": ((-0.25, 0.65, 0.25), (0.25, 0.65, 0.25)),
    "arm_binpick_easy": ((-0.15, 0.6, 0.09), (0.17, 0.6, 0.09)),
    "arm_binpick_hard": ((-0.3, 0.6, 0.15), (0.3, 0.6, 0.15)),
}


def check_uniform(values, centre, half):
    assert values.min() >= centre - half - 1e-6
    assert values.max() <= centre + half + 1e-6
    law = stats.uniform(centre - half, 2 * half)
    assert stats.kstest(values, law.cdf).pvalue > 0.01


@pytest.mark.parametrize("name", REGIONS)
def test_cubes_and_goals(name):
    q, _, goal = starts(name)
    drawn = []
    heights = (0.07, 0.03)
    for own, (x, y, half), height in zip((q, goal), REGIONS[name], heights, strict=True):
        check_uniform(own[:, 0], x, half)
        check_uniform(own[:, 1], y, half)
        np.testing.assert_allclose(own[:, 2], height)
        drawn += [own[:, 0], own[:, 1]]
    for one, other in itertools.combinations(drawn, 2):
        assert abs(stats.pearsonr(one, other).statistic) < 0.06


def test_goals_of_the_reach():
    goal = starts("arm_reach")[2]
    for own, centre in zip(goal.T, (0.0, 0.5, 0.3), strict=True):
        check_uniform(own, centre, 0.2)


def test_cubes_and_goals_of_the_grasp():
    q, _, goal = starts("arm_grasp")
    check_uniform(q[:, 0], 0.0, 0.3)
    check_uniform(q[:, 1], 0.6, 0.3)
    tip = np.array([0.0375, 0, 0])
    opening = np.full((len(q), 1), 0.075)
    expected = np.concatenate([q[:, :3] + tip, q[:, :3] - tip, opening], axis=1)
    np.testing.assert_allclose(goal, expected, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_starts_are_at_rest(name):
    env = environment(name)
    q, qd, _ = starts(name)
    assert not np.any(qd)
    np.testing.assert_allclose(q[:, places(env, JOINTS)], np.tile(POSE, (len(q), 1)))
    if name != "arm_reach":
        np.testing.assert_allclose(q[:, places(env, FINGERS)], 0.04)
        np.testing.assert_allclose(q[:, 3:7], np.tile((1.0, 0, 0, 0), (len(q), 1)))


def test_starts_follow_from_the_key():
    env = environment("arm_push_easy")
    one, again, other = (env.task.start(env.sys, key=jr.key(i)) for i in (1, 1, 2))
    np.testing.assert_array_equal(one.q, again.q)
    np.testing.assert_array_equal(one.goal, again.goal)
    assert np.all(one.q[:2] != other.q[:2])
    assert np.all(one.goal[:2] != other.goal[:2])
