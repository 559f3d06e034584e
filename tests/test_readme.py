"""The README's examples, run as they stand there."""

from pages import blocks

from crlx.envs.ogbench import collect

ENVIRONMENT, VARIANT, *_ = blocks("README.md")
DATASET = "pointmaze-medium-navigate-local"


def test_the_variant_composed_in_the_readme_learns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    collect(DATASET, tmp_path / "data" / "ogbench")
    found = {}
    exec(compile(VARIANT, "README.md", "exec"), found)
    losses = found["history"]["critic/loss"]
    assert losses[-20:].mean() < 0.75 * losses[:20].mean()
    assert found["progress"].step == 300


def test_the_environments_of_the_readme_start():
    found = {}
    exec(compile(ENVIRONMENT, "README.md", "exec"), found)
    assert found["state"].obs.shape == (64, 31)


def test_the_variant_takes_less_than_forty_lines():
    defined = VARIANT.partition("class Chebyshev")[2].partition("\ndata, _ = load")[0]
    lines = [line for line in defined.splitlines() if line.strip()]
    assert len(lines) < 40
