"""Stochastic gradient descent on one filter: Theorem 6.4 of Du (2019), with its constants.

w_{t+1} = w_t − η g(w_t) with E g(w) = ∇ℓ(w) and ‖g(w)‖ ≤ B where ‖w − w*‖ ≤ r_1. There
⟨∇ℓ, w − w*⟩ ≥ κ‖w − w*‖² with κ = γ(φ_1) − 6 L_cross.
"""

from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.convolutional_filter.arguments import check, library, real, source
from ntkflow.systems.convolutional_filter.bounds import (
    check_rates,
    check_step_size,
    curvature,
)
from ntkflow.systems.convolutional_filter.curves import check_table
from ntkflow.theory import Bound, Inequality, inequality


class StochasticSetting(NamedTuple):
    """What Theorem 6.4 and its lemmas speak of; numbers, or arrays of one shape.

    Attributes:
      gamma: γ(φ_1), the smallest γ of [0, φ_1].
      smoothness: L(0), the largest L of [0, φ_1].
      beta, cross: β and L_cross.
      gradient_bound: B ≥ ‖g(w)‖, where ‖w − w*‖ ≤ r_1: `sampled_gradient_bound`.
      target_norm: ‖w*‖.
      initial_distance: r_0 = ‖w_0 − w*‖.
      radius: r_1 in (r_0, ‖w*‖): `middle_radius`, for φ_1 = (φ_0 + φ_*)/2.
      delta: δ, the probability of failure.
    """

    gamma: Any
    smoothness: Any
    beta: Any
    cross: Any
    gradient_bound: Any
    target_norm: Any
    initial_distance: Any
    radius: Any
    delta: Any


def largest_good_angle(phis: ArrayLike, gamma: ArrayLike, cross: ArrayLike = 0.0) -> Bound:
    """Compute φ_*, the largest angle of a table, π/2 at most, up to which γ(φ) ≥ 6 L_cross.

    The theorem prints argmax_φ γ(φ) ≥ 6 L_cross, which is the largest φ, not that of the largest γ.

    Args:
      phis: angles, increasing from 0, shape (g,).
      gamma: γ at these, shape (g,).
      cross: L_cross.

    Raises:
      ValueError: tables of different shapes, angles that do not increase from 0; γ below
        6 L_cross at the first angle.

    Example:
      >>> float(largest_good_angle([0.0, 0.5, 1.0], [0.5, 0.3, 0.1], cross=0.04).value)
      0.5

    Reference: Du (2019), Theorem 6.4.
    """
    check(phi=phis, gamma=gamma, cross=cross)
    check_table(phis, gamma)
    xp = library(phis, gamma, cross)
    angles: Any = xp.asarray(phis)
    values: Any = xp.asarray(gamma)
    good = xp.cumprod((values >= 6 * cross) & (angles <= np.pi / 2)) > 0
    if checks.is_concrete(good) and not np.asarray(good)[0]:
        raise ValueError(
            f"gamma is {values[0]} at the angle {angles[0]} and cross {cross}; expected "
            "γ ≥ 6 L_cross at the first angle at least: take patches closer to each other."
        )
    value = xp.max(xp.where(good, angles, 0))
    return Bound(value, "φ_* = max {φ : γ(φ) ≥ 6 L_cross}", 1, source("Theorem 6.4"))


def middle_radius(
    initial_distance: ArrayLike, phi_star: ArrayLike, target_norm: ArrayLike
) -> Bound:
    """Compute r_1 = ‖w*‖ sin φ_1 with φ_1 = (φ_0 + φ_*)/2, which stochastic steps must not leave.

    Args:
      initial_distance: r_0 < ‖w*‖ sin φ_*.
      phi_star: φ_*, of `largest_good_angle`.
      target_norm: ‖w*‖.

    Raises:
      ValueError: a start outside of ‖w*‖ sin φ_*, φ_* above π/2.

    Example:
      >>> round(float(middle_radius(0.5, np.pi / 2, 1.0).value), 4)
      0.866

    Reference: Du (2019), Theorem 6.4 and Lemma 6.2. Section 6.3.2 has cos φ_* for sin φ_*.
    """
    check(initial_distance=initial_distance, phi=phi_star, target_norm=target_norm)
    if checks.is_concrete(phi_star) and np.any(np.asarray(phi_star) > np.float32(np.pi / 2)):
        raise ValueError(f"phi_star is {phi_star}; expected at most π/2.")
    xp = library(initial_distance, phi_star, target_norm)
    largest = target_norm * xp.sin(real(phi_star))
    if _concrete(initial_distance, largest) and not np.all(np.less(initial_distance, largest)):
        raise ValueError(
            f"initial_distance is {initial_distance}; expected less than ‖w*‖ sin φ_*, "
            f"{largest}: `initialize_in_ball` draws such a start with constant probability."
        )
    phi_0 = xp.arcsin(real(initial_distance) / target_norm)
    return Bound(
        target_norm * xp.sin((phi_0 + phi_star) / 2),
        "r_1 = ‖w*‖ sin((φ_0 + φ_*)/2)",
        1,
        source("Theorem 6.4"),
    )


def sampled_gradient_bound(radius: ArrayLike, patch_norm: ArrayLike) -> Bound:
    """Compute B = r R², a bound on ‖g(w)‖ for ‖w − w*‖ ≤ r and patches of norm at most R.

    |f(w) − f(w*)| ≤ R‖w − w*‖ and ‖∂f‖ ≤ R, of every sample: it vanishes at w*, where the labels
    have no noise. The thesis takes B as given.

    Example:
      >>> sampled_gradient_bound(radius=0.5, patch_norm=2.0).value
      2.0

    Reference: derived; Du (2019), after (6.2).
    """
    check(radius=radius, patch_norm=patch_norm)
    return Bound(radius * real(patch_norm) ** 2, "B = r R²", 1, source("after (6.2)", "derived"))


def stochastic_step_size(
    setting: StochasticSetting,
    epsilon: ArrayLike,
    *,
    constant: ArrayLike = 1.0,
    printed: bool = False,
) -> Bound:
    """Compute a step with which stochastic descent reaches ε‖w*‖ with probability at least 1 − δ.

        η = 3 ε² κ ‖w*‖² / (B² (4 + 8 log(2/δ))).

    Derived (see `failure_probability`). Theorem 6.4 prints Θ(ε² κ² ‖w*‖²/B²), `printed=True`:
    with κ², its T does not do, since ηκT must be a logarithm; and no η that does not know δ will:
    at any fixed η the last iterate is outside of ε‖w*‖ with some fixed probability.

    Args:
      setting: of the run.
      epsilon: ε > 0.
      constant: for Θ; larger than 1 the derived step is not covered by the proof.
      printed: whether to take the theorem's own.

    Raises:
      ValueError: γ(φ_1) ≤ 6 L_cross, L < γ, r_0 ≥ r_1 or r_1 ≥ ‖w*‖; ε, δ or B out of range.

    Example:
      >>> setting = StochasticSetting(0.1, 0.25, 0.16, 0.0, 0.75, 1.0, 0.5, 0.87, delta=0.2)
      >>> round(float(stochastic_step_size(setting, 0.3).value), 6)
      0.002141

    Reference: Du (2019), Theorem 6.4.
    """
    kappa = check_setting(setting, epsilon)
    reach = (epsilon * real(setting.target_norm) / setting.gradient_bound) ** 2
    if printed:
        value, formula = kappa**2 * reach, "η = ε² (γ(φ_1) − 6 L_cross)² ‖w*‖² / B²"
    else:
        log = library(setting.delta).log(2 / setting.delta)
        value = 3 * kappa * reach / (4 + 8 * log)
        formula = "η = 3 ε² (γ(φ_1) − 6 L_cross) ‖w*‖² / (B² (4 + 8 log(2/δ)))"
    note = "as printed" if printed else "corrected; the constants are derived"
    return Bound(constant * value, formula, constant, source("Theorem 6.4", note))


def stochastic_iterations(
    setting: StochasticSetting,
    epsilon: ArrayLike,
    *,
    constant: ArrayLike = 1.0,
    printed: bool = False,
) -> Bound:
    """Compute T for the step of `stochastic_step_size`.

        T = log(4 r_0² / (ε²‖w*‖²)) / (ηκ) = O(B² log(1/δ) log(r_0/(ε‖w*‖)) / (ε² κ² ‖w*‖²)).

    `printed=True`: B²/(ε² κ² ‖w*‖²) · log(r_0/(εδ‖w*‖)).

    Args, Raises: as for `stochastic_step_size`; and a start that is within ε‖w*‖/2.

    Example:
      >>> setting = StochasticSetting(0.1, 0.25, 0.16, 0.0, 0.75, 1.0, 0.5, 0.87, delta=0.2)
      >>> round(stochastic_iterations(setting, 0.3).value)
      11247

    Reference: Du (2019), Theorem 6.4.
    """
    kappa = check_setting(setting, epsilon)
    ratio = setting.initial_distance / (epsilon * real(setting.target_norm))
    if checks.is_concrete(ratio) and np.any(np.asarray(ratio) <= 0.5):
        raise ValueError(f"epsilon is {epsilon}; expected ε‖w*‖ < 2 r_0: there is nothing to do.")
    log = library(ratio, setting.delta).log
    if printed:
        scale = (setting.gradient_bound / (epsilon * kappa * real(setting.target_norm))) ** 2
        value = scale * log(ratio / setting.delta)
        formula = "T = B²/(ε² (γ(φ_1) − 6 L_cross)² ‖w*‖²) log(r_0/(εδ‖w*‖))"
    else:
        value = log(4 * ratio**2) / (stochastic_step_size(setting, epsilon).value * kappa)
        formula = "T = log(4 r_0²/(ε²‖w*‖²)) / (η (γ(φ_1) − 6 L_cross))"
    note = "as printed" if printed else "corrected; the constants are derived"
    return Bound(constant * value, formula, constant, source("Theorem 6.4", note))


def failure_probability(
    setting: StochasticSetting, step_size: ArrayLike, steps: ArrayLike, epsilon: ArrayLike
) -> Bound:
    """Bound P[‖w_T − w*‖ > ε‖w*‖, or ‖w_t − w*‖ > r_1 at some t ≤ T] for any η and T.

        exp(−(ε²‖w*‖² − q^T r_0² − m)/2m) + T exp(−(r_1² − r_0² − m)/2m),  m = ηB²/κ, q = 1 − ηκ.

    With D = ‖w − w*‖², D' ≤ D − 2η⟨g, w − w*⟩ + η²B², where the product is between ∓B√D and has a
    mean of at least κD. Hoeffding's lemma gives E exp(λD') ≤ exp(λ(qD + η²B²)) for
    λ ≤ κ/(2ηB²) = 1/2m, hence E exp(D_t/2m) ≤ exp((q^t r_0² + m)/2m) as long as w stays within
    r_1; then Markov, and a sum over t for leaving. No M is needed. Markov's inequality for D
    itself, as in Lemma 6.3, leaves m/(ε²‖w*‖²), which is no δ.

    Args:
      setting: of the run; its δ is not used.
      step_size: η ≤ 1/κ.
      steps: T.
      epsilon: ε.

    Returns:
      The bound, at most 1.

    Raises:
      ValueError: η above 1/κ; what `stochastic_step_size` refuses.

    Example:
      >>> setting = StochasticSetting(0.1, 0.25, 0.16, 0.0, 0.75, 1.0, 0.5, 0.87, delta=0.2)
      >>> round(float(failure_probability(setting, 0.002141, 11248, 0.3).value), 3)
      0.1

    Reference: derived; in place of the proofs of Du (2019), Lemmas 6.2 and 6.3.
    """
    kappa = check_setting(setting, epsilon)
    check(step_size=step_size, steps=steps)
    check_step_size(step_size, 1 / kappa, "6.4")
    xp = library(*setting, step_size, steps, epsilon)
    noise: Any = step_size * setting.gradient_bound**2 / kappa
    rate = xp.minimum(kappa * step_size, 1 - 1e-7)  # at 1 the logarithm is infinite
    left = xp.exp(real(steps) * xp.log1p(-rate)) * setting.initial_distance**2
    reach = (epsilon * setting.target_norm) ** 2
    far = xp.exp(xp.minimum((left + noise - reach) / (2 * noise), 0.0))
    room = setting.radius**2 - setting.initial_distance**2 - noise
    away = xp.exp(xp.minimum(xp.log(real(steps)) - room / (2 * noise), 0.0))
    return Bound(
        xp.minimum(far + away, 1.0),
        "exp(−(ε²‖w*‖² − q^T r_0² − m)/2m) + T exp(−(r_1² − r_0² − m)/2m)",
        1,
        source("Lemma 6.3", "derived, in its place"),
    )


def stochastic_conditions(
    setting: StochasticSetting, step_size: ArrayLike, steps: ArrayLike, epsilon: ArrayLike
) -> tuple[Inequality, ...]:
    """Hold a step and a number of steps against what Theorem 6.4, corrected, asks for.

    With m = ηB²/κ: η of `stochastic_step_size` at most, ηκ ≤ 1, T long enough, and "ε
    sufficiently small" in numbers, r_0² + m (1 + 2 log(2T/δ)) ≤ r_1². Together they make
    `failure_probability` at most δ.

    Args:
      setting, epsilon: as for `stochastic_step_size`.
      step_size, steps: η and T.

    Example:
      >>> setting = StochasticSetting(0.1, 0.25, 0.16, 0.0, 0.75, 1.0, 0.5, 0.87, delta=0.2)
      >>> [bool(row.holds) for row in stochastic_conditions(setting, 0.002, 20_000, 0.3)]
      [True, True, True, True]

    Reference: Du (2019), Theorem 6.4.
    """
    kappa = check_setting(setting, epsilon)
    check(step_size=step_size, steps=steps)
    noise = step_size * setting.gradient_bound**2 / kappa
    place = source("Theorem 6.4", "corrected")
    reach = (epsilon * setting.target_norm) ** 2
    with np.errstate(divide="ignore"):  # of a start at w*
        start = np.log(4 * setting.initial_distance**2 / reach)
    return (
        inequality(
            "η ≤ 3 ε² κ ‖w*‖² / (B² (4 + 8 log(2/δ)))",
            place,
            step_size,
            stochastic_step_size(setting, epsilon).value,
        ),
        inequality("ηκ ≤ 1", place, step_size * kappa, 1.0),
        inequality(
            "log(4 r_0²/(ε²‖w*‖²)) ≤ ηκT",
            place,
            start,
            step_size * kappa * steps,
        ),
        inequality(
            "r_0² + (1 + 2 log(2T/δ)) ηB²/κ ≤ r_1²",
            place,
            setting.initial_distance**2 + noise * (1 + 2 * np.log(2 * steps / setting.delta)),
            setting.radius**2,
        ),
    )


def check_setting(setting: StochasticSetting, epsilon: ArrayLike) -> Any:
    """Refuse a setting that the theorem does not speak of; κ."""
    check(**setting._asdict())
    inner, outer, norm = setting.initial_distance, setting.radius, setting.target_norm
    if _concrete(inner, outer, norm) and not np.all(np.less(inner, outer) & np.less(outer, norm)):
        raise ValueError(
            f"initial_distance is {inner}, radius {outer} and target_norm {norm}; expected "
            "r_0 < r_1 < ‖w*‖: `middle_radius` gives the theorem's r_1."
        )
    if checks.is_concrete(epsilon) and not np.all(np.asarray(epsilon) > 0):
        raise ValueError(f"epsilon is {epsilon}; expected greater than 0.")
    bound = setting.gradient_bound
    if checks.is_concrete(bound) and not np.all(np.greater(bound, 0) & np.isfinite(bound)):
        raise ValueError(f"gradient_bound is {bound}; expected a finite number greater than 0.")
    check_rates(setting.gamma, setting.smoothness, setting.beta, setting.cross)
    return curvature(setting.gamma, setting.cross).value


def _concrete(*values: ArrayLike) -> bool:
    return all(checks.is_concrete(value) for value in values)
