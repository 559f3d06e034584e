"""What the documentation tells to run is not refused."""

import re
import shlex

import pytest
import tyro
from pages import PAGES

from experiments import _online_options, _options
from experiments._comparison import plan
from experiments.compare_offline import Options, split

# For what a page's loops count through.
LOOPS = {"$seed": "0", "$depth": "8", "$dataset": "navigate", "$name": "cube-single-noisy-local"}


def commands(script):
    """The arguments of each command of a script that can be run as it stands."""
    found = []
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        for line in re.findall(
            rf"^ *[\w./]*python experiments/{script}\.py(.*)$", text, re.MULTILINE
        ):
            for name, value in LOOPS.items():
                line = line.replace(name, value)
            if "..." not in line and "NAME" not in line and "--resume" not in line:
                found.append(line)
    assert found
    return found


@pytest.mark.parametrize("command", commands("compare_offline"))
def test_documented_comparisons_are_accepted(tmp_path, command):
    own, passed = split(shlex.split(command, comments=True))
    options = tyro.cli(Options, args=own)
    cells = plan(options.objectives, options.datasets, options.seeds, tmp_path, passed)
    assert len(cells) == len(options.objectives) * len(options.datasets) * len(options.seeds)


RUNS = [(_options, line) for line in commands("offline_ogbench")]
RUNS += [(_online_options, line) for line in commands("online_crl")]


@pytest.mark.parametrize(("options", "command"), RUNS, ids=[line for _, line in RUNS])
def test_documented_runs_are_accepted(options, command):
    assert options.parse(shlex.split(command, comments=True)).steps > 0
