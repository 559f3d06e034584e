from collections.abc import Callable
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from brax import envs
from walk import Walk

from architectures import Gaussian, MLPNetworks
from crlx import (
    AbstractActor,
    AbstractBehaviour,
    AbstractObjective,
    Agent,
    BestOf,
    Greedy,
    Learner,
    Online,
    Stochastic,
    epoch,
)
from crlx.envs.wrappers import training
from crlx.testing import check_source
from objectives import GCBC

WALK = training(Walk())
MLP = MLPNetworks(depth=1, width=8, dim=4)
ENVS, WARM_UP, UNROLL = 4, 9, 4
STEPS = WARM_UP + 2 * UNROLL


class Outwards(AbstractActor):
    """Walks away from the origin, noisily, and decides on several steps at once."""

    chunk: int = eqx.field(default=1, static=True)

    def __call__(self, observation, goal):
        mean = 0.5 * observation + 0.3 * goal + 0.1 * jnp.arange(self.chunk, dtype=jnp.float32)
        return Gaussian(mean, jnp.full_like(mean, -0.5))


class Constant(AbstractActor):
    def __call__(self, observation, goal):
        del goal
        return Gaussian(jnp.zeros_like(observation), jnp.full_like(observation, -2.0))


class Ladder(AbstractBehaviour):
    """The same three actions at every decision, too small to end an episode."""

    def __call__(self, agent, observation, goal, *, key):
        del agent, observation, goal, key
        return jnp.asarray([0.01, 0.02, 0.03])


class Counted(envs.Wrapper):
    """Says when its steps are traced."""

    def __init__(self, env, at_step):
        self.env, self.at_step = env, at_step

    def step(self, state, action):
        self.at_step()
        return self.env.step(state, action)


class CountedLoss(AbstractObjective):
    """GCBC, which says when its loss is traced."""

    at_loss: Callable = eqx.field(static=True)
    objective: GCBC = eqx.field(default_factory=GCBC)

    def init(self, architecture, spec, *, key):
        return self.objective.init(architecture, spec, key=key)

    def relabel(self, rows, index, *, key):
        return self.objective.relabel(rows, index, key=key)

    def loss(self, params, state, batch, *, key):
        self.at_loss()
        return self.objective.loss(params, state, batch, key=key)

    def advance(self, params, state):
        return self.objective.advance(params, state)

    def policy(self, params, state):
        return self.objective.policy(params, state)


def online(env=WALK, **settings):
    sizes = {"envs": ENVS, "capacity": 2 * STEPS, "unroll": UNROLL, "warm_up": WARM_UP}
    return Online(env, **{**sizes, **settings})


def collected(source, agent, key):
    """The data and the metrics of three collections, and the keys that they got."""
    ikey, *keys = jr.split(key, 4)
    data, metrics, collect = source.init(key=ikey), [], eqx.filter_jit(source.collect)
    for k in keys:
        data, some = collect(data, agent, key=k)
        metrics.append(some)
    return data, metrics, (ikey, keys)


def stored(source, data):
    """Steps and successors that may be drawn, `[envs, steps, …]`, if none was overwritten."""
    rows = source.rows(data)
    index = rows.listed[: rows.count]
    both = rows.take(index), rows.take(index + 1)
    return jax.tree.map(lambda x: np.reshape(x, (ENVS, -1, *x.shape[1:])), both)


def walked(agent, chunk, ikey, keys):
    """What `Online` does, in plain loops: a record of every step of all environments."""
    state, record = WALK.reset(jr.split(ikey, ENVS)), []
    plan, used = np.zeros((ENVS, chunk)), np.zeros(ENVS, int)
    decide, step = eqx.filter_jit(Stochastic()), jax.jit(WALK.step)
    for key, count in zip(keys, (WARM_UP, UNROLL, UNROLL), strict=True):
        for i in range(count):
            own = jr.split(jr.split(jr.fold_in(key, i))[0], ENVS)
            for e in np.flatnonzero(used == 0):
                action = decide(agent, state.obs[e, :1], state.obs[e, 1:], key=own[e])
                plan[e] = np.clip(action, -1, 1)
            action = plan[np.arange(ENVS), used].astype(np.float32)
            before, state = state.obs, step(state, jnp.asarray(action)[:, None])
            done = np.asarray(state.done > 0)
            used = np.where(done, 0, (used + 1) % chunk)
            own = {"reward": state.reward, "done": state.done, **state.metrics}
            after = state.info["last_observation"]
            record.append(SimpleNamespace(before=before, action=action, after=after, own=own))
    return record


@pytest.mark.parametrize("chunk", (1, 3))
def test_what_is_stored_equals_plain_loops(chunk, getkey):
    source, agent = online(chunk=chunk), Agent(Outwards(chunk))
    data, metrics, (ikey, keys) = collected(source, agent, getkey())
    here, after = stored(source, data)
    record = walked(agent, chunk, ikey, keys)
    before, actions, following = (
        np.stack([getattr(step, name) for step in record], 1)
        for name in ("before", "action", "after")
    )
    close = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(here.observation, before[:, :, :1], **close)
    np.testing.assert_allclose(here.achieved, before[:, :, :1], **close)
    np.testing.assert_allclose(here.action[:, :, 0], actions, **close)
    np.testing.assert_allclose(after.observation, following[:, :, :1], **close)
    np.testing.assert_array_equal(here.extras.goal, before[:, :, 1:])
    fallen = np.abs(following[:, :, 0]) > 2.0
    np.testing.assert_array_equal(here.extras.terminated, fallen)
    done = np.stack([step.own["done"] > 0 for step in record], 1)
    assert fallen.sum() > 2
    assert (done & ~fallen).sum() > 2  # The time limit does not terminate.
    assert (np.abs(actions) == 1).any()
    for some, part in zip(metrics, np.split(record, (WARM_UP, WARM_UP + UNROLL)), strict=True):
        assert some.keys() == {f"collect/{name}" for name in record[0].own}
        for name in record[0].own:
            mean = np.mean([step.own[name] for step in part])
            np.testing.assert_allclose(some[f"collect/{name}"], mean, **close)


def test_the_first_collection_is_longer(getkey):
    source, agent = online(capacity=5), Agent(Constant())
    data, collect = source.init(key=getkey()), eqx.filter_jit(source.collect)
    steps = []
    for _ in range(3):
        data, _ = collect(data, agent, key=getkey())
        steps.append(int(data.steps))
    assert steps == [WARM_UP, WARM_UP + UNROLL, STEPS]
    # Of each environment, its last observation of each episode has a row as well.
    ended = data.env.info["trajectory"]
    assert np.array_equal(data.replay.newest, STEPS + ended)


def test_a_plan_is_carried_out_until_the_episode_ends(getkey):
    source = online(behaviour=Ladder(), chunk=3)
    data, _, _ = collected(source, Agent(Constant()), getkey())
    here, _ = stored(source, data)
    # Episodes have four steps: the second decision is cut short, whatever the collection.
    expected = np.resize([0.01, 0.02, 0.03, 0.01], STEPS)
    np.testing.assert_allclose(here.action[:, :, 0], [expected] * ENVS, rtol=1e-6)


def test_no_noise_is_drawn_twice(getkey):
    """Not in another step, environment or collection."""
    source = online()
    data, _, _ = collected(source, Agent(Constant()), getkey())
    here, _ = stored(source, data)
    assert len(np.unique(here.action)) == ENVS * STEPS
    other = stored(source, collected(source, Agent(Constant()), getkey())[0])[0]
    assert not np.isin(other.action, here.action).any()


def test_the_behaviour_acts(getkey):
    source = online(behaviour=Greedy())
    data, _, _ = collected(source, Agent(Outwards()), getkey())
    here, _ = stored(source, data)
    mode = np.clip(0.5 * here.observation + 0.3 * here.extras.goal, -1, 1)
    np.testing.assert_allclose(here.action, mode, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", ({}, {"outcomes": False}, {"capacity": 4, "chunk": 2}))
def test_contract(settings, getkey):
    source = online(**settings)
    check_source(source, Agent(Outwards(source.chunk)), key=getkey())


def test_outcomes_may_be_left_out(getkey):
    data = online(outcomes=False).init(key=getkey())
    assert data.replay.extras is None


def test_an_epoch_is_traced_once(getkey):
    """However often it is called, and however many rounds and updates it has."""
    traced = []
    learner = Learner(CountedLoss(lambda: traced.append("loss")), optax.adam(1e-2))
    source = online(Counted(WALK, lambda: traced.append("step")))
    loop = eqx.filter_jit(epoch)
    progress = learner.init(MLP, Walk().spec.networks(), key=getkey())
    data, key = source.init(key=getkey()), getkey()
    sizes = {"rounds": 2, "updates": 3, "batch_size": 4}
    for _ in range(3):
        progress, data, metrics = loop(learner, source, progress, data, **sizes, key=key)
    assert traced == ["step", "loss"]
    assert (int(progress.step), int(data.steps)) == (18, WARM_UP + 5 * UNROLL)
    assert metrics["collect/reward"].shape == (2,)
    assert np.isfinite(metrics["total/loss"]).all()


@pytest.mark.parametrize("name", ("envs", "unroll", "warm_up", "chunk"))
def test_impossible_settings_are_refused(name):
    with pytest.raises(ValueError, match=f"`{name}` is at least 1; got 0"):
        online(**{name: 0})


def test_impossible_choices_are_refused(getkey):
    with pytest.raises(ValueError, match="keeps 3 rows or more"):
        online(capacity=2).init(key=getkey())
    source = online(behaviour=BestOf())
    with pytest.raises(ValueError, match=r"use Stochastic\(\) or Greedy\(\)"):
        source.collect(source.init(key=getkey()), Agent(Constant()), key=getkey())


@pytest.mark.parametrize(("own", "others"), ((1, 3), (3, 1)))
def test_a_policy_of_other_chunks_is_refused(own, others, getkey):
    source = online(chunk=others)
    with pytest.raises(ValueError, match=f"decides on {own} numbers .* expects {others} x 1"):
        source.collect(source.init(key=getkey()), Agent(Outwards(own)), key=getkey())
