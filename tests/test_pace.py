"""Fields of the parameters that learn at a pace of their own, exactly as if trained apart."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from affine import SPEC, STATES, Lines
from jaxtyping import Array, Float, Int

from crlx import AbstractPaced, Learner
from crlx.testing import random_rows
from objectives import AWR, QRL, TD3

DUE = (1.0, 0.0, 0.0, 2.5, 0.0, 1.0)  # The pace of one field, by update; then again.
SLOW = optax.adam(optax.linear_schedule(0.1, 0.01, 20))  # Its steps depend on its own count.


class Fields(eqx.Module):
    fixed: Float[Array, " three"]
    timed: Float[Array, " three"]
    rest: Float[Array, " three"]


class Toy(AbstractPaced[Fields, Int[Array, ""], None]):
    """Quadratic in each field, towards a goal that the updates move."""

    factor: float = 3.0

    def init(self, architecture, spec, *, key):
        del architecture, spec
        return Fields(*jr.normal(key, (3, 3))), jnp.zeros((), jnp.int32)

    def relabel(self, rows, index, *, key):
        del rows, index, key

    def loss(self, params, state, batch, *, key):
        del batch, key
        goal = jnp.sin(state.astype(jnp.float32))
        return sum(0.5 * jnp.sum((x - goal) ** 2) for x in jax.tree.leaves(params)), {}

    def advance(self, params, state):
        del params
        return state + 1

    def policy(self, params, state):
        raise NotImplementedError

    def pace(self, state):
        return {"fixed": self.factor, "timed": jnp.asarray(DUE)[state % len(DUE)]}


def step_of(optimizer, slope, state, x):
    with jax.numpy_dtype_promotion("standard"):  # Optax mixes dtypes of its scalars.
        return optimizer.update(slope, state, x)


def alone(optimizer, start, paces):
    """The trajectory of one field, trained apart; where its pace is zero it is left alone."""
    x, state, found = start, optimizer.init(start), []
    for t, pace in enumerate(paces):
        if pace:
            step, state = step_of(optimizer, x - jnp.sin(jnp.float32(t)), state, x)
            x = x + jnp.float32(pace) * step
        found.append((x, state))
    return found


@pytest.mark.parametrize(
    "optimizer", (optax.adam(0.1), SLOW, optax.chain(optax.clip(0.5), optax.sgd(0.1, 0.9)))
)
def test_each_field_is_trained_as_if_apart(optimizer):
    """At a pace that is a number all steps count, and are scaled; where an array is zero, neither
    the field nor its statistics nor its count of steps move."""
    learner, updates = Learner(Toy(), optimizer), 18
    progress = learner.init(Lines(), SPEC, key=jr.key(0))
    step = eqx.filter_jit(lambda p: learner.update(p, None, key=jr.key(1))[0])
    paces = {"fixed": (3.0,) * updates, "timed": DUE * 3, "rest": (1.0,) * updates}
    wanted = {
        name: alone(optimizer, getattr(progress.params, name), pace) for name, pace in paces.items()
    }
    for t in range(updates):
        before, progress = progress, step(progress)
        for name, found in wanted.items():
            actual = getattr(progress.params, name)
            np.testing.assert_allclose(actual, found[t][0], rtol=1e-5, atol=1e-6, err_msg=name)
        if DUE[t % len(DUE)] == 0:
            assert_same(timed(before), timed(progress))
        else:
            assert all(
                np.any(a != b)
                for a, b in zip(*leaves(timed(before)[0], timed(progress)[0]), strict=True)
            )
    own = timed(progress)[1]
    np.testing.assert_allclose(*leaves_of_size(3, own, wanted["timed"][-1][1]), rtol=1e-5)


def timed(progress):
    return progress.params.timed, progress.opt_state.inner_states["timed"]


def leaves(*trees):
    return [jax.tree.leaves(eqx.filter(tree, eqx.is_array)) for tree in trees]


def leaves_of_size(size, *trees):
    """Statistics without counts, which some optimizers keep twice."""
    return [np.concatenate([x for x in found if x.size == size]) for found in leaves(*trees)]


def assert_same(tree, other):
    for x, y in zip(*leaves(tree, other), strict=True):
        np.testing.assert_array_equal(x, y)


ROWS = random_rows(SPEC, [30, 2, 40], key=jr.key(0))
UPDATES, DELAY, RATE = 11, 3, 0.3


def batches(objective, rows, size=8):
    keys = jr.split(jr.key(1), UPDATES)
    index = [rows.draw(size, key=key) for key in keys]
    relabel = eqx.filter_jit(objective.relabel)
    return [relabel(rows, i, key=key) for i, key in zip(index, keys, strict=True)]


def trajectory(learner, progress, minibatches):
    """Progress before, between and after updates."""
    step = eqx.filter_jit(learner.update)
    found = [progress]
    for batch in minibatches:
        found.append(step(found[-1], batch, key=jr.key(2))[0])
    return found


@pytest.fixture(scope="module")
def td3():
    objective = TD3(policy_delay=DELAY, target_rate=RATE)
    learner = Learner(objective, optax.adam(optax.linear_schedule(0.1, 0.01, 20)))
    minibatches = batches(objective, ROWS)
    return (
        learner,
        minibatches,
        trajectory(learner, learner.init(Lines(), SPEC, key=jr.key(3)), minibatches),
    )


def delayed(progress):
    """All that moves on due updates alone: the actor with its optimizer's state, and targets."""
    inner = progress.opt_state.inner_states["actor"]
    return progress.params.actor.mean, inner, progress.state.critic, progress.state.actor.mean


def test_td3_delays_the_actor_and_all_targets(td3):
    """Bitwise unchanged between due updates, while the critic moves on each."""
    _, _, found = td3
    for t, (before, after) in enumerate(itertools.pairwise(found)):
        critics = leaves(before.params.critic, after.params.critic)
        assert all(np.all(a != b) for a, b in zip(*critics, strict=True))
        assert after.state.updates == t + 1
        for old, new in zip(delayed(before), delayed(after), strict=True):
            pairs = list(zip(*leaves(old, new), strict=True))
            same = [np.array_equal(a, b) for a, b in pairs]
            assert all(same) if t % DELAY else not any(same[:2])


def test_td3_trains_actor_and_critic_as_if_apart(td3):
    """Each by an optimizer of its own, that of the actor on due updates only, on gradients that
    are taken where both are then; targets average themselves with the networks after the step."""
    learner, minibatches, found = td3
    gradients = eqx.filter_jit(eqx.filter_grad(learner.objective.loss, has_aux=True))
    params, slow = found[0].params, found[0].state
    arrays = {name: eqx.filter(getattr(params, name), eqx.is_array) for name in ("actor", "critic")}
    targets = {name: getattr(slow, name) for name in arrays}
    states = {name: learner.optimizer.init(x) for name, x in arrays.items()}
    for t, batch in enumerate(minibatches):
        slopes, _ = gradients(found[t].params, found[t].state, batch, key=jr.key(2))
        for name, rate in (("critic", 1), ("actor", int(t % DELAY == 0))):
            if rate:
                slope = getattr(slopes, name)
                updates, states[name] = step_of(
                    learner.optimizer, slope, states[name], arrays[name]
                )
                arrays[name] = eqx.apply_updates(arrays[name], updates)
        for name, network in arrays.items():
            if t % DELAY == 0:
                targets[name] = jax.tree.map(
                    lambda s, x: s + RATE * (x - s), targets[name], network
                )
            actual = getattr(found[t + 1].params, name), getattr(found[t + 1].state, name)
            for one, other in zip(*leaves(actual, (network, targets[name])), strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    behind = leaves(targets["actor"].mean, arrays["actor"].mean)
    assert all(np.any(a != b) for a, b in zip(*behind, strict=True))


def test_the_multiplier_moves_at_its_pace():
    """By exactly that many of Adam's steps, whereas the networks move by one."""
    rows, found = random_rows(STATES, [30, 2, 40], key=jr.key(0)), {}
    for pace in (1.0, 32.0):  # A power of two scales without rounding.
        objective = QRL(AWR(), multiplier_pace=pace)
        learner = Learner(objective, optax.adam(0.01))
        progress = learner.init(Lines(), STATES, key=jr.key(3))
        found[pace] = trajectory(learner, progress, batches(objective, rows)[:1])
    (start, slow), (_, fast) = found[1.0], found[32.0]
    for name in ("critic", "actor"):
        for x, y in zip(
            *leaves(getattr(slow.params, name), getattr(fast.params, name)), strict=True
        ):
            np.testing.assert_array_equal(x, y)
    old, one, many = (p.params.log_multiplier for p in (start, slow, fast))
    assert abs(one - old) == pytest.approx(0.01, rel=1e-4)  # Adam's first step.
    np.testing.assert_array_equal(old, 0)
    np.testing.assert_array_equal(many, 32 * one)


def test_multipliers_follow_adam_apart():
    """Over many updates, on the gradients that the multiplier meets."""
    objective = QRL(AWR(), multiplier_pace=7.0)
    rows = random_rows(STATES, [30, 2, 40], key=jr.key(0))
    learner, minibatches = Learner(objective, optax.adam(0.01)), batches(objective, rows)
    found = trajectory(learner, learner.init(Lines(), STATES, key=jr.key(3)), minibatches)
    gradients = eqx.filter_jit(eqx.filter_grad(objective.loss, has_aux=True))
    value = found[0].params.log_multiplier
    state = learner.optimizer.init(value)
    for before, after, batch in zip(found, found[1:], minibatches, strict=False):
        slopes, _ = gradients(before.params, None, batch, key=jr.key(2))
        step, state = step_of(learner.optimizer, slopes.log_multiplier, state, value)
        value = value + 7 * step
        np.testing.assert_allclose(after.params.log_multiplier, value, rtol=1e-5)


def test_td3_is_traced_once():
    """Due updates and others are one program, also of a run that is cut into several calls."""
    objective, traces = TD3(), []

    @eqx.filter_jit
    def fit(progress, updates):
        traces.append(updates)
        return learner.fit(progress, ROWS, updates=updates, batch_size=8, key=jr.key(1))[0]

    learner = Learner(objective, optax.adam(1e-3))
    progress = learner.init(Lines(), SPEC, key=jr.key(0))
    for _ in range(3):
        progress = fit(progress, 3)
    assert traces == [3]
    assert progress.step == progress.state.updates == 9
