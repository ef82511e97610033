"""λ_j = γ/m + (1 − γ) λ̃_j / Σ_k λ̃_k: how much each hidden node counts; what λ sums to."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import zeta
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.arccos import align
from ntkflow.systems.node_scaling.arguments import check, check_weights, one_number, source
from ntkflow.theory import Bound


def zipf(m: int, alpha: ArrayLike) -> jax.Array:
    """Compute the first m weights of Zipf's law, λ̃_j = j^(−1/α) / ζ(1/α).

    The smaller α, the faster they fall, and the more features are learnt.

    Args:
      m: the number of hidden nodes.
      alpha: α in (0, 1), a number, which may be traced.

    Returns:
      Shape (m,), with sum below 1: all infinitely many sum to 1.

    Raises:
      ValueError: m is not positive, or α not in (0, 1).

    Example:
      >>> zipf(3, 0.5).round(6).tolist()
      [0.607927, 0.151982, 0.067547]

    Reference: Caron et al. (2023), equation (35).
    """
    m = checks.positive_int("m", m)
    one_number(alpha=alpha)
    check(alpha=alpha)
    (alpha,) = align(alpha)
    exponent = 1 / alpha
    return jnp.arange(1, m + 1, dtype=exponent.dtype) ** -exponent / zeta(exponent, 1.0)


def inverse_squares(m: int) -> jax.Array:
    """Compute λ̃_j = 6 / (πj)², j = 1, …, m: Zipf's law with α = ½.

    Reference: Caron et al. (2023), section 1.

    Example:
      >>> inverse_squares(3).round(6).tolist()
      [0.607927, 0.151982, 0.067547]
    """
    m = checks.positive_int("m", m)
    return 6 / (math.pi * jnp.arange(1, m + 1, dtype=float)) ** 2


def block(m: int, k: int) -> jax.Array:
    """Compute λ̃_j = 1/k for j ≤ k and 0 beyond: with γ = 0, a network of width k.

    Args:
      m: the number of hidden nodes.
      k: how many of them count, at most m.

    Raises:
      ValueError: m or k is not positive, or k > m.

    Example:
      >>> block(4, 2).tolist()
      [0.5, 0.5, 0.0, 0.0]

    Reference: Caron et al. (2023), section 2.
    """
    m, k = checks.positive_int("m", m), checks.positive_int("k", k)
    if k > m:
        raise ValueError(f"k is {k}, m is {m}; expected at most m nodes in the block.")
    return jnp.where(jnp.arange(m) < k, 1.0 / k, 0.0)


def node_scales(weights: ArrayLike, gamma: ArrayLike) -> jax.Array:
    """Compute λ_j = γ/m + (1 − γ) λ̃_j / Σ_k λ̃_k, which sum to 1.

    γ = 1 is the NTK scaling 1/m, γ < 1 gives the first nodes more than others at any width.

    Args:
      weights: λ̃, shape (m,), in decreasing order; a common factor cancels.
      gamma: γ in [0, 1], a number. Both may be traced.

    Returns:
      λ, shape (m,), for `NodeScaledNetwork`.

    Raises:
      ValueError: γ is not in [0, 1]; λ̃ is negative somewhere, 0 everywhere, or increases.

    Example:
      >>> node_scales(jnp.array([3.0, 1.0]), 0.5).tolist()
      [0.625, 0.375]

    Reference: Caron et al. (2023), equation (1).
    """
    uniform, asymmetric = scale_parts(weights, gamma)
    return uniform + asymmetric


def scale_parts(weights: ArrayLike, gamma: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Compute λ⁽¹⁾_j = γ/m and λ⁽²⁾_j = (1 − γ) λ̃_j / Σ_k λ̃_k, shapes (m,): λ is their sum.

    Args, Raises: as for `node_scales`.

    Reference: Caron et al. (2023), appendix B.2.
    """
    weights = check_weights(weights)
    one_number(gamma=gamma)
    check(gamma=gamma)
    gamma = jnp.asarray(gamma, weights.dtype)
    uniform = jnp.full_like(weights, 1 / weights.size) * gamma
    return uniform, (1 - gamma) * weights / jnp.sum(weights)


def power_sum(scales: ArrayLike, r: ArrayLike) -> jax.Array:
    """Compute Σ_j λ_j^r over the last axis.

    r = 1 gives 1 (9), r = ½ lies between √(γm) and √m (10), r > 1 has the limit (11).

    Example:
      >>> float(power_sum(node_scales(block(4, 2), 0.0), 2))
      0.5
    """
    (scales,) = align(scales)
    return jnp.sum(scales ** jnp.asarray(r, scales.dtype), axis=-1)


def power_sum_limit(gamma: ArrayLike, alpha: ArrayLike, r: ArrayLike) -> jax.Array:
    """Compute the limit of Σ_j λ_j^r for weights of Zipf, (1 − γ)^r ζ(r/α) / ζ(1/α)^r, r > 1.

    Args:
      gamma, alpha, r: γ in [0, 1], α in (0, 1), r > 1; they broadcast against each other.

    Raises:
      ValueError: one of them is out of its range.

    Example:
      >>> round(float(power_sum_limit(0.5, 0.5, 2)), 6)
      0.1

    Reference: Caron et al. (2023), Proposition B.2, equation (11).
    """
    check(gamma=gamma, alpha=alpha)
    _check_power(r)
    gamma, alpha, r = align(gamma, alpha, r)
    return (1 - gamma) ** r * zeta(r / alpha, 1.0) / zeta(1 / alpha, 1.0) ** r


def kernel_departure(gamma: ArrayLike, alpha: ArrayLike) -> jax.Array:
    """Compute (1 − γ)² Σ_j λ̃_j² = (1 − γ)² ζ(2/α) / ζ(1/α)², how far from the kernel regime.

    It is 0 in the kernel regime and at most 1; the variance of the limiting NTK (7), and the drift
    of the NTK under training (Theorem 4.4), are proportional to it.

    Args, Raises: as for `power_sum_limit`.

    Example:
      >>> [round(float(kernel_departure(0.0, alpha)), 5) for alpha in (0.1, 0.5, 0.9)]
      [0.99801, 0.4, 0.01607]

    Reference: Caron et al. (2023), section 3 and Figure 1.
    """
    return power_sum_limit(gamma, alpha, 2.0)


def root_sum_lower(m: ArrayLike, gamma: ArrayLike) -> Bound:
    """Compute √(γm) ≤ Σ_j √λ_j.

    >>> float(root_sum_lower(100, 0.25).value)
    5.0
    """
    check(m=m, gamma=gamma)
    return Bound((gamma * m) ** 0.5, "√(γm)", 1.0, source("Proposition B.2, equation (10)"))


def root_sum_upper(m: ArrayLike) -> Bound:
    """Compute √m ≥ Σ_j √λ_j.

    >>> float(root_sum_upper(100).value)
    10.0
    """
    check(m=m)
    return Bound(m**0.5, "√m", 1.0, source("Proposition B.2, equation (10)"))


def power_sum_lower(weights: ArrayLike, gamma: ArrayLike, r: ArrayLike) -> Bound:
    """Compute Σ_j (λ⁽²⁾_j)^r ≤ Σ_j λ_j^r at finite m.

    Args:
      weights, gamma: as for `node_scales`.
      r: a number greater than 1.

    Example:
      >>> float(power_sum_lower(block(4, 2), 0.5, 2).value)
      0.125

    Reference: Caron et al. (2023), proof of Proposition B.2.
    """
    _check_power(r)
    _, asymmetric = scale_parts(weights, gamma)
    place = source("Proposition B.2, proof")
    return Bound(power_sum(asymmetric, r), "Σ_j (λ⁽²⁾_j)^r", 1.0, place)


def power_sum_upper(weights: ArrayLike, gamma: ArrayLike, r: ArrayLike) -> Bound:
    """Compute (γ m^(1/r − 1) + (Σ_j (λ⁽²⁾_j)^r)^(1/r))^r ≥ Σ_j λ_j^r at finite m, by Minkowski.

    Args: as for `power_sum_lower`.

    Example:
      >>> round(float(power_sum_upper(block(4, 2), 0.5, 2).value), 6)
      0.364277

    Reference: Caron et al. (2023), proof of Proposition B.2.
    """
    _check_power(r)
    norms = [power_sum(part, r) ** (1 / r) for part in scale_parts(weights, gamma)]
    return Bound(
        (norms[0] + norms[1]) ** r,
        "([γ^r m^(−(r−1))]^(1/r) + [Σ_j (λ⁽²⁾_j)^r]^(1/r))^r",
        1.0,
        source("Proposition B.2, proof"),
    )


def _check_power(r: ArrayLike) -> None:
    if checks.is_concrete(r) and not np.all(np.asarray(r) > 1):
        raise ValueError(f"r is {r}; expected a number greater than 1, as in (11).")
