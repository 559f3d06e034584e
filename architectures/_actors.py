import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from crlx import (
    AbstractActor,
    AbstractChoice,
    AbstractConstantEntropy,
    AbstractDistribution,
    AbstractEncoder,
    AbstractTowerActor,
    AbstractUnits,
    ActionSpace,
    Spec,
)

from ._layers import Layer, apply


class Gaussian(AbstractDistribution):
    """Independent normal distributions, one per action dimension, not squashed."""

    mean: Float[Array, " act"]
    log_std: Float[Array, " act"]

    def mode(self) -> Float[Array, " act"]:
        return self.mean

    def log_prob(self, action: Float[Array, " act"]) -> Float[Array, ""]:
        _check_size(action, self.mean)
        return _normal_log_prob((action - self.mean) * jnp.exp(-self.log_std), self.log_std)

    def sample_and_log_prob(
        self, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, " act"], Float[Array, ""]]:
        noise = jr.normal(key, self.mean.shape)
        action = self.mean + jnp.exp(self.log_std) * noise
        return action, _normal_log_prob(noise, self.log_std)


class TanhGaussian(AbstractDistribution):
    r"""`a = tanh(u)` with `u` normal; the log-determinant is the exact

    $$\log(1 - \tanh^2 u) = 2 (\log 2 - u - \mathrm{softplus}(-2u)).$$

    The usual `log(1 - a**2 + 1e-6)` loses its gradient in float32 beyond `|u|` of about 8, and
    entropy stops pulling back from saturated actions.
    """

    mean: Float[Array, " act"]
    log_std: Float[Array, " act"]

    def mode(self) -> Float[Array, " act"]:
        return jnp.tanh(self.mean)

    def log_prob(self, action: Float[Array, " act"]) -> Float[Array, ""]:
        _check_size(action, self.mean)
        # Stored actions may lie on the border, where the inverse is infinite.
        limit = 1 - 1e-6
        u = jnp.arctanh(jnp.clip(action, -limit, limit))
        noise = (u - self.mean) * jnp.exp(-self.log_std)
        return _normal_log_prob(noise, self.log_std) - _log_det(u)

    def sample_and_log_prob(
        self, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, " act"], Float[Array, ""]]:
        noise = jr.normal(key, self.mean.shape)
        u = self.mean + jnp.exp(self.log_std) * noise
        return jnp.tanh(u), _normal_log_prob(noise, self.log_std) - _log_det(u)


def _normal_log_prob(noise: Float[Array, " act"], log_std: Float[Array, " act"]):
    return -jnp.sum(0.5 * noise**2 + log_std + 0.5 * math.log(2 * math.pi))


def _log_det(u: Float[Array, " act"]):
    return jnp.sum(2 * (math.log(2) - u - jax.nn.softplus(-2 * u)))


class StateAndGoal(eqx.Module):
    """An observation and a goal, each in the units of its networks, concatenated."""

    observation_units: AbstractUnits
    goal_units: AbstractUnits

    def __call__(
        self, observation: Float[Array, " obs"], goal: Float[Array, " goal"]
    ) -> Float[Array, " size"]:
        return jnp.concatenate([self.observation_units(observation), self.goal_units(goal)])


class AbstractTrunkActor(AbstractTowerActor):
    """A policy whose heads read the features of a trunk."""

    trunk: eqx.AbstractVar[AbstractEncoder]
    inputs: eqx.AbstractVar[StateAndGoal]

    @property
    def tower(self) -> AbstractEncoder:
        return self.trunk

    def tower_inputs(
        self, observation: Float[Array, " obs"], goal: Float[Array, " goal"]
    ) -> Float[Array, " size"]:
        return self.inputs(observation, goal)


class GaussianActor(AbstractConstantEntropy, AbstractTrunkActor):
    """A normal policy with a constant standard deviation; its mean is not squashed.

    Consumers clip its actions to the bounds of the environment.

    ??? cite
        The actor of OGBench's agents (Park et al., arXiv 2410.20092).
    """

    trunk: AbstractEncoder
    mean: Layer
    inputs: StateAndGoal
    std: float = 1.0

    def __check_init__(self):
        if not self.std > 0:
            raise ValueError(f"The standard deviation must be positive; got {self.std}.")

    def distribution(self, features: Float[Array, " width"]) -> Gaussian:
        mean = apply(self.mean, features)
        return Gaussian(mean, jnp.full_like(mean, math.log(self.std)))


class TanhGaussianActor(AbstractTrunkActor):
    r"""A squashed normal policy with $\log\sigma = low + (high - low) (\tanh(r) + 1) / 2$.

    **Arguments:**

    - `trunk`: from the concatenated observation and goal to features.
    - `mean`, `raw_log_std`: from features to the mean before squashing, and to $r$.
    - `inputs`: what the trunk is given.
    - `low`, `high`: bounds of the logarithm of the standard deviation before squashing.

    ??? cite
        The actor of Wang et al. (NeurIPS 2025) and of JaxGCRL.
    """

    trunk: AbstractEncoder
    mean: Layer
    raw_log_std: Layer
    inputs: StateAndGoal
    low: float = -5.0
    high: float = 2.0

    def __check_init__(self):
        if not self.low < self.high:
            raise ValueError(f"`low` must be below `high`; got {self.low} and {self.high}.")

    def distribution(self, features: Float[Array, " width"]) -> TanhGaussian:
        share = 0.5 * (jnp.tanh(apply(self.raw_log_std, features)) + 1)
        mean = apply(self.mean, features)
        return TanhGaussian(mean, self.low + (self.high - self.low) * share)


class OneHotCategorical(AbstractChoice):
    """One of finitely many actions, as a one-hot vector, with probabilities `softmax(logits)`."""

    logits: Float[Array, " act"]

    def mode(self) -> Float[Array, " act"]:
        return jax.nn.one_hot(jnp.argmax(self.logits), self.logits.shape[0])

    def log_prob(self, action: Float[Array, " act"]) -> Float[Array, ""]:
        _check_size(action, self.logits)
        return jnp.sum(action * jax.nn.log_softmax(self.logits))

    def sample_and_log_prob(
        self, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, " act"], Float[Array, ""]]:
        action = jax.nn.one_hot(jr.categorical(key, self.logits), self.logits.shape[0])
        return action, self.log_prob(action)


class CategoricalActor(AbstractTrunkActor):
    """A policy that chooses one of finitely many actions.

    ??? cite
        The discrete actor of OGBench's agents (Park et al., arXiv 2410.20092).
    """

    trunk: AbstractEncoder
    logits: Layer
    inputs: StateAndGoal

    def distribution(self, features: Float[Array, " width"]) -> OneHotCategorical:
        return OneHotCategorical(apply(self.logits, features))


def actor_of(spec: Spec, trunk: AbstractEncoder, head: Layer) -> GaussianActor | CategoricalActor:
    """The policy of one head: logits of choices, or the mean of a normal one that is not squashed.

    **Arguments:**

    - `spec`: of the task.
    - `trunk`: takes an observation and a goal, concatenated.
    - `head`: from its features to one number per component of an action.
    """
    inputs = StateAndGoal(spec.observation_units, spec.goal_units)
    if spec.actions is ActionSpace.CHOICE:
        return CategoricalActor(trunk=trunk, logits=head, inputs=inputs)
    return GaussianActor(trunk=trunk, mean=head, inputs=inputs)


def goal_actor(
    spec: Spec,
    trunk: AbstractEncoder,
    head: Callable[..., Layer],
    *,
    squashed: bool,
    low: float = -5.0,
    mean_key: PRNGKeyArray,
    std_key: PRNGKeyArray,
) -> AbstractActor:
    """A policy on a trunk, whose heads are made by `head` from their size and `key`.

    **Arguments:**

    - `spec`: of the task.
    - `trunk`: takes an observation and a goal, concatenated.
    - `squashed`: by a hyperbolic tangent, with a standard deviation that depends on the state.
      Only actions in a box are.
    - `low`: the lower bound of its logarithm.
    """
    mean = head(spec.action_size, key=mean_key)
    if not squashed or spec.actions is not ActionSpace.BOX:
        return actor_of(spec, trunk, mean)
    inputs = StateAndGoal(spec.observation_units, spec.goal_units)
    std = head(spec.action_size, key=std_key)
    return TanhGaussianActor(trunk=trunk, mean=mean, raw_log_std=std, inputs=inputs, low=low)


def _check_size(action: Float[Array, "..."], own: Float[Array, "..."]) -> None:
    # NumPy's rules would stretch one to the other.
    if action.shape != own.shape:
        raise ValueError(
            f"A policy over actions of shape {own.shape} is given one of {action.shape}: give the "
            "`Spec` the size of the actions."
        )
