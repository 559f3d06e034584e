import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from crlx.envs.gymnasium import GoalEvaluator, scores

LOW, HIGH = np.array([-0.5, -0.25], np.float32), np.array([1.0, 0.75], np.float32)


class Field(gymnasium.Env):
    """A place in the plane that actions add to."""

    def __init__(self, told="is_success", action_space=None):
        self.told = told
        self.action_space = Box(LOW, HIGH) if action_space is None else action_space
        self.observation_space = Dict(
            {
                "observation": Box(-np.inf, np.inf, (3,)),
                "achieved_goal": Box(-np.inf, np.inf, (2,)),
                "desired_goal": Box(-np.inf, np.inf, (2,)),
            }
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.time = np.zeros(2), 0
        self.goal = self.np_random.uniform(0.5, 1.5, 2)
        return self.see(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.place, self.time = self.place + action, self.time + 1
        reached = np.linalg.norm(self.place - self.goal) < 1e-3
        return self.see(), 0.0, False, False, {self.told: reached}

    def see(self):
        seen = {"achieved_goal": self.place, "desired_goal": self.goal}
        return {"observation": np.append(self.place, self.time), **seen}


def make(**options):
    return gymnasium.wrappers.TimeLimit(Field(**options), 7)


def direct(observations, goals):
    """The whole way at once, as far as the bounds allow: two steps."""
    way = goals - observations[:, :2]
    return 2 * (way - LOW) / (HIGH - LOW) - 1


@pytest.mark.parametrize("told", ("is_success", "success"))
def test_known_scores(told):
    evaluator = GoalEvaluator(lambda: make(told=told), episodes=5, num_envs=2)
    assert (evaluator.observation_size, evaluator.goal_size, evaluator.action_size) == (3, 2, 2)
    trials = evaluator(direct, step=0)
    assert len(trials) == 5
    for trial in trials:
        steps = int(np.max(np.ceil(trial.goal / HIGH)))
        assert trial.successes == [False] * (steps - 1) + [True] * (8 - steps)
        assert trial.distances[0] == pytest.approx(np.linalg.norm(trial.goal))
    found = scores(trials)
    assert found["episode_success_any"] == 1.0
    assert found["episode_success"] == np.mean([sum(trial.successes) for trial in trials])
    assert found["episode_length"] == 7.0
    assert found["final_dist"] < 1e-5


def test_actions_are_scaled_to_their_bounds():
    def far(observations, goals):
        del goals
        return np.full((len(observations), 2), 50.0)

    (trial,) = GoalEvaluator(make, episodes=1)(far, step=0)
    np.testing.assert_allclose(trial.observations[-1], [*(7 * HIGH), 7])
    assert scores([trial])["episode_success_any"] == 0.0


def test_episodes_depend_on_seed_step_and_number_alone():
    def goals(step, **options):
        trials = GoalEvaluator(make, episodes=4, **options)(direct, step=step)
        return np.stack([trial.goal for trial in trials])

    np.testing.assert_array_equal(goals(0, num_envs=1), goals(0, num_envs=3))
    four = [*goals(0), *goals(1), *goals(0, seed=1)]
    assert len(np.unique(np.stack(four), axis=0)) == 12


def test_what_is_seen_and_success_may_be_chosen():
    evaluator = GoalEvaluator(
        lambda: make(told="other"),
        episodes=1,
        observe=lambda seen: seen["achieved_goal"],
        reached=lambda seen, info: bool(info["other"]),
    )
    assert evaluator.observation_size == 2
    assert scores(evaluator(direct, step=0))["episode_success_any"] == 1.0
    with pytest.raises(ValueError, match="give `reached`"):
        GoalEvaluator(lambda: make(told="other"))(direct, step=0)


@pytest.mark.parametrize("space", (Discrete(3), Box(-np.inf, np.inf, (2,)), Box(0, 1, (2, 2))))
def test_actions_that_cannot_be_scaled_are_refused(space):
    with pytest.raises(ValueError, match="vectors with bounds"):
        GoalEvaluator(lambda: make(action_space=space))


def test_nothing_to_run_is_refused():
    with pytest.raises(ValueError, match="one episode"):
        GoalEvaluator(make, episodes=0)
