from typing import Any

import equinox as eqx
import jax
import jax.random as jr

from crlx import AbstractRows, Learner, Progress
from objectives import Contrastive

from ._machine import median_seconds


def breakdown(
    learner: Learner, progress: Progress, rows: AbstractRows, *, batch_size: int, calls: int
) -> dict[str, float]:
    """Seconds of the parts of one contrastive update, as differences of programs that each leave
    one part away; small ones may come out below zero.

    - `sampling`: drawing rows and goals, and gathering them.
    - `critic_forward`: its loss alone, each tower by a scan of its own.
    - `critic_backward`: what the gradient of its loss takes beyond that.
    - `actor`: what the gradient of all losses takes beyond the critic's.
    - `optimizer`: what the update takes beyond that: Adam, and the norms that are logged.
    """
    objective, key = learner.objective, jr.key(0)
    assert isinstance(objective, Contrastive)

    def sample(progress: Progress) -> Any:
        return objective.relabel(rows, rows.draw(batch_size, key=key), key=key)

    def critic(params: Any, batch: Any) -> Any:
        tables = params.critic.pairs(batch.observation, batch.action, batch.goal)
        return objective.contrast_loss(tables)[0]

    def everything(params: Any, batch: Any) -> Any:
        return objective.loss(params, None, batch, key=key)[0]

    def update(progress: Progress, batch: Any) -> Any:
        return learner.update(progress, batch, key=key)

    batch = eqx.filter_jit(sample)(progress)
    seconds = {
        "sampling": _seconds(sample, (progress,), calls),
        "critic_forward": _seconds(critic, (progress.params, batch), calls),
        "critic": _seconds(eqx.filter_grad(critic), (progress.params, batch), calls),
        "losses": _seconds(eqx.filter_grad(everything), (progress.params, batch), calls),
        "update": _seconds(update, (progress, batch), calls),
    }
    return {
        "sampling": seconds["sampling"],
        "critic_forward": seconds["critic_forward"],
        "critic_backward": seconds["critic"] - seconds["critic_forward"],
        "actor": seconds["losses"] - seconds["critic"],
        "optimizer": seconds["update"] - seconds["losses"],
    }


def _seconds(function: Any, args: tuple[Any, ...], calls: int) -> float:
    arrays, static = eqx.partition(args, eqx.is_array)

    def call(arrays: Any) -> Any:
        return eqx.filter(function(*eqx.combine(arrays, static)), eqx.is_array)

    return median_seconds(jax.jit(call), (arrays,), calls)
