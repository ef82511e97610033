"""Steps of Algorithm 1, population loss, held against Du (2019), Lemmas 5.2 to 5.7 and 5.12."""

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from ntkflow.systems.records import DIVERGENCE_IS_DATA
from ntkflow.systems.weight_normalized_filter import bounds
from ntkflow.systems.weight_normalized_filter.bounds_phase_two import final_loss
from ntkflow.systems.weight_normalized_filter.network import Teacher
from ntkflow.systems.weight_normalized_filter.reduction import Problem
from ntkflow.systems.weight_normalized_filter.run import (
    AFTER,
    NOW,
    Run,
    check_step_size,
    read_run,
)
from ntkflow.theory import Certificate, Inequality

_UNITS = 64  # roundings that are forgiven, of what an inequality is made of


@DIVERGENCE_IS_DATA
def certificate_lemmas(
    history: Mapping[str, ArrayLike],
    steps: ArrayLike,
    problem: Teacher | Problem,
    step_size: float,
    *,
    printed: bool = False,
) -> Certificate:
    """Hold every step of a run against the lemmas on single steps, where their conditions hold.

    It speaks of every start and every step size, and has no hypotheses: a lemma claims something of
    a step only if its conditions hold there. What lemmas claim of whole runs (5.8 to 5.11 and the
    corollaries) is in `certificate_convergence`.

    Args:
      history: what `observables(teacher)` recorded along `descend(population_loss, sgd(η), …)`, or
        `reduced_observables(path, problem)`; leading axes are seeds.
      steps: of the records, from 0 on. Records further than one step apart are passed over.
      problem: the teacher, or what of it matters.
      step_size: η of the run, one number.
      printed: the lemmas as printed; of Lemmas 5.2, 5.7 and 5.12 that is false.

    Returns:
      The certificate; claims are up to rounding of the run's dtype.

    Raises:
      ValueError: a record is missing, the first is not at 0, no two are one step apart.

    Example:
      >>> from ntkflow.systems.weight_normalized_filter.reduction import (
      ...     Reduced, reduced_observables, simulate
      ... )
      >>> start, problem = Reduced(0.1, 1.0, 0.0, 0.0, 0.5), Problem(4, 0.0, 1.0)
      >>> steps, path = simulate(start, problem, 0.3, steps=600)
      >>> history = reduced_observables(path, problem)
      >>> certificate = certificate_lemmas(history, steps, problem, 0.3)
      >>> bool(certificate.holds)
      True
      >>> certificate = certificate_lemmas(history, steps, problem, 0.3, printed=True)
      >>> [entry.source for entry in certificate.claims if not entry.holds]
      ['Du (2019), Lemma 5.7']

    References:
      Du (2019), sections 5.4, 5.8 and 5.9.
    """
    run = read_run(history, steps, problem)
    check_step_size(step_size)
    single = np.diff(run.steps, axis=-1) == 1
    if not single.any():
        raise ValueError(
            f"steps are {run.steps}; expected records one step apart: the lemmas are on single "
            "steps. Record with every=1."
        )
    return Certificate(
        theorem="Du (2019), Lemmas 5.2 to 5.7 and 5.12: single steps",
        hypotheses=(),
        claims=(
            *_equations(run, step_size, single),
            *_invariants(run, step_size, single, printed),
            _accuracy(run, printed),
        ),
    )


def _equations(run: Run, eta: float, single: np.ndarray) -> tuple[Inequality, ...]:
    """The recursions themselves."""
    k, s, norm, filter_norm = run.problem
    eps = _UNITS * float(np.finfo(run.dtype).eps)
    angle, signal = run.angle[NOW], run.signal[NOW]
    move, level = eta * signal * np.sin(angle), bounds.level(angle)
    turned = bounds.next_angle(eta, signal, np.minimum(angle, np.pi)).value
    radius = run.filter_norm[NOW] * np.sqrt(1 + move**2)
    unit = eta / (2 * np.pi)
    drive = filter_norm * s - run.total[NOW]
    total = run.total[NOW] + unit * (
        k * drive + (level * filter_norm * s - (np.pi - 1) * run.total[NOW])
    )
    overlap = run.overlap[NOW] + unit * (
        level * filter_norm * norm**2 - (np.pi - 1) * run.overlap[NOW] + s * drive
    )
    # Of a, whose entries S and Q are sums of; a gradient counts by what it is made of.
    size = (run.output_error[NOW] + run.size) * (1 + unit * (k + np.pi))

    def equal(statement, place, found, expected, slack):
        return run.claim(statement, place, np.abs(found - expected), slack, during=single)

    return (
        equal(
            "φ_{t+1} = |φ_t − arctan(ηλ_t sin φ_t)|, up to rounding",
            "proof of Lemma 5.5, derived",
            run.angle[AFTER],
            turned,
            eps * (1 + np.abs(move)),
        ),
        equal(
            "‖v_{t+1}‖² = ‖v_t‖² + η²‖∂ℓ/∂v‖², up to rounding",
            "proof of Lemma 5.9",
            run.filter_norm[AFTER],
            radius,
            eps * radius,
        ),
        equal(
            "Q_{t+1} is that of the recursion, up to rounding",
            "equation (5.4), corrected: ‖a*‖²",
            run.overlap[AFTER],
            overlap,
            eps * size * norm * max(1.0, np.sqrt(k)),
        ),
        equal(
            "S_{t+1} is that of the recursion, up to rounding",
            "section 5.4.1, corrected: k+π−1, 2π",
            run.total[AFTER],
            total,
            eps * size * np.sqrt(k),
        ),
    )


def _invariants(run: Run, eta: float, single: np.ndarray, printed: bool) -> tuple[Inequality, ...]:
    """Lemmas 5.2 to 5.5 and 5.7."""
    k, s, norm, filter_norm = run.problem
    eps = _UNITS * float(np.finfo(run.dtype).eps)
    angle, overlap, signal = run.angle[NOW], run.overlap[NOW], run.signal[NOW]
    next_angle, next_overlap = run.angle[AFTER], run.overlap[AFTER]
    unit = eps * (run.output_error[NOW] + run.size) * norm * np.sqrt(k)
    move = eta * signal
    small = s * run.total[NOW] <= s**2 * filter_norm
    turning = np.asarray(bounds.turn_step_size(signal, angle, printed=printed).value) >= eta
    contracting = (signal >= 0) & (angle < np.pi / 2)
    contracting &= move * np.cos(angle) <= (np.cos(angle) ** 2 if printed else 1.0)
    contraction = bounds.sine_contraction(eta, signal, angle).value
    square = np.sin(angle) ** 2
    rounding = eps * (np.sin(angle) + eps)
    aligned = bounds.output_alignment(eta, overlap, angle, norm, filter_norm, printed=printed)
    slow = eta <= np.asarray(bounds.overlap_step_size(printed=printed).value)

    def claim(statement, place, during, smaller, larger, slack=0.0):
        return run.claim(statement, place, smaller, larger, slack, single & during)

    return (
        claim(
            "Q_t > 0: φ_{t+1} ≤ φ_t", "Lemma 5.2", turning & (overlap > 0), next_angle, angle, eps
        ),
        claim(
            "Q_t < 0: φ_t ≤ φ_{t+1}",
            "Lemma 5.2, mirrored",
            turning & (overlap < 0),
            angle,
            next_angle,
            eps,
        ),
        claim(
            "0 ≤ Q_{t+1}",
            "Lemma 5.3",
            slow & small & (overlap > 0) & (angle < np.pi / 2),
            0.0,
            next_overlap,
            unit,
        ),
        claim(
            "1ᵀa* · S_{t+1} ≤ (1ᵀa*)²‖w*‖",
            "Lemma 5.4",
            small & (eta <= np.asarray(bounds.sum_step_size(k).value)),
            s * run.total[AFTER],
            s**2 * filter_norm,
            unit,
        ),
        claim(
            "sin²φ_{t+1} ≤ (1 − η cos φ_t λ_t) sin²φ_t",
            "Lemma 5.5",
            contracting,
            np.sin(next_angle) ** 2,
            contraction * square,
            rounding,
        ),
        claim(
            "sin²φ_{t+1} ≤ (1 − 2η cos φ_t λ_t + η²λ_t²) sin²φ_t",
            "equation (5.9)",
            True,
            np.sin(next_angle) ** 2,
            (2 * contraction - 1 + move**2) * square,
            rounding * (1 + move**2),
        ),
        claim(
            "min{Q_t + ηc(q_t − Q_t), q_t} ≤ Q_{t+1}, c = " + ("1" if printed else "(π−1)/(2π)"),
            "Lemma 5.7",
            small & slow,
            aligned.value,
            next_overlap,
            unit,
        ),
    )


def _accuracy(run: Run, printed: bool) -> Inequality:
    """Lemma 5.12 at every record, with the ε of the record; printed, its C is that of k = 1."""
    k, _, norm, filter_norm = run.problem
    epsilon = np.maximum(bounds.gap(run.angle), run.output_error / run.size)
    epsilon = np.maximum(epsilon, 0.0)
    larger = final_loss(epsilon, 1.0 if printed else k, norm, filter_norm).value
    # π − g(φ) is known up to rounding of φ, not of itself.
    slack = _UNITS * float(np.finfo(run.dtype).eps) * run.size**2 * (epsilon + run.angle)
    statement = "ℓ ≤ ((k+π−1)ε² + 2ε(1+ε))/(4π) ‖w*‖²‖a*‖², ε = max{π−g(φ), ‖a−‖w*‖a*‖/(‖w*‖‖a*‖)}"
    place = "Lemma 5.12" + ("" if printed else ", corrected")
    return run.claim(statement, place, run.loss, larger, slack)
