import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxtyping import PRNGKeyArray, PyTree

from crlx import Progress


@dataclasses.dataclass
class Record:
    """What a run has to tell beside its parameters; it travels in the checkpoints.

    **Arguments:**

    - `evaluations`: `step`, `overall_success` and the success of `tasks`, oldest first.
    - `compile_seconds`: tracing and compiling, all processes of the run together.
    - `updates`, `seconds`: gradient steps, and the time in compiled calls that they took.
    """

    evaluations: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    compile_seconds: float = 0.0
    updates: int = 0
    seconds: float = 0.0


def packed(progress: Progress[Any, Any], key: PRNGKeyArray) -> dict[str, PyTree]:
    """The trees of a checkpoint: `params` and `state`, which policies are made of and are read
    alone for that, and the `rest`."""
    rest = (progress.opt_state, progress.step, key)
    return {"params": progress.params, "state": progress.state, "rest": rest}


def unpacked(items: Mapping[str, PyTree]) -> tuple[Progress[Any, Any], PRNGKeyArray]:
    """What was packed."""
    opt_state, step, key = items["rest"]
    return Progress(items["params"], items["state"], opt_state, step), key
