"""The Python of the documentation, run as it stands there."""

import types

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from pages import blocks

import crlx
from architectures import MLPNetworks
from crlx.envs.wrappers import evaluation, scores, training
from crlx.testing import check_architecture, check_environment, check_objective, random_rows
from objectives import GCBC


def run(page, *, containing="", **names):
    """The names that the blocks of a page define, of those that contain a text."""
    found = [block for block in blocks(page) if containing in block]
    assert found
    exec(compile("\n".join(found), page, "exec"), names)
    return names


def test_parts_of_ones_own_are_trained():
    names, spec = run("docs/extending.md"), crlx.Spec(5, 3, 2)
    rows = random_rows(spec, [40, 100], key=jr.key(0))
    learner = crlx.Learner(names["objective"], optax.adam(1e-3))
    progress = eqx.filter_jit(learner.init)(names["networks"], spec, key=jr.key(1))
    fit = eqx.filter_jit(learner.fit)
    _, history = fit(progress, rows, updates=100, batch_size=16, key=jr.key(2))
    assert np.mean(history["critic/loss"][-10:]) < np.mean(history["critic/loss"][:10])


@pytest.mark.thorough
def test_parts_of_ones_own_pass_the_checks():
    names, spec = run("docs/extending.md"), crlx.Spec(5, 3, 2)
    check_architecture(names["networks"], spec, key=jr.key(0))
    rows = random_rows(spec, [40, 100], key=jr.key(0))
    check_objective(names["objective"], names["networks"], spec, rows, key=jr.key(1))


def test_an_environment_without_physics_can_be_trained_in():
    env = run("docs/environments.md", containing="class Drift")["Drift"]()
    check_environment(env, steps=20, key=jr.key(0))
    source = crlx.Online(training(env), envs=4, capacity=60, unroll=5, warm_up=10)
    learner = crlx.Learner(GCBC(), optax.adam(1e-3))
    networks = MLPNetworks(depth=1, width=8)
    progress = learner.init(networks, env.spec.networks(), key=jr.key(0))
    data = eqx.filter_jit(source.init)(key=jr.key(1))
    step = eqx.filter_jit(crlx.epoch)
    progress, *_ = step(learner, source, progress, data, updates=2, batch_size=8, key=jr.key(2))
    assert int(progress.step) == 2
    once = evaluation(env)
    state = once.step(once.reset(jr.split(jr.key(3), 4)), jnp.zeros((4, 2)))
    assert scores(state)["final_dist"] > 0


def test_runs_of_ones_own_can_be_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = crlx.Spec(4, 2, 3)
    networks, learner = MLPNetworks(depth=1, width=8), crlx.Learner(GCBC(), optax.adam(1e-3))

    env = types.SimpleNamespace(spec=types.SimpleNamespace(networks=lambda: spec))
    progress = learner.init(networks, spec, key=jr.key(0))
    given = {"learner": learner, "networks": networks, "env": env, "progress": progress}
    policy = run("docs/online.md", containing="load_policy(folder)", crlx=crlx, **given)["policy"]
    observation, goal = jnp.ones(4), jnp.ones(3)
    actor = learner.agent(progress).actor
    np.testing.assert_allclose(
        policy.act(observation, goal), actor(observation, goal).mode(), atol=1e-6
    )
