"""The warm-up: exponential time by a start in a thin band, or far away (section 7.3), η = 1/4.

What leaves is |x_2|, which may start below any float: times take its logarithm.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.saddles.arguments import check, check_point, floating, one_number

_LOG_GROWTH = float(np.log(1.5))  # of |x_2| at the saddle point, per step of size 1/4
_LOG_DECAY = float(np.log(0.5))  # on the slope


class FarTimes(NamedTuple):
    """When descent from far away meets and leaves the saddle point.

    Attributes:
      enter: the first step with x_1 ≥ −1.
      leave: the first step with x_1 ≥ −1 and |x_2| > 1.
    """

    enter: jax.Array
    leave: jax.Array


def thin_band(x: ArrayLike) -> jax.Array:
    """f(x) = x_1² − x_2²: a step of size 1/4 halves x_1, and multiplies x_2 by 3/2.

    Args:
      x: points, shape (..., 2). Beyond [−1, 1]², the neighborhood to escape from, it goes on.

    Returns:
      Shape (...).

    Raises:
      ValueError: another dimension than 2.

    Reference: Du (2019), section 7.3.
    """
    x = _plane(x)
    return x[..., 0] ** 2 - x[..., 1] ** 2


def thin_band_start(key: jax.Array, steps: ArrayLike, shape: tuple[int, ...] = ()) -> jax.Array:
    """log|x_2| of a uniform start in the band |x_2| ≤ (3/2)^(−steps).

    The thesis takes steps = exp(1/ε); a band of 2,000 steps is thinner than any float64.

    Args:
      key: of the draw.
      steps: the band's exponent, 0 or greater: one number.
      shape: of the result.

    Raises:
      ValueError: steps < 0, or several of them.

    Reference: Du (2019), section 7.3.
    """
    checks.prng_key(key)
    one_number(steps=steps)
    check(steps=steps)
    exponent = floating("steps", steps)
    share = jax.random.uniform(key, shape, exponent.dtype, jnp.finfo(exponent.dtype).tiny)
    return jnp.log(share) - exponent * _LOG_GROWTH


def thin_band_escape_time(log_x_2: ArrayLike) -> jax.Array:
    """The first t with (3/2)^t |x_2| > 1, from log|x_2|: more than `steps` in the band of `steps`.

    Args:
      log_x_2: log|x_2| of the start, any shape.

    Returns:
      Whole numbers in floating point, 0 where |x_2| > 1 already. A power that meets 1 up to
      rounding may count one more or less.

    Example:
      >>> thin_band_escape_time(jnp.log(jnp.array([1.0, 0.01]))).tolist()
      [1.0, 12.0]

    Reference: Du (2019), section 7.3.
    """
    return _escape_time(floating("log_x_2", log_x_2))


def far_start(x: ArrayLike) -> jax.Array:
    """f(x) of (7.2): −4x_1 + x_2² for x_1 < −2, x_1² − x_2² from −1 on, a spline between.

    h = h_a(x_1) + h_b(x_1) x_2², t = x_1 + 2: h_a = 8 − 4t − 37t³ + 57t⁴ − 23t⁵, the quintic
    Hermite spline of both ends' values, slopes and curvatures, and h_b = 1 − 2t³ (10 − 15t + 6t²).
    The thesis leaves h open. f is twice continuously differentiable, and no seam is stationary.
    Any h must be steep, by 7 on average, for f falls from 8 to 1: a step of 1/4 always crosses the
    seam. It may land up to 0.12 beyond x_1 = 1, where the quadratic goes on, from x_2 = 0, up to
    0.35 from |x_2| = 1/2, as it is at most behind the slope, and up to 1.05 from |x_2| = 1.

    Args:
      x: points, shape (..., 2).

    Returns:
      Shape (...).

    Raises:
      ValueError: another dimension than 2.

    Example:
      >>> far_start(jnp.array([[-5.0, 1.0], [-2.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])).tolist()
      [21.0, 8.0, 1.0, -1.0]

    Reference: Du (2019), equation (7.2).
    """
    return _far_start(_plane(x))


def far_start_times(x_1: ArrayLike, log_x_2: ArrayLike) -> FarTimes:
    """When descent of step size 1/4 on `far_start` reaches x_1 ≥ −1, and when |x_2| > 1 then.

    On the slope x_1 grows by 1 and x_2 halves, ⌈−2 − x_1⌉ times; one step crosses the seam,
    x_2 ← (1 − h_b(x_1)/2) x_2; then |x_2| grows by 3/2. From x_1 = −R the saddle point holds it for
    about R ln 2 / ln 1.5 steps.

    Args:
      x_1: start, any shape.
      log_x_2: log|x_2| of the start, of a shape that goes with it.

    Returns:
      FarTimes, whole numbers in floating point. A power that meets 1 up to rounding may count one
      step more or less.

    Example:
      >>> [int(time) for time in far_start_times(-20.0, 0.0)]
      [19, 52]

    Reference: Du (2019), section 7.3; the closed form is derived.
    """
    return _far_start_times(floating("x_1", x_1), floating("log_x_2", log_x_2))


def _across(first: jax.Array) -> jax.Array:
    """h_b: 1 on the slope, −1 at the saddle point."""
    t = jnp.clip(first + 2, 0, 1)
    return 1 - 2 * t**3 * (10 - t * (15 - 6 * t))


def _plane(x: ArrayLike) -> jax.Array:
    x = check_point(x)
    if x.shape[-1] != 2:
        raise ValueError(f"x has shape {x.shape}; expected (..., 2): the warm-up has d = 2.")
    return x


@jax.jit
def _far_start_times(x_1: jax.Array, log_x_2: jax.Array) -> FarTimes:
    first, log_second = jnp.broadcast_arrays(x_1, log_x_2)
    slope = jnp.maximum(jnp.ceil(-2 - first), 0)
    landed = first + slope
    seam = landed < -1
    enter = slope + seam
    factor = jnp.where(seam, jnp.log1p(-_across(landed) / 2), 0)
    met = log_second + slope * _LOG_DECAY + factor
    return FarTimes(enter, enter + _escape_time(met))


@jax.jit
def _escape_time(log_x_2: jax.Array) -> jax.Array:
    return jnp.maximum(jnp.floor(-log_x_2 / _LOG_GROWTH) + 1, 0)


@jax.jit
def _far_start(x: jax.Array) -> jax.Array:
    first, second = x[..., 0], x[..., 1]
    seam = (first >= -2) & (first < -1)
    t = jnp.where(seam, first + 2, 0)  # far away its powers, and their derivatives, are infinite
    spline = 8 - 4 * t + t**3 * (-37 + t * (57 - 23 * t))
    along = jnp.where(seam, spline, jnp.where(first < -2, -4 * first, first**2))
    return along + _across(first) * second**2
