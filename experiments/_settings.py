"""OGBench's recorded settings of each dataset (Park et al., arXiv 2410.20092, hyperparameters)."""

from crlx import AbstractHindsight, Anywhere, Mixture, Uniform
from crlx.envs.ogbench import environment_name

_MANIPULATION = ("cube", "scene", "puzzle")
_AGENTS = ("gcivl", "gciql", "qrl", "crl", "hiql")

# Weights of cloning in DDPG+BC, inverse temperatures in AWR, in the order of the agents; the
# first matching row counts.
_ALPHAS = (
    ("pointmaze", "", (10.0, 0.003, 0.0003, 0.03, 3.0)),
    ("antmaze", "explore", (10.0, 0.01, 0.001, 0.003, 10.0)),
    ("antmaze", "", (10.0, 0.3, 0.003, 0.1, 3.0)),
    ("humanoidmaze", "", (10.0, 0.1, 0.001, 0.1, 3.0)),
    ("antsoccer", "", (10.0, 0.1, 0.003, 0.3, 3.0)),
    ("", "play", (10.0, 1.0, 0.3, 3.0, 3.0)),
    ("", "noisy", (10.0, 0.03, 0.03, 0.1, 3.0)),
)


def alpha(agent: str, dataset: str) -> float:
    """Of the actor of `gcivl`, `gciql`, `qrl`, `crl` or `hiql`."""
    environment, kind = _parts(dataset)
    for prefix, style, alphas in _ALPHAS:
        if environment.startswith(prefix) and style in ("", kind):
            return alphas[_AGENTS.index(agent)]
    raise ValueError(f"OGBench records no setting for {dataset}.")


def awr_alpha(agent: str, dataset: str) -> float:
    """The inverse temperature of AWR. For agents that OGBench gives another actor, it records one
    for powderworld alone, which serves here for all datasets."""
    return alpha("gcivl", dataset) if agent == "gcivl" else 3.0


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


def subgoal_steps(dataset: str) -> int:
    """How far ahead the subgoals of the hierarchical agent lie."""
    environment, _ = _parts(dataset)
    if environment.startswith("humanoidmaze"):
        return 100
    return 10 if environment.startswith(_MANIPULATION) else 25


def _parts(dataset: str) -> tuple[str, str]:
    """`antmaze-giant-stitch-v0` is an environment, `antmaze-giant`, and a kind, `stitch`."""
    environment, kind, _ = environment_name(dataset).rsplit("-", 2)
    return environment, kind
