import dataclasses

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from lengths import at_length

import objectives as obj
from architectures import ResidualNetworks
from crlx import Learner, Spec
from crlx.testing import check_objective, check_rows, numbered_rows, random_rows

SPEC = Spec(3, 2, 2)
NETWORKS = ResidualNetworks(depth=4, width=8, dim=4, squashed=True)
CRL = obj.Contrastive(actor=obj.MaxEntropy())


def test_a_chunk_is_the_actions_of_the_steps_that_follow(getkey):
    """By counting: rows are numbered, the last of each trajectory has no action."""
    rows = obj.ChunkedRows(numbered_rows([6, 3]), 3)
    taken = rows.take(jnp.asarray([0, 2, 3, 4, 6, 7]))
    expected = [[0, 1, 2], [2, 3, 4], [3, 4, 4], [4, 4, 4], [6, 7, 7], [7, 7, 7]]
    assert np.array_equal(taken.action, expected)
    assert np.array_equal(taken.observation[:, 0], [0, 2, 3, 4, 6, 7])
    check_rows(rows, np.asarray([0, 1, 2, 3, 4, 6, 7]), key=getkey())


@pytest.mark.parametrize(
    "objective", at_length([CRL, obj.GCBC(), obj.GCSL(), obj.BC()], [obj.GCBC()])
)
def test_objectives_keep_their_contract(objective, getkey):
    rows = random_rows(SPEC, [60, 3, 80], key=getkey())
    networks = NETWORKS if objective is CRL else dataclasses.replace(NETWORKS, squashed=False)
    check_objective(obj.Chunked(objective, 3), networks, SPEC, rows, chunk=3, key=getkey())


def test_one_step_is_the_objective_itself(getkey):
    rows, key = random_rows(SPEC, [30, 40], key=getkey()), getkey()
    index = rows.draw(8, key=getkey())
    losses = []
    for objective in (CRL, obj.Chunked(CRL, 1)):
        params, state = objective.init(NETWORKS, SPEC, key=key)
        batch = objective.relabel(rows, index, key=key)
        losses.append(objective.loss(params, state, batch, key=key)[0])
    assert losses[0] == losses[1]


def test_policy_and_scores_are_of_whole_chunks(getkey):
    learner = Learner(obj.Chunked(CRL, 3), optax.sgd(0.1))
    agent = learner.agent(learner.init(NETWORKS, SPEC, key=getkey()))
    state, goal = jr.normal(getkey(), (3,)), jr.normal(getkey(), (2,))
    action = agent.actor(state, goal).mode()
    assert action.shape == (6,)
    assert agent.score(state, action, goal).shape == ()
    assert agent.score(state, action, goal) != agent.score(state, action.at[5].add(0.5), goal)


@pytest.mark.parametrize("objective", (obj.SAC(), obj.TD3(), obj.QRL(), obj.GCIVL(), obj.HIQL()))
def test_what_looks_at_the_next_step_is_refused(objective):
    with pytest.raises(ValueError, match="takes no chunks of actions: use Contrastive"):
        obj.Chunked(objective)


def test_a_chunk_has_steps():
    with pytest.raises(ValueError, match="at least 1; got 0"):
        obj.Chunked(CRL, 0)
