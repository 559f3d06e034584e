import itertools

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import references
from arms import NAMES, SIZES, environment, observed, rest, rollout, starts, translated
from brax import base
from lengths import at_length

from crlx.envs.tasks import Radii, Timing


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


CASES = list(references.cases("arm_reach", "arm_push_easy", "arm_binpick_easy"))


# Arms that may touch something compile long.
@pytest.mark.parametrize("name, case", at_length(CASES, [c for c in CASES if c[0] == "arm_reach"]))
def test_trajectory(name, case):
    env, record = environment(name), references.task(name)
    case = record["cases"][case]
    start = translated(env, record, case)
    states = iter(rollout(name, start, references.actions(case, env.action_size)))
    references.compare(lambda *_: next(states), lambda *_: next(states), env.spec, case)


GOLDEN = [
    ("arm_reach", (), (0.0, 0.5, 0.3)),
    ("arm_push_easy", (-0.1, 0.6, 0.07), (0.1, 0.6, 0.03)),
    ("arm_binpick_hard", (-0.3, 0.6, 0.07), (0.3, 0.6, 0.03)),
]


@pytest.mark.parametrize("name, cube, goal", at_length(GOLDEN, GOLDEN[:1]))
def test_golden(name, cube, goal):
    env = environment(name)
    time, entry = np.arange(20)[:, None], np.arange(env.action_size)
    states = rollout(name, rest(env, cube, goal), 0.5 * np.sin(0.3 * time + entry))
    for row in references.task("arm_golden")[name]:
        own = observed(env, states[row["step"]])[0]
        tolerance = 1e-3 if row["step"] <= 10 else 1e-2
        np.testing.assert_allclose(own, row["state"], rtol=0, atol=tolerance)


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


@pytest.mark.thorough
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


@pytest.mark.parametrize(
    "name", ("arm_reach", pytest.param("arm_binpick_easy", marks=pytest.mark.thorough))
)
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
    distance = job.traits().distance(state[16:23], goal)
    assert distance == pytest.approx(off, abs=1e-6)
    own = job.successes(state, goal, distance)
    names = ("success", "success_easy", "success_hard")
    assert tuple(int(own[name]) for name in names) == expected


@pytest.mark.thorough
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


@pytest.mark.thorough
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
