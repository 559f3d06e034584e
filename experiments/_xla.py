from collections.abc import Sequence

import jax
import jax.numpy as jnp

CompilerOptions = dict[str, str | bool]
"""XLA's options by name, as `jax.stages.Lowered.compile` takes them."""

_TRUTHS = {"true": True, "false": False}
_OWN = {"xla_cpu_": "cpu", "xla_gpu_": "gpu", "xla_tpu_": "tpu"}


def read_xla(texts: Sequence[str]) -> CompilerOptions:
    """Options of the compiler, from texts such as `xla_gpu_enable_latency_hiding_scheduler=true`.

    Raises `ValueError` for a text of another form, for what XLA does not know or cannot read, and
    for what would do nothing: an option of another backend, or one that acts as JAX starts.
    """
    options: CompilerOptions = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (equals and name.startswith("xla_")):
            raise ValueError(
                f"--xla takes XLA's names with a value, such as xla_dump_to=dump; got {text!r}."
            )
        if name in options:
            raise ValueError(f"--xla {name} is given twice; leave one out.")
        _check_effect(name)
        options[name] = _TRUTHS.get(value.lower(), value)
    if options:
        _try(options, " ".join(texts))
    return options


def _check_effect(name: str) -> None:
    backend = jax.default_backend()
    for prefix, own in _OWN.items():
        if name.startswith(prefix) and own != backend:
            raise ValueError(f"--xla {name} does nothing on this {backend.upper()}: leave it out.")
    if name == "xla_force_host_platform_device_count":
        raise ValueError(f"--xla {name} comes too late: set it in the environment's XLA_FLAGS.")


def _try(options: CompilerOptions, text: str) -> None:
    """Compiles next to nothing, since only the compiler knows its options."""
    lowered = jax.jit(lambda x: x + 1).lower(jnp.zeros(()))
    try:
        lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0].removeprefix("INVALID_ARGUMENT: ")
        raise ValueError(
            f"--xla: XLA refuses {text}: {reason} (Names are those of XLA's DebugOptions; truth "
            "values are true and false.)"
        ) from error
