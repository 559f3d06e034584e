import numpy as np
import ogbench
import pytest

from crlx.envs.ogbench import PointMaze
from crlx.envs.ogbench._rollout import rollout

MAZES = ("medium", "large", "giant", "teleport")


@pytest.fixture(scope="module", params=MAZES)
def maze(request):
    """Ours and OGBench's own."""
    name = f"pointmaze-{request.param}-navigate-v0"
    env = ogbench.make_env_and_datasets(name, env_only=True, disable_env_checker=True)
    return PointMaze(request.param), env.unwrapped


class Exits:
    """Makes OGBench's portals lead where ours led: to `now`."""

    def __init__(self, env, monkeypatch):
        portals = env._teleport_info or {"teleport_out_xys": []}
        self.exits = np.array(portals["teleport_out_xys"])
        self.now = np.zeros(2)
        self.used = 0
        monkeypatch.setattr(np.random, "randint", self)

    def __call__(self, high):
        assert high == len(self.exits)
        (index,) = np.flatnonzero((self.exits == self.now).all(axis=1))
        self.used += 1
        return index


def put(env, xy, goal=(0, 0)):
    env.reset(options={"task_id": 1})
    env.set_goal(goal_xy=goal)
    env.set_xy(xy)


def bumping(count, steps, rng):
    """Actions that hold a course for about ten steps, so that agents run into walls."""
    course = rng.uniform(-1.5, 1.5, (count, 2))
    for _ in range(steps):
        turn = rng.random(count) < 0.1
        course[turn] = rng.uniform(-1.5, 1.5, (turn.sum(), 2))
        yield np.clip(course + 0.2 * rng.standard_normal(course.shape), -1, 1)


def free_points(maze, count, rng):
    cells = maze.grid.free[rng.integers(len(maze.grid.free), size=count)]
    return maze.grid.centres(cells) + rng.uniform(-1, 1, (count, 2))


def test_physics_equal_the_environment(maze, monkeypatch):
    ours, env = maze
    rng = np.random.default_rng(1)
    start = free_points(ours, 20, rng)
    ours.place(start, np.zeros_like(start))
    actions = list(bumping(20, 200, rng))
    steps = [(ours.step(action, rng=rng), ours.xy, ours.velocity) for action in actions]
    exits, bumps = Exits(env, monkeypatch), 0
    for agent, xy in enumerate(start):
        put(env, xy)
        for action, (observations, positions, velocities) in zip(actions, steps, strict=True):
            exits.now = positions[agent]
            observation, *_ = env.step(action[agent])
            np.testing.assert_array_equal(observations[agent], observation)
            np.testing.assert_array_equal(positions[agent], env.get_xy())
            np.testing.assert_array_equal(velocities[agent], env.data.qvel)
            bumps += bool(env.data.qvel.any())
    assert bumps > 1000  # Of 4,000.
    assert (exits.used > 0) == (env._teleport_info is not None)


def test_actions_must_be_clipped():
    maze = PointMaze("medium")
    maze.place(np.zeros((2, 2)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="clip"):
        maze.step(np.array([[0, 0], [0, 1.01]]), rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="clip"):
        maze.step(np.array([[0, 0], [0, np.nan]]), rng=np.random.default_rng(0))


def test_subgoals_and_distances_equal_the_oracle(maze):
    ours, env = maze
    rng = np.random.default_rng(2)
    goals = ours.grid.centres(ours.grid.free)
    for goal in goals + rng.uniform(-1, 1, goals.shape):
        # Some of these lie in walls, where the oracle answers with the cell itself.
        xy = free_points(ours, 6, rng) + rng.uniform(-1.5, 1.5, (6, 2))
        subgoals = ours.grid.subgoals(xy, np.broadcast_to(goal, xy.shape))
        for i in range(len(xy)):
            subgoal, distances = env.get_oracle_subgoal(xy[i], goal)
            np.testing.assert_array_equal(subgoals[i], subgoal)
        np.testing.assert_array_equal(ours.grid.distances[*env.xy_to_ij(goal)], distances)


def test_corners_are_not_straight(maze):
    ours, env = maze
    corners = {tuple(cell) for cell in ours.grid.corners.tolist()}
    for i, j in ours.grid.free.tolist():
        up, down, left, right = (
            env.maze_map[cell] == 0 for cell in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1))
        )
        straight = (up, down, left, right) in ((1, 1, 0, 0), (0, 0, 1, 1))
        assert ((i, j) in corners) != straight
    assert 0 < len(corners) < len(ours.grid.free)


@pytest.mark.parametrize("style", ["navigate", "stitch"])
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_episodes_obey_the_environment(maze, style, noise, monkeypatch):
    ours, env = maze
    rng = np.random.default_rng(3)
    record = rollout(ours, style, episodes=50, rows=150, rng=rng, noise=noise)
    jumps = (record.qpos != record.observations).any(axis=(1, 2))
    exits = Exits(env, monkeypatch)
    for e in np.argsort(jumps)[-3:]:  # In the maze with portals, episodes that use them.
        put(env, record.qpos[e, 0], record.goals[e, 0])
        np.testing.assert_array_equal(record.observations[e, 0], record.qpos[e, 0])
        assert 0 < abs(record.qvel[e, 0]).max() < 1
        for t in range(149):
            subgoal, _ = env.get_oracle_subgoal(env.get_xy(), env.cur_goal_xy)
            way = subgoal - env.get_xy()
            unit = way / (np.linalg.norm(way) + 1e-6)
            error = abs(np.clip(record.actions[e, t], -1, 1) - unit)
            assert error.max() < (1e-9 if noise == 0 else 5 * noise)
            exits.now = record.qpos[e, t + 1]
            observation, *_, info = env.step(record.actions[e, t])
            np.testing.assert_array_equal(record.observations[e, t + 1], observation)
            np.testing.assert_array_equal(record.qpos[e, t + 1], env.get_xy())
            np.testing.assert_array_equal(record.qvel[e, t + 1], env.data.qvel)
            assert record.success[e, t] == info["success"]
            if style == "navigate" and info["success"]:
                cell = env.xy_to_ij(record.goals[e, t + 1])
                env.set_goal(cell)
                env.cur_goal_xy = record.goals[e, t + 1]
                assert list(cell) in ours.grid.corners.tolist()
                assert abs(env.cur_goal_xy - np.array(env.ij_to_xy(cell))).max() <= 1
            np.testing.assert_array_equal(record.goals[e, t + 1], env.cur_goal_xy)
    assert exits.used >= 3 * (env._teleport_info is not None)


def test_success_is_judged_before_a_portal():
    rng = np.random.default_rng(7)
    record = rollout(PointMaze("teleport"), "stitch", episodes=200, rows=100, rng=rng)
    seen, goals = record.observations[:, 1:], record.goals[:, :-1]
    success = np.linalg.norm(seen - goals, axis=-1) <= 1
    np.testing.assert_array_equal(record.success[:, :-1], success)
    jump = (record.qpos[:, 1:] != seen).any(axis=-1)
    assert (success & jump).any()
    assert (~success & jump).any()


def test_starts_and_goals(maze):
    ours, _ = maze
    count = 4000
    for style in ("navigate", "stitch"):
        rng = np.random.default_rng(4)
        record = rollout(ours, style, episodes=count, rows=1, rng=rng)
        start, goal = record.qpos[:, 0], record.goals[:, 0]
        starts, goals = ours.grid.cells(start), ours.grid.cells(goal)
        for xy, cells in ((start, starts), (goal, goals)):
            spread = xy - ours.grid.centres(cells)
            assert -1 <= spread.min() < -0.99
            assert 0.99 < spread.max() <= 1
            assert spread.std() == pytest.approx(1 / 3**0.5, rel=0.03)
        free = ours.grid.free
        drawn = (starts[:, None] == free).all(axis=-1).sum(axis=0)
        assert drawn.sum() == count
        assert chi_square(drawn) < 3
        if style == "navigate":
            corners = (goals[:, None] == ours.grid.corners).all(axis=-1).sum(axis=0)
            assert corners.sum() == count
            assert chi_square(corners) < 3
        else:
            away = ours.grid.distances[*goals.T, *starts.T]
            assert set(away.tolist()) <= {0, 4}
            stuck = ~(ours.grid.distances == 4).any(axis=(2, 3))
            np.testing.assert_array_equal(away == 0, stuck[*starts.T])


def chi_square(counts):
    """In standard deviations from what uniform draws give."""
    expected, freedom = counts.mean(), len(counts) - 1
    return ((((counts - expected) ** 2) / expected).sum() - freedom) / (2 * freedom) ** 0.5


def noise_across(record, grid):
    """The actions' components, in 0 +- 1, where the oracle's are all but zero."""
    xy, goals = record.qpos.reshape(-1, 2), record.goals.reshape(-1, 2)
    way = grid.subgoals(xy, goals) - xy
    unit = way / np.linalg.norm(way, axis=-1, keepdims=True)
    return record.actions.reshape(-1, 2)[abs(unit) < 0.01]


def test_statistics_of_navigate():
    maze, rng = PointMaze("medium"), np.random.default_rng(5)
    record = rollout(maze, "navigate", episodes=100, rows=1001, rng=rng)
    noise = noise_across(record, maze.grid)
    for deviations, share in ((0.5, 0.3829), (1, 0.6827), (2, 0.9545)):
        assert (abs(noise) < 0.5 * deviations).mean() == pytest.approx(share, abs=0.01)
    move = np.diff(record.qpos, axis=1)
    exact = (abs(move - 0.2 * record.actions[:, :-1]) < 1e-9).all(axis=-1)
    assert record.success.sum() / 100 == pytest.approx(9, abs=0.6)
    assert (abs(record.actions) == 1).mean() == pytest.approx(0.27, abs=0.01)
    assert np.linalg.norm(move, axis=-1).mean() == pytest.approx(0.19, abs=0.005)
    assert exact.mean() == pytest.approx(0.993, abs=0.002)


def test_statistics_of_stitch():
    rng = np.random.default_rng(6)
    record = rollout(PointMaze("medium"), "stitch", episodes=500, rows=201, rng=rng)
    move = np.diff(record.qpos, axis=1)
    exact = (abs(move - 0.2 * record.actions[:, :-1]) < 1e-9).all(axis=-1)
    assert (record.goals == record.goals[:, :1]).all()
    assert record.success.mean() == pytest.approx(0.45, abs=0.05)
    assert exact.mean() == pytest.approx(0.998, abs=0.001)
