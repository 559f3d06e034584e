from jaxtyping import Array, Float

from crlx import AbstractEncoder

from ._layers import Layer, apply
from ._taps import AbstractTapped, BlockStatistics


class Trunk(AbstractTapped):
    """A network without its output layer: a stem, a stack of blocks, and perhaps a norm.

    **Arguments:**

    - `stem`: from the input to the width of the blocks.
    - `stack`: the blocks; None for a network of one layer.
    - `norm`: applied to the output of the last block; or None.
    """

    stem: AbstractEncoder
    stack: AbstractTapped | None
    norm: Layer | None = None

    def __call__(self, x: Float[Array, " size"]) -> Float[Array, " width"]:
        x = self.stem(x)
        x = x if self.stack is None else self.stack(x)
        return x if self.norm is None else self.norm(x)

    def tap(self, x: Float[Array, " size"]) -> tuple[Float[Array, " width"], BlockStatistics]:
        if self.stack is None:
            raise ValueError("A network without blocks has no statistics of blocks.")
        x, statistics = self.stack.tap(self.stem(x))
        return x if self.norm is None else self.norm(x), statistics


class Encoder(AbstractTapped):
    """A trunk and an output layer."""

    trunk: AbstractTapped
    output: Layer

    def __call__(self, x: Float[Array, " size"]) -> Float[Array, " dim"]:
        return apply(self.output, self.trunk(x))

    def tap(self, x: Float[Array, " size"]) -> tuple[Float[Array, " dim"], BlockStatistics]:
        x, statistics = self.trunk.tap(x)
        return apply(self.output, x), statistics
