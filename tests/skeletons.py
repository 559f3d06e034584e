"""Networks that nobody has to compile, and random numbers to fill them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np


def skeleton(build, spec):
    return eqx.filter_eval_shape(build, spec, key=jr.key(0))


def is_shape(x):
    return isinstance(x, jax.ShapeDtypeStruct)


def filled(tree, seed=0, scale=0.7):
    """All arrays and shapes random: gains and biases too, and unit vectors of other lengths."""
    rng = np.random.default_rng(seed)

    def fill(x):
        return jnp.asarray(rng.normal(size=x.shape) * scale, x.dtype)

    return jax.tree.map(lambda x: fill(x) if eqx.is_array(x) or is_shape(x) else x, tree)


def random(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]
