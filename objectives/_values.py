import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from crlx import Ensemble

from ._transitions import Transitions

Values = Float[Array, "batch members"]


def state_values(
    value: Ensemble, observations: Float[Array, "batch obs"], goals: Float[Array, "batch goal"]
) -> Values:
    """What each member expects of each state."""
    return jax.vmap(value)(observations, observations[:, :0], goals)


def smallest(scores: Values) -> Float[Array, " batch"]:
    """The smallest entry of each row, with its gradient to that entry alone.

    The gradient of `jnp.min` divides by the number of entries that equal the result. Where a
    compiler computes them twice and rounds otherwise, that is none, and the gradient NaN.
    """
    smallest = jnp.argmin(scores, axis=1, keepdims=True)
    return jnp.take_along_axis(scores, smallest, axis=1)[:, 0]


def expectile_loss(
    error: Float[Array, "*shape"], advantage: Float[Array, "*shape"], expectile: float
) -> Float[Array, "*shape"]:
    r"""$|\kappa - 1[A < 0]|\, e^2$: squared errors, weighted by the sign of an advantage.

    With the error itself as the advantage, what minimizes it over a constant is the expectile
    $\kappa$ of what the constant is compared with: the mean at 0.5, towards the maximum at 1.

    ??? cite
        Kostrikov et al., Offline Reinforcement Learning with Implicit Q-Learning (ICLR 2022).
    """
    return jnp.where(advantage < 0, 1 - expectile, expectile) * error**2


def implicit_value(
    values: Values,
    slow: Values,
    slow_after: Values,
    batch: Transitions,
    *,
    discount: float,
    expectile: float,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    r"""The loss of state values that lean towards the best successors in the data:

    $$\sum_e \overline{|\kappa - 1[A < 0]|\, (r + \gamma m \bar V_e(s') - V_e(s))^2}, \qquad
      A = r + \gamma m \min_e \bar V_e(s') - \mathrm{mean}_e \bar V_e(s).$$

    **Arguments:**

    - `values`, `slow`, `slow_after`: $V_e(s)$, $\bar V_e(s)$ and $\bar V_e(s')$.
    - `batch`: rewards $r$ and masks $m$.
    - `discount`, `expectile`: $\gamma$ and $\kappa$.

    **Returns:** the loss and metrics named `value/name`.
    """
    after = batch.reward[:, None] + (discount * batch.mask)[:, None] * slow_after
    best = batch.reward + discount * batch.mask * jnp.min(slow_after, axis=1)
    advantage = jnp.broadcast_to((best - jnp.mean(slow, axis=1))[:, None], values.shape)
    losses = expectile_loss(after - values, advantage, expectile)
    loss = jnp.sum(jnp.mean(losses, axis=0))
    return loss, {
        "value/loss": loss,
        "value/mean": jnp.mean(values),
        "value/target": jnp.mean(after),
        "value/advantage": jnp.mean(advantage),
    }
