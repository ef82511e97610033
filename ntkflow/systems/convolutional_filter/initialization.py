"""Random initialization in a small ball around 0: Theorem 6.6 and Corollary 6.1 of Du (2019)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betainc, betaln, gammaln
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.layers import ball
from ntkflow.systems.arguments import Rule, checker
from ntkflow.systems.convolutional_filter.arguments import pair, real, source
from ntkflow.theory import Bound

_TERMS = 60  # of a series whose terms halve at least

check = checker(
    alpha=Rule(lambda a: (a > 0) & (a < 1), "a radius in (0, 1), in units of ‖w*‖"),
    p=Rule(lambda a: (a >= 1) & (a == np.floor(a)), "a whole number greater than 0"),
    phi_star=Rule(lambda a: (a > 0) & (a < np.pi / 2), "an angle in (0, π/2), in radians"),
    radius=Rule(lambda a: (a > 0) & np.isfinite(a), "a finite number greater than 0"),
    probability=Rule(lambda a: (a > 0) & (a <= 1), "a probability of success in (0, 1]"),
)


def initialize_in_ball(
    key: jax.Array, p: int, radius: ArrayLike, dtype: Any = float
) -> dict[str, dict[str, jax.Array]]:
    """Draw w uniformly from the ball of a radius around 0.

    Args:
      key: PRNG key.
      p: entries of the filter.
      radius: α‖w*‖ of Theorem 6.6, ‖w*‖ cos φ_* of Corollary 6.1.
      dtype: of the filter.

    Returns:
      Variables of a `ConvolutionalFilter`.

    Raises:
      ValueError: p is no whole number greater than 0, a radius that is not positive.

    Example:
      >>> draw = jax.jit(initialize_in_ball, static_argnums=1)
      >>> w = draw(jax.random.key(0), 5, radius=0.1)["params"]["filter"]
      >>> w.shape, bool(np.linalg.norm(w) <= 0.1)
      ((5,), True)

    Reference: Du (2019), Theorem 6.6.
    """
    p = checks.positive_int("p", p)
    check(radius=radius)
    w = ball()(key, (p,), dtype)
    return {"params": {"filter": jnp.asarray(radius, w.dtype) * w}}


def starts_well(variables: Any, w_star: Any, alpha: ArrayLike) -> jax.Array:
    """Tell whether ‖w_0 − w*‖ ≤ √(1 − α²) ‖w*‖, the event of Theorem 6.6.

    Args:
      variables: of the filter, or the filter itself.
      w_star: w*.
      alpha: α = cos φ_*, 0 for one neuron (‖w_0 − w*‖ ≤ ‖w*‖). Section 6.3.2 prints cos φ_* for
        the radius sin φ_* = √(1 − α²) that its theorem has.

    Example:
      >>> bool(starts_well(jnp.array([0.1, 0.0]), jnp.array([1.0, 0.0]), alpha=0.1))
      True

    Reference: Du (2019), Theorem 6.6.
    """
    w, w_star = pair(variables, w_star)
    # 2 w·w* ≥ ‖w‖² + α²‖w*‖²: the same without the cancellation of 1 − α².
    target = jnp.sum(jnp.square(w_star))
    return 2 * jnp.sum(w * w_star) >= jnp.sum(jnp.square(w)) + alpha**2 * target


def initialization_probability(alpha: ArrayLike, p: ArrayLike, *, printed: bool = False) -> Bound:
    """Bound the probability of ‖w_0 − w*‖ ≤ √(1 − α²)‖w*‖ from below, w_0 in a ball of α‖w*‖.

        ½ − α Γ(p/2 + 1) / (√π Γ(p/2 + ½))  ≥  ½ − α √((p+1)/2π).

    Half of the ball, without a slab of thickness α²‖w*‖ and at most the section of its middle.
    The proof prints π in place of 1/√π, and ends in the theorem's ½ − α √(πp/2), `printed=True`, by
    an inequality that goes the other way (Γ(p/2 + 1) > √(p/2) Γ(p/2 + ½)). The theorem holds all
    the same, and is about π times further from ½. Each is meant for α where it is positive;
    the theorem's α ≤ 1/√(2πp) is that of the printed one.

    Args:
      alpha: α in (0, 1).
      p: entries of the filter.
      printed: whether to take the theorem's own bound, which asks for α ≤ 1/√(2πp).

    Returns:
      The probability; 0 where the bound is negative.

    Raises:
      ValueError: α outside of (0, 1), p < 1; where printed, α above 1/√(2πp).

    Example:
      >>> for printed in (False, True):
      ...     print(round(float(initialization_probability(0.0223, 20, printed=printed).value), 3))
      0.46
      0.375

    Reference: Du (2019), Theorem 6.6.
    """
    check(alpha=alpha, p=p)
    alpha, p = real(alpha), real(p)
    if printed:
        largest = 1 / (2 * np.pi * p) ** 0.5
        _refuse_above("alpha", alpha, largest, "Theorem 6.6 asks for α ≤ 1/√(2πp)")
        loss = alpha * (np.pi * p / 2) ** 0.5
    else:
        loss = alpha * _section(p)
    return Bound(
        jnp.maximum(0.5 - loss, 0.0),
        "½ − √(πp/2) α" if printed else "½ − α Γ(p/2 + 1)/(√π Γ(p/2 + ½))",
        1,
        source("Theorem 6.6", "as printed" if printed else "corrected"),
    )


def exact_initialization_probability(alpha: ArrayLike, p: ArrayLike) -> jax.Array:
    """Compute the probability that `initialization_probability` bounds.

    The event is a lens of two balls whose spheres meet at right angles, at w·w* = α²‖w*‖²: a cap
    of the ball around 0 and one of the ball around w*,

        ½ I_{1−α²}((p+1)/2, ½) + ½ (√(1−α²)/α)^p I_{α²}((p+1)/2, ½),

    with the regularized incomplete beta function I, here summed as a series in α².

    Args:
      alpha: α in (0, 1/√2].
      p: entries of the filter.

    Raises:
      ValueError: α outside of (0, 1/√2], p < 1.

    Example:
      >>> [round(float(exact_initialization_probability(a, 20)), 3) for a in (0.0223, 0.0892)]
      [0.462, 0.35]

    Reference: derived; the geometry of Du (2019), proof of Theorem 6.6.
    """
    check(alpha=alpha, p=p)
    _refuse_above("alpha", alpha, 0.5**0.5, "the series asks for α ≤ 1/√2")
    return _exact(jnp.asarray(real(alpha)), jnp.asarray(real(p)))


@jax.jit
def _exact(alpha: jax.Array, p: jax.Array) -> jax.Array:
    x, order = alpha**2, (p + 1) / 2
    # I_x(a, ½) = x^a √(1−x) / (a B(a, ½)) · Σ_n x^n Π_{j<n} (a + ½ + j)/(a + 1 + j): x^a would
    # underflow, and is cancelled by α^{−p}.
    one = jnp.ones_like(x * order)

    def add(j: int, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        term = sums[1] * x * (order + 0.5 + j) / (order + 1 + j)
        return sums[0] + term, term

    total, _ = jax.lax.fori_loop(0, _TERMS, add, (one, one))
    far = alpha * jnp.exp(order * jnp.log1p(-x) - betaln(order, 0.5)) / order * total
    return (1 - betainc(0.5 * one, order * one, x * one) + far) / 2


@jax.jit
def _section(p: ArrayLike) -> jax.Array:
    """V_{p−1}/V_p, of unit balls: Γ(p/2 + 1) / (√π Γ(p/2 + ½))."""
    return jnp.exp(gammaln(p / 2 + 1) - gammaln(p / 2 + 0.5)) / np.pi**0.5


def corollary_probability(phi_star: ArrayLike, p: ArrayLike, *, printed: bool = False) -> Bound:
    """Bound the probability of ‖w_0 − w*‖ ≤ ‖w*‖ sin φ_*, w_0 in a ball of radius ‖w*‖ cos φ_*.

    `initialization_probability` at α = cos φ_*, which must leave more than ¼: cos φ_* < 1/√(8πp)
    as printed, about π times larger angles' cosines as corrected.

    Args:
      phi_star: φ_*, the largest angle with γ(φ) ≥ 6 L_cross: `largest_good_angle`.
      p: entries of the filter.
      printed: whether to take the corollary's own bound and condition.

    Raises:
      ValueError: an angle so far from π/2 that ¼ or less is left.

    Example:
      >>> phi_star = np.arccos(0.04)
      >>> for printed in (False, True):
      ...     print(round(float(corollary_probability(phi_star, 20, printed=printed).value), 3))
      0.428
      0.276

    Reference: Du (2019), Corollary 6.1.
    """
    check(phi_star=phi_star, p=p)
    alpha = np.cos(phi_star) if checks.is_concrete(phi_star) else jnp.cos(phi_star)
    largest = 1 / (8 * np.pi * real(p)) ** 0.5 if printed else 0.25 / _section(real(p))
    _refuse_above("cos φ_*", alpha, largest, "Corollary 6.1 promises more than ¼ only below")
    bound = initialization_probability(alpha, p, printed=printed)
    return bound._replace(
        formula="½ − cos φ_* √(πp/2)" if printed else "½ − cos φ_* Γ(p/2 + 1)/(√π Γ(p/2 + ½))",
        source=source("Corollary 6.1", "as printed" if printed else "corrected"),
    )


def restarts(probability: ArrayLike, delta: ArrayLike) -> Bound:
    """Compute how many independent starts hold a good one with probability at least 1 − δ.

    Args:
      probability: that one start is good.
      delta: δ in (0, 1).

    Example:
      >>> int(restarts(probability=0.25, delta=0.01).value)
      17

    Reference: Du (2019), section 6.3.2.
    """
    check(probability=probability, delta=delta)
    count = jnp.ceil(jnp.log(real(delta)) / jnp.log1p(-real(probability)))
    return Bound(
        jnp.maximum(count, 1.0), "⌈log δ / log(1 − P)⌉", 1, source("section 6.3.2", "derived")
    )


def _refuse_above(name: str, value: ArrayLike, largest: ArrayLike, reason: str) -> None:
    if not (checks.is_concrete(value) and checks.is_concrete(largest)):
        return
    over = np.asarray(value, float) > np.asarray(largest, float) * (1 + 1e-6)
    if np.any(over):
        raise ValueError(f"{name} is {value}; {reason}, which is {largest} here.")
