import dataclasses
import pathlib
import typing
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ._errors import DatasetError

OnProgress = Callable[[int, int], None]

_LAYOUT = {
    "observations": (np.dtype(np.float32), 2),
    "actions": (np.dtype(np.float32), 2),
    "terminals": (np.dtype(np.bool_), 1),
}
# What numpy and zipfile raise on a damaged archive. A pickle inside is a ValueError.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, OSError)
_MAGIC = b"PK\x03\x04"
_CHUNK = 1 << 16  # Rows checked at once, so that no mask of gigabytes is made.


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Episodes one after the other, in the layout of OGBench's files.

    Row `i + 1` is the successor of row `i`, except after a terminal: the last row of an episode
    is a successor only, and its action is unusable.

    **Arguments:**

    - `observations`: `[rows, obs]`, the state before the action.
    - `actions`: `[rows, act]`, in -1 ... 1.
    - `terminals`: `[rows]`, true on the last row of each episode.
    """

    observations: npt.NDArray[np.float32]
    actions: npt.NDArray[np.float32]
    terminals: npt.NDArray[np.bool_]


def validation_path(path: pathlib.Path) -> pathlib.Path:
    """Where the validation file of a training file lies: `x.npz` → `x-val.npz`.

    **Arguments:**

    - `path`: the training file.
    """
    if path.suffix != ".npz":
        raise DatasetError(f"{path} does not end in .npz; name the training file of a dataset.")
    return path.with_name(f"{path.stem}-val.npz")


def read(path: pathlib.Path) -> Dataset:
    """Reads one file of a dataset and checks it before anything uses it.

    Layout: OGBench, arXiv 2410.20092; nothing is ever unpickled.

    **Arguments:**

    - `path`: an npz file with `observations`, `actions` and `terminals`; other keys are left.

    **Returns:** the arrays.

    **Raises:** `DatasetError` that names the file, the fault and what to do.
    """
    if not path.is_file():
        raise DatasetError(
            f"{path}: there is no such file. Name a training file with --dataset-path; "
            "its validation file, ending in -val.npz, must lie beside it."
        )
    remedy = (
        f"Delete {path} and start again, so that it is fetched or collected anew, "
        "or name another file with --dataset-path."
    )
    try:
        arrays = _unpack(path)
        _check(arrays)
    except DatasetError as error:
        raise DatasetError(f"{path}: {error} {remedy}") from error
    return Dataset(**arrays)


def _unpack(path: pathlib.Path) -> dict[str, npt.NDArray[typing.Any]]:
    # Opened here, since numpy leaves the file of a broken archive open.
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise DatasetError("not an npz archive.")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as archive:
                found = {key: archive[key] for key in _LAYOUT if key in archive.files}
        except DAMAGE as error:
            raise DatasetError(f"cut short, damaged or not of numbers ({error}).") from error
    for key, array in found.items():
        if not isinstance(array, np.ndarray):  # A member that is no npy file comes as bytes.
            raise DatasetError(f"{key} is not an array.")
    return found


def _check(arrays: dict[str, npt.NDArray[typing.Any]]) -> None:
    missing = [key for key in _LAYOUT if key not in arrays]
    if missing:
        raise DatasetError(f"not a dataset of OGBench: it lacks {', '.join(missing)}.")
    for key, (dtype, ndim) in _LAYOUT.items():
        array = arrays[key]
        if array.dtype != dtype or array.ndim != ndim:
            raise DatasetError(
                f"{key} has dtype {array.dtype} and shape {array.shape}; "
                f"it must have dtype {dtype} and {ndim} axes."
            )
    lengths = {key: len(array) for key, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise DatasetError(f"arrays of unequal length: {lengths}.")
    if not all(array.size for array in arrays.values()):
        raise DatasetError("it is empty.")
    _check_numbers("observations", arrays["observations"])
    _check_numbers("actions", arrays["actions"])
    _check_episodes(arrays["terminals"])


def _check_numbers(key: str, array: npt.NDArray[np.float32]) -> None:
    for start in range(0, len(array), _CHUNK):
        finite = np.isfinite(array[start : start + _CHUNK]).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise DatasetError(f"{key} are NaN or infinite, first in row {row}.")


def _check_episodes(terminals: npt.NDArray[np.bool_]) -> None:
    if not terminals[-1]:
        raise DatasetError("the last row is not a terminal, so rows are missing at the end.")
    last = np.flatnonzero(terminals)
    rows = np.diff(last, prepend=-1)
    if rows.min() < 2:
        row = int(last[np.argmin(rows)])
        raise DatasetError(
            f"the episode that ends in row {row} has one row, and one-step episodes hold no "
            "transition. Terminals belong on the last row of an episode only; this also happens "
            "to a file in the compact layout, which marks the last two."
        )
