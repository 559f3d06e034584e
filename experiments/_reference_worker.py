"""Times OGBench's own agents, on request: a program for the environment of their requirements.

It imports nothing of this project. Each line that comes in is answered with the seconds of so many
updates, each of a minibatch that is sampled as OGBench's training script does.
"""

import argparse
import importlib
import json
import sys
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--impls", required=True, help="the folder impls of OGBench's repository")
    parser.add_argument("--agent", required=True)
    parser.add_argument("--dataset", required=True, help="a training file")
    for name in ("depth", "width", "dim", "batch-size", "updates"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    sys.path.insert(0, options.impls)
    step = prepare(options)
    for _ in range(3):  # The first two calls compile.
        step()
    import jax

    print(json.dumps({"jax": jax.__version__}), flush=True)
    for _ in sys.stdin:
        start, result = time.perf_counter(), None
        for _ in range(options.updates):
            result = step()
        jax.block_until_ready(result)
        print(time.perf_counter() - start, flush=True)


def prepare(options):
    """One update of a new agent, as a function without arguments."""
    config = importlib.import_module(f"agents.{options.agent}").get_config()
    hidden = (options.width,) * options.depth
    sizes = {"batch_size": options.batch_size, "latent_dim": options.dim}
    sizes |= {"actor_hidden_dims": hidden, "value_hidden_dims": hidden}
    for name, size in sizes.items():
        if name in config:
            config[name] = size
    loader = importlib.import_module("ogbench.utils").load_dataset
    samplers = importlib.import_module("utils.datasets")
    raw = loader(options.dataset, compact_dataset=True)
    sampler = getattr(samplers, config["dataset_class"])
    data = sampler(samplers.Dataset.create(**raw), config)
    kind = importlib.import_module("agents").agents[config["agent_name"]]
    example = data.sample(1)
    agent = kind.create(0, example["observations"], example["actions"], config)

    def step():
        nonlocal agent
        agent, info = agent.update(data.sample(options.batch_size))
        return agent, info

    return step


if __name__ == "__main__":
    main()
