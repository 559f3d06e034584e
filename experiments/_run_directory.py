import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import time
from collections.abc import Mapping
from typing import Any

import jax

from crlx import JSON, encode

_PACKAGES = ("crlx", "jax", "jaxlib", "equinox", "optax", "numpy", "ogbench", "mujoco")
# These say where and how a run is written down, not what it computes.
_FREE = {"out", "resume", "aim"}


class RunDirectory:
    """Everything that one run writes: `config.json`, `metrics.jsonl`, `results.json`, pictures
    and checkpoints.

    **Arguments:**

    - `path`: the folder; made if missing.
    - `resume`: whether to continue the run that it holds.

    Raises `ValueError` if the folder holds another run, or none to resume, or cannot be written.
    """

    def __init__(self, path: pathlib.Path, *, resume: bool):
        self.path = path
        self.checkpoints = path / "checkpoints"
        self._config = path / "config.json"
        if resume and not self._config.exists():
            raise ValueError(f"{path} holds no run to resume; leave --resume out to start one.")
        if not resume and self._config.exists():
            raise ValueError(
                f"{path} holds another run. Continue it with --resume, or choose another --out."
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            (path / ".writable").write_text("")
            (path / ".writable").unlink()
        except OSError as error:
            raise ValueError(f"Cannot write to {path}: {error}. Choose another --out.") from error

    def claim(self, config: JSON) -> None:
        """Writes the configuration down, or checks that the run being resumed has the same one."""
        if not self._config.exists():
            write_json(self._config, config)
            return
        differing = differences(read_json(self._config), config)
        if differing:
            raise ValueError(
                f"{self.path} was started with another configuration: {'; '.join(differing)}. "
                "Resume it with its own, or choose another --out."
            )

    def log(self, line: Mapping[str, JSON]) -> None:
        """Appends one line to `metrics.jsonl` and hands it to the system at once."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"time": round(time.time(), 3), **line}) + "\n")

    def lines(self) -> list[dict[str, JSON]]:
        """The lines of `metrics.jsonl`; one that a killed run left half-written is passed over."""
        found = []
        for line in (self.path / "metrics.jsonl").read_text().splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return found


def default_path(dataset: str, objective: str, architecture: str) -> pathlib.Path:
    """A folder of its own for every run."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return pathlib.Path("runs") / f"{dataset}_{objective}_{architecture}_{now}"


def read_json(path: pathlib.Path) -> JSON:
    """Reads a file that `write_json` wrote."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error


def write_json(path: pathlib.Path, value: JSON) -> None:
    """Writes a file as a whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(temporary, path)


def differences(old: JSON, new: JSON, name: str = "") -> list[str]:
    """`field: old → new` for every field of two configurations that is not the same."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [k for k in {**old, **new} if name or k not in _FREE]
        return [
            line
            for k in keys
            for line in differences(old.get(k), new.get(k), f"{name}.{k}" if name else k)
        ]
    return [] if old == new else [f"{name}: {json.dumps(old)} → {json.dumps(new)}"]


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
