import pytest

from architectures import (
    HypersphericalNetworks,
    MLPNetworks,
    ResidualNetworks,
    ResidualScale,
    ResidualStyle,
    with_depth,
)


def residual(scale, **depths):
    return ResidualNetworks(style=ResidualStyle(residual_scale=scale), **depths)


def test_rules_give_way_to_the_numbers_of_training():
    found = with_depth(residual(ResidualScale.RSQRT, depth=16), 64)
    assert (found.depth, found.style.residual_scale) == (64, 0.5)
    found = with_depth(residual(ResidualScale.INVERSE, depth=16), 8)
    assert found.style.residual_scale == 0.25
    assert with_depth(HypersphericalNetworks(depth=6), 16).step == 0.25
    assert with_depth(HypersphericalNetworks(depth=6, step=0.5), 16).step == 0.5


@pytest.mark.parametrize("scale", [ResidualScale.ONE, ResidualScale.LEARNED, 0.3])
def test_what_follows_no_rule_stays(scale):
    found = with_depth(residual(scale, depth=16, actor_depth=4), 64)
    assert found == residual(scale, depth=64, actor_depth=4)
    found = with_depth(residual(scale, depth=16), actor_depth=8)
    assert found == residual(scale, depth=16, actor_depth=8)


@pytest.mark.parametrize(
    ("architecture", "depth", "message"),
    [
        (residual(ResidualScale.RSQRT, depth=16, actor_depth=4), 64, "LEARNED or a number"),
        (HypersphericalNetworks(depth=16, actor_depth=4), 64, "a number for `step`"),
        (ResidualNetworks(style=ResidualStyle(tied=True)), 16, "depth is a number"),
        (MLPNetworks(), 4, "MLPNetworks is neither"),
        (residual(ResidualScale.ONE), 6, "Use a multiple of 4"),
    ],
)
def test_depths_that_cannot_be_had_are_refused(architecture, depth, message):
    with pytest.raises(ValueError, match=message):
        with_depth(architecture, depth)
