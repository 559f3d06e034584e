import json

import pytest

from experiments.plot_metrics import Options, main, read


@pytest.fixture
def runs(tmp_path):
    for name, factor in (("a", 1.0), ("b", 2.0)):
        (tmp_path / name).mkdir()
        lines = [{"event": "start", "config": {}}]
        lines += [{"step": s, "critic/loss": factor / s, "actor/loss": s} for s in (10, 20, 30)]
        lines += [{"step": 20, "critic/loss": 7.0, "actor/loss": 0.0}]  # Logged again, resumed.
        lines += [{"step": 30, "event": "evaluation", "overall_success": 0.5}]
        (tmp_path / name / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return tmp_path / "a", tmp_path / "b"


def test_lines_come_in_order_and_once(runs):
    assert [(x["step"], x["critic/loss"]) for x in read(runs[0])] == [
        (10, 0.1),
        (20, 7.0),
        (30, 1 / 30),
    ]


def test_evaluations_stand_beside_training(runs):
    last = read(runs[0])[-1]
    assert (last["step"], last["actor/loss"], last["overall_success"]) == (30, 30, 0.5)


def test_a_picture_is_written(runs, tmp_path):
    out = tmp_path / "new" / "metrics.png"
    main(Options(runs, ("critic/loss", "overall_success"), ("one", "two"), ("critic/loss",), out))
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runs": ()}, "at least one folder"),
        ({"labels": ("only one",)}, "as many labels"),
        ({"log": ("critic/other",)}, "which --metrics does not"),
    ],
)
def test_impossible_options_are_refused(runs, change, message):
    with pytest.raises(ValueError, match=message):
        Options(**{"runs": runs, **change})


def test_what_was_not_logged_is_named(runs, tmp_path):
    with pytest.raises(ValueError, match="logged no critic/penalty"):
        main(Options(runs, ("critic/penalty",), out=tmp_path / "x.png"))
    with pytest.raises(ValueError, match="holds no metrics"):
        main(Options((tmp_path,), ("critic/loss",)))
