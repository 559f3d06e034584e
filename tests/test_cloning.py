import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from architectures import Gaussian
from crlx import AbstractActor, AbstractArchitecture, Final, OfflineRows, Spec, Step
from objectives import GCBC, ActorBatch

ROWS = 6


class Linear(AbstractActor):
    weight: jax.Array

    def __call__(self, observation, goal):
        mean = self.weight @ jnp.concatenate([observation, goal])
        return Gaussian(mean, jnp.zeros_like(mean))


class OnlyActor(AbstractArchitecture):
    def critic(self, spec, *, key):
        raise AssertionError("Imitation pays for no critic.")

    def actor(self, spec, *, key):
        shape = spec.action_size, spec.observation_size + spec.goal_size
        return Linear(jr.normal(key, shape))

    def encoder(self, in_size, out_size, *, key):
        raise AssertionError("Imitation pays for no network but the actor.")


def test_gcbc_equals_double_precision():
    rng, objective = np.random.default_rng(0), GCBC()
    s, a, goal = (jnp.asarray(rng.normal(size=(ROWS, size)), jnp.float32) for size in (3, 2, 2))
    params, state = objective.init(OnlyActor(), Spec(3, 2, 2), key=jr.key(0))
    assert state is None

    @eqx.filter_jit
    @eqx.filter_value_and_grad(has_aux=True)
    def evaluate(params):
        return objective.loss(params, None, ActorBatch(s, a, goal), key=jr.key(1))

    (loss, metrics), gradient = evaluate(params)
    x = np.concatenate([s, goal], 1, dtype=np.float64)
    mean = x @ np.float64(params.actor.weight).T
    error = mean - np.float64(a)
    log_prob = np.mean((-0.5 * error**2 - 0.5 * np.log(2 * np.pi)).sum(1))
    expected = {
        "actor/loss": -log_prob,
        "actor/log_prob": log_prob,
        "actor/mse": np.mean(error**2),
        "actor/saturated": np.mean(np.abs(mean) >= 0.999),
    }
    assert 0 < expected["actor/saturated"] < 1
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(loss, -log_prob, rtol=1e-5)
    np.testing.assert_allclose(gradient.actor.weight, error.T @ x / ROWS, rtol=1e-4, atol=1e-5)
    assert objective.policy(params, None) is params.actor
    assert objective.advance(params, None) is None


def test_gcbc_relabels_by_index():
    """Two episodes, of 6 and 4 rows; the number of a row is in every value."""
    number, index = jnp.arange(10, dtype=jnp.float32), jnp.array([0, 1, 3, 6, 8, 4], jnp.int32)
    parts = ((0, 3), (100, 2), (200, 2))
    steps = Step(*(jnp.stack([number + first] * size, 1) for first, size in parts))
    rows = OfflineRows(steps, np.isin(number, (5, 9)))
    batch = eqx.filter_jit(GCBC(Final()).relabel)(rows, index, key=jr.key(0))
    np.testing.assert_array_equal(batch.observation[:, 0], index)
    np.testing.assert_array_equal(batch.action[:, 0] - 100, index)
    np.testing.assert_array_equal(batch.goal[:, 0] - 200, [4, 4, 4, 8, 8, 4])
