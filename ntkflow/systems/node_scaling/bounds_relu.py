"""What Theorem A.1 asks and promises of gradient flow with ReLU, and Lemma E.3.

D_0 = √(2C² + 2/d) stands for the labels and the outputs at initialization; `second_moment` and
`curvature` of a `Setting` are not used. (a) and (b) are those of Theorem 4.1.
"""

from typing import Any

from jax.typing import ArrayLike

from ntkflow.systems.node_scaling.arguments import check, library, real, source
from ntkflow.systems.node_scaling.bounds import (
    Setting,
    check_setting,
    largest,
    over_nodes,
    quotient,
)
from ntkflow.systems.node_scaling.concentration import initial_width
from ntkflow.theory import Bound


def width_conditions_relu(setting: Setting, *, printed: bool = False) -> tuple[Bound, Bound, Bound]:
    """The three widths of Theorem A.1, all of which m must reach.

    2³ n log(4n/δ) / (κ_n d), 2²⁴ n⁴ D_0² / (κ_n⁴ d³ γ² δ⁵) and 2³⁴ n⁶ D_0² / (κ_n⁶ d⁵ γ² δ⁵). The
    proof's (8nD/dκ_n)² and (16²n²D/d²κ_n²)², D = 512 n D_0 / (γ δ^(5/2) κ_n √d), are these; the
    theorem prints 2²⁵ and 2³⁵, as if D_0² were not twice C² + 1/d. Both suffice for (a) to (d).

    Args:
      setting: n, d, γ, κ_n, C, δ.
      printed: with 2²⁵ and 2³⁵.

    Example:
      >>> conditions = width_conditions_relu(Setting(1, 1, 1.0, 0.5, 0.0, delta=0.5))
      >>> [f"{float(condition.value):.3g}" for condition in conditions]
      ['33.3', '1.72e+10', '7.04e+13']

    Reference: Caron et al. (2023), Theorem A.1 and appendix F.
    """
    check_setting(setting)
    n, scale = real(setting.n), setting.kappa * setting.d
    below = setting.gamma**2 * setting.delta**5
    power = 25 if printed else 24
    square = initial_scale_square(setting)
    second = quotient(2.0**power * n**4 * square * setting.d, scale**4 * below)
    third = quotient(2.0 ** (power + 10) * n**6 * square * setting.d, scale**6 * below)
    digits = ("²⁵", "³⁵") if printed else ("²⁴", "³⁴")
    note = "as printed" if printed else "2²⁴, 2³⁴ as in the proof; printed 2²⁵, 2³⁵"
    place = source("Theorem A.1", note)
    return (
        initial_width(setting, 0.25),
        Bound(second, f"m = 2{digits[0]} n⁴ D_0² / (κ_n⁴ d³ γ² δ⁵)", 1.0, place),
        Bound(third, f"m = 2{digits[1]} n⁶ D_0² / (κ_n⁶ d⁵ γ² δ⁵)", 1.0, place),
    )


def required_width_relu(setting: Setting, *, printed: bool = False) -> Bound:
    """The width of Theorem A.1, the largest of `width_conditions_relu`.

    Example:
      >>> f"{float(required_width_relu(Setting(1, 1, 1.0, 0.5, 0.0, delta=0.5)).value):.3g}"
      '7.04e+13'

    Reference: Caron et al. (2023), Theorem A.1.
    """
    return largest(width_conditions_relu(setting, printed=printed))


def weight_distance_relu(setting: Setting, scales: ArrayLike) -> Bound:
    """The bound on ‖w_j(t) − w_j(0)‖, 2³ n D_0 / (κ_n √d γ √δ) √λ_j.

    As the theorem states it; the proof confines the weights to half of it.

    Args:
      setting: n, d, γ, κ_n, C, δ.
      scales: λ_j.

    Example:
      >>> setting = Setting(2, 1, 0.5, 0.25, label_bound=1.0, delta=0.25)
      >>> float(weight_distance_relu(setting, 0.25).value)
      256.0

    Reference: Caron et al. (2023), Theorem A.1, (c).
    """
    check_setting(setting)
    check(scales=scales)
    lib = library(*setting, scales)
    root = lib.sqrt(initial_scale_square(setting) * scales / (setting.delta * setting.d))
    value = quotient(8 * real(setting.n) * root, setting.kappa * setting.gamma)
    formula = "2³ n D_0 / (κ_n √d γ √δ) √λ_j"
    return Bound(value, formula, 1.0, source("Theorem A.1, (c)"))


def gram_change_relu(setting: Setting, scales: ArrayLike) -> Bound:
    """The bound on ‖Θ(t) − Θ(0)‖ of the flow, which vanishes with Σ_j λ_j^(3/2).

    2⁹ n² D_0 / (κ_n d^(3/2) γ δ^(5/2)) Σ_j λ_j^(3/2)
    + 2⁶ n^(3/2) √D_0 / (κ_n^(1/2) d^(5/4) γ^(1/2) δ^(5/4)) √(Σ_j λ_j^(3/2)).

    Args:
      setting: n, d, γ, κ_n, C, δ.
      scales: λ, shape (..., m).

    Example:
      >>> import numpy as np
      >>> setting = Setting(1, 1, 1.0, 0.5, label_bound=1.0, delta=0.25)
      >>> float(gram_change_relu(setting, np.full(4, 0.25)).value)
      33280.0

    Reference: Caron et al. (2023), Theorem A.1, (d).
    """
    change = proof_radii_relu(setting, scales).value
    value = confined_gram_change_relu(setting, scales, change).value
    formula = (
        "2⁹ n² D_0 / (κ_n d^(3/2) γ δ^(5/2)) Σ_j λ_j^(3/2) + "
        "2⁶ n^(3/2) √D_0 / (κ_n^(1/2) d^(5/4) γ^(1/2) δ^(5/4)) √(Σ_j λ_j^(3/2))"
    )
    return Bound(value, formula, 1.0, source("Theorem A.1, (d)"))


def proof_radii_relu(setting: Setting, scales: ArrayLike) -> Bound:
    """c_j of Lemma E.3 in the proof of Theorem A.1, √λ_j D, D = 2⁹ n D_0 / (γ δ^(5/2) κ_n √d).

    Example:
      >>> setting = Setting(1, 1, 1.0, 0.5, label_bound=1.0, delta=0.25)
      >>> float(proof_radii_relu(setting, 0.25).value)
      32768.0

    Reference: Caron et al. (2023), appendix F.
    """
    value = 64 * weight_distance_relu(setting, scales).value / setting.delta**2
    formula = "c_j = √λ_j 2⁹ n D_0 / (γ δ^(5/2) κ_n √d)"
    return Bound(value, formula, 1.0, source("appendix F"))


def stable_radius_relu(setting: Setting, radii: ArrayLike) -> Bound:
    """R_j = δ²c_j/64: where R'_j < R_j for all j, the flow stays within R'_j for all times.

    Example:
      >>> stable_radius_relu(Setting(2, 1, 0.5, 0.25, delta=0.5), 1.0).value
      0.00390625

    Reference: Caron et al. (2023), Lemma E.3.
    """
    check_setting(setting)
    check(radii=radii)
    return Bound(setting.delta**2 * radii / 64, "R_j = δ²c_j/64", 1.0, source("Lemma E.3"))


def confined_width_conditions_relu(
    setting: Setting, radii: ArrayLike
) -> tuple[Bound, Bound, Bound]:
    """The three widths of Lemma E.3 for any c_j, shape (..., m).

    2³ n log(4n/δ) / (κ_n d), 8n Σ_j c_j / (d κ_n), 16² n² Σ_j c_j / (d² κ_n²).

    Example:
      >>> import numpy as np
      >>> setting = Setting(2, 1, 0.5, 0.25, delta=0.5)
      >>> conditions = confined_width_conditions_relu(setting, np.ones(8))
      >>> [round(float(condition.value), 3) for condition in conditions]
      [177.446, 512.0, 131072.0]

    Reference: Caron et al. (2023), Lemma E.3.
    """
    check_setting(setting)
    check(radii=radii)
    n, total, place = real(setting.n), over_nodes(radii), source("Lemma E.3")
    scale = setting.kappa * setting.d
    return (
        initial_width(setting, 0.25),
        Bound(quotient(8 * n * total, scale), "m = 8n Σ_j c_j / (d κ_n)", 1.0, place),
        Bound(quotient(256 * n**2 * total, scale**2), "m = 16² n² Σ_j c_j / (d² κ_n²)", 1.0, place),
    )


def confined_gram_change_relu(setting: Setting, scales: ArrayLike, radii: ArrayLike) -> Bound:
    """The bound on ‖Θ(t) − Θ(0)‖ in Lemma E.3, n/d Σ_j λ_j c_j + 2√2 n/d √(Σ_j λ_j c_j).

    The sum of Lemma E.2 over both parts of λ, which it bounds at once; shape of c_j: (..., m).

    Example:
      >>> import numpy as np
      >>> setting, scales = Setting(2, 1, 0.5, 0.25, delta=0.5), np.array([0.75, 0.25])
      >>> float(confined_gram_change_relu(setting, scales, np.full(2, 2.0)).value)
      12.0

    Reference: Caron et al. (2023), Lemma E.3, (d).
    """
    check_setting(setting)
    check(scales=scales, radii=radii)
    change = over_nodes(scales * radii)
    value = real(setting.n) / setting.d * (change + library(change).sqrt(8 * change))
    formula = "n/d Σ_j λ_j c_j + 2√2 n/d √(Σ_j λ_j c_j)"
    return Bound(value, formula, 1.0, source("Lemma E.3, (d)"))


def initial_scale_square(setting: Setting) -> Any:
    """D_0² = 2C² + 2/d: n D_0²/δ bounds ‖y − u_0‖² with probability 1 − δ/2."""
    return 2 * setting.label_bound**2 + 2 / real(setting.d)
