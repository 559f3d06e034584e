import datetime
import fcntl
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import jax

from crlx import JSON, encode, is_first, replacing

_PACKAGES = ("crlx", "jax", "jaxlib", "equinox", "optax", "numpy", "ogbench", "mujoco")
# These say where things are, how parts were named, and how the program is made, which changes the
# last digits at most.
_FREE = {
    *("out", "resume", "aim", "mesh", "xla", "dataset_dir", "dataset_path", "data_dir"),
    *("objective_name", "architecture_name", "contrast", "actor", "energy", "depth", "width"),
    *("critic_depth", "actor_depth", "inputs", "elsewhere", "collect"),
}


class RunDirectory:
    """Everything that one run writes: `config.json`, `metrics.jsonl`, `results.json`, pictures
    and checkpoints.

    **Arguments:**

    - `path`: the folder; made if missing, and locked until this process ends or closes it.
    - `resume`: whether to continue the run that it holds.
    - `parts`: runs that are trained together, each with a folder of its own in this one: its name,
      and the settings that are its own.

    Of several processes that train one run, the first writes, and the others keep still.

    Raises `ValueError` if the folder holds another run, or none to resume, or cannot be written.
    """

    def __init__(
        self,
        path: pathlib.Path,
        *,
        resume: bool,
        parts: Mapping[str, Mapping[str, JSON]] | None = None,
    ):
        self.path = path
        self.checkpoints = path / "checkpoints"
        self._config = path / "config.json"
        self.parts: dict[str, RunDirectory] = {}
        self._own = parts or {}
        if not is_first():
            return
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = (path / ".lock").open("a")
        except OSError as error:
            raise ValueError(f"Cannot write to {path}: {error}. Choose another --out.") from error
        problem = self._problem(resume)
        if problem is not None:
            self.close()
            raise ValueError(problem)
        for name in self._own:
            begun = (path / name / "config.json").exists()
            self.parts[name] = RunDirectory(path / name, resume=begun)

    def _problem(self, resume: bool) -> str | None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return f"Another process is writing to {self.path}. Wait, or choose another --out."
        exists = self._config.exists()
        if resume and not exists:
            return f"{self.path} holds no run to resume; leave --resume out to start one."
        if exists and not resume:
            return (
                f"{self.path} holds another run. Continue it with --resume, or choose another "
                "--out."
            )
        return None

    def close(self) -> None:
        """Lets other processes write to the folder."""
        for part in self.parts.values():
            part.close()
        if is_first():
            self._lock.close()

    def check(self, config: Mapping[str, JSON]) -> None:
        """Refuses settings that differ from those of the run being resumed."""
        if not self._config.exists():
            return
        stored = read_json(self._config)
        assert isinstance(stored, dict)
        differing = differences({k: v for k, v in stored.items() if k in config}, config)
        if differing:
            raise ValueError(
                f"{self.path} was started with another configuration: {'; '.join(differing)}. "
                "Resume it with its own, or choose another --out."
            )

    def claim(self, config: Mapping[str, JSON]) -> None:
        """Writes the configuration down, or checks that the run being resumed has the same."""
        if not is_first():
            return
        self.check(config)
        for name, part in self.parts.items():
            part.claim(self.own_config(config, name))
        if not self._config.exists():
            write_json(self._config, dict(config))

    def own_config(self, config: Mapping[str, JSON], part: str) -> dict[str, JSON]:
        """The configuration of one of the runs that are trained together."""
        return {**config, **self._own[part]}

    def log(self, line: Mapping[str, JSON]) -> None:
        """Appends one line to `metrics.jsonl` and hands it to the system at once. What is named
        `part/…`, or stands under the name of a part, goes there instead."""
        if not is_first():
            return
        for name, part in self.parts.items():
            own, line = _divided(line, name)
            if "config" in line:
                own |= {**line, "config": self.own_config(line["config"], name)}
            part.log(own)
        text = json.dumps({"time": round(time.time(), 3), **line}) + "\n"
        with (self.path / "metrics.jsonl").open("ab+") as file:
            # A killed run may have left half a line, which must not swallow this one.
            if file.tell() and not _ends_line(file):
                text = "\n" + text
            file.write(text.encode())

    def lines(self) -> list[dict[str, JSON]]:
        """The lines of `metrics.jsonl`, oldest first."""
        return read_lines(self.path)


def _divided(line: Mapping[str, Any], part: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What of a line belongs to a part, and what remains."""
    shared = {k: v for k, v in line.items() if k in ("step", "event", "evaluation_seconds")}
    prefixed = {k.removeprefix(f"{part}/"): v for k, v in line.items() if k.startswith(f"{part}/")}
    rest = {k: v for k, v in line.items() if k != part and not k.startswith(f"{part}/")}
    return {**shared, **line.get(part, {}), **prefixed}, rest


def read_lines(run: pathlib.Path) -> list[dict[str, JSON]]:
    """The lines of a run's `metrics.jsonl`; one that a killed run left half-written is passed
    over."""
    path = run / "metrics.jsonl"
    if not path.is_file():
        raise ValueError(f"{run} holds no metrics.jsonl; give the folder that was passed as --out.")
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def _ends_line(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def default_path(dataset: str, objective: str, architecture: str) -> pathlib.Path:
    """A folder of its own for every run of this machine.

    Raises `ValueError` where several processes train one run, which must agree on it.
    """
    if jax.process_count() > 1:
        raise ValueError("Several processes train one run: name its folder with --out.")
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return pathlib.Path("runs") / f"{dataset}_{objective}_{architecture}_{now}_{os.getpid()}"


def read_json(path: pathlib.Path) -> JSON:
    """Reads a file that `write_json` wrote."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error


def write_json(path: pathlib.Path, value: JSON) -> None:
    """Writes a file as a whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """`field: old → new` for every field of two configurations that is not the same."""
    if isinstance(old, dict) and isinstance(new, dict):
        if old.get("type") != new.get("type"):
            return [f"{name}: {old.get('type')} → {new.get('type')}"]
        keys = [k for k in {**old, **new} if name or k not in _FREE]
        return [
            line
            for k in keys
            for line in differences(old.get(k), new.get(k), f"{name}.{k}" if name else k)
        ]
    return [] if old == new else [f"{name}: {json.dumps(old)} → {json.dumps(new)}"]


def flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, JSON]]:
    """Every setting of a configuration with its dotted name; parts come with their type."""
    for key, entry in value.items():
        if not isinstance(entry, dict):
            yield f"{prefix}{key}", entry
            continue
        if "type" in entry:
            yield f"{prefix}{key}", entry.get("member", entry["type"])
        yield from flat(
            {k: v for k, v in entry.items() if k not in ("type", "member")}, f"{prefix}{key}."
        )


def provenance() -> dict[str, JSON]:
    """Versions, commit and device, as `results.json` records them."""
    versions: dict[str, JSON] = {name: _version(name) for name in _PACKAGES}
    device = jax.devices()[0]
    settings: Any = jax.config
    return {
        "versions": {"python": platform.python_version(), **versions},
        "commit": _commit(),
        "device": encode(
            {
                "platform": device.platform,
                "kind": device.device_kind,
                "count": jax.device_count(),
                "cpu_count": os.cpu_count(),
                "matmul_precision": settings.jax_default_matmul_precision,
            }
        ),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    root = pathlib.Path(__file__).parents[1]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None  # No git, or not a checkout.
    return done.stdout.strip()
