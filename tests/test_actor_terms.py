import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from architectures import Gaussian, ResidualNetworks, TanhGaussian
from crlx import AbstractActor, AbstractDistribution, Spec
from objectives import AWR, DDPGBC, ActorBatch, Deterministic, MaxEntropy

BUILD = ResidualNetworks(width=8, squashed=True), Spec(3, 2, 3)
ROWS, OBS, GOAL, ACT = 12, 3, 2, 2


class Linear(AbstractActor):
    """A normal policy whose mean is linear; `noise` replaces chance where it is not None."""

    weight: jax.Array
    log_std: jax.Array
    noise: jax.Array | None = None

    def __call__(self, observation, goal):
        mean = self.weight @ jnp.concatenate([observation, goal])
        if self.noise is None:
            return Gaussian(mean, self.log_std)
        return Fixed(mean, self.log_std, jnp.tanh(self.noise @ observation))


class Fixed(AbstractDistribution):
    """A normal distribution whose noise is known."""

    mean: jax.Array
    log_std: jax.Array
    noise: jax.Array

    def mode(self):
        return self.mean

    def log_prob(self, action):
        raise NotImplementedError

    def sample_and_log_prob(self, *, key):
        del key
        log_prob = -jnp.sum(0.5 * self.noise**2 + self.log_std + 0.5 * np.log(2 * np.pi))
        return self.mean + jnp.exp(self.log_std) * self.noise, log_prob


class Problem(eqx.Module):
    """Random numbers, and what they imply, in NumPy and float64."""

    actor: Linear
    batch: ActorBatch
    slope: np.ndarray
    offset: np.ndarray
    noise: np.ndarray

    def __init__(self, seed, size=1.0, fixed=False):
        rng = np.random.default_rng(seed)

        def draw(*shape):
            return jnp.asarray(rng.normal(size=shape), jnp.float32)

        weight, log_std = size * draw(ACT, OBS + GOAL), 0.3 * draw(ACT)
        mixing = draw(ACT, OBS)
        self.actor = Linear(weight, log_std, mixing if fixed else None)
        self.batch = ActorBatch(draw(ROWS, OBS), jnp.tanh(draw(ROWS, ACT)), draw(ROWS, GOAL))
        self.slope, self.offset = np.asarray(draw(ROWS, ACT)), np.asarray(draw(ROWS))
        self.noise = np.tanh(np.float64(self.batch.observation) @ np.float64(mixing).T)

    def score(self, action):
        """Linear in the action, with another slope in every row."""
        return jnp.sum(self.slope * action, axis=1) + self.offset

    @property
    def inputs(self):
        return np.concatenate([self.batch.observation, self.batch.goal], 1, dtype=np.float64)

    @property
    def mean(self):
        return self.inputs @ np.float64(self.actor.weight).T

    @property
    def log_std(self):
        return np.float64(self.actor.log_std)

    def scores(self, action):
        return (self.slope * action).sum(1, dtype=np.float64) + self.offset

    def cloning(self):
        """Log-densities of the batch's actions, and their gradients by mean and log-std."""
        noise = (np.float64(self.batch.action) - self.mean) * np.exp(-self.log_std)
        value = -(0.5 * noise**2 + self.log_std + 0.5 * np.log(2 * np.pi)).sum(1)
        return value, noise * np.exp(-self.log_std), noise**2 - 1

    def gradient(self, by_mean, by_log_std):
        """Gradients by the actor's weight and log-std, from those of each row."""
        return by_mean.T @ self.inputs, by_log_std.sum(0)


@eqx.filter_jit
def run(term, trainables, problem, advantage=None, seed=0):
    """Loss, metrics, and gradients by the actor, the trainables and the advantage."""

    def loss(differentiated):
        trainables, actor, advantage = differentiated
        return term(
            trainables,
            jax.vmap(actor)(problem.batch.observation, problem.batch.goal),
            problem.batch,
            score=problem.score,
            advantage=advantage,
            key=jr.key(seed),
        )

    differentiated = (trainables, problem.actor, advantage)
    return eqx.filter_value_and_grad(loss, has_aux=True)(differentiated)


def assert_close(actual, expected, tolerance=1e-5):
    scale = max(np.max(np.abs(expected)), 1e-3)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


def assert_gradient(actor, expected):
    assert_close(actor.weight, expected[0])
    assert_close(actor.log_std, expected[1])


def assert_metrics(metrics, **expected):
    assert metrics.keys() == {f"actor/{name}" for name in expected}
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[f"actor/{name}"], value, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("recover", (False, True))
@pytest.mark.parametrize("seed, alpha", ((0, 0.0), (0, 0.1), (1, 3.0)))
def test_ddpgbc_equals_double_precision(seed, alpha, recover):
    problem = Problem(seed)
    (loss, metrics), (_, actor, _) = run(DDPGBC(alpha, recover), None, problem)
    mode = problem.mean
    scale = np.mean(np.abs(problem.scores(np.clip(mode, -1, 1)))) + 1e-6
    q = problem.scores(np.clip(mode, -1, 1))
    log_prob, by_mean, by_log_std = problem.cloning()
    assert_close(loss, -q.mean() / scale - alpha * log_prob.mean())
    # The normalization passes no gradient.
    passes = passing(problem) if recover else np.abs(mode) < 1
    by_mean = -(problem.slope * passes / scale + alpha * by_mean) / ROWS
    assert_gradient(actor, problem.gradient(by_mean, -alpha * by_log_std / ROWS))
    saturated = np.mean(np.abs(mode) >= 0.999)
    assert_metrics(metrics, q=q.mean(), log_prob=log_prob.mean(), saturated=saturated)


def passing(problem):
    """Inside the box every slope of the score passes; outside, those that lead back to it."""
    mode, inside = problem.mean, np.abs(problem.mean) < 1
    back = ~inside & (mode * problem.slope < 0)
    assert inside.any()
    assert back.any()
    assert not (inside | back).all()
    return inside | back


def test_deterministic_equals_double_precision():
    problem = Problem(0)
    (loss, metrics), (_, actor, _) = run(Deterministic(), None, problem)
    q = problem.scores(np.clip(problem.mean, -1, 1))
    assert_close(loss, -q.mean())
    by_mean = -problem.slope * passing(problem) / ROWS
    assert_gradient(actor, problem.gradient(by_mean, np.zeros(ACT)))
    assert_metrics(metrics, q=q.mean(), saturated=np.mean(np.abs(problem.mean) >= 0.999))


def test_ddpgbc_normalizes_scores():
    """Without cloning, the loss does not feel the scale of the scores."""
    problem = Problem(3)
    (loss, _), (_, actor, _) = run(DDPGBC(0.0), None, problem)
    larger = eqx.tree_at(
        lambda p: (p.slope, p.offset), problem, (1000 * problem.slope, 1000 * problem.offset)
    )
    (other, _), (_, other_actor, _) = run(DDPGBC(0.0), None, larger)
    assert_close(other, loss)
    assert_close(other_actor.weight, actor.weight)


def test_ddpgbc_survives_scores_of_zero():
    problem = Problem(4)
    silent = eqx.tree_at(
        lambda p: (p.slope, p.offset), problem, (0 * problem.slope, 0 * problem.offset)
    )
    (loss, _), (_, actor, _) = run(DDPGBC(0.5), None, silent)
    log_prob, by_mean, by_log_std = problem.cloning()
    assert_close(loss, -0.5 * log_prob.mean())
    assert_gradient(actor, problem.gradient(-0.5 * by_mean / ROWS, -0.5 * by_log_std / ROWS))


@pytest.mark.parametrize("alpha, cap", ((0.0, 100.0), (1.0, 100.0), (3.0, 2.0), (10.0, 100.0)))
def test_awr_equals_double_precision(alpha, cap):
    problem = Problem(5)
    advantage = np.random.default_rng(6).normal(size=ROWS).astype(np.float32)
    (loss, metrics), (_, actor, slope) = run(AWR(alpha, cap), None, problem, jnp.asarray(advantage))
    weight = np.minimum(np.exp(alpha * np.float64(advantage)), cap)
    assert np.any(weight == cap) == (alpha > 1)
    log_prob, by_mean, by_log_std = problem.cloning()
    assert_close(loss, -np.mean(weight * log_prob))
    rows = weight[:, None] / ROWS
    assert_gradient(actor, problem.gradient(-rows * by_mean, -rows * by_log_std))
    assert not np.any(slope)  # The weights pass no gradient.
    assert_metrics(
        metrics,
        advantage=advantage.mean(dtype=np.float64),
        weight=weight.mean(),
        log_prob=log_prob.mean(),
        saturated=np.mean(np.abs(problem.mean) >= 0.999),
    )


def test_awr_caps_what_would_overflow():
    problem = Problem(7)
    advantage = jnp.where(jnp.arange(ROWS) % 2 == 0, 1e4, -1e4)
    (loss, metrics), (_, actor, slope) = run(AWR(), None, problem, advantage)
    log_prob, by_mean, by_log_std = problem.cloning()
    weight = np.where(np.arange(ROWS) % 2 == 0, 100.0, 0.0)
    assert_close(loss, -np.mean(weight * log_prob))
    rows = weight[:, None] / ROWS
    assert_gradient(actor, problem.gradient(-rows * by_mean, -rows * by_log_std))
    assert not np.any(slope)
    assert_close(metrics["actor/weight"], 50)


@pytest.mark.parametrize("target", (None, 1.3))
@pytest.mark.parametrize("log_alpha", (0.0, -1.5, 0.7))
def test_max_entropy_equals_double_precision(target, log_alpha):
    problem = Problem(8, size=0.2, fixed=True)
    (loss, metrics), (slope, actor, _) = run(MaxEntropy(target), jnp.float32(log_alpha), problem)
    std = np.exp(problem.log_std)
    action = problem.mean + std * problem.noise
    inside = np.abs(action) < 1
    assert 0 < inside.mean() < 1
    q = problem.scores(np.clip(action, -1, 1))
    log_prob = -(0.5 * problem.noise**2 + problem.log_std + 0.5 * np.log(2 * np.pi)).sum(1)
    alpha, entropy = np.exp(log_alpha), -log_prob.mean()
    excess = entropy - (-0.5 * ACT if target is None else target)
    assert_close(loss, np.mean(alpha * log_prob - q) + alpha * excess)
    # Only its own term moves the temperature.
    assert_close(slope, alpha * excess)
    # With its noise held, a sample's log-density depends on the deviation alone.
    by_action = -problem.slope * inside / ROWS
    by_log_std = by_action * std * problem.noise - alpha / ROWS
    assert_gradient(actor, problem.gradient(by_action, by_log_std))
    saturated = np.mean(np.abs(action) >= 0.999)
    assert_metrics(metrics, q=q.mean(), entropy=entropy, temperature=alpha, saturated=saturated)


def test_max_entropy_draws_fresh_noise_for_every_row():
    batch = Problem(9).batch
    same = jax.vmap(TanhGaussian)(jnp.zeros((ROWS, ACT)), jnp.zeros((ROWS, ACT)))
    seen = []

    def score(action):
        seen.append(np.asarray(action))
        return action[:, 0]

    for seed in (0, 0, 1):
        MaxEntropy()(jnp.zeros(()), same, batch, score=score, advantage=None, key=jr.key(seed))
    first, again, other = seen
    assert len(np.unique(first)) == first.size
    np.testing.assert_array_equal(first, again)
    assert not np.any(first == other)


def test_what_terms_train_and_need():
    """Only the temperature is trained; it starts at one."""
    assert DDPGBC().init(*BUILD, key=jr.key(0)) is None
    assert AWR().init(*BUILD, key=jr.key(0)) is None
    log_alpha = MaxEntropy().init(*BUILD, key=jr.key(0))
    assert (log_alpha, log_alpha.dtype, log_alpha.shape) == (0, jnp.float32, ())
    needs = [(t.needs_score, t.needs_advantage) for t in (DDPGBC(), AWR(), MaxEntropy())]
    assert needs == [(True, False), (False, True), (True, False)]


@pytest.mark.parametrize("term", (DDPGBC(), AWR(), MaxEntropy()))
def test_missing_needs_are_refused(term):
    problem = Problem(10)
    with pytest.raises(ValueError, match="does not supply"):
        term(
            term.init(*BUILD, key=jr.key(0)),
            jax.vmap(problem.actor)(problem.batch.observation, problem.batch.goal),
            problem.batch,
            score=None,
            advantage=None,
            key=jr.key(0),
        )


@pytest.mark.parametrize("value", (-1e-6, -1.0, float("nan")))
@pytest.mark.parametrize("term, name", ((DDPGBC, "alpha"), (AWR, "alpha"), (AWR, "cap")))
def test_negative_weights_are_refused(term, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must (not be negative|be positive)"):
        term(**{name: value})
