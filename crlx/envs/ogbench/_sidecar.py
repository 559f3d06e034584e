import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib

from crlx import replacing

from ._errors import DatasetError
from ._files import validation_path
from ._names import LOCAL, check_name

_LIBRARIES = ("mujoco", "ogbench", "numpy")
_OF_ORACLES = ("scipy",)  # Smooths their plans; mazes do without.


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What fixes the content of a local dataset, apart from the versions of libraries.

    **Arguments:**

    - `name`: one of `LOCAL`.
    - `seed`: of all randomness.
    - `episodes`: training episodes.
    - `length`: transitions per episode.
    - `generator`, `version`: what collects; raise the version when a seed gives other data.
    """

    name: str
    seed: int
    episodes: int
    length: int
    generator: str = "crlx.envs.ogbench.collect"
    version: int = 1

    def __post_init__(self):
        check_name(self.name)
        if self.name not in LOCAL:
            raise DatasetError(f"{self.name} is downloaded, not collected; see `load`.")
        if self.episodes < 1 or self.length < 1:
            raise DatasetError(
                "A dataset needs at least one episode of at least one transition; "
                f"got {self.episodes} of {self.length}."
            )
        if self.seed < 0:
            raise DatasetError(f"Seeds are not negative; got {self.seed}.")

    @property
    def in_maze(self) -> bool:
        """Whether an agent walks, rather than an arm moves things."""
        return self.name.startswith("pointmaze")

    @property
    def validation_episodes(self) -> int:
        """A tenth, as in OGBench, but at least one."""
        return max(1, self.episodes // 10)


def sidecar_path(train: pathlib.Path) -> pathlib.Path:
    """Where the description of a local dataset lies: `x.npz` → `x.json`."""
    return train.with_suffix(".json")


def write_sidecar(train: pathlib.Path, recipe: Recipe) -> None:
    """Describes a dataset whose two files have just been written.

    **Arguments:**

    - `train`: its training file.
    - `recipe`: how it was made.
    """
    libraries = _LIBRARIES if recipe.in_maze else _LIBRARIES + _OF_ORACLES
    text = {
        **dataclasses.asdict(recipe),
        "validation_episodes": recipe.validation_episodes,
        "libraries": {library: importlib.metadata.version(library) for library in libraries},
        "sha256": _digests(train),
    }
    with replacing(sidecar_path(train)) as temporary:
        temporary.write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")


def check_sidecar(train: pathlib.Path, recipe: Recipe) -> None:
    """Refuses a dataset that was made in another way or changed since.

    Other versions of libraries are accepted: they are recorded, and the data are what they are.

    **Arguments:**

    - `train`: its training file.
    - `recipe`: how it should have been made.
    """
    path = sidecar_path(train)
    remedy = f"Delete {path} to collect it anew, or choose another directory for local data."
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"{path} is damaged ({error}). {remedy}") from error
    if not isinstance(found, dict):
        raise DatasetError(f"{path} does not describe a dataset. {remedy}")
    for key, value in dataclasses.asdict(recipe).items():
        if found.get(key) != value:
            raise DatasetError(
                f"{train} was collected with {key} {found.get(key)}, but {value} is asked for. "
                + remedy
            )
    if found.get("sha256") != _digests(train):
        raise DatasetError(f"{train} or its validation file is not what {path} says. {remedy}")


def _digests(train: pathlib.Path) -> dict[str, str | None]:
    return {path.name: _digest(path) for path in (train, validation_path(train))}


def _digest(path: pathlib.Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
