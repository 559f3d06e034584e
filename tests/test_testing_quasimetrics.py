"""The check of quasimetrics refuses each fault with its own message."""

import jax
import jax.numpy as jnp
import pytest

from architectures import MRN, Norm
from crlx import AbstractQuasimetric
from crlx.testing import check_quasimetric


class SquaredMRN(AbstractQuasimetric):
    def distance(self, x, y):
        symmetric, asymmetric = jnp.split(x - y, 2)
        return jnp.sum(symmetric**2) + jnp.max(jax.nn.relu(asymmetric))


class SymmetricNorm(AbstractQuasimetric):
    def distance(self, x, y):
        return -Norm()(x, y)


class Floored(AbstractQuasimetric):
    def distance(self, x, y):
        return jnp.sqrt(jnp.sum(jax.nn.relu(x - y) ** 2) + 1e-6)


class Signed(AbstractQuasimetric):
    def distance(self, x, y):
        return jnp.mean(x - y)


class Unfinished(AbstractQuasimetric):
    def distance(self, x, y):
        return jnp.log(jnp.sum(x - y))


class Unsigned(AbstractQuasimetric):
    def distance(self, x, y):
        return MRN().distance(x, y)

    def __call__(self, x, y):
        return self.distance(x, y)


@pytest.mark.parametrize(
    ("energy", "message"),
    [
        (SquaredMRN(), "triangle inequality fails"),
        (SymmetricNorm(), "same both ways"),
        (Floored(), "away from itself"),
        (Signed(), "what cannot be negative"),
        (Unfinished(), "not finite"),
        (Unsigned(), "minus its distance"),
    ],
)
def test_faulty_quasimetrics_are_refused(energy, message, getkey):
    with pytest.raises(AssertionError, match=message):
        check_quasimetric(energy, key=getkey())
