import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from architectures import (
    AbstractTapped,
    BlockStatistics,
    GaussianActor,
    Sequential,
    SharedTower,
    Stacked,
    TanhGaussianActor,
    Tied,
    Trunk,
    TwoTower,
    effective_rank,
)
from crlx import (
    AbstractActor,
    AbstractCritic,
    AbstractEncoder,
    AbstractObjective,
    Ensemble,
    JointCritic,
    with_moments,
)
from objectives import StandardizedState, saturation

GRADIENT = "gradient"


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """What one network does to a minibatch. Everything is averaged over the rows of the minibatch
    and the members of an ensemble.

    **Arguments:**

    - `blocks`: each of `architectures.BlockStatistics` by its name, and `gradient`, the norm of
      the gradient of the objective's loss with respect to each block (missing where a network has
      several stacks); `[blocks]`. Empty for a network that is left out.
    - `effective_rank`: of embeddings; of an actor, of the features that its heads read.
    - `similarity`: of the same, the cosine between two different rows.
    """

    blocks: Mapping[str, np.ndarray]
    effective_rank: float
    similarity: float


@dataclasses.dataclass(frozen=True, eq=False)
class Inspection:
    """What the networks of an objective do to a minibatch.

    **Arguments:**

    - `networks`: by field of the objective's parameters and tower.
    - `scalars`: the objective's loss and metrics; of each critic the mean score of all pairs and
      the standard deviation within a row (`logits_mean`, `logits_spread`), or, if it reads all
      together, the mean score of the rows (`score_mean`); of each actor the
      share of components of its modes at or beyond 0.999 in size (`saturated_modes`) and, where
      it is squashed, of standard deviations at their bounds (`saturated_stds`; a hyperbolic
      tangent beyond 0.99).
    - `left_out`: networks whose blocks cannot be looked into, and why.
    """

    networks: Mapping[str, Network]
    scalars: Mapping[str, float]
    left_out: Mapping[str, str]


def inspect(
    objective: AbstractObjective[Any, Any, Any],
    params: Any,
    state: Any,
    batch: Any,
    key: PRNGKeyArray,
) -> Inspection:
    """Runs the loss, its gradient and every network once on a minibatch.

    **Arguments:**

    - `batch`: what the objective's `relabel` returned. Its fields `observation`, `action`, `goal`
      and, where there is one, `actor_goal` are what networks are fed.
    - `key`: of what is random in the loss.

    Raises `ValueError` for a minibatch without these fields.
    """
    found, scalars = jax.device_get(_measure(objective, params, state, batch, key))
    left_out = {}
    for field, network in _roles(params).items():
        network = network.members if isinstance(network, Ensemble) else network
        towers = _towers(network)
        if not towers:
            kind = type(network).__name__
            left_out[field] = f"what the layers of a {kind} are given is not known here"
        obstacles = {_label(field, name): _obstacle(tower) for name, tower in towers.items()}
        left_out |= {name: text for name, text in obstacles.items() if text is not None}
    numbers = {name: float(value) for name, value in scalars.items()}
    return Inspection({name: Network(**f) for name, f in found.items()}, numbers, left_out)


class _Probe(NamedTuple):
    observation: Float[Array, "batch obs"]
    action: Float[Array, "batch act"]
    goal: Float[Array, "batch future"]
    actor_goal: Float[Array, "batch goal"]


def _probe(batch: Any) -> _Probe:
    given = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    missing = [name for name in ("observation", "action", "goal") if name not in given]
    if missing:
        raise ValueError(
            f"Networks are fed observations, actions and goals, but a {type(batch).__name__} has "
            f"no field {' and no field '.join(missing)}."
        )
    own = {name: given[name] for name in _Probe._fields if name in given}
    return _Probe(**{"actor_goal": given["goal"], **own})


@eqx.filter_jit
def _measure(objective: Any, params: Any, state: Any, batch: Any, key: PRNGKeyArray) -> Any:
    probe = _probe(batch)

    def loss(params: Any) -> Any:
        return objective.loss(params, state, batch, key=key)

    (value, metrics), gradient = eqx.filter_value_and_grad(loss, has_aux=True)(params)
    if isinstance(state, StandardizedState):
        params = with_moments(params, state.moments)
    networks, scalars = {}, {"total/loss": value, **metrics}
    for field, network in _roles(params).items():
        slope = getattr(gradient, field)
        own = _without_actions(probe) if _is_blind(field, network, probe) else probe
        if isinstance(network, Ensemble):
            look = eqx.filter_vmap(lambda member, slope, own=own: _look(member, slope, own))
            each = look(network.members, slope.members)
            found = jax.tree.map(lambda x: jnp.mean(x, axis=0), each)
        else:
            found = _look(network, slope, own)
        networks |= {_label(field, name): statistics for name, statistics in found.items()}
        scalars |= {f"{field}/{name}": x for name, x in _scalars(network, own).items()}
    return networks, scalars


def _is_blind(field: str, network: Any, probe: _Probe) -> bool:
    """Whether a critic reads no actions: a value, or a quasimetric on states."""
    shared = isinstance(network, SharedTower)
    return field == "value" or (shared and probe.goal.shape[1] == network.observation_size)


def _without_actions(probe: _Probe) -> _Probe:
    return probe._replace(action=probe.action[:, :0])


def _roles(params: Any) -> dict[str, AbstractActor | AbstractCritic | Ensemble]:
    fields = {field.name: getattr(params, field.name) for field in dataclasses.fields(params)}
    kinds = AbstractActor | AbstractCritic | Ensemble
    return {name: value for name, value in fields.items() if isinstance(value, kinds)}


def _towers(network: Any) -> dict[str, AbstractEncoder]:
    """The networks with blocks within an actor, a critic, or the gradient of one."""
    if isinstance(network, TwoTower):
        return {"state-action": network.state_action, "goal": network.goal}
    if isinstance(network, SharedTower):
        return {"": network.encoder}
    if isinstance(network, JointCritic):
        return {"": network.network.network}
    return {"": network.trunk} if isinstance(network, GaussianActor | TanhGaussianActor) else {}


def _inputs(network: Any, probe: _Probe) -> list[Float[Array, "batch size"]]:
    """What each of the towers is given."""
    if isinstance(network, GaussianActor | TanhGaussianActor):
        return [jax.vmap(network.inputs)(probe.observation, probe.actor_goal)]
    if isinstance(network, JointCritic):
        return [jax.vmap(network.network.inputs)(probe.observation, probe.action, probe.goal)]
    if not isinstance(network, TwoTower | SharedTower):
        return []
    goals = [jax.vmap(network.goal_units)(probe.goal)] if isinstance(network, TwoTower) else []
    return [jax.vmap(network.inputs)(probe.observation, probe.action), *goals]


def _label(field: str, tower: str) -> str:
    tower = tower.removesuffix("-action") if field == "value" else tower
    return f"{field} {tower}".strip()


def _obstacle(encoder: AbstractEncoder) -> str | None:
    """Why an encoder cannot tell what its blocks do, if so."""
    if not isinstance(encoder, AbstractTapped):
        return f"a {type(encoder).__name__} has no `tap`: extend architectures.AbstractTapped"
    trunks = jax.tree.leaves(encoder, is_leaf=lambda node: isinstance(node, Trunk))
    if any(isinstance(trunk, Trunk) and trunk.stack is None for trunk in trunks):
        return "it has no blocks at this depth"
    return None


def _look(network: Any, gradient: Any, probe: _Probe) -> dict[str, Any]:
    towers, slopes = _towers(network), _towers(gradient)
    return {
        name: _statistics(tower, slopes[name], x)
        for (name, tower), x in zip(towers.items(), _inputs(network, probe), strict=True)
    }


def _statistics(encoder: Any, gradient: Any, x: Float[Array, "batch size"]) -> dict[str, Any]:
    if _obstacle(encoder) is not None:
        y, blocks = jax.vmap(encoder)(x), {}
    else:
        y, taps = jax.vmap(encoder.tap)(x)
        names = [field.name for field in dataclasses.fields(BlockStatistics)]
        blocks = {name: jnp.mean(getattr(taps, name), axis=0) for name in names}
        norms = block_norms(gradient)
        blocks |= {GRADIENT: norms[0]} if len(norms) == 1 else {}
    return {"blocks": blocks, "effective_rank": effective_rank(y), "similarity": similarity(y)}


def block_norms(gradient: Any) -> list[Float[Array, " blocks"]]:
    """For each stack in a network's gradient, the norm of each block's part.

    Blocks that are `Tied` are one, whose gradient counts for all.
    """
    kinds = Stacked | Tied | Sequential
    leaves = jax.tree.leaves(gradient, is_leaf=lambda node: isinstance(node, kinds))
    return [_norms(leaf) for leaf in leaves if isinstance(leaf, kinds)]


def _norms(gradient: Stacked | Tied | Sequential) -> Float[Array, " blocks"]:
    if isinstance(gradient, Stacked):
        return jax.vmap(optax.tree.norm)(eqx.filter(gradient.blocks, eqx.is_array))
    if isinstance(gradient, Tied):
        return jnp.full(gradient.depth, optax.tree.norm(eqx.filter(gradient.block, eqx.is_array)))
    return jnp.stack([optax.tree.norm(eqx.filter(b, eqx.is_array)) for b in gradient.blocks])


def similarity(embeddings: Float[Array, "rows dim"]) -> Float[Array, ""]:
    """The mean cosine of the angle between two different rows."""
    rows = len(embeddings)
    size = jnp.linalg.norm(embeddings, axis=1, keepdims=True)
    units = embeddings / jnp.maximum(size, jnp.finfo(embeddings.dtype).tiny)
    pairs = jnp.sum(jnp.sum(units, axis=0) ** 2) - jnp.sum(units**2)
    return pairs / max(rows * (rows - 1), 1)


def _scalars(network: Any, probe: _Probe) -> dict[str, Float[Array, ""]]:
    joint = network.members if isinstance(network, Ensemble) else network
    if isinstance(joint, JointCritic):  # All pairs would cost a pass each.
        return {
            "score_mean": jnp.mean(jax.vmap(network)(probe.observation, probe.action, probe.goal))
        }
    if not isinstance(network, AbstractActor):
        logits = network.pairs(probe.observation, probe.action, probe.goal)
        spread = jnp.mean(jnp.std(logits, axis=-1))
        return {"logits_mean": jnp.mean(logits), "logits_spread": spread}
    policies: Any = jax.vmap(network)(probe.observation, probe.actor_goal)
    modes = jax.vmap(lambda policy: policy.mode())(policies)
    found = {"saturated_modes": saturation(modes)["actor/saturated"]}
    if isinstance(network, TanhGaussianActor):
        share = (policies.log_std - network.low) / (network.high - network.low)
        found["saturated_stds"] = jnp.mean(jnp.abs(2 * share - 1) > 0.99, dtype=modes.dtype)
    return found
