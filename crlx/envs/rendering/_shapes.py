import dataclasses

import mujoco
import numpy as np
from jaxtyping import Float, Int

_AROUND = 28  # Segments of a circle.
_GREY = (0.5, 0.5, 0.5, 1.0)  # MuJoCo's colour for what has none.


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Triangles: points in metres, a normal for each, and the points of each triangle."""

    points: Float[np.ndarray, "points 3"]
    normals: Float[np.ndarray, "points 3"]
    faces: Int[np.ndarray, "faces 3"]


def mesh(model: mujoco.MjModel, geom: int) -> Mesh | None:
    """The surface of a geom in the frame of its body; None for planes and for what is hidden."""
    kinds, kind = mujoco.mjtGeom, model.geom_type[geom]
    if model.geom_group[geom] > 2 or model.geom_rgba[geom, 3] == 0:
        return None
    radius, half, _ = size = model.geom_size[geom]
    if kind == kinds.mjGEOM_SPHERE:
        own = _revolved(_bow(radius, 0.0))
    elif kind == kinds.mjGEOM_CAPSULE:
        own = _revolved(_bow(radius, half))
    elif kind == kinds.mjGEOM_CYLINDER:
        own = _revolved(_can(radius, half))
    elif kind == kinds.mjGEOM_ELLIPSOID:
        own = _stretched(_revolved(_bow(1.0, 0.0)), size)
    elif kind == kinds.mjGEOM_BOX:
        own = _box(size)
    elif kind == kinds.mjGEOM_MESH:
        own = _stored(model, model.geom_dataid[geom])
    else:
        return None
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, model.geom_quat[geom])
    turn = turn.reshape(3, 3).T
    return _outward(Mesh(own.points @ turn + model.geom_pos[geom], own.normals @ turn, own.faces))


def colour(model: mujoco.MjModel, geom: int) -> Float[np.ndarray, " rgba"]:
    """The colour of a geom, each channel in [0, 1]: its own, or else that of its material."""
    own, material = model.geom_rgba[geom], model.geom_matid[geom]
    return model.mat_rgba[material] if material >= 0 and np.allclose(own, _GREY) else own


def _outward(own: Mesh) -> Mesh:
    """The same with corners anticlockwise as seen from outside, and without empty triangles."""
    a, b, c = np.moveaxis(own.points[own.faces], 1, 0)
    across = np.cross(b - a, c - a)
    side = np.sum(across * own.normals[own.faces].sum(1), -1)
    faces = np.where(side[:, None] < 0, own.faces[:, ::-1], own.faces)
    return Mesh(own.points, own.normals, faces[np.linalg.norm(across, axis=-1) > 1e-12])


def _bow(radius: float, half: float) -> list[tuple[float, float, float, float]]:
    """Half the outline of a capsule: distance from its axis and height, also of the normal."""
    angles = np.linspace(-np.pi / 2, np.pi / 2, 10 if half == 0 else 11)
    if half > 0:
        angles = np.insert(angles, 5, 0.0)  # The equator twice: once for each end.
    ends = np.where(np.arange(len(angles)) < len(angles) // 2, -half, half)
    round_, up = np.cos(angles), np.sin(angles)
    return [*zip(radius * round_, radius * up + ends, round_, up, strict=True)]


def _can(radius: float, half: float) -> list[tuple[float, float, float, float]]:
    bottom = [(0.0, -half, 0.0, -1.0), (radius, -half, 0.0, -1.0)]
    side = [(radius, -half, 1.0, 0.0), (radius, half, 1.0, 0.0)]
    return [*bottom, *side, (radius, half, 0.0, 1.0), (0.0, half, 0.0, 1.0)]


def _revolved(outline: list[tuple[float, float, float, float]]) -> Mesh:
    angle = 2 * np.pi * np.arange(_AROUND) / _AROUND
    circle = np.stack([np.cos(angle), np.sin(angle)], -1)
    points, normals = [], []
    for distance, height, out, up in outline:
        points.append(np.c_[distance * circle, np.full(_AROUND, height)])
        normals.append(np.c_[out * circle, np.full(_AROUND, up)])
    ring = np.arange(_AROUND)
    following = (ring + 1) % _AROUND
    faces = []
    for k in range(len(outline) - 1):
        low, high = k * _AROUND, (k + 1) * _AROUND
        faces.append(np.stack([low + ring, low + following, high + following], -1))
        faces.append(np.stack([low + ring, high + following, high + ring], -1))
    return Mesh(np.concatenate(points), np.concatenate(normals), np.concatenate(faces))


def _stretched(own: Mesh, size: Float[np.ndarray, " 3"]) -> Mesh:
    normals = own.normals / size
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return Mesh(own.points * size, normals, own.faces)


def _box(size: Float[np.ndarray, " 3"]) -> Mesh:
    points, normals = [], []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            for first, second in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                corner = np.zeros(3)
                corner[axis], corner[axis - 2], corner[axis - 1] = sign, first, second
                points.append(corner * size)
                normals.append(sign * np.eye(3)[axis])
    corners = 4 * np.arange(6)[:, None]
    faces = np.concatenate([corners + np.array(half) for half in ((0, 1, 2), (0, 2, 3))])
    return Mesh(np.array(points), np.array(normals), faces)


def _stored(model: mujoco.MjModel, index: int) -> Mesh:
    start, face = model.mesh_vertadr[index], model.mesh_faceadr[index]
    corners = model.mesh_face[face : face + model.mesh_facenum[index]]
    points = model.mesh_vert[start + corners].reshape(-1, 3)
    edges = points.reshape(-1, 3, 3)
    normals = np.cross(edges[:, 1] - edges[:, 0], edges[:, 2] - edges[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    faces = np.arange(len(points)).reshape(-1, 3)
    return Mesh(points.astype(float), np.repeat(normals, 3, 0), faces)
