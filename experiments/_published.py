"""Success that OGBench reports: Park et al., arXiv 2410.20092 v2, tables 2 and 5."""

import typing

from crlx.envs.ogbench import environment_name

SOURCE = "OGBench (Park et al., arXiv 2410.20092 v2, tables 2 and 5)"
STEPS, BATCH_SIZE, SEEDS, EPISODES = 1_000_000, 1024, 8, 50


class Score(typing.NamedTuple):
    """Success in percent over seeds: mean and standard deviation."""

    mean: float
    std: float


# State datasets, whose names end in -v0; the agents are named as objectives are.
_AGENTS = ("gcbc", "gcivl", "gciql", "qrl", "crl", "hiql")
_TABLE = """
pointmaze-medium-navigate    9±6   63±6  53±8  82±5  29±7  79±5
pointmaze-large-navigate     29±6  45±5  34±3  86±9  39±7  58±5
pointmaze-giant-navigate     1±2   0±0   0±0   68±7  27±10 46±9
pointmaze-teleport-navigate  25±3  45±3  24±7  4±4   24±6  18±4
pointmaze-medium-stitch      23±18 70±14 21±9  80±12 0±1   74±6
pointmaze-large-stitch       7±5   12±6  31±2  84±15 0±0   13±6
pointmaze-giant-stitch       0±0   0±0   0±0   50±8  0±0   0±0
pointmaze-teleport-stitch    31±9  44±2  25±3  9±5   4±3   34±4
antmaze-medium-navigate      29±4  72±8  71±4  88±3  95±1  96±1
antmaze-large-navigate       24±2  16±5  34±4  75±6  83±4  91±2
antmaze-giant-navigate       0±0   0±0   0±0   14±3  16±3  65±5
antmaze-teleport-navigate    26±3  39±3  35±5  35±5  53±2  42±3
antmaze-medium-stitch        45±11 44±6  29±6  59±7  53±6  94±1
antmaze-large-stitch         3±3   18±2  7±2   18±2  11±2  67±5
antmaze-giant-stitch         0±0   0±0   0±0   0±0   0±0   2±2
antmaze-teleport-stitch      31±6  39±3  17±2  24±5  31±4  36±2
antmaze-medium-explore       2±1   19±3  13±2  1±1   3±2   37±10
antmaze-large-explore        0±0   10±3  0±0   0±0   0±0   4±5
antmaze-teleport-explore     2±1   32±2  7±3   2±2   20±2  34±15
humanoidmaze-medium-navigate 8±2   24±2  27±2  21±8  60±4  89±2
humanoidmaze-large-navigate  1±0   2±1   2±1   5±1   24±4  49±4
humanoidmaze-giant-navigate  0±0   0±0   0±0   1±0   3±2   12±4
humanoidmaze-medium-stitch   29±5  12±2  12±3  18±2  36±2  88±2
humanoidmaze-large-stitch    6±3   1±1   0±0   3±1   4±1   28±3
humanoidmaze-giant-stitch    0±0   0±0   0±0   0±0   0±0   3±2
antsoccer-arena-navigate     5±1   47±3  50±2  8±2   23±2  58±2
antsoccer-medium-navigate    2±0   4±1   7±1   2±2   3±1   13±2
antsoccer-arena-stitch       24±8  21±3  2±0   1±1   1±0   15±1
antsoccer-medium-stitch      2±1   1±0   0±0   0±0   0±0   4±1
cube-single-play             6±2   53±4  68±6  5±1   19±2  15±3
cube-double-play             1±1   36±3  40±5  1±0   10±2  6±2
cube-triple-play             1±1   1±0   3±1   0±0   4±1   3±1
cube-quadruple-play          0±0   0±0   0±0   0±0   0±0   0±0
cube-single-noisy            8±3   71±9  99±1  25±6  38±2  41±6
cube-double-noisy            1±1   14±3  23±3  3±1   2±1   2±1
cube-triple-noisy            1±1   9±1   2±1   1±0   3±1   2±1
cube-quadruple-noisy         0±0   0±0   0±0   0±0   0±0   0±0
scene-play                   5±1   42±4  51±4  5±1   19±2  38±3
scene-noisy                  1±1   26±5  26±2  9±2   1±1   25±4
puzzle-3x3-play              2±0   6±1   95±1  1±0   3±1   12±2
puzzle-4x4-play              0±0   13±2  26±3  0±0   0±0   7±2
puzzle-4x5-play              0±0   7±1   14±1  0±0   1±0   4±1
puzzle-4x6-play              0±0   10±2  12±1  0±0   4±1   3±1
puzzle-3x3-noisy             1±0   42±19 94±3  0±0   30±6  51±11
puzzle-4x4-noisy             0±0   20±3  29±7  0±0   0±0   16±4
puzzle-4x5-noisy             0±0   19±0  19±0  0±0   3±2   5±1
puzzle-4x6-noisy             0±0   17±2  18±2  0±0   6±3   2±1
"""


def _row(line: str) -> tuple[str, dict[str, Score]]:
    name, *scores = line.split()
    pairs = (map(float, score.split("±")) for score in scores)
    return f"{name}-v0", {a: Score(*pair) for a, pair in zip(_AGENTS, pairs, strict=True)}


PUBLISHED = dict(map(_row, _TABLE.strip().splitlines()))
"""By dataset and objective."""


def published(dataset: str, objective: str) -> Score | None:
    """What OGBench reports; for a local dataset, of its official counterpart.

    **Returns:** None for an objective that OGBench does not have.
    """
    return PUBLISHED[environment_name(dataset)].get(objective)
