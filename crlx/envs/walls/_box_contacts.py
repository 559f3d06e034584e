import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool

from ._vectors import Values, Vector, dot, halfway, kept, minus, once, plus, scaled, where

_DENOMINATOR = 1e-6  # What mjx adds where it divides by squared lengths and sines,
_FRONT = 1e-6  # its threshold for being in front of a plane, times the length of an edge,
_TOUCHING = 1e-6  # and the distance, or square of one, too short to give a direction.
_PARALLEL = 0.99
_NEVER = 1.0  # The distance of contacts that do not exist.


class Contact(eqx.Module):
    """Where and how deep one thing is in another.

    **Arguments:**

    - `distance`: negative in a contact.
    - `point`: halfway between the two surfaces.
    - `normal`: of length 1, from the other thing towards the body that is to be pushed out.
    """

    distance: Values
    point: Vector
    normal: Vector

    def kept(self) -> "Contact":
        """The same contact, computed once."""
        return Contact(once(self.distance), kept(self.point), kept(self.normal))

    def unless(self, absent: Bool[Array, "..."]) -> "Contact":
        """This contact, or none where `absent`."""
        distance = jnp.where(absent, _NEVER, self.distance)
        return Contact(distance, self.point, self.normal)


class Corner(eqx.Module):
    """One of four boxes that stand around a vertical edge at the origin, as mjx sees it.

    A box spans 0 to `width` (or `-width` to 0) in x and y, and 0 to `height` in z. Only the faces
    and edges at the origin's side are looked at, so bodies must have their centre within `width`
    of the origin in x and y, and must be smaller than `width / 2`.

    **Arguments:**

    - `x`, `y`: the sides of the origin on which the box lies, 1 or -1.
    - `width`, `height`: of the box.
    """

    x: Values
    y: Values
    width: float
    height: float

    def outside(self, point: Vector) -> tuple[Values, Values, Values, Values]:
        """How far a point is in front of the faces in x and y, the top and the bottom."""
        x, y, z = point
        return -self.x * x, -self.y * y, z - self.height, -z


class _Face(eqx.Module):
    """The face with the least penetration: its axis, and whether it is the top."""

    x: Bool[Array, "..."]
    y: Bool[Array, "..."]
    z: Bool[Array, "..."]
    top: Bool[Array, "..."]

    def __init__(self, corner: Corner, ahead: tuple[Values, Values, Values, Values]):
        """Of equal faces, mjx takes the first of -y, -z, +x, +y, +z, -x."""
        x, y, top, bottom = ahead
        self.top = top > bottom
        z = jnp.maximum(top, bottom)
        x_over_y = (x > y) | ((x == y) & (corner.x < 0) & (corner.y < 0))
        x_over_z = (x > z) | ((x == z) & self.top & (corner.x < 0))
        y_over_z = (y > z) | ((y == z) & (self.top | (corner.y > 0)))
        self.x = x_over_y & x_over_z
        self.y = ~x_over_y & y_over_z
        self.z = ~self.x & ~self.y

    def normal(self, corner: Corner) -> Vector:
        x, y = jnp.where(self.x, -corner.x, 0.0), jnp.where(self.y, -corner.y, 0.0)
        return x, y, jnp.where(self.z, jnp.where(self.top, 1.0, -1.0), 0.0)


def sphere_box(centre: Vector, radius: Values, corner: Corner) -> Contact:
    r"""The contact between a sphere and a box.

    With $q$ the point of the box's surface that is closest to the centre $p$,

    $$d = \pm \lVert p - q \rVert - r, \quad n = \pm (p - q) / \lVert p - q \rVert,$$

    negative with the centre inside; then $q$ lies on the face of least penetration. Equals mjx's
    `sphere_convex` but for a shift of edge contacts along their edge, which it makes by adding
    1e-6 to squared lengths: at most 1e-6 m, a tenth of it for boxes of 4 m.

    **Arguments:**

    - `centre`: of the sphere.
    - `radius`: of the sphere.
    - `corner`: the box.
    """
    x, y, z = centre
    ahead = corner.outside(centre)
    deepest = jnp.maximum(jnp.maximum(ahead[0], ahead[1]), jnp.maximum(ahead[2], ahead[3]))
    face = _Face(corner, ahead)
    # Outside, this is the closest point of the box; inside, one coordinate moves to the face.
    qx = jnp.where(face.x | (ahead[0] > 0), 0.0, x)
    qy = jnp.where(face.y | (ahead[1] > 0), 0.0, y)
    qz = jnp.clip(z, 0.0, corner.height)
    qz = jnp.where(face.z, jnp.where(face.top, corner.height, 0.0), qz)
    away = x - qx, y - qy, z - qz
    length = jnp.sqrt(dot(away, away))
    flat = (deepest <= 0) | (length < _TOUCHING)
    scale = 1 / jnp.maximum(length, _TOUCHING)
    normal = where(flat, face.normal(corner), scaled(scale, away))
    signed = jnp.where(deepest < 0, -length, length)
    distance = jnp.where(deepest >= radius, _NEVER, signed - radius)
    # Halfway between q and the deepest point of the sphere.
    point = halfway((qx, qy, qz), plus(centre, scaled(-radius, normal)))
    return Contact(distance, point, normal)


def capsule_box(
    centre: Vector, axis: Vector, half: Values, radius: Values, corner: Corner
) -> tuple[Contact, Contact]:
    """The two contacts between a capsule and a box.

    The capsule's segment is clipped to the box's face of least penetration, and both of its new
    ends are contacts, unless the edge that is nearest to the segment is touched less deeply: then
    the first contact is with that edge and the second does not exist. Equals mjx's
    `capsule_convex`, with its regularisation, except where two edges are equally near.

    **Arguments:**

    - `centre`: of the capsule.
    - `axis`: of length 1.
    - `half`: half the length of the segment, without the caps.
    - `radius`: of the capsule.
    - `corner`: the box.
    """
    seg = scaled(half, axis)
    ends = plus(centre, scaled(-1.0, seg)), plus(centre, seg)
    outside = corner.outside(ends[0]), corner.outside(ends[1])
    x, y, top, bottom = (jnp.minimum(a, b) for a, b in zip(*outside, strict=True))
    face = _Face(corner, (x, y, top, bottom))
    reached = jnp.maximum(jnp.maximum(x, y), jnp.maximum(top, bottom)) < radius
    normal = kept(face.normal(corner))
    start, stop, clear = _clipped(ends, outside, face, corner)
    start, stop, exists = kept((start, stop, jnp.where(reached & ~clear, 1.0, 0.0)))
    level = jnp.where(normal[2] > 0, corner.height, 0.0)
    step = scaled(2.0, seg)
    faces = []
    for t in (start, stop):
        point = plus(ends[0], scaled(t, step))
        height = dot(normal, point) - level
        middle = minus(point, scaled(0.5 * (height + radius), normal))
        faces.append(Contact(height - radius, middle, normal).unless(exists == 0))
    edge, front = _nearest_edge(centre, axis, half, radius, corner)
    shallowest = jnp.maximum(faces[0].distance, faces[1].distance)
    chosen = (edge.distance < 0) & ((shallowest >= 0) | (edge.distance > shallowest))
    chosen = chosen & front & (jnp.abs(dot(edge.normal, normal)) <= _PARALLEL)
    chosen = once(jnp.where(chosen, 1.0, 0.0)) == 1
    first = Contact(
        jnp.where(chosen, edge.distance, faces[0].distance),
        where(chosen, edge.point, faces[0].point),
        where(chosen, edge.normal, faces[0].normal),
    )
    return first, faces[1].unless(chosen)


def _clipped(
    ends: tuple[Vector, Vector],
    outside: tuple[tuple[Values, Values, Values, Values], tuple[Values, Values, Values, Values]],
    face: _Face,
    corner: Corner,
) -> tuple[Values, Values, Bool[Array, "..."]]:
    """Which part of the segment, 0 to 1, is within the sides of the face, and whether none is."""
    (x0, y0, z0), (x1, y1, z1) = ends
    shift = z1 - z0
    flat = jnp.where(shift == 0, 1.0, shift)
    # Where the segment crosses each plane; the same for every box around the corner.
    crossings = (
        -x0 / jnp.where(x1 == x0, 1.0, x1 - x0),
        -y0 / jnp.where(y1 == y0, 1.0, y1 - y0),
        (corner.height - z0) / flat,
        -z0 / flat,
    )
    level = _FRONT / corner.width  # The plane's normal in mjx is as long as the face's edge there,
    beside = jnp.where(face.z, level, _FRONT / corner.height)  # and here that edge is upright.
    sides = (~face.x, ~face.y, ~face.z, ~face.z)
    start, stop, clear = jnp.zeros(()), jnp.ones(()), jnp.zeros((), bool)
    for t, side, *heights, least in zip(
        crossings, sides, *outside, (beside, beside, level, level), strict=True
    ):
        first, second = (side & (height > least) for height in heights)
        start = jnp.where(first, jnp.maximum(start, jnp.clip(t, 0.0, 1.0)), start)
        stop = jnp.where(second, jnp.minimum(stop, jnp.clip(t, 0.0, 1.0)), stop)
        clear = clear | (first & second)
    clear = clear | (stop < start)
    return start, stop, clear


def _nearest_edge(
    centre: Vector, axis: Vector, half: Values, radius: Values, corner: Corner
) -> tuple[Contact, Bool[Array, "..."]]:
    """The contact with the edge nearest to a capsule, and whether the capsule is in front of it."""
    (x, y, z), (ax, ay, az) = centre, axis
    middle, up = 0.5 * corner.width, 0.5 * corner.height
    square, along, on_axis = _closest((x, y, z - up), axis, half, up)
    zero = jnp.zeros_like(square)
    spot, kind = (zero, zero, along + up), zero  # Kinds of edges: 0 upright, 1 along x, 2 along y.
    for level in (0.0, corner.height):
        for this in (1.0, 2.0):
            side, u, v, au, av = (corner.x, y, x, ay, ax) if this == 1 else (corner.y, x, y, ax, ay)
            far = side * middle
            d, along, on = _closest((u, z - level, v - far), (au, az, av), half, middle)
            nearer = d < square
            along = along + far + zero
            place = (along, zero) if this == 1 else (zero, along)
            square, on_axis, kind = where(nearer, (d, on, this + zero), (square, on_axis, kind))
            spot = where(nearer, (*place, level + zero), spot)
    square, on_axis, kind = kept((square, on_axis, kind))
    spot = kept(spot)
    reach = plus(centre, scaled(on_axis, axis))
    away = minus(reach, spot)
    length = jnp.sqrt(square)
    normal = kept(scaled(1 / jnp.maximum(length, _TOUCHING), away))
    middle = halfway(spot, minus(reach, scaled(radius, normal)))
    front_x, front_y = corner.x * away[0] < 0, corner.y * away[1] < 0
    front_z = jnp.where(spot[2] > up, away[2] > 0, away[2] < 0)
    front = (front_x | (kind == 1)) & (front_y | (kind == 2)) & (front_z | (kind == 0))
    return Contact(length - radius, middle, normal), front & (square >= _TOUCHING)


def _closest(
    delta: Vector, axis: Vector, half: Values, reach: float
) -> tuple[Values, Values, Values]:
    """The closest points of an edge and a segment, as mjx finds them.

    Those of the two lines are clipped; then one of them is moved to where it is closest to the
    other, the one for which that comes nearer. Its closeness to parallel is regularised.

    **Arguments:**

    - `delta`: from the middle of the edge to that of the segment; the edge lies along the last
        axis.
    - `axis`: of the segment, of length 1.
    - `half`: half the length of the segment.
    - `reach`: half the length of the edge.

    **Returns:** the square of the distance, and the points on the edge and on the segment, as
    distances from the middle.
    """
    (u, w, v), (au, aw, av) = delta, axis
    offset = dot(delta, axis)
    edge = (v - av * offset) / (1 - av * av + _DENOMINATOR)
    segment = jnp.clip(edge * av - offset, -half, half)
    edge = jnp.clip(edge, -reach, reach)
    share = 4 * reach * reach + _DENOMINATOR
    at = v + segment * av
    t = jnp.clip((at + reach) * (2 * reach) / share, 0.0, 1.0)
    new_edge = 2 * reach * t - reach
    by_edge = (u + segment * au) ** 2 + (w + segment * aw) ** 2 + (at - new_edge) ** 2
    t = (edge * av - offset + half) * (2 * half) / (4 * half * half + _DENOMINATOR)
    new_segment = 2 * half * jnp.clip(t, 0.0, 1.0) - half
    by_segment = (
        (u + new_segment * au) ** 2
        + (w + new_segment * aw) ** 2
        + (v + new_segment * av - edge) ** 2
    )
    moved = by_edge < by_segment
    return kept(where(moved, (by_edge, new_edge, segment), (by_segment, edge, new_segment)))
