"""Draw one picture of each task: `python experiments/draw_tasks.py --help`."""

import dataclasses
import pathlib
import sys
from typing import Annotated, Literal

import jax
import jax.random as jr
import numpy as np
import tyro
from PIL import Image

from crlx import replacing
from crlx.envs.rendering import draw, images
from crlx.envs.tasks import make, task_names


@dataclasses.dataclass(frozen=True)
class Options:
    """Draws the start of an episode of each task into NAME.png."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Tasks; by default all but variants of mazes with other starts and goals."""
    out: pathlib.Path = pathlib.Path("docs/images/tasks")
    """The folder to write to."""
    by: Literal["opengl", "software", "any"] = "any"
    """What draws: MuJoCo's renderer, our own, or the first of them that works."""
    width: int = 480
    """Of a picture, in pixels."""
    height: int = 360
    """Of a picture, in pixels."""
    seed: int = 1
    """Chooses start and goal."""


def main(options: Options) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names or [name for name in task_names() if not _is_variant(name)]:
        file = options.out / f"{name}.png"
        # A picture of few colours, since each version of it stays in the repository.
        picture = Image.fromarray(_picture(name, options)).quantize(160, dither=Image.Dither.NONE)
        with replacing(file) as temporary:
            picture.save(temporary, format="png", optimize=True)
        print(f"Wrote {file}", flush=True)


def _picture(name: str, options: Options) -> np.ndarray:
    env = make(name)
    state = jax.jit(env.reset)(jr.key(options.seed)).pipeline_state
    width, height = options.width, options.height
    if options.by != "software":
        try:
            return images(env, [state], width=width, height=height)[0]
        except RuntimeError:
            if options.by == "opengl":
                raise
    return draw(env, state, width=width, height=height)


def _is_variant(name: str) -> bool:
    return any(part in name for part in ("eval", "_gen_"))


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"Error: {error}")
