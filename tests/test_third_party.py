"""As an outsider would: an energy, an objective and a source of their own, and the same learner.

The objective has its own batch type, a target network and a Lagrange multiplier.
"""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from jaxtyping import Array, Bool, Float, Int

from architectures import MLPNetworks
from crlx import (
    AbstractActor,
    AbstractCritic,
    AbstractEnergy,
    AbstractHindsight,
    AbstractObjective,
    AbstractRows,
    AbstractSource,
    Agent,
    Geometric,
    Learner,
    Offline,
    Spec,
    Step,
    epoch,
    frozen,
)
from crlx.testing import (
    check_energy,
    check_objective,
    check_rows,
    check_source,
    check_term_gradients,
    random_rows,
)

SPEC = Spec(2, 2, 2)


class LogCosh(AbstractEnergy):
    """Quadratic near the goal, linear far from it."""

    def __call__(self, x, y):
        gap = jnp.abs(x - y)
        return -jnp.sum(gap + jax.nn.softplus(-2 * gap) - jnp.log(2.0))


NETWORKS = MLPNetworks(depth=1, width=16, dim=8, energy=LogCosh())
SMALL = MLPNetworks(depth=1, width=8, dim=4, energy=LogCosh())


class ReachParams(eqx.Module):
    critic: AbstractCritic
    actor: AbstractActor
    raw_multiplier: Float[Array, ""]


class ReachState(eqx.Module):
    target: AbstractCritic
    updates: Int[Array, ""]


class ReachBatch(eqx.Module):
    observation: Float[Array, "batch obs"]
    action: Float[Array, "batch act"]
    successor: Float[Array, "batch obs"]
    goal: Float[Array, "batch goal"]
    reached: Bool[Array, " batch"]


class Reach(AbstractObjective[ReachParams, ReachState, ReachBatch]):
    """Temporal differences of the discounted chance to reach a goal, `exp(score)`; the actor
    maximizes it while the likelihood of the data stays above a budget."""

    goals: AbstractHindsight = eqx.field(default_factory=lambda: Geometric(0.8))
    discount: float = 0.8
    rate: float = 0.05
    budget: float = 2.2

    def init(self, architecture, spec, *, key):
        ckey, akey = jr.split(key)
        critic = architecture.critic(spec, key=ckey)
        params = ReachParams(critic, architecture.actor(spec, key=akey), jnp.zeros(()))
        return params, ReachState(critic, jnp.zeros((), jnp.int32))

    def relabel(self, rows, index, *, key):
        chosen = self.goals(index, rows.last(index), key=key)
        here, after = rows.take(index), rows.take(index + 1)
        goal = rows.take(chosen).achieved
        return ReachBatch(
            here.observation, here.action, after.observation, goal, chosen <= index + 1
        )

    def loss(self, params, state, batch, *, key):
        del key

        def value(critic, observation, action):
            return jnp.exp(jax.vmap(critic)(observation, action, batch.goal))

        def policy(actor, observation):
            return jax.vmap(actor)(observation, batch.goal)

        ahead = jax.vmap(lambda p: p.mode())(policy(frozen(params.actor), batch.successor))
        target = self.discount * value(state.target, batch.successor, jnp.clip(ahead, -1, 1))
        target = jnp.where(batch.reached, 1, target)
        critic = jnp.mean((value(params.critic, batch.observation, batch.action) - target) ** 2)

        here = policy(params.actor, batch.observation)
        action = jnp.clip(jax.vmap(lambda p: p.mode())(here), -1, 1)
        score = jnp.mean(value(frozen(params.critic), batch.observation, action))
        surprise = -jnp.mean(jax.vmap(lambda p, a: p.log_prob(a))(here, batch.action))
        multiplier = jax.nn.softplus(params.raw_multiplier)
        violation = surprise - self.budget
        actor = jax.lax.stop_gradient(multiplier) * violation - score
        dual = -multiplier * jax.lax.stop_gradient(violation)
        return critic + actor + dual, {
            "critic/loss": critic,
            "actor/loss": actor,
            "actor/violation": violation,
            "multiplier/loss": dual,
            "multiplier/value": multiplier,
        }

    def advance(self, params, state):
        old, static = eqx.partition(state.target, eqx.is_inexact_array)
        new = eqx.filter(params.critic, eqx.is_inexact_array)
        target = eqx.combine(optax.incremental_update(new, old, self.rate), static)
        return ReachState(target, state.updates + 1)

    def policy(self, params, state):
        del state
        return params.actor


class Ring(eqx.Module):
    """The newest episodes, each of `length + 1` consecutive rows, and how many there were."""

    steps: Step
    episodes: Int[Array, ""]


class RingRows(AbstractRows):
    ring: Ring
    length: int = eqx.field(static=True)

    def draw(self, size, *, key):
        ekey, tkey = jr.split(key)
        capacity = self.ring.steps.action.shape[0] // (self.length + 1)
        episode = jr.randint(ekey, (size,), 0, jnp.minimum(self.ring.episodes, capacity))
        return episode * (self.length + 1) + jr.randint(tkey, (size,), 0, self.length)

    def take(self, index):
        return jax.tree.map(lambda x: x[index], self.ring.steps)

    def last(self, index):
        time = index % (self.length + 1)
        return jnp.where(time == self.length, index, index - time + self.length - 1)


class Meadow(AbstractSource[Ring]):
    """A point in the plane that moves by a fifth of its action. One collection, one episode."""

    length: int = 20
    capacity: int = 10
    task: ClassVar[Spec] = SPEC

    def init(self, *, key):
        del key
        count = self.capacity * (self.length + 1)
        empty = jnp.zeros((count, 2))
        return Ring(Step(empty, empty, empty), jnp.zeros((), jnp.int32))

    def collect(self, data, agent, *, key):
        skey, gkey, akey = jr.split(key, 3)
        start = jr.uniform(skey, (2,), minval=-1, maxval=1)
        goal = jr.uniform(gkey, (2,), minval=-1, maxval=1)

        def move(position, key):
            action, _ = agent.actor(position, goal).sample_and_log_prob(key=key)
            action = jnp.clip(action, -1, 1)
            return jnp.clip(position + 0.2 * action, -1, 1), (position, action)

        _, (positions, actions) = jax.lax.scan(move, start, jr.split(akey, self.length + 1))
        first = (data.episodes % self.capacity) * (self.length + 1)
        steps = jax.tree.map(
            lambda ring, new: jax.lax.dynamic_update_slice(
                ring, new, (first, jnp.zeros_like(first))
            ),
            data.steps,
            Step(positions, actions, positions),
        )
        gap = jnp.linalg.norm(positions[-1] - goal)
        return Ring(steps, data.episodes + 1), {"collect/gap": gap}

    def rows(self, data):
        return RingRows(data, self.length)


def test_the_energy_passes_its_check(getkey):
    check_energy(LogCosh(), key=getkey())


def test_the_objective_passes_its_checks(getkey):
    rows = random_rows(SPEC, [60, 3, 80], key=getkey())
    check_objective(Reach(), SMALL, SPEC, rows, key=getkey())
    params, state = Reach().init(SMALL, SPEC, key=getkey())
    batch = Reach().relabel(rows, rows.draw(8, key=getkey()), key=getkey())
    terms = {
        "critic/loss": {"critic"},
        "actor/loss": {"actor"},
        "multiplier/loss": {"raw_multiplier"},
    }
    check_term_gradients(Reach(), params, state, batch, terms=terms, key=getkey())


@pytest.mark.parametrize("collections", [1, 4, 13])
def test_the_source_passes_its_checks(collections, getkey):
    source, agent = Meadow(), Agent(NETWORKS.actor(SPEC, key=getkey()))
    check_source(source, agent, collections=collections, key=getkey())
    data = dataclasses.replace(source.init(key=getkey()), episodes=jnp.asarray(collections))
    row = np.arange(21 * min(collections, source.capacity))
    check_rows(source.rows(data), row[row % 21 < 20], key=getkey())


def train(learner, source, key, *, rounds, updates):
    ikey, dkey, ekey = jr.split(key, 3)
    progress, data = learner.init(NETWORKS, SPEC, key=ikey), source.init(key=dkey)
    sizes = {"rounds": rounds, "updates": updates, "batch_size": 64}
    return eqx.filter_jit(epoch)(learner, source, progress, data, **sizes, key=ekey)


def test_the_learner_trains_it_online(getkey):
    learner = Learner(Reach(), optax.adam(3e-3))
    progress, data, metrics = train(learner, Meadow(), getkey(), rounds=60, updates=25)
    critic, violation = metrics["critic/loss"], metrics["actor/violation"]
    multiplier, gap = metrics["multiplier/value"], metrics["collect/gap"]
    assert int(progress.state.updates) == int(progress.step) == 60 * 25
    assert int(data.episodes) == 60
    assert jnp.mean(critic[-10:]) < 0.3 * jnp.mean(critic[0])
    # The multiplier rose while the constraint was violated; now it holds.
    assert jnp.mean(violation[:5]) > 0.05
    assert jnp.mean(violation[-20:]) < 0.03
    assert jnp.max(multiplier) > 1.2 * multiplier[0, 0]
    # And the point arrives where it is told to go.
    assert jnp.mean(gap[-20:]) < 0.5 * jnp.mean(gap[:10])


def test_the_learner_trains_it_offline(getkey):
    learner = Learner(Reach(), optax.adam(3e-3))
    rows = random_rows(SPEC, [50] * 20, key=getkey())
    _, data, metrics = train(learner, Offline(rows), getkey(), rounds=1, updates=300)
    critic = metrics["critic/loss"][0]
    assert data is None
    assert jnp.mean(critic[-20:]) < 0.7 * jnp.mean(critic[:5])


def test_the_target_follows_slowly(getkey):
    learner = Learner(Reach(rate=0.1), optax.adam(1e-2))
    start = learner.init(NETWORKS, SPEC, key=getkey())
    rows = random_rows(SPEC, [50], key=getkey())
    after, _ = learner.fit(start, rows, updates=1, batch_size=8, key=getkey())
    leaf = lambda critic: critic.goal.output.weight  # noqa: E731
    moved = leaf(after.params.critic) - leaf(start.params.critic)
    lag = leaf(after.state.target) - leaf(start.state.target)
    assert np.all(moved != 0)
    np.testing.assert_allclose(lag, 0.1 * moved, atol=1e-6)
