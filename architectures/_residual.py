import equinox as eqx
import jax.random as jr
from jaxtyping import PRNGKeyArray

from ._blocks import NormalizedDense, Residual
from ._choices import Activation, Initialization, ResidualScale
from ._encoders import Trunk
from ._fold import Remat
from ._layers import layer_norm
from ._precision import Precision
from ._stack import Tied, stacked


class ResidualStyle(eqx.Module):
    r"""How residual networks are made; the defaults are the paper's.

    At 1024 layers the paper's networks start with embeddings that hardly depend on their inputs
    and with a log-sum-exp penalty in the thousands, since every block adds the same mean. A
    `residual_scale` of `RSQRT` with `final_norm` starts soundly at any depth.

    **Arguments:**

    - `activation`: after each layer.
    - `normalize`: LayerNorm before each activation.
    - `skip`: the residual connection; False is the paper's ablation.
    - `prenorm`: LayerNorm at the entry of each block: $x + F(LN(x))$.
    - `residual_scale`: factor on each block's branch: by rule, or the number itself.
    - `final_norm`: LayerNorm after the last block.
    - `tied`: one block, applied again and again.
    - `initialization`: of the weights.

    ??? cite
        Wang et al., 1000 Layer Networks for Self-Supervised RL (NeurIPS 2025), section 4 and
        appendices A.5 and A.7. Scaled branches: De and Smith (NeurIPS 2020).
    """

    activation: Activation = Activation.SWISH
    normalize: bool = True
    skip: bool = True
    prenorm: bool = False
    residual_scale: ResidualScale | float = ResidualScale.ONE
    final_norm: bool = False
    tied: bool = False
    initialization: Initialization = Initialization.PAPER

    def __check_init__(self):
        if not self.skip and self.residual_scale is not ResidualScale.ONE:
            raise ValueError(
                "Without skip connections there are no branches to scale: leave residual_scale at "
                "ResidualScale.ONE, or set skip=True."
            )

    def scale(self, blocks: int) -> float:
        """The factor on the branches of a network of so many blocks, at initialization."""
        rule = self.residual_scale
        return rule.start(blocks) if isinstance(rule, ResidualScale) else rule

    def trunk(
        self,
        in_size: int,
        width: int,
        depth: int,
        *,
        remat: Remat,
        unroll: int,
        precision: Precision = Precision.DEFAULT,
        key: PRNGKeyArray,
    ) -> Trunk:
        """A stem, then `depth / 4` blocks of four dense layers, as the paper counts depth."""
        skey, bkey = jr.split(key)
        blocks = depth // 4

        def make(key: PRNGKeyArray) -> Residual:
            return Residual(
                width,
                scale=self.scale(blocks),
                learn_scale=self.residual_scale is ResidualScale.LEARNED,
                skip=self.skip,
                prenorm=self.prenorm,
                activation=self.activation,
                normalize=self.normalize,
                initializer=self.initialization.initializer(),
                key=key,
            )

        if self.tied:
            stack = Tied(make(key=bkey), blocks, remat, unroll, precision)
        else:
            stack = stacked(make, blocks, remat=remat, unroll=unroll, precision=precision, key=bkey)
        stem = NormalizedDense(
            in_size,
            width,
            activation=self.activation,
            normalize=self.normalize,
            initializer=self.initialization.initializer(),
            key=skey,
        )
        return Trunk(stem, stack, layer_norm(width) if self.final_norm else None)


def check_depth(name: str, depth: int, layers: int) -> None:
    """Raises `ValueError` unless a depth is a whole number of blocks of so many layers."""
    if depth < layers or depth % layers:
        near = max(layers, round(depth / layers) * layers)
        raise ValueError(
            f"`{name}` counts dense layers in blocks of {layers}; got {depth}. "
            f"Use a multiple of {layers}, such as {near}."
        )
