"""What Theorem 4.1 asks and promises of gradient flow with a smooth activation, and Lemma E.5.

|σ'| ≤ 1 and |σ''| ≤ M. (a) and (b) are those of ReLU too: `run_smallest_eigenvalue`, `loss_decay`.
"""

from jax.typing import ArrayLike

from ntkflow.systems.node_scaling.arguments import check, library, real, source
from ntkflow.systems.node_scaling.bounds import (
    Setting,
    check_setting,
    largest,
    output_square,
    over_nodes,
    quotient,
)
from ntkflow.systems.node_scaling.concentration import initial_width
from ntkflow.theory import Bound


def width_conditions(setting: Setting) -> tuple[Bound, Bound, Bound]:
    """The three widths of Theorem 4.1, all of which m must reach.

    2³ n log(2n/δ) / (κ_n d), 2¹⁰ n³ M² (C² + C_1) / (κ_n³ d³ γ² δ) and
    2¹⁵ n⁴ M² (C² + C_1) / (κ_n⁴ d⁴ γ² δ). The constants are those of the proof, and (a) to (d)
    follow from them: they are `confined_width_conditions` at `proof_radii`.

    Example:
      >>> setting = Setting(100, 50, 1.0, 5.885e-5, 4.0, 0.0050738, 0.5)  # swish, simulated data
      >>> [f"{float(condition.value):.2e}" for condition in width_conditions(setting)]
      ['2.07e+06', '1.61e+18', '1.75e+24']

    Reference: Caron et al. (2023), Theorem 4.1.
    """
    check_setting(setting)
    n, scale = real(setting.n), setting.kappa * setting.d
    above = setting.curvature**2 * output_square(setting)
    below = setting.gamma**2 * setting.delta
    place = source("Theorem 4.1")
    second = quotient(2**10 * n**3 * above, scale**3 * below)
    third = quotient(2**15 * n**4 * above, scale**4 * below)
    return (
        initial_width(setting, 0.5),
        Bound(second, "m = 2¹⁰ n³ M² (C² + C_1) / (κ_n³ d³ γ² δ)", 1.0, place),
        Bound(third, "m = 2¹⁵ n⁴ M² (C² + C_1) / (κ_n⁴ d⁴ γ² δ)", 1.0, place),
    )


def required_width(setting: Setting) -> Bound:
    """The width of Theorem 4.1, the largest of `width_conditions`.

    Example:
      >>> f"{float(required_width(Setting(1, 1, 1.0, 0.5, 0.0, 0.4)).value):.3g}"
      '2.1e+06'

    Reference: Caron et al. (2023), Theorem 4.1.
    """
    return largest(width_conditions(setting))


def weight_distance(setting: Setting, scales: ArrayLike) -> Bound:
    """The bound on ‖w_j(t) − w_j(0)‖, √λ_j n / (κ_n √d) √(2⁷ (C² + C_1) / (γ² δ)).

    As the theorem states it; the proof confines the weights to half of it, which is
    `node_distance` at the residual of `initial_error`. As the width grows it vanishes for γ = 1
    alone.

    Args:
      setting: n, d, γ, κ_n, C, C_1, δ.
      scales: λ_j.

    Example:
      >>> setting = Setting(2, 1, 0.5, 0.25, label_bound=1.0, delta=0.5)
      >>> float(weight_distance(setting, 0.25).value)
      128.0

    Reference: Caron et al. (2023), Theorem 4.1, (c).
    """
    check_setting(setting)
    check(scales=scales)
    lib = library(*setting, scales)
    above = real(setting.n) * lib.sqrt(2**7 * scales * output_square(setting) / setting.delta)
    value = quotient(above, setting.kappa * setting.gamma * lib.sqrt(real(setting.d)))
    formula = "√λ_j n / (κ_n √d) √(2⁷ (C² + C_1) / (γ² δ))"
    return Bound(value, formula, 1.0, source("Theorem 4.1, (c)"))


def gram_change(setting: Setting, scales: ArrayLike) -> Bound:
    """The bound on ‖Θ(t) − Θ(0)‖ of the flow, which vanishes with Σ_j λ_j².

    2⁷ n³ M² (C² + C_1) / (κ_n² d³ γ² δ) Σ_j λ_j² + 2⁵ n² M √(C² + C_1) / (κ_n d² γ √δ) √(Σ_j λ_j²).
    As the theorem states it; see `confined_gram_change` for what the proof gives.

    Args:
      setting: all of it.
      scales: λ, shape (..., m).

    Example:
      >>> import numpy as np
      >>> setting = Setting(2, 1, 0.5, 0.25, label_bound=1.0, delta=0.5)
      >>> round(float(gram_change(setting, np.array([0.75, 0.25])).value), 3)
      83064.867

    Reference: Caron et al. (2023), Theorem 4.1, (d).
    """
    check_setting(setting)
    check(scales=scales)
    n, d, square = real(setting.n), real(setting.d), output_square(setting)
    rate, powers = setting.kappa * setting.gamma, over_nodes(real(scales) ** 2)
    lib = library(*setting, scales)
    first = 2**7 * n**3 * setting.curvature**2 * square * powers / (d**3 * setting.delta)
    second = 2**5 * n**2 * setting.curvature * lib.sqrt(square * powers / setting.delta) / d**2
    value = quotient(first, rate**2) + quotient(second, rate)
    formula = (
        "2⁷ n³ M² (C² + C_1) / (κ_n² d³ γ² δ) Σ_j λ_j² + "
        "2⁵ n² M √(C² + C_1) / (κ_n d² γ √δ) √(Σ_j λ_j²)"
    )
    return Bound(value, formula, 1.0, source("Theorem 4.1, (d)"))


def proof_radii(setting: Setting, scales: ArrayLike) -> Bound:
    """c_j of Lemma E.5 in the proof of Theorem 4.1, √λ_j n √(2·64² (C² + C_1) / (γ² δ³ κ_n² d)).

    With it R_j = δc_j/8 is (c) of the theorem.

    Example:
      >>> setting = Setting(2, 1, 0.5, 0.25, label_bound=1.0, delta=0.5)
      >>> float(proof_radii(setting, 0.25).value)
      2048.0

    Reference: Caron et al. (2023), appendix G.
    """
    value = 8 * weight_distance(setting, scales).value / setting.delta
    formula = "c_j = √λ_j n √(2·64² (C² + C_1) / (γ² δ³ κ_n² d))"
    return Bound(value, formula, 1.0, source("appendix G"))


def stable_radius(setting: Setting, radii: ArrayLike) -> Bound:
    """R_j = δc_j/8: where R'_j < R_j for all j, the flow stays within R'_j for all times.

    R'_j is `node_distance` at λ_min = γκ_n/4.

    Example:
      >>> stable_radius(Setting(2, 1, 0.5, 0.25, delta=0.5), 1.0).value
      0.0625

    Reference: Caron et al. (2023), Lemma E.5.
    """
    check_setting(setting)
    check(radii=radii)
    return Bound(setting.delta * radii / 8, "R_j = δc_j/8", 1.0, source("Lemma E.5"))


def confined_width_conditions(setting: Setting, radii: ArrayLike) -> tuple[Bound, Bound, Bound]:
    """The three widths of Lemma E.5 for any c_j, shape (..., m).

    2³ n log(2n/δ) / (κ_n d), n M² δ² Σ_j c_j² / (8 d² κ_n), 4 n² M² δ² Σ_j c_j² / (d³ κ_n²).

    Example:
      >>> import numpy as np
      >>> conditions = confined_width_conditions(Setting(2, 1, 0.5, 0.25, delta=0.5), np.ones(8))
      >>> [round(float(condition.value), 3) for condition in conditions]
      [133.084, 2.0, 512.0]

    Reference: Caron et al. (2023), Lemma E.5.
    """
    check_setting(setting)
    check(radii=radii)
    n, d, place = real(setting.n), real(setting.d), source("Lemma E.5")
    square = over_nodes(radii**2) * (setting.curvature * setting.delta) ** 2
    second = quotient(n * square, 8 * d**2 * setting.kappa)
    third = quotient(4 * n**2 * square, d**3 * setting.kappa**2)
    return (
        initial_width(setting, 0.5),
        Bound(second, "m = n M² δ² Σ_j c_j² / (8 d² κ_n)", 1.0, place),
        Bound(third, "m = 4 n² M² δ² Σ_j c_j² / (d³ κ_n²)", 1.0, place),
    )


def confined_gram_change(setting: Setting, scales: ArrayLike, radii: ArrayLike) -> Bound:
    """The bound on ‖Θ(t) − Θ(0)‖ in Lemma E.5, for any c_j, shape (..., m).

    n M² δ² / 64d² Σ_j λ_j c_j² + n M δ / (2d)^(3/2) √(Σ_j λ_j c_j²): Lemma E.4 for both parts of λ.
    For λ itself, `gram_perturbation` at δc_j/4 has a second term smaller by √2.

    Example:
      >>> import numpy as np
      >>> setting, scales = Setting(2, 1, 0.5, 0.25, delta=0.5), np.array([0.75, 0.25])
      >>> float(confined_gram_change(setting, scales, 8 * np.sqrt(2) * np.ones(2)).value)
      5.0

    Reference: Caron et al. (2023), Lemma E.5, (d).
    """
    check_setting(setting)
    check(scales=scales, radii=radii)
    n, d, square = real(setting.n), real(setting.d), over_nodes(scales * radii**2)
    factor = setting.curvature * setting.delta
    root = library(scales, radii).sqrt(square)
    value = n * factor**2 / (64 * d**2) * square + n * factor / (2 * d) ** 1.5 * root
    formula = "nM²δ²/64d² Σ_j λ_j c_j² + nMδ/(2d)^(3/2) √(Σ_j λ_j c_j²)"
    return Bound(value, formula, 1.0, source("Lemma E.5, (d)"))
