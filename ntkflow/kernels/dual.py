"""Dual activations: E[φ(u)φ(v)] and E[φ'(u)φ'(v)] over Gaussian pairs, for any activation φ."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkflow.kernels.activations import Pair, closed_forms, recognise, sample
from ntkflow.kernels.arccos import align
from ntkflow.kernels.quadrature import (
    Function,
    derivative,
    elementwise,
    hermite_dual,
    hermite_rule,
    polar_dual,
)

Kernel = Callable[[ArrayLike, ArrayLike, ArrayLike], Array]


def dual_activation(phi: Callable) -> tuple[Kernel, Kernel]:
    """Build the two Gaussian expectations of an activation that infinitely wide layers need.

    k_φ(k₁₁, k₁₂, k₂₂) = E[φ(u) φ(v)] and k_φ'(k₁₁, k₁₂, k₂₂) = E[φ'(u) φ'(v)], where
    (u, v) ~ N(0, [[k₁₁, k₁₂], [k₁₂, k₂₂]]).

    Closed forms are used where `recognise` finds one, by what `phi` computes and under whatever
    name: positively homogeneous functions (ReLU, LeakyReLU, abs, identity), steps, polynomials,
    erf, sin, cos, exp, Gaussians, exact GELU, with amplitudes and input scales. Any other function
    is integrated numerically, by a rule chosen from the function: a Hermite series of 256 terms if
    it is smooth, a polar rule of 24 × 24 nodes per sector if not. Absolute error of k_φ for the
    worst correlation, float64, at variances 0.25, 1 and 4:

        tanh                                           1e-13  2e-13  2e-10
        softplus, silu, sigmoid, GELU by tanh          1e-13  1e-13  1e-13
        ELU, SELU                                      1e-13  1e-13  1e-12
        relu6, with a break at 6                       1e-13  2e-9   3e-4
        hard_tanh, with breaks at ±1                   2e-4   1e-3   2e-3

    Breaks of φ away from 0 are not resolved: there the error of k_φ' is larger, up to 2e-2 for
    hard_tanh at variance 1. Elsewhere it is that of k_φ within a factor of 100.

    The series loses digits as the variance grows (tanh at 16: 2e-6). The polar rule evaluates φ
    some 2000 times per pair; the series 400 times at k₁₁ and k₂₂, all at once: pass these with
    the shapes (n, 1) and (1, n).

    Derivatives with respect to all three covariances are finite and right on the diagonal, at
    k₁₂ = −√(k₁₁k₂₂) and at zero variance; where they diverge (a jump of the differentiated
    function at |ρ| = 1, a kink of φ at zero variance) a finite value without the divergent term
    stands there. A break of φ away from 0 is not seen by the derivatives of E[φ'φ'].

    Args:
      phi: an elementwise function of floating-point arrays. If it closes over traced values, the
        polar rule is used; it cannot be differentiated with respect to these.

    Returns:
      `(k_phi, k_phi_prime)`, each a function of three arrays that broadcast against each other.

    Raises:
      ValueError: `phi` is not a function that keeps the shape of its argument, or gives NaN.

    Example:
      >>> k_phi, k_phi_prime = dual_activation(lambda x: jnp.maximum(x, 0))
      >>> float(k_phi(1.0, 1.0, 1.0)), float(k_phi_prime(1.0, 0.0, 1.0))
      (0.5, 0.25)
      >>> round(float(dual_activation(jnp.tanh)[0](1.0, 1.0, 1.0)), 10)
      0.3942944904

    Reference:
      Daniely, Frostig and Singer (2016), Toward deeper understanding of neural networks, section 4.
    """
    pair = dual_pair(phi)

    def k_phi(k11: ArrayLike, k12: ArrayLike, k22: ArrayLike) -> Array:
        return pair(*align(k11, k12, k22))[0]

    def k_phi_prime(k11: ArrayLike, k12: ArrayLike, k22: ArrayLike) -> Array:
        return pair(*align(k11, k12, k22))[1]

    return k_phi, k_phi_prime


def dual_pair(phi: Callable) -> Pair:
    """Build one function for both kernels of `dual_activation`, which share their angle.

    Args:
      phi: an elementwise function.

    Returns:
      A function of k₁₁, k₁₂, k₂₂, arrays of one dtype and one number of axes, to
      (E[φφ], E[φ'φ']).
    """
    _check(phi)
    family = recognise(phi)
    if family is not None:
        return closed_forms[family.name](*family.parameters)
    phi = elementwise(phi)
    rule = hermite_dual if _is_smooth(phi) else polar_dual
    value, slope = rule(phi, phi), rule(derivative(phi), derivative(phi))
    return lambda k11, k12, k22: (value(k11, k12, k22), slope(k11, k12, k22))


def _check(phi: Callable) -> None:
    if not callable(phi):
        raise ValueError(f"phi is {phi!r}; expected an elementwise function, e.g. jax.nn.relu.")
    argument = jax.ShapeDtypeStruct((3, 2), jnp.result_type(float))
    result = jax.eval_shape(phi, argument)
    if jnp.shape(result) != argument.shape:
        raise ValueError(
            f"phi turns an array of shape {argument.shape} into {result}; expected an elementwise "
            "function, which keeps the shape."
        )


def _is_smooth(phi: Function) -> bool:
    """Whether the Hermite series at variance 1 holds all the energy of φ and of φ'."""
    nodes, matrix = hermite_rule()
    rounding = max(1e-11, 100 * float(jnp.finfo(jnp.result_type(float)).eps))
    for f in (phi, derivative(phi)):
        values = sample(jax.jit(f), nodes)
        if values is None:
            return False
        if np.isnan(values).any():
            where = nodes[np.isnan(values)][0]
            raise ValueError(
                f"phi or its derivative is NaN at {where:.3g}; expected a function on the whole "
                "real line, whose argument is Gaussian."
            )
        energy = matrix[0] @ values**2
        if energy - np.sum((matrix @ values) ** 2) > rounding * energy:
            return False
    return True
