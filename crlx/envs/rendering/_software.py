import dataclasses
from collections.abc import Iterator

import mujoco
import numpy as np
from brax import base, envs
from jaxtyping import Float, Int, UInt8

from ._framing import View, framed
from ._render import scene, trajectory
from ._shapes import colour, mesh

_SKY, _FLOOR = np.array([223.0, 230.0, 236.0]), np.array([205.0, 205.0, 198.0])
_SUN = np.array([0.36, 0.23, 0.9])
_FINER = 2  # Pixels drawn along each side of one pixel, for smooth edges.


@dataclasses.dataclass(frozen=True)
class _Camera:
    """Where a camera is, the directions to its right, up and back, and its focal length."""

    eye: np.ndarray
    axes: np.ndarray
    focus: float


class _Canvas:
    """Colours, and how near they are as 1 / depth in metres, which is linear on the screen."""

    def __init__(self, view: View, width: int, height: int):
        camera = _camera(view, width, height)
        self.camera, self.size = camera, np.array([width, height])
        y, x = np.mgrid[:height, :width]
        across = np.stack([x - width / 2, height / 2 - y], -1) / camera.focus
        ray = across @ camera.axes[:2] - camera.axes[2]
        with np.errstate(divide="ignore"):
            self.near = np.maximum(-ray[..., 2] / camera.eye[2], 0.0)
            ground = camera.eye[:2] + ray[..., :2] / np.maximum(self.near, 1e-9)[..., None]
        far = 1 / np.maximum(self.near * view.distance, 1e-3)
        odd = np.floor(ground / view.chequer).astype(np.int64).sum(-1) % 2 == 1
        light = 1 + np.where(odd, -0.05, 0.03) * np.exp(-far / 2)
        haze = np.exp(-(far**2) / 40)[..., None]
        self.colours = _SKY + haze * (np.minimum(_FLOOR * light[..., None], 255) - _SKY)
        self.floor = self.near > 0

    def fill(
        self,
        points: Float[np.ndarray, "points 3"],
        faces: Int[np.ndarray, "faces 3"],
        shades: Float[np.ndarray, " points"] | None,
        rgba: Float[np.ndarray, " rgba"],
    ) -> None:
        """Triangles; without shades of points, their shadow on the floor."""
        seen = (points - self.camera.eye) @ self.camera.axes.T
        depth = -seen[:, 2]
        flat = self.camera.focus * seen[:, :2] / depth[:, None] * [1, -1] + self.size / 2
        shadowed = np.zeros(self.near.shape, bool)
        for face in faces[(depth[faces] > 0.05).all(1)]:
            self._triangle(flat[face], 1 / depth[face], shades, face, rgba, shadowed)
        if shades is None:
            self.colours[shadowed] *= 0.78
            self.floor &= ~shadowed

    def _triangle(self, corners, near, shades, face, rgba, shadowed) -> None:
        low = np.clip(np.ceil(corners.min(0)), 0, self.size).astype(int)
        high = np.clip(np.floor(corners.max(0)) + 1, 0, self.size).astype(int)
        a, b, c = corners
        area = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
        # Of closed surfaces only the near side is seen; y points down here.
        if (high <= low).any() or area >= 0:
            return
        y, x = np.mgrid[low[1] : high[1], low[0] : high[0]]
        u = ((b[0] - x) * (c[1] - y) - (c[0] - x) * (b[1] - y)) / area
        v = ((c[0] - x) * (a[1] - y) - (a[0] - x) * (c[1] - y)) / area
        weights = np.stack([u, v, 1 - u - v])
        inside = (weights >= -1e-9).all(0)
        place = slice(low[1], high[1]), slice(low[0], high[0])
        if shades is None:
            shadowed[place] |= inside & self.floor[place]
            return
        depth = np.tensordot(near, weights, 1)
        inside &= depth > self.near[place]
        shade = np.tensordot(shades[face], weights, 1)[inside, None]
        old = self.colours[place][inside]
        own = np.minimum(255 * np.asarray(rgba[:3]) * shade, 255)
        self.colours[place][inside] = rgba[3] * own + (1 - rgba[3]) * old
        self.near[place][inside] = depth[inside]


def draw(
    env: envs.Env, state: base.State, *, width: int, height: int
) -> UInt8[np.ndarray, "height width 3"]:
    """A picture of an environment without OpenGL: as in the files of `render`, but slowly, a second
    or two for each."""
    model, poses = scene(env).mj_model, trajectory([state])
    size = _FINER * width, _FINER * height
    canvas = _Canvas(framed(model, poses), *size)
    solids = sorted(_solids(model, poses[0]), key=lambda solid: solid[3][3] < 1)
    for points, _, faces, rgba in solids:
        if rgba[3] >= 1:
            canvas.fill(points - points[:, 2:] / _SUN[2] * _SUN, faces, None, rgba)
    for points, normals, faces, rgba in solids:
        light = 0.62 + 0.14 * normals[:, 2] + 0.3 * np.maximum(normals @ _SUN, 0)
        canvas.fill(points, faces, light, rgba)
    tiles = canvas.colours.reshape(height, _FINER, width, _FINER, 3)
    return tiles.mean((1, 3)).round().astype(np.uint8)


def _camera(view: View, width: int, height: int) -> _Camera:
    (sa, ca), (se, ce) = ((np.sin(x), np.cos(x)) for x in (view.azimuth, view.elevation))
    axes = np.array([[-sa, ca, 0], [-se * ca, -se * sa, ce], [ce * ca, ce * sa, se]])
    eye = np.asarray(view.look) + view.distance * axes[2]
    return _Camera(eye, axes, 1.3 * min(height, 1.2 * width))


def _solids(
    model: mujoco.MjModel, poses: Float[np.ndarray, "links 7"]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Points, normals, faces and colour of each geom, in the world."""
    for geom in range(model.ngeom):
        own = mesh(model, geom)
        if own is None:
            continue
        points, normals = own.points, own.normals
        link = model.geom_bodyid[geom] - 1
        if link >= 0:
            turn = np.zeros(9)
            mujoco.mju_quat2Mat(turn, poses[link, 3:].astype(float))
            turn = turn.reshape(3, 3).T
            points, normals = points @ turn + poses[link, :3], normals @ turn
        yield points, normals, own.faces, colour(model, geom)
