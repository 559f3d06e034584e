import enum
from contextlib import AbstractContextManager

import jax

_BFLOAT16 = "BF16_BF16_F32"


class Precision(enum.Enum):
    """How the matrix products of a network's blocks are computed, forwards and backwards. All else,
    parameters, sums, norms, activations, heads and scores among it, is float32.

    - `DEFAULT`: as JAX's own setting `jax_default_matmul_precision` has it: unless it was changed,
      float32 on CPUs, and TF32 (10 bits of mantissa) on NVIDIA GPUs that have it.
    - `HIGHEST`: float32 everywhere.
    - `BFLOAT16`: operands are rounded to bfloat16 (8 bits), products summed in float32.
    """

    DEFAULT = None
    HIGHEST = "highest"
    BFLOAT16 = _BFLOAT16

    def scope(self) -> AbstractContextManager:
        """What is traced in it has this precision."""
        return jax.default_matmul_precision(self.value or _setting())


def rounds() -> bool:
    """Whether products that are traced now round their operands to bfloat16."""
    return _setting() == _BFLOAT16


def _setting() -> str | None:
    return jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
