"""Objectives that learn online, by name, with the paper's settings."""

import dataclasses
from collections.abc import Mapping
from functools import partial

import architectures as nets
import objectives as obj
from crlx import (
    AbstractBehaviour,
    AbstractHindsight,
    Anywhere,
    Geometric,
    Greedy,
    Mixture,
    Stochastic,
)

from ._objectives import Entry


@dataclasses.dataclass(frozen=True)
class OnlineParts:
    """What an objective is made of.

    **Arguments:**

    - `contrast`: what the flag of that name chose.
    - `radius`: within which a goal of the task counts as reached.
    - `discount`: of goals and of values.
    - `elsewhere`: the share of the policy's goals that come from other episodes. With the goals of
      its own episodes alone, a policy that runs into a wall is never asked for what lies behind it.
    """

    contrast: obj.AbstractContrast
    radius: float
    discount: float
    elsewhere: float

    @property
    def actor_goals(self) -> AbstractHindsight | None:
        """What a policy is trained to reach; None for the same as its critic."""
        if self.elsewhere == 0:
            return None
        return Mixture((self.goals, Anywhere()), (1 - self.elsewhere, self.elsewhere))

    @property
    def goals(self) -> Geometric:
        """Later states of the same episode."""
        return Geometric(self.discount)


def _infonce(parts: OnlineParts) -> obj.Contrastive:
    return obj.Contrastive(
        parts.contrast, obj.MaxEntropy(), parts.goals, actor_goals=parts.actor_goals
    )


def _cmd(parts: OnlineParts) -> obj.Contrastive:
    return dataclasses.replace(_infonce(parts), contrast=obj.Backward(), future_actions=True)


def _relabelling(parts: OnlineParts, fraction: float) -> obj.Relabelling:
    """One for each step at the goal, as the paper's measure counts."""
    reward = obj.Reward(obj.Within(parts.radius), cost=False, absorbing=False)
    return obj.Relabelling(parts.goals, fraction, reward)


def _sac(parts: OnlineParts, fraction: float) -> obj.SAC:
    relabelling = _relabelling(parts, fraction)
    return obj.SAC(obj.MaxEntropy(), relabelling, discount=parts.discount)


def _td3(parts: OnlineParts, fraction: float) -> obj.TD3:
    return obj.TD3(relabelling=_relabelling(parts, fraction), discount=parts.discount)


def _survival(parts: OnlineParts) -> obj.Survival:
    goals = parts.actor_goals or parts.goals
    return obj.Survival(obj.MaxEntropy(), actor_goals=goals, discount=parts.discount)


_SQUASHED = {"squashed": True}
_HER = 0.8  # The share of goals from hindsight, as in Andrychowicz et al. (2017).

ONLINE: Mapping[str, Entry[OnlineParts]] = {
    "infonce": Entry(_infonce, contrast=True, towers=True, changes=_SQUASHED),
    "cmd": Entry(
        _cmd, towers=True, changes={**_SQUASHED, "shared": True, "energy": nets.MRN(groups=16)}
    ),
    "sac": Entry(partial(_sac, fraction=0.0), changes=_SQUASHED),
    "sac-her": Entry(partial(_sac, fraction=_HER), changes=_SQUASHED),
    "td3": Entry(partial(_td3, fraction=0.0)),
    "td3-her": Entry(partial(_td3, fraction=_HER)),
    "gcsl": Entry(lambda parts: obj.GCSL()),
    "gcbc": Entry(lambda parts: obj.GCBC(parts.goals)),
    "survival": Entry(_survival, changes=_SQUASHED),
}
# These read the goals that were commanded, and which steps ended an episode.
REWARDED = ("sac", "sac-her", "td3", "td3-her")
# Their policies are trained on goals that can be chosen apart.
FREE = ("infonce", "cmd", "survival")
# Their policies have no randomness that was learnt.
NOISY = ("td3", "td3-her", "gcsl", "gcbc")


def behaviour(objective: str) -> AbstractBehaviour:
    """How the objective's policy gathers experience by default."""
    return Greedy(0.2) if objective in NOISY else Stochastic()
