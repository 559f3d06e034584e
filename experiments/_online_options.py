import dataclasses
import math
import pathlib
from typing import Annotated, Any, Literal

import equinox as eqx
import jax.random as jr
import optax
import tyro

import architectures as nets
import objectives as obj
from crlx import (
    JSON,
    AbstractArchitecture,
    AbstractBehaviour,
    AbstractObjective,
    BestOf,
    Exploration,
    Greedy,
    Learner,
    Plan,
    Stochastic,
    encode,
)
from crlx.envs.tasks import GoalEnv, make
from crlx.testing import random_rows

from . import _command_line
from ._composition import build_architecture, check_flags
from ._extent import Extent
from ._online_objectives import FREE, ONLINE, REWARDED, OnlineParts, behaviour
from ._online_presets import PRESETS
from ._online_sizes import check_sizes
from ._parts import ARCHITECTURES, CONTRASTS, ENERGIES, choose, listed

_BEHAVIOURS: dict[str, type[AbstractBehaviour]] = {
    "stochastic": Stochastic,
    "deterministic": Greedy,
    "best": BestOf,
}


@dataclasses.dataclass(frozen=True)
class Names:
    """The flags that choose parts; read first, so that the parts' own flags are known."""

    env: Annotated[str, tyro.conf.arg(metavar="NAME")] = "point_u_maze"
    """A task of crlx.envs.tasks, such as point_big_maze, ant, ant_u4_maze or humanoid."""
    preset: Literal["laptop", "paper"] = "laptop"
    """Sizes that suit two cores, or those of the paper (64 layers, a batch of 512, 512
    environments), which want a GPU."""
    objective_name: Annotated[str, listed("objective", ONLINE)] = "infonce"
    """What to learn: contrastive RL (infonce), metric distillation (cmd), temporal differences
    (sac, td3, and both with hindsight), cloning (gcsl, gcbc), or, as an experiment, the time to a
    goal (survival)."""
    architecture_name: Annotated[str, listed("architecture", ARCHITECTURES)] = "residual"
    """The paper's residual networks, or others; stable is the one for 1024 layers."""
    contrast: Annotated[str | None, listed("contrast", CONTRASTS)] = None
    """The critic's loss; by default forward. For infonce alone."""
    energy: Annotated[str | None, listed("energy", ENERGIES)] = None
    """What compares embeddings; by default the architecture's own choice, or the objective's."""
    depth: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Layers of each network (residual: a multiple of 4)."""
    critic_depth: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Those of the critic alone."""
    actor_depth: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Those of the actor alone. The paper pairs a critic of 1024 with an actor of 512."""
    width: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Size of the hidden layers."""
    inputs: Annotated[str | None, listed("inputs", ("scaled", "raw"))] = None
    """What networks read of states and goals: scaled by the mean and standard deviation of all that
    was met, or raw; by default scaled on the laptop, and raw in the paper."""
    elsewhere: Annotated[float | None, tyro.conf.arg(metavar="SHARE")] = None
    """Of the goals that the policy is trained on, how many come from other episodes; by default 0.5
    on the laptop, and 0 in the paper. For infonce, cmd and survival."""
    action_chunk: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Actions that critic and actor see at once, and that are carried out one after the other. For
    infonce, cmd, gcsl, gcbc and survival."""
    collect: Annotated[str | None, listed("collect", _BEHAVIOURS)] = None
    """How experience is gathered: samples of the policy, its mode, or the best of several samples
    by the critic. By default samples, and for td3, gcsl and gcbc the mode with noise."""
    out: pathlib.Path | None = None
    """Where everything is written; by default a new folder under runs/."""
    resume: bool = False
    """Continue the run in --out, with its own flags unless they are repeated."""


@dataclasses.dataclass(frozen=True)
class Options(Extent, Names):
    """Online goal-conditioned RL: an agent that learns to reach goals by itself, in simulation."""

    objective: AbstractObjective = dataclasses.field(default_factory=obj.Contrastive)
    """The objective's own settings."""
    architecture: AbstractArchitecture = dataclasses.field(default_factory=nets.ResidualNetworks)
    """The architecture's own settings."""
    behaviour: AbstractBehaviour = dataclasses.field(default_factory=Stochastic)
    """How experience is gathered."""
    exploration: Exploration = dataclasses.field(default_factory=Exploration)
    """How agents act otherwise, in part: by default, on the laptop, half of the environments by the
    policy's mode, and all are pushed about for a quarter of the time; in the paper, not at all."""
    steps: int = 400_000
    """Environment steps of all environments together, at least; the last round is made whole."""
    num_envs: int = 128
    """Environments that are simulated side by side."""
    warm_up: int = 200
    """Steps of each environment before the first update."""
    unroll: int = 50
    """Steps of each environment in a round."""
    updates: int = 600
    """Gradient steps in a round."""
    batch_size: int = 256
    """Rows of a minibatch."""
    replay: int = 3000
    """Rows that are kept for each environment: one for each step, and one for each episode."""
    episode_length: int = 1000
    """Steps of an episode in which experience is gathered, unless it ends before; on the laptop
    300, since who is at its goal learns little by staying there."""
    learning_rate: float = 3e-4
    """Adam's."""
    decay: bool = False
    """Let the learning rate fall to zero by the end, along half a cosine: by default on the laptop,
    where runs are short and end steadily so."""
    seed: int = 0
    """The one random seed."""
    eval_every: int | None = None
    """Environment steps between evaluations, at least; by default a tenth of all."""
    eval_episodes: int = 32
    """Episodes of an evaluation, with each set of goals."""
    eval_length: int = 1000
    """Steps of an episode of an evaluation. The paper's measure is of 1000."""
    eval_samples: bool = False
    """Evaluate samples of the policy in place of its mode. Where a policy has learnt to move with
    its noise, as an ant at first, the mode may stand still."""
    checkpoint_replay: bool = True
    """Keep what was met in checkpoints, so that a resumed run ends bit for bit as one that was not
    interrupted. Without it checkpoints are small, and a resumed run begins to gather anew."""
    repeat_first: bool = False
    """Begin all episodes of an environment at its first start and goal, as the paper's code."""
    aim: bool = True
    """Mirror the metrics to Aim, where it is installed."""

    def __post_init__(self):
        check_sizes(self)
        # Refuses parts that do not fit, with their reason, before any work starts.
        eqx.filter_eval_shape(self._rehearse, self.objective, self.architecture)

    def _rehearse(self, objective: AbstractObjective, architecture: AbstractArchitecture) -> None:
        """Networks, a minibatch of made-up rows and an action; only shapes are computed."""
        task, key = make(self.env).spec, jr.key(0)
        spec = task.networks()
        rows = random_rows(spec, [5, 5], outcomes=True, key=key)
        learner = dataclasses.replace(self.learner, objective=objective)
        progress = learner.init(architecture, spec, key=key)
        objective.relabel(rows, rows.draw(self.batch_size, key=key), key=key)
        step = rows.take(rows.draw(1, key=key))
        agent = learner.agent(progress)
        decided = self.behaviour(agent, step.observation[0], step.achieved[0], key=key)
        Plan.start(1, self.action_chunk, task.action_size).follow(decided[None])

    @property
    def rounds(self) -> int:
        """Collections, each followed by updates; the first has `warm_up` steps."""
        rest = self.steps - self.num_envs * self.warm_up
        return 1 + math.ceil(rest / (self.num_envs * self.unroll))

    @property
    def interval(self) -> int:
        """Rounds between evaluations."""
        every = self.steps / 10 if self.eval_every is None else self.eval_every
        return max(1, math.ceil(every / (self.num_envs * self.unroll)))

    @property
    def outcomes(self) -> bool:
        """Whether the objective reads rewards."""
        return self.objective_name in REWARDED

    @property
    def config(self) -> dict[str, JSON]:
        """What a run keeps of them."""
        names = (f.name for f in dataclasses.fields(self) if f.name != "resume")
        return {name: encode(getattr(self, name)) for name in names}

    @property
    def learner(self) -> Learner[Any, Any, Any]:
        """The objective with its optimizer."""
        if not self.decay:
            return Learner(self.objective, optax.adam(self.learning_rate))
        falling = optax.cosine_decay_schedule(self.learning_rate, self.rounds * self.updates)
        return Learner(self.objective, optax.adam(falling))

    def task(self) -> GoalEnv:
        """The environment as it is evaluated."""
        return make(self.env, episode_length=self.eval_length)

    def training_task(self) -> GoalEnv:
        """The environment in which experience is gathered."""
        return make(self.env, episode_length=self.episode_length)


def compose(names: Names) -> Options:
    """The run that the names stand for."""
    spec, preset = make(names.env).spec, PRESETS[names.preset]
    entry = choose("objective", names.objective_name, ONLINE)
    check_flags(
        names.objective_name,
        entry,
        contrast=names.contrast,
        energy=names.energy,
        architecture=names.architecture_name,
    )
    contrast = choose("contrast", names.contrast or "forward", CONTRASTS)()
    parts = OnlineParts(contrast, spec.radii.success, 0.99, _elsewhere(names))
    objective = entry.build(parts)
    if names.action_chunk > 1:
        objective = obj.Chunked(objective, names.action_chunk)
    scaled = {"scaled": True, "raw": False}
    if choose("inputs", names.inputs or preset.inputs, scaled):
        objective = obj.Standardized(objective, tuple(range(*spec.goal_indices)))
    architecture = build_architecture(
        names.architecture_name, entry, _sizes(names), energy=names.energy, squashed=False
    )
    return Options(
        **{f.name: getattr(names, f.name) for f in dataclasses.fields(Names)},
        **preset.settings,
        objective=objective,
        architecture=preset.suit(architecture),
        behaviour=_behaviour(names),
    )


def _sizes(names: Names) -> dict[str, int | None]:
    """Of the architecture. Where only the critic has a depth of its own, the actor has the usual
    one."""
    usual = PRESETS[names.preset]
    depth = usual.depth if names.depth is None else names.depth
    actor_depth = names.actor_depth
    if names.critic_depth is not None and actor_depth is None:
        actor_depth = depth
    return {
        "depth": depth if names.critic_depth is None else names.critic_depth,
        "actor_depth": actor_depth,
        "width": usual.width if names.width is None else names.width,
    }


def _elsewhere(names: Names) -> float:
    if names.elsewhere is None:
        return PRESETS[names.preset].elsewhere
    if names.objective_name not in FREE:
        raise ValueError(
            f"--objective {names.objective_name} trains its policy on the goals of its values or "
            f"of its data; leave --elsewhere out, or use {', '.join(FREE)}."
        )
    if not 0 <= names.elsewhere <= 1:
        raise ValueError(f"--elsewhere is a share, 0 to 1; got {names.elsewhere}.")
    return names.elsewhere


def _behaviour(names: Names) -> AbstractBehaviour:
    if names.collect is None:
        return behaviour(names.objective_name)
    return choose("collect", names.collect, _BEHAVIOURS)()


def parse(arguments: list[str]) -> Options:
    """The run that the command line asks for."""
    return _command_line.parse(arguments, Names, Options, compose)
