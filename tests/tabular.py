"""Tables as networks, data from small chains, and what can be computed of both.

Networks are linear in one-hot inputs, so nothing but the objective decides what is learnt. Laws are
counted from the rows themselves, so answers are those of the data and not of an ideal chain.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from architectures import IQE, Gaussian, OneHotCategorical, SharedTower
from crlx import (
    AbstractActor,
    AbstractArchitecture,
    AbstractEncoder,
    ActionSpace,
    Affine,
    Learner,
    OfflineRows,
    Step,
)


class Table(AbstractEncoder):
    """Multilinear in the parts of its input; one number for each combination of one-hot vectors."""

    values: jax.Array  # One axis per part, then that of the output.

    def __call__(self, x):
        sizes = self.values.shape[:-1]
        out = self.values
        for part in jnp.split(x, np.cumsum(sizes)[:-1]):
            out = jnp.tensordot(part, out, axes=1)
        return out


class Slope(AbstractEncoder):
    """Affine in an action of one number, with an offset and a slope for each state and goal."""

    values: jax.Array  # `[state, goal, 2, out]`

    def __call__(self, x):
        offset, slope = (Table(v)(x[:-1]) for v in jnp.moveaxis(self.values, 2, 0))
        return offset + x[-1] * slope


class Goal(AbstractEncoder):
    """Has no parameters: it returns the goal of a state and a goal of one size."""

    def __call__(self, x):
        return x[x.shape[0] // 2 :]


class TableActor(AbstractActor):
    """A mean, or logits, for each state and goal; for each state alone where goals are empty."""

    table: Table
    choice: bool

    def __call__(self, observation, goal):
        out = self.table(jnp.concatenate([observation, goal]))
        return OneHotCategorical(out) if self.choice else Gaussian(out, jnp.zeros_like(out))


class Tables(AbstractArchitecture):
    """**Arguments:**

    - `states`, `actions`: how many there are; goals are states.
    - `slope`: actions are one number, in which values are affine.
    - `plain`: a representation of goals is the goal itself.
    - `told`: a policy to use in place of a table.
    """

    states: int
    actions: int = 0
    slope: bool = False
    plain: bool = False
    told: AbstractActor | None = None

    def critic(self, spec, *, key):
        energy = IQE(4).init(16, key=key)
        encoder = Table(jr.normal(key, (self.states, 16)))
        return SharedTower(encoder, energy, Affine(), self.states)

    def actor(self, spec, *, key):
        del key
        if self.told is not None:
            return self.told
        parts = (spec.observation_size,) + ((spec.goal_size,) if spec.goal_size else ())
        table = Table(jnp.zeros((*parts, spec.action_size)))
        return TableActor(table, spec.actions is ActionSpace.CHOICE)

    def encoder(self, in_size, out_size, *, key):
        pair = self.states, self.states
        if in_size == 2 * self.states:
            return Goal() if self.plain and out_size > 1 else self._table(pair, out_size, key)
        if self.slope:
            return Slope(jr.normal(key, (*pair, 2, out_size)))
        return self._table((*pair, self.actions), out_size, key)

    def _table(self, parts, out_size, key):
        return Table(jr.normal(key, (*parts, out_size)))  # Far from the answers.


@dataclasses.dataclass(frozen=True)
class Data:
    """States and actions of all rows, `[episodes, length]`; the final row is a successor only."""

    states: np.ndarray
    actions: np.ndarray

    def rows(self, states, actions=None):
        """One-hot states; one-hot actions if there are finitely many."""
        one_hot = jnp.eye(states)[self.states.ravel()]
        taken = self.actions.ravel()
        taken = (
            jnp.asarray(taken, jnp.float32)[:, None] if actions is None else jnp.eye(actions)[taken]
        )
        length = self.states.shape[1]
        terminals = np.arange(taken.shape[0]) % length == length - 1
        return OfflineRows(Step(one_hot, taken, one_hot), terminals)

    @property
    def steps(self):
        """State, action and next state of all rows with a successor."""
        return tuple(
            x.ravel() for x in (self.states[:, :-1], self.actions[:, :-1], self.states[:, 1:])
        )

    def goal_rows(self, weight, everywhere):
        """The chance of each row with a successor as the goal of each, `[rows, rows]`.

        **Arguments:**

        - `weight`: chances of `0 … n` steps ahead, where `n` rows follow.
        - `everywhere`: the share of goals from all rows alike, whatever their trajectory.
        """
        episodes, length = len(self.states), self.states.shape[1] - 1
        own = np.zeros((length, length))
        for t in range(length):
            own[t, t:] = weight(length - 1 - t)
        count = episodes * length
        return (1 - everywhere) * np.kron(np.eye(episodes), own) + everywhere / count


def walk(step, states, episodes, length, choose, seed=0):
    """A walk from random states: `choose(rng, state)` is the action, `step(rng, state, action)`
    the next state, for all episodes at once."""
    rng = np.random.default_rng(seed)
    state, found = rng.integers(states, size=episodes), []
    for _ in range(length):
        action = choose(rng, state)
        found.append((state, action))
        state = step(rng, state, action)
    return Data(*(np.stack(x, axis=1) for x in zip(*found, strict=True)))


def uniform(n):
    """Any later row; the row itself where nothing follows."""
    return np.r_[0.0, np.full(n, 1 / n)] if n else np.ones(1)


def clipped_geometric(discount):
    """The last row takes the whole tail."""

    def law(n):
        mass = (1 - discount) * discount ** (np.arange(n + 1.0) - 1)
        mass[0] = 0
        mass[n] = 1 - mass[:n].sum()
        return mass

    return law


@eqx.filter_jit
def train(objective, architecture, spec, rows, *, updates, batch_size=256, rate=0.05, key):
    ikey, fkey = jr.split(key)
    learner = Learner(objective, optax.adam(optax.cosine_decay_schedule(rate, updates)))
    progress = learner.init(architecture, spec, key=ikey)
    progress, _ = learner.fit(progress, rows, updates=updates, batch_size=batch_size, key=fkey)
    return progress.params


def expectile(values, weights, share, axis):
    """The expectile of weighted values, by bisection: it balances what lies above and below."""
    low, high = values.min(axis, keepdims=True), values.max(axis, keepdims=True)
    for _ in range(50):
        middle = (low + high) / 2
        excess = share * np.sum(weights * np.maximum(values - middle, 0), axis, keepdims=True)
        excess -= (1 - share) * np.sum(
            weights * np.maximum(middle - values, 0), axis, keepdims=True
        )
        low, high = np.where(excess > 0, middle, low), np.where(excess > 0, high, middle)
    return np.squeeze((low + high) / 2, axis)
