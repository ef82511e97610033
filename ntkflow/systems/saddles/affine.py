"""Any start: a function moved and stretched so that its cube [−1, 1]^d holds most of it."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erfc
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.stationarity import Smoothness
from ntkflow.systems.saddles.arguments import (
    check as _check,
    check_dimension,
    floating,
    one_number,
    real,
)


def transform(
    f: Callable[..., jax.Array], center: ArrayLike, scale: ArrayLike
) -> Callable[..., jax.Array]:
    """Build g(x) = f((x − z)/R).

    Descent on g with step size η from x is descent on f with η/R² from (x − z)/R: see
    `transform_step`.

    Args:
      f: a function of points (..., d); further arguments are handed on.
      center: z, a number or shape (d,).
      scale: R > 0, one number.

    Returns:
      g, with the arguments of f.

    Raises:
      ValueError: R ≤ 0, f is no function.

    Example:
      >>> from ntkflow.systems.saddles.octopus import octopus
      >>> g = transform(octopus, center=jnp.array([5.0, 5.0]), scale=2.0)
      >>> g(jnp.array([5.0, 6.0])).round(3).tolist()
      0.68

    Reference: Du (2019), Corollary 7.2 and section 7.7.3.
    """
    if not callable(f):
        raise ValueError(f"f is of type {type(f).__name__}; expected a function of points.")
    center = floating("center", center)
    if center.ndim > 1:
        raise ValueError(f"center has shape {center.shape}; expected (d,), or one number.")
    one_number(scale=scale)
    _check_scale(scale)

    def g(x: ArrayLike, *arguments: Any) -> jax.Array:
        x = floating("x", x)
        moved = center.astype(x.dtype)
        if moved.ndim:
            if x.ndim == 0 or x.shape[-1] != len(moved):
                raise ValueError(
                    f"x has shape {x.shape} and center {moved.shape}; expected (..., {len(moved)})."
                )
            moved = moved.reshape((1,) * (x.ndim - 1) + moved.shape)
        return f((x - moved) / jnp.asarray(scale, x.dtype), *arguments)

    return g


def transform_smoothness(smoothness: Smoothness, scale: ArrayLike) -> Smoothness:
    """B, ℓ/R² and ρ/R³ of g from those of f.

    Args:
      smoothness: B, ℓ, ρ of f.
      scale: R > 0.

    Example:
      >>> transform_smoothness(Smoothness(1.0, 4.0, 16.0), 2.0)
      Smoothness(bound=1.0, gradient_lipschitz=1.0, hessian_lipschitz=2.0)

    Reference: Du (2019), section 7.7.3.
    """
    _check_scale(scale)
    bound, gradient_lipschitz, hessian_lipschitz = smoothness
    scale = real(scale)
    return Smoothness(bound, gradient_lipschitz / scale**2, hessian_lipschitz / scale**3)


def transform_step(step_size: ArrayLike, scale: ArrayLike) -> Any:
    """η/R²: the step size on f that does what η does on g.

    Reference: Du (2019), section 7.7.3.
    """
    _check_scale(scale)
    _check(step_size=step_size)
    return step_size / real(scale) ** 2


def gaussian_mass(d: int, radius: ArrayLike, sigma: ArrayLike = 1.0) -> jax.Array:
    """ν([−R, R]^d) = erf(R/(σ√2))^d of ν = N(0, σ²I): with what probability Corollary 7.2 speaks.

    Corollary 7.2 takes R = σ log d: the mass is at least 1 − d exp(−log²d/2). What it lacks falls
    faster than any power of 1/d.

    Args:
      d: dimension.
      radius: R > 0, any shape.
      sigma: σ > 0.

    Returns:
      Of the shape and dtype of `radius`.

    Raises:
      ValueError: d < 1, R or σ not positive.

    Example:
      >>> [round(float(gaussian_mass(d, float(np.log(d)))), 4) for d in (2, 10, 100, 1000)]
      [0.2619, 0.8063, 0.9996, 1.0]

    Reference: Du (2019), Corollary 7.2; the mass is derived.
    """
    d = check_dimension(d)
    _check_scale(radius, "radius")
    _check_scale(sigma, "sigma")
    radius = floating("radius", radius)
    outside = erfc(radius / (floating("sigma", sigma).astype(radius.dtype) * math.sqrt(2.0)))
    return jnp.exp(d * jnp.log1p(-outside))


def _check_scale(scale: ArrayLike, name: str = "scale") -> None:
    if checks.is_concrete(scale) and not np.all(
        (np.asarray(scale) > 0) & np.isfinite(np.asarray(scale))
    ):
        raise ValueError(f"{name} is {scale}; expected a finite number greater than 0.")
