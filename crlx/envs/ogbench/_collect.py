import pathlib
import typing

import numpy as np
import numpy.typing as npt

from crlx import replacing

from ._errors import DatasetError
from ._files import OnProgress, validation_path
from ._manipulation import Columns
from ._names import LOCAL, Size
from ._pointmaze import PointMaze
from ._pool import Job, available_processes, collect_episodes
from ._rollout import rollout
from ._sidecar import Recipe, check_sidecar, sidecar_path, write_sidecar


def collect(
    name: str,
    directory: pathlib.Path,
    *,
    seed: int = 0,
    episodes: int | None = None,
    length: int | None = None,
    processes: int | None = None,
    progress: OnProgress | None = None,
) -> pathlib.Path:
    """Collects a local dataset by the rules of its official counterpart, unless it is there.

    Writes `name.npz` and `name-val.npz` in OGBench's format and, last, `name.json`, without
    which the others are taken for the remains of an interrupted collection.

    **Arguments:**

    - `name`: one of `LOCAL`.
    - `directory`: where the files are sought and put.
    - `seed`: the same seed, size and library versions give the same files, whatever the number
      of processes.
    - `episodes`: training episodes; validation adds a tenth, at least one.
    - `length`: transitions per episode, one less than rows. Both are by default the official.
    - `processes`: how many collect; by default one per core. Mazes are walked by this one alone. A
      script that lets several work must be guarded by `if __name__ == "__main__":`.
    - `progress`: called with the rows so far and in all.

    **Returns:** the training file.

    **Raises:** `DatasetError` if the files in `directory` were collected in another way.
    """
    if processes is not None and processes < 1:
        raise DatasetError(f"Collecting needs at least one process; got {processes}.")
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
        _collect(train, recipe, processes or available_processes(), progress)
    return train


def _collect(
    train: pathlib.Path, recipe: Recipe, processes: int, progress: OnProgress | None
) -> None:
    columns = _walk(recipe, progress) if recipe.in_maze else _handle(recipe, processes, progress)
    _write(train, columns, slice(None, recipe.episodes))
    _write(validation_path(train), columns, slice(recipe.episodes, None))
    write_sidecar(train, recipe)


def _walk(recipe: Recipe, progress: OnProgress | None) -> Columns:
    """Collects in a maze: `[episodes, rows, ...]` by name."""
    _, maze, style, _ = recipe.name.split("-")
    record = rollout(
        PointMaze(maze),
        style,
        episodes=recipe.episodes + recipe.validation_episodes,
        rows=recipe.length + 1,
        rng=np.random.default_rng(recipe.seed),
        progress=progress,
    )
    return {key: getattr(record, key) for key in ("observations", "actions", "qpos", "qvel")}


def _handle(recipe: Recipe, processes: int, progress: OnProgress | None) -> Columns:
    """Collects with an arm: `[episodes, rows, ...]` by name."""
    environment, style, _ = recipe.name.rsplit("-", 2)
    episodes, rows = recipe.episodes + recipe.validation_episodes, recipe.length + 1
    columns: Columns = {}
    done = 0

    def keep(number: int, episode: Columns) -> None:
        nonlocal done
        for key, array in episode.items():
            if key not in columns:
                columns[key] = np.empty((episodes, *array.shape), array.dtype)
            columns[key][number] = array
        done += rows
        if progress is not None:
            progress(done, episodes * rows)

    job = Job(environment, style, episodes, rows, recipe.seed)
    collect_episodes(job, processes=processes, keep=keep)
    return columns


def _write(path: pathlib.Path, columns: Columns, episodes: slice) -> None:
    def flat(array: npt.NDArray[typing.Any]) -> npt.NDArray[typing.Any]:
        single = np.float32 if array.dtype == np.float64 else array.dtype
        return array[episodes].astype(single, copy=False).reshape(-1, array.shape[-1])

    terminals = np.zeros(columns["actions"][episodes].shape[:2], bool)
    terminals[:, -1] = True
    # In OGBench's order.
    ordered = {key: flat(columns[key]) for key in ("observations", "actions")}
    ordered["terminals"] = terminals.reshape(-1)
    ordered |= {key: flat(array) for key, array in columns.items() if key not in ordered}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **ordered, allow_pickle=False)
