"""Offline goal-conditioned RL on OGBench: `python experiments/offline_ogbench.py --help`."""

import dataclasses
import hashlib
import sys

import numpy as np

from crlx import Offline, Spec, encode, standardization
from crlx.envs.ogbench import Dataset, Evaluator, environment_name
from experiments._data import Places, as_rows, load_data
from experiments._divergence import Diverged
from experiments._offline_job import OfflineJob
from experiments._options import Options, parse
from experiments._reporter import Reporter
from experiments._results import conclude
from experiments._run_directory import RunDirectory, default_path, flat, provenance
from experiments._stop import Stopped
from experiments._task import Task
from experiments._tracker import finish_mirror, start_mirror
from experiments._trainer import Trainer


def main(options: Options) -> None:
    out = options.out or default_path(
        options.dataset, options.objective_name, options.architecture_name
    )
    directory = RunDirectory(out, resume=options.resume)
    try:
        _run(options, directory)
    finally:
        directory.close()


def _run(options: Options, directory: RunDirectory) -> None:
    config = options.config
    directory.check(config)
    with Reporter() as reporter:
        evaluator = Evaluator(
            environment_name(options.dataset), episodes=options.episodes, seed=options.seed
        )
        places = Places(options.data_dir, options.dataset_dir, options.dataset_path)
        train, validation = load_data(options.dataset, places, reporter)
        task = _task(options, train, validation, evaluator)
        trainer = Trainer(OfflineJob(task, evaluator, directory), directory, reporter)
        config |= {"spec": encode(task.spec), "dataset_digest": _digest(train)}
        directory.claim(config)
        facts = provenance()
        directory.log({"event": "start", "config": config, **facts})
        reporter.say(f"Writing to {directory.path}")
        reporter.say("\n".join(f"  {name:<32} {value}" for name, value in flat(config)))
        mirror = start_mirror(directory.path) if options.aim else None
        try:
            trainer.run()
            conclude(config, facts, trainer, directory)
        finally:
            directory.log({"event": "end"})
            finish_mirror(mirror, timeout=30)


def _task(options: Options, train: Dataset, validation: Dataset, evaluator: Evaluator) -> Task:
    units = standardization(train.observations) if options.normalize else None
    spec = Spec(evaluator.observation_size, evaluator.action_size, evaluator.goal_size)
    if units is not None:
        spec = dataclasses.replace(spec, observation_units=units, goal_units=units)
    return Task(
        learner=options.learner,
        architecture=options.architecture,
        spec=spec,
        source=Offline(as_rows(train)),
        validation=as_rows(validation),
        steps=options.steps,
        interval=options.evaluation_interval,
        batch_size=options.batch_size,
        seed=options.seed,
        log_every=options.log_every,
    )


def _digest(data: Dataset) -> str:
    """Tells whether a resumed run finds the data that it was started with."""
    digest = hashlib.sha256()
    for array in (data.observations, data.actions, data.terminals):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


if __name__ == "__main__":
    try:
        main(parse(sys.argv[1:]))
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted.")
    except (Diverged, Stopped) as end:
        print(end, file=sys.stderr)
        sys.exit(end.exit_code)
