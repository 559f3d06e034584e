import json
import pathlib

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float, PyTree

from ._checkpoint import Checkpoints
from ._config import decode
from ._networks import AbstractActor, AbstractArchitecture
from ._objective import AbstractObjective
from ._types import Spec


class Policy(eqx.Module):
    """A trained actor, ready for anybody's own loop."""

    actor: AbstractActor
    spec: Spec

    def act(self, observation: npt.ArrayLike, goal: npt.ArrayLike) -> np.ndarray:
        """The action without noise, clipped to [-1, 1].

        **Arguments:**

        - `observation`, `goal`: one vector each, or a batch of them with a leading axis, in the
          environment's own units.

        **Returns:** one action, or a batch.
        """
        observations = _vectors("observation", observation, self.spec.observation_size)
        goals = _vectors("goal", goal, self.spec.goal_size)
        if observations.shape[0] != goals.shape[0]:
            raise ValueError(
                f"Got {observations.shape[0]} observations and {goals.shape[0]} goals; give one "
                "goal for each observation."
            )
        actions = np.asarray(best_actions(self.actor, observations, goals))
        return actions if np.ndim(observation) == 2 else actions[0]


@eqx.filter_jit
def best_actions(
    actor: AbstractActor, observations: Float[Array, "batch obs"], goals: Float[Array, "batch goal"]
) -> Float[Array, "batch act"]:
    """The modes of the policy, clipped to [-1, 1]."""
    actions = jax.vmap(lambda o, g: actor(o, g).mode())(observations, goals)
    return jnp.clip(actions, -1, 1)


class StoredRun(eqx.Module):
    """What a run had learnt when it wrote a checkpoint, and what for.

    **Arguments:**

    - `objective`, `spec`: as in its configuration.
    - `params`, `state`: the objective's.
    - `step`: gradient steps until then.
    """

    objective: AbstractObjective
    spec: Spec
    params: PyTree
    state: PyTree
    step: int


def load_policy(run_dir: str | pathlib.Path) -> Policy:
    """The policy of a run's newest readable checkpoint.

    **Arguments:**

    - `run_dir`: what was given as `--out`.

    Raises `ValueError` if the directory holds no run or no checkpoint.
    """
    run = load_run(run_dir)
    return Policy(run.objective.policy(run.params, run.state), run.spec)


def load_run(run_dir: str | pathlib.Path) -> StoredRun:
    """All networks of a run's newest readable checkpoint.

    **Arguments:**

    - `run_dir`: what was given as `--out`.

    Raises `ValueError` if the directory holds no run or no checkpoint.
    """
    run_dir = pathlib.Path(run_dir)
    try:
        config = json.loads((run_dir / "config.json").read_text())
    except OSError as error:
        raise ValueError(
            f"{run_dir} holds no run: {error}. Give the directory that was passed as --out."
        ) from error
    if isinstance(config, dict) and config.get("seeds", 1) > 1:
        raise ValueError(
            f"{run_dir} holds runs with {config['seeds']} seeds: give the folder of one of them, "
            f"such as {run_dir / 'seed-{}'.format(config['seed'])}."
        )
    parts = ("objective", "architecture", "spec")
    described = isinstance(config, dict) and set(parts) <= config.keys()
    objective, architecture, spec = (decode(config[n]) if described else None for n in parts)
    if not (
        isinstance(objective, AbstractObjective)
        and isinstance(architecture, AbstractArchitecture)
        and isinstance(spec, Spec)
    ):
        raise ValueError(f"{run_dir / 'config.json'} does not describe a run of crlx.")
    params, state = eqx.filter_eval_shape(objective.init, architecture, spec, key=jr.key(0))
    checkpoints = Checkpoints(run_dir / "checkpoints")
    restored = checkpoints.restore({"params": params, "state": state})
    checkpoints.close()
    if restored is None:
        raise ValueError(f"{run_dir} has no checkpoint yet; let the run reach its first one.")
    params, state = restored.items["params"], restored.items["state"]
    return StoredRun(objective, spec, params, state, restored.step)


def _vectors(name: str, value: npt.ArrayLike, size: int) -> Float[Array, "batch size"]:
    array = jnp.atleast_2d(jnp.asarray(value, jnp.float32))
    if array.ndim != 2 or array.shape[1] != size:
        raise ValueError(
            f"This policy takes {name}s of {size} numbers; got the shape {np.shape(value)}."
        )
    return array
