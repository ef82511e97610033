"""The splines of Lemma 7.4 that lead from one saddle point to the next, and the drop ν of f.

On the buffer τ ≤ x ≤ 2τ they are polynomials, written in t = x/τ − 1 ∈ [0, 1].
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow.systems.saddles.arguments import (
    THESIS,
    Constants as Constants,
    cast,
    check_constants,
    floating,
    largest_between_0_and_1,
    real,
    source,
)
from ntkflow.theory import Bound


def g_1(x: ArrayLike, constants: Constants = THESIS) -> jax.Array:
    """g_1(x) = τ² [−γ(1 + t)² − (14L − 10γ) t³/3 + (5L − 3γ) t⁴/2], t = x/τ − 1.

    From −γx² at τ to L(x − 4τ)² − ν at 2τ, with two derivatives: along a crossing coordinate.

    Args:
      x: in [τ, 2τ], of any shape. Beyond, the polynomial goes on.
      constants: L, γ, τ.

    Returns:
      Of the shape and dtype of `x`.

    Raises:
      ValueError: L < γ, or a constant that is not positive.

    Example:
      >>> tau = Constants().tau
      >>> g_1(jnp.array([tau, 2 * tau])).round(6).tolist()
      [-7.389056, -59.528285]

    Reference: Du (2019), Lemma 7.4.
    """
    return _g_1(*_read(x, constants))


def g_1_slope(x: ArrayLike, constants: Constants = THESIS) -> jax.Array:
    """g_1′ = p, the cubic Hermite spline: from −2γτ at τ to −4Lτ at 2τ.

    Negative throughout, and −2γτ at most. It is not −4Lτ at least, as the lemma has it: its slope
    at 2τ is 2L > 0. See `least_slope`.

    Args:
      x: in [τ, 2τ], of any shape.
      constants: L, γ, τ.

    Reference: Du (2019), Lemma 7.4 and Theorem 7.4.
    """
    return _g_1_slope(*_read(x, constants))


def g_1_curvature(x: ArrayLike, constants: Constants = THESIS) -> jax.Array:
    """g_1″ = p′: from −2γ at τ to 2L at 2τ. Independent of τ at fixed x/τ."""
    return _g_1_curvature(*_read(x, constants))


def g_2(x: ArrayLike, constants: Constants = THESIS) -> jax.Array:
    """g_2(x) = L − (L + γ) t³ (10 − 15t + 6t²), t = x/τ − 1: from L at τ to −γ at 2τ.

    The coefficient of x_{i+1}² while x_i crosses. First and second derivatives are 0 at both ends.

    Args:
      x: in [τ, 2τ], of any shape. Beyond, the polynomial goes on.
      constants: L, γ, τ.

    Example:
      >>> tau = Constants().tau
      >>> g_2(jnp.array([tau, 1.5 * tau, 2 * tau])).round(6).tolist()
      [2.718282, 0.859..., -1.0]

    Reference: Du (2019), Lemma 7.4.
    """
    return _g_2(*_read(x, constants))


def g_2_slope(x: ArrayLike, constants: Constants = THESIS) -> jax.Array:
    """g_2′ = −30 (L + γ) t² (1 − t)² / τ, 0 at most."""
    return _g_2_slope(*_read(x, constants))


def g_2_curvature(x: ArrayLike, constants: Constants = THESIS) -> jax.Array:
    """g_2″ = −60 (L + γ) t (1 − t) (1 − 2t) / τ²."""
    return _g_2_curvature(*_read(x, constants))


def offset(constants: Constants = THESIS) -> ArrayLike:
    """ν = −g_1(2τ) + 4Lτ² = (37L + 13γ) τ² / 6: how far f falls from one saddle to the next.

    Args:
      constants: L, γ, τ.

    Returns:
      A number, or a traced one.

    Raises:
      ValueError: L < γ, or a constant that is not positive.

    Example:
      >>> round(offset(), 9)
      139.870432574

    Reference: Du (2019), Lemma 7.4; the closed form is derived.
    """
    check_constants(constants)
    return _offset(constants)


def hermite_cubic(constants: Constants = THESIS) -> tuple[Any, Any, Any, Any]:
    """Coefficients c_0, …, c_3 of p(x) = Σ_k c_k (x − τ)ᵏ = g_1′(x), by Theorem 7.4.

    Example:
      >>> [round(c, 9) for c in hermite_cubic()]
      [-5.436563657, -2.0, -10.321205588, 2.866782712]

    Reference: Du (2019), Theorem 7.4.
    """
    check_constants(constants)
    smoothness, curvature, tau = (real(constant) for constant in constants)
    left, right = -2 * curvature * tau, -4 * smoothness * tau
    slope_left, slope_right = -2 * curvature, 2 * smoothness
    secant = (right - left) / tau
    return (
        left,
        slope_left,
        (3 * secant - slope_right - 2 * slope_left) / tau,
        -(2 * secant - slope_right - slope_left) / tau**2,
    )


def largest_slope(constants: Constants = THESIS) -> Bound:
    """∂g/∂x_i ≤ −2γτ in the buffer: a crossing coordinate moves by 2ηγτ per step at least.

    Sharp at x_i = τ. For L ≥ γ: p + 2γτ = −τ t [2γ + t ((14L − 10γ) − (10L − 6γ) t)], whose inner
    bracket falls to 4(L − γ) ≥ 0 at t = 1, and g_2′ ≤ 0.

    Reference: Du (2019), Lemma 7.4.
    """
    check_constants(constants)
    value = -2 * real(constants.curvature) * constants.tau
    return Bound(value, "−2γτ", 1.0, source("Lemma 7.4"))


def least_slope(constants: Constants = THESIS, *, printed: bool = False) -> Bound:
    """How steeply g falls along x_i: min ∂g/∂x_i over τ ≤ x_i ≤ 2τ, 0 ≤ x_{i+1} ≤ τ.

    The lemma states −4Lτ. That fails already for g_1, whose slope p has p(2τ) = −4Lτ and
    p′(2τ) = 2L > 0, so that it is less just before; Theorem 7.4 promises f(y_1) ≤ p for
    f′(y_1) ≥ 3S, where it needs f′(y_1) ≤ 0 besides. The default is the minimum itself, at
    x_{i+1} = τ, where p + τ² g_2′ is least.

    Args:
      constants: L, γ, τ.
      printed: the lemma's −4Lτ, for comparison.

    Returns:
      Bound, proportional to τ.

    Example:
      >>> round(float(least_slope().value), 3), round(float(least_slope(printed=True).value), 3)
      (-41.232, -29.556)

    Reference: Du (2019), Lemma 7.4.
    """
    check_constants(constants)
    smoothness, _, tau = constants
    if printed:
        return Bound(-4 * real(smoothness) * tau, "−4Lτ", 1.0, source("Lemma 7.4"))
    formula = "min over t of p + τ² g_2′"
    return Bound(_least_slope(constants), formula, 1.0, source("Lemma 7.4", "corrected: derived"))


@jax.jit
def _least_slope(constants: Constants) -> jax.Array:
    dtype = jnp.result_type(float, *constants)
    constants = cast(constants, dtype)
    tau = constants.tau

    def descent(t):
        x = tau * (1 + t)
        return -_g_1_slope(x, constants) - tau**2 * _g_2_slope(x, constants)

    return -largest_between_0_and_1(descent, dtype)


def _read(x: ArrayLike, constants: Constants) -> tuple[jax.Array, Constants]:
    check_constants(constants)
    return floating("x", x), constants


def _kernel(function):
    """The polynomial as a jitted function of x and constants, in the dtype of x."""

    @jax.jit
    @functools.wraps(function)
    def of(x: jax.Array, constants: Constants) -> jax.Array:
        smoothness, curvature, tau = cast(constants, x.dtype)
        return function(x / tau - 1, smoothness, curvature, tau)

    return of


@_kernel
def _g_1(t, smoothness, curvature, tau):
    cubic, quartic = (10 * curvature - 14 * smoothness) / 3, (5 * smoothness - 3 * curvature) / 2
    return tau**2 * (-curvature * (1 + t) ** 2 + t**3 * (cubic + quartic * t))


@_kernel
def _g_1_slope(t, smoothness, curvature, tau):
    square, cubic = 10 * curvature - 14 * smoothness, 10 * smoothness - 6 * curvature
    return tau * (-2 * curvature * (1 + t) + t**2 * (square + cubic * t))


@_kernel
def _g_1_curvature(t, smoothness, curvature, tau):
    linear, square = 20 * curvature - 28 * smoothness, 30 * smoothness - 18 * curvature
    return -2 * curvature + t * (linear + square * t)


@_kernel
def _g_2(t, smoothness, curvature, tau):
    return smoothness - (smoothness + curvature) * t**3 * (10 + t * (6 * t - 15))


@_kernel
def _g_2_slope(t, smoothness, curvature, tau):
    return -30 * (smoothness + curvature) * (t * (1 - t)) ** 2 / tau


@_kernel
def _g_2_curvature(t, smoothness, curvature, tau):
    return -60 * (smoothness + curvature) * t * (1 - t) * (1 - 2 * t) / tau**2


def _offset(constants: Constants) -> Any:
    smoothness, curvature, tau = constants
    return (37 * real(smoothness) + 13 * curvature) * tau**2 / 6
