import contextlib
import functools
import http.client
import pathlib
import ssl
import time
import typing
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Sequence

from crlx import replacing

from ._errors import DatasetError
from ._files import DAMAGE, OnProgress, validation_path
from ._names import check_name, local_name, nearest_local

MIRRORS = (
    "https://rail.eecs.berkeley.edu/datasets/ogbench/{file}",
    "https://huggingface.co/datasets/zhouzypaul/ogbench_datasets/resolve/main/{file}",
    "https://huggingface.co/datasets/Gwanwoo/ogbench-{name}/resolve/main/{file}",
)
"""Where a file is sought, in this order; `{name}` is the dataset and `{file}` the file."""

_ATTEMPTS = 3
_CHUNK = 1 << 20
_AGAIN = (408, 425, 429, 500, 502, 503, 504)  # Other HTTP errors do not go away.
# Not every OSError: a full disk must not look like a broken mirror.
_NETWORK = (
    urllib.error.URLError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
)


class _Response(typing.Protocol):
    headers: typing.Any

    def read(self, amt: int, /) -> bytes: ...


Opener = Callable[[str], contextlib.AbstractContextManager[_Response]]

open_url: Opener = functools.partial(urllib.request.urlopen, timeout=20)


class _BrokenTransfer(Exception):
    """What arrived is not the file; the next attempt may fare better."""


def download(
    name: str,
    directory: pathlib.Path,
    *,
    mirrors: Sequence[str] = MIRRORS,
    opener: Opener = open_url,
    backoff: float = 1.0,
    progress: OnProgress | None = None,
) -> pathlib.Path:
    """Fetches the two files of an official dataset, unless they are there.

    A file gets its name only once its size and its checksums have been verified, so other
    programs never see a part of it, and several may fetch it at once.

    **Arguments:**

    - `name`: an official dataset.
    - `directory`: where the files are sought and put.
    - `mirrors`: URLs with `{file}` and perhaps `{name}`, tried in order, three times each.
    - `opener`: opens a URL.
    - `backoff`: seconds before the second attempt, doubled before the third.
    - `progress`: called with the bytes of a file so far and its size (0 if unknown).

    **Returns:** the training file. If no mirror delivers, `DatasetError` is raised.
    """
    check_name(name)
    train = directory / f"{name}.npz"
    for path in (train, validation_path(train)):
        if path.exists():
            continue
        failures = []
        for mirror in mirrors:
            url = mirror.format(name=name, file=path.name)
            failure = _try(url, path, opener, backoff, progress)
            if failure is None:
                break
            failures.append(f"  {url}: {failure}")
        else:
            raise DatasetError(_nothing_works(name, path, failures))
    return train


def _try(
    url: str, path: pathlib.Path, opener: Opener, backoff: float, progress: OnProgress | None
) -> str | None:
    """Why a URL failed, or None if the file has arrived."""
    failure = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(backoff * 2 ** (attempt - 1))
        try:
            _fetch(url, path, opener, progress)
            return None
        except urllib.error.HTTPError as error:
            error.close()
            failure = str(error)
            if error.code not in _AGAIN:
                break
        except (*_NETWORK, _BrokenTransfer) as error:
            failure = str(error) or type(error).__name__
    return failure


def _fetch(url: str, path: pathlib.Path, opener: Opener, progress: OnProgress | None) -> None:
    with replacing(path) as temporary:
        done = 0
        with opener(url) as response, temporary.open("wb") as file:
            size = int(response.headers.get("Content-Length") or 0)
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, size)
        if size and done != size:
            raise _BrokenTransfer(f"{done} bytes arrived instead of {size}")
        _check_archive(temporary)


def _check_archive(path: pathlib.Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except DAMAGE as error:
        raise _BrokenTransfer(f"not an npz archive ({error})") from error
    if bad is not None:
        raise _BrokenTransfer(f"{bad} in the archive is damaged")


def _nothing_works(name: str, path: pathlib.Path, failures: Sequence[str]) -> str:
    local = local_name(name)
    other = f"such as {', '.join(nearest_local(name))}" if local is None else local
    return "\n".join(
        [
            f"{path.name} is not in {path.parent} and could not be downloaded:",
            *failures,
            f"Either fetch {name}.npz and {name}-val.npz by other means and name the first with "
            "--dataset-path,",
            f"or collect data here, without a network, with --dataset {other}."
            + ("" if local else f" ({name} itself cannot be collected here.)"),
        ]
    )
