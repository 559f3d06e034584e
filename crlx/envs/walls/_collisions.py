import dataclasses
import functools
import operator
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from brax import base, contact
from jaxtyping import Array, Float, Int

from ._box_contacts import Contact
from ._impulses import Body, impulse
from ._near_walls import Geoms, Walls
from ._pair_contacts import sphere_capsule, sphere_floor
from ._vectors import Values, Vector, cross, kept, minus, plus, rotated, scaled

_PLANE, _SPHERE, _CAPSULE = 0, 2, 3  # As in `mujoco.mjtGeom`.
_EPS = 1e-8  # What Brax adds to the number of contacts.


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Contacts that are computed together.

    **Arguments:**

    - `first`: the geoms that are pushed.
    - `second`: the geoms that push them, each one; none for walls and the floor.
    - `friction`, `elasticity`: of the contacts.
    """

    first: Geoms
    second: Geoms | None
    friction: Float[np.ndarray, " contacts"]
    elasticity: Float[np.ndarray, " contacts"]


@dataclasses.dataclass(frozen=True, eq=False)
class Collisions:
    """Everything in a model that may collide, walls included, with the floor at height 0.

    Gives the same impulses as `brax.spring.collisions.resolve` does for a model in which each
    wall is a box, in arithmetic that XLA makes fast on CPUs.

    **Arguments:**

    - `links`: their number.
    - `correction`: the velocity that undoes overlap, per metre of it.
    - `floor`: spheres and ends of capsules against the floor.
    - `ends`: for contacts with the floor, which end of the geom: 1, -1, or 0 for its centre.
    - `pairs`: spheres against spheres or capsules of the model.
    - `spheres`, `capsules`: against walls.
    - `walls`: if any.
    """

    links: int
    correction: float
    floor: Group
    ends: Float[np.ndarray, " contacts"]
    pairs: Group
    spheres: Group
    capsules: Group
    walls: Walls | None

    @classmethod
    def of(cls, sys: base.System, walls: Walls | None = None) -> "Collisions":
        """Reads what collides from a model without walls.

        **Arguments:**

        - `sys`: spheres and capsules above a plane. Those whose `contype` or `conaffinity` has
            the lowest bit collide with walls.
        - `walls`: added to it.

        **Raises:** `ValueError` for a geom of another kind that collides, capsules that collide
        with capsules, a floor that is not level at height 0, and geoms too large for the walls.
        """
        kind = np.asarray(sys.geom_type)
        pair, friction, elasticity = _pairs(sys)
        low, high = kind[pair].T
        level, body = low == _PLANE, low == _SPHERE
        if not (np.isin(high, (_SPHERE, _CAPSULE)) & (level | body)).all():
            raise ValueError("Only spheres, and capsules with spheres or the floor, may collide.")
        planes = np.unique(pair[level, 0])
        flat = np.abs(np.asarray(sys.geom_quat)[planes][:, 1:]).max(initial=0) == 0
        if not flat or np.asarray(sys.geom_pos)[planes].any():
            raise ValueError("The floor must be level and at height 0.")
        # A sphere meets the floor once, a capsule at either end.
        rows = np.repeat(np.flatnonzero(level), np.where(high[level] == _SPHERE, 1, 2))
        ends = np.where(np.diff(rows, prepend=-1) == 0, -1, high[rows] == _CAPSULE)
        floor = Group(Geoms.of(sys, pair[rows, 1]), None, friction[rows], elasticity[rows])
        pairs = Group(
            Geoms.of(sys, pair[body, 0]),
            Geoms.of(sys, pair[body, 1]),
            friction[body],
            elasticity[body],
        )
        correction = float(sys.baumgarte_erp / sys.opt.timestep)
        spheres, capsules = (_at_walls(sys, kind, walls) for kind in (_SPHERE, _CAPSULE))
        ends = ends.astype(np.float32)
        return cls(sys.num_links(), correction, floor, ends, pairs, spheres, capsules, walls)

    def impulses(
        self, links: Float[Array, "links 18 *batch"]
    ) -> list[Float[Array, "links *batch"]]:
        """The impulse on each link and its moment about the centre of mass.

        **Arguments:**

        - `links`: centre of mass, velocity, angular velocity, inverse mass and inverse inertia,
            position, rotation.

        **Returns:** the three coordinates of the impulse and of the moment, averaged over the
        contacts of a link.
        """
        batch = links.ndim - 2
        zero = jnp.zeros_like(links[:, 0])
        found = [[zero] * 7]
        if len(self.floor.first):
            body, (centre, axis, half, radius) = _posed(links, self.floor.first)
            end = plus(centre, scaled(_column(self.ends, batch) * half, axis))
            found.append(self._pushes(self.floor, (sphere_floor(end, radius),), batch, body))
        if self.pairs.second:
            found.append(self._between(links, self.pairs.second))
        if self.walls and len(self.spheres.first):
            body, (centre, _, _, radius) = _posed(links, self.spheres.first)
            corner, touch = self.walls.spheres(centre, radius)
            found.append(self._pushes(self.spheres, (touch,), batch, body.seen_from(corner)))
        if self.walls and len(self.capsules.first):
            body, capsule = _posed(links, self.capsules.first)
            corner, touches = self.walls.capsules(*capsule)
            found.append(self._pushes(self.capsules, touches, batch, body.seen_from(corner)))
        *total, count = (_sum(values) for values in zip(*found, strict=True))
        share = 1 / (count + _EPS)
        return [share * value for value in total]

    def _between(
        self, links: Float[Array, "links 18 *batch"], others: Geoms
    ) -> list[Float[Array, "links *batch"]]:
        """What geoms of the model do to each other."""
        first, (centre, _, _, radius) = _posed(links, self.pairs.first)
        second, other = _posed(links, others)
        touch = sphere_capsule(centre, radius, *other).kept()

        def push() -> list[Float[Array, "links *batch"]]:
            return self._pushes(self.pairs, (touch,), links.ndim - 2, first, second)

        def rest() -> list[Float[Array, "links *batch"]]:
            return [jnp.zeros_like(links[:, 0])] * 7

        # Limbs hardly ever meet. Under `vmap` this asks whether any do in the whole batch.
        return jax.lax.cond(jnp.any(touch.distance < 0), push, rest)

    def _pushes(
        self,
        group: Group,
        touches: tuple[Contact, ...],
        batch: int,
        first: Body,
        second: Body | None = None,
    ) -> list[Float[Array, "links *batch"]]:
        """Sums over the contacts of each link: the impulse, its moment and how many there are."""
        friction, elasticity = (_column(v, batch) for v in (group.friction, group.elasticity))
        cells = touches[0].distance.ndim - 1 - batch  # The axes in front, over the cells around.
        if cells:
            friction, elasticity = friction[None, None], elasticity[None, None]
        sums: list[list[Values]] = []
        for touch in touches:
            touch = touch.kept()
            push, acts = impulse(touch, first, second, friction, elasticity, self.correction)
            turn = cross(minus(touch.point, first.centre), push)
            back = cross(minus(touch.point, second.centre), push) if second else ()
            sums.append([*push, acts.astype(jnp.float32), *turn, *back])
        x, y, z, count, *turns = (_sum(values) for values in zip(*sums, strict=True))
        own = _members(self.links, group.first, 4 if cells else 1)
        if not group.second:
            return [_total(own, value, batch) for value in (x, y, z, *turns, count)]
        other = _members(self.links, group.second, 1)
        pushes = [_total(own - other, value, batch) for value in (x, y, z)]
        moments = [
            _total(own, turns[i], batch) - _total(other, turns[i + 3], batch) for i in range(3)
        ]
        return [*pushes, *moments, _total(own + other, count, batch)]


def _posed(
    links: Float[Array, "links 18 *batch"], geoms: Geoms
) -> tuple[Body, tuple[Vector, Vector, Values, Values]]:
    """The bodies of geoms, and the geoms' centre, axis, half length and radius."""
    batch = links.ndim - 2
    rows = links[geoms.link]
    c = [rows[:, i] for i in range(18)]
    body = Body((c[0], c[1], c[2]), (c[3], c[4], c[5]), (c[6], c[7], c[8]), c[9], c[10])
    rotation = c[14], c[15], c[16], c[17]
    x, y, z = (_column(v, batch) for v in geoms.position.T)
    centre = plus((c[11], c[12], c[13]), rotated((x, y, z), rotation))
    x, y, z = (_column(v, batch) for v in geoms.axis.T)
    axis = rotated((x, y, z), rotation)
    return body, (
        kept(centre),
        kept(axis),
        _column(geoms.half, batch),
        _column(geoms.radius, batch),
    )


def _sum(values: Iterable[Values]) -> Values:
    return functools.reduce(operator.add, values)


def _column(values: Float[np.ndarray, " geoms"], batch: int) -> Values:
    return jnp.asarray(values, jnp.float32).reshape(-1, *(1,) * batch)


def _members(links: int, geoms: Geoms, times: int) -> Float[np.ndarray, "links contacts"]:
    """1 where a contact is one of a link, 0 elsewhere."""
    return np.tile(geoms.link == np.arange(links)[:, None], (1, times)).astype(np.float32)


def _total(
    members: Float[np.ndarray, "links contacts"], values: Values, batch: int
) -> Float[Array, "links *batch"]:
    rows = values.reshape(members.shape[1], *values.shape[values.ndim - batch :])
    return jnp.tensordot(members, rows, 1, precision=jax.lax.Precision.HIGHEST)


def _at_walls(sys: base.System, kind: int, walls: Walls | None) -> Group:
    bits = np.asarray(sys.geom_contype) | np.asarray(sys.geom_conaffinity)
    moves = np.asarray(sys.geom_bodyid) > 0
    index = np.flatnonzero((bits & 1 == 1) & moves & (np.asarray(sys.geom_type) == kind))
    geoms = Geoms.of(sys, index)
    friction = np.asarray(sys.geom_friction)[index, 0]
    elasticity = np.asarray(sys.elasticity)[index]
    if walls:
        if (geoms.half + geoms.radius >= 0.5 * walls.scale).any():
            raise ValueError("Geoms must be smaller than half a cell; enlarge the cells.")
        friction = np.maximum(friction, np.float32(walls.friction))
        elasticity = np.float32(0.5) * (elasticity + np.float32(walls.elasticity))
    return Group(geoms, None, friction, elasticity)


def _pairs(
    sys: base.System,
) -> tuple[Int[np.ndarray, "pairs 2"], Float[np.ndarray, " pairs"], Float[np.ndarray, " pairs"]]:
    """The pairs of geoms that Brax finds to collide, the first of lower type, their friction and
    elasticity."""
    found = jax.jit(lambda: contact.get(sys, base.Transform.zero((sys.num_links(),))))()
    if found is None:
        return np.zeros((0, 2), int), np.zeros(0, np.float32), np.zeros(0, np.float32)
    geoms = np.stack([found.geom1, found.geom2], -1)
    pair, once = np.unique(geoms, axis=0, return_index=True)
    return pair, np.asarray(found.friction)[once, 0], np.asarray(found.elasticity)[once]
