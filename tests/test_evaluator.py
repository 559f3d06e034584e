import collections
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import ogbench
import pytest

from crlx.envs.gymnasium import Policy
from crlx.envs.ogbench import _episodes
from crlx.envs.ogbench._evaluator import Evaluation, EvaluationStopped, Evaluator
from crlx.envs.ogbench._maze import Maze

MEDIUM = "pointmaze-medium-navigate-v0"
TELEPORT = "pointmaze-teleport-navigate-v0"
CUBE = "cube-single-play-v0"


@pytest.fixture(scope="module")
def medium():
    return Evaluator(MEDIUM, episodes=2, num_envs=7)


@pytest.fixture(scope="module")
def oracle():
    """Walks from cell to cell on a shortest path, at full speed."""
    env = ogbench.make_env_and_datasets(MEDIUM, env_only=True)
    maze = Maze.of(env)

    def act(xy, goal):
        there = maze.cell_of(*xy) == maze.cell_of(*goal)
        target = goal if there else env.unwrapped.get_oracle_subgoal(xy, goal)[0]
        return (target - xy) / max(np.linalg.norm(target - xy), 1e-6)

    return lambda xys, goals: np.stack([act(*pair) for pair in zip(xys, goals, strict=True)])


def still(observations, goals):
    return np.zeros_like(observations)


def evaluate_briefly(evaluator: Evaluator, policy: Policy, *, step: int):
    """Fifty time steps, most of which start no episode."""
    calls = itertools.count()
    with pytest.raises(EvaluationStopped):
        evaluator(policy, step=step, stop=lambda: next(calls) == 50)


def assert_same(one: Evaluation, other: Evaluation):
    assert one.tasks == other.tasks
    for a, b in zip(one.episodes, other.episodes, strict=True):
        assert (a.task, a.success) == (b.task, b.success)
        np.testing.assert_array_equal(a.start, b.start)
        np.testing.assert_array_equal(a.goal, b.goal)
        np.testing.assert_array_equal(a.path, b.path)


def test_an_oracle_solves_every_task(medium, oracle):
    evaluation = medium(oracle, step=0)
    assert evaluation.tasks == {f"task{i}": 1.0 for i in range(1, 6)}
    assert evaluation.overall_success == 1.0
    starts = [(1, 1), (6, 1), (5, 3), (6, 5), (2, 6)]
    goals = [(6, 6), (1, 6), (4, 2), (6, 1), (1, 1)]
    ends = [pair for pair in zip(starts, goals, strict=True) for _ in range(2)]
    for episode, (start, goal) in zip(evaluation.episodes, ends, strict=True):
        assert episode.success == 1.0
        assert medium.maze.cell_of(*episode.start) == start
        assert medium.maze.cell_of(*episode.goal) == goal
        np.testing.assert_array_equal(episode.path[0], episode.start)
        distance = np.linalg.norm(episode.path - episode.goal, axis=1)
        # Float32 rounds the positions, by less than 1e-5 here.
        assert distance[-1] <= 1.0 + 1e-5
        assert (distance[:-1] > 1.0 - 1e-5).all()


def test_a_policy_that_stands_still_never_succeeds(medium):
    evaluation = medium(still, step=0)
    assert evaluation.tasks == {f"task{i}": 0.0 for i in range(1, 6)}
    assert evaluation.overall_success == 0.0
    assert all(episode.path.shape == (1001, 2) for episode in evaluation.episodes)


def test_tasks_count_alike():
    assert Evaluation(1, {"easy": 1.0, "hard": 0.5}, []).overall_success == 0.75


def test_equal_seeds_give_equal_episodes_and_others_do_not(medium, oracle):
    first = medium(oracle, step=3)
    medium(oracle, step=4)  # Leaves the environments in another state.
    assert_same(first, medium(oracle, step=3))
    fresh = Evaluator(MEDIUM, episodes=2, num_envs=2)
    assert_same(first, fresh(oracle, step=3))
    starts = {tuple(episode.start) for episode in first.episodes}
    assert len(starts) == 10
    for other in (medium(oracle, step=4), Evaluator(MEDIUM, episodes=2, seed=1)(oracle, step=3)):
        assert starts.isdisjoint(tuple(episode.start) for episode in other.episodes)


def test_the_number_of_environments_changes_nothing():
    def to_the_portal(observations, goals):
        return np.array([20.0, 12.0]) - observations

    # Where a portal leads is drawn from numpy's global generator in the middle of an episode.
    evaluations = []
    for num_envs in (3, 7):
        np.random.seed(num_envs)  # noqa: NPY002
        evaluator = Evaluator(TELEPORT, episodes=2, num_envs=num_envs)
        evaluations.append(evaluator(to_the_portal, step=1))
    assert_same(*evaluations)
    jumps = [np.abs(np.diff(episode.path, axis=0)).max() > 4 for episode in evaluations[0].episodes]
    assert sum(jumps) >= 4, "too few went through a portal for this to show anything"


def test_actions_are_clipped(medium, oracle):
    big = medium(lambda x, goal: 100 * np.sign(oracle(x, goal)), step=0)
    assert_same(big, medium(lambda x, goal: np.sign(oracle(x, goal)), step=0))
    # One action moves by 0.2 at most per axis; contacts with walls push by less than that again.
    assert max(np.abs(np.diff(e.path, axis=0)).max() for e in big.episodes) < 0.4


def test_the_batch_keeps_its_shape(medium, oracle):
    shapes = collections.Counter()

    def watched(observations, goals):
        shapes[observations.shape, goals.shape, observations.dtype, goals.dtype] += 1
        return oracle(observations, goals)

    medium(watched, step=0)
    assert list(shapes) == [((7, 2), (7, 2), np.float32, np.float32)]


def test_a_jitted_policy_is_traced_once(medium):
    traces = 0

    @jax.jit
    def policy(observations, goals):
        nonlocal traces
        traces += 1
        return jnp.tanh(goals - observations)

    for step in (0, 1):
        evaluate_briefly(medium, policy, step=step)
    assert traces == 1


def test_a_policy_may_keep_its_arguments(medium, oracle):
    seen = []

    def policy(observations, goals):
        seen.append(observations)
        return oracle(observations, goals)

    evaluation = medium(policy, step=0)
    # Row 0 starts with the first episode of the first task.
    path = evaluation.episodes[0].path
    np.testing.assert_array_equal([rows[0] for rows in seen[: len(path) - 1]], path[:-1])


def test_environments_are_built_once_and_when_needed(monkeypatch, oracle):
    built = []
    make = ogbench.make_env_and_datasets

    def counted(name, **settings):
        built.append(name)
        return make(name, **settings)

    monkeypatch.setattr(_episodes.ogbench, "make_env_and_datasets", counted)
    evaluator = Evaluator(MEDIUM, episodes=1, num_envs=3)
    assert built == [MEDIUM]
    evaluator(oracle, step=0)
    evaluator(oracle, step=1)
    assert built == [MEDIUM] * 3
    many = Evaluator(MEDIUM, episodes=1, num_envs=100)
    many(still, step=0)
    assert len(built) == 3 + 5


@pytest.mark.parametrize("run", [Evaluator.__call__, evaluate_briefly])
def test_numpys_global_generator_is_left_alone(medium, oracle, run):
    np.random.seed(7)  # noqa: NPY002
    np.random.standard_normal()  # noqa: NPY002 (keeps the second of a pair for later)
    generator = np.random.get_bit_generator()
    before = np.random.get_state(legacy=False)  # noqa: NPY002
    expected = np.random.standard_normal(3)  # noqa: NPY002
    np.random.set_state(before)  # noqa: NPY002
    run(medium, oracle, step=0)
    Evaluator(TELEPORT, episodes=1, num_envs=1)
    assert np.random.get_bit_generator() is generator
    np.testing.assert_array_equal(np.random.standard_normal(3), expected)  # noqa: NPY002


def test_a_policy_that_draws_from_numpy_keeps_its_own_stream(medium):
    def policy(observations, goals):
        draws.append(np.random.uniform())  # noqa: NPY002
        return still(observations, goals)

    draws: list[float] = []
    np.random.seed(7)  # noqa: NPY002
    evaluate_briefly(medium, policy, step=0)
    np.random.seed(7)  # noqa: NPY002
    np.testing.assert_array_equal(draws, np.random.uniform(size=len(draws)))  # noqa: NPY002


def test_stopping_raises_at_once_and_does_no_harm(medium, oracle):
    calls = 0

    def policy(observations, goals):
        nonlocal calls
        calls += 1
        return oracle(observations, goals)

    expected = medium(oracle, step=0)
    with pytest.raises(EvaluationStopped):
        medium(policy, step=0, stop=lambda: calls == 30)
    assert calls == 30
    assert_same(expected, medium(oracle, step=0))


def test_progress_counts_up_to_all_episodes(medium, oracle):
    calls = []
    medium(oracle, step=0, progress=lambda done, total: calls.append((done, total)))
    assert calls == sorted(set(calls))
    assert calls[0][0] > 0
    assert calls[-1] == (10, 10)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pointmaze-tiny-navigate-v0", "such as 'pointmaze-medium-navigate-v0'"),
        ("pointmaze-medium-navigate-v9", "such as 'pointmaze-medium-navigate-v0'"),
        ("", "such as 'pointmaze-medium-navigate-v0'"),
        ("visual-antmaze-medium-navigate-v0", "cannot be evaluated"),
        ("powderworld-easy-play-v0", "cannot be evaluated"),
        ("pointmaze-medium-navigate-singletask-v0", "cannot be evaluated"),
    ],
)
def test_other_environments_are_refused(name, reason):
    with pytest.raises(ValueError, match=reason):
        Evaluator(name)


@pytest.mark.parametrize("numbers", [{"episodes": 0}, {"num_envs": 0}])
def test_evaluations_of_nothing_are_refused(numbers):
    with pytest.raises(ValueError, match="at least one"):
        Evaluator(MEDIUM, **numbers)


def test_impossible_actions_are_refused(medium):
    with pytest.raises(ValueError, match=r"\(7, 2\)"):
        medium(lambda x, goal: np.zeros((7, 3)), step=0)
    with pytest.raises(ValueError, match="finite"):
        medium(lambda x, goal: np.full((7, 2), np.nan), step=0)


def test_rows_without_an_episode_may_hold_anything(oracle):
    """Five episodes in six rows, one of which is never used."""
    evaluator = Evaluator(MEDIUM, episodes=1, num_envs=6)

    def policy(observations, goals):
        actions = np.full((6, 2), np.nan)
        actions[:5] = oracle(observations[:5], goals[:5])
        return actions

    assert evaluator(policy, step=0).overall_success == 1.0


@pytest.mark.thorough
def test_manipulation_repeats_exactly_too():
    def push(observations, goals):
        return np.sin(observations[:, :5] + 3 * goals[:, 5:10])

    one, other = (Evaluator(CUBE, episodes=1, num_envs=n) for n in (1, 2))
    assert (one.observation_size, one.action_size, one.goal_size) == (28, 5, 28)
    assert one.maze is None
    evaluation = one(push, step=2)
    assert list(evaluation.tasks)[:2] == ["task1_horizontal", "task2_vertical1"]
    assert all(episode.path is None for episode in evaluation.episodes)
    # Goals show actions from an action space that could not be seeded from outside.
    assert_same(evaluation, other(push, step=2))


def test_oracle_goals_have_their_own_size():
    ant = Evaluator("antmaze-medium-navigate-oraclerep-v0", episodes=1)
    assert (ant.observation_size, ant.goal_size) == (29, 2)


def test_a_maze_knows_its_cells(medium):
    maze = medium.maze
    assert (maze.walls.shape, int((~maze.walls).sum())) == ((8, 8), 26)
    assert maze.cell_centre(1, 1) == (0.0, 0.0)
    assert (maze.cell_centre(2, 6), maze.tolerance) == ((20.0, 4.0), 1.0)
    bare = medium._envs[0].unwrapped
    for xy in np.random.default_rng(0).uniform(-4, 24, (200, 2)):
        i, j = maze.cell_of(*xy)
        assert (i, j) == bare.xy_to_ij(xy)
        assert maze.cell_of(*maze.cell_centre(i, j)) == (i, j)
    # Not truncated towards zero, as the environment does it, outside the grid.
    assert maze.cell_of(-7.0, -11.0) == (-2, -1)
