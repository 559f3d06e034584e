import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from crlx import (
    AbstractActor,
    AbstractArchitecture,
    AbstractDistance,
    AbstractHindsight,
    AbstractRows,
    AbstractScoring,
    AbstractSharedCritic,
    ActionSpace,
    Affine,
    Ensemble,
    Geometric,
    Metrics,
    Spec,
    Step,
    frozen,
)

from ._actor_terms import AbstractActorTerm, ActorBatch, improve
from ._checks import check_not_negative
from ._climbing_terms import DDPGBC
from ._contrasts import AbstractContrast, AbstractSignedContrast, Forward, diagnostics
from ._reading import (
    ContrastiveBatch,
    ContrastiveParams,
    can_fuse,
    fused_loops,
    read_apart,
    read_together,
)


class Contrastive(AbstractScoring[ContrastiveParams, None, ContrastiveBatch]):
    r"""Contrastive RL: a critic that tells the future of a state and action from other futures.

    The critic minimizes `contrast` plus $\lambda\, \overline{(\log \sum e^S)^2}$, averaged over
    the ensemble; the actor takes the smallest member's score.

    **Arguments:**

    - `contrast`: the loss on the table of scores, such as InfoNCE (`Forward`).
    - `actor`: how scores become a policy.
    - `goals`: where the critic's positives come from.
    - `actor_goals`: where the actor's goals come from; None for the critic's own.
    - `logsumexp_penalty`: weight of the squared log-sum-exp, λ; None for 0.1, or for 0 with
      contrasts that fix their scores by themselves, such as `Binary`.
    - `ensemble`: number of critics.
    - `future_actions`: the critic's goals are the whole future state and the action taken there,
      which an architecture with `shared=True` embeds like the present ones. With `Backward` and a
      quasimetric this is contrastive metric distillation in one step, CMD-1.
    - `fuse`: where the critic has two towers, embed once what both losses compare, and apply layers
      of equal number in one loop (`loops` tells which); otherwise each loss computes its own. The
      losses and gradients are the same.

    ??? cite
        Eysenbach et al., Contrastive Learning as Goal-Conditioned RL (NeurIPS 2022);
        Wang et al., 1000 Layer Networks for Self-Supervised RL (NeurIPS 2025), and its appendix
        A.4 for CMD-1; Myers et al., Learning Temporal Distances (ICML 2024).
    """

    contrast: AbstractContrast = eqx.field(default_factory=Forward)
    actor: AbstractActorTerm = eqx.field(default_factory=DDPGBC)
    goals: AbstractHindsight = eqx.field(default_factory=Geometric)
    actor_goals: AbstractHindsight | None = None
    logsumexp_penalty: float | None = None
    ensemble: int = 1
    future_actions: bool = False
    fuse: bool = True

    def __check_init__(self):
        if self.ensemble < 1:
            raise ValueError(f"`ensemble` is at least 1; got {self.ensemble}.")
        check_not_negative("logsumexp_penalty", self._penalty)
        if self.future_actions and self.actor.needs_advantage:
            raise ValueError(
                "With future_actions there is no value without actions to take an advantage over: "
                "use an actor term that needs the score, such as DDPGBC or MaxEntropy."
            )

    def init(
        self, architecture: AbstractArchitecture, spec: Spec, *, key: PRNGKeyArray
    ) -> tuple[ContrastiveParams, None]:
        if self.future_actions and spec.actions is ActionSpace.CHOICE:
            raise ValueError(
                "With future_actions no actor term fits a task with finitely many actions: use "
                "future_actions=False and AWR."
            )
        ckey, akey, vkey, tkey = jr.split(key, 4)

        def critics(spec: Spec, size: int, key: PRNGKeyArray) -> Ensemble:
            return Ensemble(lambda key: architecture.critic(spec, key=key), size, key=key)

        value = None
        if self.actor.needs_advantage:
            value = critics(dataclasses.replace(spec, action_size=0), 1, vkey)
        actor = architecture.actor(spec, key=akey)
        term = self.actor.init(architecture, spec, key=tkey)
        if self.future_actions:
            size = spec.observation_size + spec.action_size
            spec = dataclasses.replace(spec, goal_size=size, goal_units=Affine())
        critic = critics(spec, self.ensemble, ckey)
        if isinstance(self.contrast, AbstractSignedContrast) and _contains_distance(critic):
            raise ValueError(
                f"{type(self.contrast).__name__} needs scores of both signs, but the energy of "
                "this architecture is minus a distance: use one such as ScaledDot()."
            )
        if self.future_actions and not isinstance(critic.members, AbstractSharedCritic):
            raise ValueError(
                "Future states and actions are goals for a critic with one encoder for both: use "
                "an architecture with shared=True and a quasimetric energy, such as MRN()."
            )
        return ContrastiveParams(critic, actor, value, term), None

    def relabel(
        self, rows: AbstractRows, index: Int[Array, " batch"], *, key: PRNGKeyArray
    ) -> ContrastiveBatch:
        if len(index) < 2:
            raise ValueError("A contrast needs negatives: use a batch of at least 2 rows.")
        ckey, akey = jr.split(key)
        last, steps = rows.last(index), rows.take(index)
        future = wanted = rows.take(self.goals(index, last, key=ckey))
        if self.actor_goals is not None:
            wanted = rows.take(self.actor_goals(index, last, key=akey))
        score_goal = None if wanted is future else self._critic_goal(wanted)
        return ContrastiveBatch(
            steps.observation, steps.action, self._critic_goal(future), wanted.achieved, score_goal
        )

    def loss(
        self, params: ContrastiveParams, state: None, batch: ContrastiveBatch, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        del state
        together = self.fuse and can_fuse(params)
        read = read_together(params, batch) if together else read_apart(params, batch)
        critic_loss, found = self.contrast_loss(read.tables)
        metrics = {f"critic/{k}": v for k, v in found.items()}
        actor_loss, found = improve(
            self.actor,
            params.actor_term,
            read.policy,
            ActorBatch(batch.observation, batch.action, batch.actor_goal),
            score=read.score,
            advantage=read.advantage,
            key=key,
        )
        metrics |= found
        if read.values is None:
            return critic_loss + actor_loss, metrics
        value_loss, found = self.contrast_loss(read.values)
        metrics |= {f"value/{k}": v for k, v in found.items()}
        return critic_loss + actor_loss + value_loss, metrics

    def advance(self, params: ContrastiveParams, state: None) -> None:
        del params, state

    def policy(self, params: ContrastiveParams, state: None) -> AbstractActor:
        del state
        return params.actor

    def score(
        self,
        params: ContrastiveParams,
        state: None,
        observation: Float[Array, " obs"],
        action: Float[Array, " act"],
        goal: Float[Array, " goal"],
    ) -> Float[Array, ""]:
        del state
        if self.future_actions:
            raise ValueError(
                "With future_actions a goal is a state and the action taken there, so actions "
                "cannot be scored for a commanded goal: use Stochastic() or Greedy()."
            )
        return jnp.min(params.critic(observation, action, goal))

    def loops(self, params: ContrastiveParams) -> list[list[str]]:
        """The networks that one update applies in one loop over their layers, by name; a network
        that joins no others is alone in its list."""
        return fused_loops(params) if self.fuse and can_fuse(params) else []

    @property
    def _penalty(self) -> float:
        if self.logsumexp_penalty is not None:
            return self.logsumexp_penalty
        return 0.0 if isinstance(self.contrast, AbstractSignedContrast) else 0.1

    def _critic_goal(self, steps: Step) -> Float[Array, "batch future"]:
        if self.future_actions:
            return jnp.concatenate([steps.observation, steps.action], axis=1)
        return steps.achieved

    def contrast_loss(
        self, logits: Float[Array, "members rows goals"]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The critic's loss, of each member's scores of all pairs, and metrics."""
        contrast = jnp.mean(jax.vmap(self.contrast)(logits))
        sums = jax.vmap(self.contrast.logsumexp)(logits)
        penalty = self._penalty * jnp.mean(sums**2)
        metrics = jax.vmap(lambda table: diagnostics(self.contrast, table))(frozen(logits))
        metrics = {name: jnp.mean(value) for name, value in metrics.items()}
        loss = contrast + penalty
        if self._penalty > 0:
            metrics["penalty"] = penalty
        return loss, {"loss": loss, "contrast": contrast, **metrics}


def _contains_distance(critic: Ensemble) -> bool:
    leaves = jax.tree.leaves(critic, is_leaf=lambda node: isinstance(node, AbstractDistance))
    return any(isinstance(leaf, AbstractDistance) for leaf in leaves)
