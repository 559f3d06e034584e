import dataclasses
from typing import TypeVar

from crlx import AbstractArchitecture

from ._build import ResidualNetworks
from ._choices import ResidualScale
from ._hyperspherical import HypersphericalNetworks
from ._surgery import TIED

Architecture = TypeVar("Architecture", bound=AbstractArchitecture)


def with_depth(
    architecture: Architecture, depth: int | None = None, *, actor_depth: int | None = None
) -> Architecture:
    """The same architecture at another depth, in which trained blocks do what they did.

    A factor on branches that follows from the number of blocks by a rule, `1 / sqrt(N)` say,
    would change under them: the rule gives way to the number with which they were trained.

    **Arguments:**

    - `architecture`: what built the trained networks.
    - `depth`: the new one; None for the old.
    - `actor_depth`: the actor's; None for the old, which follows `depth` unless it was set apart.

    Raises `ValueError` where the rule gave critic and actor different numbers, of which the
    architecture can hold only one, and for architectures without residual blocks of their own.
    """
    fixed: AbstractArchitecture
    if isinstance(architecture, ResidualNetworks):
        fixed = _fixed_scale(architecture)
    elif isinstance(architecture, HypersphericalNetworks):
        fixed = _fixed_step(architecture)
    else:
        raise ValueError(
            f"{type(architecture).__name__} is neither ResidualNetworks nor "
            "HypersphericalNetworks, whose blocks can be the identity. If its own have "
            "`silenced()`, build a deeper one yourself and give the networks to `extend`."
        )
    return dataclasses.replace(
        fixed,
        depth=architecture.depth if depth is None else depth,
        actor_depth=architecture.actor_depth if actor_depth is None else actor_depth,
    )


def _fixed_scale(architecture: ResidualNetworks) -> ResidualNetworks:
    style = architecture.style
    if style.tied:
        raise ValueError(TIED)
    if style.residual_scale not in (ResidualScale.RSQRT, ResidualScale.INVERSE):
        return architecture
    scales = [style.scale(depth // 4) for depth in _depths(architecture)]
    if len(set(scales)) > 1:
        raise ValueError(
            f"{style.residual_scale} gave the critic's branches a factor of {scales[0]:.4g} and "
            f"the actor's {scales[1]:.4g}, but one architecture can keep only one number. Train "
            "networks that are to change their depth with ResidualScale.LEARNED or a number."
        )
    fixed = dataclasses.replace(style, residual_scale=scales[0])
    return dataclasses.replace(architecture, style=fixed)


def _fixed_step(architecture: HypersphericalNetworks) -> HypersphericalNetworks:
    steps = [architecture.first_step(depth) for depth in _depths(architecture)]
    if len(set(steps)) > 1:
        raise ValueError(
            f"The critic's blocks started with a step of {steps[0]:.4g} and the actor's with "
            f"{steps[1]:.4g}, but one architecture can keep only one number. Train networks that "
            "are to change their depth with a number for `step`."
        )
    return dataclasses.replace(architecture, step=steps[0])


def _depths(architecture: ResidualNetworks | HypersphericalNetworks) -> list[int]:
    actor_depth = architecture.actor_depth
    return [architecture.depth, architecture.depth if actor_depth is None else actor_depth]
