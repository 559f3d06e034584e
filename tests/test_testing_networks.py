"""The checks of networks accept what is right, and refuse each fault with its own message."""

import dataclasses
import itertools

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import pytest
from jaxtyping import Array, Float
from lengths import at_length

from architectures import MLPNetworks, ResidualNetworks, TanhGaussian
from crlx import (
    AbstractActor,
    AbstractArchitecture,
    AbstractCritic,
    AbstractDistribution,
    AbstractEnergy,
    ActionSpace,
    Spec,
)
from crlx.testing import (
    check_actor,
    check_architecture,
    check_block,
    check_critic,
    check_encoder,
    check_energy,
)

SPEC = Spec(3, 2, 2)
MLP = MLPNetworks(depth=1, width=8, dim=4)


def refuses(message):
    return pytest.raises(AssertionError, match=message)


class NaiveNorm(AbstractEnergy):
    def __call__(self, x, y):
        return -jnp.sqrt(jnp.sum((x - y) ** 2))


class NaiveCosine(AbstractEnergy):
    def __call__(self, x, y):
        return x @ y / jnp.linalg.norm(x) / jnp.linalg.norm(y)


class Blind(AbstractEnergy):
    def __call__(self, x, y):
        return -jnp.sum(x**2) + 0 * y[0]


@pytest.mark.parametrize(
    "energy, message",
    [
        (NaiveNorm(), "embeddings equal.* not finite"),
        (NaiveCosine(), "embeddings zero.* not finite"),
        (Blind(), "does not depend on both"),
    ],
)
def test_faulty_energies_are_refused(energy, message, getkey):
    with refuses(message):
        check_energy(energy, key=getkey())


class Layer(eqx.Module):
    linear: eqx.nn.Linear
    unused: Float[Array, ""] | None

    def __init__(self, in_size, out_size, *, unused=False, key):
        self.linear = eqx.nn.Linear(in_size, out_size, key=key)
        self.unused = jnp.zeros(()) if unused else None

    def __call__(self, x):
        return self.linear(x)


class UnitLength(eqx.Module):
    def __call__(self, x):
        return x / jnp.sqrt(jnp.sum(x**2))


def test_faulty_encoders_are_refused(getkey):
    check_encoder(Layer(3, 4, key=getkey()), 3, key=getkey())
    with refuses("not depend on its array or input .*unused"):
        check_encoder(Layer(3, 4, unused=True, key=getkey()), 3, key=getkey())
    with refuses("not finite"):
        check_encoder(UnitLength(), 3, key=getkey())


PARITY = itertools.cycle((0, 1))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda *, key: Layer(4, 5, key=key), "preserve the shape"),
        (lambda *, key: Layer(4, 4, key=jr.key(0)), "Two keys give the same block"),
        (lambda *, key: Layer(4, 4, unused=bool(next(PARITY)), key=key), "structure changed"),
    ],
)
def test_faulty_blocks_are_refused(make, message):
    with refuses(message):
        check_block(make, 4, key=jr.key(0))


class Bilinear(AbstractCritic):
    weight: Float[Array, "inputs goal"]
    fault: str = eqx.field(static=True)

    def __call__(self, observation, action, goal):
        return jnp.concatenate([observation, action]) @ self.weight @ goal

    def pairs(self, observations, actions, goals):
        if self.fault == "no actions":
            actions = jnp.zeros_like(actions)
        table = jnp.concatenate([observations, actions], axis=1) @ self.weight @ goals.T
        if self.fault == "batch norm":
            return table / jnp.linalg.norm(table)
        return table.T if self.fault == "transposed" else table


def test_blocks_critics_and_actors_without_fault_are_accepted(getkey):
    check_block(lambda *, key: Layer(4, 4, key=key), 4, key=getkey())
    check_critic(Bilinear(jr.normal(getkey(), (5, 2)), ""), SPEC, key=getkey())
    weight = 0.3 * jr.normal(getkey(), (2, 5))
    check_actor(Policy(weight, jnp.full(2, -1.0)), SPEC, key=getkey())


@pytest.mark.parametrize(
    "fault, message",
    [
        ("transposed", "with states as rows"),
        ("batch norm", "`pairs` and single calls"),
        ("no actions", "`pairs` and single calls"),
    ],
)
def test_faulty_critics_are_refused(fault, message, getkey):
    weight = jr.normal(getkey(), (5, 2))
    with refuses(message):
        check_critic(Bilinear(weight, fault), SPEC, key=getkey())


class Distribution(AbstractDistribution):
    """A squashed normal distribution, or one with a fault."""

    right: TanhGaussian
    fault: str = eqx.field(static=True)

    def mode(self):
        return self.right.mode()[:1] if self.fault == "shape" else self.right.mode()

    def log_prob(self, action):
        if self.fault == "border":
            noise = (jnp.arctanh(action) - self.right.mean) / jnp.exp(self.right.log_std)
            return -0.5 * jnp.sum(noise**2)
        return self.right.log_prob(action)

    def sample_and_log_prob(self, *, key):
        key = jr.key(0) if self.fault == "one sample" else key
        action, log_prob = self.right.sample_and_log_prob(key=key)
        if self.fault == "no correction":
            return action, log_prob + jnp.sum(jnp.log(1 - action**2 + 1e-6))
        return action, log_prob


class Policy(AbstractActor):
    weight: Float[Array, "act inputs"]
    log_std: Float[Array, " act"]
    fault: str = eqx.field(default="", static=True)

    def __call__(self, observation, goal):
        mean = self.weight @ jnp.concatenate([observation, goal])
        log_std = jnp.full_like(mean, -1) if self.fault == "unused" else self.log_std
        return Distribution(TanhGaussian(mean, log_std), self.fault)


@pytest.mark.parametrize(
    "fault, message",
    [
        ("shape", r"mode has shape \(1,\)"),
        ("one sample", "All keys give one sample"),
        ("no correction", "`log_prob` of samples"),
        ("unused", "log_std: use it"),
    ],
)
def test_faulty_actors_are_refused(fault, message, getkey):
    weight = 0.3 * jr.normal(getkey(), (2, 5))
    with refuses(message):
        check_actor(Policy(weight, jnp.full(2, -1.0), fault), SPEC, key=getkey())


class Networks(AbstractArchitecture):
    fault: str = eqx.field(static=True)

    def critic(self, spec, *, key):
        if self.fault == "units":
            spec = Spec(spec.observation_size, spec.action_size, spec.goal_size)
        return MLP.critic(spec, key=jr.key(0) if self.fault == "key" else key)

    def actor(self, spec, *, key):
        if self.fault == "squashed":
            boxed = dataclasses.replace(spec, actions=ActionSpace.BOX)
            spec = boxed if spec.actions is ActionSpace.REAL else spec
            return ResidualNetworks(4, 8, squashed=True).actor(spec, key=key)
        return MLP.actor(spec, key=key)

    def encoder(self, in_size, out_size, *, key):
        return MLP.encoder(in_size, out_size, key=key)


FAULTS = {
    "units": "critic does not rescale",
    "key": "Pass `key` on",
    "squashed": "leave such policies unsquashed",
}


@pytest.mark.parametrize("fault", at_length(FAULTS, {"key"}))
def test_faulty_architectures_are_refused(fault, getkey):
    with refuses(FAULTS[fault]):
        check_architecture(Networks(fault), SPEC, key=getkey())
