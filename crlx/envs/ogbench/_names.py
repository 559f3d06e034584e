import difflib
import typing

from ._errors import DatasetError


class Size(typing.NamedTuple):
    """`episodes` training episodes of `length` transitions; validation adds a tenth."""

    episodes: int
    length: int


# Length of an observation and of an action.
_WIDTHS = {
    "pointmaze": (2, 2),
    "antmaze": (29, 8),
    "humanoidmaze": (69, 21),
    "antsoccer": (42, 8),
    "cube-single": (28, 5),
    "cube-double": (37, 5),
    "cube-triple": (46, 5),
    "cube-quadruple": (55, 5),
    "scene": (40, 5),
    "puzzle-3x3": (55, 5),
    "puzzle-4x4": (83, 5),
    "puzzle-4x5": (99, 5),
    "puzzle-4x6": (115, 5),
}

_MAZES = {
    "pointmaze": ("medium", "large", "giant", "teleport"),
    "antmaze": ("medium", "large", "giant", "teleport"),
    "humanoidmaze": ("medium", "large", "giant"),
    "antsoccer": ("arena", "medium"),
}

_NOT_YET = {
    "visual": "a dataset of images",
    "powderworld": "a dataset of images with discrete actions",
    "singletask": "a single-task variant with rewards",
    "oraclerep": "a variant with oracle goals",
}

_TABLES = tuple(name for name in _WIDTHS if name.startswith(("cube", "scene", "puzzle")))

# Of the larger tables; the others have 1000.
_EPISODES = {"cube-triple": 3000, "cube-quadruple": 5000, "puzzle-4x5": 3000, "puzzle-4x6": 5000}


def _official() -> tuple[str, ...]:
    mazes = [f"{body}-{maze}" for body, sizes in _MAZES.items() for maze in sizes]
    roaming = [f"{maze}-{style}" for maze in mazes for style in ("navigate", "stitch")]
    explore = [f"antmaze-{maze}-explore" for maze in ("medium", "large", "teleport")]
    handling = [f"{table}-{style}" for table in _TABLES for style in ("play", "noisy")]
    return tuple(f"{stem}-v0" for stem in roaming + explore + handling)


def _local() -> dict[str, Size]:
    lengths = {"medium": 1000, "large": 1000, "giant": 2000, "teleport": 1000}
    sizes = {}
    for maze, length in lengths.items():
        sizes[f"pointmaze-{maze}-navigate-local"] = Size(1_000_000 // length, length)
        sizes[f"pointmaze-{maze}-stitch-local"] = Size(5000, 200)
    for table in _TABLES:
        for style in ("play", "noisy"):
            sizes[f"{table}-{style}-local"] = Size(_EPISODES.get(table, 1000), 1000)
    return sizes


OFFICIAL = _official()
"""The 47 state datasets of OGBench."""

LOCAL = _local()
"""The datasets that can be collected here, with the sizes of their official counterparts."""


def check_name(name: str) -> None:
    """Refuses a name that is neither in `OFFICIAL` nor in `LOCAL`.

    **Arguments:**

    - `name`: for example `antmaze-large-stitch-v0` or `pointmaze-medium-navigate-local`.

    **Raises:** `DatasetError` with the reason or the nearest known names.
    """
    if name in OFFICIAL or name in LOCAL:
        return
    for word in name.split("-"):
        if word in _NOT_YET:
            raise DatasetError(
                f"{name} is {_NOT_YET[word]}, which is not supported yet. Choose one of the state "
                f"datasets, for example {OFFICIAL[0]}."
            )
    if name.endswith("-local") and f"{name.removesuffix('-local')}-v0" in OFFICIAL:
        raise DatasetError(
            f"{name} cannot be collected locally: only pointmaze, cube, scene and puzzle need no "
            f"downloaded expert. Choose {name.removesuffix('-local')}-v0, or another local "
            f"dataset, such as {', '.join(nearest_local(name))}."
        )
    near = difflib.get_close_matches(name, [*OFFICIAL, *LOCAL], n=3, cutoff=0.0)
    raise DatasetError(f"There is no dataset {name!r}. The nearest names are {', '.join(near)}.")


def environment_name(name: str) -> str:
    """The name from which OGBench makes the environment that a dataset is evaluated in.

    `ogbench.make_env_and_datasets(environment_name(name), env_only=True)` makes it.

    **Arguments:**

    - `name`: an official or a local dataset.

    **Returns:** `name` itself, or the official counterpart of a local one.
    """
    check_name(name)
    return f"{name.removesuffix('-local')}-v0" if name in LOCAL else name


def local_name(name: str) -> str | None:
    """The local dataset collected by the same rules as an official one, if there is one."""
    local = f"{name.removesuffix('-v0')}-local"
    return local if local in LOCAL else None


def nearest_local(name: str) -> list[str]:
    """The three datasets of `LOCAL` whose names are most like another, for messages."""
    return difflib.get_close_matches(name, LOCAL, n=3, cutoff=0.0)


def widths(name: str) -> tuple[int, int]:
    """How many numbers an observation and an action of a dataset have.

    **Arguments:**

    - `name`: an official or a local dataset.

    **Returns:** the two lengths (measured on the environments of ogbench 1.2.2).
    """
    check_name(name)
    return next(pair for stem, pair in _WIDTHS.items() if name.startswith(stem))
