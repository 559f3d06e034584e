import dataclasses
import typing
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from numpy.random import mtrand
from ogbench.manipspace.oracles.markov.button_markov import ButtonMarkovOracle
from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle
from ogbench.manipspace.oracles.markov.drawer_markov import DrawerMarkovOracle
from ogbench.manipspace.oracles.markov.window_markov import WindowMarkovOracle
from ogbench.manipspace.oracles.plan.button_plan import ButtonPlanOracle
from ogbench.manipspace.oracles.plan.cube_plan import CubePlanOracle
from ogbench.manipspace.oracles.plan.drawer_plan import DrawerPlanOracle
from ogbench.manipspace.oracles.plan.window_plan import WindowPlanOracle

from ..gymnasium import numpy_untouched
from ._episodes import make, seed_generators

Columns = dict[str, npt.NDArray[typing.Any]]
"""The arrays of a file of OGBench by name, without `terminals`."""

# Between which the chance of stacking a cube on another is drawn, per episode.
_STACK = {
    "cube-single": (0.0, 0.0),
    "cube-double": (0.0, 0.25),
    "cube-triple": (0.05, 0.35),
    "cube-quadruple": (0.1, 0.5),
}
_NOISE = 0.1  # An episode's scale of noise is drawn between 0 and this.
_SPREAD = np.array([1.0, 1.0, 1.0, 3.0, 10.0])  # Position, yaw and gripper.
_STATE = ("qpos", "qvel", "button_states")


@typing.runtime_checkable  # By tests.
class _Oracle(typing.Protocol):
    @property
    def done(self) -> bool: ...

    def reset(self, ob: object, info: Mapping[str, object], /) -> None: ...

    def select_action(
        self, ob: object, info: Mapping[str, object], /
    ) -> npt.NDArray[np.float64]: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Trajectory:
    """What was seen and done at each step of one episode.

    **Arguments:**

    - `columns`: `observations`, `actions`, `qpos`, `qvel` and, where there are buttons,
      `button_states`, each `[rows, ...]`; all but the actions are from before the action.
    - `success`: `[rows]`, whether what was to be moved was on its target after the action.
    - `finished`: `[rows]`, whether the oracle was then done, and the target replaced.
    - `random`: `[rows]`, whether the action was drawn at random instead of by the oracle.
    """

    columns: Columns
    success: npt.NDArray[np.bool_]
    finished: npt.NDArray[np.bool_]
    random: npt.NDArray[np.bool_]


class Manipulation:
    """OGBench's oracles at work in one of its manipulation environments.

    `play` follows plans that are made for a whole target and carry their own noise. `noisy` looks
    at each state anew, adds noise of a scale drawn per episode, and acts at random now and then.
    Whenever an oracle is done, a new target is set.
    Source: OGBench, arXiv 2410.20092, appendix on datasets.
    """

    def __init__(self, environment: str, style: str):
        """**Arguments:**

        - `environment`: `cube-single` ... `cube-quadruple`, `scene` or `puzzle-3x3` ...
          `puzzle-4x6`.
        - `style`: `play` or `noisy`.
        """
        self._env: typing.Any = make(f"{environment}-{style}-v0", collecting=True).unwrapped
        puzzle, noisy = environment.startswith("puzzle"), style == "noisy"
        self._oracles = (_markov if noisy else _plan)(self._env, closed=puzzle)
        self._stack = _STACK.get(environment, (0.5, 0.5))
        self._noise = _NOISE if noisy else 0.0
        self._chance = (0.2 if puzzle else 0.1) if noisy else 0.0
        self._scene = environment == "scene"
        with numpy_untouched():
            # The first reset builds the model and tunes it late: an episode from it would differ.
            self._env.reset()

    def episode(self, rows: int, *, seed: int, number: int) -> Trajectory:
        """Collects one episode, which depends on the arguments alone, not on those before.

        **Arguments:**

        - `rows`: how many steps; it never ends early.
        - `seed`: of the dataset.
        - `number`: of the episode in the dataset. Its randomness is the child of that number that
          `SeedSequence(seed).spawn` gives.
        """
        seeds = np.random.SeedSequence(seed, spawn_key=(number,))
        with numpy_untouched():
            mtrand.set_bit_generator(seed_generators(self._env, seeds))
            rng = np.random.default_rng(seeds.spawn(1)[0])
            while True:
                trajectory = self._attempt(rows, rng)
                if not self._scene or in_sight(self._cube(trajectory)):
                    return trajectory

    def _attempt(self, rows: int, rng: np.random.Generator) -> Trajectory:
        env = self._env
        observation, info = env.reset()
        stack, noise = rng.uniform(*self._stack), rng.uniform(0, self._noise)
        oracle = self._aim(observation, info)
        columns, state = _blank(rows, observation, info), [key for key in _STATE if key in info]
        random = rng.random(rows) < self._chance
        success, finished = np.zeros((2, rows), bool)
        for t in range(rows):
            if random[t]:
                action = env.action_space.sample()
            else:
                action = oracle.select_action(observation, info)
                action = action + noise * _SPREAD * rng.standard_normal(5)
            # Rounded as in the file before it acts, so that what is stored is what was done.
            action = np.clip(action, -1, 1).astype(np.float32)
            columns["observations"][t], columns["actions"][t] = observation, action
            observation, _, _, _, info = env.step(action)
            for key in state:
                columns[key][t] = info[f"prev_{key}"]
            success[t], finished[t] = info["success"], oracle.done
            if oracle.done:
                # In OGBench, the first action towards it still sees the target before, in a scene
                # perhaps that of another episode. Here it sees the new one.
                fresh, info = env.set_new_target(p_stack=stack)
                oracle = self._aim(fresh, info)
        return Trajectory(columns, success, finished, random)

    def _aim(self, observation: npt.NDArray[np.float64], info: dict[str, typing.Any]) -> _Oracle:
        """The oracle for the target that has just been set, ready to go."""
        oracle = self._oracles[info["privileged/target_task"]]
        oracle.reset(observation, info)
        return oracle

    def _cube(self, trajectory: Trajectory) -> npt.NDArray[np.float32]:
        start = int(self._env.model.joint("object_joint_0").qposadr[0])
        return trajectory.columns["qpos"][:, start : start + 3]


def in_sight(cube: npt.NDArray[np.float32]) -> bool:
    """Whether the cube of a scene stays where a camera sees it, or in the drawer.

    OGBench discards other episodes, whose images as goals would tell nothing of the cube.

    **Arguments:**

    - `cube`: `[rows, 3]`, its position.
    """
    _, y, z = cube.T
    behind = (y <= -0.3) & ((z < 0.06) | (z > 0.08))  # There, but not in the drawer.
    return not (behind | (y >= 0.29)).any()


def _blank(rows: int, observation: npt.NDArray[np.float64], info: dict[str, typing.Any]) -> Columns:
    columns: Columns = {
        "observations": np.empty((rows, len(observation)), np.float32),
        "actions": np.empty((rows, 5), np.float32),
        "qpos": np.empty((rows, len(info["qpos"])), np.float32),
        "qvel": np.empty((rows, len(info["qvel"])), np.float32),
    }
    if "button_states" in info:
        columns["button_states"] = np.empty((rows, len(info["button_states"])), np.int64)
    return columns


def _plan(env: typing.Any, *, closed: bool) -> dict[str, _Oracle]:
    # Noise of 0.1, smoothed over half a step, is their default.
    return {
        "cube": CubePlanOracle(env),
        "button": ButtonPlanOracle(closed, env),
        "drawer": DrawerPlanOracle(env),
        "window": WindowPlanOracle(env),
    }


def _markov(env: typing.Any, *, closed: bool) -> dict[str, _Oracle]:
    # A least distance of 0.4 is their default; the cube's gives up after 200 steps in any case.
    return {
        "cube": CubeMarkovOracle(env=env),
        "button": ButtonMarkovOracle(env=env, gripper_always_closed=closed),
        "drawer": DrawerMarkovOracle(env=env),
        "window": WindowMarkovOracle(env=env),
    }
