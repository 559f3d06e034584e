"""Batches of environments for training and for evaluation."""

from ._autoreset import AutoReset as AutoReset
from ._evaluate import TaskEvaluation as TaskEvaluation
from ._evaluate import TaskEvaluator as TaskEvaluator
from ._evaluate import Trace as Trace
from ._scores import Scored as Scored
from ._scores import Scores as Scores
from ._scores import scores as scores
from ._wrappers import TimeLimit as TimeLimit
from ._wrappers import evaluation as evaluation
from ._wrappers import training as training
