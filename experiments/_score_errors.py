import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from architectures import Precision
from crlx import AbstractArchitecture, Spec, pairwise

_SPEC = Spec(29, 8, 2)


def score_errors(architecture: Any, *, batch_size: int) -> dict[str, float]:
    """How far the scores of all pairs are from those in double precision, at initialization.

    **Returns:** the largest differences, divided by the standard deviation of scores within a row:
    `score_error`, of the critic as it is; and `energy_error`, of its energy alone, on embeddings
    that are the same for both.
    """
    critic = eqx.filter_jit(architecture.critic)(_SPEC, key=jr.key(0))
    exact = dataclasses.replace(architecture, precision=Precision.DEFAULT)
    inputs = _inputs(batch_size)
    scores, rows, goals = _scores(critic, inputs)
    with jax.enable_x64(True):
        doubled = _doubled(exact, critic)
        wanted, _, _ = _scores(doubled, _double(inputs))
        alone = jax.jit(lambda x, y: pairwise(doubled.compare, x, y))(_double(rows), _double(goals))
    found, wanted, alone = (np.asarray(x, np.float64) for x in (scores, wanted, alone))
    spread = wanted.std(axis=1).mean()
    return {
        "score_error": float(np.abs(found - wanted).max() / spread),
        "energy_error": float(np.abs(found - alone).max() / spread),
    }


def _inputs(batch_size: int) -> tuple[Array, Array, Array]:
    keys = jr.split(jr.key(1), 3)
    sizes = _SPEC.observation_size, _SPEC.action_size, _SPEC.goal_size
    state, action, goal = (jr.normal(k, (batch_size, n)) for k, n in zip(keys, sizes, strict=True))
    return state, jnp.tanh(action), goal


def _scores(
    critic: Any, inputs: tuple[Array, Array, Array]
) -> tuple[Float[Array, "rows goals"], Array, Array]:
    @eqx.filter_jit
    def compute(critic: Any, state: Array, action: Array, goal: Array):
        rows, goals = jax.vmap(critic.embed)(state, action), jax.vmap(critic.embed_goal)(goal)
        return pairwise(critic.compare, rows, goals), rows, goals

    return compute(critic, *inputs)


def _doubled(architecture: AbstractArchitecture, critic: Any) -> Any:
    """The same parameters in a critic of that architecture, in double precision."""
    made = eqx.filter_eval_shape(architecture.critic, _SPEC, key=jr.key(0))
    shapes, rest = eqx.partition(made, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    leaves = jax.tree.leaves(_double(eqx.filter(critic, eqx.is_array)))
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(shapes), leaves), rest)


def _double(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), tree)
