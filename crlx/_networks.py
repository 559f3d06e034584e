import abc

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from ._critics import AbstractCritic
from ._encoders import AbstractEncoder
from ._instances import check_parts
from ._types import Scalar, Spec


class AbstractDistribution(eqx.Module):
    """A distribution over one action."""

    @abc.abstractmethod
    def mode(self) -> Float[Array, " act"]:
        """The action to take without noise."""

    @abc.abstractmethod
    def log_prob(self, action: Float[Array, " act"]) -> Scalar:
        """Log-density of an action."""

    @abc.abstractmethod
    def sample_and_log_prob(self, *, key: PRNGKeyArray) -> tuple[Float[Array, " act"], Scalar]:
        """A reparameterized sample and its log-density, computed without inverting a squash."""


class AbstractChoice(AbstractDistribution):
    """A distribution over finitely many actions, each a one-hot vector."""


class AbstractActor(eqx.Module):
    """A goal-conditioned policy."""

    @abc.abstractmethod
    def __call__(
        self, observation: Float[Array, " obs"], goal: Float[Array, " goal"]
    ) -> AbstractDistribution: ...


class AbstractTowerActor(AbstractActor):
    """A policy that reads its distribution off the features of a network:
    `distribution(tower(tower_inputs(observation, goal)))`."""

    def __call__(
        self, observation: Float[Array, " obs"], goal: Float[Array, " goal"]
    ) -> AbstractDistribution:
        return self.distribution(self.tower(self.tower_inputs(observation, goal)))

    @property
    @abc.abstractmethod
    def tower(self) -> AbstractEncoder:
        """The network."""

    @abc.abstractmethod
    def tower_inputs(
        self, observation: Float[Array, " obs"], goal: Float[Array, " goal"]
    ) -> Float[Array, " size"]:
        """What it is given."""

    @abc.abstractmethod
    def distribution(self, features: Float[Array, " width"]) -> AbstractDistribution:
        """The policy for given features."""


class AbstractConstantEntropy(AbstractActor):
    """A policy whose entropy no training changes; maximum-entropy objectives refuse it."""


class AbstractArchitecture(eqx.Module):
    """Builds the networks that objectives ask for; its fields are sizes and choices.

    An objective asks only for what it trains, so that imitation never pays for a critic.
    """

    def __check_init__(self):
        check_parts(self)

    @abc.abstractmethod
    def critic(self, spec: Spec, *, key: PRNGKeyArray) -> AbstractCritic:
        """A critic over states, actions (none if `spec.action_size` is 0) and goals."""

    @abc.abstractmethod
    def actor(self, spec: Spec, *, key: PRNGKeyArray) -> AbstractActor:
        """A goal-conditioned policy over actions of the kind `spec.actions`: never squashed for
        `REAL`, and an `AbstractChoice` for `CHOICE`."""

    @abc.abstractmethod
    def encoder(self, in_size: int, out_size: int, *, key: PRNGKeyArray) -> AbstractEncoder:
        """A network from vectors of one length to vectors of another, for whatever else an
        objective trains: values, a model of the dynamics, a representation of goals."""
