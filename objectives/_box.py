import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Actions = Float[Array, "batch act"]


@jax.custom_vjp
def into_box(action: Actions) -> Actions:
    """Actions clipped to [-1, 1], with a gradient that leads back into the box.

    Clipping alone has no gradient outside: a policy that an unripe critic has sent there would
    stay for good, or until cloning fetches it. Here a descent that would lead back in passes, and
    one that would lead farther out does not.
    """
    return jnp.clip(action, -1, 1)


def _forward(action: Actions) -> tuple[Actions, Actions]:
    return jnp.clip(action, -1, 1), action


def _backward(action: Actions, slope: Actions) -> tuple[Actions]:
    farther = ((action > 1) & (slope < 0)) | ((action < -1) & (slope > 0))
    return (jnp.where(farther, 0, slope),)


into_box.defvjp(_forward, _backward)
