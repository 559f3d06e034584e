import math
from typing import Any

import equinox as eqx
import jax
import jax.random as jr

from crlx import AbstractArchitecture, AbstractRows, AbstractSource, Learner, Progress, Spec

from ._options import divisors


class Task(eqx.Module):
    """What is trained on what.

    **Arguments:**

    - `steps`, `interval`: gradient steps in all, and between evaluations; the second divides the
      first.
    """

    learner: Learner[Any, Any, Any]
    architecture: AbstractArchitecture
    spec: Spec
    source: AbstractSource[Any]
    validation: AbstractRows
    steps: int
    interval: int
    batch_size: int
    seed: int

    def init(self) -> tuple[Progress[Any, Any], jax.Array]:
        """The start of the run, and the key of all its updates."""
        nkey, ukey = jr.split(jr.key(self.seed))
        return self.learner.init(self.architecture, self.spec, key=nkey), ukey


def count_parameters(params: Any) -> int:
    """Numbers that the optimizer moves."""
    shaped = jax.tree.leaves(eqx.filter(params, lambda x: isinstance(x, jax.ShapeDtypeStruct)))
    return sum(math.prod(x.shape) for x in shaped)


def chunk_length(interval: int, parameters: int) -> int:
    """How many updates one compiled call makes: a divisor of the evaluation interval, about 500
    for small networks and fewer for large ones, so that a call takes seconds."""
    target = min(500.0, max(1.0, 5e8 / max(parameters, 1)))
    return min(divisors(interval), key=lambda d: abs(math.log(d / target)))
