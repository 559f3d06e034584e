import importlib.metadata
import os

_FLAG = "--xla_cpu_use_fusion_emitters"


def steady_fusion() -> None:
    """Has XLA compile for CPUs as it did before its fusion emitters, with which some models of
    MJX run a thousand times slower.

    It acts on programs of this process if JAX has not run anything yet, and only where the flag is
    known to exist: XLA ends a process that it gives an unknown one. A value that the user has set
    is kept.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if importlib.metadata.version("jaxlib").startswith("0.10.") and _FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_FLAG}=false".strip()


steady_fusion()  # Once this package is imported: before anything runs, if it can be.
