"""Dual activations: E[φ(u)φ(v)] and E[φ'(u)φ'(v)] over Gaussian pairs, for any activation φ."""

from collections.abc import Callable

from jax import Array
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.activations import Pair, closed_forms, recognise
from ntkflow.kernels.arccos import align
from ntkflow.kernels.breaks import piecewise, polynomial_dual
from ntkflow.kernels.quadrature import (
    Kernels,
    Piecewise,
    Rule,
    cut_dual,
    hermite_dual,
    polar_dual,
    variance_mean,
    with_derivatives,
)

Kernel = Callable[[ArrayLike, ArrayLike, ArrayLike], Array]


def dual_activation(phi: Callable) -> tuple[Kernel, Kernel]:
    """Build the two Gaussian expectations of an activation that infinitely wide layers need.

    k_φ(k₁₁, k₁₂, k₂₂) = E[φ(u) φ(v)] and k_φ'(k₁₁, k₁₂, k₂₂) = E[φ'(u) φ'(v)], where
    (u, v) ~ N(0, [[k₁₁, k₁₂], [k₁₂, k₂₂]]).

    Closed forms are used where `recognise` finds one, by what `phi` computes and under whatever
    name: positively homogeneous functions (ReLU, LeakyReLU, abs, identity), steps, polynomials,
    erf, sin, cos, exp, Gaussians, exact GELU, with amplitudes and input scales; and where `phi`
    consists of polynomials of degree <= 4 between at most 8 breaks (kinks and jumps, found by
    `piecewise`): hard_tanh, relu6, hard_silu, relu(x)², relu(x − 1), steps, thresholds. Any other
    function is integrated numerically, by a rule chosen from the function: a Hermite series of
    256 terms if it is smooth; a polar rule of 24 × 24 nodes per sector if it breaks at 0 alone;
    panels cut at all breaks, of 28 × 28 nodes, if it breaks elsewhere. Absolute error of k_φ for
    the worst correlation, |ρ| = 1 and near it included, float64, at variances 0.25, 1, 4, 16:

        polynomials between breaks              1e-13  1e-13  1e-13  1e-12
        tanh                                    1e-13  1e-13  1e-10  2e-6
        softplus, silu                          1e-13  1e-13  1e-13  1e-10
        GELU by tanh                            1e-13  1e-13  1e-13  1e-8
        ELU, SELU                               1e-13  1e-13  1e-13  1e-13
        x where x > 1, tanh(x) elsewhere        1e-10  1e-10  1e-10  1e-8

    That of k_φ' is at most 100 times as large. With more than 8 breaks, as in a sawtooth, none is
    resolved but one at 0, and the error of k_φ is up to 5 % of E[φ²]. The same may happen to
    breaks closer to each other than 0.006.

    Cost for a pair (k₁₁, k₁₂, k₂₂): the series evaluates φ 400 times at k₁₁ and k₂₂, all at once:
    pass these with the shapes (n, 1) and (1, n). The polar rule evaluates φ some 2300 times at
    both u and v; the panels some 4700 times with one break and 20000 with two; polynomials with
    i breaks take 20 i² exponentials.

    Derivatives with respect to all three covariances are finite and right on the diagonal, at
    k₁₂ = −√(k₁₁k₂₂) and at zero variance; where they diverge (a jump of the differentiated
    function at |ρ| = 1, a break at 0 at zero variance) a finite value without the divergent term
    stands there.

    Args:
      phi: an elementwise function of floating-point arrays. If it closes over traced values, it
        is taken to break at 0 at most; it cannot be differentiated with respect to these.

    Returns:
      `(k_phi, k_phi_prime)`, each a function of three arrays that broadcast against each other.

    Raises:
      ValueError: `phi` is not a function that keeps the shape of its argument, or gives NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> k_phi, k_phi_prime = dual_activation(lambda x: jnp.maximum(x, 0))
      >>> float(k_phi(1.0, 1.0, 1.0)), float(k_phi_prime(1.0, 0.0, 1.0))
      (0.5, 0.25)
      >>> round(float(dual_activation(jnp.tanh)[0](1.0, 1.0, 1.0)), 10)
      0.3942944904

    Reference:
      Daniely, Frostig and Singer (2016), Toward deeper understanding of neural networks, section 4.
    """
    checks.elementwise("phi", phi)
    family = recognise(phi)
    value: Kernels
    of_slopes: Kernels
    if family is not None:
        value = of_slopes = closed_forms[family.name](*family.parameters)
    else:  # apart, so that neither costs what the other does
        f, is_smooth = piecewise(phi)
        rule, slope = _rule(is_smooth, f), f.differentiate(1)
        value, of_slopes = with_derivatives(rule, f, f), with_derivatives(rule, slope, slope)

    def k_phi(k11: ArrayLike, k12: ArrayLike, k22: ArrayLike) -> Array:
        return value(*align(k11, k12, k22))[0]

    def k_phi_prime(k11: ArrayLike, k12: ArrayLike, k22: ArrayLike) -> Array:
        return of_slopes(*align(k11, k12, k22))[-1]

    return k_phi, k_phi_prime


def dual_pair(phi: Callable) -> Pair:
    """Build one function for both kernels of `dual_activation`, which share their nodes.

    Args:
      phi: an elementwise function.

    Returns:
      A function of k₁₁, k₁₂, k₂₂, arrays of one dtype and one number of axes, to
      (E[φφ], E[φ'φ']).
    """
    checks.elementwise("phi", phi)
    family = recognise(phi)
    if family is not None:
        return closed_forms[family.name](*family.parameters)
    f, is_smooth = piecewise(phi)
    both = with_derivatives(_rule(is_smooth, f), f, f, 2)

    def pair(k11, k12, k22):
        value, slope = both(k11, k12, k22)
        return value, slope

    return pair


def pair_expectation(f: Callable, g: Callable) -> Kernel:
    """Build (k₁₁, k₁₂, k₂₂) ↦ E[f(u) g(v)] for two activations, (u, v) as in `dual_activation`.

    Args:
      f, g: elementwise functions.

    Returns:
      A function of three arrays that broadcast against each other. Its derivatives are Gaussian
      expectations too.

    Example:
      >>> import jax
      >>> cross = pair_expectation(jax.nn.relu, lambda x: x)  # E[relu(u) v] = ½ k₁₂
      >>> round(float(cross(1.0, 0.5, 2.0)), 10)
      0.25
    """
    if f is g:
        return dual_activation(f)[0]
    for phi in (f, g):
        checks.elementwise("phi", phi)
    (h, h_smooth), (k, k_smooth) = piecewise(f), piecewise(g)
    expectation = with_derivatives(_rule(h_smooth and k_smooth, h, k), h, k)

    def k_fg(k11: ArrayLike, k12: ArrayLike, k22: ArrayLike) -> Array:
        return expectation(*align(k11, k12, k22))[0]

    return k_fg


def mean(f: Callable) -> Callable[[ArrayLike], Array]:
    """Build q ↦ E[f(u)], u ~ N(0, q).

    Args:
      f: an elementwise function.

    Returns:
      A function of the variance q >= 0, an array.

    Example:
      >>> import jax
      >>> round(float(mean(jax.nn.relu)(2.0)), 10)  # 1/√π
      0.5641895835
    """
    checks.elementwise("f", f)
    expectation = variance_mean(piecewise(f)[0])
    return lambda q: expectation(*align(q))


def _rule(is_smooth: bool, *functions: Piecewise) -> Rule:
    if all(f.pieces for f in functions):
        return polynomial_dual
    if is_smooth:
        return hermite_dual
    return cut_dual if any(b for f in functions for b in f.breaks) else polar_dual
