"""What every training script does around its job."""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from crlx import JSON, is_first, join_hosts

from ._divergence import Diverged
from ._job import AbstractJob
from ._reporter import Reporter
from ._run_directory import RunDirectory, flat, provenance
from ._seeds import conclude_all
from ._seeds_job import SeedsJob
from ._snapshot import Record
from ._stop import Stopped
from ._tracker import finish_mirror, start_mirror
from ._trainer import Trainer
from ._xla import CompilerOptions

Options = TypeVar("Options")


@dataclasses.dataclass(frozen=True)
class Report:
    """How a script reports.

    **Arguments:**

    - `results`: what `results.json` holds, from the configuration, where and with what the run was
      made, and its record.
    - `conclude`: writes that, and prints the scores.
    """

    results: Callable[[Mapping[str, JSON], Mapping[str, JSON], Record], dict[str, JSON]]
    conclude: Callable[[Mapping[str, Any], RunDirectory], None]


def train(
    jobs: Mapping[str, AbstractJob],
    config: Mapping[str, JSON],
    directory: RunDirectory,
    reporter: Reporter,
    report: Report,
    *,
    aim: bool,
    xla: CompilerOptions,
) -> None:
    """Trains a job, or together those of several seeds by their names, and reports.

    **Arguments:**

    - `aim`: whether metrics are mirrored to Aim.
    - `xla`: options of the compiler.
    """
    one = next(iter(jobs.values()))
    job = SeedsJob(jobs) if len(jobs) > 1 else one
    trainer, facts = _train(job, config, directory, reporter, aim=aim, xla=xla)
    if not is_first():
        return
    if len(jobs) == 1:
        report.conclude(report.results(config, facts, trainer.record), directory)
        return

    def results(config: Mapping[str, JSON], record: Record) -> dict[str, JSON]:
        return report.results(config, facts, record)

    conclude_all(trainer.record, trainer.carry, config, one, results, directory)


def _train(
    job: AbstractJob,
    config: Mapping[str, JSON],
    directory: RunDirectory,
    reporter: Reporter,
    *,
    aim: bool,
    xla: CompilerOptions,
) -> tuple[Trainer, dict[str, JSON]]:
    trainer = Trainer(job, directory, reporter, xla)
    directory.claim(config)
    facts = provenance()
    directory.log({"event": "start", "config": dict(config), **facts})
    reporter.say(f"Writing to {directory.path}")
    reporter.say("\n".join(f"  {name:<32} {value}" for name, value in flat(config)))
    mirror = start_mirror(directory.path) if aim and is_first() else None
    try:
        trainer.run()
    finally:
        directory.log({"event": "end"})
        finish_mirror(mirror, timeout=30)
    return trainer, facts


def command(main: Callable[[Options], None], parse: Callable[[list[str]], Options]) -> None:
    """Runs a script with the flags of its command line; errors of a user are one line."""
    try:
        join_hosts()
        main(parse(sys.argv[1:]))
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted.")
    except (Diverged, Stopped) as end:
        print(end, file=sys.stderr)
        sys.exit(end.exit_code)
