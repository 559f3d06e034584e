"""Writes requirements.lock: the newest versions that pyproject.toml allows, for several Pythons.

Run it on Linux x86-64, one interpreter for each supported Python, oldest first:

    python3 tools/lock.py python3.11 python3.12 python3.13
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXTRAS = "envs,ogbench,experiments,testing,dev"

# What pip cannot see from one machine: packages without a wheel for some Python or platform.
MARKERS = {
    "aim": "python_version < '3.13' and (platform_machine == 'x86_64' or sys_platform == 'darwin')",
    "labmaze": "python_version < '3.13'",
}

HEAD = """\
# Every package that `make` installs, CPU only, on Python {pythons}; install it with --no-deps.
# Written by tools/lock.py; do not edit. To take newer versions, run
#     python3 tools/lock.py {commands}
"""


def resolve(python: str) -> tuple[str, dict[str, str]]:
    """The interpreter's version, as in "3.12", and the version of each package it would install."""
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder) / "report.json"
        options = ["--dry-run", "--ignore-installed", "--quiet", "--report", str(report)]
        command = [python, "-m", "pip", "install", *options, f"{ROOT}[{EXTRAS}]"]
        subprocess.run(command, check=True)
        found = json.loads(report.read_text())
    packages = (item["metadata"] for item in found["install"])
    versions = {re.sub(r"[-_.]+", "-", p["name"]).lower(): p["version"] for p in packages}
    del versions["crlx"]
    return found["environment"]["python_version"], versions


def minor(python: str) -> int:
    return int(python.split(".")[1])


def marker(pythons: list[str], every: list[str]) -> str:
    """The condition that selects `pythons`, which follow one another, out of `every`."""
    low = f"python_version >= '{pythons[0]}'" if pythons[0] != every[0] else ""
    high = f"python_version < '3.{minor(pythons[-1]) + 1}'" if pythons[-1] != every[-1] else ""
    return " and ".join(filter(None, (low, high)))


def lines(resolved: dict[str, dict[str, str]]) -> list[str]:
    every = sorted(resolved, key=minor)
    out = []
    for name in sorted({name for versions in resolved.values() for name in versions}):
        pins = [resolved[python].get(name) for python in every]
        for pin in dict.fromkeys(filter(None, pins)):
            pythons = [python for python, p in zip(every, pins, strict=True) if p == pin]
            condition = MARKERS.get(name) or marker(pythons, every)
            out.append(f"{name}=={pin}" + (f"; {condition}" if condition else ""))
    return out


def main(interpreters: list[str]) -> None:
    if not interpreters:
        raise SystemExit(__doc__)
    resolved = dict(resolve(python) for python in interpreters)
    every = sorted(resolved, key=minor)
    head = HEAD.format(
        pythons=f"{every[0]} to {every[-1]}", commands=" ".join(f"python{p}" for p in every)
    )
    (ROOT / "requirements.lock").write_text(head + "\n".join(lines(resolved)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
