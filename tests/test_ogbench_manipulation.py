import functools

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import numpy as np
import pytest
from lengths import at_length
from numpy.random import mtrand

from crlx.envs.gymnasium import numpy_untouched
from crlx.envs.ogbench import _manipulation
from crlx.envs.ogbench._episodes import seed_generators
from crlx.envs.ogbench._manipulation import Manipulation, in_sight

CONTACT = 18  # In an observation: made by the last step, so not a function of qpos and qvel.


@functools.cache
def table(name):
    """One per name, since each takes a second to build."""
    return Manipulation(*name.rsplit("-", 1))


def assert_same(one, other):
    assert one.columns.keys() == other.columns.keys()
    for key in one.columns:
        np.testing.assert_array_equal(one.columns[key], other.columns[key])


def put(env, columns, row):
    env.reset()
    buttons = [columns["button_states"][row]] if "button_states" in columns else []
    env.set_state(columns["qpos"][row], columns["qvel"][row], *buttons)


def chi_square(counts, expected):
    """In standard deviations from what is expected."""
    freedom = len(counts) - 1
    return (((counts - expected) ** 2 / expected).sum() - freedom) / (2 * freedom) ** 0.5


class Stub:
    """An oracle that never moves, and is done always or never."""

    def __init__(self, done):
        self.done = done

    def reset(self, observation, info):
        pass

    def select_action(self, observation, info):
        return np.zeros(5)


@pytest.fixture
def stubbed(monkeypatch):
    def stub(name, done):
        tasks = dict.fromkeys(("cube", "button", "drawer", "window"), Stub(done))
        monkeypatch.setattr(table(name), "_oracles", tasks)
        return table(name)

    return stub


@hypothesis.settings(max_examples=8)
@hypothesis.given(st.integers(0, 2**70), st.integers(0, 10**6), st.integers(1, 12))
def test_an_episode_depends_on_seed_and_number_alone(seed, number, rows):
    maker = table("cube-single-noisy")
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    one = maker.episode(rows, seed=seed, number=number)
    for other in ({"number": number + 1, "seed": seed}, {"number": number, "seed": seed + 1}):
        columns = maker.episode(rows, **other).columns
        assert (columns["actions"] != one.columns["actions"]).any()
        assert (columns["qpos"][0] != one.columns["qpos"][0]).any()
    assert_same(one, maker.episode(rows, seed=seed, number=number))
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002
    assert all(np.isfinite(array).all() for array in one.columns.values())
    assert (abs(one.columns["actions"]) <= 1).all()
    assert {len(array) for array in (*one.columns.values(), one.success, one.random)} == {rows}


@pytest.mark.parametrize(
    "name", at_length(["cube-single-noisy", "scene-noisy", "puzzle-3x3-play"], ["scene-noisy"])
)
def test_an_episode_does_not_depend_on_those_before(name):
    maker = table(name)
    maker.episode(60, seed=1, number=1)
    late = maker.episode(60, seed=0, number=0)
    assert_same(late, Manipulation(*name.rsplit("-", 1)).episode(60, seed=0, number=0))


@pytest.mark.parametrize("name", ["cube-single-noisy", "scene-play", "puzzle-3x3-play"])
def test_the_simulator_repeats_what_is_stored(name):
    maker = table(name)
    columns, env = maker.episode(150, seed=0, number=0).columns, maker._env
    with numpy_untouched():
        seeds = np.random.SeedSequence(0).spawn(1)[0]
        mtrand.set_bit_generator(seed_generators(env, seeds))
        observation, _ = env.reset()
    # From the same start, in double precision, and without any target: exactly.
    for row, action in enumerate(columns["actions"]):
        np.testing.assert_array_equal(columns["observations"][row], observation.astype(np.float32))
        observation, *_, info = env.step(action)
        for key in columns.keys() & {"qpos", "qvel", "button_states"}:
            stored = info[f"prev_{key}"].astype(columns[key].dtype)
            np.testing.assert_array_equal(columns[key][row], stored)
    # From the file's own first row, in single precision: until something is knocked over.
    put(env, columns, 0)
    for row, action in enumerate(columns["actions"][:40]):
        observation = env.compute_observation()
        np.testing.assert_allclose(columns["observations"][row], observation, atol=1e-3)
        env.step(action)


@pytest.mark.parametrize("name, lag", [("cube-single-play", 0.03), ("puzzle-3x3-play", 1e-4)])
def test_observations_belong_to_their_states(name, lag):
    maker = table(name)
    columns = maker.episode(150, seed=2, number=0).columns
    for row in range(0, 150, 7):
        put(maker._env, columns, row)
        error = abs(maker._env.compute_observation() - columns["observations"][row])
        error[CONTACT] = 0
        # Without buttons, OGBench observes the arm's tip one step of the simulator late.
        assert error[12:17].max() < lag
        error[12:17] = 0
        assert error.max() < 1e-4


@pytest.mark.parametrize(
    "name, least, share",
    [("cube-single-play", 9, 0.95), ("puzzle-3x3-noisy", 20, 0.95), ("scene-play", 12, 0.8)],
)
def test_oracles_reach_their_targets(name, least, share):
    episode = table(name).episode(1001, seed=0, number=0)
    assert episode.finished.sum() >= least
    assert episode.success[episode.finished].mean() >= share


def test_the_gripper_stays_closed_over_puzzles():
    opening = {
        name: table(name).episode(80, seed=0, number=0).columns["observations"][30:, 17]
        for name in ("puzzle-3x3-play", "puzzle-3x3-noisy", "scene-play")
    }
    assert opening["puzzle-3x3-play"].min() > 2  # Closed is 3.
    assert np.median(opening["puzzle-3x3-noisy"]) > 2
    assert opening["scene-play"].min() < 1


@pytest.mark.parametrize("name, share", [("scene-noisy", 0.1), ("puzzle-3x3-noisy", 0.2)])
def test_statistics_of_noise(stubbed, name, share):
    maker = stubbed(name, done=False)
    episodes = [maker.episode(200, seed=5, number=number) for number in range(4)]
    random = np.stack([episode.random for episode in episodes])
    actions = np.stack([episode.columns["actions"] for episode in episodes])
    assert abs(random.mean() - share) < 4 * (share * (1 - share) / random.size) ** 0.5
    counts, _ = np.histogram(actions[random], bins=10, range=(-1, 1))
    assert abs(chi_square(counts, actions[random].size / 10)) < 4
    scales = [noise[:, :3].std() for noise in map(lambda a, r: a[~r], actions, random)]
    assert 0 < min(scales) < 0.7 * max(scales) < 0.07
    for scale, action, at_random in zip(scales, actions, random, strict=True):
        noise = action[~at_random]
        # The gripper's is clipped, but the median of its size is not.
        assert noise[:, 3].std() == pytest.approx(3 * scale, rel=0.2)
        size = min(1, 0.6745 * 10 * scale)
        assert np.median(abs(noise[:, 4])) == pytest.approx(size, rel=0.3)


def test_play_adds_nothing_to_its_plans(stubbed):
    episode = stubbed("puzzle-3x3-play", done=False).episode(50, seed=0, number=0)
    assert not episode.random.any()
    assert not episode.columns["actions"].any()


@pytest.mark.parametrize(
    "name, low, high",
    [
        ("cube-single-play", 0, 0),
        ("cube-double-play", 0, 0.25),
        ("cube-triple-play", 0.05, 0.35),
        ("cube-quadruple-play", 0.1, 0.5),
        ("scene-play", 0.5, 0.5),
    ],
)
def test_chance_of_stacking(stubbed, monkeypatch, name, low, high):
    maker, seen = stubbed(name, done=True), []
    set_new_target = maker._env.set_new_target

    def spy(return_info=True, p_stack=None):
        seen.append(p_stack)
        return set_new_target(return_info, p_stack or 0)

    monkeypatch.setattr(maker._env, "set_new_target", spy)
    for number in range(20):
        maker.episode(2, seed=0, number=number)
    chances = np.array([chance for chance in seen if chance is not None]).reshape(20, 2)
    assert (chances[:, 0] == chances[:, 1]).all()
    assert low <= chances.min() <= chances.max() <= high
    assert np.ptp(chances) >= 0.5 * (high - low)


positions = st.floats(-0.5, 0.5, width=32) | st.sampled_from([-0.3, 0.29, 0.06, 0.08])


@hypothesis.given(
    hypothesis.extra.numpy.arrays(
        np.float32, st.tuples(st.integers(1, 5), st.just(3)), elements=positions
    )
)
def test_the_cube_of_a_scene_must_stay_in_sight(cube):
    right, left, low, high = np.float32([0.29, -0.3, 0.06, 0.08])
    lost = [y >= right or (y <= left and not low <= z <= high) for _, y, z in cube]
    assert in_sight(cube) == (not any(lost))


def test_other_scenes_are_discarded(monkeypatch):
    maker = table("scene-play")
    first, asked = maker.episode(20, seed=0, number=0), []

    def refuse_twice(cube):
        asked.append(cube)
        return len(asked) > 2

    monkeypatch.setattr(_manipulation, "in_sight", refuse_twice)
    third = maker.episode(20, seed=0, number=0)
    assert len(asked) == 3
    np.testing.assert_array_equal(asked[0][0, 2], np.float32(0.02))  # On the table.
    np.testing.assert_array_equal(asked[0], first.columns["qpos"][:, 14:17])
    np.testing.assert_array_equal(asked[2], third.columns["qpos"][:, 14:17])
    assert (asked[0][0] != asked[1][0]).any()
    assert (asked[1][0] != asked[2][0]).any()
    table("cube-single-play").episode(2, seed=0, number=0)
    assert len(asked) == 3
