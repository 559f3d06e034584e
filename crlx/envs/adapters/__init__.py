"""Environments of other libraries as tasks: what `crlx.envs.tasks.GoalEnv` offers, of theirs.

OGBench's, which are simulated on the host, are evaluated by `crlx.envs.ogbench.Evaluator`.
"""

from ._aims import Aims as Aims
from ._brax import FromBrax as FromBrax
from ._playground import FromPlayground as FromPlayground
from ._playground import PlaygroundEnv as PlaygroundEnv
