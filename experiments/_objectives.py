"""Objectives by name, with OGBench's settings of the dataset."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import architectures as nets
import objectives as obj
from crlx import AbstractHindsight, AbstractObjective, ClippedGeometric, Uniform

from . import _settings as settings

Ingredients = TypeVar("Ingredients")


@dataclasses.dataclass(frozen=True)
class Parts:
    """What an objective is made of: the dataset's settings, and what the flags chose."""

    dataset: str
    actor: Any
    contrast: obj.AbstractContrast
    ensemble: int

    @property
    def discount(self) -> float:
        """Of goals and values."""
        return settings.discount(self.dataset)

    @property
    def actor_goals(self) -> AbstractHindsight:
        """Where the actor's goals come from."""
        return settings.actor_goals(self.dataset)


@dataclasses.dataclass(frozen=True)
class Entry(Generic[Ingredients]):
    """An objective that can be named.

    **Arguments:**

    - `build`: makes it.
    - `actors`: the actor terms that it takes; the first is the default. None if it has no choice.
    - `tuned`: the agent of OGBench whose weight of cloning it takes.
    - `contrast`: whether `--contrast` means something.
    - `towers`: whether its critic compares embeddings, so that `--energy` means something.
    - `changes`: what it must change in an architecture.
    """

    build: Callable[[Ingredients], AbstractObjective]
    actors: tuple[str, ...] = ()
    tuned: str = "crl"
    contrast: bool = False
    towers: bool = False
    changes: Mapping[str, object] = dataclasses.field(default_factory=dict)


def _infonce(parts: Parts) -> obj.Contrastive:
    return obj.Contrastive(
        contrast=parts.contrast,
        actor=parts.actor,
        goals=ClippedGeometric(parts.discount),
        ensemble=parts.ensemble,
        actor_goals=parts.actor_goals,
    )


def _crl(parts: Parts) -> obj.Contrastive:
    return dataclasses.replace(_infonce(parts), contrast=obj.Binary(), ensemble=2)


def _cmd(parts: Parts) -> obj.Contrastive:
    """The paper's appendix A.4."""
    return dataclasses.replace(_infonce(parts), contrast=obj.Backward(), future_actions=True)


def _hiql(parts: Parts) -> obj.HIQL:
    term = obj.AWR(settings.alpha("hiql", parts.dataset))
    return obj.HIQL(
        term,
        term,
        high_goals=parts.actor_goals,
        subgoal_steps=settings.subgoal_steps(parts.dataset),
        discount=parts.discount,
    )


def _survival(parts: Parts) -> obj.Survival:
    return obj.Survival(parts.actor, discount=parts.discount, actor_goals=parts.actor_goals)


OBJECTIVES: Mapping[str, Entry[Parts]] = {
    "infonce": Entry(_infonce, ("ddpgbc", "awr", "maxent"), contrast=True, towers=True),
    "crl": Entry(_crl, ("ddpgbc", "awr"), towers=True, changes={"energy": nets.ScaledDot()}),
    "cmd": Entry(
        _cmd,
        ("ddpgbc", "maxent"),
        towers=True,
        changes={"shared": True, "energy": nets.MRN(groups=16)},
    ),
    "gcbc": Entry(lambda parts: obj.GCBC(Uniform())),
    "bc": Entry(lambda parts: obj.BC()),
    "gcsl": Entry(lambda parts: obj.GCSL()),
    "gcivl": Entry(
        lambda parts: obj.GCIVL(
            parts.actor, actor_goals=parts.actor_goals, discount=parts.discount
        ),
        ("awr",),
        tuned="gcivl",
    ),
    "gciql": Entry(
        lambda parts: obj.GCIQL(
            parts.actor, actor_goals=parts.actor_goals, discount=parts.discount
        ),
        ("ddpgbc", "awr", "maxent"),
        tuned="gciql",
    ),
    "hiql": Entry(_hiql),
    "qrl": Entry(
        lambda parts: obj.QRL(parts.actor, actor_goals=parts.actor_goals),
        ("ddpgbc", "awr", "maxent"),
        tuned="qrl",
        towers=True,
        changes={"shared": True, "energy": nets.IQE(mix=0.0)},
    ),
    "td": Entry(
        lambda parts: obj.TD3(parts.actor, actor_goals=parts.actor_goals, discount=parts.discount),
        ("ddpgbc", "deterministic", "awr"),
        tuned="gciql",
    ),
    "sac": Entry(
        lambda parts: obj.SAC(actor_goals=parts.actor_goals, discount=parts.discount),
        changes={"squashed": True},
    ),
    "survival": Entry(_survival, ("ddpgbc", "awr", "maxent")),
}
