"""Runs of Algorithm 1 on the population loss, held against Du (2019), Theorem 5.5."""

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from ntkflow.systems.records import DIVERGENCE_IS_DATA
from ntkflow.systems.weight_normalized_filter import bounds, bounds_descent, bounds_spurious
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
from ntkflow.theory import Certificate


@DIVERGENCE_IS_DATA
def certificate_spurious(
    history: Mapping[str, ArrayLike],
    steps: ArrayLike,
    problem: Teacher | Problem,
    step_size: float,
) -> Certificate:
    """Hold a run against Theorem 5.5: it ends in the spurious minimum, sublinearly.

    Hypotheses: (a⁰)ᵀa* ≤ 0 (0 will do, as at 1ᵀa* = 0), |1ᵀa⁰| ≤ |1ᵀa*|‖w*‖, φ⁰ > π/2, and
    g(φ⁰) ≤ 1 − 2(1ᵀa*)²/‖a*‖². The proof prints (aᵗ)ᵀa* > 0 where < 0 belongs.

    Args:
      history, steps, problem, step_size: as for `certificate_convergence`.

    Returns:
      The certificate: the invariants of the proof; π − φ between two bounds that fall like 1/t, so
      that no linear rate is possible; Q_t, S_t and the loss on their way to those of the spurious
      minimum, ℓ_∞ ≤ ℓ_t from the start. S̄, δ̄ are bounds on |S_t − S_∞| and ‖a_t − a_∞‖ that the
      run's φ at half of the record yields.

    Raises:
      ValueError: the step size is larger than `largest_spurious_step_size` of a start that meets
        the hypotheses, or than 2π/(k+π−1); a record is missing, the first is not at 0.

    Example:
      >>> import jax
      >>> from ntkflow.systems.weight_normalized_filter.reduction import (
      ...     Reduced, reduced_observables, simulate
      ... )
      >>> start, problem = Reduced(-0.5, 1.0, 0.2, -0.1, 0.1), Problem(20, 0.2, 1.0)
      >>> steps, path = simulate(start, problem, 0.25, steps=600)
      >>> history = jax.jit(reduced_observables)(path, problem)
      >>> certificate = certificate_spurious(history, steps, problem, 0.25)
      >>> bool(certificate.applies), bool(certificate.holds)
      (True, True)

    References:
      Du (2019), Theorem 5.5 and section 5.11.
    """
    run = read_run(history, steps, problem)
    check_step_size(step_size)
    k, s, norm, filter_norm = run.problem
    angle, overlap, total = (record[FIRST] for record in (run.angle, run.overlap, run.total))
    radius, t, size = run.filter_norm[FIRST], run.steps, run.size
    level = bounds_spurious.largest_spurious_level(norm, s).value
    goal = bounds.level(run.angle) + 1
    unit = Rounding(run, step_size)
    ready = (overlap <= unit.start) & (np.abs(total) <= abs(s) * filter_norm + unit.start_total)
    ready &= (goal[FIRST] <= level) & (angle > np.pi / 2)
    largest = bounds_spurious.largest_spurious_step_size(overlap, norm, k, filter_norm, radius)
    forbid(step_size, largest, ready, k, "Theorem 5.5")
    most = bounds_spurious.most_negative_overlap(overlap, norm, filter_norm).value
    least = bounds_spurious.least_negative_overlap(overlap, angle, norm, s, filter_norm).value
    start = np.minimum(angle, np.pi)
    low, high = bounds_spurious.supplement_bounds(
        t, step_size, overlap, start, norm, s, filter_norm, radius
    )
    turn = step_size * filter_norm * most / (4 * radius**2)
    growth = radius * bounds_descent.growth(turn, np.pi - start)
    supplement = np.pi - run.angle

    # From the middle of the record on: what is left of a there, and what g(φ) there can still do.
    half = t.shape[-1] // 2
    late, middle = t >= t[..., half : half + 1], (..., slice(half, half + 1))
    elapsed = np.where(late, t - t[..., half : half + 1], 0.0)
    rate, slow = (k + np.pi - 1) / (2 * np.pi), bounds.RATE
    share = np.pi * s / (k + np.pi - 1)
    limit_total = (k - 1) / (k + np.pi - 1) * filter_norm * s
    limit_overlap = -filter_norm * (norm**2 - s * share) / (np.pi - 1)
    rest = np.maximum(goal[middle], 0.0)
    total_error = (1 - step_size * rate) ** elapsed * np.abs(run.total[middle] - limit_total)
    total_error = total_error + rest * filter_norm * abs(s) / (k + np.pi - 1)
    error = (1 - step_size * slow) ** elapsed * (
        run.output_error[middle] + np.pi / (np.pi - 1) * size
    )
    error = error + rest * size / (np.pi - 1)
    floor = bounds_spurious.smallest_spurious_loss(norm, s, k, filter_norm).value
    excess = (k + np.pi - 1) * error**2 + 2 * goal * filter_norm * np.abs(run.overlap)

    claim, theorem, derived = run.claim, "Theorem 5.5", "Theorem 5.5, derived"
    return Certificate(
        theorem="Du (2019), Theorem 5.5: convergence to the spurious local minimum",
        hypotheses=(
            claim("(a⁰)ᵀa* ≤ 0", theorem, overlap, 0.0, unit.start),
            claim(
                "|1ᵀa⁰| ≤ |1ᵀa*|‖w*‖",
                theorem,
                np.abs(total),
                abs(s) * filter_norm,
                unit.start_total,
            ),
            claim("g(φ⁰) ≤ 1 − 2(1ᵀa*)²/‖a*‖²", theorem, goal[FIRST], level, unit.one),
            claim("0 < −cos φ⁰", theorem, np.finfo(float).tiny, -np.cos(angle)),
            claim("η ≤ " + largest.formula, derived, step_size, largest.value),
        ),
        claims=(
            claim("Q_t ≤ 0", "proof of Theorem 5.5", run.overlap, 0.0, unit.overlap),
            claim(
                "|S_t| ≤ |1ᵀa*|‖w*‖",
                "Lemma 5.4",
                np.abs(run.total),
                abs(s) * filter_norm,
                unit.total,
            ),
            claim("g(φ_t) ≤ 1 − 2(1ᵀa*)²/‖a*‖²", "proof of Theorem 5.5", goal, level, unit.one),
            claim(
                "φ_t ≤ φ_{t+1}",
                "Lemma 5.2, mirrored",
                run.angle[NOW],
                run.angle[AFTER],
                unit.angle,
            ),
            claim("|Q_t| ≤ max |Q|", derived, -run.overlap, most, unit.overlap),
            claim("min |Q| ≤ |Q_t|", derived, least, -run.overlap, unit.overlap),
            claim("‖v_t‖ ≤ max ‖v‖", derived, run.filter_norm, growth, unit.one * radius),
            claim("u/(1 + tκu/(1−κu)) ≤ π − φ_t", derived, low.value, supplement, unit.path),
            claim("π − φ_t ≤ u/(1 + ctκu)", derived, supplement, high.value, unit.path),
            claim("ℓ_∞ ≤ ℓ_t", theorem, floor, run.loss, unit.one * size**2 * k),
            claim(
                "|S_t − S_∞| ≤ S̄",
                theorem,
                np.abs(run.total - limit_total),
                total_error,
                unit.total,
                late,
            ),
            claim(
                "|Q_t − Q_∞| ≤ ‖a*‖δ̄",
                theorem,
                np.abs(run.overlap - limit_overlap),
                norm * error,
                unit.overlap,
                late,
            ),
            claim(
                "ℓ_t ≤ ℓ_∞ + ((k+π−1)δ̄² + 2g(φ_t)‖w*‖|Q_t|)/(4π)",
                theorem,
                run.loss,
                floor + excess / (4 * np.pi),
                unit.one * size**2 * k,
                late,
            ),
        ),
    )
