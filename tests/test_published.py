import pytest

from crlx.envs.ogbench import LOCAL, OFFICIAL
from experiments._objectives import OBJECTIVES
from experiments._published import PUBLISHED, published


@pytest.mark.parametrize(
    ("dataset", "objective", "expected"),
    [
        ("pointmaze-medium-stitch", "qrl", (80, 12)),
        ("cube-single-noisy", "gciql", (99, 1)),
        ("puzzle-3x3-play", "gciql", (95, 1)),
        ("pointmaze-medium-navigate", "gcbc", (9, 6)),
        ("pointmaze-medium-stitch", "gcivl", (70, 14)),
        ("cube-single-noisy", "crl", (38, 2)),
        ("antmaze-teleport-explore", "hiql", (34, 15)),
        ("puzzle-4x6-noisy", "hiql", (2, 1)),
    ],
)
def test_scores_are_those_of_the_paper(dataset, objective, expected):
    assert published(f"{dataset}-v0", objective) == expected


def test_every_official_dataset_has_the_scores_of_six_agents():
    assert PUBLISHED.keys() == set(OFFICIAL)
    agents = {"crl", "gcbc", "gcivl", "gciql", "qrl", "hiql"}
    assert agents <= OBJECTIVES.keys()
    for scores in PUBLISHED.values():
        assert scores.keys() == agents
        assert all(0 <= s.mean <= 100 and 0 <= s.std <= 19 for s in scores.values())


def test_local_datasets_have_the_scores_of_their_counterparts():
    for name in LOCAL:
        official = f"{name.removesuffix('-local')}-v0"
        assert published(name, "hiql") == published(official, "hiql") is not None


def test_other_objectives_have_no_score():
    assert published("pointmaze-medium-navigate-local", "infonce") is None
    with pytest.raises(ValueError, match="There is no dataset 'pointmaze'"):
        published("pointmaze", "crl")
