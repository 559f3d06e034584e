"""The script that tells what every block does, and the statistics behind it."""

import functools
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from matplotlib.figure import Figure

import crlx
from architectures import MRN, MLPNetworks, ResidualNetworks, ResidualStyle, TanhGaussianActor
from crlx import OfflineRows, Spec, Step
from crlx.envs.ogbench import collect
from experiments import _inspection, _inspection_plot, inspect_depth, offline_ogbench
from experiments._inspection import Inspection, Network, inspect, similarity
from experiments._inspection_plot import plot_inspections
from experiments._options import parse
from experiments.inspect_depth import Options
from objectives import AWR, GCBC, GCIQL, QRL, Backward, Contrastive, MaxEntropy, Standardized

DATASET = "pointmaze-medium-navigate-local"
SPEC = Spec(3, 2, 3)
ROWS = 12


def minibatch(objective):
    observations, actions = jr.normal(jr.key(0), (40, 3)), jr.uniform(jr.key(1), (40, 2))
    rows = OfflineRows(Step(observations, actions, observations), np.arange(40) % 10 == 9)
    return objective.relabel(rows, rows.draw(ROWS, key=jr.key(2)), key=jr.key(3))


def start(objective, architecture):
    params, state = eqx.filter_jit(objective.init)(architecture, SPEC, key=jr.key(4))
    return params, state, minibatch(objective)


@functools.cache
def example():
    """Two critics and a squashed actor, and what is found in them."""
    objective = Contrastive(actor=MaxEntropy(), ensemble=2)
    parts = start(objective, ResidualNetworks(depth=12, width=8, dim=4, squashed=True))
    return objective, parts, inspect(objective, *parts, jr.key(5))


def member(ensemble, i):
    arrays, static = eqx.partition(ensemble.members, eqx.is_array)
    return eqx.combine(jax.tree.map(lambda a: a[i], arrays), static)


@eqx.filter_jit
def apply(layer, x):
    return jax.vmap(layer)(x)


def branches(trunk, x):
    """The mean over rows of what each block adds, by a loop over single blocks."""
    found, h = [], apply(trunk.stem, x)
    for block in trunk.stack.unstack().blocks:
        y = apply(block, h)
        found.append(np.mean(np.linalg.norm(np.asarray(y, np.float64) - np.asarray(h), axis=1)))
        h = y
    return np.array(found)


def test_blocks_are_averaged_over_rows_and_members():
    _, (params, _, batch), found = example()
    members = [member(params.critic, i) for i in range(2)]
    inputs = jax.vmap(members[0].inputs)(batch.observation, batch.action)
    expected = {
        "actor": branches(
            params.actor.trunk, jax.vmap(params.actor.inputs)(batch.observation, batch.actor_goal)
        ),
        "critic state-action": np.mean(
            [branches(m.state_action.trunk, inputs) for m in members], axis=0
        ),
        "critic goal": np.mean([branches(m.goal.trunk, batch.goal) for m in members], axis=0),
    }
    assert found.networks.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found.networks[name].blocks["branch"], values, rtol=1e-4)
    assert not found.left_out


def test_gradients_are_those_of_the_loss_layer_by_layer():
    objective, (params, state, batch), found = example()

    @eqx.filter_jit
    @eqx.filter_grad
    def slope(params):
        return objective.loss(params, state, batch, key=jr.key(5))[0]

    gradient = slope(params)
    for name, blocks in {
        "actor": [gradient.actor.trunk.stack],
        "critic goal": [member(gradient.critic, i).goal.trunk.stack for i in range(2)],
    }.items():
        leaves = [[np.asarray(a, np.float64) for a in jax.tree.leaves(b)] for b in blocks]
        norms = [[np.sqrt(sum(np.sum(a[i] ** 2) for a in s)) for i in range(3)] for s in leaves]
        values = found.networks[name].blocks["gradient"]
        np.testing.assert_allclose(values, np.mean(norms, axis=0), rtol=1e-4)


def test_scalars_are_those_of_the_scores_and_policies():
    objective, (params, state, batch), found = example()

    @eqx.filter_jit
    def act(actor):
        policies = jax.vmap(actor)(batch.observation, batch.actor_goal)
        return policies, jax.vmap(lambda p: p.mode())(policies)

    critic = eqx.filter_jit(params.critic.pairs)
    tables = np.asarray(critic(batch.observation, batch.action, batch.goal))
    sums = np.log(np.sum(np.exp(tables.astype(np.float64)), axis=2))
    policies, modes = act(params.actor)
    stds = (np.asarray(policies.log_std) + 5) / 7
    expected = {
        "critic/logits_mean": tables.mean(),
        "critic/logits_spread": tables.std(axis=2).mean(),
        "critic/penalty": 0.1 * np.mean(sums**2),
        "actor/saturated_modes": np.mean(np.abs(modes) >= 0.999),
        "actor/saturated_stds": np.mean((stds < 0.005) | (stds > 0.995)),
        "total/loss": eqx.filter_jit(objective.loss)(params, state, batch, key=jr.key(5))[0],
    }
    for name, value in expected.items():
        assert found.scalars[name] == pytest.approx(float(value), rel=1e-4), name


def test_embeddings_are_compared_row_with_row(getkey):
    rows = np.asarray(jr.normal(getkey(), (9, 4)), np.float64)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = (units @ units.T)[~np.eye(9, dtype=bool)].mean()
    assert float(similarity(jnp.asarray(rows, jnp.float32))) == pytest.approx(expected, abs=1e-5)
    assert float(similarity(jnp.ones((3, 2)))) == pytest.approx(1)


@pytest.mark.thorough
def test_every_kind_of_objective_is_looked_into():
    small = {"depth": 8, "width": 8, "dim": 8}
    cmd = Contrastive(contrast=Backward(), future_actions=True)
    shared = ResidualNetworks(**small, energy=MRN(groups=2), shared=True)
    tied = ResidualNetworks(**small, style=ResidualStyle(tied=True))
    towers = {"critic state-action", "critic goal", "value state", "value goal", "actor"}
    cases = [
        (cmd, shared, {"critic", "actor"}, {"critic/logits_mean", "critic/penalty"}),
        (Standardized(Contrastive(actor=AWR())), tied, towers, {"value/logits_mean"}),
        (QRL(), shared, {"critic", "actor"}, {"critic/logits_mean", "critic/push"}),
        (GCIQL(), tied, {"critic", "value", "actor"}, {"critic/score_mean", "value/score_mean"}),
    ]
    for objective, architecture, names, scores in cases:
        parts = eqx.filter_eval_shape(objective.init, architecture, SPEC, key=jr.key(0))
        # Traced and not compiled, since only names and shapes are looked at.
        found, scalars = eqx.filter_eval_shape(
            _inspection._measure, objective, *parts, minibatch(objective), jr.key(0)
        )
        assert found.keys() == names
        assert all(network["blocks"]["gradient"].shape == (2,) for network in found.values())
        assert scores | {"actor/saturated_modes"} <= scalars.keys()


class Foreign(crlx.AbstractActor):
    """Somebody else's actor, which cannot be tapped."""

    inner: TanhGaussianActor

    def __call__(self, observation, goal):
        return self.inner(observation, goal)


def test_what_cannot_be_looked_into_is_named_and_the_rest_goes_on():
    objective, (params, state, batch), _ = example()
    params = eqx.tree_at(lambda p: p.actor, params, Foreign(params.actor))
    found = inspect(objective, params, state, batch, jr.key(5))
    assert found.networks.keys() == {"critic state-action", "critic goal"}
    assert "Foreign" in found.left_out["actor"]
    assert "actor/saturated_modes" in found.scalars


def test_networks_without_blocks_keep_their_embeddings():
    objective = GCBC()
    parts = start(objective, MLPNetworks(depth=1, width=8))
    found = inspect(objective, *parts, jr.key(0))
    assert found.left_out == {"actor": "it has no blocks at this depth"}
    assert not found.networks["actor"].blocks
    assert found.networks["actor"].effective_rank > 1


def test_a_minibatch_of_another_kind_is_refused():
    objective, (params, state, _), _ = example()
    step = Step(jnp.ones((2, 3)), jnp.ones((2, 2)), jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="a Step has no field goal"):
        inspect(objective, params, state, step, jr.key(0))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return collect(DATASET, tmp_path_factory.mktemp("data"), episodes=10, length=60)


def finite(value):
    if isinstance(value, dict):
        return all(finite(v) for v in value.values())
    if isinstance(value, list):
        return all(finite(v) for v in value)
    return not isinstance(value, float) or np.isfinite(value)


@pytest.mark.thorough
def test_a_run_is_inspected_in_its_own_folder_and_compared_with_fresh_networks(
    data, tmp_path, capsys
):
    run = tmp_path / "run"
    flags = ["--steps", "2", "--batch-size", "8", "--width", "8", "--depth", "8", "--episodes", "1"]
    places = ["--dataset-path", str(data), "--out", str(run), "--no-aim", "--objective", "gcbc"]
    offline_ogbench.main(parse([*flags, *places]))
    fresh = {"depth": 4, "width": 8, "objective": "gcbc", "dataset_path": data}
    inspect_depth.main(Options(run=run, compare=("residual",), batch_size=8, **fresh))
    written = json.loads((run / "depth.json").read_text())
    assert finite(written)
    assert {name: found["step"] for name, found in written["found"].items()} == {
        "run": 2,
        "residual": 0,
    }
    names = ("branch", "stream", "ratio", "cosine", "mean", "gradient")
    for name, depth in (("run", 2), ("residual", 1)):
        networks = written["found"][name]["networks"]
        assert networks.keys() == {"actor"}
        blocks = networks["actor"]["blocks"]
        assert {n: len(values) for n, values in blocks.items()} == dict.fromkeys(names, depth)
    assert (run / "depth.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "actor/log_prob" in printed
    assert "blocks: run" in printed


def test_fresh_networks_without_blocks_are_reported(data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = {"depth": 1, "width": 8, "batch_size": 8, "dataset_path": data}
    inspect_depth.main(Options(architecture="mlp", objective="gcbc", **small))
    assert "the blocks of the actor are left out: it has no blocks" in capsys.readouterr().out
    (out,) = (tmp_path / "runs").glob(f"inspect-{DATASET}_gcbc_mlp_*")
    assert {path.name for path in out.iterdir()} == {"depth.png", "depth.json"}


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no run"):
        inspect_depth.main(Options(run=tmp_path))
    options = parse(["--objective", "gcbc", "--depth", "4", "--width", "8"])
    config = {name: getattr(options, name) for name in ("objective", "architecture")}
    encoded = {name: crlx.encode(value) for name, value in (config | {"spec": SPEC}).items()}
    (tmp_path / "config.json").write_text(json.dumps(encoded))
    with pytest.raises(ValueError, match="no checkpoint yet"):
        inspect_depth.main(Options(run=tmp_path))


def test_impossible_flags_are_refused():
    with pytest.raises(ValueError, match="batch-size"):
        Options(batch_size=1)
    with pytest.raises(ValueError, match="seed"):
        Options(seed=-1)
    with pytest.raises(ValueError, match="Unknown architecture 'residul'; did you mean 'residual'"):
        inspect_depth.main(Options(architecture="residul"))


def made_up(scale, depth=16):
    values = scale * np.geomspace(1, 1e4, depth)
    flat = np.full(depth, 3.0)
    blocks = {"branch": values, "stream": flat, "ratio": flat, "gradient": flat}
    return Inspection({"actor": Network(blocks, 1.0, 0.0)}, {}, {})


def test_one_line_for_each_and_logarithms_where_the_range_is_wide(monkeypatch, tmp_path):
    saved: list[Figure] = []
    monkeypatch.setattr(_inspection_plot, "save_figure", lambda figure, path: saved.append(figure))
    plot_inspections({"a": made_up(1.0), "b": made_up(2.0)}, tmp_path / "depth.png")
    panels = saved[0].axes
    assert [axes.get_yscale() for axes in panels] == ["log", "linear", "linear", "linear"]
    assert [len(axes.lines) for axes in panels] == [2] * 4
    assert panels[0].lines[1].get_ydata()[0] == 2
    assert panels[0].lines[0].get_xdata()[-1] == 16


def test_networks_without_blocks_are_drawn_as_such(tmp_path):
    plot_inspections({"a": Inspection({}, {}, {})}, tmp_path / "depth.png")
    assert (tmp_path / "depth.png").read_bytes().startswith(b"\x89PNG")
