import contextlib
import copy
import os
import pathlib
import platform
from collections.abc import Callable, Iterator, Sequence

import mujoco
import numpy as np
from brax import base, envs
from jaxtyping import UInt8
from PIL import Image

from ._framing import View, framed
from ._render import bare, scene, trajectory

_SKY = np.array([223, 230, 236], np.uint8)
_SHORTEST = 0.04  # Seconds of a frame: browsers slow down what is much faster.


def video(
    env: envs.Env,
    states: base.State | Sequence[base.State],
    file: pathlib.Path,
    *,
    width: int = 640,
    height: int = 480,
) -> None:
    """Writes a film of a trajectory, in the time that it took, by MuJoCo's renderer.

    **Arguments:**

    - `env`: from `make` or `FromBrax`, wrapped or not.
    - `states`: `pipeline_state` at each control step, as a sequence or stacked along a first axis.
      Not a batch.
    - `file`: `.gif`, or `.mp4`, which needs `imageio-ffmpeg`.
    - `width`, `height`: in pixels.

    **Raises:** `RuntimeError` where there is no OpenGL; the message says how to get it.
    """
    file = pathlib.Path(file)
    if file.suffix not in (".gif", ".mp4"):
        raise ValueError(f"Films are .gif or .mp4 files, not {file.name!r}.")
    dt = bare(env).spec.control_dt
    every = max(1, round(_SHORTEST / dt))
    frames = images(env, states, every=every, width=width, height=height)
    if file.suffix == ".mp4":
        _write_mp4(frames, file, rate=1 / (every * dt))
        return
    pictures = [Image.fromarray(frame).quantize(128, dither=Image.Dither.NONE) for frame in frames]
    time = 10 * max(2, round(100 * every * dt))  # GIF counts in hundredths of a second.
    pictures[0].save(file, save_all=True, append_images=pictures[1:], duration=time, loop=0)


def images(
    env: envs.Env,
    states: base.State | Sequence[base.State],
    *,
    every: int = 1,
    width: int = 640,
    height: int = 480,
    view: View | None = None,
) -> list[UInt8[np.ndarray, "height width 3"]]:
    """Pictures of a trajectory by MuJoCo's renderer.

    **Arguments:**

    - `env`, `states`: as for `video`, which says what it raises, too.
    - `every`: control steps from one picture to the next.
    - `width`, `height`: in pixels.
    - `view`: from where; None for all of the trajectory.
    """
    model, poses = scene(env).mj_model, trajectory(states)
    if isinstance(states, base.State):
        positions = np.asarray(states.q)
    else:
        positions = np.stack([np.asarray(state.q) for state in states])
    view = framed(model, poses) if view is None else view
    with _painter(model, view, width, height) as paint:
        return [paint(q) for q in positions[::every]]


@contextlib.contextmanager
def _painter(
    model: mujoco.MjModel, view: View, width: int, height: int
) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    model = copy.copy(model)
    model.vis.global_.offwidth, model.vis.global_.offheight = width, height
    model.vis.headlight.ambient[:], model.vis.headlight.diffuse[:] = 0.4, 0.3
    model.vis.quality.shadowsize = 4096
    model.light_diffuse[:], model.light_specular[:] = 0.35, 0.0
    # Brax's chequers of black and white hide all else: pale ones.
    model.tex_data[:] = 195 + model.tex_data // 8
    # Planes have no end, but are drawn with one: farther away, and the chequers as they are.
    model.geom_size[model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE, :2] *= 8.0
    model.mat_texrepeat[:] *= 8.0
    model.vis.map.zfar = 50.0 * view.distance / model.stat.extent
    context = _context(width, height)
    try:
        mjr = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        try:
            mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, mjr)
            # Depth is 0 where nothing is, and only there, so that the sky can be painted.
            mjr.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR.value
            yield _brush(model, mjr, view, width, height)
        finally:
            mjr.free()
    finally:
        context.free()


def _brush(model, mjr, view: View, width: int, height: int) -> Callable[[np.ndarray], np.ndarray]:
    """What draws the model at given positions."""
    data, scene = mujoco.MjData(model), mujoco.MjvScene(model, maxgeom=model.ngeom + 100)
    scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
    camera, option = mujoco.MjvCamera(), mujoco.MjvOption()
    camera.lookat[:], camera.distance = view.look, view.distance
    # MuJoCo's azimuth is where the camera looks, and its elevation positive from below.
    camera.azimuth, camera.elevation = np.rad2deg(view.azimuth) + 180, -np.rad2deg(view.elevation)
    box = mujoco.MjrRect(0, 0, width, height)
    colours = np.zeros((height, width, 3), np.uint8)
    depths = np.zeros((height, width), np.float32)

    def paint(q: np.ndarray) -> np.ndarray:
        data.qpos[:] = q
        mujoco.mj_forward(model, data)
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(model, data, option, None, camera, everything, scene)
        mujoco.mjr_render(box, scene, mjr)
        mujoco.mjr_readPixels(colours, depths, box, mjr)
        return np.where(depths[::-1, :, None] > 0, colours[::-1], _SKY)

    return paint


def _context(width: int, height: int):
    """Somewhere to draw without a screen."""
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    try:
        if platform.system() == "Linux" and chosen in ("", "egl"):
            # MuJoCo itself would ask for a screen where nothing is chosen.
            from mujoco.egl import GLContext
        else:
            from mujoco.gl_context import GLContext
        context = GLContext(width, height)
        context.make_current()
    # PyOpenGL fails in these ways, according to what is missing.
    except (ImportError, AttributeError, OSError, RuntimeError, mujoco.FatalError) as error:
        raise RuntimeError(
            "MuJoCo finds no OpenGL to draw with. Install it, on Debian or Ubuntu by `apt install "
            "libegl1 libgl1-mesa-dri`; or draw without a display by `apt install libosmesa6` and "
            "MUJOCO_GL=osmesa. An HTML file, by `render`, needs neither."
        ) from error
    return context


def _write_mp4(frames: list[np.ndarray], file: pathlib.Path, *, rate: float) -> None:
    try:
        import imageio_ffmpeg  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise RuntimeError(
            "An .mp4 needs a package more: `pip install imageio-ffmpeg`. Or write a .gif."
        ) from error
    height, width, _ = frames[0].shape
    height, width = height - height % 2, width - width % 2  # A colour is that of two by two pixels.
    writer = imageio_ffmpeg.write_frames(str(file), (width, height), fps=rate, macro_block_size=2)
    writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(frame[:height, :width]))
    writer.close()
