"""OGBench's recorded settings of each dataset (Park et al., arXiv 2410.20092, hyperparameters)."""

from crlx import AbstractHindsight, Anywhere, Mixture, Uniform
from crlx.envs.ogbench import environment_name

# Weight of cloning in DDPG+BC for the contrastive agent; the first matching row counts.
_CONTRASTIVE_ALPHA = (
    ("pointmaze", "", 0.03),
    ("antmaze", "explore", 0.003),
    ("antmaze", "", 0.1),
    ("humanoidmaze", "", 0.1),
    ("antsoccer", "", 0.3),
    ("", "play", 3.0),
    ("", "noisy", 0.1),
)


def contrastive_alpha(dataset: str) -> float:
    """Weight of cloning for the contrastive agent with DDPG+BC."""
    environment, kind = _parts(dataset)
    for prefix, style, alpha in _CONTRASTIVE_ALPHA:
        if environment.startswith(prefix) and style in ("", kind):
            return alpha
    raise ValueError(f"OGBench records no setting for {dataset}; pass --objective.actor.alpha.")


def discount(dataset: str) -> float:
    """0.995 where episodes are long, else 0.99."""
    environment, _ = _parts(dataset)
    long = environment.startswith("humanoidmaze") or environment.endswith("giant")
    return 0.995 if long else 0.99


def actor_goals(dataset: str) -> AbstractHindsight:
    """Where the actor's goals come from; cloning alone always uses `Uniform`."""
    _, kind = _parts(dataset)
    if kind == "stitch":
        return Mixture((Uniform(), Anywhere()), (0.5, 0.5))
    return Anywhere() if kind == "explore" else Uniform()


def _parts(dataset: str) -> tuple[str, str]:
    """`antmaze-giant-stitch-v0` is an environment, `antmaze-giant`, and a kind, `stitch`."""
    environment, kind, _ = environment_name(dataset).rsplit("-", 2)
    return environment, kind
