"""Song et al. (2021), appendix E.4 to E.6: ν_Φ, β_Φ and h(Θ_0) of the network at initialization.

Throughout: `phi` is `constants(activation, scale=omega1)`, the numbers of z ↦ φ(ω₁z), and with
`printed=True` `constants(activation)`.
"""

import math

from jax.typing import ArrayLike

from ntkflow.systems.composite.bounds import descent_length
from ntkflow.systems.composite.constants import LossConstants, NearIsometry
from ntkflow.systems.shallow_smooth.arguments import check, library, real, source
from ntkflow.systems.shallow_smooth.bounds import (
    feature_largest_singular_value,
    feature_smallest_singular_value,
)
from ntkflow.systems.shallow_smooth.setting import (
    SLACK,
    DataConstants,
    Slack,
    check_data,
    check_setting,
    check_slack,
)
from ntkflow.systems.shallow_smooth.spectra import ActivationConstants
from ntkflow.theory import Bound

SQUARED_SUM = LossConstants(pl=2.0, smoothness=2.0)  # α_f = β_f = 2 of (16)


def initial_output_norm(d_1: ArrayLike, d_2: ArrayLike, omega2: ArrayLike) -> Bound:
    """The bound on σ_max(V_0), ω₂ (2√d_1 + √d_2); it fails with `output_norm_failure`, p_4.

    Example:
      >>> round(float(initial_output_norm(d_1=100, d_2=4, omega2=0.1).value), 3)
      2.2

    Reference: Song et al. (2021), (69).
    """
    check(d_1=d_1, d_2=d_2, omega2=omega2)
    value = omega2 * (2 * real(d_1) ** 0.5 + real(d_2) ** 0.5)
    return Bound(value, "ω₂ (2√d_1 + √d_2)", 1.0, source("(69)"))


def tangent_largest_singular_value(
    phi: ActivationConstants,
    data: DataConstants,
    d_1: ArrayLike,
    d_2: ArrayLike,
    omega2: ArrayLike,
    *,
    slack: Slack = SLACK,
    omega1: ArrayLike = 1.0,
    printed: bool = False,
) -> Bound:
    """The bound on ν_Φ, φ'_max σ_max(X) ω₂ (2√d_1 + √d_2) + that on σ_max(φ(W_0X)).

    (76) has ω₂ √d_1 for the bound (69) on σ_max(V_0), of the same order and too small: σ_max(V_0)
    is some ω₂ (√d_1 + √d_2).

    Args, Raises: as for `feature_largest_singular_value`.

    Example:
      >>> from ntkflow.systems.shallow_smooth.network import gelu
      >>> from ntkflow.systems.shallow_smooth.spectra import constants
      >>> data = DataConstants(n=20, d_0=10, norm=2.0, power=0.5, t=2)
      >>> bound = tangent_largest_singular_value(constants(gelu), data, 100, 1, omega2=0.1)
      >>> round(float(bound.value), 3)
      34.593

    Reference: Song et al. (2021), appendix E.4 and (76).
    """
    features = feature_largest_singular_value(
        phi, data, d_1, slack=slack, omega1=omega1, printed=printed
    ).value
    outputs = initial_output_norm(d_1, d_2, omega2).value
    if printed:
        outputs = omega2 * real(d_1) ** 0.5
    value = phi.slope * real(data.norm) * outputs + features
    formula = "φ'_max σ_max(X) ω₂ (2√d_1 + √d_2) + σ_max(φ(W_0X))"
    formula = formula.replace("(2√d_1 + √d_2)", "√d_1") if printed else formula
    note = "as printed" if printed else "σ_max(V_0) of (69)"
    return Bound(value, formula, 1.0, source("(76)", note))


def smoothness(
    phi: ActivationConstants, data: DataConstants, largest_output_norm: ArrayLike
) -> Bound:
    """β_Φ = √2 σ_max(X) (φ'_max + φ''_max χ) for inputs of norm 1, χ = sup ‖V‖ where Φ is needed.

    Example:
      >>> from ntkflow.systems.shallow_smooth.network import gelu
      >>> from ntkflow.systems.shallow_smooth.spectra import constants
      >>> data = DataConstants(n=20, d_0=10, norm=2.0, power=0.5, t=2)
      >>> round(float(smoothness(constants(gelu), data, largest_output_norm=1.0).value), 4)
      5.4498

    Reference: Song et al. (2021), (18) and (46).
    """
    check_setting(phi, data)
    check(largest_output_norm=largest_output_norm)
    bend = phi.curvature * largest_output_norm if phi.curvature else 0.0  # no 0·∞
    value = math.sqrt(2) * real(data.norm) * (phi.slope + bend)
    return Bound(value, "√2 σ_max(X) (φ'_max + φ''_max χ)", 1.0, source("(46)"))


def trajectory_output_norm(
    near: NearIsometry, initial_loss: ArrayLike, initial_output_norm: ArrayLike
) -> Bound:
    """The bound on χ = sup_k ‖V_k‖ along descent that Theorem 2 covers: ‖V_0‖ + its length.

    The length is at most 12√2 ν √h(Θ_0) / (√2 μ²), `composite.descent_length`. With it Assumption 2
    needs nothing of ‖V_k‖: where (9) holds, that length is at most ρ_Φ, and the proof uses β_Φ on
    the ball of that radius alone.

    Args:
      near: μ, ν; its smoothness is not read.
      initial_loss: h(Θ_0), or a bound.
      initial_output_norm: ‖V_0‖, or a bound.

    Example:
      >>> near = NearIsometry(mu=2.0, nu=5.0, smoothness=0.0)
      >>> round(float(trajectory_output_norm(near, 0.01, 1.0).value), 4)
      2.5

    Reference: Song et al. (2021), (81).
    """
    check(initial_loss=initial_loss, initial_output_norm=initial_output_norm)
    length = descent_length(near._replace(smoothness=0.0), SQUARED_SUM, initial_loss)
    formula = "‖V_0‖ + 12√2 ν √h(Θ_0) / (√α_f μ²)"
    place = source("(81)", "constant derived from (33)")
    return Bound(initial_output_norm + length.value, formula, length.constant, place)


def initial_loss(
    phi: ActivationConstants,
    data: DataConstants,
    d_1: ArrayLike,
    d_2: ArrayLike,
    omega1: ArrayLike,
    omega2: ArrayLike,
    *,
    slack: Slack = SLACK,
    printed: bool = False,
) -> Bound:
    """The bound on h(Θ_0) under (60), (u + ‖Y‖)², which fails with `initial_output_failure`, p_5.

    u = δ₃ ω₁ω₂ φ'_max k₁k₂ √(d_0 d_1 d_2) σ_max(X) log d_1 bounds ‖V_0φ(W_0X)‖. Printed, u² + ‖Y‖²:
    the 2 of (70) is lost on the way.

    Args:
      phi: its slope alone is read.
      data: σ_max(X), d_0 and ‖Y‖.
      d_1, d_2: width and outputs; log d_1 is 0 for d_1 = 1, where (60) never holds.
      omega1, omega2: deviations of the weights.
      slack: δ₃, k₁ and k₂.

    Example:
      >>> from ntkflow.systems.shallow_smooth.network import gelu
      >>> from ntkflow.systems.shallow_smooth.spectra import constants
      >>> data = DataConstants(n=20, d_0=10, norm=2.0, power=0.5, t=2)
      >>> round(float(initial_loss(constants(gelu), data, 100, 1, 0.1, 0.01).value), 2)
      24.46

    Reference: Song et al. (2021), (70) to (73).
    """
    check_setting(phi, data)
    check_slack(slack)
    check(d_1=d_1, d_2=d_2, omega1=omega1, omega2=omega2)
    log = library(d_1).log(real(d_1))
    u = slack.delta_3 * omega1 * omega2 * phi.slope * slack.k_1 * slack.k_2
    u = u * (real(data.d_0) * d_1 * d_2) ** 0.5 * data.norm * log
    return _loss_bound(u, data, "(73)", printed)


def initial_loss_of_small_scales(
    data: DataConstants, d_2: ArrayLike, *, slack: Slack = SLACK, printed: bool = False
) -> Bound:
    """The same where ω₁ω₂ ≤ 1/(φ'_max √(d_0 d_1) log d_1), (74): u = δ₃ k₁k₂ √d_2 σ_max(X).

    Printed, δ₃² k₁²k₂² σ_max²(X): without d_2, though (74) does not cancel it, and without ‖Y‖².

    Example:
      >>> data = DataConstants(n=20, d_0=10, norm=2.0, power=0.5, t=2)
      >>> initial_loss_of_small_scales(data, d_2=1).value
      625.0
      >>> initial_loss_of_small_scales(data, d_2=1, printed=True).value
      576.0

    Reference: Song et al. (2021), (75).
    """
    check_data(data)
    check_slack(slack)
    check(d_2=d_2)
    u = slack.delta_3 * slack.k_1 * slack.k_2 * real(data.norm)
    if printed:
        return Bound(u**2, "δ₃² k₁²k₂² σ_max²(X)", 1.0, source("(75)", "as printed"))
    return _loss_bound(u * real(d_2) ** 0.5, data, "(75)", printed)


def near_isometry_bound(
    phi: ActivationConstants,
    data: DataConstants,
    d_1: ArrayLike,
    d_2: ArrayLike,
    omega2: ArrayLike,
    *,
    initial_loss: ArrayLike | None = None,
    largest_output_norm: ArrayLike | None = None,
    slack: Slack = SLACK,
) -> NearIsometry:
    """μ, ν and β_Φ from the bounds above, for the theorems of `composite`.

    Args:
      initial_loss: h(Θ_0), or a bound, from which χ = sup ‖V_k‖ is bounded by (81).
      largest_output_norm: χ itself, as Assumption 2 gives it; one of the two.

    Raises:
      ValueError: neither or both of `initial_loss` and `largest_output_norm`; as for the bounds.

    Example:
      >>> from ntkflow.systems.shallow_smooth.network import gelu
      >>> from ntkflow.systems.shallow_smooth.spectra import constants
      >>> data = DataConstants(n=20, d_0=10, norm=2.0, power=0.5, t=2)
      >>> near = near_isometry_bound(constants(gelu), data, 100, 1, 0.1, largest_output_norm=1.0)
      >>> [round(float(number), 3) for number in near]
      [1.058, 34.593, 5.45]

    Reference: Song et al. (2021), (76).
    """
    mu = feature_smallest_singular_value(phi, data, d_1, slack=slack).value
    nu = tangent_largest_singular_value(phi, data, d_1, d_2, omega2, slack=slack).value
    if largest_output_norm is not None and initial_loss is None:
        chi = largest_output_norm
    elif initial_loss is not None and largest_output_norm is None:
        start = initial_output_norm(d_1, d_2, omega2).value
        chi = trajectory_output_norm(NearIsometry(mu, nu, 0.0), initial_loss, start).value
    else:
        raise ValueError(
            "Of initial_loss and largest_output_norm expected one, and got "
            f"{'neither' if initial_loss is None else 'both'}: the first bounds sup ‖V_k‖ by "
            "(81), the second is that number."
        )
    return NearIsometry(mu, nu, smoothness(phi, data, chi).value)


def _loss_bound(u: ArrayLike, data: DataConstants, place: str, printed: bool) -> Bound:
    if printed:
        value = u**2 + real(data.label_norm) ** 2
        return Bound(value, "u² + ‖Y‖²", 1.0, source(place, "as printed"))
    value = (u + real(data.label_norm)) ** 2
    return Bound(value, "(u + ‖Y‖)²", 1.0, source(place, "triangle inequality for (70)"))
