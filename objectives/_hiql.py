import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from crlx import (
    AbstractActor,
    AbstractArchitecture,
    AbstractDistribution,
    AbstractHindsight,
    AbstractObjective,
    AbstractRows,
    ActionSpace,
    Affine,
    Ensemble,
    JointNetwork,
    Metrics,
    Spec,
    Uniform,
    frozen,
    joint_critics,
    joint_network,
)

from ._actor_terms import AWR, ActorBatch, act
from ._checks import check_between, check_count, check_share
from ._targets import polyak, target
from ._transitions import Relabelling, Transitions
from ._values import Values, implicit_value, state_values

States = Float[Array, "batch obs"]
Goals = Float[Array, "batch goal"]
Subgoals = Float[Array, "batch dim"]


class GoalRepresentation(eqx.Module):
    r"""What a goal means in a state: $\phi(s, g)$, of length $\sqrt{dim}$."""

    network: JointNetwork

    def __call__(
        self, observation: Float[Array, " obs"], goal: Float[Array, " goal"]
    ) -> Float[Array, " dim"]:
        return normalized_length(self.network(observation, observation[:0], goal))


class HierarchicalActor(AbstractActor):
    """Sets itself a subgoal, the mode of `high`, and heads for it with `low`."""

    high: AbstractActor
    low: AbstractActor

    def __call__(
        self, observation: Float[Array, " obs"], goal: Float[Array, " goal"]
    ) -> AbstractDistribution:
        return self.low(observation, normalized_length(self.high(observation, goal).mode()))


class HIQLParams(eqx.Module):
    """`value` reads representations in place of goals; so does `low`, and `high` chooses them."""

    representation: GoalRepresentation
    value: Ensemble
    low: AbstractActor
    high: AbstractActor


class HIQLBatch(eqx.Module):
    """Transitions with the value's and the high policy's goal; the subgoal of the low policy; and
    the state, with what it achieves, that the high policy is to aim at."""

    transitions: Transitions
    subgoal: Float[Array, "batch goal"]
    target: Float[Array, "batch goal"]
    target_observation: Float[Array, "batch obs"]


class HIQL(AbstractObjective[HIQLParams, Ensemble, HIQLBatch]):
    r"""Hierarchical implicit Q-learning: one value of states, two policies that weigh data by it.

    Values $V_e(s, \phi(s, g))$ are learnt as by `GCIVL`; targets are kept of $V_e$, not of $\phi$.
    The low policy clones actions for the subgoal $s_{t+k}$ with the advantage $V(s_{t+1}, s_{t+k})
    - V(s_t, s_{t+k})$; the high one clones $\phi(s_t, s_{t+k})$ with $V(s_{t+k}, g) - V(s_t, g)$.

    **Arguments:**

    - `low_actor`, `high_actor`: how the advantages weigh the data.
    - `relabelling`: goals and rewards of the value.
    - `high_goals`: where the high policy's goals come from. It aims at $s_{t+k}$, but never beyond
      a goal that lies ahead in the trajectory, be it there by chance.
    - `subgoal_steps`: how far ahead subgoals lie, $k$.
    - `dim`: length of the representation.
    - `discount`: of later rewards, $\gamma$.
    - `expectile`: how far values lean towards the best, $\kappa$: not at all at 0.5.
    - `target_rate`: how far targets go towards the values after each update.

    ??? cite
        Park et al., HIQL: Offline Goal-Conditioned RL with Latent States as Actions (NeurIPS
        2023); constants as in OGBench (arXiv 2410.20092).
    """

    low_actor: AWR = eqx.field(default_factory=lambda: AWR(3.0))
    high_actor: AWR = eqx.field(default_factory=lambda: AWR(3.0))
    relabelling: Relabelling = eqx.field(default_factory=Relabelling)
    high_goals: AbstractHindsight = eqx.field(default_factory=Uniform)
    subgoal_steps: int = 25
    dim: int = 10
    discount: float = 0.99
    expectile: float = 0.7
    target_rate: float = 0.005

    def __check_init__(self):
        check_between("discount", self.discount)
        check_between("expectile", self.expectile)
        check_share("target_rate", self.target_rate)
        check_count("subgoal_steps", self.subgoal_steps)
        check_count("dim", self.dim)

    def init(
        self, architecture: AbstractArchitecture, spec: Spec, *, key: PRNGKeyArray
    ) -> tuple[HIQLParams, Ensemble]:
        rkey, vkey, lkey, hkey = jr.split(key, 4)
        blind = dataclasses.replace(spec, action_size=0)
        representation = GoalRepresentation(joint_network(architecture, blind, self.dim, key=rkey))
        latent = dataclasses.replace(spec, goal_size=self.dim, goal_units=Affine())
        value = joint_critics(architecture, dataclasses.replace(latent, action_size=0), 2, key=vkey)
        low = architecture.actor(latent, key=lkey)
        chooser = dataclasses.replace(spec, action_size=self.dim, actions=ActionSpace.REAL)
        high = architecture.actor(chooser, key=hkey)
        return HIQLParams(representation, value, low, high), target(value)

    def relabel(
        self, rows: AbstractRows, index: Int[Array, " batch"], *, key: PRNGKeyArray
    ) -> HIQLBatch:
        vkey, hkey = jr.split(key)
        last = rows.last(index)
        goal_index = self.high_goals(index, last, key=hkey)
        subgoal_index = jnp.minimum(index + self.subgoal_steps, last)
        ahead = (index <= goal_index) & (goal_index <= last)
        target_index = jnp.where(ahead, jnp.minimum(subgoal_index, goal_index), subgoal_index)
        aim = rows.take(target_index)
        return HIQLBatch(
            self.relabelling(rows, index, goal_index, discount=self.discount, key=vkey),
            rows.take(subgoal_index).achieved,
            aim.achieved,
            aim.observation,
        )

    def loss(
        self, params: HIQLParams, state: Ensemble, batch: HIQLBatch, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        lkey, hkey = jr.split(key)
        value_loss, metrics = self._value(params, frozen(state), batch.transitions)
        low_loss, low_metrics = self._low(params, batch, key=lkey)
        high_loss, high_metrics = self._high(params, batch, key=hkey)
        metrics |= {"low/loss": low_loss, **_renamed(low_metrics, "low")}
        high_metrics = _renamed(high_metrics, "high")
        high_metrics.pop("high/saturated")  # Subgoals are in no box.
        return value_loss + low_loss + high_loss, {
            **metrics,
            "high/loss": high_loss,
            **high_metrics,
        }

    def advance(self, params: HIQLParams, state: Ensemble) -> Ensemble:
        return polyak(state, params.value, self.target_rate)

    def policy(self, params: HIQLParams, state: Ensemble) -> AbstractActor:
        del state
        return HierarchicalActor(params.high, params.low)

    def _value(
        self, params: HIQLParams, slow: Ensemble, batch: Transitions
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        fixed = frozen(params.representation)
        states, following, goals = batch.observation, batch.next_observation, batch.goal
        return implicit_value(
            _values(params.value, params.representation, states, goals),
            _values(slow, fixed, states, goals),
            _values(slow, fixed, following, goals),
            batch,
            discount=self.discount,
            expectile=self.expectile,
        )

    def _low(
        self, params: HIQLParams, batch: HIQLBatch, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        steps, subgoal = batch.transitions, batch.subgoal
        representation = frozen(params.representation)
        gain = _gain(params, steps.observation, steps.next_observation, subgoal)
        meaning = jax.vmap(representation)(steps.observation, subgoal)
        rows = ActorBatch(steps.observation, steps.action, meaning)
        return self.low_actor(
            None, act(params.low, rows), rows, score=None, advantage=gain, key=key
        )

    def _high(
        self, params: HIQLParams, batch: HIQLBatch, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        steps = batch.transitions
        gain = _gain(params, steps.observation, batch.target_observation, steps.actor_goal)
        chosen = jax.vmap(frozen(params.representation))(steps.observation, batch.target)
        rows = ActorBatch(steps.observation, chosen, steps.actor_goal)
        return self.high_actor(
            None, act(params.high, rows), rows, score=None, advantage=gain, key=key
        )


def normalized_length(x: Float[Array, " dim"]) -> Float[Array, " dim"]:
    """The vector, scaled to the length `sqrt(dim)`; zero stays zero."""
    size = jnp.sqrt(jnp.maximum(jnp.sum(x**2), 1e-12))
    return math.sqrt(x.shape[0]) * x / size


def _values(
    value: Ensemble, representation: GoalRepresentation, states: States, goals: Goals
) -> Values:
    return state_values(value, states, jax.vmap(representation)(states, goals))


def _gain(
    params: HIQLParams, before: States, after: States, goals: Goals
) -> Float[Array, " batch"]:
    """How much the value rises, averaged over the members."""
    value, representation = frozen(params.value), frozen(params.representation)
    rise = _values(value, representation, after, goals)
    return jnp.mean(rise - _values(value, representation, before, goals), axis=1)


def _renamed(metrics: Metrics, group: str) -> dict[str, Float[Array, ""]]:
    return {f"{group}/{name.split('/')[1]}": value for name, value in metrics.items()}
