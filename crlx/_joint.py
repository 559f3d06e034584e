import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ._critics import AbstractCritic, Ensemble
from ._encoders import AbstractEncoder
from ._networks import AbstractArchitecture
from ._types import Scalar, Spec
from ._units import AbstractUnits


class JointNetwork(eqx.Module):
    """One network that reads an observation, a goal and an action together.

    **Arguments:**

    - `network`: of the concatenated observation, goal and action, in this order.
    - `observation_units`, `goal_units`: rescaling of the inputs.
    """

    network: AbstractEncoder
    observation_units: AbstractUnits
    goal_units: AbstractUnits

    def __call__(
        self,
        observation: Float[Array, " obs"],
        action: Float[Array, " act"],
        goal: Float[Array, " goal"],
    ) -> Float[Array, " dim"]:
        return self.network(self.inputs(observation, action, goal))

    def inputs(
        self,
        observation: Float[Array, " obs"],
        action: Float[Array, " act"],
        goal: Float[Array, " goal"],
    ) -> Float[Array, " size"]:
        """What the network is given."""
        parts = [self.observation_units(observation), self.goal_units(goal), action]
        return jnp.concatenate(parts)


class JointCritic(AbstractCritic):
    """The score that one network gives to a state, an action and a goal, which it reads together.

    For values learnt from rewards, where nothing factorizes. All pairs cost a pass through the
    network each: contrasts want a critic of two towers instead.
    """

    network: JointNetwork

    def __call__(
        self,
        observation: Float[Array, " obs"],
        action: Float[Array, " act"],
        goal: Float[Array, " goal"],
    ) -> Scalar:
        return self.network(observation, action, goal)[0]

    def pairs(
        self,
        observations: Float[Array, "rows obs"],
        actions: Float[Array, "rows act"],
        goals: Float[Array, "goals goal"],
    ) -> Float[Array, "rows goals"]:
        row = jax.vmap(self, in_axes=(None, None, 0))
        return jax.vmap(row, in_axes=(0, 0, None))(observations, actions, goals)


def joint_network(
    architecture: AbstractArchitecture, spec: Spec, out_size: int, *, key: PRNGKeyArray
) -> JointNetwork:
    """A network of the architecture's that reads states, goals and actions together.

    **Arguments:**

    - `architecture`: makes it.
    - `spec`: of the task; sizes of 0 leave actions or goals out.
    - `out_size`: length of its output.
    """
    size = spec.observation_size + spec.goal_size + spec.action_size
    network = architecture.encoder(size, out_size, key=key)
    return JointNetwork(network, spec.observation_units, spec.goal_units)


def joint_critics(
    architecture: AbstractArchitecture, spec: Spec, size: int, *, key: PRNGKeyArray
) -> Ensemble:
    """An ensemble of critics that read states, goals and actions together.

    **Arguments:**

    - `architecture`: makes their networks.
    - `spec`: of the task; with actions of length 0 for values of states alone.
    - `size`: number of members.
    """

    def make(*, key: PRNGKeyArray) -> JointCritic:
        return JointCritic(joint_network(architecture, spec, 1, key=key))

    return Ensemble(make, size, key=key)
