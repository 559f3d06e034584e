import dataclasses
import json
import pathlib

import jax.numpy as jnp
import pytest

import architectures as nets
import objectives as obj
from crlx import Affine, Geometric, Mixture, Spec, Uniform, decode, encode

CONFIGURATIONS = (
    obj.Contrastive(contrast=obj.Binary(), actor=obj.AWR(3.0), ensemble=2),
    obj.Contrastive(actor_goals=Mixture((Uniform(), Geometric(0.9)), (0.25, 0.75))),
    obj.GCBC(Geometric(0.5)),
    nets.ResidualNetworks(depth=8, energy=nets.Cosine(0.2), remat=nets.Remat.BLOCK),
    nets.MLPNetworks(width=3),
    Spec(2, 1, 2, Affine((1.0, 2.0), (3.0, 4.0))),
)


@pytest.mark.parametrize("value", CONFIGURATIONS, ids=lambda v: type(v).__name__)
def test_a_configuration_survives_json(value):
    assert decode(json.loads(json.dumps(encode(value)))) == value


def test_types_go_by_the_name_that_users_import():
    assert encode(nets.Norm()) == {"type": "architectures.Norm"}
    assert encode(nets.Remat.BLOCK) == {"type": "architectures.Remat", "member": "BLOCK"}


def test_paths_become_text_and_sequences_tuples():
    assert encode({"path": pathlib.Path("a/b"), "list": [1, (2.5, None)]}) == {
        "path": "a/b",
        "list": [1, [2.5, None]],
    }
    assert decode([1, [2]]) == (1, (2,))


def test_arrays_are_refused():
    with pytest.raises(TypeError, match="cannot hold"):
        encode({"x": jnp.zeros(2)})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"type": "nowhere.Thing"}, "cannot be imported"),
        ({"type": "architectures.Nothing"}, "cannot be imported"),
        ({"type": "architectures.dense"}, "not a type"),
        ({"type": "builtins.dict"}, "neither a dataclass"),
        ({"type": "architectures.Norm", "gone": 1}, "no longer takes"),
    ],
)
def test_what_cannot_be_rebuilt_is_named(value, message):
    with pytest.raises(ValueError, match=message):
        decode(value)


@dataclasses.dataclass(frozen=True)
class Outsider:
    """As a user's own module may define it."""

    size: int = 3


def test_types_of_other_modules_go_by_their_full_name():
    assert encode(Outsider(4)) == {"type": f"{__name__}.Outsider", "size": 4}
    assert decode(encode(Outsider(4))) == Outsider(4)
