"""Du (2019), Theorem 5.3 and Lemma 5.9: the steps of a run that succeeds, and its phase I.

The names are those of `bounds`. The start has Q > 0, |S| ≤ |s|‖w*‖ and φ < π/2; what the text calls
‖v⁰‖ = 1 is `v_norm` here. The constants behind O(·) are derived, for
η ≤ `largest_step_size`, and hold on every run of the tests
(`tests/systems/weight_normalized_filter/test_weight_normalized_certificates.py`).
"""

import math

import numpy as np
from jax.typing import ArrayLike

from ntkflow.systems.weight_normalized_filter.arguments import check, library, real, source
from ntkflow.systems.weight_normalized_filter.bounds import (
    RATE,
    largest_overlap,
    level,
    log_plus,
    smallest_overlap,
    sum_step_size,
)
from ntkflow.theory import Bound

FAST_LEVEL = float(level(np.pi / 3)) / (
    np.pi - 1
)  # of Q/(‖w*‖‖a*‖²), from φ ≤ π/3 on, in the long run
_TURN = 0.289616  # max (π − φ) sin φ/(2π), at tan φ = π − φ


def largest_step_size(
    overlap: ArrayLike,
    angle: ArrayLike,
    target_norm: ArrayLike,
    target_sum: ArrayLike,
    k: ArrayLike,
    filter_norm: ArrayLike = 1.0,
    v_norm: ArrayLike = 1.0,
    *,
    printed: bool = False,
) -> Bound:
    """The largest step of Lemma 5.9, hence of Theorem 5.3.

    min{‖v⁰‖²/(‖w*‖ max{Q⁰, (‖a*‖² + s²)‖w*‖}), 2π/(k+π−1)} is enough, and no smaller for a small
    initial signal: ηλ ≤ ½, so v never turns past w*; and all that it turns is φ⁰ < π/2, which keeps
    its growth in bounds (`largest_filter_norm`). The printed step, min{β⁰ cos φ⁰/(8D), cos φ⁰/D,
    2π/(k+π−1)} with D = (‖a*‖² + s²)‖w*‖², is never larger if Q⁰ ≤ D/‖w*‖. Its proof bounds
    Σ‖Δv‖² by η²D Σ sin²φ, where D² belongs, and its first term has the wrong dimension.

    Args:
      overlap, angle: Q⁰ and φ⁰.
      target_norm, target_sum: ‖a*‖ and s.
      k: the number of patches.
      filter_norm, v_norm: ‖w*‖ and ‖v⁰‖.
      printed: as printed, with the printed β⁰.

    Raises:
      ValueError: a norm is not positive, k < 1, an angle is out of [0, π].

    Example:
      >>> start = {"overlap": 0.05, "angle": 1.4, "target_norm": 1.0, "target_sum": 1.0, "k": 20}
      >>> [
      ...     round(float(largest_step_size(**start, printed=printed).value), 6)
      ...     for printed in (False, True)
      ... ]
      [0.283773, 0.000531]

    Reference: Du (2019), Lemma 5.9.
    """
    check(overlap=overlap, angle=angle, target_norm=target_norm, target_sum=target_sum, k=k)
    check(filter_norm=filter_norm)
    check(v_norm=v_norm)
    lib = library(overlap, angle, target_norm, target_sum, k, filter_norm, v_norm)
    most = largest_overlap(target_norm, target_sum, filter_norm).value
    if printed:
        progress = initial_progress(overlap, angle, target_norm, filter_norm, printed=True).value
        first = lib.minimum(progress / 8, 1.0) * lib.cos(angle) / (filter_norm * most)
        formula = "min{β⁰cos φ⁰/(8D), cos φ⁰/D, 2π/(k+π−1)}, D = (‖a*‖²+(1ᵀa*)²)‖w*‖²"
        place = source("Lemma 5.9")
    else:
        first = real(v_norm) ** 2 / (filter_norm * lib.maximum(overlap, most))
        formula = "min{‖v⁰‖²/(‖w*‖max{Q⁰, (‖a*‖²+(1ᵀa*)²)‖w*‖}), 2π/(k+π−1)}"
        place = source("Lemma 5.9", "derived: without cos φ⁰ and β⁰")
    return Bound(lib.minimum(first, sum_step_size(k).value), formula, 1.0, place)


def theorem_step_size(
    overlap: ArrayLike,
    angle: ArrayLike,
    target_norm: ArrayLike,
    target_sum: ArrayLike,
    k: ArrayLike,
    filter_norm: ArrayLike = 1.0,
    constant: ArrayLike = 1.0,
) -> Bound:
    """The step of Theorem 5.3, O(min{Q⁰cos φ⁰/D, (g(φ⁰)−1)‖a*‖²cos φ⁰/D, cos φ⁰/D, 1/k}).

    With D as in `largest_step_size`, which is explicit and larger.

    Args:
      constant: the factor that O(·) leaves open.

    Example:
      >>> round(float(theorem_step_size(0.05, 1.4, 1.0, 1.0, k=20, constant=0.125).value), 6)
      0.000531

    Reference: Du (2019), Theorem 5.3.
    """
    check(overlap=overlap, angle=angle, target_norm=target_norm, target_sum=target_sum, k=k)
    check(filter_norm=filter_norm)
    check(constant=constant)
    lib = library(overlap, angle, target_norm, target_sum, k, filter_norm, constant)
    scale = filter_norm * largest_overlap(target_norm, target_sum, filter_norm).value
    progress = lib.minimum(overlap, level(angle) * real(target_norm) ** 2)
    first = lib.minimum(progress, 1.0) * lib.cos(angle) / scale
    formula = "O(min{Q⁰cos φ⁰/D, (g(φ⁰)−1)‖a*‖²cos φ⁰/D, cos φ⁰/D, 1/k})"
    return Bound(
        constant * lib.minimum(first, 1 / real(k)), formula, constant, source("Theorem 5.3")
    )


def initial_progress(
    overlap: ArrayLike,
    angle: ArrayLike,
    target_norm: ArrayLike,
    filter_norm: ArrayLike = 1.0,
    *,
    printed: bool = False,
) -> Bound:
    """β⁰ = ‖w*‖ min{Q⁰, ‖w*‖(g(φ⁰)−1)‖a*‖²/(π−1)}: λ ≥ β⁰/(8‖v⁰‖²) at all times.

    It is ‖w*‖ times the bound of Corollary 5.1. Lemmas 5.5 and 5.9 print min{Q⁰, (g−1)‖a*‖²}‖w*‖²:
    without the π−1, with which λ falls below β⁰/8, and with one ‖w*‖ too many on Q⁰, with which the
    rate of Lemma 5.9 is false where ‖w*‖ is large. Theorem 5.3 prints a third form, with ‖a*‖⁴.

    Args:
      overlap, angle: Q⁰ and φ⁰.
      target_norm, filter_norm: ‖a*‖ and ‖w*‖.
      printed: as Lemmas 5.5 and 5.9.

    Example:
      >>> round(float(initial_progress(0.5, 1.0, 1.0).value), 6)
      0.466278

    Reference: Du (2019), Lemmas 5.5 and 5.9.
    """
    if printed:
        check(angle=angle, target_norm=target_norm, filter_norm=filter_norm)
        lib = library(overlap, angle, target_norm, filter_norm)
        value = lib.minimum(overlap, level(angle) * real(target_norm) ** 2) * filter_norm**2
        return Bound(value, "min{Q⁰, (g(φ⁰)−1)‖a*‖²}‖w*‖²", 1.0, source("Lemmas 5.5 and 5.9"))
    value = filter_norm * smallest_overlap(overlap, angle, target_norm, filter_norm).value
    formula = "‖w*‖min{Q⁰, ‖w*‖(g(φ⁰)−1)‖a*‖²/(π−1)}"
    return Bound(value, formula, 1.0, source("Lemmas 5.5 and 5.9", "corrected: π−1, ‖w*‖"))


def angle_decay(
    steps: ArrayLike,
    step_size: ArrayLike,
    progress: ArrayLike,
    angle: ArrayLike,
    v_norm: ArrayLike = 1.0,
) -> Bound:
    """What sin²φ is at most after t steps: (1 − η cos φ⁰ β⁰/(8‖v⁰‖²))^t, Lemma 5.9.

    Args:
      steps, step_size: t and η.
      progress: β⁰, `initial_progress`.
      angle: φ⁰.
      v_norm: ‖v⁰‖.

    Example:
      >>> round(float(angle_decay(1000, 0.2, 0.4, 1.4).value), 4)
      0.1825
    """
    check(steps=steps, step_size=step_size, angle=angle)
    check(v_norm=v_norm)
    lib = library(steps, step_size, progress, angle, v_norm)
    value = (1 - step_size * lib.cos(angle) * progress / (8 * real(v_norm) ** 2)) ** steps
    return Bound(value, "(1 − η cos φ⁰ β⁰/(8‖v⁰‖²))^t", 1.0, source("Lemma 5.9"))


def largest_filter_norm(
    step_size: ArrayLike,
    largest_overlap: ArrayLike,
    angle: ArrayLike,
    filter_norm: ArrayLike = 1.0,
    v_norm: ArrayLike = 1.0,
    *,
    printed: bool = False,
) -> Bound:
    """What ‖v‖ is at most: ‖v⁰‖ exp(½ φ⁰ log(1+x²)/arctan x), x = 0.2897 η‖w*‖max Q/‖v⁰‖².

    A step multiplies ‖v‖² by 1 + x_t² and turns v by arctan x_t; the turns sum to φ⁰ at most. With
    `largest_step_size` it is 1.26 ‖v⁰‖ at most. Lemma 5.9 states 2; its induction has ‖v‖² ≤ 2.

    Args:
      step_size: η.
      largest_overlap: a bound on Q.
      angle: φ⁰.
      filter_norm, v_norm: ‖w*‖ and ‖v⁰‖.
      printed: 2 ‖v⁰‖.

    Example:
      >>> round(float(largest_filter_norm(0.2, 2.0, np.pi / 2).value), 4)
      1.095
    """
    check(step_size=step_size, largest_overlap=largest_overlap, angle=angle)
    check(filter_norm=filter_norm)
    check(v_norm=v_norm)
    if printed:
        return Bound(2 * real(v_norm), "2‖v⁰‖", 1.0, source("Lemma 5.9"))
    turn = _TURN * step_size * filter_norm * largest_overlap / real(v_norm) ** 2
    return Bound(
        v_norm * growth(turn, angle),
        "‖v⁰‖ exp(½ φ⁰ log(1+x²)/arctan x), x = 0.2897 η‖w*‖max Q/‖v⁰‖²",
        1.0,
        source("Lemma 5.9", "derived"),
    )


def growth(turn: ArrayLike, angle: ArrayLike) -> ArrayLike:
    """How much ‖v‖ grows while v turns by `angle` in all, each step by arctan(`turn`) at most."""
    lib = library(turn, angle)
    return lib.exp(angle * lib.log1p(real(turn) ** 2) / (2 * lib.arctan(turn)))


def phase_one_time(
    step_size: ArrayLike,
    overlap: ArrayLike,
    angle: ArrayLike,
    target_norm: ArrayLike,
    filter_norm: ArrayLike = 1.0,
    v_norm: ArrayLike = 1.0,
) -> Bound:
    """T_1: from then on φ ≤ π/3 and Q ≥ 0.2132 ‖w*‖‖a*‖².

    (8‖v⁰‖² log⁺(4 sin²φ⁰/3)/(cos φ⁰‖w*‖q⁰) + 2π log 2/(π−1))/η, where q⁰ = max{min{Q⁰, q}, q/2},
    q = ‖w*‖(g(φ⁰)−1)‖a*‖²/(π−1), and the last term is doubled if Q⁰ < q/2, which Q leaves behind by
    then. So T_1 does not grow as Q⁰ → 0, as the theorem's O(1/(η cos φ⁰ β⁰) + 1/η) does. Its
    "φ = Θ(1)" is true from the start; it must be cos φ = Ω(1), as in the proof.

    Args:
      step_size: η, at most `largest_step_size`.
      overlap, angle: Q⁰ ≥ 0 and φ⁰ < π/2.
      target_norm, filter_norm, v_norm: ‖a*‖, ‖w*‖ and ‖v⁰‖.

    Example:
      >>> [round(float(phase_one_time(0.2, q, 1.4, target_norm=1.0).value)) for q in (0.5, 0.0)]
      [473, 946]

    Reference: Du (2019), Theorem 5.3.
    """
    check(step_size=step_size, overlap=overlap, angle=angle)
    check(v_norm=v_norm)
    lib = library(step_size, overlap, angle, target_norm, filter_norm, v_norm)
    goal = smallest_overlap(np.inf, angle, target_norm, filter_norm).value
    reached = lib.maximum(lib.minimum(overlap, goal), goal / 2)
    turning = 8 * real(v_norm) ** 2 * log_plus(4 / 3 * lib.sin(angle) ** 2)
    waits = math.log(2) / RATE * lib.where(real(overlap) < goal / 2, 2, 1)
    value = (turning / (lib.cos(angle) * filter_norm * reached) + waits) / step_size
    formula = "(8‖v⁰‖² log⁺(4 sin²φ⁰/3)/(cos φ⁰‖w*‖q⁰) + (1 or 2)·2π log 2/(π−1))/η"
    return Bound(value, formula, 1.0, source("Theorem 5.3, phase I", "constants derived"))


def phase_one_overlap(target_norm: ArrayLike, filter_norm: ArrayLike = 1.0) -> Bound:
    """What Q is at least from T_1 on, (g(π/3)−1)/(2(π−1)) ‖w*‖‖a*‖².

    Example:
      >>> round(float(phase_one_overlap(1.0).value), 4)
      0.2132
    """
    check(target_norm=target_norm, filter_norm=filter_norm)
    value = FAST_LEVEL / 2 * filter_norm * real(target_norm) ** 2
    place = source("Theorem 5.3, phase I", "constant derived")
    return Bound(value, "(g(π/3)−1)/(2(π−1)) ‖w*‖‖a*‖²", 1.0, place)
