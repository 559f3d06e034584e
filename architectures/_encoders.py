from jaxtyping import Array, Float

from crlx import AbstractEncoder, AbstractLayered

from ._layers import Layer, apply
from ._taps import AbstractTapped, BlockStatistics


class Trunk(AbstractTapped, AbstractLayered):
    """A network without its output layer: a stem, a stack of blocks, and perhaps a norm.

    **Arguments:**

    - `stem`: from the input to the width of the blocks.
    - `stack`: the blocks; None for a network of one layer.
    - `norm`: applied to the output of the last block; or None.
    """

    stem: AbstractEncoder
    stack: AbstractTapped | None
    norm: Layer | None = None

    @property
    def layers(self) -> AbstractEncoder | None:
        return self.stack

    def __call__(self, x: Float[Array, " size"]) -> Float[Array, " width"]:
        x = self.enter(x)
        return self.leave(x if self.stack is None else self.stack(x))

    def tap(self, x: Float[Array, " size"]) -> tuple[Float[Array, " width"], BlockStatistics]:
        if self.stack is None:
            raise ValueError("A network without blocks has no statistics of blocks.")
        x, statistics = self.stack.tap(self.enter(x))
        return self.leave(x), statistics

    def enter(self, x: Float[Array, " size"]) -> Float[Array, " width"]:
        return self.stem(x)

    def leave(self, x: Float[Array, " width"]) -> Float[Array, " width"]:
        return x if self.norm is None else self.norm(x)


class Encoder(AbstractTapped, AbstractLayered):
    """A trunk and an output layer."""

    trunk: Trunk
    output: Layer

    @property
    def layers(self) -> AbstractEncoder | None:
        return self.trunk.layers

    def __call__(self, x: Float[Array, " size"]) -> Float[Array, " dim"]:
        return apply(self.output, self.trunk(x))

    def tap(self, x: Float[Array, " size"]) -> tuple[Float[Array, " dim"], BlockStatistics]:
        x, statistics = self.trunk.tap(x)
        return apply(self.output, x), statistics

    def enter(self, x: Float[Array, " size"]) -> Float[Array, " width"]:
        return self.trunk.enter(x)

    def leave(self, x: Float[Array, " width"]) -> Float[Array, " dim"]:
        return apply(self.output, self.trunk.leave(x))
