import abc

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ._layout import Layout


class Places(eqx.Module):
    """Where an agent starts and where it must go, in metres on the ground."""

    start: Float[Array, " xy"]
    goal: Float[Array, " xy"]


class AbstractArena(eqx.Module):
    """The ground of a task: its walls, and the law of starts and goals."""

    @abc.abstractmethod
    def maze(self) -> Layout | None:
        """The walls, if there are any."""

    @abc.abstractmethod
    def draw(self, scale: float, *, key: PRNGKeyArray) -> Places:
        """A start and a goal; a cell of a maze is `scale` metres wide."""

    @property
    @abc.abstractmethod
    def exact(self) -> bool:
        """True if agents start on the spot, False if they add noise of their own."""


class Ring(AbstractArena):
    r"""Open ground with goals at $r (\cos\phi, \sin\phi)$ around the origin, where agents start:
    $r \sim U[nearest, farthest]$, so not uniform in area, and $\phi \sim U[0, 2\pi)$.

    With `random_start`, agents start as far from the goal, in another direction.
    """

    nearest: float
    farthest: float
    random_start: bool = False

    def maze(self) -> Layout | None:
        return None

    def draw(self, scale: float, *, key: PRNGKeyArray) -> Places:
        del scale
        rkey, akey, skey = jr.split(key, 3)
        radius = jr.uniform(rkey, minval=self.nearest, maxval=self.farthest)
        goal = radius * _direction(akey)
        start = goal + radius * _direction(skey) if self.random_start else jnp.zeros_like(goal)
        return Places(start, goal)

    @property
    def exact(self) -> bool:
        return False


class Cells(AbstractArena):
    """A maze: a start uniform over its cells `R`, a goal uniform over its cells `G`."""

    drawing: str = eqx.field(static=True)

    def __check_init__(self):
        Layout(self.drawing)

    def maze(self) -> Layout | None:
        return Layout(self.drawing)

    def draw(self, scale: float, *, key: PRNGKeyArray) -> Places:
        skey, gkey = jr.split(key)
        maze = Layout(self.drawing)
        return Places(*(_any(maze.centres(a, scale), k) for a, k in (("R", skey), ("G", gkey))))

    @property
    def exact(self) -> bool:
        return False


class Corridor(AbstractArena):
    """Stretches of a maze without branches: a start and a goal so many cells ahead of it, for
    training on short ways what is evaluated on long ones.

    The number of cells is uniform over `steps`; then the start is uniform over the cells from
    which there are as many ahead.

    ??? cite
        The stitching experiment of Wang et al. (NeurIPS 2025), figure 8.
    """

    drawing: str = eqx.field(static=True)
    steps: tuple[int, ...] = eqx.field(static=True)

    def __check_init__(self):
        cells = len(Layout(self.drawing).corridor())
        if not self.steps or not all(1 <= step < cells for step in self.steps):
            raise ValueError(
                f"Goals are 1 to {cells - 1} cells ahead in this maze, not {self.steps}."
            )

    def maze(self) -> Layout | None:
        return Layout(self.drawing)

    def draw(self, scale: float, *, key: PRNGKeyArray) -> Places:
        nkey, skey = jr.split(key)
        way = jnp.asarray(np.array(Layout(self.drawing).corridor(), np.float32) * np.float32(scale))
        ahead = jr.choice(nkey, jnp.asarray(self.steps))
        first = jr.randint(skey, (), 0, len(way) - ahead)
        return Places(way[first], way[first + ahead])

    @property
    def exact(self) -> bool:
        return True


def _any(centres: np.ndarray, key: PRNGKeyArray) -> Float[Array, " xy"]:
    return jnp.asarray(centres)[jr.randint(key, (), 0, len(centres))]


def _direction(key: PRNGKeyArray) -> Float[Array, " xy"]:
    angle = jr.uniform(key, maxval=2 * np.pi)
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)])
