import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from architectures import (
    Residual,
    ResidualNetworks,
    ResidualScale,
    ResidualStyle,
    Stacked,
    export_layers,
    import_layers,
)
from crlx import Spec
from objectives import Contrastive

LEARNED = ResidualStyle(residual_scale=ResidualScale.LEARNED)


def drawn(make):
    """What `make` builds with random arrays in place of its own, which need no compilation."""
    generator = np.random.default_rng(1)

    def leaf(x):
        if not isinstance(x, jax.ShapeDtypeStruct):
            return x
        return jnp.asarray(generator.normal(size=x.shape), x.dtype)

    return jax.tree.map(leaf, eqx.filter_eval_shape(make, key=jr.key(0)))


def parameters(depth):
    """Two critics and an actor."""
    networks = ResidualNetworks(depth=depth, width=8, dim=8, style=LEARNED)
    return drawn(lambda key: Contrastive(ensemble=2).init(networks, Spec(3, 2, 3), key=key)[0])


@pytest.fixture(scope="module")
def network():
    return parameters(12)


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("layers") / "new" / "layers.npz"
    export_layers(network, path)
    return path


def test_numpy_alone_reads_the_layers(network, file):
    with np.load(file, allow_pickle=False) as layers:
        found = dict(layers)
    tower = network.critic.members.state_action
    unit = tower.trunk.stack.blocks.layers[3]
    name = "critic/members/1/state_action/trunk/stack/0/layers/3/linear/weight"
    assert np.array_equal(found[name], unit.linear.weight[1, 0])
    assert found["critic/members/0/goal/trunk/stack/1/scale"].shape == ()
    assert np.array_equal(found["critic/members/1/state_action/output/bias"], tower.output.bias[1])
    stem = network.actor.trunk.stem.linear.weight
    assert np.array_equal(found["actor/trunk/stem/linear/weight"], stem)
    total = sum(a.size for a in jax.tree.leaves(eqx.filter(network, eqx.is_array)))
    assert sum(a.size for a in found.values()) == total
    assert [p.name for p in file.parent.iterdir()] == ["layers.npz"]


def test_layers_come_back_bit_for_bit(network, file):
    skeleton = eqx.filter_eval_shape(lambda: network)
    assert eqx.tree_equal(import_layers(skeleton, file), network)
    assert eqx.tree_equal(import_layers(jax.tree.map(lambda a: a, network), file), network)


def test_a_stack_alone_is_exported_too(tmp_path):
    blocks = drawn(lambda key: eqx.filter_vmap(lambda k: Residual(4, key=k))(jr.split(key, 3)))
    stack = Stacked(blocks)
    export_layers(stack, tmp_path / "stack.npz")
    with np.load(tmp_path / "stack.npz", allow_pickle=False) as layers:
        assert layers["2/layers/0/norm/weight"].shape == (4,)
    assert eqx.tree_equal(import_layers(stack, tmp_path / "stack.npz"), stack)


def test_files_that_do_not_fit_are_refused(network, file, tmp_path):
    small = parameters(8)
    with pytest.raises(ValueError, match=r"trunk/stack has 3 parts in .* and 2 in"):
        import_layers(small.actor, actor_file(tmp_path, network.actor))
    with pytest.raises(ValueError, match="another network: it lacks 'stack"):
        import_layers(small.actor.trunk, actor_file(tmp_path, network.actor.mean))
    with pytest.raises(ValueError, match="it also holds 'critic"):
        import_layers({"actor": network.actor}, file)
    with pytest.raises(ValueError, match=r"weight is float32\[2, 8\] in .* and float32\[2, 4\]"):
        import_layers(eqx.nn.Linear(4, 2, key=jr.key(0)), actor_file(tmp_path, network.actor.mean))
    for content in (b"", b"nonsense", b"PK"):
        (tmp_path / "other").write_bytes(content)
        with pytest.raises(ValueError, match="not a file of layers"):
            import_layers(small, tmp_path / "other")
    with pytest.raises(ValueError, match="not a file of layers"):
        import_layers(small, tmp_path / "missing")


def actor_file(folder, network):
    export_layers(network, folder / "layers.npz")
    return folder / "layers.npz"


def test_what_numpy_cannot_hold_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="NumPy has no bfloat16"):
        export_layers({"w": jnp.zeros(2, jnp.bfloat16)}, tmp_path / "layers.npz")
    assert not list(tmp_path.iterdir())
