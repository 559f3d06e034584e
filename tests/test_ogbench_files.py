import zipfile

import gymnasium
import numpy as np
import ogbench
import pytest

from crlx.envs.ogbench import (
    LOCAL,
    OFFICIAL,
    DatasetError,
    check_name,
    environment_name,
    load,
    local_name,
    read,
)


def arrays(episodes=3, rows=4, obs=2, act=2):
    rng = np.random.default_rng(0)
    terminals = np.zeros((episodes, rows), bool)
    terminals[:, -1] = True
    return {
        "observations": rng.normal(size=(episodes * rows, obs)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (episodes * rows, act)).astype(np.float32),
        "terminals": terminals.reshape(-1),
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.npz"


def refusal(path, **changed):
    np.savez_compressed(path, **(arrays() | changed))
    with pytest.raises(DatasetError) as error:
        read(path)
    message = str(error.value)
    assert str(path) in message
    assert f"Delete {path}" in message
    assert "--dataset-path" in message
    return message


def test_a_good_file_is_read_as_it_is(path):
    np.savez_compressed(path, **arrays(), qpos=np.full((12, 2), np.nan))
    found = read(path)
    for key, array in arrays().items():
        got = getattr(found, key)
        assert got.dtype == array.dtype
        np.testing.assert_array_equal(got, array)


def test_episodes_of_one_transition_are_good(path):
    np.savez_compressed(path, **arrays(rows=2))
    assert read(path).terminals.tolist() == [False, True] * 3


def test_missing_file(path):
    with pytest.raises(DatasetError, match=r"no such file.*--dataset-path"):
        read(path)


def test_every_cut_is_noticed(path):
    np.savez_compressed(path, **arrays())
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(DatasetError, match="Delete"):
            read(path)


def test_flipped_bytes_never_raise_anything_else(path):
    np.savez_compressed(path, **arrays())
    whole = path.read_bytes()
    refused = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            # Some bytes, such as the time stamps of the archive, carry nothing.
            np.testing.assert_array_equal(read(path).actions, arrays()["actions"])
        except DatasetError:
            refused += 1
    assert refused > len(whole) / 2


def test_foreign_files(path):
    path.write_text("<html>404</html>")
    with pytest.raises(DatasetError, match="not an npz archive"):
        read(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DatasetError, match="not an npz archive"):
        read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("observations.npy", "text")
    with pytest.raises(DatasetError, match="Delete"):
        read(path)
    np.savez_compressed(path, weights=np.zeros(3))
    with pytest.raises(DatasetError, match="lacks observations, actions, terminals"):
        read(path)


def test_members_that_are_no_arrays(path):
    with zipfile.ZipFile(path, "w") as archive:
        for key in arrays():
            archive.writestr(key, "text")
    with pytest.raises(DatasetError, match="observations is not an array"):
        read(path)


class Bomb:
    def __reduce__(self):
        return exit, ("A dataset was unpickled.",)


def test_pickles_are_never_loaded(path):
    assert "allow_pickle=False" in refusal(path, actions=np.array([Bomb()], object))


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"observations": np.zeros((12, 2))}, "observations has dtype float64"),
        ({"actions": np.zeros((12, 2), np.int32)}, "actions has dtype int32"),
        ({"terminals": np.zeros(12, np.float32)}, "terminals has dtype float32"),
        ({"observations": np.zeros(12, np.float32)}, r"shape (12,); it must"),
        ({"terminals": np.zeros((12, 1), bool)}, r"shape (12, 1); it must"),
        ({"actions": np.zeros((11, 2), np.float32)}, "'actions': 11"),
        ({"terminals": np.ones(13, bool)}, "'terminals': 13"),
        ({"actions": np.zeros((12, 0), np.float32)}, "empty"),
    ],
)
def test_wrong_arrays(path, changed, words):
    assert words in refusal(path, **changed)


def test_no_rows(path):
    assert "empty" in refusal(path, **{key: array[:0] for key, array in arrays().items()})


@pytest.mark.parametrize("key", ["observations", "actions"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none(path, key, value):
    array = arrays()[key]
    array[5, 1] = array[8, 0] = value
    assert f"{key} are NaN or infinite, first in row 5." in refusal(path, **{key: array})


def test_numbers_are_checked_to_the_last_row(path):
    many = arrays(episodes=2, rows=70_000)
    many["actions"][-1, -1] = np.nan
    assert "row 139999." in refusal(path, **many)


def test_episodes(path):
    terminals = arrays()["terminals"]
    cut, short, compact = terminals.copy(), terminals.copy(), terminals.copy()
    cut[-1] = False
    assert "last row is not a terminal" in refusal(path, terminals=cut)
    short[0] = True
    assert "ends in row 0 has one row" in refusal(path, terminals=short)
    compact[:-1] |= terminals[1:]  # As ogbench marks episodes after loading.
    assert "one-step" in refusal(path, terminals=compact)


def test_load_reads_the_validation_file_beside_a_given_one(tmp_path):
    train, val = arrays(), arrays(episodes=1)
    np.savez_compressed(tmp_path / "mine.npz", **train)
    with pytest.raises(DatasetError, match=r"mine-val\.npz: there is no such file"):
        load("pointmaze-large-stitch-v0", dataset_path=tmp_path / "mine.npz")
    np.savez_compressed(tmp_path / "mine-val.npz", **val)
    found = load("pointmaze-large-stitch-v0", dataset_path=str(tmp_path / "mine.npz"))
    for got, expected in zip(found, (train, val), strict=True):
        np.testing.assert_array_equal(got.observations, expected["observations"])
    with pytest.raises(DatasetError, match=r"does not end in \.npz"):
        load("pointmaze-large-stitch-v0", dataset_path=tmp_path)


def test_load_refuses_data_of_another_environment(tmp_path):
    np.savez_compressed(tmp_path / "mine.npz", **arrays())
    np.savez_compressed(tmp_path / "mine-val.npz", **arrays())
    with pytest.raises(DatasetError, match=r"2 and 2 numbers.*antmaze-giant-stitch-v0.*29 and 8"):
        load("antmaze-giant-stitch-v0", dataset_path=tmp_path / "mine.npz")


def test_official_names():
    assert len(OFFICIAL) == len(set(OFFICIAL)) == 47
    for name in OFFICIAL:
        environment, _, version = name.rsplit("-", 2)
        assert f"{environment}-{version}" in gymnasium.registry
        assert environment_name(name) == name
    assert "antmaze-giant-explore-v0" not in OFFICIAL
    assert "humanoidmaze-teleport-navigate-v0" not in OFFICIAL


def test_local_names():
    assert len(LOCAL) == 8 + 18
    for name, size in LOCAL.items():
        assert size.episodes * size.length in (1_000_000, 3_000_000, 5_000_000)
        assert environment_name(name) in OFFICIAL
        assert local_name(environment_name(name)) == name
    assert LOCAL["pointmaze-giant-navigate-local"] == (500, 2000)
    assert LOCAL["pointmaze-giant-stitch-local"] == (5000, 200)
    assert local_name("antmaze-giant-stitch-v0") is None
    env = ogbench.make_env_and_datasets(
        environment_name("pointmaze-medium-stitch-local"), env_only=True, disable_env_checker=True
    )
    assert env.unwrapped.maze_map.shape == (8, 8)


@pytest.mark.parametrize(
    "name, words",
    [
        ("pointmaze-medum-navigate-v0", "pointmaze-medium-navigate-v0"),
        ("pointmaze-medium-navigate", "pointmaze-medium-navigate-v0"),
        ("pointmaze-large-stich-local", "pointmaze-large-stitch-local"),
        ("", "nearest names"),
        ("visual-antmaze-medium-navigate-v0", "images, which is not supported yet"),
        ("powderworld-easy-play-v0", "not supported yet"),
        ("cube-single-play-singletask-task2-v0", "single-task variant .* not supported yet"),
        ("antmaze-large-navigate-oraclerep-v0", "oracle goals, which is not supported yet"),
        ("antmaze-large-navigate-local", "only pointmaze.* antmaze-large-navigate-v0"),
    ],
)
def test_other_names_are_refused(name, words):
    with pytest.raises(DatasetError, match=words):
        check_name(name)
    with pytest.raises(DatasetError, match=words):
        load(name, dataset_path="anything.npz")
