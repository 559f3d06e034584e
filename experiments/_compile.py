import time
from collections.abc import Callable
from typing import Any

import equinox as eqx

from ._xla import CompilerOptions


def compile_ahead(
    step: Callable[[Any, Any], Any], kept: Any, progress: Any, xla: CompilerOptions | None = None
) -> tuple[Callable[[Any, Any], Any], float]:
    """Traces and compiles `step(kept, progress)`, which may overwrite `progress`, with options of
    the compiler.

    **Returns:** the compiled function and the seconds that it took. What is not an array is fixed
    from now on. `memory_analysis` of its attribute `compiled` tells its memory.
    """
    start = time.perf_counter()
    jitted: Any = eqx.filter_jit(step, donate="all-except-first")
    compiled = jitted.lower(kept, progress).compile(compiler_options=xla)
    return compiled, time.perf_counter() - start
