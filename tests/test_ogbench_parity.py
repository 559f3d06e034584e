"""Losses, metrics, gradients and updates against what OGBench's reference agents compute.

`golden/README.md` says where the numbers are from. Objectives are at their defaults, which are
OGBench's, with two exceptions: `Contrastive` takes its choices (two critics, the binary contrast,
no penalty), and `AWR` the alpha of the agent. Some differences are by design:

- Their targets follow what the parameters were before the gradient step, ours what they are after.
- The sigmoid of the IQE's one number weighs the mean of the components there, the largest here.
- Their contrastive critic is the exponential of ours, and actors take its logarithm, bounded below
  by that of 1e-6, which these data do not reach.
- Their metrics of the contrast are of logits averaged over the critics: of those not linear in the
  logits only the single value's can be compared.
- What they call `critic/q_mean` in GCIQL is the mean of what the critics are to learn.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import optax
import pytest

from architectures import IQE, MLPNetworks
from crlx import AbstractObjective, Learner, Spec
from objectives import (
    AWR,
    GCBC,
    GCIQL,
    GCIVL,
    HIQL,
    QRL,
    ActorBatch,
    Binary,
    Contrastive,
    ContrastiveBatch,
    HIQLBatch,
    QRLBatch,
    Transitions,
    polyak,
)

GOLDEN = pathlib.Path(__file__).parent / "golden"
PLAIN = MLPNetworks(depth=2, width=16, dim=16)
METRIC = MLPNetworks(depth=2, width=16, dim=16, energy=IQE(8), shared=True)


# Each of these fills a network of ours with the arrays of theirs, which it takes out of `p`. All is
# linear, and so as right for gradients as for parameters. Shapes differ by axes of length one:
# of the stack, which has one block at two hidden layers, and of an ensemble of one.
def filled(p, layer, weight, bias):
    arrays = weight.reshape(layer.weight.shape), p.pop(bias).reshape(layer.bias.shape)
    return eqx.tree_at(lambda m: (m.weight, m.bias), layer, tuple(map(jnp.asarray, arrays)))


def dense(p, layer, name):
    return filled(p, layer, np.swapaxes(p.pop(f"{name}/kernel"), -1, -2), f"{name}/bias")


def hidden(p, block, name, i):
    block = eqx.tree_at(lambda b: b.linear, block, dense(p, block.linear, f"{name}/Dense_{i}"))
    if block.norm is None:
        return block
    name = f"{name}/LayerNorm_{i}"
    norm = filled(p, block.norm, p.pop(f"{name}/scale"), f"{name}/bias")
    return eqx.tree_at(lambda b: b.norm, block, norm)


def trunk(p, network, name):
    layers = hidden(p, network.stem, name, 0), hidden(p, network.stack.blocks, name, 1)
    return eqx.tree_at(lambda t: (t.stem, t.stack.blocks), network, layers)


def encoder(p, network, name):
    parts = trunk(p, network.trunk, name), dense(p, network.output, f"{name}/Dense_2")
    return eqx.tree_at(lambda e: (e.trunk, e.output), network, parts)


def actor(p, network, name):
    parts = trunk(p, network.trunk, f"{name}/actor_net"), dense(p, network.mean, f"{name}/mean_net")
    return eqx.tree_at(lambda a: (a.trunk, a.mean), network, parts)


def joint(p, ensemble, name):
    def where(ensemble):
        return ensemble.members.network.network

    return eqx.tree_at(where, ensemble, encoder(p, where(ensemble), f"{name}/value_net"))


def towers(p, ensemble, name):
    def where(ensemble):
        return ensemble.members.state_action, ensemble.members.goal

    phi, psi = where(ensemble)
    both = encoder(p, phi, f"{name}/phi"), encoder(p, psi, f"{name}/psi")
    return eqx.tree_at(where, ensemble, both)


def quasimetric(p, critic, name):
    # sigmoid(-x) = 1 - sigmoid(x): the weight of the mean becomes that of the largest.
    mix = jnp.asarray(-p.pop(f"{name}/alpha/value"))
    phi = encoder(p, critic.encoder, f"{name}/phi")
    return eqx.tree_at(lambda c: (c.encoder, c.energy.mix), critic, (phi, mix))


def representation(p, network, name):
    inner = encoder(p, network.network.network, f"{name}/layers_0")
    return eqx.tree_at(lambda r: r.network.network, network, inner)


def number(p, _, name):
    return jnp.asarray(p.pop(f"{name}/log_value"))


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """An agent of theirs and the objective of ours.

    Later `files` hold what differs from earlier ones. `fills` say how to fill each field of the
    parameters, and with which of their networks; `batch` makes our minibatch of theirs, and
    `target` names their target network.
    """

    files: tuple[str, ...]
    objective: AbstractObjective
    fills: dict[str, tuple[Callable, str]]
    batch: Callable
    target: str | None = None
    networks: MLPNetworks = PLAIN

    @functools.cached_property
    def stored(self):
        found = {}
        for file in self.files:
            with np.load(GOLDEN / f"ogbench_{file}.npz", allow_pickle=False) as arrays:
                found |= dict(arrays)
        return found


def batch_of(make, *names):
    return lambda b: make(*(b[name] for name in names))


STEP, GOALS = ("observations", "actions"), ("value_goals", "actor_goals")
NEXT, WORTH = (*STEP, "next_observations"), ("rewards", "masks")
cloning = batch_of(ActorBatch, *STEP, "actor_goals")
contrastive = batch_of(ContrastiveBatch, *STEP, *GOALS, "actor_goals")
distances = batch_of(QRLBatch, *NEXT, *GOALS)
transitions = batch_of(Transitions, *NEXT, *GOALS, *WORTH)


def hierarchical(b):
    steps = batch_of(Transitions, *NEXT, "value_goals", "high_actor_goals", *WORTH)(b)
    return HIQLBatch(steps, b["low_actor_goals"], *2 * [b["high_actor_targets"]])


# What our metrics are called of which theirs are stored.
SAME = ("actor/mse", "value/binary_accuracy", "value/categorical_accuracy")
NAMES = {name: name for name in SAME} | {
    "actor/q_mean": "actor/q",
    "critic/critic_loss": "critic/loss",
    "critic/q_mean": "critic/target",
    "dynamics/dynamics_loss": "critic/dynamics",
    "value/d_neg_loss": "critic/push",
    "value/d_neg_mean": "critic/distance_goal",
    "value/d_pos_loss": "critic/violation",
    "value/d_pos_mean": "critic/distance_step",
    "value/lam": "multiplier/value",
    "value/lam_loss": "multiplier/loss",
    "value/v_mean": "value/mean",
    "value/value_loss": "value/loss",
}
for theirs, ours in (("actor", "actor"), ("low_actor", "low"), ("high_actor", "high")):
    NAMES[f"{theirs}/actor_loss"] = f"{ours}/loss"
    NAMES[f"{theirs}/adv"] = f"{ours}/advantage"
    NAMES[f"{theirs}/bc_log_prob"] = f"{ours}/log_prob"
for group in ("critic", "value"):
    NAMES[f"{group}/contrastive_loss"] = f"{group}/loss"
    NAMES[f"{group}/logits_neg"] = f"{group}/logits_negative"
    NAMES[f"{group}/logits_pos"] = f"{group}/logits_positive"

ACTOR, VALUE = {"actor": (actor, "actor")}, {"value": (joint, "value")}
IQL = {"critic": (joint, "critic"), **VALUE, **ACTOR}
CRL = {"critic": (towers, "critic"), **ACTOR}
CRL_AWR = {"value": (towers, "value"), **CRL}
QRL_AWR = {"critic": (quasimetric, "value"), "log_multiplier": (number, "lam"), **ACTOR}
QRL_MODEL = {"dynamics": (encoder, "dynamics"), **QRL_AWR}
LEVELS = {level: (actor, f"{level}_actor") for level in ("low", "high")}
HIERARCHY = {"representation": (representation, "goal_rep"), **VALUE, **LEVELS}
crl = functools.partial(Contrastive, Binary(), logsumexp_penalty=0.0, ensemble=2)

CASES = (
    Case(("gcbc",), GCBC(), ACTOR, cloning),
    Case(("gcivl",), GCIVL(), VALUE | ACTOR, transitions, "target_value"),
    Case(("gciql",), GCIQL(), IQL, transitions, "target_critic"),
    Case(("gciql", "gciql_awr"), GCIQL(AWR(0.3)), IQL, transitions, "target_critic"),
    Case(("crl",), crl(), CRL, contrastive),
    Case(("crl", "crl_awr"), crl(actor=AWR(0.1)), CRL_AWR, contrastive),
    Case(("qrl",), QRL(), QRL_MODEL, distances, networks=METRIC),
    Case(("qrl_awr",), QRL(AWR(0.003)), QRL_AWR, distances, networks=METRIC),
    Case(("hiql",), HIQL(), HIERARCHY, hierarchical, "target_value"),
)
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.files[-1])


def fill(case, row, params, state):
    """Our parameters and targets with row 0 (their parameters), 1 (gradients) or 2 (after one
    update) of the stored arrays, all of which must have a place."""
    p = {k: v[row] for k, v in case.stored.items() if not k.startswith(("batch/", "scalar"))}
    for field, (put, name) in case.fills.items():
        new = put(p, getattr(params, field), name)
        params = eqx.tree_at(lambda q, field=field: getattr(q, field), params, new)
    state = joint(p, state, case.target) if case.target else state
    assert not p, f"Nothing of ours takes {sorted(p)}."
    return params, state


@functools.cache
def updated(case):
    """Our progress with their parameters, that after one update on their minibatch, and metrics."""
    learner = Learner(case.objective, optax.adam(3e-4))
    key = jr.key(0)
    shapes = eqx.filter_eval_shape(learner.init, case.networks, Spec(2, 2, 2), key=key)

    def zeros(x):
        return jnp.asarray(np.zeros(x.shape, x.dtype)) if isinstance(x, jax.ShapeDtypeStruct) else x

    start = jax.tree.map(zeros, shapes)  # As Adam's moments begin.
    new = fill(case, 0, start.params, start.state)
    start = eqx.tree_at(lambda s: (s.params, s.state), start, new, is_leaf=lambda x: x is None)
    batch = {k[6:]: jnp.asarray(v) for k, v in case.stored.items() if k.startswith("batch/")}
    options = {"xla_cpu_use_fusion_emitters": False}  # A third of the time to compile.
    update = eqx.filter_jit(learner.update, compiler_options=options)
    return start, *update(start, case.batch(batch), key=key)


def leaves(tree):
    found = jtu.tree_leaves_with_path(eqx.filter(tree, eqx.is_inexact_array))
    return {jtu.keystr(path): np.asarray(leaf) for path, leaf in found}


def check(ours, theirs, tolerance):
    """`tolerance` makes of a name and their array how far apart entries may be."""
    assert ours.keys() == theirs.keys()
    for name, want in theirs.items():
        apart = np.abs(ours[name] - want)
        assert np.all(apart <= tolerance(name, want)), f"{name}: {apart.max()} apart"


@each
def test_the_loss_and_metrics_are_theirs(case):
    *_, metrics = updated(case)
    ours = {"loss": metrics["total/loss"]}
    ours |= {theirs: metrics[name] for theirs, name in NAMES.items() if name in metrics}
    names, scalars = case.stored["scalar_names"].tolist(), case.stored["scalars"]
    for name, want in zip(names, scalars, strict=True):
        np.testing.assert_allclose(ours[name], want, rtol=1e-5, atol=1e-6, err_msg=name)


@each
def test_the_gradients_are_theirs(case):
    start, end, _ = updated(case)
    theirs, _ = fill(case, 1, start.params, start.state)
    # After one step Adam's first moments are a tenth of the gradient; a field with a pace has its
    # own.
    moments = [leaves(mu) for _, mu in optax.tree.get_all_with_path(end.opt_state, "mu")]
    ours = {name: 10 * moment for part in moments for name, moment in part.items()}
    check(ours, leaves(theirs), lambda _, want: 1e-4 * np.abs(want).max())


@each
def test_an_update_is_theirs(case):
    start, end, _ = updated(case)
    grads, theirs = (leaves(fill(case, i, start.params, start.state)[0]) for i in (1, 2))

    # Adam's first step is 3e-4 however small the gradient is; in the tails of the GELU its sign is
    # a matter of rounding.
    certain = {name: np.abs(grad) >= 1e-5 for name, grad in grads.items()}
    assert np.mean(np.concatenate([c.ravel() for c in certain.values()])) > 0.9
    check(leaves(end.params), theirs, lambda name, _: np.where(certain[name], 1e-6, 6.01e-4))


@pytest.mark.parametrize("case", [c for c in CASES if c.target], ids=lambda case: case.files[-1])
def test_targets_are_theirs_but_for_their_lag(case):
    start, end, _ = updated(case)
    _, theirs = fill(case, 2, start.params, start.state)
    field = case.target.removeprefix("target_")
    for params, targets in ((start.params, theirs), (end.params, end.state)):
        ours = polyak(start.state, getattr(params, field), case.objective.target_rate)
        check(leaves(ours), leaves(targets), lambda *_: 1e-6)
