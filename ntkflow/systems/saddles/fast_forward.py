"""Escape times in closed form: a wait is one logarithm, and only buffers are crossed in steps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ntkflow.systems.saddles import splines
from ntkflow.systems.saddles.arguments import Constants, cast
from ntkflow.systems.saddles.scaled import Scaled, from_scaled, log_magnitude


class EscapeTimes(NamedTuple):
    """When each coordinate leaves; steps as floating-point numbers, inf where it does not
    or where they exceed the largest of these numbers.

    Attributes:
      buffer: T_k − T_k^τ, the first t with |x_1|, …, |x_{k−1}| ≥ 2τ and |x_k| ≥ τ, shape (d,).
      stage: T_k, the first t with |x_1|, …, |x_k| ≥ 2τ, when saddle point k is escaped, shape (d,).
    """

    buffer: jax.Array
    stage: jax.Array


@jax.jit
def fast_forward(start: Scaled, constants: Constants, step_size: jax.Array) -> EscapeTimes:
    """What `escape_times` returns, of arguments that it has checked."""
    dtype = start.mantissa.dtype
    size, log_start = jnp.abs(from_scaled(start)), log_magnitude(start)
    smoothness, curvature, tau = constants = cast(constants, dtype)
    log_growth = jnp.log1p(2 * step_size * curvature)
    log_decay = jnp.log1p(-jnp.minimum(2 * step_size * smoothness, 1))

    def cross(carry):
        """One step of coordinate k in its buffer, and of the one after it."""
        z, log_next, count, _ = carry
        slope = splines.g_1_slope(z, constants)
        slope += splines.g_2_slope(z, constants) * jnp.exp(2 * log_next)
        factor = jnp.log1p(-jnp.minimum(2 * step_size * splines.g_2(z, constants), 1))
        after = z - step_size * slope
        return after, log_next + factor, count + 1, after > z

    def leave(carry, coordinate):
        """Saddle point k: from its coordinate at T_{k−1} to the next one's at T_k."""
        log_size, begun = carry
        size, log_waiting = coordinate
        growing = jnp.maximum(jnp.ceil((jnp.log(tau) - log_size) / log_growth), 0)
        # At the start x_k itself tells whether it has passed τ or 2τ, which its logarithm rounds.
        from_start = jnp.where(size < tau, jnp.maximum(growing, 1), 0)
        growing = jnp.where(begun == 0, from_start, growing)
        buffer = begun + growing
        z = jnp.exp(log_size + growing * log_growth)
        z = jnp.where(growing > 0, jnp.clip(z, tau, tau * (1 + 2 * step_size * curvature)), z)
        z = jnp.where(buffer == 0, size, z)
        shrunk = log_waiting + jnp.where(buffer > 0, buffer * log_decay, 0)

        def crossing(carry):
            """NaN, of a coordinate that never comes (−∞ + ∞), compares false."""
            z, log_next, _, moving = carry
            return (z < 2 * tau) & (log_next <= jnp.log(tau)) & moving

        before = (z, shrunk, jnp.zeros((), dtype), jnp.array(True))
        z, log_next, count, _ = jax.lax.while_loop(crossing, cross, before)
        left = jnp.where(z < 2 * tau, jnp.nan, buffer + count)
        return (log_next, left), EscapeTimes(buffer, left)

    waiting = jnp.append(log_start[1:], -jnp.inf).astype(dtype)
    begin = (log_start[0], jnp.zeros((), dtype))
    return jax.lax.scan(leave, begin, (size, waiting))[1]
