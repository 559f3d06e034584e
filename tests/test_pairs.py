"""Every architecture trains with every objective that it is legal with, traced once."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from lengths import at_length

from architectures import L1, MRN, Norm, ResidualNetworks, SharedTower, SquaredNorm
from crlx import Learner, Spec
from crlx.testing import random_rows
from experiments._options import parse
from experiments._parts import ARCHITECTURES, CRITICS
from objectives import Backward, Binary, Contrastive

SPEC = Spec(4, 2, 4)
PAIRS = [
    *(("infonce", name) for name in ARCHITECTURES if name != "shared-mrn"),
    *(("gcbc", name) for name in ARCHITECTURES if name not in CRITICS),
    ("cmd", "shared-mrn"),
]
# The paper's networks, a shared quasimetric and an actor alone: contracts of the other networks are
# checked elsewhere.
QUICK = [("infonce", "residual"), ("gcbc", "residual"), ("cmd", "shared-mrn")]


@pytest.fixture(scope="module")
def rows():
    return random_rows(SPEC, [20, 30], key=jr.key(0))


@pytest.mark.parametrize(("objective", "architecture"), at_length(PAIRS, QUICK))
def test_a_legal_pair_trains_in_one_trace(objective, architecture, rows):
    flags = ["--objective", objective, "--architecture", architecture, "--depth", "4"]
    options = parse([*flags, "--width", "8"])
    learner = Learner(options.objective, optax.adam(1e-3))
    progress = eqx.filter_jit(learner.init)(options.architecture, SPEC, key=jr.key(1))

    @eqx.filter_jit
    @eqx.debug.assert_max_traces(max_traces=1)
    def fit(progress, key):
        return learner.fit(progress, rows, updates=2, batch_size=4, key=key)

    before = eqx.filter(progress.params, eqx.is_array)
    for seed in range(3):
        progress, history = fit(progress, jr.key(seed))
        assert all(np.all(np.isfinite(values)) for values in history.values())
    assert int(progress.step) == 6
    assert not eqx.tree_equal(before, eqx.filter(progress.params, eqx.is_array))


def refused(objective, architecture, message):
    with pytest.raises(ValueError, match=message):
        eqx.filter_eval_shape(objective.init, architecture, SPEC, key=jr.key(0))


@pytest.mark.parametrize("energy", (Norm(), SquaredNorm(), L1(), MRN()), ids=lambda e: repr(e))
def test_labels_need_scores_of_both_signs(energy):
    networks = ResidualNetworks(depth=4, width=8, dim=4, energy=energy)
    refused(Contrastive(Binary()), networks, "both signs")


def test_one_encoder_goes_with_future_actions_alone():
    cmd = Contrastive(Backward(), future_actions=True)
    shared = ResidualNetworks(depth=4, width=8, dim=4, energy=MRN(), shared=True)
    refused(Contrastive(), shared, r"Contrastive\(future_actions=True\)")
    refused(cmd, ResidualNetworks(depth=4, width=8, energy=MRN()), "shared=True")
    refused(cmd, ResidualNetworks(depth=4, width=8, shared=True), "needs a quasimetric")


def test_a_shared_encoder_embeds_the_future_as_the_present(getkey):
    """From a state and action to themselves it is no way at all, exactly."""
    shared = ResidualNetworks(depth=4, width=8, dim=4, energy=MRN(), shared=True)
    critic = shared.critic(Spec(4, 2, 6), key=getkey())
    assert isinstance(critic, SharedTower)
    state, action = jr.normal(getkey(), (4,)), jr.normal(getkey(), (2,))
    other = jr.normal(getkey(), (6,))
    assert critic(state, action, jnp.concatenate([state, action])) == 0
    assert critic(state, action, other) < 0


def test_future_actions_are_the_future_rows(rows, getkey):
    """Goals of the critic are whole rows, and the actor's are what the goal space sees of them."""
    cmd = Contrastive(Backward(), future_actions=True)
    index = rows.draw(8, key=getkey())
    batch = cmd.relabel(rows, index, key=getkey())
    stored = np.concatenate([rows.steps.observation, rows.steps.action], axis=1)
    assert batch.score_goal is None  # The critic's own goals.
    for goal, wanted in zip(batch.goal, batch.actor_goal, strict=True):
        at = np.flatnonzero((stored == np.asarray(goal)).all(axis=1))
        assert len(at) == 1
        np.testing.assert_array_equal(rows.steps.achieved[at[0]], wanted)
