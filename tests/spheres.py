"""Random networks, and what tests of unit vectors share."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from architectures import HyperDense
from crlx import AbstractProjected, Spec

SPEC = Spec(3, 2, 2)
SPHERES = (2, 3, 4, 3)  # Members, layers, out, in.


def skeleton(build, spec):
    return eqx.filter_eval_shape(build, spec, key=jr.key(0))


def is_shape(x):
    return isinstance(x, jax.ShapeDtypeStruct)


def randomized(tree, seed):
    """All arrays random, none on its sphere: the forward pass must not depend on that."""
    rng = np.random.default_rng(seed)

    def fill(x):
        return jnp.asarray(rng.normal(size=x.shape) * 0.7, jnp.float32)

    return jax.tree.map(lambda x: fill(x) if eqx.is_array(x) or is_shape(x) else x, tree)


def random(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def batched(module, x):
    return eqx.filter_jit(lambda m, x: jax.vmap(lambda v: m(v))(x))(module, x)


def np_unit(w):
    return w / np.linalg.norm(w, axis=-1, keepdims=True)


def is_sphere(node):
    return isinstance(node, HyperDense)


def spheres(tree):
    """The weights of all `HyperDense` in a tree."""
    nodes = jax.tree.leaves(tree, is_leaf=is_sphere)
    return [np.float64(node.weight) for node in nodes if is_sphere(node)]


def assert_unit_rows(tree, tolerance=1e-6):
    found = spheres(tree)
    assert found
    for weight in found:
        np.testing.assert_allclose(np.linalg.norm(weight, axis=-1), 1, rtol=0, atol=tolerance)


class Positive(AbstractProjected):
    """A projection that this library does not know."""

    weight: Float[Array, "*stack size"]

    def project(self):
        return Positive(jnp.maximum(self.weight, 0))


class Bystander(eqx.Module):
    """The name and the shape of a projected array, and no projection."""

    weight: Float[Array, "*stack out in"]
