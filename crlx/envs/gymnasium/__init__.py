"""Policies evaluated on gymnasium's environments, which are simulated on the host."""

from ._batch import Batch as Batch
from ._batch import Policy as Policy
from ._batch import numpy_untouched as numpy_untouched
from ._evaluator import GoalEvaluator as GoalEvaluator
from ._trial import Trial as Trial
from ._trial import scores as scores
