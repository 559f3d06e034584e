"""What the tests of arms share."""

import copy
import functools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from crlx.envs.tasks import GoalEnv
from crlx.envs.tasks._arm_tasks import ARMS

NAMES = tuple(ARMS)
SIZES = {"arm_reach": (13, 3, 4, (7, 10)), "arm_grasp": (23, 7, 5, (16, 23))}
POSE = (1.571, 0.742, 0.0, -1.571, 0.0, 3.054, 1.449)
JOINTS = tuple(f"joint{number}" for number in range(1, 8))
FINGERS = ("left_finger", "right_finger")
OTHER_NAMES = {"finger_joint1": "left_finger", "finger_joint2": "right_finger"}
STEPS = 40
LIKE = {"arm_push_hard": "arm_push_easy", "arm_binpick_hard": "arm_binpick_easy"}


@functools.cache
def environment(name):
    return GoalEnv(name, ARMS[name]())


@functools.cache
def program(name):
    """Places and steps in one program, which compiles in less time than two."""
    env = environment(name)

    @jax.jit
    def run(sys, start, actions):
        twin = copy.copy(env)
        twin.sys = sys

        def step(state, action):
            state = twin.step(state, action)
            return state, outcome(state)

        state = twin.place(*start)
        return outcome(state), jax.lax.scan(step, state, actions)[1]

    return run


def outcome(state):
    """A state with less of the physics: positions, velocities and how many contacts there are."""
    physics = state.pipeline_state
    active = jnp.sum(physics._impl.contact.dist < 0)
    return state.replace(pipeline_state=(physics.q, physics.qd, active))


def rollout(name, start, actions):
    """The start and what follows it, up to STEPS steps. Tasks that differ in numbers alone share
    a program."""
    env, like = environment(name), LIKE.get(name, name)
    sys = jax.tree.unflatten(jax.tree.structure(environment(like).sys), jax.tree.leaves(env.sys))
    actions = np.asarray(actions, np.float32).reshape(-1, env.action_size)
    padded = np.pad(actions, ((0, STEPS - len(actions)), (0, 0)))
    first, rest = jax.tree.map(np.array, program(like)(sys, start, padded))
    after = (jax.tree.map(lambda leaf, i=i: leaf[i], rest) for i in range(len(actions)))
    return [first, *after]


def observed(env, state):
    """State and goal."""
    return np.split(state.obs, [env.spec.state_size])


@functools.cache
def starts(name, count=3000):
    env = environment(name)
    draw = jax.vmap(lambda key: env.task.start(env.sys, key=key))
    drawn = draw(jr.split(jr.key(0), count))
    return np.array(drawn.q), np.array(drawn.qd), np.array(drawn.goal)


def places(env, joints):
    return [env.sys.mj_model.joint(name).qposadr[0] for name in joints]


def named(names, values):
    """Of a record, what is simulated here too: all but the mark at the goal."""
    pairs = zip(names, values, strict=True)
    return {OTHER_NAMES.get(name, name): value for name, value in pairs if "marker" not in name}


def translated(env, record, case):
    """The start of a case, with positions and velocities in the order of this model."""
    q, qd = named(record["q_names"], case["q"]), named(record["qd_names"], case["qd"])
    links = [name for name in env.sys.link_names if name != "cube"]
    joints = [name.replace("link", "joint") for name in links]
    own = (
        [values[name] for name in (*(n for n in values if "cube" in n), *joints)]
        for values in (q, qd)
    )
    return tuple(jnp.array(values, jnp.float32) for values in (*own, case["goal"]))


def rest(env, cube, goal):
    """A start with the cube and the goal in given places."""
    q = np.array(env.sys.init_q, np.float32)
    q[places(env, JOINTS)] = POSE
    if "cube" in env.sys.link_names:
        q[:3] = cube
        q[places(env, FINGERS)] = 0.04
    return jnp.array(q), jnp.zeros(env.sys.qd_size()), jnp.array(goal, jnp.float32)
