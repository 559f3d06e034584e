"""Change the depth of a trained run: `python experiments/resize_depth.py --help`."""

import dataclasses
import pathlib
import sys
from typing import Any

import equinox as eqx
import tyro

from architectures import export_layers, resize, with_depth
from crlx import JSON, Checkpoints, Restored, Spec, decode, encode
from experiments import _options
from experiments._run_directory import RunDirectory, read_json
from experiments._snapshot import Record, packed
from experiments._task import start


@dataclasses.dataclass(frozen=True)
class Options:
    """Make the networks of a trained run deeper, by layers that change nothing at first, or cut
    them, and write a new run that goes on from there with fresh statistics of the optimizer."""

    run: pathlib.Path
    """The folder of a run of offline_ogbench.py."""
    depth: int | None = None
    """Layers of each network, as in --depth there; by default as many as now."""
    actor_depth: int | None = None
    """Layers of the actor; by default it follows --depth, unless it had a depth of its own."""
    out: pathlib.Path | None = None
    """A folder for the new run; continue it with offline_ogbench.py --resume."""
    seed: int | None = None
    """The new run's random seed, also of its new layers; by default the old run's."""
    export: pathlib.Path | None = None
    """An .npz file to write, with the parameters of the resized networks layer by layer."""

    def __post_init__(self):
        if self.out is None and self.export is None:
            raise ValueError("There is nothing to write: give --out, --export or both.")
        if self.out is not None and self.depth is None and self.actor_depth is None:
            raise ValueError("A new run needs a new depth: give --depth or --actor-depth.")
        if self.out is not None and self.out.exists():
            raise ValueError(f"{self.out} exists already; choose another --out.")
        if self.export is not None and self.export.exists():
            raise ValueError(f"{self.export} exists already; choose another --export.")


def main(options: Options) -> None:
    old = _options.read_options(options.run)
    config = read_json(options.run / "config.json")
    spec = decode(config.get("spec")) if isinstance(config, dict) else None
    if not isinstance(config, dict) or not isinstance(spec, Spec):
        raise ValueError(f"{options.run} has not begun to train; let it reach a checkpoint.")
    new = _resized(old, options)
    found = _newest(old, spec, options.run)
    fresh, key = eqx.filter_jit(start)(new.learner, new.architecture, spec, new.seed)
    networks = found.items["params"], found.items["state"]
    params, state = eqx.filter_jit(resize)(networks, (fresh.params, fresh.state))
    if options.export is not None:
        export_layers(params, options.export)
        print(f"Wrote the layers to {options.export}")
    if options.out is not None:
        begun = eqx.filter_jit(new.learner.begin)(params, state)
        changed = {name: encode(getattr(new, name)) for name in ("architecture", "depth", "seed")}
        origin: JSON = {"run": str(options.run), "step": found.step}
        config |= {**changed, "out": str(options.out), "initialized_from": origin}
        items = packed(begun, key)
        _write(options.out, items, config)


def _resized(old: _options.Options, options: Options) -> _options.Options:
    seed = old.seed if options.seed is None else options.seed
    if options.depth is None and options.actor_depth is None:
        return dataclasses.replace(old, seed=seed)
    architecture = with_depth(old.architecture, options.depth, actor_depth=options.actor_depth)
    depth = old.depth if options.depth is None else options.depth
    return dataclasses.replace(old, architecture=architecture, depth=depth, seed=seed)


def _newest(old: _options.Options, spec: Spec, run: pathlib.Path) -> Restored:
    skeleton, _ = eqx.filter_eval_shape(start, old.learner, old.architecture, spec, old.seed)
    checkpoints = Checkpoints(run / "checkpoints")
    try:
        found = checkpoints.restore({"params": skeleton.params, "state": skeleton.state})
    finally:
        checkpoints.close()
    if found is None:
        raise ValueError(f"{run} has no checkpoint yet; let the run reach its first one.")
    return found


def _write(out: pathlib.Path, items: dict[str, Any], config: dict[str, JSON]) -> None:
    directory = RunDirectory(out, resume=False)
    try:
        checkpoints = Checkpoints(directory.checkpoints)
        try:
            checkpoints.save(0, items, dataclasses.asdict(Record()))
        finally:
            checkpoints.close()
        directory.claim(config)  # Last, since it is what makes a folder a run.
    finally:
        directory.close()
    print(f"Continue with python experiments/offline_ogbench.py --resume --out {out}")


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
