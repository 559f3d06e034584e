import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crlx._fingerprint import fingerprint

DTYPES = ("float32", "int32", "uint32", "float16", "bfloat16", "int16", "uint8", "int8", "bool")


@pytest.mark.parametrize("dtype", DTYPES)
@given(bits=hnp.arrays(np.uint8, st.sampled_from((0, 4, 12, 64)), elements=st.integers(0, 255)))
def test_it_is_the_weighted_sum_of_the_bytes(dtype, bits):
    kind = jnp.dtype(dtype)
    bits = bits % 2 if dtype == "bool" else bits
    weights = 2 * np.arange(bits.size, dtype=np.uint64) + 1
    expected = int(np.sum(weights * bits.astype(np.uint64))) % 2**32
    assert int(fingerprint(jnp.asarray(bits.view(kind)))) == expected


@given(byte=st.integers(0, 39), change=st.integers(1, 255))
def test_no_change_of_a_byte_goes_through(byte, change):
    x = np.arange(10, dtype=np.float32)
    other = x.copy()
    other.view(np.uint8)[byte] ^= change
    assert int(fingerprint(jnp.asarray(other))) != int(fingerprint(jnp.asarray(x)))


def test_it_needs_no_more_than_one_copy():
    large = jax.ShapeDtypeStruct((1_000_000,), jnp.float32)
    memory = fingerprint.lower(large).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 1.1 * 4_000_000
