"""Environments of other libraries as tasks: what `crlx.envs.tasks.GoalEnv` offers, of theirs.

Those simulated on the host are for evaluation: OGBench's by `crlx.envs.ogbench.Evaluator`, other
goal-conditioned ones of gymnasium by `crlx.envs.gymnasium.GoalEvaluator`.
"""

from ._aims import Aims as Aims
from ._brax import FromBrax as FromBrax
from ._playground import FromPlayground as FromPlayground
from ._playground import PlaygroundEnv as PlaygroundEnv
