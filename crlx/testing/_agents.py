import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._networks import (
    AbstractActor,
    AbstractArchitecture,
    AbstractChoice,
    AbstractCritic,
    AbstractDistribution,
)
from .._types import ActionSpace, Spec
from .._units import Affine
from ._networks import check_encoder, check_reached
from ._require import named_arrays, require, require_close, require_finite
from ._samples import random_actions


def check_critic(critic: AbstractCritic, spec: Spec, *, key: PRNGKeyArray) -> None:
    """One float32 score per example; `pairs` agrees with single calls; gradients are finite and
    reach every parameter and every input.

    **Arguments:**

    - `critic`: what to check.
    - `spec`: sizes of its inputs; without actions if `spec.action_size` is 0.
    """
    okey, gkey, wkey = jr.split(key, 3)
    states, actions = _examples(spec, 4, key=okey)[:2]
    goals = _examples(spec, 3, key=gkey)[2]
    table = eqx.filter_jit(lambda c, *inputs: c.pairs(*inputs))(critic, states, actions, goals)
    require(
        table.shape == (4, 3) and table.dtype == jnp.float32,
        f"`pairs` of 4 states and 3 goals is {table.dtype}{table.shape}; return float32(4, 3), "
        "with states as rows.",
    )
    single = eqx.filter_jit(lambda c, *inputs: c(*inputs))
    rows = range(4), range(3)
    singles = [[single(critic, states[i], actions[i], goals[j]) for j in rows[1]] for i in rows[0]]
    require(
        singles[0][0].shape == (),
        f"One example scores {singles[0][0].shape}; return one scalar.",
    )
    require_close(jnp.asarray(singles), table, "`pairs` and single calls: score", atol=1e-4)
    weight = jr.normal(wkey, table.shape)

    def total(trained: tuple[AbstractCritic, Array, Array, Array]) -> Float[Array, ""]:
        return jnp.sum(weight * trained[0].pairs(*trained[1:]))

    check_reached(total, (critic, states, actions, goals), "critic")


def check_actor(actor: AbstractActor, spec: Spec, *, key: PRNGKeyArray) -> None:
    """Modes and samples are finite actions; densities agree; gradients reach every parameter.

    The log-density that comes with a sample equals `log_prob` of that sample wherever no
    component exceeds 0.99, where a squash can be inverted.

    **Arguments:**

    - `actor`: what to check. Among finitely many actions, samples are one-hot, the mode is the
      likeliest and probabilities sum to one.
    - `spec`: sizes of its inputs and actions; a few actions, or samples inside 0.99 are rare.
    """
    ekey, skey = jr.split(key)
    states, _, goals = _examples(spec, 2, key=ekey)
    policy = actor(states[0], goals[0])
    require(
        isinstance(policy, AbstractDistribution),
        f"The actor returns a {type(policy).__name__}; return an `AbstractDistribution`.",
    )
    mode = policy.mode()
    require(
        mode.shape == (spec.action_size,),
        f"The mode has shape {mode.shape}; actions have ({spec.action_size},).",
    )
    draw = eqx.filter_jit(eqx.filter_vmap(lambda k: policy.sample_and_log_prob(key=k)))
    actions, log_probs = draw(jr.split(skey, 256))
    require(
        actions.shape == (256, *mode.shape) and log_probs.shape == (256,),
        f"A sample has shape {actions.shape[1:]} and its log-density {log_probs.shape[1:]}.",
    )
    require_finite((mode, actions, log_probs), "Mode, samples and log-densities: ")
    require(np.any(actions != actions[:1]), "All keys give one sample: draw from `key`.")
    if isinstance(policy, AbstractChoice):
        again = eqx.filter_jit(eqx.filter_vmap(policy.log_prob))(actions)
        require_close(again, log_probs, "`log_prob` of samples: ", rtol=1e-3, atol=1e-3)
        _check_choice(actor, states[0], goals[0], actions)
        return
    inside = jnp.all(jnp.abs(actions) <= 0.99, axis=1)
    require(inside.any(), "No sample lies within 0.99: check an actor with fewer actions.")
    again = eqx.filter_jit(eqx.filter_vmap(policy.log_prob))(actions[inside])
    require_close(again, log_probs[inside], "`log_prob` of samples: ", rtol=1e-3, atol=1e-3)
    _check_densities(actor, states, goals, key=skey)


def _check_choice(
    actor: AbstractActor,
    state: Float[Array, " obs"],
    goal: Float[Array, " goal"],
    actions: Float[Array, "samples act"],
) -> None:
    policy = actor(state, goal)
    choices = jnp.eye(actions.shape[1])
    one_hot = jnp.all(jnp.sort(actions, axis=1) == jnp.sort(choices, axis=1)[:1])
    require(one_hot, "Samples are not one-hot vectors.")
    log_probs = jax.vmap(policy.log_prob)(choices)
    require_close(jnp.sum(jnp.exp(log_probs)), jnp.ones(()), "Sum of all probabilities: ")
    likeliest = choices[jnp.argmax(log_probs)]
    require(jnp.all(policy.mode() == likeliest), "The mode is not the likeliest action.")

    def total(trained: tuple[AbstractActor, Array, Array]) -> Float[Array, ""]:
        return trained[0](*trained[1:]).log_prob(actions[0])

    check_reached(total, (actor, state, goal), "actor")


def _check_densities(
    actor: AbstractActor,
    states: Float[Array, "two obs"],
    goals: Float[Array, "two goal"],
    *,
    key: PRNGKeyArray,
) -> None:
    """Reparameterized samples and log-densities, also at the border, train the whole actor."""

    def total(trained: tuple[AbstractActor, Array, Array]) -> Float[Array, ""]:
        actor, states, goals = trained
        policy = eqx.filter_vmap(actor)(states, goals)

        def one(policy: AbstractDistribution, key: PRNGKeyArray) -> Float[Array, ""]:
            sample, log_prob = policy.sample_and_log_prob(key=key)
            border = jnp.sign(jax.lax.stop_gradient(sample))
            return jnp.sum(sample * jnp.arange(1.0, 1 + sample.size)) + (
                0.1 * log_prob + 0.01 * policy.log_prob(border)
            )

        return jnp.sum(eqx.filter_vmap(one)(policy, jr.split(key, len(states))))

    check_reached(total, (actor, states, goals), "actor")


def check_architecture(
    architecture: AbstractArchitecture, spec: Spec, *, key: PRNGKeyArray
) -> None:
    """Its critics (with and without actions), actors and encoders pass their checks, come from the
    key alone, are built under `vmap` as singly, and rescale inputs by the units of the task.

    **Arguments:**

    - `architecture`: what to check, of small sizes.
    - `spec`: sizes, without units.
    """
    ckey, akey, bkey = jr.split(key, 3)
    plain = Spec(spec.observation_size, spec.action_size, spec.goal_size)
    check_critic(architecture.critic(plain, key=ckey), plain, key=bkey)
    blind = Spec(spec.observation_size, 0, spec.goal_size)
    state, action, goal = (x[0] for x in _examples(blind, 1, key=bkey))
    score = architecture.critic(blind, key=ckey)(state, action, goal)
    require(score.shape == (), f"A critic without actions returns {score.shape}, not a scalar.")
    for actions in (ActionSpace.BOX, ActionSpace.CHOICE):
        chosen = dataclasses.replace(plain, actions=actions)
        check_actor(architecture.actor(chosen, key=akey), chosen, key=bkey)
    reals = dataclasses.replace(plain, actions=ActionSpace.REAL)
    policy = architecture.actor(reals, key=akey)(*_one_state_and_goal(reals, key=bkey))
    near, far = (policy.log_prob(jnp.full(plain.action_size, size)) for size in (3.0, 4.0))
    require(
        np.isfinite(near) and near > far,
        "With ActionSpace.REAL an action of 3 is as likely as one of 4: leave such policies "
        "unsquashed.",
    )
    encoder = architecture.encoder(3, 5, key=ckey)
    check_encoder(encoder, 3, key=bkey)
    require(encoder(jnp.ones(3)).shape == (5,), "An encoder from 3 to 5 numbers returns others.")
    for make in (architecture.critic, architecture.actor):
        first, other = make(plain, key=ckey), make(plain, key=akey)
        require_close(
            make(plain, key=ckey), first, "Built twice with one key: ", rtol=0.0, atol=0.0
        )
        pairs = zip(named_arrays(first), named_arrays(other), strict=True)
        require(any(np.any(a != b) for (_, a), (_, b) in pairs), "Pass `key` on: two agree.")
        for name, leaf in named_arrays(first):
            require(leaf.dtype == np.float32, f"{name} is {leaf.dtype}; use float32.")
    several = eqx.filter_vmap(lambda key: architecture.critic(plain, key=key))(
        jnp.stack([ckey, akey])
    )
    arrays = jax.tree.map(lambda x: x[0], eqx.filter(several, eqx.is_array))
    expected = eqx.filter(architecture.critic(plain, key=ckey), eqx.is_array)
    require_close(arrays, expected, "A critic built under `vmap` and singly: ")
    _check_units(architecture, plain, key=bkey)


def _one_state_and_goal(
    spec: Spec, *, key: PRNGKeyArray
) -> tuple[Float[Array, " obs"], Float[Array, " goal"]]:
    states, _, goals = _examples(spec, 1, key=key)
    return states[0], goals[0]


def _check_units(architecture: AbstractArchitecture, plain: Spec, *, key: PRNGKeyArray) -> None:
    def units(size: int, start: float) -> Affine:
        numbers = tuple(start + i for i in range(size))
        return Affine(numbers, tuple(0.5 * (1 + n) for n in numbers))

    observation, goal = units(plain.observation_size, 1.0), units(plain.goal_size, 2.0)
    scaled = Spec(plain.observation_size, plain.action_size, plain.goal_size, observation, goal)
    states, actions, goals = _examples(plain, 4, key=key)
    cases = (
        ("critic", architecture.critic, lambda m, s, a, g: m(s, a, g)),
        ("actor", architecture.actor, lambda m, s, a, g: m(s, g).mode()),
    )
    for name, make, call in cases:
        many = eqx.filter_vmap(call, in_axes=(None, 0, 0, 0))
        rescaled = jax.vmap(observation)(states), actions, jax.vmap(goal)(goals)
        require_close(
            many(make(scaled, key=key), states, actions, goals),
            many(make(plain, key=key), *rescaled),
            f"The {name} does not rescale by the units of `spec`, as `spec.goal_units(goal)`: ",
            rtol=1e-4,
        )


def _examples(
    spec: Spec, count: int, *, key: PRNGKeyArray
) -> tuple[Float[Array, "count obs"], Float[Array, "count act"], Float[Array, "count goal"]]:
    okey, akey, gkey = jr.split(key, 3)
    return (
        jr.normal(okey, (count, spec.observation_size)),
        random_actions(spec, count, key=akey),
        jr.normal(gkey, (count, spec.goal_size)),
    )
