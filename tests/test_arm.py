import copy
import functools
import itertools

import jax
import jax.numpy as jnp
import jax.random as jr
import mujoco
import numpy as np
import pytest
import references
from brax import base
from scipy import stats

from crlx.envs.tasks import GoalEnv, Radii, Timing
from crlx.envs.tasks._arm_tasks import ARMS

NAMES = tuple(ARMS)
SIZES = {"arm_reach": (13, 3, 4, (7, 10)), "arm_grasp": (23, 7, 5, (16, 23))}
POSE = (1.571, 0.742, 0.0, -1.571, 0.0, 3.054, 1.449)
JOINTS = tuple(f"joint{number}" for number in range(1, 8))
FINGERS = ("left_finger", "right_finger")
OTHER_NAMES = {"finger_joint1": "left_finger", "finger_joint2": "right_finger"}
STEPS = 40
LIKE = {"arm_push_hard": "arm_push_easy", "arm_binpick_hard": "arm_binpick_easy"}


@functools.cache
def environment(name):
    return GoalEnv(name, ARMS[name]())


@functools.cache
def program(name):
    """Places and steps in one program, which compiles in less time than two."""
    env = environment(name)

    @jax.jit
    def run(sys, start, actions):
        twin = copy.copy(env)
        twin.sys = sys

        def step(state, action):
            state = twin.step(state, action)
            return state, outcome(state)

        state = twin.place(*start)
        return outcome(state), jax.lax.scan(step, state, actions)[1]

    return run


def outcome(state):
    """A state with less of the physics: positions, velocities and how many contacts there are."""
    physics = state.pipeline_state
    active = jnp.sum(physics._impl.contact.dist < 0)
    return state.replace(pipeline_state=(physics.q, physics.qd, active))


def rollout(name, start, actions):
    """The start and what follows it, up to STEPS steps. Tasks that differ in numbers alone share
    a program."""
    env, like = environment(name), LIKE.get(name, name)
    sys = jax.tree.unflatten(jax.tree.structure(environment(like).sys), jax.tree.leaves(env.sys))
    actions = np.asarray(actions, np.float32).reshape(-1, env.action_size)
    padded = np.pad(actions, ((0, STEPS - len(actions)), (0, 0)))
    first, rest = jax.tree.map(np.array, program(like)(sys, start, padded))
    after = (jax.tree.map(lambda leaf, i=i: leaf[i], rest) for i in range(len(actions)))
    return [first, *after]


def observed(env, state):
    """State and goal."""
    return np.split(state.obs, [env.spec.state_size])


@functools.cache
def starts(name, count=3000):
    env = environment(name)
    draw = jax.vmap(lambda key: env.task.start(env.sys, key=key))
    drawn = draw(jr.split(jr.key(0), count))
    return np.array(drawn.q), np.array(drawn.qd), np.array(drawn.goal)


def places(env, joints):
    return [env.sys.mj_model.joint(name).qposadr[0] for name in joints]


def named(names, values):
    """Of a record, what is simulated here too: all but the mark at the goal."""
    pairs = zip(names, values, strict=True)
    return {OTHER_NAMES.get(name, name): value for name, value in pairs if "marker" not in name}


def translated(env, record, case):
    """The start of a case, with positions and velocities in the order of this model."""
    q, qd = named(record["q_names"], case["q"]), named(record["qd_names"], case["qd"])
    links = [name for name in env.sys.link_names if name != "cube"]
    joints = [name.replace("link", "joint") for name in links]
    own = (
        [values[name] for name in (*(n for n in values if "cube" in n), *joints)]
        for values in (q, qd)
    )
    return tuple(jnp.array(values, jnp.float32) for values in (*own, case["goal"]))


def rest(env, cube, goal):
    """A start with the cube and the goal in given places."""
    q = np.array(env.sys.init_q, np.float32)
    q[places(env, JOINTS)] = POSE
    if "cube" in env.sys.link_names:
        q[:3] = cube
        q[places(env, FINGERS)] = 0.04
    return jnp.array(q), jnp.zeros(env.sys.qd_size()), jnp.array(goal, jnp.float32)


@pytest.mark.parametrize("name", NAMES)
def test_specification(name):
    env = environment(name)
    spec, own = env.spec, SIZES.get(name, (17, 3, 5, (0, 3)))
    assert (spec.state_size, spec.goal_size, spec.action_size, spec.goal_indices) == own
    assert (spec.backend, spec.timing) == ("mjx", Timing(0.002, 25))
    grasp = Radii(0.05, easy=0.15, hard=0.02)
    assert spec.radii == (grasp if name == "arm_grasp" else Radii(0.1, easy=0.3, hard=0.03))
    assert env.observation_size == sum(own[:2])
    assert env.dt == pytest.approx(0.05)


@pytest.mark.parametrize("name", ("arm_reach", "arm_push_easy", "arm_binpick_easy"))
def test_recorded_sizes(name):
    record, spec = references.task(name), environment(name).spec
    for key in ("backend", "action_size", "state_size", "goal_size"):
        assert getattr(spec, key) == record[key]
    assert list(range(*spec.goal_indices)) == record["goal_indices"]


@pytest.mark.parametrize(
    "name, case", references.cases("arm_reach", "arm_push_easy", "arm_binpick_easy")
)
def test_trajectory(name, case):
    env, record = environment(name), references.task(name)
    case = record["cases"][case]
    start = translated(env, record, case)
    states = iter(rollout(name, start, references.actions(case, env.action_size)))
    references.compare(lambda *_: next(states), lambda *_: next(states), env.spec, case)


@pytest.mark.parametrize(
    "name, cube, goal",
    (
        ("arm_reach", (), (0.0, 0.5, 0.3)),
        ("arm_push_easy", (-0.1, 0.6, 0.07), (0.1, 0.6, 0.03)),
        ("arm_binpick_hard", (-0.3, 0.6, 0.07), (0.3, 0.6, 0.03)),
    ),
)
def test_golden(name, cube, goal):
    env = environment(name)
    time, entry = np.arange(20)[:, None], np.arange(env.action_size)
    states = rollout(name, rest(env, cube, goal), 0.5 * np.sin(0.3 * time + entry))
    for row in references.task("arm_golden")[name]:
        own = observed(env, states[row["step"]])[0]
        tolerance = 1e-3 if row["step"] <= 10 else 1e-2
        np.testing.assert_allclose(own, row["state"], rtol=0, atol=tolerance)


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
    scene = env.task.scene("mjx")
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


def test_targets_of_the_joints():
    """In the reference's numbers: the middle of each range and its half."""
    env = environment("arm_push_easy")
    start = rest(env, (-0.1, 0.6, 0.07), (0.1, 0.6, 0.03))
    state = base.State(*start[:2], x=None, xd=None, contact=None)
    middle = np.array([1.5708, 0.741765, 0, -1.5708, 0, 3.05435, 1.4487])
    half = np.array([[1.2217, 0, 0, 0], [0, 0.741765, 0, 0], *[[0] * 4] * 5])
    half[3, 2], half[5, 3] = 1.501, 0.69815
    for action in jr.uniform(jr.key(0), (5, 5), minval=-1.0, maxval=1.0):
        ctrl = env.task.controls(env.sys, state, action)
        expected = middle + half @ np.array(action[:4])
        np.testing.assert_allclose(ctrl[:7], expected, atol=1e-4)
        np.testing.assert_array_equal(ctrl[7:], 0.0 if action[4] > 0 else 255.0)
    openings = [
        env.task.controls(env.sys, state, jnp.array([0, 0, 0, 0, grip], jnp.float32))[7]
        for grip in (-1.0, 0.0, 1e-3, 1.0)
    ]
    np.testing.assert_array_equal(openings, (255, 255, 0, 0))
    reach = environment("arm_reach")
    assert reach.task.controls(reach.sys, state, jnp.zeros(4)).shape == (7,)


def test_rest_under_commands():
    """Gains that are not stiffnesses: joints stop short of the angles they are commanded."""
    env = environment("arm_push_easy")
    start = rest(env, (-0.15, 0.6, 0.07), (0.1, 0.6, 0.03))
    for grip, opening in ((1.0, 0.0), (-1.0, 0.16)):
        state = rollout("arm_push_easy", start, np.tile((0, 0, 0, 0, grip), (25, 1)))[-1]
        own = observed(env, state)[0]
        expected = (1.571, 0.752, 0, -0.903, 0, 1.526, 0.724)
        np.testing.assert_allclose(own[3:10], expected, atol=1.5e-3)
        np.testing.assert_allclose(own[13:16], 0, atol=1e-3)
        np.testing.assert_allclose(own[16], opening, atol=2e-3)
        np.testing.assert_allclose(own[2], 0.0299, atol=2e-4)
    low, high = (
        observed(env, rollout("arm_push_easy", start, np.tile((0, 0, a, a, -1), (30, 1)))[-1])[0]
        for a in (-1, 1)
    )
    np.testing.assert_allclose(low[np.array([6, 8])], (-1.755, 1.178), atol=0.02)
    assert -0.0698 < high[6] < -0.040  # On its way to -0.040, but its limit holds it.
    np.testing.assert_allclose(high[8], 1.876, atol=0.02)


def test_links_lag_by_a_physics_step():
    """The flange is seen where it was 2 ms before the joints."""
    env = environment("arm_reach")
    start = rest(env, (), (0.0, 0.5, 0.3))
    state = rollout("arm_reach", start, np.tile((1.0, 0, 0, 0), (3, 1)))[-1]
    own = observed(env, state)[0]
    q, qd, _ = state.pipeline_state
    now = observed(env, rollout("arm_reach", (q, qd, start[2]), ())[0])[0]
    lag = np.linalg.norm(now[7:10] - own[7:10])
    assert lag == pytest.approx(0.002 * float(np.linalg.norm(own[10:13])), rel=0.05)
    assert lag > 1e-3


@pytest.mark.parametrize("name", ("arm_reach", "arm_binpick_easy"))
def test_random_actions(name):
    """Nothing ends, the reward is success, and few of the contacts that there may be are."""
    env = environment(name)
    q, qd, goal = (jnp.array(own[0]) for own in starts(name))
    actions = np.array(jr.uniform(jr.key(3), (13, env.action_size), minval=-1.0, maxval=1.0))
    states = rollout(name, (q, qd, goal), np.repeat(actions, 3, axis=0))
    for before, after in itertools.pairwise(states):
        assert not after.done
        assert after.reward == after.metrics["success"]
        assert np.all(np.isfinite(after.obs))
        np.testing.assert_array_equal(before.info["goal"], after.info["goal"])
    if name != "arm_reach":
        assert max(state.pipeline_state[2] for state in states) < 24
        numbers = env.sys.mj_model.numeric("max_contact_points").data
        np.testing.assert_array_equal(numbers, 32)
    again = rollout(name, (q, qd, goal), actions[:1])[-1]
    np.testing.assert_array_equal(again.obs, states[1].obs)


def test_episodes_may_start_at_the_goal():
    q, _, goal = starts("arm_push_easy")
    near = np.linalg.norm(q[:, :2] - goal[:, :2], axis=1) < 0.1
    assert 0.02 < near.mean() < 0.2


GRASPED = np.array([0.05, 0.6, 0.03])


def grip(middle, opening):
    """The state of a grasp with tips to both sides of a place."""
    aside = np.array([opening / 2, 0, 0])
    tips = np.concatenate([middle + aside, middle - aside, [opening]])
    return jnp.array(np.concatenate([GRASPED, np.zeros(13), tips]), jnp.float32)


@pytest.mark.parametrize(
    "off, opening, expected",
    (
        (0.0, 0.075, (1, 1, 1)),
        (0.019, 0.079, (1, 1, 1)),
        (0.021, 0.079, (1, 1, 0)),
        (0.019, 0.081, (1, 1, 0)),
        (0.049, 0.094, (1, 1, 0)),
        (0.051, 0.094, (0, 1, 0)),
        (0.049, 0.054, (0, 1, 0)),
        (0.149, 0.124, (0, 1, 0)),
        (0.151, 0.124, (0, 0, 0)),
        (0.0, 0.126, (0, 0, 0)),
    ),
)
def test_success_of_the_grasp(off, opening, expected):
    job = environment("arm_grasp").task.job
    goal = grip(GRASPED, 0.075)[16:]
    state = grip(GRASPED + np.array([0, 0.6 * off, 0.8 * off]), opening)
    distance = job.distance(state, goal)
    assert distance == pytest.approx(off, abs=1e-6)
    own = job.successes(state, goal, distance)
    names = ("success", "success_easy", "success_hard")
    assert tuple(int(own[name]) for name in names) == expected


def test_grasp():
    """Tips are where the fingers have them, the goal moves with the cube, and the arm as without
    tips."""
    env = environment("arm_grasp")
    start = rest(env, (0.2, 0.5, 0.07), np.zeros(7))
    time, entry = np.arange(12)[:, None], np.arange(5)
    states = rollout("arm_grasp", start, 0.5 * np.sin(0.3 * time + entry))
    for state in states:
        own, goal = observed(env, state)
        cube, left, right = own[:3], own[16:19], own[19:22]
        tip = np.array([0.0375, 0, 0], np.float32)
        np.testing.assert_allclose(goal, [*(cube + tip), *(cube - tip), 0.075], atol=1e-6)
        np.testing.assert_allclose(own[22], np.linalg.norm(left - right), atol=1e-6)
        reach = np.linalg.norm((left + right) / 2 - own[10:13])
        np.testing.assert_allclose(reach, 0.1654 + 0.07, atol=2e-4)
        assert not state.done
    first, last = (observed(env, state)[0] for state in (states[0], states[-1]))
    assert first[22] == pytest.approx(0.09, abs=1e-5)
    assert first[2] - last[2] == pytest.approx(0.04, abs=1e-3)
    for row in references.task("arm_golden")["arm_push_easy"]:
        if row["step"] < len(states):
            own = observed(env, states[row["step"]])[0]
            np.testing.assert_allclose(own[3:13], row["state"][3:13], atol=5e-3)
    distance = np.linalg.norm(last[:3] - (last[16:19] + last[19:22]) / 2)
    assert states[-1].metrics["dist"] == pytest.approx(float(distance), abs=1e-6)
    assert states[-1].metrics["success"] == states[-1].reward == 0


def test_grasp_succeeds_where_the_fingers_are():
    """A cube put between half open fingers: the reward is by both measures."""
    env = environment("arm_grasp")
    nominal = observed(env, rollout("arm_grasp", rest(env, (0, 0.6, 0.07), np.zeros(7)), ())[0])[0]
    middle = (nominal[16:19] + nominal[19:22]) / 2
    start = rest(env, middle, np.zeros(7))
    state = rollout("arm_grasp", start, np.zeros((1, 5)))[-1]
    opening = float(observed(env, state)[0][22])
    expected = float(state.metrics["dist"]) < 0.05 and abs(opening - 0.075) < 0.02
    assert state.reward == state.metrics["success"] == expected
    assert state.metrics["success_easy"] == 1
