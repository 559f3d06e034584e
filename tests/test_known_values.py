"""Values, distances, hazards and policies learnt on small chains, whose answers can be computed."""

import functools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from tabular import Tables, clipped_geometric, expectile, train, walk

from crlx import (
    AbstractActor,
    AbstractDistribution,
    ActionSpace,
    Anywhere,
    ClippedGeometric,
    Current,
    Mixture,
    Spec,
)
from objectives import (
    AWR,
    GCIQL,
    GCIVL,
    HIQL,
    SAC,
    TD3,
    Deterministic,
    MaxEntropy,
    Relabelling,
    Reward,
    Within,
)

STATES, ACTIONS, DISCOUNT, ENTROPY = 4, 2, 0.7, 0.25
SPEC = Spec(STATES, ACTIONS, STATES)
CHOICES = Spec(STATES, ACTIONS, STATES, actions=ActionSpace.CHOICE)
NUMBER = Spec(STATES, 1, STATES)
TABLES = Tables(STATES, ACTIONS)
GOALS = Mixture((Current(), ClippedGeometric(0.8), Anywhere()), (0.2, 0.5, 0.3))
CLOSE = 0.05  # Minibatches leave an error of 0.01 to 0.04; values lie between -3.4 and 0.


def towards(rng, state, action):
    """Left or right on a line, but one time in ten the other way."""
    slip = rng.random(len(state)) < 0.1
    return np.clip(state + np.where(slip, -1, 1) * (2 * action - 1), 0, STATES - 1)


@pytest.fixture(scope="module")
def data():
    return walk(towards, STATES, 40, 21, lambda rng, s: (rng.random(len(s)) < 0.6).astype(int))


@pytest.fixture(scope="module")
def rows(data):
    return data.rows(STATES, ACTIONS)


@pytest.fixture(scope="module")
def goal_rows(data):
    """The law of `GOALS`."""
    own = clipped_geometric(0.8)
    return data.goal_rows(lambda n: 0.2 / 0.7 * np.eye(n + 1)[0] + 0.5 / 0.7 * own(n), 0.3)


def counted(data, chances, success):
    """The law of state, action, next state, goal and success, `[s, a, next, goal, 2]`.

    `success` tells it from the number of a row, that of its goal, the next state and the goal.
    """
    s, a, following = data.steps
    row, goal_row = np.indices(chances.shape)
    goal = s[goal_row]
    reached = success(row, goal_row, following[row], goal).astype(int)
    table = np.zeros((STATES, ACTIONS, STATES, STATES, 2))
    np.add.at(table, (s[row], a[row], following[row], goal, reached), chances)
    return table / table.sum()


def wanted(value):
    """`r + γ m V(s', g)` of each next state, goal and success, if reaching costs and absorbs."""
    on = -1 + DISCOUNT * value
    return np.stack([on, np.zeros_like(on)], axis=-1)


def implicit_value(law, share):
    """The fixed point of state values: the expectile of `r + γ m V(s', g)` over what follows."""
    joint = law.sum(axis=1).transpose(0, 2, 1, 3).reshape(STATES, STATES, -1)
    value = np.zeros((STATES, STATES))
    for _ in range(100):
        after = wanted(value).transpose(1, 0, 2).reshape(1, STATES, -1)
        value = expectile(np.broadcast_to(after, joint.shape), joint, share, axis=2)
    return value


def implicit_q(law, share):
    """That of implicit Q-learning: means over what follows, expectiles over the data's actions."""
    pairs = law.sum(axis=(2, 4)).transpose(0, 2, 1)  # `[state, goal, action]`
    value = np.zeros((STATES, STATES))
    for _ in range(100):
        q = np.einsum("sangk,ngk->sga", law, wanted(value)) / np.maximum(pairs, 1e-12)
        value = expectile(q, pairs, share, axis=2)
    return q, value, pairs


def same_row(row, goal_row, following, goal):
    del following, goal
    return row == goal_row


def arrived(row, goal_row, following, goal):
    del row, goal_row
    return following == goal


def table(ensemble):
    return np.asarray(ensemble.members.network.network.values[..., 0], np.float64)


def test_gcivl_learns_the_expectile_of_what_follows(rows, data, goal_rows, getkey):
    objective = GCIVL(
        relabelling=Relabelling(GOALS), discount=DISCOUNT, expectile=0.8, target_rate=0.05
    )
    params = train(objective, TABLES, SPEC, rows, updates=4000, key=getkey())
    law = counted(data, goal_rows, same_row)
    for value in table(params.value):
        np.testing.assert_allclose(value, implicit_value(law, 0.8), atol=0.03)
    # Another expectile is farther than that.
    assert np.max(np.abs(implicit_value(law, 0.8) - implicit_value(law, 0.7))) > 2 * CLOSE


def test_hiql_learns_the_same_values_if_goals_mean_themselves(rows, data, goal_rows, getkey):
    """Representations are then the goals, at the length of their size."""
    objective = HIQL(
        relabelling=Relabelling(GOALS),
        dim=STATES,
        discount=DISCOUNT,
        expectile=0.8,
        target_rate=0.05,
        subgoal_steps=2,
    )
    tables = Tables(STATES, ACTIONS, plain=True)
    params = train(objective, tables, SPEC, rows, updates=4000, rate=0.03, key=getkey())
    law = counted(data, goal_rows, same_row)
    for value in table(params.value):
        scaled = np.sqrt(STATES) * value
        np.testing.assert_allclose(scaled, implicit_value(law, 0.8), atol=0.03)


@pytest.fixture(scope="module")
def unbiased(data):
    """Goals that do not depend on what follows, reached where the action leads."""
    return counted(data, data.goal_rows(lambda n: np.eye(n + 1)[0], 1.0), arrived)


@pytest.fixture(scope="module")
def choices(rows):
    relabelling = Relabelling(Anywhere(), reward=Reward(Within(0.5)))
    objective = GCIQL(
        AWR(5.0),
        relabelling=relabelling,
        actor_goals=None,
        discount=DISCOUNT,
        expectile=0.9,
        target_rate=0.05,
    )
    return train(objective, TABLES, CHOICES, rows, updates=4000, key=jr.key(5))


def test_gciql_learns_the_fixed_point(choices, unbiased):
    q, value, _ = implicit_q(unbiased, 0.9)
    np.testing.assert_allclose(table(choices.value)[0], value, atol=CLOSE)
    for member in table(choices.critic):
        np.testing.assert_allclose(member, q, atol=CLOSE)
    assert np.max(np.abs(value - implicit_q(unbiased, 0.8)[1])) > 2 * CLOSE


def test_awr_learns_the_weighted_policy(choices, unbiased):
    """In proportion to the data's actions and their weights. The likeliest action is the best: to
    go towards the goal, and, at either end, into the wall that one stays at."""
    q, value, pairs = implicit_q(unbiased, 0.9)
    share = pairs * np.minimum(np.exp(5 * (q - value[..., None])), 100)
    share /= share.sum(axis=2, keepdims=True)
    logits = np.asarray(choices.actor.table.values, np.float64)
    learnt = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    np.testing.assert_allclose(learnt, share, atol=CLOSE)
    for s in range(STATES):
        for g in range(STATES):
            if s != g:
                assert learnt[s, g].argmax() == (g > s)
    assert learnt[0, 0].argmax() == 0
    assert learnt[-1, -1].argmax() == 1


def aimed(state, goal):
    """What the fixed policy below does."""
    return 0.3 * np.sin(1.7 * state + 2.3 * goal)


class Flat(AbstractDistribution):
    """Uniform around its mean, of an entropy that float32 holds exactly."""

    mean: jax.Array

    def mode(self):
        return self.mean

    def log_prob(self, action):
        del action
        return jnp.float32(-ENTROPY)

    def sample_and_log_prob(self, *, key):
        width = 0.5 * np.exp(ENTROPY)
        action = self.mean + jr.uniform(key, self.mean.shape, minval=-width, maxval=width)
        return action, self.log_prob(action)


class Told(AbstractActor):
    """Has no parameters, so that nothing but values is learnt."""

    def __call__(self, observation, goal):
        number = jnp.arange(STATES, dtype=jnp.float32)
        return Flat(0.3 * jnp.sin(1.7 * (observation @ number) + 2.3 * (goal @ number))[None])


def fixed_point(data, value):
    """An offset and a slope for each state and goal: the fixed point of regressing what follows
    on the action, where `value` tells that of a state from the offset and the slope there."""
    s, action, following = data.steps
    x = np.stack([np.ones_like(action), action], axis=1)
    fits = np.stack([np.linalg.pinv(x * (s == state)[:, None]) for state in range(STATES)])
    q = np.zeros((STATES, STATES, 2))
    for _ in range(100):
        after = -1 + DISCOUNT * value(q[..., 0], q[..., 1])[following]
        after[np.arange(len(s)), following] = 0
        q = np.einsum("sxi,ig->sgx", fits, after)
    return q


def evaluation(data, bonus):
    """The value of the fixed policy, with a bonus for every step on."""
    state, goal = np.indices((STATES, STATES))
    return fixed_point(data, lambda offset, slope: offset + slope * aimed(state, goal) + bonus)


@pytest.fixture(scope="module")
def numbers():
    """Actions between -1 and 1, the higher the likelier to lead right."""

    def step(rng, state, action):
        right = rng.random(len(state)) < 0.5 + 0.5 * action
        return np.clip(state + np.where(right, 1, -1), 0, STATES - 1)

    return walk(step, STATES, 60, 21, lambda rng, s: rng.uniform(-1, 1, len(s)))


@pytest.mark.parametrize(
    "make, bonus",
    [
        (functools.partial(TD3, policy_delay=1, noise_clip=0.4), 0.0),
        (functools.partial(SAC, MaxEntropy(ENTROPY)), ENTROPY),
    ],
    ids=("td3", "sac"),
)
def test_critics_evaluate_a_fixed_policy(make, bonus, numbers, getkey):
    """The noise of either is symmetric and stays in the box, and values are affine in actions. The
    temperature stays where it starts, at one."""
    relabelling = Relabelling(Anywhere(), reward=Reward(Within(0.5)))
    objective = make(relabelling=relabelling, discount=DISCOUNT, target_rate=0.05)
    tables = Tables(STATES, slope=True, told=Told())
    params = train(objective, tables, NUMBER, numbers.rows(STATES), updates=4000, key=getkey())
    exact = evaluation(numbers, bonus)
    for member in table(params.critic):
        np.testing.assert_allclose(member, exact, atol=CLOSE)
    assert np.abs(exact - evaluation(numbers, ENTROPY - bonus)).max() > 4 * CLOSE


def test_td3_finds_the_optimum(numbers, getkey):
    """The best action is at either end of the box; the policy goes there, and its critic learns
    the optimal values of all actions."""
    relabelling = Relabelling(Anywhere(), reward=Reward(Within(0.5)))
    sharp = {"target_noise": 0.0, "policy_delay": 1, "target_rate": 0.05}
    objective = TD3(Deterministic(), relabelling, discount=DISCOUNT, **sharp)
    tables, rows = Tables(STATES, slope=True), numbers.rows(STATES)
    params = train(objective, tables, NUMBER, rows, updates=4000, key=getkey())
    best = fixed_point(numbers, lambda offset, slope: offset + abs(slope))
    for member in table(params.critic):
        np.testing.assert_allclose(member, best, atol=CLOSE)
    clear = np.abs(best[..., 1]) > 2 * CLOSE
    assert clear.mean() > 0.5
    mean = np.asarray(params.actor.table.values[..., 0])
    np.testing.assert_array_equal(np.sign(mean)[clear], np.sign(best[..., 1])[clear])
    assert np.abs(best - evaluation(numbers, 0.0)).max() > 4 * CLOSE
