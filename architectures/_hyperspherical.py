import enum
import functools

import equinox as eqx
import jax.random as jr
from jaxtyping import PRNGKeyArray

from crlx import AbstractActor, AbstractArchitecture, AbstractCritic, AbstractEnergy, Spec

from ._actors import goal_actor
from ._build import check_sizes
from ._critics import check_energy_fits, tower_critic
from ._encoders import Encoder, Trunk
from ._energies import Norm
from ._fold import Remat, choose_remat
from ._precision import Precision
from ._residual import check_depth
from ._sphere import HyperHead, HyperStem
from ._sphere_blocks import HyperLerp, HyperResidual
from ._stack import AbstractBlock, stacked


class SphereBlock(enum.Enum):
    """Two readings of the paper's hyperspherical networks.

    - `LERP`: SimbaV2's own blocks, two dense layers each.
    - `RESIDUAL`: the paper's blocks of four, with projected weights in place of LayerNorm.
    """

    LERP = enum.auto()
    RESIDUAL = enum.auto()

    @property
    def layers(self) -> int:
        """Dense layers of one block."""
        return 2 if self is SphereBlock.LERP else 4

    def build(self, width: int, *, step: float, key: PRNGKeyArray) -> AbstractBlock:
        """One block."""
        kind = HyperLerp if self is SphereBlock.LERP else HyperResidual
        return kind(width, step=step, key=key)


class HypersphericalNetworks(AbstractArchitecture):
    """Networks whose features and weight rows are unit vectors: SimbaV2, for contrastive RL.

    Their statistics at initialization hardly depend on depth. Scores of unit embeddings lie close
    together, so a trainable factor on them (an inverse temperature) belongs to the architecture.

    **Arguments:**

    - `depth`: dense layers inside the blocks of each critic tower.
    - `width`: size of the hidden layers.
    - `actor_depth`: the same of the actor; None for `depth`.
    - `dim`: size of the embeddings.
    - `energy`: compares embeddings.
    - `block`: what the networks are made of.
    - `step`: the share of the way that each block goes at initialization; None for
      `1 / (blocks + 1)`.
    - `shift`: number appended to inputs before they are normalized.
    - `scale`: where the trainable factor on scores starts, below 100.
    - `shared`: one encoder for states and actions, present and future, in place of two.
    - `squashed`: a tanh-squashed actor with `log_std` in [-10, 2]; otherwise an unsquashed one
      with a constant standard deviation of one.
    - `remat`: what the backward pass keeps; None for `choose_remat`'s choice.
    - `unroll`: blocks per iteration of the scan.
    - `precision`: of the matrix products within blocks.

    ??? cite
        Lee et al., Hyperspherical Normalization for Scalable Deep RL (ICML 2025); Wang et al.,
        1000 Layer Networks for Self-Supervised RL (NeurIPS 2025), appendix A.6.
    """

    depth: int = 4
    width: int = 256
    actor_depth: int | None = None
    dim: int = 64
    energy: AbstractEnergy = eqx.field(default_factory=Norm)
    block: SphereBlock = SphereBlock.LERP
    step: float | None = None
    shift: float = 3.0
    scale: float = 10.0
    shared: bool = False
    squashed: bool = False
    remat: Remat | None = None
    unroll: int = 1
    precision: Precision = Precision.DEFAULT

    def __check_init__(self):
        check_sizes(self.width, self.dim, self.unroll)
        for name, depth in (("depth", self.depth), ("actor_depth", self.actor_depth)):
            if depth is not None:
                check_depth(name, depth, self.block.layers)
        if not 0 < self.scale < 100:
            raise ValueError(f"`scale` is positive and below its cap of 100; got {self.scale}.")
        if self.step is not None and not 0 < self.step <= 1:
            raise ValueError(f"`step` is a share of the way, in (0, 1]; got {self.step}.")
        if not self.shift > 0:
            raise ValueError(f"`shift` must be positive; got {self.shift}.")
        check_energy_fits(self.energy, self.dim)

    def first_step(self, depth: int) -> float:
        """The step of the blocks of a network of that depth, at initialization."""
        return 1 / (depth // self.block.layers + 1) if self.step is None else self.step

    def critic(self, spec: Spec, *, key: PRNGKeyArray) -> AbstractCritic:
        return tower_critic(
            spec,
            self.encoder,
            self.energy,
            dim=self.dim,
            shared=self.shared,
            scale=self.scale,
            key=key,
        )

    def actor(self, spec: Spec, *, key: PRNGKeyArray) -> AbstractActor:
        tkey, mkey, skey = jr.split(key, 3)
        depth = self.depth if self.actor_depth is None else self.actor_depth
        trunk = self._trunk(spec.observation_size + spec.goal_size, depth, key=tkey)
        head = functools.partial(HyperHead, self.width)
        return goal_actor(
            spec, trunk, head, squashed=self.squashed, low=-10.0, mean_key=mkey, std_key=skey
        )

    def encoder(self, in_size: int, out_size: int, *, key: PRNGKeyArray) -> Encoder:
        tkey, okey = jr.split(key)
        head = HyperHead(self.width, out_size, key=okey)
        return Encoder(self._trunk(in_size, self.depth, key=tkey), head)

    def _trunk(self, in_size: int, depth: int, *, key: PRNGKeyArray) -> Trunk:
        skey, bkey = jr.split(key)
        step = self.first_step(depth)
        stack = stacked(
            lambda key: self.block.build(self.width, step=step, key=key),
            depth // self.block.layers,
            remat=choose_remat(depth) if self.remat is None else self.remat,
            unroll=self.unroll,
            precision=self.precision,
            key=bkey,
        )
        return Trunk(HyperStem(in_size, self.width, shift=self.shift, key=skey), stack)
