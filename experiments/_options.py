import dataclasses
import math
import pathlib
from typing import Annotated, Any

import equinox as eqx
import jax.random as jr
import optax
import tyro

import architectures as nets
import objectives as obj
from crlx import (
    JSON,
    AbstractArchitecture,
    AbstractObjective,
    Learner,
    Spec,
    encode,
)
from crlx.envs.ogbench import check_name
from crlx.testing import random_rows

from . import _command_line
from . import _settings as settings
from ._composition import build_architecture, check_flags
from ._extent import Extent
from ._objectives import OBJECTIVES, Entry, Parts
from ._parts import ACTORS, ARCHITECTURES, CONTRASTS, ENERGIES, choose, listed


@dataclasses.dataclass(frozen=True)
class Names:
    """The flags that choose parts; read first, so that the parts' own flags are known."""

    dataset: Annotated[str, tyro.conf.arg(metavar="NAME")] = "pointmaze-medium-navigate-local"
    """OGBench's name of a dataset; one that ends in -local is collected here on first use."""
    objective_name: Annotated[str, listed("objective", OBJECTIVES)] = "infonce"
    """What to learn: contrastive RL (infonce; crl is OGBench's), metric distillation (cmd), cloning
    (gcbc, bc, gcsl), implicit values (gcivl, gciql, hiql), a quasimetric (qrl), temporal
    differences (td, which is TD3+BC; sac), or, as an experiment, the time to a goal (survival)."""
    architecture_name: Annotated[str, listed("architecture", ARCHITECTURES)] = "residual"
    """The paper's residual networks, and its variants stable (for 1024 layers), prenorm, tied, mrn,
    iqe, pqe, shared-mrn (for cmd); hyperspherical ones; or OGBench's plain ones."""
    contrast: Annotated[str | None, listed("contrast", CONTRASTS)] = None
    """The critic's loss; by default forward. For infonce alone."""
    actor: Annotated[str | None, listed("actor", ACTORS)] = None
    """How the critic's scores become a policy; by default what suits the objective."""
    energy: Annotated[str | None, listed("energy", ENERGIES)] = None
    """What compares embeddings; by default the architecture's own choice, or the objective's."""
    depth: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Layers of each network (residual: a multiple of 4)."""
    width: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Size of the hidden layers."""
    out: pathlib.Path | None = None
    """Where everything is written; by default a new folder under runs/."""
    resume: bool = False
    """Continue the run in --out, with its own flags unless they are repeated."""


@dataclasses.dataclass(frozen=True)
class Options(Extent, Names):
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
        # Refuses parts that do not fit, with their reason, before any work starts.
        eqx.filter_eval_shape(_rehearse, self.objective, self.architecture, self.batch_size)

    @property
    def evaluation_interval(self) -> int:
        """Gradient steps between evaluations."""
        return math.ceil(self.steps / 5) if self.eval_every is None else self.eval_every

    @property
    def config(self) -> dict[str, JSON]:
        """What a run keeps of them."""
        names = (f.name for f in dataclasses.fields(self) if f.name != "resume")
        return {name: encode(getattr(self, name)) for name in names}

    @property
    def learner(self) -> Learner[Any, Any, Any]:
        """The objective with its optimizer."""
        return Learner(self.objective, optax.adam(self.learning_rate))


def _rehearse(
    objective: AbstractObjective, architecture: AbstractArchitecture, batch_size: int
) -> None:
    """Networks and one minibatch of made-up rows, of which only the shapes are computed."""
    spec = Spec(4, 2, 4)
    rows = random_rows(spec, [5, 5], key=jr.key(0))
    objective.init(architecture, spec, key=jr.key(0))
    objective.relabel(rows, rows.draw(batch_size, key=jr.key(0)), key=jr.key(0))


def compose(names: Names) -> Options:
    """The run that the names stand for, with OGBench's settings of the dataset."""
    check_name(names.dataset)
    entry = choose("objective", names.objective_name, OBJECTIVES)
    check_flags(
        names.objective_name,
        entry,
        contrast=names.contrast,
        energy=names.energy,
        architecture=names.architecture_name,
    )
    _check_actor(names, entry)
    actor, contrast = None, choose("contrast", names.contrast or "forward", CONTRASTS)()
    if entry.actors:
        actor = choose("actor", names.actor or entry.actors[0], ACTORS)()
    if isinstance(actor, obj.DDPGBC):
        actor = obj.DDPGBC(settings.alpha(entry.tuned, names.dataset))
    elif isinstance(actor, obj.AWR):
        actor = obj.AWR(settings.awr_alpha(entry.tuned, names.dataset))
    ensemble = 2 if names.architecture_name == "mlp" else 1
    parts = Parts(names.dataset, actor, contrast, ensemble)
    return Options(
        **{f.name: getattr(names, f.name) for f in dataclasses.fields(Names)},
        objective=entry.build(parts),
        architecture=build_architecture(
            names.architecture_name,
            entry,
            {"depth": names.depth, "width": names.width},
            energy=names.energy,
            squashed=names.actor == "maxent",
        ),
    )


def _check_actor(names: Names, entry: Entry[Any]) -> None:
    """Refuses actors that the objective does not take."""
    name = f"--objective {names.objective_name}"
    if names.actor is None:
        return
    choose("actor", names.actor, ACTORS)
    if not entry.actors:
        raise ValueError(f"{name} leaves no choice of the actor, so --actor means nothing.")
    if names.actor not in entry.actors:
        known = ", ".join(entry.actors)
        raise ValueError(f"{name} takes no --actor {names.actor}; it takes {known}.")


def parse(arguments: list[str]) -> Options:
    """The run that the command line asks for."""
    return _command_line.parse(arguments, Names, Options, compose)


def read_options(run: pathlib.Path) -> Options:
    """Those of the run in a folder, to resume it."""
    return _command_line.read(run, Options)
