import pathlib
import warnings

import brax.envs
import mujoco
from brax import base
from brax.io import mjcf

from ._layout import Layout


def packaged(name: str) -> mujoco.MjSpec:
    """A model that comes with Brax, open for changes."""
    file = pathlib.Path(brax.envs.__file__).parent / "assets" / name
    return mujoco.MjSpec.from_file(str(file))


def load(model: mujoco.MjSpec) -> base.System:
    """Compiles a model for Brax, by way of XML: Brax fuses bodies without joints there."""
    with warnings.catch_warnings():
        # Brax announces at each load that it is no longer developed.
        warnings.filterwarnings("ignore", "Brax System", UserWarning)
        return mjcf.loads(model.to_xml())


def add_target(
    model: mujoco.MjSpec, *, height: float, radius: float, reach: float, axes: str = "xy"
) -> None:
    """Adds a ball without contacts at the goal, on slides, as the last body: the last entries of
    the positions are where it is."""
    body = model.worldbody.add_body(name="target", pos=[0, 0, height])
    for axis in axes:
        body.add_joint(
            name=f"target_{axis}",
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=[float(axis == other) for other in "xyz"],
            range=[-reach, reach],
            limited=True,
            armature=0,
            damping=[0, 0, 0],
            stiffness=[0, 0, 0],
        )
    body.add_geom(
        name="target",
        type=mujoco.mjtGeom.mjGEOM_SPHERE,
        size=[radius, 0, 0],
        mass=1,
        contype=0,
        conaffinity=0,
        rgba=[0.8, 0.2, 0.2, 0.5],
    )


def add_walls(model: mujoco.MjSpec, maze: Layout, scale: float) -> None:
    """Adds a box for each wall cell: as wide as the cell, half as high."""
    for i, j in maze.cells("#"):
        model.worldbody.add_geom(
            name=f"wall_{i}_{j}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[i * scale, j * scale, 0.25 * scale],
            size=[0.5 * scale, 0.5 * scale, 0.25 * scale],
            contype=1,
            conaffinity=1,
            rgba=[0.55, 0.5, 0.45, 1],
        )
