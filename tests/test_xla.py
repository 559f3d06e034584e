import jax.numpy as jnp
import pytest

from experiments._compile import compile_ahead
from experiments._xla import CompilerOptions, read_xla


def test_options_are_read_with_their_truth_values():
    assert read_xla([]) == {}
    texts = ["xla_cpu_enable_fast_math=False", "xla_cpu_prefer_vector_width=128"]
    assert read_xla(texts) == {
        "xla_cpu_enable_fast_math": False,
        "xla_cpu_prefer_vector_width": "128",
    }
    assert read_xla(["xla_disable_hlo_passes=fusion,algsimp"])


@pytest.mark.parametrize(
    "texts, message",
    [
        (["xla_dump_to"], "with a value.*'xla_dump_to'"),
        (["optimization_level=2"], "XLA's names"),
        (["xla_gpu_enable_command_buffer=FUSION"], "does nothing on this CPU"),
        (["xla_force_host_platform_device_count=8"], "XLA_FLAGS"),
        (["xla_cpu_prefer_vector_width=1", "xla_cpu_prefer_vector_width=2"], "given twice"),
        (["xla_cpu_prefer_speed=1"], "No such compile option: 'xla_cpu_prefer_speed'"),
        (["xla_cpu_prefer_vector_width=wide"], "'wide' is not a valid int32"),
        (["xla_cpu_enable_fast_math=1"], "'1' is not a valid bool"),
    ],
)
def test_what_the_compiler_does_not_know_is_refused_at_once(texts, message):
    with pytest.raises(ValueError, match=message):
        read_xla(texts)


def test_the_compiler_is_given_the_options(tmp_path):
    xla: CompilerOptions = {"xla_dump_to": str(tmp_path)}
    compiled, _ = compile_ahead(lambda kept, x: kept + x, jnp.ones(3), jnp.zeros(3), xla)
    assert (compiled(jnp.ones(3), jnp.zeros(3)) == 1).all()
    assert any("module" in path.name for path in tmp_path.iterdir())
