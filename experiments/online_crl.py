"""Online goal-conditioned RL in simulation: `python experiments/online_crl.py --help`."""

import functools

from crlx import DeviceMesh, encode
from experiments._launch import Report, command, train
from experiments._online_job import OnlineJob
from experiments._online_options import Options, parse
from experiments._online_pictures import Pictures
from experiments._online_results import conclude, results
from experiments._reporter import Reporter
from experiments._run_directory import RunDirectory, default_path
from experiments._xla import CompilerOptions, read_xla


def main(options: Options) -> None:
    if options.seeds > 1 and not options.checkpoint_replay:
        raise ValueError(
            "--seeds resumes from whole checkpoints: leave --no-checkpoint-replay out."
        )
    xla = read_xla(options.xla)
    mesh = options.devices({"--num-envs": options.num_envs, "--batch-size": options.batch_size})
    names = options.env, options.objective_name, options.architecture_name
    directory = RunDirectory(
        options.out or default_path(*names),
        resume=options.resume,
        parts=options.parts(options.seed),
    )
    try:
        _run(options, directory, mesh, xla)
    finally:
        directory.close()


def _run(options: Options, directory: RunDirectory, mesh: DeviceMesh, xla: CompilerOptions) -> None:
    env = options.task()
    config = options.config | {"spec": encode(env.spec.networks())}
    directory.check(config)
    with Reporter() as reporter:
        if options.resume and not options.checkpoint_replay:
            again = options.num_envs * options.warm_up
            reporter.say(
                f"Checkpoints of this run hold no replay: {again:,} steps are gathered anew, which "
                "are not counted, and it will not end as an uninterrupted one would."
            )
        job = OnlineJob(options, mesh, env, Pictures(env))
        jobs = dict.fromkeys(options.by_name(options.seed), job)
        report = Report(functools.partial(results, steps=job.step(job.rounds)), conclude)
        train(jobs, config, directory, reporter, report, aim=options.aim, xla=xla)


if __name__ == "__main__":
    command(main, parse)
