"""Gradient descent on one filter: Theorems 6.2 and 6.3 of Du (2019), as numbers.

γ, L and β are those of Definition 6.1 and Assumptions 6.1 and 6.2, L_cross that of Assumption 6.3,
top singular values for "eigenvalues" of matrices that are not symmetric; 0 for one neuron.
Arrays of γ and L hold their values at angles in [0, φ_t], along the last axis.
"""

from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.convolutional_filter.arguments import check, library, real, source
from ntkflow.systems.convolutional_filter.curves import check_table, last_axis, numbers
from ntkflow.theory import Bound


def largest_angle(distance: ArrayLike, target_norm: ArrayLike) -> Bound:
    """Compute φ = arcsin(‖w − w*‖ / ‖w*‖) ≥ ∠(w, w*), the largest angle at this distance.

    Args:
      distance: ‖w − w*‖ < ‖w*‖.
      target_norm: ‖w*‖.

    Raises:
      ValueError: a distance of ‖w*‖ or more, from where the angle can be anything.

    Example:
      >>> round(float(largest_angle(distance=0.5, target_norm=1.0).value), 4)
      0.5236

    Reference: Du (2019), proof of Theorem 6.2.
    """
    check(distance=distance, target_norm=target_norm)
    ratio = numbers(distance) / numbers(target_norm)
    if checks.is_concrete(ratio) and np.any(np.asarray(ratio) >= 1):
        raise ValueError(
            f"distance is {distance} and target_norm {target_norm}; expected ‖w − w*‖ < ‖w*‖, as "
            "the theorems do. `initialize_in_ball` draws such a start with constant probability."
        )
    return Bound(
        library(ratio).arcsin(ratio),
        "φ_t = arcsin(‖w_t − w*‖ / ‖w*‖)",
        1,
        source("proof of Theorem 6.2"),
    )


def gradient_factor(smoothness: ArrayLike, beta: ArrayLike, cross: ArrayLike = 0.0) -> Bound:
    """Compute L + 10 L_cross + 4β, with which ‖∇ℓ(w)‖ ≤ (L + 10 L_cross + 4β) ‖w − w*‖.

    Of the parts of the gradient E[Z_{++}Z_{++}ᵀ](w − w*) gives L, E[Z_{+−}Z_{+−}ᵀ] w gives βφ‖w‖
    with ‖w‖ ≤ 2‖w*‖ and φ ≤ 2 sin φ, and the rest 3 L_cross φ‖w*‖: 6 L_cross would do for 10.
    (The proof prints 2β in one line, and 4β in the next.)

    Args:
      smoothness: L, at one angle or along the last axis, of which the largest is taken.
      beta, cross: β and L_cross.

    Example:
      >>> gradient_factor(smoothness=0.5, beta=0.25).value
      1.5

    Reference: Du (2019), proofs of Theorems 6.2 and 6.3.
    """
    check(smoothness=smoothness, beta=beta, cross=cross)
    return Bound(
        last_axis("max", smoothness) + 10 * cross + 4 * beta,
        "L + 10 L_cross + 4β",
        1,
        source("proof of Theorem 6.3"),
    )


def curvature(gamma: ArrayLike, cross: ArrayLike = 0.0) -> Bound:
    """Compute γ − 6 L_cross, with which ⟨∇ℓ(w), w − w*⟩ ≥ (γ − 6 L_cross) ‖w − w*‖².

    For k > 1 γ need not decrease with φ: patches of a sample that cancel while all are active
    stop to, once some are not (`tests/systems/convolutional_filter/`
    `test_convolutional_filter_bounds.py` holds a case where γ(0) = 0 < γ(φ)). Then γ(φ_t) of the
    theorem must be read as the minimum over [0, φ_t], as it is here.

    Args:
      gamma: γ, at one angle or along the last axis, of which the smallest is taken.
      cross: L_cross.

    Raises:
      ValueError: γ ≤ 6 L_cross, where the theorems promise nothing.

    Example:
      >>> round(curvature(gamma=0.5, cross=0.05).value, 4)
      0.2

    Reference: Du (2019), Theorem 6.3.
    """
    check(gamma=gamma, cross=cross)
    smallest = last_axis("min", gamma)
    value = smallest - 6 * cross
    if checks.is_concrete(value) and not np.all(np.asarray(value) > 0):
        raise ValueError(
            f"gamma is {np.min(smallest)} and cross {cross}; expected γ > 6 L_cross: start closer "
            "to w*, or take patches that are closer to each other."
        )
    return Bound(value, "γ − 6 L_cross", 1, source("Theorem 6.3"))


def largest_step_size(
    gamma: ArrayLike, smoothness: ArrayLike, beta: ArrayLike, cross: ArrayLike = 0.0
) -> Bound:
    """Compute the largest step that Theorems 6.2 and 6.3 allow at φ_t.

        η_t = min_{0≤φ≤φ_t} (γ(φ) − 6 L_cross) / (2 (L(φ) + 10 L_cross + 4β)²).

    It is right, and three times as much is: the proof loses a factor 2 of −2η⟨∇ℓ, w − w*⟩. The
    text on two phases prints 2β for 4β.

    Args:
      gamma, smoothness: γ and L at one angle, or at those of [0, φ_t] along the last axis, as
        `over_angles` returns them.
      beta, cross: β and L_cross.

    Raises:
      ValueError: γ ≤ 6 L_cross at an angle, where no step is allowed; L < γ, or not finite.

    Example:
      >>> largest_step_size(gamma=0.5, smoothness=0.5, beta=0.125).value
      0.25

    Reference: Du (2019), Theorems 6.2 and 6.3.
    """
    check_rates(gamma, smoothness, beta, cross)
    return Bound(
        last_axis("min", step_ratio(numbers(gamma), numbers(smoothness), beta, cross)),
        "η_t = min_φ (γ(φ) − 6 L_cross) / (2 (L(φ) + 10 L_cross + 4β)²)",
        1,
        source("Theorems 6.2 and 6.3"),
    )


def check_rates(
    gamma: ArrayLike, smoothness: ArrayLike, beta: ArrayLike, cross: ArrayLike = 0.0
) -> None:
    """Refuse rates without a step: γ ≤ 6 L_cross, and an L that is not finite or below γ."""
    curvature(gamma, cross)
    check(smoothness=smoothness, beta=beta)
    gamma, smoothness = numbers(gamma), numbers(smoothness)
    factor = smoothness + 10 * cross + 4 * beta
    if not (checks.is_concrete(gamma) and checks.is_concrete(factor)):
        return
    if not np.all(np.isfinite(factor) & np.less_equal(gamma * (1 - 1e-6), factor + 6 * cross)):
        raise ValueError(
            f"smoothness is {smoothness}, gamma {gamma} and beta {beta}; expected finite numbers "
            "with L ≥ γ: they are the extreme eigenvalues of one matrix."
        )


def step_ratio(gamma: Any, smoothness: Any, beta: Any, cross: Any = 0.0) -> Any:
    """(γ − 6 L_cross) / (2 (L + 10 L_cross + 4β)²), entry by entry and unchecked."""
    return (gamma - 6 * cross) / (2 * (smoothness + 10 * cross + 4 * beta) ** 2)


def contraction(
    step_size: ArrayLike,
    gamma: ArrayLike,
    smoothness: ArrayLike,
    beta: ArrayLike,
    cross: ArrayLike = 0.0,
) -> Bound:
    """Compute 1 − η (γ − 6 L_cross)/2, the factor of ‖w − w*‖² in one step.

    Args:
      step_size: η_t.
      gamma, smoothness, beta, cross: as for `largest_step_size`, over [0, φ_t].

    Raises:
      ValueError: a step larger than the theorem allows, or not positive.

    Example:
      >>> contraction(step_size=0.25, gamma=0.5, smoothness=0.5, beta=0.125).value
      0.9375

    Reference: Du (2019), Theorems 6.2 and 6.3.
    """
    check(step_size=step_size)
    check_step_size(step_size, largest_step_size(gamma, smoothness, beta, cross).value)
    return Bound(
        1 - step_size * curvature(gamma, cross).value / 2,
        "1 − η_t (γ(φ_t) − 6 L_cross)/2",
        1,
        source("Theorems 6.2 and 6.3"),
    )


def check_step_size(step_size: ArrayLike, largest: ArrayLike, theorem: str = "6.3") -> None:
    """Refuse a step that a theorem forbids, naming the largest allowed one."""
    if not (checks.is_concrete(step_size) and checks.is_concrete(largest)):
        return
    steps, allowed = np.broadcast_arrays(np.asarray(step_size, float), np.asarray(largest, float))
    over = steps > allowed * (1 + 1e-5)  # steps of a float32 run are rounded
    if np.any(over):
        first = tuple(int(i) for i in np.argwhere(over)[0])
        raise ValueError(
            f"step_size is {steps[first]:.6g}; Theorem {theorem} of Du (2019) allows at most "
            f"{allowed[first]:.6g}" + (f", at record {first}." if first else ".")
        )


def iterations(
    epsilon: ArrayLike,
    phi_0: ArrayLike,
    gamma: ArrayLike,
    smoothness: ArrayLike,
    beta: ArrayLike,
    cross: ArrayLike = 0.0,
    *,
    constant: ArrayLike | None = None,
    printed: bool = False,
) -> Bound:
    """Compute T with ‖w_T − w*‖ ≤ ε ‖w*‖ for the constant step (γ − 6 L_cross)/(2 (L + …)²).

        T = 8 ((L(0) + 10 L_cross + 4β)/(γ(φ_0) − 6 L_cross))² log(sin φ_0 / ε).

    8 is derived: log(sin²φ_0/ε²) units of η(γ − 6 L_cross)/2. Theorem 6.3's text has the ratio
    upside down, `printed=True`: a harder problem would take fewer steps.

    Args:
      epsilon: ε in (0, sin φ_0).
      phi_0: φ_0 of the start.
      gamma, smoothness: γ(φ_0) and L(0), or γ and L over [0, φ_0] along the last axis.
      beta, cross: β and L_cross.
      constant: in place of 8 (of 1 where printed).
      printed: whether to take the ratio as printed.

    Raises:
      ValueError: γ ≤ 6 L_cross, φ_0 of π/2 or more, ε not below sin φ_0.

    Example:
      >>> round(iterations(0.01, np.pi / 6, gamma=0.25, smoothness=0.5, beta=0.125).value)
      501

    Reference: Du (2019), sections 6.2.1 and 6.3.
    """
    distance = _start(epsilon, phi_0)
    check_rates(gamma, smoothness, beta, cross)
    room = curvature(gamma, cross).value
    ratio = gradient_factor(smoothness, beta, cross).value / room
    factor = (1 if printed else 8) if constant is None else constant
    log = library(distance, epsilon).log((1 if printed else distance) / epsilon)
    return Bound(
        factor * (1 / ratio if printed else ratio) ** 2 * log,
        "T = 8 ((L(0) + 10 L_cross + 4β)/(γ(φ_0) − 6 L_cross))² log(sin φ_0 / ε)"
        if not printed
        else "T = ((γ(φ_0) − 6 L_cross)/(L(0) + 10 L_cross + 4β))² log(1/ε)",
        factor,
        source("after Theorem 6.3", "as printed" if printed else "corrected; 8 is derived"),
    )


def adaptive_iterations(
    epsilon: ArrayLike,
    phis: ArrayLike,
    gamma: ArrayLike,
    smoothness: ArrayLike,
    beta: ArrayLike,
    cross: ArrayLike = 0.0,
    *,
    printed: bool = False,
) -> Bound:
    """Compute T with ‖w_T − w*‖ ≤ ε ‖w*‖ for the adaptive step, the largest at each φ_t.

    Between two angles of the table it contracts at least as at the larger one, and one step may
    be cut in two by an angle:

        T = Σ_i (1 + 4/(η(φ_i) γ(φ_i)) log(sin φ_i / max(sin φ_{i−1}, ε))),  φ_i from arcsin ε up.

    `printed=True`: 8 max_φ ((L + …)/(γ − …))² log(sin φ_0/ε), with the 8 of `iterations`. Where
    η(φ) decreases with φ, its maximum is at φ_0, so that it improves on the constant step by
    L(φ_0) for L(0) alone; the sum shows what the adaptive step gains.

    Args:
      epsilon: ε in (0, sin φ_0).
      phis: angles increasing from 0 to φ_0, shape (g,).
      gamma, smoothness: γ and L at these angles, shape (g,).
      beta, cross: β and L_cross.
      printed: whether to take the maximum of the text.

    Raises:
      ValueError: γ ≤ 6 L_cross at an angle, φ_0 of π/2 or more, ε not below sin φ_0; angles that
        do not increase from 0.

    Example:
      >>> phis = np.linspace(0.0, np.pi / 6, 9)
      >>> gamma, smoothness = 0.5 - 0.3 * phis, 0.5 - 0.01 * phis
      >>> rates = (gamma, smoothness, 0.125)
      >>> round(adaptive_iterations(0.01, phis, *rates).value)
      165
      >>> round(iterations(0.01, np.pi / 6, *rates).value)
      266

    Reference: Du (2019), section 6.2.1.
    """
    angles: Any = np.asarray(phis, float) if checks.is_concrete(phis) else phis
    for values in (gamma, smoothness):
        check_table(angles, values)
    distance = _start(epsilon, angles[-1])
    check_rates(gamma, smoothness, beta, cross)
    xp = library(gamma, smoothness, angles, epsilon)
    gamma, smoothness = xp.asarray(gamma) * 1.0, xp.asarray(smoothness) * 1.0
    if printed:
        value = 4 * xp.max(1 / (step_ratio(gamma, smoothness, beta, cross) * (gamma - 6 * cross)))
        value = value * xp.log(distance / epsilon)
    else:
        lowest = _running_minimum(xp, gamma) - 6 * cross
        step = _running_minimum(xp, step_ratio(gamma, smoothness, beta, cross))
        ends = xp.maximum(xp.sin(angles), epsilon)
        logs = xp.log(ends[1:] / ends[:-1])
        value = xp.sum(xp.where(logs > 0, 1 + 4 / (step * lowest)[1:] * logs, 0.0))
    return Bound(
        value,
        "T = 8 max_φ ((L + 10 L_cross + 4β)/(γ − 6 L_cross))² log(sin φ_0 / ε)"
        if printed
        else "T = Σ_i (1 + 4/(η(φ_i) (γ(φ_i) − 6 L_cross)) log(sin φ_i / sin φ_{i−1}))",
        8 if printed else 4,
        source("section 6.2.1", "" if printed else "summed over angles, derived"),
    )


def _start(epsilon: ArrayLike, phi_0: ArrayLike) -> Any:
    """sin φ_0, for φ_0 below π/2 and ε below sin φ_0."""
    check(phi=phi_0)
    distance = library(phi_0).sin(real(phi_0))
    if checks.is_concrete(phi_0) and np.any(np.asarray(phi_0) >= np.pi / 2):
        raise ValueError(f"phi_0 is {phi_0}; expected less than π/2: ‖w_0 − w*‖ < ‖w*‖.")
    if checks.is_concrete(epsilon) and checks.is_concrete(distance):
        accuracy = np.asarray(epsilon, float)
        if not np.all((accuracy > 0) & (accuracy < np.asarray(distance))):
            raise ValueError(
                f"epsilon is {epsilon} and sin φ_0 {distance}; expected 0 < ε < sin φ_0: the start "
                "is as close already."
            )
    return distance


def _running_minimum(xp: Any, values: Any) -> Any:
    return xp.minimum.accumulate(values) if xp is np else jax.lax.cummin(values)
