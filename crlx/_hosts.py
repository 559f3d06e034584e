import os

import jax
import numpy as np
from jax.experimental import multihost_utils


def join_hosts() -> None:
    """Makes one program of several processes, where the environment says so; before JAX is used.

    `JAX_COORDINATOR_ADDRESS` is `host:port` of the first process, `JAX_NUM_PROCESSES` how many
    there are, and `JAX_PROCESS_ID` which one this is, from 0. On clusters that JAX knows (Slurm,
    MPI, Kubernetes) the last two may be left out.

    Raises `ValueError` if only one of the last two is given.
    """
    if "JAX_COORDINATOR_ADDRESS" not in os.environ:
        return
    names = "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
    given = [int(os.environ[name]) for name in names if name in os.environ]
    if len(given) == 1:
        raise ValueError(f"Of {names[0]} and {names[1]}, give both or none.")
    processes, own = given or (None, None)
    jax.distributed.initialize(num_processes=processes, process_id=own)


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def anywhere(condition: bool) -> bool:
    """Whether a condition holds in any process. All of them ask."""
    if jax.process_count() == 1:
        return condition
    return bool(np.any(multihost_utils.process_allgather(np.asarray(condition))))


def wait_for_hosts(name: str) -> None:
    """Returns when all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
