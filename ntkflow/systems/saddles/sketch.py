"""The sketch (7.3): two saddle points in a row, the second of which is left later.

It is not continuous: intuition for the tube, and its arithmetic in two lines.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.arguments import Rule, checker
from ntkflow.systems.saddles.arguments import (
    THESIS,
    Constants,
    cast,
    check_constants,
    check_point,
    check_step_size,
    library,
    one_number,
    real,
    source,
)
from ntkflow.theory import Bound

_check = checker(x_2=Rule(lambda a: (a > 0) & (a <= 1), "a start in (0, 1]"))


class SketchTimes(NamedTuple):
    """When descent leaves the two saddle points of the sketch.

    Attributes:
      first: t_1, the first step with x_1 ≥ 1.
      second: t_2, the first step with x_2 ≥ 1; inf at η = 1/(2L), where x_2 is 0 at once.
    """

    first: ArrayLike
    second: ArrayLike


def sketch(x: ArrayLike, constants: Constants = THESIS) -> jax.Array:
    """f(x) of (7.3): −γx_1² + Lx_2²; L(x_1 − 2)² − γx_2² from x_1 = 1 on; then, from x_2 = 1 on,
    L(x_1 − 2)² + L(x_2 − 2)².

    Saddle points (0, 0) and (2, 0), minimum (2, 2); where two pieces meet, the later one holds.

    Args:
      x: points, shape (..., 2), of [0, 3] × [0, 1] and [1, 3] × [1, 3].
      constants: L and γ; τ is not used.

    Returns:
      Shape (...); outside of these squares NaN under a trace.

    Raises:
      ValueError: a point outside of the squares, L < γ.

    Example:
      >>> sketch(jnp.array([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [1.0, 0.0]])).round(3).tolist()
      [0.0, 0.0, 0.0, 2.718]

    Reference: Du (2019), equation (7.3).
    """
    check_constants(constants)
    x = check_point(x)
    if x.shape[-1] != 2:
        raise ValueError(f"x has shape {x.shape}; expected (..., 2): the sketch has d = 2.")
    if checks.is_concrete(x):
        values = np.asarray(x)
        inside = _inside(values)
        if not np.all(inside):
            where = tuple(int(i) for i in np.argwhere(~inside)[0])
            raise ValueError(
                f"x holds the point {values[where]}; expected 0 ≤ x_1, x_2 ≤ 3, and x_2 ≤ 1 as "
                "long as x_1 < 1: the squares of (7.3)."
            )
    return _sketch(x, constants)


def sketch_escape_times(
    x: ArrayLike, step_size: ArrayLike, constants: Constants = THESIS
) -> SketchTimes:
    """t_1 and t_2 of descent from x in [0, 1]², exactly, in closed form.

    t_1 = ⌈log(1/x_1) / log(1 + 2ηγ)⌉,
    t_2 = t_1 + ⌈(t_1 log(1/(1 − 2ηL)) + log(1/x_2)) / log(1 + 2ηγ)⌉.

    Args:
      x: the start, shape (..., 2), positive.
      step_size: η ≤ 1/(2L).
      constants: L and γ; τ is not used.

    Returns:
      SketchTimes, whole numbers in floating point, of shape (...). A power that meets 1 up to
      rounding may count one step more or less.

    Raises:
      ValueError: a start outside of (0, 1]², η > 1/(2L).

    Example:
      >>> times = sketch_escape_times(jnp.array([0.5, 0.5]), 1 / 12, Constants(3.0, 1.0))
      >>> [int(time) for time in times]
      [5, 32]

    Reference: Du (2019), section 7.4.1.
    """
    one_number(step_size=step_size)
    check_step_size(step_size, constants)
    x = check_point(x)
    if x.shape[-1] != 2:
        raise ValueError(f"x has shape {x.shape}; expected (..., 2): the sketch has d = 2.")
    if checks.is_concrete(x) and not np.all((np.asarray(x) > 0) & (np.asarray(x) <= 1)):
        raise ValueError("x holds starts outside of (0, 1]²; expected the first neighborhood.")
    return _sketch_escape_times(x, step_size, constants)


def sketch_second_time(
    first: ArrayLike,
    step_size: ArrayLike,
    constants: Constants = THESIS,
    *,
    x_2: ArrayLike = 1.0,
) -> Bound:
    """t_2 ≥ (2η(L + γ) t_1 + log(1/x_2)) / (2ηγ) ≥ ((L + γ)/γ) t_1.

    Args:
      first: t_1.
      step_size: η ≤ 1/(2L).
      constants: L and γ; τ is not used.
      x_2: where the second coordinate started, in (0, 1]; at 1 it is the second bound.

    Raises:
      ValueError: η > 1/(2L), t_1 < 0, a start outside of (0, 1].

    Example:
      >>> round(float(sketch_second_time(5, 1 / 12, Constants(3.0, 1.0), x_2=0.5).value), 3)
      24.159

    Reference: Du (2019), section 7.4.1.
    """
    check_step_size(step_size, constants)
    _check(first=first, x_2=x_2)
    smoothness, curvature, _ = constants
    numpy = library(first, step_size, x_2, *constants)
    ratio = (smoothness + real(curvature)) / curvature
    value = ratio * first - numpy.log(real(x_2)) / (2 * real(step_size) * curvature)
    formula = "(2η(L + γ) t_1 + log(1/x_2)) / (2ηγ)"
    return Bound(value, formula, 1.0, source("section 7.4.1"))


def _inside(x):
    first, second = x[..., 0], x[..., 1]
    square = (first >= 0) & (first <= 3) & (second >= 0) & (second <= 3)
    return square & ((second <= 1) | (first >= 1))


@jax.jit
def _sketch(x: jax.Array, constants: Constants) -> jax.Array:
    smoothness, curvature, _ = cast(constants, x.dtype)

    def part(own, left):
        """What a coordinate adds, when those before it have been left, or not yet."""
        waiting = jnp.where(left, -1 * curvature, smoothness) * own**2
        return jnp.where(left & (own >= 1), smoothness * (own - 2) ** 2, waiting)

    first, second = x[..., 0], x[..., 1]
    value = part(first, jnp.ones_like(first, bool)) + part(second, first >= 1)
    return value * jnp.where(_inside(x), 1, jnp.nan).astype(x.dtype)


@jax.jit
def _sketch_escape_times(x: jax.Array, step_size: ArrayLike, constants: Constants) -> SketchTimes:
    smoothness, curvature, _ = cast(constants, x.dtype)
    eta = jnp.asarray(step_size, x.dtype)
    growth, kept = jnp.log1p(2 * eta * curvature), 1 - 2 * eta * smoothness
    kept = jnp.where(kept > 4 * jnp.finfo(x.dtype).eps, kept, 0)  # 1/(2L), however it was rounded
    first = jnp.ceil(-jnp.log(x[..., 0]) / growth)
    waited = jnp.where(first > 0, -first * jnp.log(kept), 0)  # not 0 · inf
    return SketchTimes(first, first + jnp.ceil((waited - jnp.log(x[..., 1])) / growth))
