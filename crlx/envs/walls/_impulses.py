import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from ._box_contacts import Contact
from ._vectors import Values, Vector, cross, dot, kept, minus, plus, scaled

_DIRECTION = 1e-6  # What Brax adds to a speed before it divides by it,
_SLOW = 1e-3  # and the sideways speed up to which there is no friction.
_FLOOR = 1e-30  # Of square roots.


class Body(eqx.Module):
    """What an impulse meets, in the contact's frame.

    **Arguments:**

    - `centre`: of mass.
    - `velocity`: of the centre of mass.
    - `spin`: angular velocity.
    - `inverse_mass`: of the body.
    - `inverse_inertia`: one number for all axes.
    """

    centre: Vector
    velocity: Vector
    spin: Vector
    inverse_mass: Values
    inverse_inertia: Values

    def seen_from(self, corner: Vector) -> "Body":
        """The body in the frames of corners, with two axes in front for the cells around."""
        ahead = jax.tree.map(lambda value: value[None, None], (self, corner))
        return dataclasses.replace(ahead[0], centre=minus(ahead[0].centre, ahead[1]))

    def velocity_at(self, lever: Vector) -> Vector:
        """The velocity of the body's point that is `lever` away from its centre of mass."""
        return plus(self.velocity, cross(self.spin, lever))

    def mobility(self, lever: Vector, direction: Vector) -> Values:
        """How much velocity at that point an impulse gives, both along `direction`."""
        turn = cross(lever, direction)
        return self.inverse_mass + self.inverse_inertia * dot(turn, turn)


def impulse(
    contact: Contact,
    first: Body,
    second: Body | None,
    friction: Values,
    elasticity: Values,
    correction: float,
) -> tuple[Vector, Bool[Array, "..."]]:
    r"""The impulse of a contact on its first body, as in `brax.spring.collisions`.

    With $v$ the bodies' relative velocity at the contact, $d < 0$ the distance and $m^{-1}(u)$
    the sum of the bodies' mobilities along $u$,

    $$j = -\big((1 + e)\, n \cdot v + \tfrac{\beta}{\Delta t} d\big) / m^{-1}(n), \quad
      j_t = \min(\lVert v_t \rVert / m^{-1}(v_t / \lVert v_t \rVert), \mu j),$$

    the first along the normal and the second against the sideways velocity $v_t$, both zero
    unless the bodies overlap and approach each other.

    **Arguments:**

    - `contact`: in the bodies' frame.
    - `first`: the body that the normal points to.
    - `second`: the other, or none if it cannot move.
    - `friction`, `elasticity`: $\mu$ and $e$.
    - `correction`: $\beta / \Delta t$.

    **Returns:** the impulse, and whether there is one.
    """
    normal = contact.normal
    levers = [(body, minus(contact.point, body.centre)) for body in (first, second) if body]
    velocity = levers[0][0].velocity_at(levers[0][1])
    if second:
        velocity = minus(velocity, second.velocity_at(levers[1][1]))
    along = dot(normal, velocity)
    mobility = sum(body.mobility(lever, normal) for body, lever in levers)
    size = -((1.0 + elasticity) * along + correction * contact.distance) / mobility
    sideways = minus(velocity, scaled(along, normal))
    speed = jnp.sqrt(jnp.maximum(dot(sideways, sideways), _FLOOR))
    direction = scaled(1 / (speed + _DIRECTION), sideways)
    mobility = sum(body.mobility(lever, direction) for body, lever in levers)
    drag = jnp.minimum(speed / mobility, friction * size)
    acts = (contact.distance < 0) & (along < 0) & (size > 0)
    size, drag = jnp.where(acts, size, 0.0), jnp.where(acts & (speed > _SLOW), drag, 0.0)
    return kept(minus(scaled(size, normal), scaled(drag, direction))), acts
