import dataclasses
import math
import pathlib
from collections.abc import Iterable
from typing import Annotated, Any

import equinox as eqx
import jax.random as jr
import optax
import tyro

import architectures as nets
import objectives as obj
from crlx import (
    AbstractArchitecture,
    AbstractObjective,
    ClippedGeometric,
    Learner,
    Spec,
    Uniform,
    decode,
)
from crlx.envs.ogbench import check_name

from . import _settings as settings
from ._help import registry
from ._parts import ACTORS, ARCHITECTURES, CONTRASTS, CRITICS, ENERGIES, choose, sized
from ._run_directory import read_json


def _flag(name: str, choices: Iterable[str]):
    return tyro.conf.arg(name=name, metavar="{" + ",".join(choices) + "}")


@dataclasses.dataclass(frozen=True)
class Names:
    """The flags that choose parts; read first, so that the parts' own flags are known."""

    dataset: Annotated[str, tyro.conf.arg(metavar="NAME")] = "pointmaze-medium-navigate-local"
    """OGBench's name of a dataset; one that ends in -local is collected here on first use."""
    objective_name: Annotated[str, _flag("objective", ("infonce", "cmd", "gcbc"))] = "infonce"
    """What to learn: contrastive RL, contrastive metric distillation (CMD-1), or goal-conditioned
    behavioural cloning."""
    architecture_name: Annotated[str, _flag("architecture", ARCHITECTURES)] = "residual"
    """The paper's residual networks, and its variants stable (for 1024 layers), prenorm, tied, mrn,
    iqe, pqe, shared-mrn (for cmd); hyperspherical ones; or OGBench's plain ones."""
    contrast: Annotated[str | None, _flag("contrast", CONTRASTS)] = None
    """The critic's loss; by default forward."""
    actor: Annotated[str | None, _flag("actor", ACTORS)] = None
    """How the critic's scores become a policy; by default ddpgbc."""
    energy: Annotated[str | None, _flag("energy", ENERGIES)] = None
    """What compares embeddings; by default the architecture's own choice."""
    depth: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Layers of each network (residual: a multiple of 4)."""
    width: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Size of the hidden layers."""
    out: pathlib.Path | None = None
    """Where everything is written; by default a new folder under runs/."""
    resume: bool = False
    """Continue the run in --out, with its own flags unless they are repeated."""


@dataclasses.dataclass(frozen=True)
class Options(Names):
    """Offline goal-conditioned RL on OGBench: train, evaluate, and write everything to a folder."""

    objective: AbstractObjective = dataclasses.field(default_factory=obj.Contrastive)
    """The objective's own settings; those shown are the defaults for the dataset."""
    architecture: AbstractArchitecture = dataclasses.field(default_factory=nets.ResidualNetworks)
    """The architecture's own settings."""
    steps: int = 10_000
    """Gradient steps. (OGBench: 1,000,000.)"""
    batch_size: int = 128
    """Rows of a minibatch. (OGBench: 1024.)"""
    learning_rate: float = 3e-4
    """Adam's."""
    seed: int = 0
    """The one random seed: networks, minibatches, starts and goals of evaluations."""
    eval_every: int | None = None
    """Gradient steps between evaluations, the last of which comes at the end; by default a fifth
    of the steps."""
    log_every: int | None = None
    """Gradient steps per line of metrics.jsonl, over which metrics are averaged; by default as many
    as take a few seconds."""
    episodes: int = 50
    """Episodes of each task in an evaluation."""
    normalize: bool = True
    """Scale observations and goals to order one by the dataset's mean and standard deviation."""
    dataset_dir: pathlib.Path | None = None
    """Where official files are sought and put; by default OGBench's own folder."""
    dataset_path: pathlib.Path | None = None
    """A training file to read instead; its -val.npz lies beside it."""
    data_dir: pathlib.Path = pathlib.Path("data")
    """Where local datasets are kept."""
    aim: bool = True
    """Mirror the metrics to Aim, where it is installed."""

    def __post_init__(self):
        for name in ("steps", "batch_size", "episodes"):
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} must be positive; got {getattr(self, name)}.")
        if not self.learning_rate > 0:
            raise ValueError(f"--learning-rate must be positive; got {self.learning_rate}.")
        if self.seed < 0:
            raise ValueError(f"--seed must not be negative; got {self.seed}.")
        if self.eval_every is not None and self.eval_every < 1:
            raise ValueError(f"--eval-every must be positive; got {self.eval_every}.")
        if self.log_every is not None and self.log_every < 1:
            raise ValueError(f"--log-every must be positive; got {self.log_every}.")
        if self.batch_size < 2 and isinstance(self.objective, obj.Contrastive):
            raise ValueError("--batch-size must be at least 2: contrasts need negatives.")
        # Refuses a pair that does not fit, with its reason, before any work starts.
        eqx.filter_eval_shape(self.objective.init, self.architecture, Spec(4, 2, 4), key=jr.key(0))

    @property
    def evaluation_interval(self) -> int:
        """Gradient steps between evaluations."""
        return math.ceil(self.steps / 5) if self.eval_every is None else self.eval_every

    @property
    def learner(self) -> Learner[Any, Any, Any]:
        """The objective with its optimizer."""
        return Learner(self.objective, optax.adam(self.learning_rate))


def compose(names: Names) -> Options:
    """The run that the names stand for, with OGBench's settings of the dataset."""
    check_name(names.dataset)
    objectives = {"infonce": _contrastive, "cmd": _cmd, "gcbc": _gcbc}
    architecture = choose("architecture", names.architecture_name, ARCHITECTURES)()
    architecture = sized(architecture, depth=names.depth, width=names.width)
    changes: dict[str, object] = {}
    if names.energy is not None:
        changes["energy"] = choose("energy", names.energy, ENERGIES)()
    if names.actor == "maxent":
        if names.architecture_name == "mlp":
            raise ValueError(
                "--actor maxent needs an actor that can change its entropy: use --architecture "
                "residual."
            )
        changes["squashed"] = True
    return Options(
        **{f.name: getattr(names, f.name) for f in dataclasses.fields(Names)},
        objective=choose("objective", names.objective_name, objectives)(names),
        architecture=dataclasses.replace(architecture, **changes),
    )


def _contrastive(names: Names) -> obj.Contrastive:
    actor = choose("actor", names.actor or "ddpgbc", ACTORS)()
    if isinstance(actor, obj.DDPGBC):
        actor = obj.DDPGBC(settings.contrastive_alpha(names.dataset))
    contrast = choose("contrast", names.contrast or "forward", CONTRASTS)()
    return obj.Contrastive(
        contrast=contrast,
        actor=actor,
        goals=ClippedGeometric(settings.discount(names.dataset)),
        actor_goals=settings.actor_goals(names.dataset),
        logsumexp_penalty=0.0 if isinstance(contrast, obj.Binary) else 0.1,
        ensemble=2 if names.architecture_name == "mlp" else 1,
    )


def _cmd(names: Names) -> obj.Contrastive:
    """The paper's appendix A.4."""
    if names.contrast is not None:
        raise ValueError("--objective cmd is the backward contrast; leave --contrast out.")
    return dataclasses.replace(_contrastive(names), contrast=obj.Backward(), future_actions=True)


def _gcbc(names: Names) -> obj.GCBC:
    for flag in ("contrast", "actor", "energy"):
        if getattr(names, flag) is not None:
            raise ValueError(f"--objective gcbc has no critic, so --{flag} means nothing.")
    if names.architecture_name in CRITICS:
        raise ValueError(
            f"--architecture {names.architecture_name} differs from residual in the critic alone, "
            "and --objective gcbc has none: use --architecture residual."
        )
    return obj.GCBC(Uniform())


def parse(arguments: list[str]) -> Options:
    """The run that the command line asks for.

    The first pass reads the names of parts, the second everything, with those parts as defaults.
    A run that is resumed starts from its own configuration.
    """
    names, _ = tyro.cli(Names, args=arguments, return_unknown_args=True, add_help=False)
    default = _stored(names, arguments) if names.resume else compose(names)
    return tyro.cli(Options, args=arguments, default=default, registry=registry)


def read_options(run: pathlib.Path) -> Options:
    """Those of the run in a folder, to resume it."""
    config = read_json(run / "config.json")
    if not isinstance(config, dict):
        raise ValueError(f"{run / 'config.json'} does not describe a run.")
    fields = {f.name: decode(config.get(f.name)) for f in dataclasses.fields(Options)}
    for name in ("dataset_dir", "dataset_path", "data_dir"):
        fields[name] = None if fields[name] is None else pathlib.Path(str(fields[name]))
    return Options(**{**fields, "out": run, "resume": True})  # pyright: ignore


def _stored(names: Names, arguments: list[str]) -> Options:
    if names.out is None:
        raise ValueError("--resume continues the run in --out; name its folder.")
    stored = read_options(names.out)
    own = {f.name: getattr(stored, f.name) for f in dataclasses.fields(Names)}
    asked, _ = tyro.cli(
        Names, args=arguments, default=Names(**own), return_unknown_args=True, add_help=False
    )
    if asked == Names(**own):
        return stored
    # Flags that name parts were repeated: the parts are composed anew, all else is as it was.
    parts = compose(asked)
    changed = {name: getattr(parts, name) for name in (*own, "objective", "architecture")}
    return dataclasses.replace(stored, **changed)
