"""Offline goal-conditioned RL on OGBench: `python experiments/offline_ogbench.py --help`."""

import dataclasses
import hashlib

import numpy as np

from crlx import DeviceMesh, Offline, Spec, SplitRows, encode, standardization
from crlx.envs.ogbench import Dataset, Evaluator, environment_name
from experiments import _launch as launch
from experiments._data import Places, as_rows, load_data
from experiments._offline_job import OfflineJob
from experiments._options import Options, parse
from experiments._reporter import Reporter
from experiments._results import conclude, results
from experiments._run_directory import RunDirectory, default_path
from experiments._task import Task
from experiments._xla import CompilerOptions, read_xla


def main(options: Options) -> None:
    xla = read_xla(options.xla)
    mesh = options.devices({"--batch-size": options.batch_size})
    out = options.out or default_path(
        options.dataset, options.objective_name, options.architecture_name
    )
    directory = RunDirectory(out, resume=options.resume, parts=options.parts(options.seed))
    try:
        _run(options, directory, mesh, xla)
    finally:
        directory.close()


def _run(options: Options, directory: RunDirectory, mesh: DeviceMesh, xla: CompilerOptions) -> None:
    config = options.config
    directory.check(config)
    with Reporter() as reporter:
        evaluator = Evaluator(
            environment_name(options.dataset), episodes=options.episodes, seed=options.seed
        )
        places = Places(options.data_dir, options.dataset_dir, options.dataset_path)
        train, validation = load_data(options.dataset, places, reporter)
        task = _task(options, mesh, train, validation, evaluator)
        config |= {"spec": encode(task.spec), "dataset_digest": _digest(train)}
        jobs = {
            name: OfflineJob(task, mesh, evaluator.reseeded(seed), seed=seed)
            for name, seed in options.by_name(options.seed).items()
        }
        report = launch.Report(results, conclude)
        launch.train(jobs, config, directory, reporter, report, aim=options.aim, xla=xla)


def _task(
    options: Options, mesh: DeviceMesh, train: Dataset, validation: Dataset, evaluator: Evaluator
) -> Task:
    units = standardization(train.observations) if options.normalize else None
    spec = Spec(evaluator.observation_size, evaluator.action_size, evaluator.goal_size)
    if units is not None:
        spec = dataclasses.replace(spec, observation_units=units, goal_units=units)
    return Task(
        learner=options.learner,
        architecture=options.architecture,
        spec=spec,
        source=Offline(mesh.place(SplitRows(as_rows(train), mesh))),
        validation=as_rows(validation),
        steps=options.steps,
        interval=options.evaluation_interval,
        batch_size=options.batch_size,
        log_every=options.log_every,
    )


def _digest(data: Dataset) -> str:
    """Tells whether a resumed run finds the data that it was started with."""
    digest = hashlib.sha256()
    for array in (data.observations, data.actions, data.terminals):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


if __name__ == "__main__":
    launch.command(main, parse)
