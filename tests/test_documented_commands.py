"""Comparisons that the documentation tells to run are not refused."""

import pathlib
import shlex

import pytest
import tyro

from experiments._comparison import plan
from experiments.compare_offline import Options, split

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = "experiments/compare_offline.py"
COMMANDS = [
    line.split(SCRIPT)[1]
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for line in page.read_text().replace("\\\n", " ").splitlines()
    if line.split("python ")[-1].startswith(SCRIPT)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_documented_comparisons_are_accepted(tmp_path, command):
    own, passed = split(shlex.split(command, comments=True))
    options = tyro.cli(Options, args=own)
    cells = plan(options.objectives, options.datasets, options.seeds, tmp_path, passed)
    assert len(cells) == len(options.objectives) * len(options.datasets) * len(options.seeds)
