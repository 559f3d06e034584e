import math
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import PRNGKeyArray

from crlx import AbstractArchitecture, AbstractRows, AbstractSource, Learner, Progress, Spec

from ._job import Seed


class Task(eqx.Module):
    """What is trained on what.

    **Arguments:**

    - `steps`, `interval`: gradient steps in all, and between evaluations; the last evaluation
      comes at the end.
    - `log_every`: gradient steps per line of the log; None for as many as take a few seconds.
    """

    learner: Learner[Any, Any, Any]
    architecture: AbstractArchitecture
    spec: Spec
    source: AbstractSource[Any]
    validation: AbstractRows
    steps: int
    interval: int
    batch_size: int
    log_every: int | None = None

    def init(self, seed: Seed) -> tuple[Progress[Any, Any], PRNGKeyArray]:
        """The start of the run with a seed, and the key of everything random in it."""
        return start(self.learner, self.architecture, self.spec, seed)


def start(
    learner: Learner[Any, Any, Any], architecture: AbstractArchitecture, spec: Spec, seed: Seed
) -> tuple[Progress[Any, Any], PRNGKeyArray]:
    """The start of a run, and the key of everything random in it."""
    nkey, rkey = jr.split(jr.key(seed))
    return learner.init(architecture, spec, key=nkey), rkey


def count_parameters(params: Any) -> int:
    """Numbers that the optimizer moves."""
    shaped = jax.tree.leaves(eqx.filter(params, lambda x: isinstance(x, jax.ShapeDtypeStruct)))
    return sum(math.prod(x.shape) for x in shaped)


def divisors(number: int) -> list[int]:
    """All of them, smallest first."""
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})


def chunk_length(interval: int, parameters: int, batch_size: int) -> int:
    """How many updates one compiled call makes at most: about 500 for small networks and fewer
    for large ones and large minibatches, so that a call takes seconds.

    A divisor of the evaluation interval if one is near, so that all calls are equally long and
    one program serves them all.
    """
    target = min(500.0, max(1.0, 1.3e11 / (parameters * batch_size)), float(interval))
    near = [d for d in divisors(interval) if target / 2 <= d <= 2 * target]
    return min(near, key=lambda d: abs(math.log(d / target)), default=int(target))
