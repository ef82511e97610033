"""Du (2019), Theorem 5.3's phase II, and Lemmas 5.10 to 5.12: how a run that succeeds ends.

The names are those of `bounds`. The constants behind O(·) are derived; they hold on every run of
`tests/systems/weight_normalized_filter/test_weight_normalized_certificates.py`.
"""

import numpy as np
from jax.typing import ArrayLike

from ntkflow.systems.weight_normalized_filter.arguments import check, library, real, source
from ntkflow.systems.weight_normalized_filter.bounds import (
    RATE,
    gap,
    log_plus,
    sum_step_size,
)
from ntkflow.systems.weight_normalized_filter.bounds_descent import FAST_LEVEL
from ntkflow.theory import Bound

_FAST_RATE = FAST_LEVEL / 12  # (π−φ)/(2π) ≥ 1/3, Q ≥ half the level, ‖v‖² ≤ 2‖v⁰‖², cos φ ≥ ½, × 2


def fast_rate(
    target_norm: ArrayLike, filter_norm: ArrayLike = 1.0, v_norm: ArrayLike = 1.0
) -> Bound:
    """The C‖w*‖²‖a*‖² of sin²φ ← (1 − ηC‖w*‖²‖a*‖²) sin²φ in phase II; C = 0.0355/‖v⁰‖².

    As exp(−ηC‖w*‖²‖a*‖²) per step.

    Example:
      >>> round(float(fast_rate(1.0).value), 4)
      0.0355
    """
    check(target_norm=target_norm, filter_norm=filter_norm)
    check(v_norm=v_norm)
    value = _FAST_RATE * (real(target_norm) * filter_norm / v_norm) ** 2
    place = source("Theorem 5.3, phase II", "constant derived")
    return Bound(value, "(g(π/3)−1)/(12(π−1)) ‖w*‖²‖a*‖²/‖v⁰‖²", 1.0, place)


def phase_two_time(
    step_size: ArrayLike,
    epsilon: ArrayLike,
    target_norm: ArrayLike,
    target_sum: ArrayLike,
    k: ArrayLike,
    output_error: ArrayLike,
    filter_norm: ArrayLike = 1.0,
    v_norm: ArrayLike = 1.0,
) -> Bound:
    """T_2: from T_1 + T_2 on, ℓ ≤ ε‖w*‖²‖a*‖².

    The time until π − g(φ) ≤ ε min{1, ‖a*‖/|s|}, at `fast_rate`, and then the longer of
    `sum_time` and `output_time`: 0.9 ε of `final_loss`.

    Args:
      step_size: η, at most `largest_step_size`.
      epsilon: ε in (0, 1].
      target_norm, target_sum, k: ‖a*‖, s and k.
      output_error: ‖a⁰ − ‖w*‖a*‖, at the start of phase I or II.
      filter_norm, v_norm: ‖w*‖ and ‖v⁰‖, the latter at the start of phase I.

    Raises:
      ValueError: ε is out of (0, 1], a norm is not positive, k < 1.

    Example:
      >>> round(float(phase_two_time(0.2, 1e-3, 1.0, 1.0, k=20, output_error=1.0).value))
      1137

    Reference: Du (2019), Theorem 5.3.
    """
    check(step_size=step_size, target_sum=target_sum)
    check(epsilon=epsilon)
    lib = library(step_size, epsilon, target_norm, target_sum, k, output_error, filter_norm, v_norm)
    size = filter_norm * real(target_norm)
    accuracy = epsilon * lib.minimum(1.0, target_norm / lib.maximum(abs(target_sum), target_norm))
    turning = log_plus(np.pi / (2 * accuracy)) / fast_rate(target_norm, filter_norm, v_norm).value
    # |S| ≤ |s|‖w*‖ always, and ‖a − ‖w*‖a*‖ is never larger than at the start and ‖w*‖‖a*‖.
    lacking = 2 * filter_norm * abs(real(target_sum))
    sums = sum_time(step_size, lacking, epsilon, size, k).value
    outputs = output_time(step_size, lib.maximum(output_error, size), epsilon, size).value
    value = turning / step_size + lib.maximum(sums, outputs)
    formula = "log⁺(π/(2ε min{1, ‖a*‖/|1ᵀa*|}))/(ηC‖w*‖²‖a*‖²) + max{T of 5.10, T of 5.11}"
    return Bound(value, formula, 1.0, source("Theorem 5.3, phase II", "constants derived"))


def sum_time(
    step_size: ArrayLike,
    sum_error: ArrayLike,
    epsilon: ArrayLike,
    size: ArrayLike,
    k: ArrayLike,
) -> Bound:
    """Steps until |S − s‖w*‖| ≤ 2ε‖w*‖‖a*‖, if π − g(φ) ≤ ε‖a*‖/|s|, Lemma 5.10.

    2π log⁺(|S⁰ − s‖w*‖|/(ε‖w*‖‖a*‖))/((k+π−1)η).

    Args:
      step_size: η, at most `sum_step_size`.
      sum_error: |S − s‖w*‖| at the beginning.
      epsilon: ε.
      size: ‖w*‖‖a*‖.
      k: the number of patches.

    Example:
      >>> round(float(sum_time(0.2, 1.0, 1e-3, 1.0, k=20).value), 2)
      9.8
    """
    check(step_size=step_size, sum_error=sum_error, size=size)
    check(epsilon=epsilon)
    value = log_plus(sum_error / (epsilon * real(size))) * sum_step_size(k).value / step_size
    formula = "2π log⁺(|1ᵀa⁰ − 1ᵀa*‖w*‖|/(ε‖w*‖‖a*‖))/((k+π−1)η)"
    return Bound(value, formula, 1.0, source("Lemma 5.10", "constant derived"))


def sum_error_decay(
    steps: ArrayLike,
    step_size: ArrayLike,
    sum_error: ArrayLike,
    angle: ArrayLike,
    target_sum: ArrayLike,
    k: ArrayLike,
    filter_norm: ArrayLike = 1.0,
) -> Bound:
    """What |S − s‖w*‖| is at most after t steps, while φ does not grow, Lemma 5.10.

    (1 − η(k+π−1)/(2π))^t |S⁰ − s‖w*‖| + (π − g(φ⁰))‖w*‖|s|/(k+π−1), η ≤ `sum_step_size`.

    Args:
      steps, step_size: t and η.
      sum_error, angle: at the beginning.
      target_sum, k, filter_norm: s, k and ‖w*‖.

    Example:
      >>> round(float(sum_error_decay(10, 0.2, 1.0, 0.1, 1.0, k=20).value), 6)
      0.000699
    """
    check(steps=steps, step_size=step_size, sum_error=sum_error, angle=angle, k=k)
    check(target_sum=target_sum, filter_norm=filter_norm)
    rate = np.pi - 1 + real(k)
    rest = gap(angle) * filter_norm * abs(target_sum) / rate
    value = (1 - step_size * rate / (2 * np.pi)) ** steps * sum_error + rest
    formula = "(1 − η(k+π−1)/(2π))^t |S⁰ − 1ᵀa*‖w*‖| + (π−g(φ⁰))‖w*‖|1ᵀa*|/(k+π−1)"
    return Bound(value, formula, 1.0, source("proof of Lemma 5.10"))


def output_time(
    step_size: ArrayLike, output_error: ArrayLike, epsilon: ArrayLike, size: ArrayLike
) -> Bound:
    """Steps until ‖a − ‖w*‖a*‖ ≤ (1 + 1/(π−1)) ε‖w*‖‖a*‖, if π − g(φ) ≤ ε, Lemma 5.11.

    2π log⁺(‖a⁰ − ‖w*‖a*‖/(ε‖w*‖‖a*‖))/((π−1)η). The lemma assumes π − g(φ) ≤ ε‖a*‖/|s| instead,
    which says nothing at s = 0, where the claim is false; its condition on |S − s| is not needed.

    Args:
      step_size: η, at most `sum_step_size`.
      output_error: ‖a − ‖w*‖a*‖ at the beginning.
      epsilon: ε.
      size: ‖w*‖‖a*‖.

    Example:
      >>> round(float(output_time(0.2, 1.0, 1e-3, 1.0).value), 2)
      101.33
    """
    check(step_size=step_size, output_error=output_error, size=size)
    check(epsilon=epsilon)
    value = log_plus(output_error / (epsilon * real(size))) / (RATE * step_size)
    formula = "2π log⁺(‖a⁰ − ‖w*‖a*‖/(ε‖w*‖‖a*‖))/((π−1)η)"
    return Bound(value, formula, 1.0, source("Lemma 5.11", "corrected: π − g(φ) ≤ ε"))


def output_error_decay(
    steps: ArrayLike,
    step_size: ArrayLike,
    output_error: ArrayLike,
    angle: ArrayLike,
    size: ArrayLike,
) -> Bound:
    """What ‖a − ‖w*‖a*‖ is at most after t steps, while φ does not grow, Lemma 5.11.

    (1 − η(π−1)/(2π))^t ‖a⁰ − ‖w*‖a*‖ + (π − g(φ⁰))‖w*‖‖a*‖/(π−1), η ≤ `sum_step_size`.

    Example:
      >>> round(float(output_error_decay(100, 0.2, 1.0, 0.1, 1.0).value), 6)
      0.008032
    """
    check(steps=steps, step_size=step_size, output_error=output_error, angle=angle, size=size)
    rest = gap(angle) * size / (np.pi - 1)
    value = (1 - RATE * step_size) ** steps * output_error + rest
    formula = "(1 − η(π−1)/(2π))^t ‖a⁰ − ‖w*‖a*‖ + (π−g(φ⁰))‖w*‖‖a*‖/(π−1)"
    return Bound(value, formula, 1.0, source("proof of Lemma 5.11", "derived: without the sum"))


def final_loss(
    error: ArrayLike, k: ArrayLike, target_norm: ArrayLike, filter_norm: ArrayLike = 1.0
) -> Bound:
    """What ℓ is at most if π − g(φ) ≤ ε and ‖a − ‖w*‖a*‖ ≤ ε‖w*‖‖a*‖, Lemma 5.12.

    ((k+π−1)ε² + 2ε(1+ε))/(4π) ‖w*‖²‖a*‖². No constant alone will do, as the lemma has it: an error
    along 1 counts k times. Theorem 5.3 survives, since Lemma 5.10 bounds that error by itself.

    Args:
      error: ε, 0 or greater.
      k, target_norm, filter_norm: k, ‖a*‖ and ‖w*‖.

    Example:
      >>> [round(float(final_loss(0.1, k, 1.0).value), 4) for k in (1, 10_000)]
      [0.02, 7.977]
    """
    check(error=error, k=k, target_norm=target_norm, filter_norm=filter_norm)
    square = (np.pi - 1 + real(k)) * error**2 + 2 * error * (1 + error)
    value = square / (4 * np.pi) * (real(target_norm) * filter_norm) ** 2
    formula = "((k+π−1)ε² + 2ε(1+ε))/(4π) ‖w*‖²‖a*‖²"
    return Bound(value, formula, 1.0, source("Lemma 5.12", "corrected: the constant grows with k"))
