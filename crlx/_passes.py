import abc
from collections.abc import Sequence

import equinox as eqx
import jax
from jaxtyping import Array, Float

from ._encoders import AbstractEncoder

Stream = Float[Array, "_ _"]  # Rows of vectors; other networks have others.


class AbstractJoinable(AbstractEncoder):
    """Layers that one loop can apply together with those of other networks."""

    @abc.abstractmethod
    def joins(self, other: AbstractEncoder) -> bool:
        """Whether one loop can apply both."""

    @abc.abstractmethod
    def alongside(
        self, others: Sequence[AbstractEncoder], streams: Sequence[Stream]
    ) -> list[Stream]:
        """What these layers make of the first batch, and the others, all of which join, of
        theirs: as `jax.vmap` of each, but in one loop."""


class AbstractLayered(AbstractEncoder):
    """A network with layers inside: `leave(layers(enter(x)))`."""

    @property
    @abc.abstractmethod
    def layers(self) -> AbstractEncoder | None:
        """What a loop is made of; None if there is nothing between `enter` and `leave`."""

    @abc.abstractmethod
    def enter(self, x: Float[Array, " size"]) -> Float[Array, " width"]:
        """From the input to that of the layers."""

    @abc.abstractmethod
    def leave(self, x: Float[Array, " width"]) -> Float[Array, " dim"]:
        """From the output of the layers to that of the network."""


class Pass(eqx.Module):
    """A network and the batch that it is to be applied to."""

    network: AbstractEncoder
    inputs: Float[Array, "rows size"]


def run(passes: Sequence[Pass]) -> list[Array]:
    """`jax.vmap(p.network)(p.inputs)` of each pass, in as few loops over layers as `loops` tells.

    Layers that run side by side keep the machine busy where those of one network would wait for one
    another, and so do the layers of their gradients.
    """
    outputs: dict[int, Array] = {}
    for loop in loops([p.network for p in passes]):
        outputs |= zip(loop, _loop([passes[i] for i in loop]), strict=True)
    return [outputs[place] for place in range(len(passes))]


def loops(networks: Sequence[AbstractEncoder]) -> list[list[int]]:
    """Which of the networks `run` applies in one loop, by their places: every network is in one
    list, alone if its layers join no others."""
    found: list[list[int]] = []
    for place, network in enumerate(networks):
        layers = _joinable(network)
        for loop in found:
            first = _joinable(networks[loop[0]])
            if first is not None and layers is not None and first.joins(layers):
                loop.append(place)
                break
        else:
            found.append([place])
    return found


def _joinable(network: AbstractEncoder) -> AbstractJoinable | None:
    layers = network.layers if isinstance(network, AbstractLayered) else None
    return layers if isinstance(layers, AbstractJoinable) else None


def _loop(passes: Sequence[Pass]) -> list[Array]:
    networks = [p.network for p in passes if isinstance(p.network, AbstractLayered)]
    if len(passes) == 1 or len(networks) < len(passes):
        return [jax.vmap(p.network)(p.inputs) for p in passes]
    streams = [jax.vmap(n.enter)(p.inputs) for n, p in zip(networks, passes, strict=True)]
    first, *others = [layers for n in networks if (layers := _joinable(n)) is not None]
    streams = first.alongside(others, streams)
    return [jax.vmap(n.leave)(x) for n, x in zip(networks, streams, strict=True)]
