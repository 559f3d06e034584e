"""What every training script does around its job."""

import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

from crlx import JSON

from ._divergence import Diverged
from ._job import AbstractJob
from ._reporter import Reporter
from ._run_directory import RunDirectory, flat, provenance
from ._snapshot import Record
from ._stop import Stopped
from ._tracker import finish_mirror, start_mirror
from ._trainer import Trainer

Options = TypeVar("Options")


def train(
    job: AbstractJob,
    config: Mapping[str, JSON],
    directory: RunDirectory,
    reporter: Reporter,
    *,
    aim: bool,
) -> tuple[Record, dict[str, JSON]]:
    """Trains a job to its end, and writes down how.

    **Returns:** the record of the run, and where and with what it was made.
    """
    trainer = Trainer(job, directory, reporter)
    directory.claim(config)
    facts = provenance()
    directory.log({"event": "start", "config": dict(config), **facts})
    reporter.say(f"Writing to {directory.path}")
    reporter.say("\n".join(f"  {name:<32} {value}" for name, value in flat(config)))
    mirror = start_mirror(directory.path) if aim else None
    try:
        trainer.run()
    finally:
        directory.log({"event": "end"})
        finish_mirror(mirror, timeout=30)
    return trainer.record, facts


def command(main: Callable[[Options], None], parse: Callable[[list[str]], Options]) -> None:
    """Runs a script with the flags of its command line; errors of a user are one line."""
    try:
        main(parse(sys.argv[1:]))
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted.")
    except (Diverged, Stopped) as end:
        print(end, file=sys.stderr)
        sys.exit(end.exit_code)
