"""What chapter 7 asks and promises of perturbed gradient descent, in general and on the octopus."""

from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.arguments import FINITE_POSITIVE, checker
from ntkflow.systems.saddles.arguments import (
    THESIS,
    Constants,
    check_constants,
    library,
    real,
    source,
)
from ntkflow.theory import Bound

_check = checker(
    **dict.fromkeys(("ell", "rho", "decrease", "epsilon", "constant", "c"), FINITE_POSITIVE)
)


class Hyperparameters(NamedTuple):
    """The numbers of `perturbed_gradient_descent`, in its order: η, r, g_thres, t_thres."""

    step_size: ArrayLike
    radius: ArrayLike
    gradient_threshold: ArrayLike
    waiting_time: ArrayLike


def perturbed_hyperparameters(
    ell: ArrayLike,
    rho: ArrayLike,
    decrease: ArrayLike,
    d: ArrayLike,
    epsilon: ArrayLike,
    delta: ArrayLike,
    c: ArrayLike = 1.0,
) -> Hyperparameters:
    """The proper choice of Theorem 7.2: η = c/ℓ, r = √c ε/(χ²ℓ), g_thres = √c ε/χ², t_thres.

    t_thres = (χ/c²) ℓ/√(ρε), χ = 3 max(log(dℓΔ/(cε²δ)), 4). The theorem holds for c small enough,
    which its source leaves open.

    Args:
      ell: ℓ, of the gradient.
      rho: ρ, of the Hessian.
      decrease: Δ ≥ f(x_0) − f*; 2B for a B-bounded f.
      d: dimension.
      epsilon: ε ≤ ℓ²/ρ.
      delta: probability of failure.
      c: the constant.

    Returns:
      `Hyperparameters`: perturbed_gradient_descent(*hyperparameters, key).

    Raises:
      ValueError: ε > ℓ²/ρ, d < 1, δ not in (0, 1).

    Example:
      >>> chosen = perturbed_hyperparameters(10.0, 5.0, 100.0, d=5, epsilon=0.1, delta=0.1)
      >>> [f"{number:.3g}" for number in chosen]
      ['0.1', '4.67e-06', '4.67e-05', '654']

    References:
      Du (2019), Theorem 7.2; Jin, Ge, Netrapalli, Kakade and Jordan (2017), Algorithm 2.
    """
    _check_problem(ell, rho, d, epsilon, delta)
    _check(decrease=decrease, c=c)
    lib = library(ell, rho, decrease, d, epsilon, delta, c)
    logarithm = lib.log(real(d) * ell * decrease / (c * epsilon**2 * delta))
    chi = 3 * lib.maximum(logarithm, 4.0)
    threshold = c**0.5 * epsilon / chi**2
    waiting_time = chi / c**2 * ell / (rho * epsilon) ** 0.5
    return Hyperparameters(c / real(ell), threshold / ell, threshold, waiting_time)


def perturbed_iterations(
    ell: ArrayLike,
    rho: ArrayLike,
    bound: ArrayLike,
    d: ArrayLike,
    epsilon: ArrayLike,
    delta: ArrayLike,
    *,
    constant: ArrayLike = 1.0,
) -> Bound:
    """In how many steps Algorithm 2 finds an ε-second-order stationary point, up to a constant.

    (ℓB/ε²) log⁴(dℓB/(ε²δ)), with probability 1 − δ.

    Args:
      ell, rho, d, epsilon, delta: those of `perturbed_hyperparameters`.
      bound: B ≥ |f|.
      constant: the factor that O(·) leaves open.

    Raises:
      ValueError: ε > ℓ²/ρ, d < 1, δ not in (0, 1).

    Example:
      >>> f"{perturbed_iterations(10.0, 5.0, 50.0, 5, epsilon=0.1, delta=0.1).value:.2g}"
      '2.4e+09'

    Reference: Du (2019), Theorem 7.2.
    """
    _check_problem(ell, rho, d, epsilon, delta)
    _check(decrease=bound, constant=constant)
    size = real(ell) * bound / epsilon**2
    logarithm = library(size, d, delta).log(size * d / delta)
    formula = "c (ℓB/ε²) log⁴(dℓB/(ε²δ))"
    return Bound(constant * size * logarithm**4, formula, constant, source("Theorem 7.2"))


def largest_radius(constants: Constants = THESIS) -> Bound:
    """The r up to which noise leaves iterates in the octopus, τ/20.

    Reference: Du (2019), proof of claim 2 of Theorem 7.3.
    """
    check_constants(constants)
    return Bound(real(constants.tau) / 20, "τ/20", 1.0, source("section 7.7.2"))


def largest_gradient_threshold(constants: Constants = THESIS) -> Bound:
    """The g_thres up to which no noise comes in a buffer, where gradients are 2γτ at least: γτ/10.

    Reference: Du (2019), proof of claim 2 of Theorem 7.3.
    """
    check_constants(constants)
    value = real(constants.curvature) * constants.tau / 10
    return Bound(value, "γτ/10", 1.0, source("section 7.7.2"))


def _check_problem(ell: Any, rho: Any, d: Any, epsilon: Any, delta: Any) -> None:
    _check(ell=ell, rho=rho, d=d, epsilon=epsilon, delta=delta)
    if not all(checks.is_concrete(value) for value in (ell, rho, epsilon)):
        return
    largest = np.asarray(ell, float) ** 2 / np.asarray(rho, float)
    if np.any(np.asarray(epsilon, float) > largest):
        raise ValueError(
            f"epsilon is {epsilon}; expected at most ℓ²/ρ = {largest}, as Theorem 7.2 asks."
        )
