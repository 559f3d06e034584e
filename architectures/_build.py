import equinox as eqx
import jax.random as jr
from jaxtyping import PRNGKeyArray

from crlx import AbstractActor, AbstractArchitecture, AbstractCritic, AbstractEnergy, Spec

from ._actors import goal_actor
from ._choices import Activation, Initialization
from ._critics import check_energy_fits, tower_critic
from ._encoders import Encoder, Trunk
from ._energies import Norm, ScaledDot
from ._fold import Remat, choose_remat
from ._layers import dense, fan_average_uniform
from ._plain import plain_trunk
from ._precision import Precision
from ._residual import ResidualStyle, check_depth


class ResidualNetworks(AbstractArchitecture):
    """The paper's residual networks, 4 to 1024 layers deep.

    **Arguments:**

    - `depth`: dense layers inside residual blocks, four to a block, of each critic tower.
    - `width`: size of the hidden layers.
    - `actor_depth`: the same of the actor; None for `depth`. The paper pairs 1024 with 512.
    - `dim`: size of the embeddings that critics compare.
    - `energy`: compares them.
    - `style`: what the blocks are made of.
    - `shared`: one encoder for states and actions, present and future, in place of two.
    - `squashed`: a tanh-squashed actor with a state-dependent standard deviation (the paper's,
      online); otherwise an unsquashed one with a constant standard deviation of one (offline).
    - `learn_scale`: multiply scores by a trainable factor.
    - `remat`: what the backward pass keeps; None for `choose_remat`'s choice.
    - `unroll`: blocks per iteration of the scan.
    - `precision`: of the matrix products within blocks.

    ??? cite
        Wang et al., 1000 Layer Networks for Self-Supervised RL (NeurIPS 2025).
    """

    depth: int = 4
    width: int = 256
    actor_depth: int | None = None
    dim: int = 64
    energy: AbstractEnergy = eqx.field(default_factory=Norm)
    style: ResidualStyle = eqx.field(default_factory=ResidualStyle)
    shared: bool = False
    squashed: bool = False
    learn_scale: bool = False
    remat: Remat | None = None
    unroll: int = 1
    precision: Precision = Precision.DEFAULT

    def __check_init__(self):
        check_sizes(self.width, self.dim, self.unroll)
        for name, depth in (("depth", self.depth), ("actor_depth", self.actor_depth)):
            if depth is not None:
                check_depth(name, depth, 4)
        check_energy_fits(self.energy, self.dim)

    def critic(self, spec: Spec, *, key: PRNGKeyArray) -> AbstractCritic:
        return tower_critic(
            spec,
            self.encoder,
            self.energy,
            dim=self.dim,
            shared=self.shared,
            scale=1.0 if self.learn_scale else None,
            key=key,
        )

    def actor(self, spec: Spec, *, key: PRNGKeyArray) -> AbstractActor:
        tkey, mkey, skey = jr.split(key, 3)
        depth = self.depth if self.actor_depth is None else self.actor_depth
        trunk = self._trunk(spec.observation_size + spec.goal_size, depth, key=tkey)
        return goal_actor(
            spec, trunk, self._head, squashed=self.squashed, mean_key=mkey, std_key=skey
        )

    def encoder(self, in_size: int, out_size: int, *, key: PRNGKeyArray) -> Encoder:
        tkey, okey = jr.split(key)
        trunk = self._trunk(in_size, self.depth, key=tkey)
        return Encoder(trunk, self._head(out_size, key=okey))

    def _head(self, size: int, *, key: PRNGKeyArray) -> eqx.nn.Linear:
        return dense(self.width, size, self.style.initialization.initializer(), key=key)

    def _trunk(self, in_size: int, depth: int, *, key: PRNGKeyArray) -> Trunk:
        remat = choose_remat(depth) if self.remat is None else self.remat
        return self.style.trunk(
            in_size,
            self.width,
            depth,
            remat=remat,
            unroll=self.unroll,
            precision=self.precision,
            key=key,
        )


class MLPNetworks(AbstractArchitecture):
    """OGBench's networks: plain perceptrons with GELU, and LayerNorm but in the actor. They are
    JaxGCRL's with `normalize=False`, `Activation.SWISH`, `Initialization.PAPER`, `Norm()` and a
    squashed actor.

    **Arguments:**

    - `depth`: hidden layers of each network.
    - `width`: size of the hidden layers.
    - `dim`: size of the embeddings that critics compare.
    - `energy`: compares them.
    - `shared`: one encoder for states and actions, present and future, in place of two.
    - `squashed`: a tanh-squashed actor with a state-dependent standard deviation; otherwise an
      unsquashed one with a constant standard deviation of one.
    - `activation`: after each layer.
    - `initialization`: of all weights; with Glorot's, the actor's last layer has a hundredth of its
      variance, as in OGBench.
    - `normalize`: LayerNorm in critics and encoders.
    - `remat`: what the backward pass keeps; None for `choose_remat`'s choice.
    - `unroll`: layers per iteration of the scan; None for all where they are few, else one.
    - `precision`: of the matrix products of hidden layers but the first.

    ??? cite
        Park et al., OGBench (arXiv 2410.20092), reference agents.
    """

    depth: int = 3
    width: int = 512
    dim: int = 512
    energy: AbstractEnergy = eqx.field(default_factory=ScaledDot)
    shared: bool = False
    squashed: bool = False
    activation: Activation = Activation.GELU
    initialization: Initialization = Initialization.GLOROT
    normalize: bool = True
    remat: Remat | None = None
    unroll: int | None = None
    precision: Precision = Precision.DEFAULT

    def __check_init__(self):
        check_sizes(self.width, self.dim, 1 if self.unroll is None else self.unroll)
        if self.depth < 1:
            raise ValueError(f"`depth` counts hidden layers; use 1 or more, not {self.depth}.")
        check_energy_fits(self.energy, self.dim)

    def critic(self, spec: Spec, *, key: PRNGKeyArray) -> AbstractCritic:
        return tower_critic(
            spec, self.encoder, self.energy, dim=self.dim, shared=self.shared, key=key
        )

    def actor(self, spec: Spec, *, key: PRNGKeyArray) -> AbstractActor:
        tkey, mkey = jr.split(key)
        in_size = spec.observation_size + spec.goal_size
        trunk = self._trunk(in_size, normalize=False, key=tkey)
        small = self.initialization is Initialization.GLOROT
        start = fan_average_uniform(0.01) if small else self.initialization.initializer()

        def head(size: int, *, key: PRNGKeyArray) -> eqx.nn.Linear:
            return dense(self.width, size, start, key=key)

        skey = jr.fold_in(mkey, 1)
        return goal_actor(spec, trunk, head, squashed=self.squashed, mean_key=mkey, std_key=skey)

    def encoder(self, in_size: int, out_size: int, *, key: PRNGKeyArray) -> Encoder:
        tkey, okey = jr.split(key)
        output = dense(self.width, out_size, self.initialization.initializer(), key=okey)
        return Encoder(self._trunk(in_size, normalize=self.normalize, key=tkey), output)

    def _trunk(self, in_size: int, *, normalize: bool, key: PRNGKeyArray) -> Trunk:
        remat = choose_remat(self.depth) if self.remat is None else self.remat
        # On CPUs a scan takes a quarter more time than a few layers one after the other.
        few = max(self.depth - 1, 1) if self.depth <= 5 else 1
        return plain_trunk(
            in_size,
            self.width,
            self.depth,
            normalize=normalize,
            activation=self.activation,
            initialization=self.initialization,
            remat=remat,
            unroll=few if self.unroll is None else self.unroll,
            precision=self.precision,
            key=key,
        )


def check_sizes(width: int, dim: int, unroll: int) -> None:
    """Raises `ValueError` unless all are positive."""
    for name, size in (("width", width), ("dim", dim), ("unroll", unroll)):
        if size < 1:
            raise ValueError(f"`{name}` must be positive; got {size}.")
