"""Offline goal-conditioned RL on OGBench: `python experiments/offline_ogbench.py --help`."""

import dataclasses
import sys

import jax.numpy as jnp
import optax

from crlx import JSON, Learner, Offline, OfflineRows, Spec, Step, encode, standardization
from crlx.envs.ogbench import Dataset, Evaluator, environment_name, load
from experiments._divergence import Diverged
from experiments._options import Options, parse
from experiments._reporter import Reporter
from experiments._results import conclude
from experiments._run_directory import RunDirectory, default_path, provenance
from experiments._stop import Stopped
from experiments._task import Task
from experiments._tracker import finish_mirror, start_mirror
from experiments._trainer import Trainer


def main(options: Options) -> None:
    out = options.out or default_path(
        options.dataset, options.objective_name, options.architecture_name
    )
    directory = RunDirectory(out, resume=options.resume)
    with Reporter() as reporter:
        evaluator = Evaluator(
            environment_name(options.dataset), episodes=options.episodes, seed=options.seed
        )
        train, validation = _load(options, reporter)
        task = _task(options, train, validation, evaluator)
        config = {**_fields(options), "spec": encode(task.spec)}
        directory.claim(config)
        facts = provenance()
        directory.log({"event": "start", "config": config, **facts})
        _describe(options, directory, reporter)
        mirror = start_mirror(directory.path) if options.aim else None
        trainer = Trainer(task, evaluator, directory, reporter)
        try:
            trainer.run()
        finally:
            directory.log({"event": "end"})
            finish_mirror(mirror, timeout=30)
    conclude(config, facts, trainer, directory)


def _load(options: Options, reporter: Reporter) -> tuple[Dataset, Dataset]:
    activity = f"getting {options.dataset}"
    data = load(
        options.dataset,
        dataset_dir=options.dataset_dir,
        dataset_path=options.dataset_path,
        local_dir=options.data_dir / "ogbench",
        progress=lambda done, total: reporter.update(activity, done, total),
    )
    reporter.finish(activity)
    return data


def _task(options: Options, train: Dataset, validation: Dataset, evaluator: Evaluator) -> Task:
    units = standardization(train.observations) if options.normalize else None
    spec = Spec(evaluator.observation_size, evaluator.action_size, evaluator.goal_size)
    if units is not None:
        spec = dataclasses.replace(spec, observation_units=units, goal_units=units)
    return Task(
        learner=Learner(options.objective, optax.adam(options.learning_rate)),
        architecture=options.architecture,
        spec=spec,
        source=Offline(_rows(train)),
        validation=_rows(validation),
        steps=options.steps,
        interval=options.evaluation_interval,
        batch_size=options.batch_size,
        seed=options.seed,
    )


def _rows(data: Dataset) -> OfflineRows:
    observations = jnp.asarray(data.observations)  # Once: goals are observations here.
    return OfflineRows(Step(observations, jnp.asarray(data.actions), observations), data.terminals)


def _describe(options: Options, directory: RunDirectory, reporter: Reporter) -> None:
    reporter.say(f"Writing to {directory.path}")
    for name in ("dataset", "objective", "architecture", "steps", "batch_size", "seed"):
        reporter.say(f"  {name:<13} {getattr(options, name)}")


def _fields(options: Options) -> dict[str, JSON]:
    return {f.name: encode(getattr(options, f.name)) for f in dataclasses.fields(options)}


if __name__ == "__main__":
    try:
        main(parse(sys.argv[1:]))
    except ValueError as error:
        sys.exit(f"Error: {error}")
    except (Diverged, Stopped) as end:
        print(end, file=sys.stderr)
        sys.exit(end.exit_code)
