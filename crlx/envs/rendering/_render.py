import base64
import importlib.resources
import json
import pathlib
from collections.abc import Sequence
from typing import Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from brax import base, envs, kinematics
from jaxtyping import Array, Float

from crlx import replacing

from ..tasks import GoalEnv, TaskSpec, loose_types
from ._framing import View, framed
from ._shapes import colour, mesh

_FLOOR = (205, 205, 198)


def render(
    env: envs.Env, states: base.State | Sequence[base.State], file: pathlib.Path, *, title: str = ""
) -> None:
    """Writes an HTML file that plays a trajectory in any browser.

    It holds all that it needs, also off the network, and needs no graphics card.

    **Arguments:**

    - `env`: from `make` or `FromBrax`, wrapped or not.
    - `states`: `pipeline_state` at each control step, as a sequence or stacked along a first axis.
      Not a batch.
    - `file`: the file to write.
    - `title`: what to call it; nothing for the environment's name.
    """
    spec = bare(env).spec
    title = title or spec.name
    drawing = _drawing(scene(env).mj_model, trajectory(states))
    data = {"title": title, "dt": spec.control_dt, **drawing}
    page = importlib.resources.files("crlx.envs.rendering") / "_viewer.html"
    # In a script element only "</" could end it early.
    text = json.dumps(data).replace("</", "<\\/")
    name = title.replace("&", "&amp;").replace("<", "&lt;")
    filled = page.read_text("utf-8").replace("TITLE", name).replace("DATA", text)
    with replacing(pathlib.Path(file)) as temporary:
        temporary.write_text(filled, "utf-8")


@runtime_checkable
class Drawn(Protocol):
    """What is drawn: an environment of Brax that says what it is."""

    @property
    def spec(self) -> TaskSpec: ...

    @property
    def sys(self) -> base.System: ...


def bare(env: envs.Env) -> Drawn:
    """An environment without wrappers."""
    return cast(Drawn, env.unwrapped)


def scene(env: envs.Env) -> base.System:
    """What to draw of an environment."""
    own = env.unwrapped
    return (
        own.task.system(own.spec.backend, drawn=True) if isinstance(own, GoalEnv) else bare(env).sys
    )


def posed(env: envs.Env, q: Float[Array, "steps q"]) -> base.State:
    """States at rest in given positions, to be rendered, stacked along the first axis.

    **Arguments:**

    - `env`: from `make` or an adapter, wrapped or not.
    - `q`: generalized positions at each control step.
    """
    sys = bare(env).sys
    still = jnp.zeros(sys.qd_size())
    with loose_types():
        x, xd = jax.vmap(lambda q: kinematics.forward(sys, q, still))(jnp.asarray(q))
    return base.State(q, jnp.zeros((len(q), sys.qd_size())), x, xd, None)


def trajectory(states: base.State | Sequence[base.State]) -> Float[np.ndarray, "steps links 7"]:
    """Positions and orientations of links over time.

    **Raises:** `ValueError` for a single state or a batch.
    """
    if isinstance(states, base.State):
        parts = states.x.pos, states.x.rot
    else:
        parts = (np.stack([getattr(state.x, name) for state in states]) for name in ("pos", "rot"))
    poses = np.concatenate([np.asarray(part, np.float32) for part in parts], -1)
    if poses.ndim != 3:
        raise ValueError(
            f"Positions of links have the shape {poses.shape[:-1]}, but should have steps and "
            "links. Choose one environment of a batch, or put a single state into a list."
        )
    return poses


def _drawing(model: mujoco.MjModel, poses: Float[np.ndarray, "steps links 7"]) -> dict[str, object]:
    view, geoms, meshes = framed(model, poses), [], []
    for geom in range(model.ngeom):
        own = mesh(model, geom)
        if own is None:
            continue
        # Brax has a link for each body but the world.
        link = int(model.geom_bodyid[geom]) - 1
        *rgb, alpha = (float(value) for value in colour(model, geom))
        shade = [*(255 * value for value in rgb), alpha]
        geoms.append({"link": link, "mesh": len(meshes), "colour": shade})
        arrays = {"points": (own.points, "<f4"), "normals": (own.normals, "<f4")}
        arrays["faces"] = (own.faces, "<u4")
        meshes.append({name: _text(*array) for name, array in arrays.items()})
    plane = (model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE).any()
    return {
        "geoms": geoms,
        "meshes": meshes,
        "links": poses.shape[1],
        "frames": _text(poses, "<f4"),
        "floor": _FLOOR if plane else None,
        "chequer": view.chequer,
        "camera": _camera(view),
    }


def _camera(view: View) -> dict[str, object]:
    return {
        "look": [float(value) for value in view.look],
        "distance": view.distance,
        "azimuth": view.azimuth,
        "elevation": view.elevation,
    }


def _text(array: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(array, kind).tobytes()).decode("ascii")
