from collections.abc import Iterable

import jax
import jax.numpy as jnp

Compiler = dict[str, str | bool]
"""XLA's options by name, as `jax.stages.Lowered.compile` takes them."""

_TRUTHS = {"true": True, "false": False}


def read_xla(texts: Iterable[str]) -> Compiler:
    """Options of the compiler, from texts such as `xla_gpu_enable_latency_hiding_scheduler=true`.

    Raises `ValueError` for a text of another form, and for what XLA does not know or cannot read.
    """
    options: Compiler = {}
    for text in texts:
        name, equals, value = text.removeprefix("--").partition("=")
        if not (equals and name):
            raise ValueError(f"--xla takes NAME=VALUE, such as xla_dump_to=dump; got {text!r}.")
        if name in options:
            raise ValueError(f"--xla {name} is given twice; leave one out.")
        options[name] = _TRUTHS.get(value.lower(), value)
    if options:
        _try(options)
    return options


def _try(options: Compiler) -> None:
    """Compiles next to nothing, since only the compiler knows its options."""
    lowered = jax.jit(lambda x: x + 1).lower(jnp.zeros(()))
    try:
        lowered.compile(compiler_options=options)
    except (jax.errors.JaxRuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0].removeprefix("INVALID_ARGUMENT: ")
        raise ValueError(
            f"--xla: XLA refuses {' '.join(f'{n}={v}' for n, v in options.items())}: {reason} "
            "(Names are those of XLA's DebugOptions; truth values are true and false.)"
        ) from error
