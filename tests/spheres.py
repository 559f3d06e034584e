"""What tests of unit vectors share."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from architectures import HyperDense
from crlx import AbstractProjected, Spec

SPEC = Spec(3, 2, 2)
SPHERES = (2, 3, 4, 3)  # Members, layers, out, in.


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
