"""The model of the arm as it is simulated, made from tables of numbers; only primitive shapes."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import mujoco
import numpy as np


class _Link(NamedTuple):
    """A link of the arm, which turns about its z axis.

    Offset in metres and rotation about x in degrees, both from the link before; mass in kg, its
    centre in metres, its inertia about that in kg m² (xx, yy, zz, xy, xz, yz); the range of the
    joint in radians, if it has one.
    """

    offset: tuple[float, ...]
    turn: float
    mass: float
    centre: tuple[float, ...]
    inertia: tuple[float, ...]
    range: tuple[float, float] | None


class _Servo(NamedTuple):
    """Force `gain u - stiffness q - damping q'`, within ± `force`, for a control u in a range."""

    gain: float
    stiffness: float
    damping: float
    force: float
    range: tuple[float, float]


# Neither armature nor damping, and no limits on joints 1, 3, 5 and 7: what the paper's model says
# of those is lost when Brax fuses its bodies, so it is not simulated there either.
# fmt: off
_LINKS = (
    _Link((0.0, 0.0, 0.333), 0.0, 4.970684, (0.003875, 0.002081, -0.04762),
          (0.70337, 0.70661, 0.009117, -0.000139, 0.006772, 0.019169), None),
    _Link((0.0, 0.0, 0.0), -90.0, 0.646926, (-0.003141, -0.02872, 0.003495),
          (0.007962, 0.02811, 0.025995, -0.003925, 0.010254, 0.000704), (-1.7628, 1.7628)),
    _Link((0.0, -0.316, 0.0), 90.0, 3.228604, (0.027518, 0.039252, -0.066502),
          (0.037242, 0.036155, 0.01083, -0.004761, -0.011396, -0.012805), None),
    _Link((0.0825, 0.0, 0.0), 90.0, 3.587895, (-0.05317, 0.104419, 0.027454),
          (0.025853, 0.019552, 0.028323, 0.007796, -0.001332, 0.008641), (-3.0718, -0.0698)),
    _Link((-0.0825, 0.384, 0.0), -90.0, 1.225946, (-0.011953, 0.041065, -0.038437),
          (0.035549, 0.029474, 0.008627, -0.002117, -0.004037, 0.000229), None),
    _Link((0.0, 0.0, 0.0), 90.0, 1.666555, (0.060149, -0.014117, -0.010517),
          (0.001964, 0.004354, 0.005433, 0.000109, -0.001158, 0.000341), (-0.0175, 3.7525)),
    _Link((0.088, 0.0, 0.0), 90.0, 0.735522, (0.010517, -0.004252, 0.061597),
          (0.012516, 0.010027, 0.004815, -0.000428, -0.001196, -0.000741), None),
)
# fmt: on

# Gains are not the stiffness from joint 3 on, so that those joints come to rest at four sevenths
# (3 and 4) and at half (5 to 7) of what they are commanded. It shapes what the arm can reach.
_SERVOS = (
    _Servo(4500.0, 4500.0, 450.0, 87.0, (-2.8973, 2.8973)),
    _Servo(4500.0, 4500.0, 450.0, 87.0, (-1.7628, 1.7628)),
    _Servo(2000.0, 3500.0, 350.0, 87.0, (-2.8973, 2.8973)),
    _Servo(2000.0, 3500.0, 350.0, 87.0, (-3.0718, -0.0698)),
    _Servo(1000.0, 2000.0, 200.0, 12.0, (-2.8973, 2.8973)),
    _Servo(1000.0, 2000.0, 200.0, 12.0, (-0.0175, 3.7525)),
    _Servo(1000.0, 2000.0, 200.0, 12.0, (-2.8973, 2.8973)),
)

JOINTS = tuple(f"joint{number}" for number in range(1, 8))
FINGERS = ("left_finger", "right_finger")
FLANGE = "link7"

# Along the finger, from its origin to its tip, in metres.
FINGERTIP = (0.0, 0.005, 0.07)

_OPENING = 0.08  # Of each finger, in metres.
_FINGER_SERVO = _Servo(500 * _OPENING / 255, 500.0, 50.0, 500.0, (0.0, 255.0))
_FINGER_MASS, _FINGER_INERTIA = 0.015, (2.375e-6, 2.375e-6, 7.5e-7)
_TIP_MASS, _TIP_WIDTH = 0.001, 0.01

_PAINT = (0.85, 0.85, 0.87, 1.0)


def arm_model(*, cube: bool, tips: bool = False, drawn: bool) -> mujoco.MjSpec:
    """The arm on a table, the plane z = 0; its hand, part of `link7`, touches the table.

    Links are `link1` to `link7`; with a cube, which is the first link, two fingers follow.

    **Arguments:**

    - `cube`: whether there is one of 6 cm and 216 g, free to move, and fingers to hold it.
    - `tips`: whether the fingers carry tips, of 1 g each.
    - `drawn`: whether links have shapes to look at, which touch nothing.

    ??? cite
        Kinematics and inertias: the Franka Emika Panda of MuJoCo Menagerie (Apache-2.0, Zakka et
        al., 2022). Actuators and contacts: JaxGCRL (Bortkiewicz et al., ICLR 2025).
    """
    model = mujoco.MjSpec()
    model.modelname = "arm"
    model.compiler.degree = False
    model.option.timestep = 0.002
    model.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    model.option.iterations, model.option.ls_iterations = 6, 12
    model.worldbody.add_light(pos=[0, 0, 3], dir=[0, 0, -1])
    _add_geom(model.worldbody, "table", "plane", size=[2, 2, 0.1], rgba=[0.9, 0.87, 0.8, 1])
    if cube:
        _add_cube(model)
    wrist = _add_links(model, drawn=drawn)
    axis = math.sqrt(0.5) * np.array([1, 1, 0])  # Along which the fingers move.
    ends = np.concatenate([(0, 0, 0.142) - 0.06 * axis, (0, 0, 0.142) + 0.06 * axis])
    _add_geom(wrist, "hand", "capsule", fromto=ends, size=[0.04, 0, 0])
    for name, servo in zip(JOINTS, _SERVOS, strict=True):
        _add_servo(model, name, servo)
    add_pairs(model, [("table", "hand")])
    if cube:
        _add_fingers(model, wrist, tips=tips)
        add_pairs(model, [("cube", other) for other in ("table", "hand", *FINGERS)])
        add_pairs(model, [("table", FINGERS[0]), ("table", FINGERS[1]), FINGERS])
    return model


def add_box(
    model: mujoco.MjSpec,
    name: str,
    centre: Sequence[float],
    half: Sequence[float],
    rgba: Sequence[float],
) -> None:
    """Adds a box that stands still and touches only what `add_pairs` says."""
    _add_geom(model.worldbody, name, "box", pos=centre, size=half, rgba=rgba)


def add_pairs(model: mujoco.MjSpec, pairs: Iterable[tuple[str, str]]) -> None:
    """Lets pairs of geoms touch, with MuJoCo's defaults for pairs: a friction of 1."""
    for one, other in pairs:
        model.add_pair(name=f"{one}_{other}", geomname1=one, geomname2=other)


def _add_cube(model: mujoco.MjSpec) -> None:
    body = model.worldbody.add_body(name="cube", pos=[0, 0, 0.07])
    body.add_freejoint(name="cube")
    _add_geom(body, "cube", "box", size=[0.03] * 3, density=1000, rgba=[0.75, 0.3, 0.2, 1])


def _add_links(model: mujoco.MjSpec, *, drawn: bool) -> mujoco.MjsBody:
    """Adds the seven links, each to the one before; returns the last."""
    body = model.worldbody
    for number, link in enumerate(_LINKS, 1):
        if drawn and any(link.offset):
            ends = [0, 0, 0, *link.offset]
            name = f"drawn{number - 1}"
            _add_geom(body, name, "capsule", fromto=ends, size=[0.05, 0, 0], rgba=_PAINT)
        body = body.add_body(name=f"link{number}", pos=link.offset, quat=_turn(link.turn, "x"))
        _add_inertia(body, link.mass, link.centre, link.inertia)
        joint = {"limited": False} if link.range is None else {"limited": True, "range": link.range}
        hinge = mujoco.mjtJoint.mjJNT_HINGE
        body.add_joint(name=f"joint{number}", type=hinge, axis=[0, 0, 1], **joint)
    return body


def _add_fingers(model: mujoco.MjSpec, wrist: mujoco.MjsBody, *, tips: bool) -> None:
    """Adds two fingers that slide together."""
    for name, angle in zip(FINGERS, (-45.0, 135.0), strict=True):
        body = wrist.add_body(name=name, pos=[0, 0, 0.1654], quat=_turn(angle, "z"))
        _add_inertia(body, *_finger_inertia(tips=tips))
        slide = {"limited": True, "range": [0, _OPENING], "armature": 0.1, "damping": [5, 0, 0]}
        body.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, 1, 0], **slide)
        _add_geom(body, name, "box", pos=[0, 0.0055, 0.035], size=[0.015, 0.005, 0.04])
        _add_servo(model, name, _FINGER_SERVO)
    model.add_equality(
        name="fingers",
        type=mujoco.mjtEq.mjEQ_JOINT,
        objtype=mujoco.mjtObj.mjOBJ_JOINT,
        name1=FINGERS[0],
        name2=FINGERS[1],
        data=[0, 1, *[0] * 10],
        solref=[0.005, 1],
        solimp=[0.95, 0.99, 0.001, 0.5, 2],
    )


def _finger_inertia(*, tips: bool) -> tuple[float, np.ndarray, np.ndarray]:
    """Mass, its centre and inertia of a finger, alone or with a small cube at its tip."""
    if not tips:
        return _FINGER_MASS, np.zeros(3), np.array([*_FINGER_INERTIA, 0, 0, 0])
    mass, tip = _FINGER_MASS + _TIP_MASS, np.array(FINGERTIP)
    own = np.diag(_FINGER_INERTIA) + np.eye(3) * _TIP_MASS * _TIP_WIDTH**2 / 6
    apart = np.dot(tip, tip) * np.eye(3) - np.outer(tip, tip)
    full = own + _FINGER_MASS * _TIP_MASS / mass * apart
    return mass, _TIP_MASS / mass * tip, full[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]


def _add_inertia(
    body: mujoco.MjsBody,
    mass: float,
    centre: Sequence[float] | np.ndarray,
    full: Sequence[float] | np.ndarray,
) -> None:
    body.explicitinertial = True
    body.mass, body.ipos, body.fullinertia = mass, centre, full


def _add_servo(model: mujoco.MjSpec, name: str, servo: _Servo) -> None:
    model.add_actuator(
        name=name,
        target=name,
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        gaintype=mujoco.mjtGain.mjGAIN_FIXED,
        biastype=mujoco.mjtBias.mjBIAS_AFFINE,
        gainprm=[servo.gain, *[0] * 9],
        biasprm=[0, -servo.stiffness, -servo.damping, *[0] * 7],
        ctrllimited=True,
        ctrlrange=servo.range,
        forcelimited=True,
        forcerange=[-servo.force, servo.force],
    )


def _add_geom(body: mujoco.MjsBody, name: str, shape: str, **options) -> None:
    """Adds a geom that touches only what explicit pairs say."""
    shape = getattr(mujoco.mjtGeom, f"mjGEOM_{shape.upper()}")
    body.add_geom(name=name, type=shape, contype=0, conaffinity=0, **options)


def _turn(degrees: float, axis: str) -> list[float]:
    """The quaternion of a rotation about an axis."""
    half = math.radians(degrees) / 2
    return [math.cos(half), *(math.sin(half) * (axis == other) for other in "xyz")]
