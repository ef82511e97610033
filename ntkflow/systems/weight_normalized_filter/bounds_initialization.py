"""Du (2019), Theorems 5.4 and 5.5: how a random start lies, exactly.

v is uniform on the sphere and a in the ball of radius |1ᵀa*|‖w*‖/√k. Then cos²φ⁰ is
Beta(½, (p−1)/2), and the square of aᵀa*/(|1ᵀa*|‖w*‖‖a*‖/√k) is Beta(½, (k+1)/2), independent.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.weight_normalized_filter.arguments import check, library, real, source
from ntkflow.systems.weight_normalized_filter.bounds import level
from ntkflow.systems.weight_normalized_filter.population import inverse_overlap
from ntkflow.theory import Bound


def initial_overlap(
    k: ArrayLike,
    target_norm: ArrayLike,
    target_sum: ArrayLike,
    filter_norm: ArrayLike = 1.0,
    constant: ArrayLike = 1.0,
) -> Bound:
    """The order of |aᵀa*|‖w*‖ at initialization, Θ(|1ᵀa*|‖a*‖‖w*‖²/k).

    Args:
      k: the number of patches.
      target_norm, target_sum, filter_norm: ‖a*‖, 1ᵀa* and ‖w*‖.
      constant: the factor that Θ(·) leaves open; with constants c and C at once,
        `initialization_probability` is how likely it lies between.

    Example:
      >>> initial_overlap(20, 1.0, 2.0).value
      0.1

    Reference: Du (2019), Theorem 5.4.
    """
    check(k=k, target_norm=target_norm, target_sum=target_sum, filter_norm=filter_norm)
    check(constant=constant)
    value = constant * abs(real(target_sum)) * target_norm * filter_norm**2 / real(k)
    return Bound(value, "Θ(|1ᵀa*|‖a*‖‖w*‖²/k)", constant, source("Theorem 5.4"))


def initial_cosine(p: ArrayLike, constant: ArrayLike = 1.0) -> Bound:
    """The order of |cos φ⁰|, Θ(1/√p). The theorem prints φ⁰ = Θ(1/√p): it is π/2 − φ⁰.

    Args:
      p: the entries of a patch.
      constant: the factor that Θ(·) leaves open.

    Example:
      >>> initial_cosine(25).value
      0.2

    Reference: Du (2019), Theorem 5.4, corrected.
    """
    check(p=p)
    check(constant=constant)
    note = "corrected: cos φ⁰, not φ⁰"
    return Bound(constant / real(p) ** 0.5, "Θ(1/√p)", constant, source("Theorem 5.4", note))


def initialization_probability(
    lower: ArrayLike, upper: ArrayLike, k: ArrayLike, p: ArrayLike
) -> Bound:
    """The probability of Theorem 5.4's orders, with the factors `lower` and `upper` for Θ(·).

    P(lower ≤ |aᵀa*|k/(|1ᵀa*|‖w*‖‖a*‖) ≤ upper) · P(lower ≤ √p|cos φ⁰| ≤ upper), exact for all k and
    p, and 1ᵀa* ≠ 0. "With high probability" is in the factors, not in k and p: as `lower` goes to 0
    the probability to be below it is about 1.6 `lower`.

    Args:
      lower, upper: factors, 0 ≤ lower ≤ upper.
      k, p: patches, and entries of a patch.

    Raises:
      ValueError: a factor is negative, or `lower` the larger one; k or p is not whole and positive.

    Example:
      >>> round(float(initialization_probability(0.1, 3.0, k=20, p=25).value), 3)
      0.847

    Reference: Du (2019), Theorem 5.4.
    """
    check(lower=lower, upper=upper, k=k, p=p)
    readable = checks.is_concrete(lower) and checks.is_concrete(upper)
    if readable and np.any(np.asarray(lower) > np.asarray(upper)):
        raise ValueError(f"lower is {lower} and upper {upper}; expected lower ≤ upper.")
    overlap = _first_entry(upper, k, k + 2) - _first_entry(lower, k, k + 2)
    cosine = _first_entry(upper, p, p) - _first_entry(lower, p, p)
    place = source("Theorem 5.4", "derived: exact")
    formula = "I(c²/k; ½, (k+1)/2) I(c²/p; ½, (p−1)/2), c from lower to upper"
    return Bound(overlap * cosine, formula, 1.0, place)


def spurious_probability(ratio: ArrayLike, p: ArrayLike) -> Bound:
    """The probability that one of the four signs meets the conditions of Theorem 5.5, exact.

    That of |cos φ⁰| ≥ −cos φ_r, g(φ_r) = 1 − 2 ratio: the sign of v that is further from w* must be
    far enough, that of a can be chosen. 0 if the ratio is above ½.

    Args:
      ratio: (1ᵀa*)²/‖a*‖².
      p: the entries of a patch.

    Example:
      >>> [round(float(spurious_probability(ratio, 25).value), 3) for ratio in (0.001, 0.1, 0.4)]
      [0.995, 0.517, 0.0]

    Reference: Du (2019), Theorem 5.5.
    """
    check(ratio=ratio, p=p)
    ratio = jnp.asarray(ratio) * 1.0
    angle = inverse_overlap(jnp.clip(1 - 2 * ratio, 0.0, 1.0))
    inside = _first_entry(jnp.abs(jnp.cos(angle)), 1, p)
    formula = "1 − I(cos²φ_r; ½, (p−1)/2), g(φ_r) = 1 − 2(1ᵀa*)²/‖a*‖²"
    value = jnp.where(ratio > 0.5, 0.0, 1 - inside)
    return Bound(value, formula, 1.0, source("Theorem 5.5", "derived: exact"))


def largest_spurious_ratio(p: ArrayLike, delta: ArrayLike) -> Bound:
    """What (1ᵀa*)²/‖a*‖² is at most for Theorem 5.5's start to exist with probability 1 − δ.

    (1 − g(arccos(−x)))/2, x = δ√(π/(2p)), about δ/√p: the theorem's 1/poly(q) is 1/√p, and in p,
    the entries of a patch. P(|cos φ⁰| ≤ x) ≤ x√(2p/π) at every p.

    Args:
      p: the entries of a patch.
      delta: δ.

    Example:
      >>> round(float(largest_spurious_ratio(25, 0.1).value), 4)
      0.0195

    Reference: Du (2019), Theorem 5.5.
    """
    check(p=p, delta=delta)
    lib = library(p, delta)
    cosine = delta * lib.sqrt(np.pi / (2 * real(p)))
    # From p = 1 on x can pass 1, where φ⁰ is 0 or π.
    angle = lib.arccos(-lib.minimum(cosine, 1.0))
    formula = "(1 − g(arccos(−δ√(π/(2p)))))/2"
    place = source("Theorem 5.5", "derived: 1/poly(q) is of the order 1/√p")
    return Bound(-level(angle) / 2, formula, 1.0, place)


def _first_entry(factor: ArrayLike, scale: ArrayLike, n: ArrayLike) -> Any:
    """P(√scale |x_1| ≤ factor) for x uniform on the unit sphere in n dimensions."""
    square = jnp.minimum(jnp.square(factor) / scale, 1.0)
    # In one dimension |x_1| is 1, of which the Beta law is no density.
    half = (jnp.maximum(n, 2) - 1) / 2.0
    return jnp.where(jnp.asarray(n) > 1, jax.scipy.special.betainc(0.5, half, square), square >= 1)
