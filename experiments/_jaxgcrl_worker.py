# pyright: reportMissingImports=false
"""Train jaxgcrl 0.2.8's contrastive agent and report what it measured, as JSON lines.

Runs in an environment of its own that has jaxgcrl installed; nothing else of this repository is
imported. jaxgcrl does ``num_envs * (episode_length - 1) / batch_size`` updates after every unroll,
250 by default here. Its settings that are not options below stay at its defaults. Rates are of
training alone (unrolls and updates): evaluation and the prefill of the replay buffer are outside,
compilation is inside epoch 1.
"""

import argparse
import json
import math
import os
import resource
import statistics
import tempfile
import time

START = time.perf_counter()
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import jaxgcrl.agents.crl.crl as crl_module  # noqa: E402
import numpy as np  # noqa: E402
from jaxgcrl.utils.config import RunConfig  # noqa: E402
from jaxgcrl.utils.env import create_env  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default="ant", help="such as ant or simple_u_maze")
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--unroll", type=int, default=62, help="steps of each env between updates")
    parser.add_argument("--episode-length", type=int, default=1001)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=300_000, help="at least, prefill included")
    parser.add_argument("--evals", type=int, default=4, help="epochs, each then evaluated")
    parser.add_argument("--eval-envs", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def emit(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def plan(args, min_replay_size):
    """How jaxgcrl cuts ``args.steps`` up: a prefill, then equal epochs, all of whole unrolls."""
    per_unroll = args.num_envs * args.unroll
    prefill = math.ceil(min_replay_size / args.unroll) * per_unroll
    unrolls = max(1, math.ceil((args.steps - prefill) / (args.evals * per_unroll)))
    transitions = args.num_envs * (args.episode_length - 1)
    if transitions % args.batch_size:
        raise SystemExit(f"{transitions} transitions an unroll do not divide by the batch size")
    return {
        "prefill_env_steps": prefill,
        "unrolls_per_epoch": unrolls,
        "env_steps_per_epoch": unrolls * per_unroll,
        "updates_per_unroll": transitions // args.batch_size,
        "total_env_steps": prefill + args.evals * unrolls * per_unroll,
        # jaxgcrl subtracts min_replay_size, not the rounded prefill, then divides by the epochs.
        "total_env_steps_option": min_replay_size * args.num_envs
        + args.evals * unrolls * per_unroll,
    }


class RecordingEvaluator(crl_module.ActorEvaluator):
    """jaxgcrl's evaluator, also noting times, updates done and the final distance to the goal.

    jaxgcrl makes it right before the first epoch. The final distance is averaged over the episodes
    of full length: after a fall the environment starts over, so that its last step belongs to
    another episode.
    """

    def __init__(self, actor_step, eval_env, num_eval_envs, episode_length, key):
        super().__init__(actor_step, eval_env, num_eval_envs, episode_length, key)
        self._episode_length = episode_length
        self._unroll = self._generate_eval_unroll
        self._generate_eval_unroll = self._remember
        self._began, self._resumed = time.perf_counter() - START, time.process_time()

    def _remember(self, training_state, key):
        self._last = self._unroll(training_state, key)
        return self._last

    def run_evaluation(self, training_state, training_metrics, aggregate_episodes=True):
        cpu_seconds = time.process_time() - self._resumed
        metrics = super().run_evaluation(training_state, training_metrics, aggregate_episodes)
        full = np.asarray(self._last.info["eval_metrics"].episode_steps) >= self._episode_length
        distance = np.asarray(self._last.metrics["dist"])[full]
        metrics["eval/full_length_fraction"] = full.mean()
        metrics["eval/final_dist"] = distance.mean() if distance.size else math.nan
        metrics["training/gradient_steps"] = training_state.gradient_steps
        metrics["training/began_seconds"] = self._began
        metrics["training/epoch_cpu_seconds"] = cpu_seconds
        self._resumed = time.process_time()
        return metrics


class Reporter:
    """jaxgcrl's progress function: prints a line per epoch, keeps its metrics for the summary."""

    def __init__(self, planned):
        self.planned = planned
        self.epochs = []

    def __call__(self, env_steps, metrics, *args, **kwargs):
        now = time.perf_counter() - START
        metrics = {name: float(value) for name, value in metrics.items()}
        self.epochs.append(metrics)
        unrolls = len(self.epochs) * self.planned["unrolls_per_epoch"]
        emit(
            "epoch",
            epoch=len(self.epochs),
            env_steps=env_steps,
            seconds_since_start=round(now, 2),
            env_steps_per_second=round(metrics["training/sps"], 1),
            training_seconds=round(
                self.planned["env_steps_per_epoch"] / metrics["training/sps"], 2
            ),
            training_cpu_seconds=round(metrics["training/epoch_cpu_seconds"], 2),
            eval_seconds=round(metrics["eval/epoch_eval_time"], 2),
            updates_per_unroll=metrics["training/gradient_steps"] / unrolls,
            load_average=round(os.getloadavg()[0], 2),
            metrics={name: x if math.isfinite(x) else None for name, x in metrics.items()},
        )

    def summary(self):
        first, last = self.epochs[0], self.epochs[-1]
        steps = self.planned["env_steps_per_epoch"]
        seconds = [steps / epoch["training/sps"] for epoch in self.epochs]
        usual = statistics.median(seconds[1:]) if seconds[1:] else None
        began = first["training/began_seconds"]
        return {
            "seconds_until_first_epoch": round(began, 2),
            "seconds_until_first_epoch_done": round(began + seconds[0], 2),
            "first_epoch_extra_seconds": round(seconds[0] - usual, 2) if usual else None,
            "env_steps_per_second_after_first": round(steps / usual, 1) if usual else None,
            "training_seconds": round(last["training/walltime"], 2),
            "eval_seconds": round(last["eval/walltime"], 2),
        }


def main():
    args = parse_args()
    agent = crl_module.CRL(
        batch_size=args.batch_size,
        unroll_length=args.unroll,
        h_dim=args.width,
        n_hidden=args.layers,
    )
    planned = plan(args, agent.min_replay_size)
    reporter = Reporter(planned)
    crl_module.ActorEvaluator = RecordingEvaluator
    env = create_env(args.env)
    emit("start", jax=jax.__version__, options=vars(args), agent=vars(agent), plan=planned)
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig(
            env=args.env,
            total_env_steps=planned["total_env_steps_option"],
            episode_length=args.episode_length,
            num_envs=args.num_envs,
            num_eval_envs=args.eval_envs,
            num_evals=args.evals,
            seed=args.seed,
            log_wandb=False,
            checkpoint_logdir=folder,  # without one, jaxgcrl's train_fn fails at its return
        )
        agent.train_fn(config=config, train_env=env, eval_env=env, progress_fn=reporter)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    total = time.perf_counter() - START
    emit("end", peak_memory_mib=round(peak, 1), total_seconds=round(total, 2), **reporter.summary())


if __name__ == "__main__":
    main()
