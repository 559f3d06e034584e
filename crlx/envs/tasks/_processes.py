import functools
from typing import Any

import jax
from mujoco.mjx._src import io


@functools.cache
def keep_to_own_devices() -> None:
    """Where several processes run one program: lets mjx put its arrays on this process's first
    device. By itself, mjx 3.17 takes the first device of all processes, which only one has."""
    if jax.process_count() == 1:
        return
    resolve: Any = io._resolve_impl_and_device

    def resolve_here(impl: Any, device: Any = None) -> Any:
        return resolve(impl, jax.local_devices()[0] if device is None else device)

    io._resolve_impl_and_device = resolve_here
