"""Runs of Algorithm 1 on the population loss, held against Du (2019), Theorem 5.3."""

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from ntkflow.systems.records import DIVERGENCE_IS_DATA
from ntkflow.systems.weight_normalized_filter import (
    bounds,
    bounds_descent,
    bounds_phase_two as phase_two,
)
from ntkflow.systems.weight_normalized_filter.network import Teacher
from ntkflow.systems.weight_normalized_filter.reduction import Problem
from ntkflow.systems.weight_normalized_filter.run import (
    AFTER,
    FIRST,
    NOW,
    Rounding,
    check_step_size,
    forbid,
    read_run,
)
from ntkflow.theory import Certificate, Inequality


@DIVERGENCE_IS_DATA
def certificate_convergence(
    history: Mapping[str, ArrayLike],
    steps: ArrayLike,
    problem: Teacher | Problem,
    step_size: float,
    *,
    epsilon: float = 1e-3,
    printed: bool = False,
) -> Certificate:
    """Hold a run against Theorem 5.3: both phases, and the lemmas on whole runs, 5.8 to 5.11.

    Hypotheses: 0 ≤ (a⁰)ᵀa*, |1ᵀa⁰| ≤ |1ᵀa*|‖w*‖, φ⁰ < π/2. It prints |1ᵀa⁰| ≤ |1ᵀa*|; where
    ‖w*‖ < 1 a run from there can end in the spurious minimum. It asks 0 < (a⁰)ᵀa*, which excludes
    the initialization of Theorem 5.4 at 1ᵀa* = 0, a⁰ = 0; one step from there makes it true.

    Args:
      history: what `observables(teacher)` recorded along `descend(population_loss, sgd(η), …)`, or
        `reduced_observables(path, problem)`; leading axes are seeds.
      steps: of the records, from 0 on, any number of steps apart.
      problem: the teacher, or what of it matters.
      step_size: η of the run, one number.
      epsilon: ε of the theorem, in (0, 1].
      printed: the lemmas and the step size as printed, of which Lemmas 5.8, 5.5 and 5.9 are false
        in the factor of λ and where ‖w*‖ is not 1.

    Returns:
      The certificate: T_1 and T_2 are `phase_one_time` and `phase_two_time`; T'_1 and T' are where
      the run itself has φ ≤ π/3 and Q ≥ 0.2132‖w*‖‖a*‖², and π − g(φ) ≤ ε min{1, ‖a*‖/|1ᵀa*|}.
      Claims are up to rounding of the run's dtype.

    Raises:
      ValueError: the step size is larger than `largest_step_size` of a start that meets the
        hypotheses, or than 2π/(k+π−1); a record is missing, the first is not at 0, ε is out of
        (0, 1].

    Example:
      >>> import jax
      >>> from ntkflow.systems.weight_normalized_filter.reduction import (
      ...     Reduced, reduced_observables, simulate
      ... )
      >>> start, problem = Reduced(0.3, 1.0, 0.5, 0.2, 0.1), Problem(20, 1.0, 1.0)
      >>> steps, path = simulate(start, problem, 0.25, steps=600)
      >>> history = jax.jit(reduced_observables)(path, problem)
      >>> certificate = certificate_convergence(history, steps, problem, 0.25)
      >>> bool(certificate.applies), bool(certificate.holds)
      (True, True)
      >>> certificate_convergence(history, steps, problem, 0.5)
      Traceback (most recent call last):
      ...
      ValueError: step_size is 0.5; Theorem 5.3 allows at most 0.283773, 2π/(k+π−1)...

    References:
      Du (2019), Theorem 5.3 and section 5.9.
    """
    run = read_run(history, steps, problem)
    check_step_size(step_size)
    k, s, norm, filter_norm = run.problem
    angle, overlap, total = (record[FIRST] for record in (run.angle, run.overlap, run.total))
    largest_total = abs(s) * (1.0 if printed else filter_norm)
    unit = Rounding(run, step_size)
    ready = (
        (overlap >= -unit.start)
        & (np.abs(total) <= largest_total + unit.start_total)
        & (angle < np.pi / 2)
    )
    radius = run.filter_norm[FIRST]
    largest = bounds_descent.largest_step_size(
        overlap, angle, norm, s, k, filter_norm, radius, printed=printed
    )
    forbid(step_size, largest, ready, k, "Theorem 5.3")
    most = bounds.largest_overlap(norm, s, filter_norm, printed=printed).value
    if not printed:
        most = np.maximum(overlap, most)
    sharp = bounds.sharp_largest_overlap(overlap, total, norm, s, k, filter_norm).value
    least = bounds.smallest_overlap(overlap, angle, norm, filter_norm, printed=printed).value
    progress = bounds_descent.initial_progress(
        overlap, angle, norm, filter_norm, printed=printed
    ).value
    signal = bounds.largest_signal(most, filter_norm, radius, printed=printed).value
    growth = bounds_descent.largest_filter_norm(
        step_size, np.maximum(most, 0.0), angle, filter_norm, radius, printed=printed
    ).value
    decay = bounds_descent.angle_decay(run.steps, step_size, progress, angle, radius).value
    square, claim = np.sin(run.angle) ** 2, run.claim
    return Certificate(
        theorem="Du (2019), Theorem 5.3: convergence to the global minimum",
        hypotheses=(
            claim("0 ≤ (a⁰)ᵀa*", "Theorem 5.3", 0.0, overlap, unit.start),
            claim(
                "|1ᵀa⁰| ≤ |1ᵀa*|" + ("" if printed else "‖w*‖"),
                "Theorem 5.3",
                np.abs(total),
                largest_total,
                unit.start_total,
            ),
            claim("0 < cos φ⁰", "Theorem 5.3", np.finfo(float).tiny, np.cos(angle)),
            claim("η ≤ " + largest.formula, "Lemma 5.9", step_size, largest.value),
        ),
        claims=(
            claim("φ_{t+1} ≤ φ_t", "Lemma 5.2", run.angle[AFTER], run.angle[NOW], unit.angle),
            claim("0 ≤ Q_t", "Lemma 5.3", 0.0, run.overlap, unit.overlap),
            claim(
                "|S_t| ≤ |1ᵀa*|‖w*‖",
                "Lemma 5.4",
                np.abs(run.total),
                abs(s) * filter_norm,
                unit.total,
            ),
            claim("min{Q⁰, q⁰} ≤ Q_t", "Corollary 5.1", least, run.overlap, unit.overlap),
            claim("Q_t ≤ max Q", "Lemma 5.8", run.overlap, most, unit.overlap),
            claim(
                "Q_t ≤ max{Q⁰ + ((1ᵀa*)²‖w*‖ − 1ᵀa*·S⁰)/k, ‖a*‖²‖w*‖}",
                "Lemma 5.8, derived",
                run.overlap,
                sharp,
                unit.overlap,
            ),
            claim("λ_t ≤ max λ", "proof of Lemma 5.5", run.signal, signal, unit.signal),
            claim(
                "β⁰/(8‖v⁰‖²) ≤ λ_t",
                "proof of Lemma 5.9",
                progress / (8 * radius**2),
                run.signal,
                unit.signal,
            ),
            claim("‖v_t‖ ≤ max ‖v‖", "Lemma 5.9", run.filter_norm, growth, unit.one * radius),
            claim(
                "sin²φ_t ≤ (1 − η cos φ⁰ β⁰/(8‖v⁰‖²))^t sin²φ⁰",
                "Lemma 5.9",
                square,
                decay * square[FIRST],
                unit.square,
            ),
            *_phase_claims(run, step_size, epsilon, unit, ready),
        ),
    )


def _phase_claims(run, step_size, epsilon, unit, ready) -> tuple[Inequality, ...]:
    """Lemmas 5.10 and 5.11, and T_1 and T_2."""
    k, s, norm, filter_norm = run.problem
    t, size, claim = run.steps, run.size, run.claim
    angle, radius, error = (
        record[FIRST] for record in (run.angle, run.filter_norm, run.output_error)
    )
    start = np.maximum(run.overlap[FIRST], 0.0)
    time = np.asarray(
        bounds_descent.phase_one_time(step_size, start, angle, norm, filter_norm, radius).value
    )
    time = np.where(ready, time, np.inf)
    rest = phase_two.phase_two_time(step_size, epsilon, norm, s, k, error, filter_norm, radius)
    least = bounds_descent.phase_one_overlap(norm, filter_norm).value
    gap = bounds.gap(run.angle)
    sums = phase_two.sum_error_decay(t, step_size, run.sum_error[FIRST], angle, s, k, filter_norm)
    outputs = phase_two.output_error_decay(t, step_size, error, angle, size)
    # Of the run itself: T'_1, and T'.
    begin, square = (
        _from(t, (run.angle <= np.pi / 3) & (run.overlap >= least)),
        np.sin(run.angle) ** 2,
    )
    known = np.isfinite(begin)
    at = np.argmax(t >= np.where(known, begin, 0.0), axis=-1)[..., None]
    fast = phase_two.fast_rate(norm, filter_norm, radius).value
    shrink = np.exp(-step_size * fast * (t - np.where(known, begin, 0.0)))
    accuracy = epsilon * min(1.0, norm / max(abs(s), norm))
    close = _from(t, gap <= accuracy)
    later = (
        t >= close + phase_two.sum_time(step_size, 2 * filter_norm * abs(s), epsilon, size, k).value
    )
    last = (
        t >= close + phase_two.output_time(step_size, np.maximum(error, size), epsilon, size).value
    )
    return (
        claim(
            "|S_t − 1ᵀa*‖w*‖| ≤ (1 − η(k+π−1)/2π)^t |S⁰ − 1ᵀa*‖w*‖| + (π−g(φ⁰))‖w*‖|1ᵀa*|/(k+π−1)",
            "proof of Lemma 5.10",
            run.sum_error,
            sums.value,
            unit.total,
        ),
        claim(
            "‖a_t − ‖w*‖a*‖ ≤ (1 − η(π−1)/2π)^t ‖a⁰ − ‖w*‖a*‖ + (π−g(φ⁰))‖w*‖‖a*‖/(π−1)",
            "proof of Lemma 5.11",
            run.output_error,
            outputs.value,
            unit.output,
        ),
        claim(
            "φ_t ≤ π/3 for t ≥ T_1", "Theorem 5.3, phase I", run.angle, np.pi / 3, 0.0, t >= time
        ),
        claim(
            "0.2132‖w*‖‖a*‖² ≤ Q_t for t ≥ T_1",
            "Theorem 5.3, phase I",
            least,
            run.overlap,
            0.0,
            t >= time,
        ),
        claim(
            "sin²φ_t ≤ exp(−ηC‖w*‖²‖a*‖²(t − T'_1)) sin²φ_{T'_1}",
            "Theorem 5.3, phase II",
            square,
            shrink * np.take_along_axis(square, at, axis=-1),
            unit.square,
            t >= begin,
        ),
        claim(
            "|S_t − 1ᵀa*‖w*‖| ≤ 2ε‖w*‖‖a*‖ for t ≥ T' + T of 5.10",
            "Lemma 5.10",
            run.sum_error,
            2 * epsilon * size,
            unit.total,
            later,
        ),
        claim(
            "‖a_t − ‖w*‖a*‖ ≤ (1 + 1/(π−1)) ε‖w*‖‖a*‖ for t ≥ T' + T of 5.11",
            "Lemma 5.11",
            run.output_error,
            (1 + 1 / (np.pi - 1)) * epsilon * size,
            unit.output,
            last,
        ),
        claim(
            "ℓ_t ≤ ε‖w*‖²‖a*‖² for t ≥ T_1 + T_2",
            "Theorem 5.3",
            run.loss,
            epsilon * size**2,
            unit.output**2 * k,
            t >= time + np.asarray(rest.value),
        ),
    )


def _from(steps: np.ndarray, holds: np.ndarray) -> np.ndarray:
    """The first step at which it holds, shape (..., 1); inf without one."""
    steps = np.broadcast_to(steps, holds.shape)
    return np.min(np.where(holds, steps, np.inf), axis=-1, keepdims=True)
