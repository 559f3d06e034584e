"""The paper's tasks and their family, on Brax and MJX. Needs the extra `envs`."""

from ._fusion import steady_fusion as _steady_fusion

_steady_fusion()

from ._ant import Ant as Ant  # noqa: E402
from ._arenas import AbstractArena as AbstractArena  # noqa: E402
from ._arenas import Cells as Cells  # noqa: E402
from ._arenas import Corridor as Corridor  # noqa: E402
from ._arenas import Places as Places  # noqa: E402
from ._arenas import Ring as Ring  # noqa: E402
from ._body import AbstractBody as AbstractBody  # noqa: E402
from ._env import GoalEnv as GoalEnv  # noqa: E402
from ._humanoid import Humanoid as Humanoid  # noqa: E402
from ._layouts import LAYOUTS as LAYOUTS  # noqa: E402
from ._locomotion import Locomotion as Locomotion  # noqa: E402
from ._make import far_goals as far_goals  # noqa: E402
from ._make import make as make  # noqa: E402
from ._make import task_names as task_names  # noqa: E402
from ._maze import Maze as Maze  # noqa: E402
from ._point import Point as Point  # noqa: E402
from ._spec import Backend as Backend  # noqa: E402
from ._spec import Radii as Radii  # noqa: E402
from ._spec import Reward as Reward  # noqa: E402
from ._spec import TaskSpec as TaskSpec  # noqa: E402
from ._spec import Timing as Timing  # noqa: E402
from ._task import AbstractTask as AbstractTask  # noqa: E402
from ._task import Moment as Moment  # noqa: E402
from ._task import Start as Start  # noqa: E402
from ._task import Traits as Traits  # noqa: E402
