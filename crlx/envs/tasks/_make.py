import difflib
import functools
import re
from collections.abc import Callable

from ._ant import Ant
from ._ant_ball import BALL_LAYOUTS, AntBall
from ._ant_push import AntPush
from ._arenas import Cells, Corridor, Ring
from ._arm_tasks import ARMS
from ._body import AbstractBody
from ._cheetah import Cheetah
from ._env import GoalEnv
from ._humanoid import Humanoid
from ._layouts import LAYOUTS
from ._locomotion import Locomotion
from ._point import Point
from ._processes import keep_to_own_devices
from ._pusher import HARD_GOALS, Pusher
from ._reacher import Reacher
from ._spec import Backend, Reward, Timing
from ._task import AbstractTask

_BODIES: dict[str, Callable[[], AbstractBody]] = {
    "ant": Ant,
    "humanoid": Humanoid,
    "point": Point,
}
_SINGLE: dict[str, Callable[[], AbstractTask]] = {
    "ant": lambda: Locomotion(Ant(), Ring(10.0, 10.0)),
    "ant_random_start": lambda: Locomotion(Ant(), Ring(10.0, 10.0, random_start=True)),
    "humanoid": lambda: Locomotion(Humanoid(), Ring(1.0, 5.0)),
    "ant_ball": AntBall,
    **{f"ant_ball_{name}": functools.partial(AntBall, text) for name, text in BALL_LAYOUTS.items()},
    "ant_push": AntPush,
    **ARMS,
    "reacher": Reacher,
    "pusher_easy": Pusher,
    "pusher_hard": lambda: Pusher(HARD_GOALS),
    "cheetah": Cheetah,
}
_CORRIDORS = ("u_maze", "u2_maze", "u3_maze", "u4_maze", "u5_maze")
_STITCHING = re.compile(rf"(\w+?)_({'|'.join(_CORRIDORS)})_gen_((?:\d+f)+)")


def make(
    name: str,
    *,
    backend: Backend | None = None,
    timing: Timing | None = None,
    reward: Reward = "dense",
    episode_length: int = 1000,
) -> GoalEnv:
    """An environment by its name.

    **Arguments:**

    - `name`: one of `task_names()`, or `BODY_LAYOUT_gen_STEPS`, such as `ant_u_maze_gen_1f2f3f`,
      for goals one, two or three cells ahead of starts in a corridor.
    - `backend`, `timing`: physics; None for the paper's, where the task is the paper's.
    - `reward`: "dense", as in the paper's code, or "sparse".
    - `episode_length`: control steps.

    **Raises:** `ValueError` for an unknown name, or for physics that the task does not run on.
    """
    keep_to_own_devices()
    options = {"backend": backend, "timing": timing}
    return GoalEnv(name, _task(name), **options, reward=reward, episode_length=episode_length)


def task_names() -> list[str]:
    """All names that `make` knows, but for stitching at distances of choice."""
    mazes = [f"{body}_{layout}" for body in _BODIES for layout in LAYOUTS]
    return [*_SINGLE, *mazes, *(f"ant_{layout}_gen_1f2f3f" for layout in _CORRIDORS)]


def far_goals(name: str) -> str | None:
    """The task with far goals only that belongs to a maze, or None."""
    far = f"{name}_eval"
    return far if far in task_names() else None


def _task(name: str) -> AbstractTask:
    if name in _SINGLE:
        return _SINGLE[name]()
    body, _, layout = name.partition("_")
    if body in _BODIES and layout in LAYOUTS:
        if body != "ant" and layout == "big_maze_eval":
            layout = "big_maze_eval_10"  # The ant's alone has nine goals in the paper's code.
        return Locomotion(_BODIES[body](), Cells(LAYOUTS[layout]))
    stitching = _STITCHING.fullmatch(name)
    if stitching is not None and stitching[1] in _BODIES:
        # A corridor ends at the farthest goal.
        drawing = LAYOUTS[f"{stitching[2]}_single_eval"]
        steps = tuple(int(step) for step in stitching[3].split("f")[:-1])
        return Locomotion(_BODIES[stitching[1]](), Corridor(drawing, steps))
    close = ", ".join(difflib.get_close_matches(name, task_names(), n=5, cutoff=0.4))
    raise ValueError(
        f"There is no task {name!r}. {f'Do you mean one of {close}? ' if close else ''}"
        "task_names() lists all of them."
    )
