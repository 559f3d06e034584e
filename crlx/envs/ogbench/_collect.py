import pathlib

import numpy as np
import numpy.typing as npt

from crlx import replacing

from ._files import OnProgress, validation_path
from ._names import LOCAL, Size
from ._pointmaze import PointMaze
from ._rollout import Record, rollout
from ._sidecar import Recipe, check_sidecar, sidecar_path, write_sidecar


def collect(
    name: str,
    directory: pathlib.Path,
    *,
    seed: int = 0,
    episodes: int | None = None,
    length: int | None = None,
    progress: OnProgress | None = None,
) -> pathlib.Path:
    """Collects a local dataset by the rules of its official counterpart, unless it is there.

    Writes `name.npz` and `name-val.npz` in OGBench's format and, last, `name.json`, without
    which the others are taken for the remains of an interrupted collection.

    **Arguments:**

    - `name`: one of `LOCAL`.
    - `directory`: where the files are sought and put.
    - `seed`: the same seed, size and library versions give the same files.
    - `episodes`: training episodes; validation adds a tenth, at least one.
    - `length`: transitions per episode, one less than rows. Both are by default the official.
    - `progress`: called with the rows so far and in all.

    **Returns:** the training file.

    **Raises:** `DatasetError` if the files in `directory` were collected in another way.
    """
    official = LOCAL.get(name, Size(1, 1))  # The recipe refuses other names.
    recipe = Recipe(
        name,
        seed,
        official.episodes if episodes is None else episodes,
        official.length if length is None else length,
    )
    train = directory / f"{name}.npz"
    if sidecar_path(train).exists():
        check_sidecar(train, recipe)
    else:
        _collect(train, recipe, progress)
    return train


def _collect(train: pathlib.Path, recipe: Recipe, progress: OnProgress | None) -> None:
    _, maze, style, _ = recipe.name.split("-")
    record = rollout(
        PointMaze(maze),
        style,
        episodes=recipe.episodes + recipe.validation_episodes,
        rows=recipe.length + 1,
        rng=np.random.default_rng(recipe.seed),
        progress=progress,
    )
    _write(train, record, slice(None, recipe.episodes))
    _write(validation_path(train), record, slice(recipe.episodes, None))
    write_sidecar(train, recipe)


def _write(path: pathlib.Path, record: Record, episodes: slice) -> None:
    def rows(array: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        return array[episodes].astype(np.float32).reshape(-1, 2)

    terminals = np.zeros_like(record.success[episodes])
    terminals[:, -1] = True
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            observations=rows(record.observations),
            actions=rows(record.actions),
            terminals=terminals.reshape(-1),
            qpos=rows(record.qpos),
            qvel=rows(record.qvel),
        )
