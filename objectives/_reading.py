from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from crlx import (
    AbstractActor,
    AbstractDistribution,
    AbstractTowerActor,
    AbstractTowers,
    Ensemble,
    Pass,
    frozen,
    loops,
    pairwise,
    run,
)

from ._values import smallest

Embeddings = Float[Array, "batch dim"]


class ContrastiveParams(eqx.Module):
    """`value` is one critic without actions, for terms that need an advantage."""

    critic: Ensemble
    actor: AbstractActor
    value: Ensemble | None
    actor_term: PyTree


class ContrastiveBatch(eqx.Module):
    """Rows, each with a goal for the critic and one for the actor.

    `score_goal` is the actor's goal as the critic takes it; None where it is the critic's own.
    """

    observation: Float[Array, "batch obs"]
    action: Float[Array, "batch act"]
    goal: Float[Array, "batch future"]
    actor_goal: Float[Array, "batch goal"]
    score_goal: Float[Array, "batch future"] | None


class Reading(eqx.Module):
    """What the losses read off the networks on one minibatch.

    - `tables`: each member's scores of all pairs.
    - `values`: the same of the critic without actions; or None.
    - `policy`: of each row.
    - `score`: of actions in the rows' states for the actor's goals, the smallest member's, which
      trains no critic.
    - `advantage`: of the rows' own actions over `values`, which trains neither; or None.
    """

    tables: Float[Array, "members batch goals"]
    values: Float[Array, "one batch goals"] | None
    policy: AbstractDistribution
    score: Callable[[Float[Array, "batch act"]], Float[Array, " batch"]]
    advantage: Float[Array, " batch"] | None


def read_apart(params: ContrastiveParams, batch: ContrastiveBatch) -> Reading:
    """Every network as often as somebody asks for it."""
    critic = frozen(params.critic)
    states, nothing = batch.observation, batch.action[:, :0]
    goals = batch.goal if batch.score_goal is None else batch.score_goal

    def score(action: Float[Array, "batch act"]) -> Float[Array, " batch"]:
        return smallest(jax.vmap(critic)(states, action, goals))

    values = advantage = None
    if params.value is not None:
        values = params.value.pairs(states, nothing, batch.goal)
        baseline = jax.vmap(frozen(params.value))(states, nothing, batch.actor_goal)
        advantage = score(batch.action) - baseline[:, 0]
    policy = jax.vmap(params.actor)(states, batch.actor_goal)
    tables = params.critic.pairs(states, batch.action, batch.goal)
    return Reading(tables, values, policy, score, advantage)


def can_fuse(params: ContrastiveParams) -> bool:
    """Whether all critics have towers, which `read_together` needs."""
    critics = [e.members for e in (params.critic, params.value) if e is not None]
    return all(isinstance(critic, AbstractTowers) for critic in critics)


def read_together(params: ContrastiveParams, batch: ContrastiveBatch) -> Reading:
    """The same, with every embedding computed once, and the layers of as many networks as possible
    in one loop: those of all towers and of the actor, and then, for `score`, of the members.
    """
    critics, values = _split(params.critic), _split(params.value)
    passes = [
        *(p for critic in critics for p in _passes(critic, batch, batch.action)),
        *(p for value in values for p in _passes(value, batch, batch.action[:, :0])),
    ]
    embeddings, policy = _run_with_actor(passes, params.actor, batch)
    each = len(embeddings) // (len(critics) + len(values))
    groups = [embeddings[i : i + each] for i in range(0, len(embeddings), each)]
    read = [_embedded(c, g) for c, g in zip([*critics, *values], groups, strict=True)]
    members, baselines = read[: len(critics)], read[len(critics) :]

    def score(action: Float[Array, "batch act"]) -> Float[Array, " batch"]:
        rows = run([_state_pass(frozen(m.critic), batch, action) for m in members])
        return _smallest([m.score(x) for m, x in zip(members, rows, strict=True)])

    tables = jnp.stack([m.table() for m in members])
    if not baselines:
        return Reading(tables, None, policy, score, None)
    taken = _smallest([m.score(frozen(m.rows)) for m in members])
    (baseline,) = baselines
    advantage = taken - baseline.score(frozen(baseline.rows))
    return Reading(tables, baseline.table()[None], policy, score, advantage)


def fused_loops(params: ContrastiveParams) -> list[list[str]]:
    """By name, the networks that `read_together` applies in one loop for the losses."""
    names, networks = [], []
    for name, ensemble in (("critic", params.critic), ("value", params.value)):
        for member, critic in enumerate(_split(ensemble)):
            names += [f"{name} {member}, states", f"{name} {member}, goals"]
            networks += critic.towers
    if isinstance(params.actor, AbstractTowerActor):
        names, networks = [*names, "actor"], [*networks, params.actor.tower]
    return [[names[i] for i in loop] for loop in loops(networks)]


class _Embedded(eqx.Module):
    """A critic, its embeddings of the rows and of its goals, and of the goals that the actor is
    given, which train nothing."""

    critic: AbstractTowers
    rows: Embeddings
    goals: Embeddings
    wanted: Embeddings

    def table(self) -> Float[Array, "batch goals"]:
        return pairwise(self.critic.compare, self.rows, self.goals)

    def score(self, rows: Embeddings) -> Float[Array, " batch"]:
        return jax.vmap(frozen(self.critic).compare)(rows, self.wanted)


def _split(ensemble: Ensemble | None) -> list[AbstractTowers]:
    members = [] if ensemble is None else ensemble.split()
    return [member for member in members if isinstance(member, AbstractTowers)]


def _state_pass(
    critic: AbstractTowers, batch: ContrastiveBatch, action: Float[Array, "batch act"]
) -> Pass:
    return Pass(critic.towers[0], jax.vmap(critic.inputs)(batch.observation, action))


def _passes(
    critic: AbstractTowers, batch: ContrastiveBatch, action: Float[Array, "batch act"]
) -> list[Pass]:
    def goal_pass(critic: AbstractTowers, goals: Float[Array, "batch future"]) -> Pass:
        return Pass(critic.towers[1], jax.vmap(critic.goal_inputs)(goals))

    passes = [_state_pass(critic, batch, action), goal_pass(critic, batch.goal)]
    if batch.score_goal is not None:
        passes.append(goal_pass(frozen(critic), batch.score_goal))
    return passes


def _embedded(critic: AbstractTowers, embeddings: list[Embeddings]) -> _Embedded:
    rows, goals, *wanted = embeddings
    return _Embedded(critic, rows, goals, frozen(wanted[0] if wanted else goals))


def _run_with_actor(
    passes: list[Pass], actor: AbstractActor, batch: ContrastiveBatch
) -> tuple[list[Array], AbstractDistribution]:
    if not isinstance(actor, AbstractTowerActor):
        return run(passes), jax.vmap(actor)(batch.observation, batch.actor_goal)
    given = jax.vmap(actor.tower_inputs)(batch.observation, batch.actor_goal)
    *embeddings, features = run([*passes, Pass(actor.tower, given)])
    return embeddings, jax.vmap(actor.distribution)(features)


def _smallest(scores: list[Float[Array, " batch"]]) -> Float[Array, " batch"]:
    return smallest(jnp.stack(scores, axis=1))
