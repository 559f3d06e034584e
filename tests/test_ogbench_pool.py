import functools
import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import ogbench
import pytest

from crlx.envs.ogbench import LOCAL, DatasetError, _collect, _pool, check_name, collect, load

SCENE = "scene-noisy-local"
CUBE = "cube-single-play-local"
ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def built_once(monkeypatch):
    """In this process, where a second for each collection would add up."""
    monkeypatch.setattr(_pool, "Manipulation", cached)


cached = functools.cache(_pool.Manipulation)


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def start(directory, guard):
    """Runs a script that collects much in two processes, behind a guard or none."""
    size = "length=100, processes=2, progress=print"
    work = f"collect({CUBE!r}, pathlib.Path({str(directory)!r}), {size})"
    script = directory.with_suffix(".py")
    # Whoever starts the tests may have interrupts ignored.
    script.write_text(
        "import pathlib, signal\n"
        "from crlx.envs.ogbench import collect\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"{guard}{work}\n"
    )
    return subprocess.Popen(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_files_have_ogbenchs_format(tmp_path):
    seen = []
    path = collect(
        SCENE, tmp_path, episodes=2, length=7, processes=1, progress=lambda *now: seen.append(now)
    )
    assert seen == [(8, 24), (16, 24), (24, 24)]
    assert len(list(tmp_path.iterdir())) == 3
    for file, episodes in ((path, 2), (path.with_name(f"{SCENE}-val.npz"), 1)):
        with np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
        assert {key: (array.dtype.name, array.shape[1:]) for key, array in arrays.items()} == {
            "observations": ("float32", (40,)),
            "actions": ("float32", (5,)),
            "terminals": ("bool", ()),
            "qpos": ("float32", (25,)),
            "qvel": ("float32", (24,)),
            "button_states": ("int64", (2,)),
        }
        assert {len(array) for array in arrays.values()} == {8 * episodes}
        assert np.flatnonzero(arrays["terminals"]).tolist() == [7, 15][:episodes]
    found = json.loads(path.with_suffix(".json").read_text())
    assert set(found["libraries"]) == {"mujoco", "ogbench", "numpy", "scipy"}


def test_ogbench_loads_what_we_collect(tmp_path):
    ours = load(SCENE, local_dir=tmp_path, episodes=2, length=6, processes=1)
    files = (f"{SCENE}.npz", f"{SCENE}-val.npz")
    for raw, file in zip(ours, files, strict=True):
        plain = ogbench.load_dataset(tmp_path / file, add_info=True)
        compact = ogbench.load_dataset(tmp_path / file, compact_dataset=True, add_info=True)
        last, first = raw.terminals, np.roll(raw.terminals, 1)
        np.testing.assert_array_equal(plain["observations"], raw.observations[~last])
        np.testing.assert_array_equal(plain["next_observations"], raw.observations[~first])
        np.testing.assert_array_equal(plain["actions"], raw.actions[~last])
        np.testing.assert_array_equal(compact["observations"], raw.observations)
        np.testing.assert_array_equal(compact["valids"], ~last)
        # An observation shows its buttons' states as one-hot pairs.
        shown = compact["observations"][:, [28, 29, 32, 33]].reshape(-1, 2, 2)
        np.testing.assert_array_equal(shown, np.eye(2)[compact["button_states"]])
        np.testing.assert_array_equal(compact["observations"][:, :6], compact["qpos"][:, :6])


def test_the_number_of_processes_changes_nothing(tmp_path):
    ask = {"episodes": 4, "length": 30}
    for folder, seed, processes in (("a", 0, 1), ("b", 0, 2), ("c", 1, 1)):
        collect(SCENE, tmp_path / folder, seed=seed, processes=processes, **ask)
    a, b, c = (contents(tmp_path / folder) for folder in "abc")
    assert a == b
    assert all(a[name] != c[name] for name in a)
    with np.load(tmp_path / "a" / f"{SCENE}.npz") as archive:
        starts = archive["qpos"].reshape(4, 31, -1)[:, 0]
    assert len(np.unique(starts[:, :6], axis=0)) == 4  # No two episodes are the same.
    # What is there is used, whoever collected it.
    load(SCENE, local_dir=tmp_path / "b", processes=1, **ask)
    assert contents(tmp_path / "b") == b


def test_one_process_per_core_and_none_without_an_episode(tmp_path, monkeypatch):
    asked = []

    def share(job, processes, keep):
        asked.append((job, processes))
        raise KeyboardInterrupt

    monkeypatch.setattr(_pool, "_share", share)
    monkeypatch.setattr(_collect, "available_processes", lambda: 7)
    for episodes in (1, 50):
        with pytest.raises(KeyboardInterrupt):
            collect("puzzle-4x5-noisy-local", tmp_path, episodes=episodes, seed=3)
    # One episode more for validation, or a tenth.
    assert asked == [
        (("puzzle-4x5", "noisy", 2, 1001, 3), 2),
        (("puzzle-4x5", "noisy", 55, 1001, 3), 7),
    ]
    assert not list(tmp_path.iterdir())
    assert 1 <= _pool.available_processes() <= (os.cpu_count() or 1)


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_their_parent(tmp_path, number):
    running = start(tmp_path / "data", "if __name__ == '__main__': ")
    assert running.stdout.readline() == "101 111100\n"
    running.send_signal(number)
    # Ends when all that write to it have ended.
    output, _ = running.communicate(timeout=30)
    assert running.returncode == -number
    assert output.count("Traceback") == (number == signal.SIGINT)
    assert not (tmp_path / "data").exists()


@pytest.mark.thorough
def test_unguarded_scripts_are_told(tmp_path):
    output, _ = start(tmp_path / "data", "").communicate(timeout=60)
    assert "DatasetError" in output
    assert "if __name__ == '__main__':" in output.splitlines()[-1]
    assert not (tmp_path / "data").exists()


def test_an_interrupted_collection_leaves_nothing(tmp_path):
    def interrupt(done, total):
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(CUBE, tmp_path, episodes=1, length=1, processes=1, progress=interrupt)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, options, words",
    [
        (CUBE, {"episodes": 0}, "at least one episode"),
        (CUBE, {"length": 0}, "at least one transition"),
        (CUBE, {"processes": 0}, "at least one process; got 0"),
        (CUBE, {"seed": -1}, "not negative; got -1"),
        ("cube-single-play-v0", {}, "downloaded, not collected"),
        ("cube-sngle-play-local", {}, "nearest names are cube-single-play-local"),
        ("puzzle-3x4-noisy-local", {}, "nearest names are .*puzzle-3x3-noisy-local"),
        ("cube-octuple-play-local", {}, "There is no dataset"),
        ("antmaze-giant-stitch-local", {}, "only pointmaze, cube, scene and puzzle"),
    ],
)
def test_refusals_come_before_any_work(tmp_path, monkeypatch, name, options, words):
    monkeypatch.setattr(_collect, "collect_episodes", None)
    with pytest.raises(DatasetError, match=words):
        collect(name, tmp_path / "new", **options)
    assert not list(tmp_path.iterdir())


def test_sizes_are_the_official_ones():
    larger = {"cube-triple": 3, "puzzle-4x5": 3, "cube-quadruple": 5, "puzzle-4x6": 5}
    names = [name for name in LOCAL if not name.startswith("pointmaze")]
    assert len(names) == 18
    for name in names:
        check_name(name)
        thousands = larger.get(name.rsplit("-", 2)[0], 1)
        assert LOCAL[name] == (1000 * thousands, 1000)
