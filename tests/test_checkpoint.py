import pathlib
import shutil

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import optax
import pytest

from architectures import ResidualNetworks
from crlx import Checkpoints, Learner, Spec
from objectives import Contrastive


@pytest.fixture(scope="module")
def learner():
    return Learner(Contrastive(ensemble=2), optax.adam(3e-4))


def _state(learner, seed):
    spec = Spec(3, 2, 3)
    progress = eqx.filter_jit(learner.init)(ResidualNetworks(width=8), spec, key=jr.key(seed))
    flags = jnp.asarray([True, False])
    return {"params": progress.params, "rest": (progress.opt_state, jr.key(seed + 1), flags)}


def _write(directory, learner, steps):
    checkpoints = Checkpoints(directory, keep=2)
    for step in steps:
        checkpoints.save(step, _state(learner, step), {"history": [step]})
    checkpoints.close()


def _read(directory, learner):
    checkpoints = Checkpoints(directory)
    try:
        return checkpoints.restore(eqx.filter_eval_shape(lambda: _state(learner, 0)))
    finally:
        checkpoints.close()


def test_everything_comes_back(tmp_path, learner):
    _write(tmp_path, learner, (1, 2, 3))
    found = _read(tmp_path, learner)
    assert found.step == 3
    assert found.note == {"history": [3]}
    assert eqx.tree_equal(found.items, _state(learner, 3), typematch=True)


def test_items_without_arrays_come_back_from_the_skeleton(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"params": jnp.ones(2), "state": None, "name": "a"}, {})
    found = checkpoints.restore({"params": jnp.zeros(2), "state": None, "name": "b"})
    checkpoints.close()
    assert found is not None
    assert eqx.tree_equal(found.items, {"params": jnp.ones(2), "state": None, "name": "b"})


def test_only_the_newest_are_kept(tmp_path, learner):
    _write(tmp_path, learner, (1, 2, 3))
    assert Checkpoints(tmp_path).steps() == [2, 3]


def test_a_step_keeps_its_first_checkpoint(tmp_path, learner):
    _write(tmp_path, learner, (1,))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, _state(learner, 7), {})
    checkpoints.close()
    assert eqx.tree_equal(_read(tmp_path, learner).items, _state(learner, 1))


def test_an_empty_directory_holds_none(tmp_path, learner):
    assert _read(tmp_path, learner) is None


def _chunk(directory: pathlib.Path) -> pathlib.Path:
    """The file that holds the arrays."""
    return max((directory / "2" / "params" / "d").iterdir(), key=lambda f: f.stat().st_size)


def _remove(path):
    path.unlink()


def _truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


@pytest.fixture(scope="module")
def two(tmp_path_factory, learner):
    """A directory of two checkpoints, to be read only."""
    directory = tmp_path_factory.mktemp("two")
    _write(directory, learner, (1, 2))
    return directory


@pytest.mark.parametrize("damage", [_remove, _truncate, _flip])
@pytest.mark.parametrize(
    "file",
    [_chunk, lambda d: d / "2" / "params" / "manifest.ocdbt", lambda d: d / "2/header/metadata"],
    ids=["arrays", "manifest", "header"],
)
@pytest.mark.usefixtures("leave_nothing")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_checkpoint_is_passed_over_and_named(
    two, tmp_path, learner, caplog, file, damage
):
    shutil.copytree(two, tmp_path, dirs_exist_ok=True)
    damage(file(tmp_path))
    found = _read(tmp_path, learner)
    assert found.step == 1
    assert eqx.tree_equal(found.items, _state(learner, 1))
    assert "checkpoint of step 2 cannot be read" in caplog.text


@pytest.mark.usefixtures("leave_nothing")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_if_all_are_damaged_nothing_is_made_up(tmp_path, learner):
    _write(tmp_path, learner, (2,))
    _truncate(_chunk(tmp_path))
    with pytest.raises(ValueError, match=r"No checkpoint in .* can be read: step 2"):
        _read(tmp_path, learner)


def test_a_change_that_storage_does_not_notice_is_found(two, learner, monkeypatch):
    checkpoints = Checkpoints(two)
    read = checkpoints._manager.restore

    def altered(step, **options):
        found = read(step, **options)
        if step == 2:
            name, array = next(iter(found["params"].items()))
            found["params"][name] = array.at[(0,) * array.ndim].add(1)
        return found

    monkeypatch.setattr(checkpoints._manager, "restore", altered)
    found = checkpoints.restore(eqx.filter_eval_shape(lambda: _state(learner, 0)))
    assert found.step == 1


def test_checkpoints_set_aside_make_room_and_are_not_lost(tmp_path, learner):
    directory = tmp_path / "checkpoints"
    _write(directory, learner, (1, 2))
    checkpoints = Checkpoints(directory)
    checkpoints.set_aside(1)
    assert checkpoints.steps() == [1]
    checkpoints.save(2, _state(learner, 7), {})
    checkpoints.close()
    assert eqx.tree_equal(_read(directory, learner).items, _state(learner, 7))
    (kept,) = (tmp_path / "checkpoints-unreadable").iterdir()
    assert (kept / "params").is_dir()
