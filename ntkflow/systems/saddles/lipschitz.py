"""How smooth the octopus is: B, ℓ and ρ on its domain, exactly."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow.stationarity import Smoothness
from ntkflow.systems.saddles import splines
from ntkflow.systems.saddles.arguments import (
    THESIS,
    Constants,
    cast,
    check_constants,
    check_dimension,
    largest_between_0_and_1,
    real,
)


def smoothness(d: int, constants: Constants = THESIS) -> Smoothness:
    """B, ℓ and ρ of the octopus: the largest |f|, ‖∇²f‖ and ‖∇³f‖ on its domain.

    B = dν: f = −dν is the least value, at the minima, and f ≤ (d − 1) Lτ² < dν. ∇²f is diagonal, 2L
    and −2γ, but for the one block in which x_i crosses its buffer, of

        ∂_i² f = g_1″ + g_2″ x_{i+1}²,  ∂_i ∂_{i+1} f = 2 g_2′ x_{i+1},  ∂_{i+1}² f = 2 g_2.

    Its eigenvalue of largest absolute value is the negative one at x_{i+1} = τ and x_i between
    1.24τ and 1.30τ: ℓ is a function of L and γ alone, 11 to 16 times L. ρ = (88L + 40γ)/τ is
    |∂³f/∂x_i³| at x_i = x_{i+1} = τ, one side of the seam. Neither depends on d ≥ 2; for d = 1
    there is no neighbour, ℓ = 2γ + (14L − 10γ)²/(30L − 18γ) and ρ = (32L − 16γ)/τ.

    The step size 1/(4L) of section 7.5 is more than 1/ℓ, which Theorem 7.3 asks for.

    Args:
      d: dimension.
      constants: L, γ, τ.

    Returns:
      Smoothness. ℓ and ρ hold along every segment in the domain; an extension to ℝ^d has at least
      these.

    Raises:
      ValueError: d < 1, L < γ.

    Example:
      >>> [round(float(value), 3) for value in smoothness(5)]
      [699.352, 34.663, 102.715]

    Reference: Du (2019), Remark 7.1 and Theorem 7.3, which state poly(d); the values are derived.
    """
    check_constants(constants)
    steep, flat, tau = (real(constant) for constant in constants)  # L, γ, τ
    bound = check_dimension(d) * splines.offset(constants)
    if d == 1:
        curved = 2 * flat + (14 * steep - 10 * flat) ** 2 / (30 * steep - 18 * flat)
        return Smoothness(bound, curved, (32 * steep - 16 * flat) / tau)
    return Smoothness(bound, _largest_curvature(constants), (88 * steep + 40 * flat) / tau)


@jax.jit
def _largest_curvature(constants: Constants) -> ArrayLike:
    """Over x_i, at x_{i+1} = τ."""
    dtype = jnp.result_type(float, *constants)
    constants = cast(constants, dtype)
    tau = constants.tau

    def curvature(t):
        x = tau * (1 + t)
        first = splines.g_1_curvature(x, constants) + tau**2 * splines.g_2_curvature(x, constants)
        mixed, second = 2 * tau * splines.g_2_slope(x, constants), 2 * splines.g_2(x, constants)
        return jnp.hypot((first - second) / 2, mixed) - (first + second) / 2

    return largest_between_0_and_1(curvature, dtype)
