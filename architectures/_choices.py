import enum
import math

import jax
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float

from ._layers import fan_average_uniform, fan_in_uniform, lecun_uniform
from ._orthogonal import orthogonal


class Activation(enum.Enum):
    """An elementwise non-linearity. `GELU` is its tanh approximation, as OGBench uses it."""

    SWISH = enum.auto()
    RELU = enum.auto()
    GELU = enum.auto()

    def __call__(self, x: Float[Array, " width"]) -> Float[Array, " width"]:
        if self is Activation.SWISH:
            return jax.nn.swish(x)
        return jax.nn.relu(x) if self is Activation.RELU else jax.nn.gelu(x, approximate=True)


class Initialization(enum.Enum):
    """How weights start: uniform in `±1/sqrt(fan_in)` (the released code of the paper, and
    JaxGCRL's), uniform in `±sqrt(3 / fan_in)` (LeCun's), uniform in `±sqrt(6 / (fan_in + fan_out))`
    (Glorot's, and OGBench's), or orthogonal. Biases start at zero."""

    PAPER = enum.auto()
    LECUN = enum.auto()
    GLOROT = enum.auto()
    ORTHOGONAL = enum.auto()

    def initializer(self) -> Initializer:
        """Draws the weights of one layer, `[out, in]`."""
        match self:
            case Initialization.PAPER:
                return fan_in_uniform()
            case Initialization.LECUN:
                return lecun_uniform()
            case Initialization.GLOROT:
                return fan_average_uniform()
            case Initialization.ORTHOGONAL:
                return orthogonal()


class ResidualScale(enum.Enum):
    """The factor on the branch of each of `N` residual blocks.

    - `ONE`: the paper's.
    - `RSQRT`: `1 / sqrt(N)`.
    - `INVERSE`: `1 / N`.
    - `LEARNED`: one trainable number per block, which starts at `1 / sqrt(N)`.
    """

    ONE = enum.auto()
    RSQRT = enum.auto()
    INVERSE = enum.auto()
    LEARNED = enum.auto()

    def start(self, blocks: int) -> float:
        """The factor at initialization."""
        if self is ResidualScale.ONE:
            return 1.0
        return 1 / blocks if self is ResidualScale.INVERSE else 1 / math.sqrt(blocks)
