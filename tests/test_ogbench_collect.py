import importlib.metadata
import json

import numpy as np
import ogbench
import pytest

from crlx.envs.ogbench import DatasetError, collect, load

NAVIGATE = "pointmaze-medium-navigate-local"
STITCH = "pointmaze-large-stitch-local"


def test_files_have_ogbenchs_format(tmp_path):
    seen = []
    path = collect(
        STITCH, tmp_path / "new", episodes=20, length=9, progress=lambda *now: seen.append(now)
    )
    assert path == tmp_path / "new" / f"{STITCH}.npz"
    assert seen == [(22 * t, 220) for t in range(1, 11)]
    for file, episodes in ((path, 20), (path.with_name(f"{STITCH}-val.npz"), 2)):
        with np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
        assert {key: (array.dtype.name, array.shape) for key, array in arrays.items()} == {
            "observations": ("float32", (10 * episodes, 2)),
            "actions": ("float32", (10 * episodes, 2)),
            "terminals": ("bool", (10 * episodes,)),
            "qpos": ("float32", (10 * episodes, 2)),
            "qvel": ("float32", (10 * episodes, 2)),
        }
        np.testing.assert_array_equal(np.flatnonzero(arrays["terminals"]) % 10, 9)
        assert arrays["terminals"].sum() == episodes
        np.testing.assert_array_equal(arrays["observations"], arrays["qpos"])
    assert len(list(path.parent.iterdir())) == 3


def test_sidecar(tmp_path):
    path = collect(NAVIGATE, tmp_path, seed=7, episodes=3, length=5)
    found = json.loads(path.with_suffix(".json").read_text())
    assert set(found.pop("sha256")) == {f"{NAVIGATE}.npz", f"{NAVIGATE}-val.npz"}
    assert found == {
        "name": NAVIGATE,
        "seed": 7,
        "episodes": 3,
        "validation_episodes": 1,
        "length": 5,
        "generator": "crlx.envs.ogbench.collect",
        "version": 1,
        "libraries": {
            library: importlib.metadata.version(library)
            for library in ("mujoco", "ogbench", "numpy")
        },
    }


def test_ogbench_loads_what_we_collect(tmp_path):
    path = collect(NAVIGATE, tmp_path, episodes=4, length=6)
    official = NAVIGATE.replace("-local", "-v0")
    ours = load(NAVIGATE, local_dir=tmp_path, episodes=4, length=6)
    env, *regular = ogbench.make_env_and_datasets(
        official, dataset_path=str(path), disable_env_checker=True
    )
    assert env.observation_space.shape == (2,)
    for raw, plain, file in zip(ours, regular, (path, f"{path}"[:-4] + "-val.npz"), strict=True):
        compact = ogbench.load_dataset(file, compact_dataset=True)
        last = raw.terminals
        first = np.roll(last, 1)
        np.testing.assert_array_equal(plain["observations"], raw.observations[~last])
        np.testing.assert_array_equal(plain["next_observations"], raw.observations[~first])
        np.testing.assert_array_equal(plain["actions"], raw.actions[~last])
        np.testing.assert_array_equal(plain["terminals"], np.roll(last, -1)[~last])
        np.testing.assert_array_equal(compact["observations"], raw.observations)
        np.testing.assert_array_equal(compact["actions"], raw.actions)
        np.testing.assert_array_equal(compact["valids"], ~last)
        np.testing.assert_array_equal(compact["terminals"], last | np.roll(last, -1))
        assert len(plain["actions"]) == 6 * last.sum()


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_seed_fixes_the_files(tmp_path):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        collect("pointmaze-teleport-navigate-local", tmp_path / folder, seed=seed, episodes=5)
    a, b, c = (contents(tmp_path / folder) for folder in "abc")
    assert a == b
    assert all(a[name] != c[name] for name in a)
    assert len(a) == 3


def test_what_is_there_is_used_if_it_is_what_is_asked_for(tmp_path):
    ask = {"seed": 2, "episodes": 2, "length": 3}
    path = collect(NAVIGATE, tmp_path, **ask)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    load(NAVIGATE, local_dir=tmp_path, **ask)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == before
    for other, words in (
        ({"seed": 3}, "seed 2, but 3 is asked for"),
        ({"length": 4}, "length 3, but 4"),
        ({"episodes": None}, "episodes 2, but 1000"),
    ):
        with pytest.raises(DatasetError, match=words) as error:
            load(NAVIGATE, local_dir=tmp_path, **(ask | other))
        assert f"Delete {path.with_suffix('.json')}" in str(error.value)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match="is not what"):
        load(NAVIGATE, local_dir=tmp_path, **ask)
    path.with_suffix(".json").unlink()
    assert len(load(NAVIGATE, local_dir=tmp_path, **ask)[0].actions) == 8


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_damaged_sidecars(tmp_path, text):
    path = collect(NAVIGATE, tmp_path, episodes=1, length=1)
    path.with_suffix(".json").write_text(text)
    with pytest.raises(DatasetError, match="Delete"):
        collect(NAVIGATE, tmp_path, episodes=1, length=1)


@pytest.mark.parametrize(
    "name, size, words",
    [
        ("pointmaze-medium-navigate-v0", {}, "downloaded, not collected"),
        ("antmaze-medium-navigate-local", {}, "only pointmaze"),
        (NAVIGATE, {"episodes": 0}, "at least one episode"),
        (NAVIGATE, {"length": 0}, "at least one transition"),
    ],
)
def test_what_cannot_be_collected(tmp_path, name, size, words):
    with pytest.raises(DatasetError, match=words):
        collect(name, tmp_path, **size)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("at", [1, 2])
def test_an_interrupted_collection_leaves_no_dataset(tmp_path, monkeypatch, at):
    ask = {"episodes": 3, "length": 4}
    directory = tmp_path / "broken"
    save, calls = np.savez_compressed, []

    def interrupt(file, **arrays):
        calls.append(file)
        if len(calls) < at:
            return save(file, **arrays)
        file.write(b"half of")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", interrupt)
        with pytest.raises(KeyboardInterrupt):
            collect(NAVIGATE, directory, **ask)
    assert set(contents(directory)) == ({f"{NAVIGATE}.npz"} if at == 2 else set())
    load(NAVIGATE, local_dir=directory, **ask)
    collect(NAVIGATE, tmp_path / "whole", **ask)
    assert contents(directory) == contents(tmp_path / "whole")


def test_an_interrupted_rollout_leaves_nothing(tmp_path):
    def interrupt(done, total):
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(NAVIGATE, tmp_path, episodes=1, length=1, progress=interrupt)
    assert not list(tmp_path.iterdir())
