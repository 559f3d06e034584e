import jax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from ._precision import rounds
from ._rounded import rounded_matmul

_NAME = "product"

keep_products = jax.checkpoint_policies.save_only_these_names(_NAME)
"""For `jax.checkpoint`: of a block, keep the results of `product` and nothing else."""


def product(x: Float[Array, " size"], weight: Float[Array, "dim size"]) -> Float[Array, " dim"]:
    """`W x` in the precision of the surrounding `Precision.scope`.

    Written as `x @ W.T`: batched by `vmap`, the gradient of `W @ x` has transposed products, which
    take a quarter more time on CPUs.

    Raises `ValueError` where `x` has another size than the layer was built for.
    """
    if x.shape[-1] != weight.shape[-1]:
        raise ValueError(
            f"A layer for {weight.shape[-1]} numbers is given {x.shape[-1]}: observations, actions "
            "and goals are of other sizes than the `Spec` that the networks were built for, or the "
            "layer before it has another width."
        )
    y = rounded_matmul(x, weight) if rounds() else x @ weight.T
    return checkpoint_name(y, _NAME)
