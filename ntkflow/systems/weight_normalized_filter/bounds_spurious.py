"""Du (2019), Theorem 5.5: steps, invariants and the rate of a run towards the spurious minimum.

The names are those of `bounds`; the start has Q < 0, |S| ≤ |s|‖w*‖ and g(φ) ≤ 1 − 2s²/‖a*‖². The
theorem asks for a small η and says "when Algorithm 1 converges": here is how small, and how slowly.
"""

import numpy as np
from jax.typing import ArrayLike

from ntkflow.systems.weight_normalized_filter.arguments import check, library, real, source
from ntkflow.systems.weight_normalized_filter.bounds import level, sum_step_size
from ntkflow.systems.weight_normalized_filter.bounds_descent import growth
from ntkflow.theory import Bound

_BEND = 0.561097  # max u cos u on [0, π/2], at u tan u = 1


def largest_spurious_step_size(
    overlap: ArrayLike,
    target_norm: ArrayLike,
    k: ArrayLike,
    filter_norm: ArrayLike = 1.0,
    v_norm: ArrayLike = 1.0,
    *,
    printed: bool = False,
) -> Bound:
    """The largest step of Theorem 5.5, "sufficiently small" there.

    min{2π/(k+π−1), 11.2‖v⁰‖²/(‖w*‖ max{|Q⁰|, ‖w*‖‖a*‖²/(π−1)})}: the first keeps |S| ≤ |s|‖w*‖, the
    second keeps v from turning past −w*. The proof prints η < (k+π−1)/(2π), the first inverted,
    with which S diverges for k ≥ 7.

    Args:
      overlap: Q⁰.
      target_norm, k, filter_norm, v_norm: ‖a*‖, k, ‖w*‖ and ‖v⁰‖.
      printed: (k+π−1)/(2π).

    Raises:
      ValueError: a norm is not positive, k < 1.

    Example:
      >>> round(float(largest_spurious_step_size(-0.1, 1.0, k=20).value), 4)
      0.2838

    Reference: Du (2019), proof of Theorem 5.5.
    """
    check(k=k)
    if printed:
        value = (real(k) + np.pi - 1) / (2 * np.pi)
        return Bound(value, "(k+π−1)/(2π)", 1.0, source("proof of Theorem 5.5"))
    check(v_norm=v_norm)
    lib = library(overlap, target_norm, k, filter_norm, v_norm)
    most = most_negative_overlap(overlap, target_norm, filter_norm).value
    second = 2 * np.pi / _BEND * real(v_norm) ** 2 / (filter_norm * most)
    formula = "min{2π/(k+π−1), 11.2‖v⁰‖²/(‖w*‖max{|Q⁰|, ‖w*‖‖a*‖²/(π−1)})}"
    place = source("Theorem 5.5", "derived; the proof's step is inverted")
    return Bound(lib.minimum(sum_step_size(k).value, second), formula, 1.0, place)


def largest_spurious_level(target_norm: ArrayLike, target_sum: ArrayLike) -> Bound:
    """What g(φ⁰) is at most in Theorem 5.5: 1 − 2s²/‖a*‖². No angle has it if s² > ‖a*‖²/2.

    Example:
      >>> largest_spurious_level(1.0, 0.5).value
      0.5
    """
    check(target_norm=target_norm, target_sum=target_sum)
    value = 1 - 2 * (real(target_sum) / target_norm) ** 2
    return Bound(value, "1 − 2(1ᵀa*)²/‖a*‖²", 1.0, source("Theorem 5.5"))


def most_negative_overlap(
    overlap: ArrayLike, target_norm: ArrayLike, filter_norm: ArrayLike = 1.0
) -> Bound:
    """What |Q| is at most while Q < 0: max{|Q⁰|, ‖w*‖‖a*‖²/(π−1)}.

    Example:
      >>> round(float(most_negative_overlap(-0.1, 1.0).value), 4)
      0.4669
    """
    check(overlap=overlap, target_norm=target_norm, filter_norm=filter_norm)
    lib = library(overlap, target_norm, filter_norm)
    value = lib.maximum(abs(overlap), filter_norm * real(target_norm) ** 2 / (np.pi - 1))
    place = source("Theorem 5.5", "derived, as Lemma 5.8")
    return Bound(value, "max{|Q⁰|, ‖w*‖‖a*‖²/(π−1)}", 1.0, place)


def least_negative_overlap(
    overlap: ArrayLike,
    angle: ArrayLike,
    target_norm: ArrayLike,
    target_sum: ArrayLike,
    filter_norm: ArrayLike = 1.0,
) -> Bound:
    """What |Q| is at least: min{|Q⁰|, ‖w*‖((1 − g(φ⁰))‖a*‖² − 2s²)/(π−1)}.

    0 at the edge of the condition on g(φ⁰); the proof has Q < 0 alone.

    Example:
      >>> round(float(least_negative_overlap(-1.0, np.pi, 1.0, 0.0).value), 4)
      0.4669
    """
    check(overlap=overlap, angle=angle, target_norm=target_norm, target_sum=target_sum)
    check(filter_norm=filter_norm)
    lib = library(overlap, angle, target_norm, target_sum, filter_norm)
    goal = -level(angle) * real(target_norm) ** 2 - 2 * real(target_sum) ** 2
    value = lib.minimum(abs(overlap), lib.maximum(filter_norm * goal / (np.pi - 1), 0.0))
    formula = "min{|Q⁰|, ‖w*‖((1−g(φ⁰))‖a*‖² − 2(1ᵀa*)²)/(π−1)}"
    return Bound(value, formula, 1.0, source("Theorem 5.5", "derived, as Corollary 5.1"))


def supplement_bounds(
    steps: ArrayLike,
    step_size: ArrayLike,
    overlap: ArrayLike,
    angle: ArrayLike,
    target_norm: ArrayLike,
    target_sum: ArrayLike,
    filter_norm: ArrayLike = 1.0,
    v_norm: ArrayLike = 1.0,
) -> tuple[Bound, Bound]:
    """What π − φ is at least and at most after t steps: of the order 1/t, both.

    With u = π − φ⁰ and κ = η‖w*‖|Q|/(2π‖v‖²), a step takes about κ(π − φ)² off π − φ. Hence
    u/(1 + tκu/(1 − κu)), κ with the largest |Q| and the smallest ‖v‖, where κu < 1 (else 0); and
    u/(1 + ctκu), κ with the smallest |Q| and the largest ‖v‖, c = 2 arctan(x)/(πx) of the largest
    step x = πκ/2.

    Args:
      steps, step_size: t and η, at most `largest_spurious_step_size`.
      overlap, angle: Q⁰ < 0 and φ⁰.
      target_norm, target_sum, filter_norm, v_norm: ‖a*‖, s, ‖w*‖ and ‖v⁰‖.

    Returns:
      The lower and the upper bound.

    Example:
      >>> low, high = supplement_bounds(1000, 0.2, -0.4, 2.0, 1.0, 0.0)
      >>> round(float(low.value), 4), round(float(high.value), 4)
      (0.0625, 0.1643)

    Reference: Du (2019), Theorem 5.5, which gives no rate.
    """
    check(steps=steps, step_size=step_size, angle=angle)
    check(v_norm=v_norm)
    lib = library(steps, step_size, overlap, angle, target_norm, target_sum, filter_norm, v_norm)
    most = most_negative_overlap(overlap, target_norm, filter_norm).value
    least = least_negative_overlap(overlap, angle, target_norm, target_sum, filter_norm).value
    start, unit = np.pi - angle, step_size * filter_norm / (2 * np.pi * real(v_norm) ** 2)
    turn = np.pi / 2 * unit * most
    share = 2 * lib.arctan(turn) / (np.pi * turn)
    slow = share * unit * least / growth(turn, start) ** 2
    move = unit * most * start
    safe = lib.where(move < 1, 1 - move, 1.0)
    low = lib.where(move < 1, start / (1 + steps * move / safe), 0.0)[()]
    place = source("Theorem 5.5", "derived: the rate")
    return (
        Bound(low, "u/(1 + tκu/(1−κu)), u = π−φ⁰, κ = η‖w*‖max|Q|/(2π‖v⁰‖²)", 1.0, place),
        Bound(
            start / (1 + steps * slow * start),
            "u/(1 + ctκu), u = π−φ⁰, κ = η‖w*‖min|Q|/(2π max‖v‖²)",
            1.0,
            place,
        ),
    )


def spurious_rate(
    step_size: ArrayLike,
    target_norm: ArrayLike,
    target_sum: ArrayLike,
    k: ArrayLike,
    filter_norm: ArrayLike = 1.0,
    v_norm: ArrayLike = 1.0,
) -> Bound:
    """What 1/(π − φ) grows by in each step, in the limit: η‖w*‖|Q_∞|/(2π‖v‖²).

    Q_∞ = −‖w*‖(‖a*‖² − πs²/(k+π−1))/(π−1) is that of the spurious minimum. 0 and less where that
    is a saddle.

    Args:
      v_norm: ‖v‖ in the limit.

    Example:
      >>> round(float(spurious_rate(0.2, 1.0, 0.0, k=20).value), 4)
      0.0149

    Reference: Du (2019), Theorem 5.5, which gives no rate.
    """
    check(step_size=step_size, target_norm=target_norm, target_sum=target_sum, k=k)
    check(filter_norm=filter_norm)
    check(v_norm=v_norm)
    share = np.pi * real(target_sum) ** 2 / (real(k) + np.pi - 1)
    overlap = filter_norm * (real(target_norm) ** 2 - share) / (np.pi - 1)
    value = step_size * filter_norm * overlap / (2 * np.pi * real(v_norm) ** 2)
    formula = "η‖w*‖²(‖a*‖² − π(1ᵀa*)²/(k+π−1))/(2π(π−1)‖v‖²)"
    return Bound(value, formula, 1.0, source("Theorem 5.5", "derived: the rate"))


def smallest_spurious_loss(
    target_norm: ArrayLike, target_sum: ArrayLike, k: ArrayLike, filter_norm: ArrayLike = 1.0
) -> Bound:
    """What ℓ is at least wherever aᵀa* ≤ 0: the loss of the spurious minimum.

    4π(ℓ − ℓ_∞) = (a − a_∞)ᵀ(11ᵀ + (π−1)I)(a − a_∞) − 2g(φ)‖w*‖aᵀa*, hence at every step, and not at
    the end alone as in the theorem. It is 0.133264 ‖w*‖²‖a*‖² at least, its Ω(‖a*‖²).

    Args:
      target_norm, target_sum, k, filter_norm: ‖a*‖, s, k and ‖w*‖.

    Example:
      >>> round(smallest_spurious_loss(1.0, 0.0, k=20).value, 6)
      0.133264

    Reference: Du (2019), Theorem 5.5.
    """
    check(target_norm=target_norm, target_sum=target_sum, k=k, filter_norm=filter_norm)
    share = np.pi * real(target_sum) ** 2 / (real(k) + np.pi - 1)
    value = filter_norm**2 * ((np.pi - 2) * real(target_norm) ** 2 + share) / (4 * (np.pi - 1))
    formula = "‖w*‖²((π−2)‖a*‖² + π(1ᵀa*)²/(k+π−1))/(4(π−1))"
    return Bound(value, formula, 1.0, source("Theorem 5.5", "derived"))
