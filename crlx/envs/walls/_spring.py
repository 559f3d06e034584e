import jax
import jax.numpy as jnp
from brax import actuator, base, com, fluid, kinematics
from brax.spring import integrator, joints
from brax.spring.base import State
from jaxtyping import Array, Float

from ._collisions import Collisions


def step(
    sys: base.System, state: State, ctrl: Float[Array, " ctrl"], collisions: Collisions
) -> State:
    """One step of `brax.spring.pipeline`, in which only the collisions are computed otherwise.

    **Arguments:**

    - `sys`: the model, without walls.
    - `state`: from `brax.spring.pipeline.init`, which does not look at contacts.
    - `ctrl`: of the actuators.
    - `collisions`: of the same model.
    """
    state = state.replace(i_inv=com.inv_inertia(sys, state.x))
    tau = actuator.to_tau(sys, ctrl, state.q, state.qd)
    force = joints.resolve(sys, state, tau)
    if sys.enable_fluid:
        inertia = sys.link.inertia.i ** (1 - sys.spring_inertia_scale)
        force += fluid.force(sys, state.x, state.xd, state.mass, inertia)
    gained = base.Motion.create(vel=sys.gravity) + _accelerated(state, force.vel, force.ang)
    state = state.replace(xd_i=state.xd_i + gained * sys.opt.timestep)
    pushed = _accelerated(state, *_impulses(state, collisions))
    x_i, xd_i = integrator.integrate(sys, state.x_i, state.xd_i, pushed)
    x, xd = com.to_world(sys, x_i, xd_i)
    j, jd, a_p, a_c = kinematics.world_to_joint(sys, x, xd)
    q, qd = kinematics.inverse(sys, j, jd)
    return state.replace(
        q=q, qd=qd, x=x, xd=xd, x_i=x_i, xd_i=xd_i, a_p=a_p, a_c=a_c, j=j, jd=jd, contact=None
    )


def _accelerated(
    state: State, force: Float[Array, "links 3"], moment: Float[Array, "links 3"]
) -> base.Motion:
    vel = jax.vmap(jnp.divide)(force, state.mass)
    return base.Motion(vel=vel, ang=jax.vmap(jnp.matmul)(state.i_inv, moment))


def _impulses(
    state: State, collisions: Collisions
) -> tuple[Float[Array, "links 3"], Float[Array, "links 3"]]:
    """Impulses of contacts and their moments, with the batch's axis last while under `vmap`."""

    @jax.custom_batching.custom_vmap
    def single(links: Float[Array, "links 18"]) -> Float[Array, "links 6"]:
        return jnp.stack(collisions.impulses(links), axis=1)

    @single.def_vmap
    def batched(size, _, links):
        del size
        found = collisions.impulses(jnp.moveaxis(links, 0, -1))
        return jnp.moveaxis(jnp.stack(found), -1, 0).swapaxes(1, 2), True

    # Brax takes this one number of all links' matrices in a row as a link's inverse inertia.
    inertia = state.i_inv.reshape(-1)[: collisions.links]
    numbers = jnp.stack([1 / state.mass, inertia], axis=1)
    place = state.x.pos, state.x.rot
    parts = (state.x_i.pos, state.xd_i.vel, state.xd_i.ang, numbers, *place)
    found = single(jnp.concatenate(parts, axis=1))
    return found[:, :3], found[:, 3:]
