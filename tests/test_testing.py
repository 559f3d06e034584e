"""The public checks accept what is right, and refuse each fault with its own message."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jaxtyping import Array, Float

import objectives._contrastive
from architectures import Gaussian, MLPNetworks
from crlx import (
    AbstractActor,
    AbstractObjective,
    Spec,
    frozen,
)
from crlx.testing import (
    check_objective,
    check_term_gradients,
    random_rows,
)
from objectives import Contrastive

SPEC = Spec(3, 2, 2)
MLP = MLPNetworks(depth=1, width=8, dim=4)


def refuses(message):
    return pytest.raises(AssertionError, match=message)


class LinearActor(AbstractActor):
    weight: Float[Array, "act inputs"]

    def __call__(self, observation, goal):
        mean = self.weight @ jnp.concatenate([observation, goal])
        return Gaussian(mean, jnp.zeros_like(mean))


class ToyParams(eqx.Module):
    critic: Float[Array, " inputs"]
    actor: LinearActor


class Toy(AbstractObjective):
    """A regression and a linear actor, with the fault that its name says."""

    fault: str = eqx.field(default="", static=True)

    def init(self, architecture, spec, *, key):
        del architecture
        inputs = spec.observation_size + spec.goal_size
        if self.fault == "same for every key":
            key = jr.key(0)
        ckey, akey = jr.split(key)
        actor = LinearActor(jr.normal(akey, (spec.action_size, inputs)))
        critic = jr.normal(ckey, (inputs + spec.action_size,))
        return ToyParams(critic, actor), jnp.zeros((), jnp.int32)

    def relabel(self, rows, index, *, key):
        last = rows.last(index)
        goal = last + 10 if self.fault == "wrong trajectory" else last
        steps = rows.take(index)
        if self.fault == "all rows":
            everything = rows.take(jnp.arange(150)).observation
            return everything[index], steps.action, rows.take(goal).achieved
        observation = steps.observation
        if self.fault == "settings in the batch":
            return observation, steps.action, rows.take(goal).achieved, 3
        return observation, steps.action, rows.take(goal).achieved

    def loss(self, params, state, batch, *, key):
        del state, key
        fault, (observation, action, goal) = self.fault, batch
        inputs = jnp.concatenate([observation, goal], axis=1)
        value = jnp.concatenate([inputs, action], axis=1) @ params.critic
        critic = jnp.mean((value - 1) ** 2)
        chosen = inputs @ params.actor.weight.T
        weight = params.critic if fault == "leak" else frozen(params.critic)
        actor = jnp.mean((jnp.concatenate([inputs, chosen], axis=1) @ weight - 2) ** 2)
        metrics = {"critic/loss": critic, "actor/loss": actor}
        loss = critic + actor
        if fault == "frozen metric":
            metrics["actor/loss"] = frozen(actor)
        elif fault == "unnamed term":
            loss += jnp.sum(params.actor.weight**2)
        elif fault == "dead parameter":
            loss = actor
        elif fault == "constant zero":
            metrics["critic/accuracy"] = 0 * critic
        elif fault == "bad name":
            metrics["Critic Value"] = critic
        elif fault == "vector metric":
            metrics["critic/value"] = value
        elif fault == "order":
            loss += jnp.mean(value * jnp.arange(float(len(value))))
        elif fault == "not finite":
            metrics["critic/log"] = jnp.log(-(critic**2))
        elif fault == "impure":
            loss += np.random.default_rng().normal()
        return loss, metrics

    def advance(self, params, state):
        del params
        if self.fault == "weak state":
            return jnp.asarray(1)
        return 7 if self.fault == "state not an array" else state + 1

    def policy(self, params, state):
        del state
        return None if self.fault == "no policy" else params.actor


TERMS = {"critic/loss": {"critic"}, "actor/loss": {"actor"}}


@pytest.fixture(scope="module")
def rows():
    return random_rows(SPEC, [40, 60, 50], key=jr.key(0))


def test_a_right_objective_passes(rows, getkey):
    check_objective(Toy(), MLP, SPEC, rows, key=getkey())


@pytest.mark.parametrize(
    "fault, message",
    [
        ("same for every key", "same parameters for two keys"),
        ("wrong trajectory", "whose trajectory ends at row"),
        ("all rows", "Choose row numbers first"),
        ("settings in the batch", "settings belong into fields"),
        ("weak state", "state: int32.* became int32.* \\(weak\\)"),
        ("state not an array", "state: int32.* became 7"),
        ("no policy", "`policy` returns a NoneType"),
        ("dead parameter", "params.critic never receives a gradient"),
        ("constant zero", "'critic/accuracy' is zero on every batch"),
        ("bad name", "name it `group/name`"),
        ("vector metric", "reduce it to one floating scalar"),
        ("order", "pair rows by their position"),
        ("not finite", "not finite"),
        ("impure", "compiled and eager"),
    ],
)
def test_faulty_objectives_are_refused(fault, message, rows, getkey):
    with refuses(message):
        check_objective(Toy(fault), MLP, SPEC, rows, key=getkey())


def test_goals_from_anywhere_must_be_allowed(rows, getkey):
    check_objective(Toy("wrong trajectory"), MLP, SPEC, rows, own_trajectory=False, key=getkey())


def term_check(objective, rows, terms, key, architecture=MLP):
    params, state = objective.init(architecture, SPEC, key=key)
    batch = objective.relabel(rows, rows.draw(8, key=key), key=key)
    check_term_gradients(objective, params, state, batch, terms=terms, key=key)


@pytest.mark.parametrize(
    "fault, terms, message",
    [
        ("leak", TERMS, r"'actor/loss' also trains \['critic'\]: use `frozen`"),
        ("frozen metric", TERMS, r"'actor/loss' does not train \['actor'\]"),
        ("unnamed term", TERMS, "do not sum to that of the loss"),
        ("", {"critic/loss": {"critic"}}, r"No term is said to train the fields \['actor'\]"),
        ("", {**TERMS, "value/loss": {"value"}}, r"No metrics \['value/loss'\]"),
        ("", {**TERMS, "actor/loss": {"actor", "value"}}, r"Fields \['value'\]"),
    ],
)
def test_faulty_terms_are_refused(fault, terms, message, rows, getkey):
    term_check(Toy(), rows, TERMS, getkey())
    with refuses(message):
        term_check(Toy(fault), rows, terms, getkey())


@pytest.mark.thorough  # Beside faulty terms of few numbers.
@pytest.mark.parametrize("fuse", (True, False))
def test_contrastive_learning_without_frozen_is_refused(fuse, rows, monkeypatch, getkey):
    terms = {"critic/loss": {"critic"}, "actor/loss": {"actor"}}
    term_check(Contrastive(fuse=fuse), rows, terms, getkey())
    monkeypatch.setattr(objectives._reading, "frozen", lambda tree: tree)
    with refuses("'actor/loss' also trains \\['critic'\\]"):
        term_check(Contrastive(fuse=fuse), rows, terms, getkey())
