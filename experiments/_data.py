import dataclasses
import pathlib

import jax.numpy as jnp

from crlx import OfflineRows, Step
from crlx.envs.ogbench import Dataset, load

from ._reporter import Reporter


@dataclasses.dataclass(frozen=True)
class Places:
    """Where data are: as of the flags of the same names."""

    data_dir: pathlib.Path
    dataset_dir: pathlib.Path | None
    dataset_path: pathlib.Path | None


def load_data(name: str, places: Places, reporter: Reporter) -> tuple[Dataset, Dataset]:
    """A dataset's training and validation part, downloaded or collected on first use."""
    activity = f"getting {name}"
    data = load(
        name,
        dataset_dir=places.dataset_dir,
        dataset_path=places.dataset_path,
        local_dir=places.data_dir / "ogbench",
        progress=lambda done, total: reporter.update(activity, done, total),
    )
    reporter.finish(activity)
    return data


def as_rows(data: Dataset) -> OfflineRows:
    """A dataset on the device, where goals are whole observations."""
    observations = jnp.asarray(data.observations)  # Once: goals are observations here.
    return OfflineRows(Step(observations, jnp.asarray(data.actions), observations), data.terminals)
