import jax.random as jr
from jaxtyping import PRNGKeyArray

from ._learner import Learner, Progress, scan_module
from ._objective import Batch, Params, State
from ._source import AbstractSource, Data
from ._types import History


def epoch(
    learner: Learner[Params, State, Batch],
    source: AbstractSource[Data],
    progress: Progress[Params, State],
    data: Data,
    *,
    rounds: int = 1,
    updates: int,
    batch_size: int,
    key: PRNGKeyArray,
) -> tuple[Progress[Params, State], Data, History]:
    """The one training loop: `rounds` times, collect experience and fit to it.

    Offline, collection changes nothing. Pure: wrap it in `equinox.filter_jit`.

    **Returns:** progress, data, and metrics: those of updates are `[rounds, updates]`, those of
    collection `[rounds]`.

    Raises `ValueError` for fewer than one round or update.
    """
    if min(rounds, updates) < 1:
        raise ValueError(
            f"An epoch has at least one round and one update; got {rounds} and {updates}. To fill "
            "a source before training, call its `collect`."
        )
    ckey, fkey = jr.split(key)

    def one(carry: tuple[Progress[Params, State], Data]):
        progress, data = carry
        agent = learner.agent(progress)
        data, collected = source.collect(data, agent, key=jr.fold_in(ckey, progress.step))
        progress = learner.meet(progress, source, data)
        progress, fitted = learner.fit(
            progress, source.rows(data), updates=updates, batch_size=batch_size, key=fkey
        )
        return (progress, data), {**collected, **fitted}

    (progress, data), metrics = scan_module(one, (progress, data), rounds)
    return progress, data, metrics
