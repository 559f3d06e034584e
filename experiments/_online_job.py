import functools
from collections.abc import Callable, Mapping
from typing import Any, cast

import equinox as eqx
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray

from crlx import BatchEnv, Collected, DeviceMesh, Online, Progress, SplitSource, epoch, local
from crlx.envs.tasks import GoalEnv, far_goals, make
from crlx.envs.wrappers import TaskEvaluator, training

from ._job import AbstractJob, Found, Seed
from ._online_options import Options
from ._online_pictures import Pictures
from ._snapshot import packed, unpacked
from ._stopwatch import Stopwatch, Timed

Carry = tuple[Progress[Any, Any], Collected, PRNGKeyArray]


class OnlineJob(AbstractJob):
    """Training in simulation. A round gathers experience and fits to all that is kept; `step`
    counts the steps of all environments together.

    **Arguments:**

    - `options`: the run.
    - `mesh`: the devices to train on.
    - `env`: its task, as it is evaluated.
    - `pictures`: draws what evaluations find.
    """

    def __init__(self, options: Options, mesh: DeviceMesh, env: GoalEnv, pictures: Pictures):
        self._options, self._env, self._pictures = options, env, pictures
        self.mesh, self.seed = mesh, options.seed
        self.rounds, self.interval = options.rounds, options.interval
        source = Online(
            cast(BatchEnv, training(options.training_task(), repeat_first=options.repeat_first)),
            envs=options.num_envs,
            capacity=options.replay,
            unroll=options.unroll,
            warm_up=options.warm_up,
            behaviour=options.behaviour,
            exploration=options.exploration,
            chunk=options.action_chunk,
            outcomes=options.outcomes,
        )
        self._source = SplitSource(source, mesh)
        self._watch = Stopwatch()
        far = far_goals(options.env)
        others = [] if far is None else [make(far, episode_length=options.eval_length)]
        self._evaluator = TaskEvaluator(
            [env, *others],
            episodes=options.eval_episodes,
            traced=min(8, options.eval_episodes),
            chunk=options.action_chunk,
            sampled=options.eval_samples,
        )

    def init(self, seed: Seed) -> Carry:
        nkey, dkey, key = jr.split(jr.key(seed), 3)
        learner, spec = self._options.learner, self._env.spec.networks()
        progress = learner.init(self._options.architecture, spec, key=nkey)
        return progress, self._source.init(key=dkey), key

    def trained(self, carry: Carry) -> Any:
        return carry[0].params

    def packed(self, carry: Carry) -> dict[str, Any]:
        progress, data, key = carry
        items = packed(progress, key)
        return {**items, "data": data} if self._options.checkpoint_replay else items

    def unpacked(self, items: Mapping[str, Any]) -> Carry:
        progress, key = unpacked(items)
        if self._options.checkpoint_replay:
            return progress, items["data"], key
        # Other starts than those of the run's beginning.
        data = eqx.filter_jit(self._source.init)(key=jr.fold_in(key, progress.step))
        return progress, data, key

    def rounds_done(self, carry: Carry) -> int:
        return int(carry[0].step) // self._options.updates

    def step(self, rounds: int) -> int:
        own = self._options
        return own.num_envs * (own.warm_up + (rounds - 1) * own.unroll) if rounds > 0 else 0

    def rounds_per_call(self, parameters: int) -> int:
        return 1

    @property
    def kept(self) -> Any:
        # Marks in a program have no order on several devices or under `jax.vmap`.
        alone = self.mesh.size == self._options.seeds == 1
        return self._options.learner, Timed(self._source, self._watch) if alone else self._source

    def advance(self, kept: Any, carry: Carry, rounds: int) -> tuple[Carry, Any]:
        (learner, source), (progress, data, key) = kept, carry
        sizes = {"updates": self._options.updates, "batch_size": self._options.batch_size}
        progress, data, metrics = epoch(
            learner, source, progress, data, rounds=rounds, **sizes, key=key
        )
        return (progress, data, key), metrics

    def curves(self, metrics: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """What belongs to a collection stands beside each update that followed it."""
        shape = metrics["total/loss"].shape
        wide = {n: v if v.ndim == 2 else v[:, None] for n, v in metrics.items()}
        return {name: np.broadcast_to(value, shape).ravel() for name, value in wide.items()}

    def speeds(self, before: int, rounds: int, seconds: float) -> dict[str, float]:
        steps = self.step(before + rounds) - self.step(before)
        shares = {f"time/{part}": took / seconds for part, took in self._watch.read().items()}
        if shares:
            shares["time/updates"] = 1 - sum(shares.values())
        return {
            "updates_per_second": rounds * self._options.updates / seconds,
            "env_steps_per_second": steps / seconds,
            **shares,
        }

    def evaluate(
        self,
        carry: Carry,
        step: int,
        *,
        stop: Callable[[], bool],
        show: Callable[[int, int], None],
    ) -> Found | None:
        del stop, show  # It is one call that takes seconds.
        progress, _, key = carry
        progress, key = local((progress, key))
        actor = self._options.learner.agent(progress).actor
        found = self._evaluator(actor, key=jr.fold_in(key, progress.step))
        tasks = {
            name: {metric: float(value) for metric, value in metrics.items()}
            for name, metrics in found.metrics.items()
        }
        reached = {name: metrics["episode_success_any"] for name, metrics in tasks.items()}
        scores = {f"{name}/{k}": v for name, metrics in tasks.items() for k, v in metrics.items()}
        texts = (
            f"{name}: {m['episode_success_any']:.0%} reach the goal, {m['episode_success']:.0f} of "
            f"{self._options.eval_length} steps at it, final distance {m['final_dist']:.2f}"
            for name, m in tasks.items()
        )
        return Found(
            reached[self._env.spec.name],
            reached,
            scores,
            {},
            "\n  ".join(["", *texts]),
            functools.partial(self._pictures.draw, found, step),
        )
