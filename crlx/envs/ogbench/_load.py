import os
import pathlib
from collections.abc import Sequence

from ._collect import collect
from ._download import MIRRORS, download
from ._errors import DatasetError
from ._files import Dataset, OnProgress, read, validation_path
from ._names import LOCAL, check_name, widths

_DATASET_DIR = "~/.ogbench/data"  # OGBench's own, so that files are shared.
_LOCAL_DIR = "~/.crlx/ogbench"  # Not OGBench's, where other programs expect official files only.


def load(
    name: str,
    *,
    dataset_dir: str | os.PathLike[str] | None = None,
    dataset_path: str | os.PathLike[str] | None = None,
    local_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    episodes: int | None = None,
    length: int | None = None,
    processes: int | None = None,
    mirrors: Sequence[str] = MIRRORS,
    progress: OnProgress | None = None,
) -> tuple[Dataset, Dataset]:
    """Loads a dataset, which is downloaded or collected on first use, and checks it.

    **Arguments:**

    - `name`: one of `OFFICIAL` or `LOCAL`.
    - `dataset_dir`: where official files are sought and put; `~/.ogbench/data` by default.
    - `dataset_path`: a training file to read instead, with its `-val.npz` beside it.
    - `local_dir`: where local datasets are sought and put; `~/.crlx/ogbench` by default.
    - `seed`, `episodes`, `length`, `processes`: of a local dataset; see `collect`.
    - `mirrors`: see `download`.
    - `progress`: called with bytes during a download and rows during a collection: how many so
      far and in all.

    **Returns:** training and validation data. `DatasetError` says what to do if that fails.
    """
    check_name(name)
    if dataset_path is not None:
        train = pathlib.Path(dataset_path).expanduser()
    elif name in LOCAL:
        directory = _directory(local_dir, _LOCAL_DIR)
        train = collect(
            name,
            directory,
            seed=seed,
            episodes=episodes,
            length=length,
            processes=processes,
            progress=progress,
        )
    else:
        directory = _directory(dataset_dir, _DATASET_DIR)
        train = download(name, directory, mirrors=mirrors, progress=progress)
    validation = validation_path(train)
    return _checked(name, train), _checked(name, validation)


def _directory(path: str | os.PathLike[str] | None, default: str) -> pathlib.Path:
    return pathlib.Path(default if path is None else path).expanduser()


def _checked(name: str, path: pathlib.Path) -> Dataset:
    dataset = read(path)
    found = dataset.observations.shape[1], dataset.actions.shape[1]
    if found != widths(name):
        raise DatasetError(
            f"{path} has observations and actions of {found[0]} and {found[1]} numbers, but those "
            f"of {name} have {widths(name)[0]} and {widths(name)[1]}. Name the dataset that the "
            "file belongs to, or another file with --dataset-path."
        )
    return dataset
