"""What the functions of Du (2019), chapter 7, share: constants, and points checked at the door.

>>> check_constants(Constants(smoothness=0.5))
Traceback (most recent call last):
...
ValueError: smoothness L is 0.5 and curvature γ is 1.0; expected L ≥ γ: ...
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.arguments import (
    FINITE_POSITIVE,
    Rule as Rule,
    checker,
    library as library,
    one_number as one_number,
    real as real,
    source as _source,
)

source = functools.partial(_source, "Du (2019)")
check = checker(**dict.fromkeys(("smoothness", "curvature", "tau", "step_size"), FINITE_POSITIVE))


class Constants(NamedTuple):
    """What tube and octopus are built of; the defaults are the thesis'. They may be traced.

    Attributes:
      smoothness: L ≥ γ: curvature 2L across the tube and around the minima.
      curvature: γ > 0: curvature −2γ along the one direction that leaves a saddle point.
      tau: τ > 0, the unit of length: saddle points and minima are 4τ apart.
    """

    smoothness: ArrayLike = math.e
    curvature: ArrayLike = 1.0
    tau: ArrayLike = math.e


THESIS = Constants()


def check_constants(constants: Any) -> None:
    """Refuse constants that are no `Constants` of one number each with L ≥ γ > 0 and τ > 0."""
    if not isinstance(constants, Constants):
        raise ValueError(
            f"constants is of type {type(constants).__name__}; expected "
            "Constants(smoothness=L, curvature=γ, tau=τ)."
        )
    one_number(**constants._asdict())
    check(**constants._asdict())
    smoothness, curvature, _ = constants
    both = checks.is_concrete(smoothness) and checks.is_concrete(curvature)
    if both and not np.asarray(smoothness) >= np.asarray(curvature):
        raise ValueError(
            f"smoothness L is {smoothness} and curvature γ is {curvature}; expected L ≥ γ: "
            "the splines of Lemma 7.4 fall monotonically only then."
        )


def check_step_size(step_size: ArrayLike, constants: Constants) -> None:
    """Refuse a step size η that is not in (0, 1/(2L)], which Lemma 7.2 asks for."""
    check_constants(constants)
    if not (checks.is_concrete(step_size) and checks.is_concrete(constants.smoothness)):
        return
    given = np.asarray(step_size)
    given = given if np.issubdtype(given.dtype, np.floating) else given.astype(float)
    largest = 1 / (2 * np.asarray(constants.smoothness, given.dtype))
    if not np.all((given > 0) & (given <= largest)):
        raise ValueError(
            f"step_size is {step_size}; expected 0 < η ≤ 1/(2L) = {largest:.6g}: beyond, waiting "
            "coordinates change signs at every step (Lemma 7.2)."
        )


def check_dimension(d: Any) -> int:
    """The dimension d ≥ 1 as an int."""
    return checks.positive_int("d", d)


def floating(name: str, values: ArrayLike) -> jax.Array:
    """`values` as a floating-point array of any shape, finite where it can be read."""
    array = jnp.asarray(values)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(f"{name} has dtype {array.dtype}; expected real numbers.")
    array = checks.floating(array)
    checks.finite(name, array)
    return array


def check_point(x: ArrayLike) -> jax.Array:
    """`x` as points (..., d) in floating point, d ≥ 1, finite where they can be read."""
    array = floating("x", x)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise ValueError(
            f"x has shape {array.shape}; expected (..., d): points of d ≥ 1 coordinates in the "
            "last axis."
        )
    return array


def cast(constants: Constants, dtype: Any) -> Constants:
    """The constants in the dtype of the points: a float64 constant must not widen a float32 run."""
    return Constants(*(jnp.asarray(constant, dtype) for constant in constants))


def largest_between_0_and_1(function: Callable[[jax.Array], jax.Array], dtype: Any) -> jax.Array:
    """The largest value of a smooth function of t, by grids, each around the best point before.

    Of the first grid's 513 points the best must be beside the maximum.
    """

    def closer(_, middle):
        t = jnp.clip(middle[0] + middle[1] * jnp.linspace(-1, 1, 513, dtype=dtype), 0, 1)
        return t[jnp.argmax(function(t))], middle[1] / 128

    start = jnp.asarray(0.5, dtype), jnp.asarray(0.5, dtype)
    return function(jax.lax.fori_loop(0, 4, closer, start)[0])
