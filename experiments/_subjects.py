import dataclasses
import functools
import pathlib
from typing import Any

import equinox as eqx
import jax
import jax.random as jr

from crlx import (
    JSON,
    AbstractObjective,
    Spec,
    load_run,
    project,
    standardization,
)
from crlx.envs.ogbench import Dataset

from ._data import Places, as_rows, load_data
from ._inspection import Inspection, inspect
from ._options import Names, compose
from ._reporter import Reporter
from ._run_directory import read_json


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """Networks to inspect, and the data to feed them with."""

    objective: AbstractObjective[Any, Any, Any]
    params: Any
    state: Any
    step: int
    data: Dataset


def trained(run: pathlib.Path, dataset_path: pathlib.Path | None) -> Subject:
    """The newest readable checkpoint of a run and its data, or those of the file given."""
    stored = load_run(run)
    config = read_json(run / "config.json")
    assert isinstance(config, dict)
    if not isinstance(config.get("dataset"), str):
        raise ValueError(f"{run / 'config.json'} names no dataset: only offline runs do.")
    known = {name: config.get(name) for name in ("data_dir", "dataset_dir", "dataset_path")}
    paths = {
        name: None if path is None else pathlib.Path(str(path)) for name, path in known.items()
    }
    path = paths["dataset_path"] if dataset_path is None else dataset_path
    places = Places(paths["data_dir"] or pathlib.Path("data"), paths["dataset_dir"], path)
    data = training_data(config["dataset"], places)
    return Subject(stored.objective, stored.params, stored.state, stored.step, data)


def fresh(names: Names, places: Places, seed: int) -> Subject:
    """The networks that a run with these flags starts from."""
    options = compose(names)
    data = training_data(names.dataset, places)
    units, size = standardization(data.observations), data.observations.shape[1]
    spec = Spec(size, data.actions.shape[1], size, units, units)
    init = eqx.filter_jit(options.objective.init)
    params, state = init(options.architecture, spec, key=jr.split(jr.key(seed))[0])
    return Subject(options.objective, project(params), state, 0, data)


@functools.cache
def training_data(name: str, places: Places) -> Dataset:
    """A dataset's training part, which is downloaded or collected on first use."""
    with Reporter() as reporter:
        return load_data(name, places, reporter)[0]


def probe(subject: Subject, *, batch_size: int, seed: int) -> Inspection:
    """Inspects a subject on one minibatch of its data."""
    rows = as_rows(subject.data)
    dkey, rkey, lkey = jr.split(jr.key(seed), 3)
    batch = subject.objective.relabel(rows, rows.draw(batch_size, key=dkey), key=rkey)
    return inspect(subject.objective, subject.params, subject.state, batch, lkey)


def describe(subject: Subject) -> dict[str, JSON]:
    """What `depth.json` says of a subject beside its statistics."""
    arrays = jax.tree.leaves(eqx.filter(subject.params, eqx.is_inexact_array))
    return {"step": subject.step, "parameters": sum(array.size for array in arrays)}
