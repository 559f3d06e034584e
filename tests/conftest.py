import gc
import importlib.metadata
import os
import sys

import hypothesis
import pytest
from jaxtyping import install_import_hook

# Read when jax is first imported, which tests that do not need it never do.
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
# Tests compile much and compute little.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Half of the time goes to compiling, which the older emitters do a third faster. An unknown flag
# would end the process, so it is given only where it is known to exist.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")

# Checks shapes and types at run time, in modules imported from here on.
install_import_hook(("crlx", "objectives", "architectures"), "beartype.beartype")

# Tracing makes many objects and few cycles: looking for them less often saves a tenth of the time.
gc.set_threshold(200_000, 50, 1000)

hypothesis.settings.register_profile("crlx", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("crlx")


def pytest_configure(config):
    # Beartype looks at a random item of each container, also of those that strategies build.
    about_random = "ignore:Do not use the `random` module inside strategies"
    config.addinivalue_line(
        "filterwarnings", f"{about_random}:hypothesis.errors.HypothesisDeprecationWarning"
    )


# Begun first, so that neither process is left with a long one at the end. (With the order of files
# that the Makefile asks pytest-xdist to keep. A name that is none is harmless.)
_LONGEST = (
    *("trunk_laws", "online_run", "objective_contracts", "offline_run", "fused_update", "pairs"),
    *("near_walls", "contract", "passes", "task_references", "tracker", "third_party"),
)


def pytest_collection_modifyitems(items):
    names = {f"test_{name}.py": place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: names.get(item.path.name, len(names)))


@pytest.fixture
def getkey():
    """A new random key at every call, the same in every run."""
    import jax.random as jr  # Not at the top, so that importing this file stays quick.

    keys = map(jr.key, range(2026, 3026))
    return lambda: next(keys)


@pytest.fixture
def leave_nothing():
    """Drops what a failed read leaves while its warnings are expected, not in a later test."""
    yield
    gc.collect()


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Drops what a module compiled: the mappings of thousands of programs exceed what a process
    may have on Linux, and the compiler then crashes."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory):
    """For tests that run one program again and again, in this process and in others: only the first
    one has to wait until it is compiled."""
    import jax

    directory = str(tmp_path_factory.mktemp("compiled"))
    settings = {
        "jax_compilation_cache_dir": directory,
        "jax_persistent_cache_min_compile_time_secs": 0.1,
    }
    before = {name: jax.config.values[name] for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = directory
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    yield
    for name, value in before.items():
        jax.config.update(name, value)
