"""Du (2019), Lemmas 5.2 to 5.8 and their corollaries: one step of Algorithm 1, and its invariants.

Throughout φ = ∠(v, w*), Q = aᵀa* ("overlap"), S = 1ᵀa ("total"), s = 1ᵀa* ("target_sum"), `v_norm`
= ‖v‖ and `filter_norm` = ‖w*‖, which the proofs set to 1 and which stands here where it belongs.
Every bound was tried on random states of random problems, and every correction has a state that
breaks the printed form (`tests/systems/weight_normalized_filter/test_weight_normalized_bounds.py`).
Arguments are scalars or arrays that broadcast.
"""

from typing import Any

import numpy as np
from jax.typing import ArrayLike

from ntkflow.systems.weight_normalized_filter.arguments import check, library, real, source
from ntkflow.theory import Bound

RATE = (np.pi - 1) / (2 * np.pi)  # of ∂ℓ/∂a across 1: a forgets its start by 1 − η RATE a step
_SHARE = float(1 - np.exp(-RATE))


def level(angle: ArrayLike) -> Any:
    """g(φ) − 1, on the host or traced; π − 1 at 0, 0 at π/2, −1 at π."""
    lib = library(angle)
    return (np.pi - angle) * lib.cos(angle) + lib.sin(angle) - 1


def gap(angle: ArrayLike) -> Any:
    """π − g(φ), on the host or traced, without cancellation near 0."""
    lib = library(angle)
    return 2 * np.pi * lib.sin(real(angle) / 2) ** 2 + angle * lib.cos(angle) - lib.sin(angle)


def log_plus(value: ArrayLike) -> Any:
    """log max{1, value}, on the host or traced."""
    lib = library(value)
    return lib.log(lib.maximum(value, 1.0))


def signal(
    overlap: ArrayLike, angle: ArrayLike, filter_norm: ArrayLike = 1.0, v_norm: ArrayLike = 1.0
) -> Bound:
    """λ, the speed of v: ∂ℓ/∂v has the norm |λ| ‖v‖ sin φ.

    Args:
      overlap, angle: Q and φ.
      filter_norm, v_norm: ‖w*‖ and ‖v‖.

    Raises:
      ValueError: an angle is out of [0, π], a norm is not positive.

    Example:
      >>> round(float(signal(overlap=1.0, angle=np.pi / 2).value), 6)
      0.25
    """
    check(overlap=overlap, angle=angle, filter_norm=filter_norm)
    check(v_norm=v_norm)
    value = filter_norm * (np.pi - angle) * overlap / (2 * np.pi * real(v_norm) ** 2)
    return Bound(value, "‖w*‖(π−φ)Q/(2π‖v‖²)", 1.0, source("Lemma 5.5"))


def next_angle(step_size: ArrayLike, signal: ArrayLike, angle: ArrayLike) -> Bound:
    """The angle after a step, exactly: v turns by arctan(ηλ sin φ), if need be through 0 or π.

    Example:
      >>> next_angle(step_size=0.2, signal=0.25, angle=1.0).value.round(6)
      np.float64(0.957951)
    """
    check(step_size=step_size, angle=angle)
    lib = library(step_size, signal, angle)
    turned = lib.abs(angle - lib.arctan(step_size * signal * lib.sin(angle)))
    value = np.pi - lib.abs(np.pi - turned)
    return Bound(value, "|φ − arctan(ηλ sin φ)|", 1.0, source("proof of Lemma 5.5", "derived"))


def turn_step_size(signal: ArrayLike, angle: ArrayLike, *, printed: bool = False) -> Bound:
    """The largest step with which the angle does not turn back, Lemma 5.2.

    2 cos φ/(λ cos 2φ), at least 2/|λ|, less than π/4 away from where v turns to: 0 with λ > 0, and
    π with λ < 0, where the angle does not decrease. Elsewhere any step will do. The lemma names no
    step size, yet with ηλ = 3 an angle of 0.01 becomes 0.02.

    Args:
      signal, angle: λ and φ.
      printed: infinity, as printed.

    Example:
      >>> turn_step_size(signal=0.5, angle=0.0).value, turn_step_size(0.5, 1.0).value
      (np.float64(4.0), np.float64(inf))
    """
    check(angle=angle)
    lib = library(signal, angle)
    cosine, rate = lib.cos(angle), signal * lib.cos(2 * real(angle))
    bounded = (rate * cosine > 0) & (lib.cos(2 * real(angle)) > 0) & (not printed)
    value = lib.where(bounded, 2 * cosine / lib.where(bounded, rate, 1.0), np.inf)[()]
    if printed:
        return Bound(value, "∞", 1.0, source("Lemma 5.2"))
    place = source("Lemma 5.2", "corrected: needs a step size")
    return Bound(value, "2 cos φ/(λ cos 2φ)", 1.0, place)


def overlap_step_size(*, printed: bool = False) -> Bound:
    """The largest step that keeps Q positive, Lemma 5.3: 2π/(π−1) = 2.934; the lemma prints 2.

    The lemma also asks 0 ≤ s·S and φ > 0; neither is needed, and s·S ≤ s²‖w*‖ has the factor ‖w*‖.

    Example:
      >>> round(float(overlap_step_size().value), 4), overlap_step_size(printed=True).value
      (2.9339, 2.0)
    """
    if printed:
        return Bound(2.0, "2", 1.0, source("Lemma 5.3"))
    return Bound(1 / RATE, "2π/(π−1)", 1.0, source("Lemma 5.3", "sharpened"))


def sum_step_size(k: ArrayLike) -> Bound:
    """The largest step that keeps s·S ≤ s²‖w*‖, and |S| ≤ |s|‖w*‖, Lemma 5.4.

    Example:
      >>> round(float(sum_step_size(25).value), 4)
      0.2315
    """
    check(k=k)
    return Bound(2 * np.pi / (real(k) + np.pi - 1), "2π/(k+π−1)", 1.0, source("Lemma 5.4"))


def contraction_step_size(signal: ArrayLike, angle: ArrayLike, *, printed: bool = False) -> Bound:
    """The largest step of `sine_contraction`, for λ > 0 and φ < π/2.

    1/(λ cos φ): up to there v does not turn past w*. The proof asks cos φ/λ, cos² φ times that.

    Example:
      >>> steps = [contraction_step_size(0.25, 1.5, printed=printed) for printed in (False, True)]
      >>> [round(float(step.value), 2) for step in steps]
      [56.55, 0.28]
    """
    check(signal=signal, angle=angle)
    lib = library(signal, angle)
    cosine = lib.cos(angle)
    rate, formula, place = signal * cosine, "1/(λ cos φ)", source("Lemma 5.5", "derived")
    if printed:
        rate, formula, place = signal / cosine, "cos φ/λ", source("proof of Lemma 5.5")
    value = lib.where(rate == 0, np.inf, 1 / lib.where(rate == 0, 1.0, rate))[()]
    return Bound(value, formula, 1.0, place)


def sine_contraction(step_size: ArrayLike, signal: ArrayLike, angle: ArrayLike) -> Bound:
    """The factor that a step multiplies sin²φ by, at most: 1 − ηλ cos φ.

    For λ ≥ 0, φ ≤ π/2 and steps up to `contraction_step_size`.

    Example:
      >>> round(float(sine_contraction(0.2, 0.25, 1.0).value), 6)
      0.972985
    """
    check(step_size=step_size, angle=angle)
    value = 1 - step_size * signal * library(step_size, signal, angle).cos(angle)
    return Bound(value, "1 − ηλ cos φ", 1.0, source("Lemma 5.5"))


def exact_sine_contraction(step_size: ArrayLike, signal: ArrayLike, angle: ArrayLike) -> Bound:
    """The factor itself, at every step size: (1 − ηλ cos φ)²/(1 + η²λ² sin²φ).

    (5.9), 1 − 2ηλ cos φ + η²λ², is an upper bound of it.

    Example:
      >>> round(float(exact_sine_contraction(0.2, 0.25, 1.0).value), 6)
      0.945027
    """
    check(step_size=step_size, angle=angle)
    lib = library(step_size, signal, angle)
    move = step_size * signal
    value = (1 - move * lib.cos(angle)) ** 2 / (1 + (move * lib.sin(angle)) ** 2)
    formula = "(1 − ηλ cos φ)²/(1 + η²λ² sin²φ)"
    return Bound(value, formula, 1.0, source("equation (5.9)", "derived: the equality"))


def output_alignment(
    step_size: ArrayLike,
    overlap: ArrayLike,
    angle: ArrayLike,
    target_norm: ArrayLike,
    filter_norm: ArrayLike = 1.0,
    *,
    printed: bool = False,
) -> Bound:
    """What the next Q is at least, Lemma 5.7: min{Q + ηc(q − Q), q}, q = ‖w*‖(g−1)‖a*‖²/(π−1).

    c = (π−1)/(2π) = 0.341. The lemma lacks it, and is false wherever s = 0 and Q < q: "simple
    algebra" gives a third of the printed increment. It needs s·S ≤ s²‖w*‖ and η ≤ 2π/(π−1).

    Args:
      step_size: η.
      overlap, angle: Q and φ before the step.
      target_norm, filter_norm: ‖a*‖ and ‖w*‖.
      printed: with c = 1.

    Example:
      >>> [
      ...     round(float(output_alignment(0.1, 0.0, 0.0, 1.0, printed=printed).value), 6)
      ...     for printed in (False, True)
      ... ]
      [0.034085, 0.1]
    """
    check(step_size=step_size, angle=angle, target_norm=target_norm, filter_norm=filter_norm)
    lib = library(step_size, overlap, angle, target_norm, filter_norm)
    goal = filter_norm * level(angle) * real(target_norm) ** 2 / (np.pi - 1)
    rate = 1.0 if printed else RATE
    value = lib.minimum(overlap + step_size * rate * (goal - overlap), goal)
    factor = "" if printed else "(π−1)/(2π) "
    formula = f"min{{Q + η {factor}(q − Q), q}}, q = ‖w*‖(g(φ)−1)‖a*‖²/(π−1)"
    note = "" if printed else "corrected: (π−1)/(2π)"
    return Bound(value, formula, 1.0, source("Lemma 5.7", note))


def smallest_overlap(
    overlap: ArrayLike,
    angle: ArrayLike,
    target_norm: ArrayLike,
    filter_norm: ArrayLike = 1.0,
    *,
    printed: bool = False,
) -> Bound:
    """What Q is at least, at all times: min{Q⁰, ‖w*‖(g(φ⁰)−1)‖a*‖²/(π−1)}, of the start.

    Args:
      printed: without ‖w*‖, which is too much where ‖w*‖ < 1.

    Example:
      >>> round(float(smallest_overlap(overlap=0.5, angle=1.0, target_norm=1.0).value), 6)
      0.466278
    """
    check(angle=angle, target_norm=target_norm, filter_norm=filter_norm)
    lib = library(overlap, angle, target_norm, filter_norm)
    factor, scale = ("", 1.0) if printed else ("‖w*‖", filter_norm)
    value = lib.minimum(overlap, scale * level(angle) * real(target_norm) ** 2 / (np.pi - 1))
    formula = f"min{{Q⁰, {factor}(g(φ⁰)−1)‖a*‖²/(π−1)}}"
    return Bound(value, formula, 1.0, source("Corollary 5.1", "" if printed else "any ‖w*‖"))


def alignment_time(step_size: ArrayLike, share: ArrayLike = _SHARE) -> Bound:
    """Steps after which Q ≥ share · ‖w*‖(g(φ)−1)‖a*‖²/(π−1), from any Q ≥ 0, Corollary 5.2.

    2π log(1/(1 − share))/((π−1)η); φ is that at the beginning. The default share, 0.289, makes it
    the corollary's 1/η. That Q = O(‖a*‖²) as well is `sharp_largest_overlap`.

    Example:
      >>> [round(float(alignment_time(0.1, share).value), 2) for share in (0.2889, 0.5)]
      [10.0, 20.34]
    """
    check(step_size=step_size)
    check(share=share)
    value = -library(step_size, share).log1p(-real(share)) / (RATE * step_size)
    formula = "2π log(1/(1−share))/((π−1)η)"
    return Bound(value, formula, 1.0, source("Corollary 5.2", "derived"))


def largest_overlap(
    target_norm: ArrayLike,
    target_sum: ArrayLike,
    filter_norm: ArrayLike = 1.0,
    *,
    printed: bool = False,
) -> Bound:
    """What Q is at most if it is so at the start, Lemma 5.8: (‖a*‖² + s²)‖w*‖.

    The lemma omits the start, where any a is admitted, and prints ‖w*‖², though a has the size of
    ‖w*‖a*: at the global minimum itself Q = ‖a*‖²‖w*‖ can be larger. Its proof drops −s·S, which
    may be positive, down to S = −s‖w*‖; the result stands, since 2s²/(π−1) ≤ s².

    Args:
      printed: with ‖w*‖².

    Example:
      >>> largest_overlap(1.0, 2.0, 0.1).value, round(
      ...     largest_overlap(1.0, 2.0, 0.1, printed=True).value, 3
      ... )
      (0.5, 0.05)
    """
    check(target_norm=target_norm, target_sum=target_sum, filter_norm=filter_norm)
    power = 2 if printed else 1
    value = (real(target_norm) ** 2 + real(target_sum) ** 2) * filter_norm**power
    formula = "(‖a*‖² + (1ᵀa*)²)‖w*‖" + ("²" if printed else "")
    return Bound(value, formula, 1.0, source("Lemma 5.8", "" if printed else "corrected: ‖w*‖"))


def sharp_largest_overlap(
    overlap: ArrayLike,
    total: ArrayLike,
    target_norm: ArrayLike,
    target_sum: ArrayLike,
    k: ArrayLike,
    filter_norm: ArrayLike = 1.0,
) -> Bound:
    """What Q is at most, from the start: max{Q⁰ + (s²‖w*‖ − s·S⁰)/k, ‖a*‖²‖w*‖}.

    Q + (s²‖w*‖ − s·S)/k, the overlap but for what S still lacks, never exceeds that maximum. Free
    of s² up to the start, hence what Corollary 5.2's Q = O(‖a*‖²) needs; from Theorem 5.4's
    initialization it is at most 1.21 ‖a*‖²‖w*‖.

    Example:
      >>> sharp_largest_overlap(0.5, 1.0, 1.0, 2.0, k=4).value
      np.float64(1.0)
    """
    check(overlap=overlap, total=total, target_norm=target_norm, target_sum=target_sum, k=k)
    check(filter_norm=filter_norm)
    lib = library(overlap, total, target_norm, target_sum, k, filter_norm)
    lack = (filter_norm * real(target_sum) ** 2 - target_sum * total) / k
    value = lib.maximum(overlap + lack, filter_norm * real(target_norm) ** 2)
    formula = "max{Q⁰ + ((1ᵀa*)²‖w*‖ − 1ᵀa*·1ᵀa⁰)/k, ‖a*‖²‖w*‖}"
    return Bound(value, formula, 1.0, source("Lemma 5.8", "derived"))


def largest_signal(
    largest_overlap: ArrayLike,
    filter_norm: ArrayLike = 1.0,
    v_norm: ArrayLike = 1.0,
    *,
    printed: bool = False,
) -> Bound:
    """What λ is at most: ‖w*‖Q/(2‖v⁰‖²), Q of `largest_overlap`.

    The proof of Lemma 5.5 prints half of it: at the end of every run with s² < ‖a*‖² and a short
    way of v, λ is larger. The steps of Lemma 5.9 leave room for the factor.

    Example:
      >>> largest_signal(2.0).value, largest_signal(2.0, printed=True).value
      (1.0, 0.5)
    """
    check(largest_overlap=largest_overlap, filter_norm=filter_norm)
    check(v_norm=v_norm)
    share = 4 if printed else 2
    value = filter_norm * largest_overlap / (share * real(v_norm) ** 2)
    note = "" if printed else "corrected: twice the printed"
    formula = f"‖w*‖ max Q/({share}‖v⁰‖²)"
    return Bound(value, formula, 1.0, source("proof of Lemma 5.5", note))
