import jax.numpy as jnp
import pytest

from experiments._compile import compile_ahead
from experiments._extent import Extent
from experiments._xla import read_xla


def test_options_are_read_with_their_truth_values():
    assert read_xla([]) == {}
    texts = ["xla_cpu_enable_fast_math=False", "--xla_cpu_prefer_vector_width=128"]
    assert read_xla(texts) == {
        "xla_cpu_enable_fast_math": False,
        "xla_cpu_prefer_vector_width": "128",
    }
    assert read_xla(["xla_gpu_enable_command_buffer=FUSION,CUBLAS"])


@pytest.mark.parametrize(
    "texts, message",
    [
        (["xla_dump_to"], "NAME=VALUE.*'xla_dump_to'"),
        (["=1"], "NAME=VALUE"),
        (["xla_cpu_prefer_vector_width=1", "xla_cpu_prefer_vector_width=2"], "given twice"),
        (["xla_cpu_prefer_speed=1"], "No such compile option: 'xla_cpu_prefer_speed'"),
        (["xla_cpu_prefer_vector_width=wide"], "'wide' is not a valid int32"),
        (["xla_cpu_enable_fast_math=1"], "'1' is not a valid bool"),
    ],
)
def test_what_the_compiler_does_not_know_is_refused_at_once(texts, message):
    with pytest.raises(ValueError, match=message):
        Extent(xla=tuple(texts)).compiler  # noqa: B018


def test_the_compiler_is_given_the_options(tmp_path):
    xla = read_xla([f"xla_dump_to={tmp_path}"])
    compiled, _ = compile_ahead(lambda kept, x: kept + x, jnp.ones(3), jnp.zeros(3), xla)
    assert (compiled(jnp.ones(3), jnp.zeros(3)) == 1).all()
    assert any("module" in path.name for path in tmp_path.iterdir())
