"""Every objective keeps the contract, and each of its terms trains its own fields."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import pytest
from lengths import at_length

from architectures import IQE, MLPNetworks, ResidualNetworks, ScaledDot
from crlx import (
    AbstractArchitecture,
    AbstractObjective,
    ActionSpace,
    Final,
    Spec,
    Uniform,
)
from crlx.testing import check_objective, check_relabel, check_term_gradients, random_rows
from objectives import (
    AWR,
    BC,
    DDPGBC,
    GCBC,
    GCIQL,
    GCIVL,
    GCSL,
    HIQL,
    QRL,
    SAC,
    TD3,
    AbstractActorTerm,
    Backward,
    Binary,
    Contrastive,
    Forward,
    MaxEntropy,
    Relabelling,
    Reward,
    Survival,
    Symmetric,
    Within,
)

SPEC = Spec(3, 2, 2)
STATES = Spec(3, 2, 3)  # Goals are whole states.
CHOICES = Spec(3, 4, 2, actions=ActionSpace.CHOICE)
MLP = MLPNetworks(depth=1, width=8, dim=4)
SQUASHED = ResidualNetworks(depth=4, width=8, dim=4, squashed=True, learn_scale=True)
SIGNED = dataclasses.replace(SQUASHED, energy=ScaledDot())
SHARED = ResidualNetworks(depth=4, width=8, dim=4, energy=IQE(2), shared=True)

CRITIC = {"critic/loss": {"critic"}}
ACTOR = {"actor/loss": {"actor"}}
TEMPERED = {"actor/loss": {"actor", "actor_term"}}
VALUE = {"value/loss": {"value"}}
DISTANCE = {"critic/loss": {"critic", "dynamics"}, "multiplier/loss": {"log_multiplier"}}
SCALE = {"multiplier/loss": {"log_multiplier"}}
LEVELS = {"value/loss": {"value", "representation"}, "low/loss": {"low"}, "high/loss": {"high"}}
HAZARDS = {"critic/loss": {"hazards"}}

NEAR = Reward(Within(1.5), cost=False, absorbing=False)
HINDSIGHT = Relabelling(Final(), fraction=0.5, reward=NEAR)
OWN = Relabelling(Uniform(), reward=Reward(Within(1.5)))


class Climbing(AbstractActorTerm):
    """Lets the gradients of score and advantage through: objectives must have stopped them."""

    needs_score: ClassVar[bool] = True
    needs_advantage: ClassVar[bool] = True

    def init(self, architecture, spec, *, key):
        del architecture, spec, key

    def __call__(self, trainables, policy, batch, *, score, advantage, key):
        del trainables, key
        mode = jax.vmap(lambda p: p.mode())(policy)
        return -jnp.mean(score(mode)) - jnp.mean(advantage), {}


class Leaning(AbstractActorTerm):
    """The same for objectives that cannot score actions."""

    needs_score: ClassVar[bool] = False
    needs_advantage: ClassVar[bool] = True

    def init(self, architecture, spec, *, key):
        del architecture, spec, key

    def __call__(self, trainables, policy, batch, *, score, advantage, key):
        del trainables, score, key
        mode = jax.vmap(lambda p: p.mode())(policy)
        return jnp.mean(mode**2) - jnp.mean(advantage), {}


class Case(NamedTuple):
    """`own`: whether all goals come from the row's own trajectory."""

    objective: AbstractObjective
    architecture: AbstractArchitecture
    terms: dict[str, set[str]]
    spec: Spec = SPEC
    own: bool = True
    outcomes: bool = False


OBJECTIVES = {
    "forward": Case(Contrastive(Forward(), DDPGBC()), MLP, CRITIC | ACTOR),
    "backward": Case(Contrastive(Backward(), AWR()), MLP, CRITIC | VALUE | ACTOR),
    "symmetric": Case(Contrastive(Symmetric(), MaxEntropy()), SQUASHED, CRITIC | TEMPERED),
    "binary": Case(Contrastive(Binary(), DDPGBC(), ensemble=2), MLP, CRITIC | ACTOR),
    "bc": Case(BC(), MLP, ACTOR),
    "gcbc": Case(GCBC(), MLP, ACTOR),
    "gcsl": Case(GCSL(), MLP, ACTOR),
    "gcivl": Case(GCIVL(), MLP, VALUE | ACTOR, own=False),
    "gciql": Case(GCIQL(), MLP, CRITIC | VALUE | ACTOR, own=False),
    "gciql choices": Case(GCIQL(AWR(3.0)), MLP, CRITIC | VALUE | ACTOR, CHOICES, own=False),
    "hiql": Case(HIQL(dim=3), MLP, LEVELS, own=False),
    "qrl": Case(QRL(), SHARED, DISTANCE | ACTOR, STATES, own=False),
    "td3": Case(TD3(relabelling=HINDSIGHT), MLP, CRITIC | ACTOR, outcomes=True),
    "sac": Case(SAC(relabelling=HINDSIGHT), SQUASHED, CRITIC | TEMPERED, outcomes=True),
    "survival": Case(Survival(), MLP, HAZARDS | ACTOR, own=False),
}
TERMS = OBJECTIVES | {
    "climbing": Case(Contrastive(actor=Climbing()), MLP, CRITIC | VALUE | ACTOR),
    "choices": Case(Contrastive(Binary(), AWR()), MLP, CRITIC | VALUE | ACTOR, CHOICES),
    "cmd": Case(Contrastive(Backward(), future_actions=True, ensemble=2), SHARED, CRITIC | ACTOR),
    "gcbc choices": Case(GCBC(), MLP, ACTOR, CHOICES),
    "gcivl leaning": Case(GCIVL(Leaning()), MLP, VALUE | ACTOR),
    "gciql climbing": Case(GCIQL(Climbing()), MLP, CRITIC | VALUE | ACTOR),
    "hiql choices": Case(HIQL(dim=3), MLP, LEVELS, CHOICES),
    "qrl climbing": Case(QRL(Climbing()), SHARED, DISTANCE | ACTOR, STATES),
    "qrl without a model": Case(QRL(AWR()), SHARED, CRITIC | SCALE | ACTOR, STATES),
    "td3 climbing": Case(TD3(Climbing()), MLP, CRITIC | ACTOR),
    "survival climbing": Case(Survival(Climbing()), MLP, HAZARDS | ACTOR),
}
# With goals of the row's own trajectory alone, nothing may come from another.
OWN_TRAJECTORY = {
    "gcivl": GCIVL(relabelling=OWN),
    "gciql": GCIQL(relabelling=OWN),
    "hiql": HIQL(relabelling=OWN),
    "qrl": QRL(goals=Uniform()),
    "td3": TD3(relabelling=OWN),
    "sac": SAC(relabelling=OWN, actor_goals=Final()),
    "survival": Survival(elsewhere=Final()),
}
# At length only: objectives that differ from others in a part alone, which has a contract of its
# own; and their terms, and variants of QRL and HIQL, as "climbing", "leaning" and "choices" of
# others try the same.
WHOLE = OBJECTIVES.keys() - {"forward", "backward", "binary", "gcsl", "gciql choices"}
TRIED = (TERMS.keys() - OBJECTIVES.keys()) | {"bc", "gcbc", "hiql", "sac"}
TRIED -= {"qrl climbing", "hiql choices"}


def rows(case):
    return random_rows(case.spec, [40, 2, 60, 7, 91], outcomes=case.outcomes, key=jr.key(0))


@pytest.mark.parametrize("name", at_length(OBJECTIVES, WHOLE))
def test_objective(name, getkey):
    case = OBJECTIVES[name]
    check_objective(
        case.objective,
        case.architecture,
        case.spec,
        rows(case),
        own_trajectory=case.own,
        key=getkey(),
    )


@pytest.mark.parametrize("name", at_length(TERMS, TRIED))
def test_terms_train_their_own_fields(name, getkey):
    case = TERMS[name]
    params, state = case.objective.init(case.architecture, case.spec, key=getkey())
    data = rows(case)
    batch = case.objective.relabel(data, data.draw(6, key=getkey()), key=getkey())
    check_term_gradients(case.objective, params, state, batch, terms=case.terms, key=getkey())


@pytest.mark.parametrize("name", OWN_TRAJECTORY)
def test_relabelling_keeps_to_the_trajectory(name, getkey):
    check_relabel(OWN_TRAJECTORY[name], rows(OBJECTIVES[name]), key=getkey())
