import functools

import jax
import pytest
import references
from lengths import at_length

from crlx.envs.tasks import Timing, make

# Our names of the reference's tasks, where they differ.
_NAMES = {"humanoid_0.0015": "humanoid", "simple_u_maze": "point_u_maze"}
_TIMINGS = {"humanoid_0.0015": Timing(0.0015, 10)}
_TASKS = (
    "ant",
    "ant_u_maze",
    "ant_big_maze",
    "humanoid",
    "humanoid_0.0015",
    "humanoid_hardest_maze",
    "simple_u_maze",
)
# At length only: each has the bodies and the physics of another, or the body of one and the walls
# of another.
_ALIKE = ("ant_u_maze", "ant_big_maze", "humanoid_hardest_maze", "humanoid_0.0015")


@functools.cache
def _compiled(name):
    env = make(_NAMES.get(name, name), timing=_TIMINGS.get(name))
    return env.spec, jax.jit(env.place), jax.jit(env.step)


@pytest.mark.parametrize("name", _TASKS)
def test_specification(name):
    record, (spec, *_) = references.task(name), _compiled(name)
    for key in ("backend", "action_size", "state_size", "goal_size"):
        assert getattr(spec, key) == record[key]
    assert list(range(*spec.goal_indices)) == record["goal_indices"]
    assert spec.timing == Timing(record["physics_dt"], record["frames"])
    assert spec.control_dt == pytest.approx(record["control_dt"])


_CASES = list(references.cases(*_TASKS))


@pytest.mark.parametrize("name, case", at_length(_CASES, [c for c in _CASES if c[0] not in _ALIKE]))
def test_trajectory(name, case):
    spec, place, step = _compiled(name)
    references.compare(place, step, spec, references.task(name)["cases"][case])
