import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from architectures import unstacked
from crlx import (
    AbstractActor,
    AbstractArchitecture,
    AbstractCritic,
    AbstractEncoder,
    DeviceMesh,
    Learner,
    OfflineRows,
    Spec,
    SplitRows,
    Step,
)
from objectives import Contrastive

from ._breakdown import breakdown
from ._compile import compile_ahead
from ._program_costs import costs
from ._score_errors import score_errors
from ._xla import CompilerOptions


class Looped(AbstractArchitecture):
    """Another architecture with every scan over layers replaced by a Python loop."""

    inner: AbstractArchitecture

    def critic(self, spec: Spec, *, key: PRNGKeyArray) -> AbstractCritic:
        return unstacked(self.inner.critic(spec, key=key))

    def actor(self, spec: Spec, *, key: PRNGKeyArray) -> AbstractActor:
        return unstacked(self.inner.actor(spec, key=key))

    def encoder(self, in_size: int, out_size: int, *, key: PRNGKeyArray) -> AbstractEncoder:
        return unstacked(self.inner.encoder(in_size, out_size, key=key))


def measure(
    architecture: AbstractArchitecture,
    *,
    fuse: bool = True,
    mesh: DeviceMesh | None = None,
    xla: CompilerOptions | None = None,
    parts: bool = False,
    batch_size: int,
    compilations: int,
    calls: int,
) -> Iterator[dict[str, float]]:
    """Compiles and times the full contrastive update (critic, actor, Adam) on made-up rows.

    Yields three times, as the row fills: the products, when the networks are built; the seconds of
    tracing and compiling, the median of `compilations`; and all, with the seconds of an update,
    the median of `calls` after one that is not counted, the loss of the last, the bytes that the
    program holds at most (arguments, results and temporaries, as XLA reports them), and what the
    networks are like at initialization, read off the first update:

    - `logit_mean`, `logit_spread`: mean score, and standard deviation within a row.
    - `penalty`: the log-sum-exp penalty.
    - `saturated`: the share of actions whose mode lies at or beyond 0.999.

    `product_flops` and `product_bytes` are those of the update's matrix products (`costs`). With
    `parts` the row also has the seconds of the parts of an update (`breakdown`) and the errors of
    its scores (`score_errors`). On a `mesh` of devices `peak_bytes` are those of one of them,
    products those of all. `xla` are options of the compiler for the whole update.
    """
    learner = Learner(Contrastive(fuse=fuse), optax.adam(3e-4))
    mesh = DeviceMesh() if mesh is None else mesh
    kept = learner, mesh.place(SplitRows(_rows(), mesh)), jr.key(0)

    def begin() -> Any:
        return mesh.constrain(learner.init(architecture, Spec(29, 8, 2), key=jr.key(1)))

    progress = eqx.filter_jit(begin)()
    jax.block_until_ready(eqx.filter(progress, eqx.is_array))

    def one(kept: Any, progress: Any) -> Any:
        learner, rows, key = kept
        progress, metrics = learner.fit(progress, rows, updates=1, batch_size=batch_size, key=key)
        return mesh.constrain(progress), metrics

    total = costs(eqx.filter_make_jaxpr(one)(kept, progress)[0])
    row: dict[str, float] = {"product_flops": total.flops, "product_bytes": total.bytes}
    yield row

    compiled: Any = None
    seconds: list[float] = []
    for _ in range(compilations):
        jax.clear_caches()
        compiled, taken = compile_ahead(one, kept, progress, xla)
        seconds.append(taken)
    row["compile_seconds"] = statistics.median(seconds)
    yield row
    row["peak_bytes"] = _peak_bytes(compiled.compiled)
    if parts:
        row |= breakdown(learner, progress, kept[1], batch_size=batch_size, calls=calls)
        inner = architecture.inner if isinstance(architecture, Looped) else architecture
        row |= score_errors(inner, batch_size=batch_size)
    duration, history = _time(lambda progress: compiled(kept, progress), progress, calls)
    row["seconds_per_update"], row["loss"] = duration, history[-1]["total/loss"]
    yield row | _at_initialization(history[0], batch_size)


def _peak_bytes(program: Any) -> int:
    memory = program.memory_analysis()
    held = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    return held - memory.alias_size_in_bytes


def _at_initialization(metrics: Mapping[str, float], batch_size: int) -> dict[str, float]:
    positive, negative = metrics["critic/logits_positive"], metrics["critic/logits_negative"]
    return {
        "logit_mean": negative + (positive - negative) / batch_size,
        "logit_spread": metrics["critic/logits_spread"],
        "penalty": metrics["critic/penalty"],
        "saturated": metrics["actor/saturated"],
    }


def _time(
    step: Callable[[Any], Any], progress: Any, calls: int
) -> tuple[float, list[Mapping[str, float]]]:
    """The median seconds of a call after the first, and the metrics of all."""
    seconds, history = [], []
    for _ in range(calls + 1):
        start = time.perf_counter()
        progress, metrics = step(progress)
        history.append({name: float(value[-1]) for name, value in metrics.items()})  # Waits.
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:]), history


def measure_apart(
    architecture: AbstractArchitecture, *, seconds_to_compile: float | None, **options: Any
) -> dict[str, float] | None:
    """`measure` in a process of its own, so that no measurement sees another's memory or caches. On
    CPUs it has as many virtual devices as its mesh asks for.

    **Returns:** None where compilation took longer than allowed.

    Raises `RuntimeError` if the process died, for lack of memory for instance.
    """
    context = multiprocessing.get_context("spawn")
    answers, sender = context.Pipe(duplex=False)
    worker = context.Process(target=_work, args=(sender, architecture, options), daemon=True)
    worker.start()
    sender.close()  # The worker's end is then the only one: when it dies, reading ends.
    try:
        answers.recv()  # The networks are built.
        if not answers.poll(seconds_to_compile):
            return None
        answers.recv()
        return answers.recv()
    except EOFError:
        worker.join()
        raise RuntimeError(
            f"The measurement of {architecture} ended early (exit status {worker.exitcode})."
        ) from None
    finally:
        worker.kill()
        worker.join()


def _work(sender: Any, architecture: AbstractArchitecture, options: dict[str, Any]) -> None:
    mesh = options.get("mesh")
    if mesh is not None:
        jax.config.update("jax_num_cpu_devices", mesh.size)  # Before JAX looks for its devices.
    for row in measure(architecture, **options):
        sender.send(row)


def _rows() -> OfflineRows:
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(20_000, 29)).astype(np.float32)
    actions = rng.uniform(-1, 1, size=(20_000, 8)).astype(np.float32)
    ends = np.arange(20_000) % 1000 == 999
    steps = Step(jnp.asarray(observations), jnp.asarray(actions), jnp.asarray(observations[:, :2]))
    return OfflineRows(steps, ends)
