"""What Theorem H.1 asks and promises of gradient descent with a smooth activation, step by step.

η is the step size for the loss ½ Σ_i (f(x_i) − y_i)²; for the mean over n samples, as in the
paper's released code, a learning rate of 1 is η = 2/n.
"""

from typing import Any

from jax.typing import ArrayLike

from ntkflow.systems.node_scaling.arguments import check, library, real, source
from ntkflow.systems.node_scaling.bounds import (
    Setting,
    check_setting,
    gradient_norm,
    initial_error,
    largest,
    output_square,
    quotient,
)
from ntkflow.systems.node_scaling.concentration import initial_width
from ntkflow.theory import Bound


def step_size_conditions(setting: Setting) -> tuple[Bound, Bound, Bound]:
    """The three step sizes of Theorem H.1, below all of which η must be.

    2 / (γκ_n), γκ_n d² / 8n², γκ_n d² √δ / (2^(9/2) n² M √(C² + C_1)).

    Example:
      >>> setting = Setting(100, 50, 1.0, 5.885e-5, 4.0, 0.0050738, 0.5)  # swish, simulated data
      >>> [f"{float(condition.value):.2g}" for condition in step_size_conditions(setting)]
      ['3.4e+04', '1.8e-06', '1e-07']

    Reference: Caron et al. (2023), Theorem H.1.
    """
    check_setting(setting)
    n, rate, place = real(setting.n), setting.gamma * setting.kappa, source("Theorem H.1")
    scale, lib = rate * real(setting.d) ** 2 / n**2, library(*setting)
    above = scale * lib.sqrt(setting.delta / 2**9)
    third = quotient(above, setting.curvature * lib.sqrt(output_square(setting)))
    return (
        Bound(quotient(2.0, rate), "η = 2 / (γκ_n)", 1.0, place),
        Bound(scale / 8, "η = γκ_n d² / 8n²", 1.0, place),
        Bound(third, "η = γκ_n d² √δ / (2^(9/2) n² M √(C² + C_1))", 1.0, place),
    )


def largest_step_size(setting: Setting) -> Bound:
    """The step size of Theorem H.1, below which η must be: the smallest of `step_size_conditions`.

    It is O(γκ_n / n²), far below what networks are trained with.

    Example:
      >>> setting = Setting(100, 50, 1.0, 5.885e-5, 4.0, 0.0050738, 0.5)
      >>> f"{float(largest_step_size(setting).value):.2g}"
      '1e-07'

    Reference: Caron et al. (2023), Theorem H.1.
    """
    first, second, third = step_size_conditions(setting)
    lib = library(first.value, second.value, third.value)
    value = lib.minimum(lib.minimum(first.value, second.value), third.value)
    terms = ", ".join(bound.formula.removeprefix("η = ") for bound in (first, second, third))
    return Bound(value, f"η = min({terms})", 1.0, first.source)


def width_conditions_descent(setting: Setting, step_size: ArrayLike) -> tuple[Bound, Bound, Bound]:
    """The three widths of Theorem H.1, with β = √(1 − ηγκ_n/2).

    2³ n log(2n/δ) / (κ_n d), 2⁵ η² n³ M² (C² + C_1) / (κ_n d³ (1−β)² δ) and
    2¹¹ η² n⁴ M² (C² + C_1) / (κ_n² d⁴ (1−β)² δ). As η → 0 they tend to ½ and 1 of Theorem 4.1's.

    Args:
      setting: all of it.
      step_size: η, at most 2/(γκ_n).

    Example:
      >>> conditions = width_conditions_descent(Setting(1, 1, 1.0, 0.5, 1.0), 1e-4)
      >>> [f"{float(condition.value):.3g}" for condition in conditions]
      ['47.9', '4.1e+04', '5.24e+06']

    Reference: Caron et al. (2023), Theorem H.1.
    """
    check_setting(setting)
    check(step_size=step_size)
    n, d, place = real(setting.n), real(setting.d), source("Theorem H.1")
    common = (step_size * setting.curvature) ** 2 * output_square(setting) / setting.delta
    below = setting.kappa * _one_minus_beta(setting, step_size) ** 2
    second = quotient(2**5 * n**3 * common, below * d**3)
    third = quotient(2**11 * n**4 * common, below * setting.kappa * d**4)
    return (
        initial_width(setting, 0.5),
        Bound(second, "m = 2⁵ η² n³ M² (C² + C_1) / (κ_n d³ (1−β)² δ)", 1.0, place),
        Bound(third, "m = 2¹¹ η² n⁴ M² (C² + C_1) / (κ_n² d⁴ (1−β)² δ)", 1.0, place),
    )


def required_width_descent(setting: Setting, step_size: ArrayLike) -> Bound:
    """The width of Theorem H.1, the largest of `width_conditions_descent`.

    Example:
      >>> f"{float(required_width_descent(Setting(1, 1, 1.0, 0.5, 1.0), 1e-4).value):.3g}"
      '5.24e+06'

    Reference: Caron et al. (2023), Theorem H.1.
    """
    return largest(width_conditions_descent(setting, step_size))


def error_decay_descent(steps: ArrayLike, setting: Setting, step_size: ArrayLike) -> Bound:
    """The bound on ‖y − u_s‖² / ‖y − u_0‖², (1 − ηγκ_n/2)^s.

    Example:
      >>> round(float(error_decay_descent(2, Setting(10, 5, 0.5, 0.8), 0.5).value), 4)
      0.81

    Reference: Caron et al. (2023), Theorem H.1, equation (27).
    """
    check_setting(setting)
    check(step_size=step_size)
    base = 1 - step_size * setting.gamma * setting.kappa / 2
    value = library(steps, base).power(base, real(steps))
    return Bound(value, "(1 − ηγκ_n/2)^s", 1.0, source("Theorem H.1, equation (27)"))


def descent_smallest_eigenvalue(setting: Setting) -> Bound:
    """What λ_min(Θ) is at least along gradient descent, 3γκ_n / 8.

    Example:
      >>> round(descent_smallest_eigenvalue(Setting(10, 5, gamma=0.5, kappa=0.08)).value, 6)
      0.015

    Reference: Caron et al. (2023), appendix H.1.
    """
    check_setting(setting)
    value = 3 * setting.gamma * setting.kappa / 8
    return Bound(value, "3γκ_n / 8", 1.0, source("appendix H.1"))


def weight_distance_descent(setting: Setting, scales: ArrayLike, step_size: ArrayLike) -> Bound:
    """The bound on ‖w_j(s) − w_j(0)‖, c_j/2 with c_j = η n / (1−β) √(8 λ_j (C² + C_1) / (δ d)).

    Example:
      >>> setting = Setting(1, 1, 1.0, 0.5, label_bound=1.0, delta=0.5)
      >>> round(float(weight_distance_descent(setting, 0.25, 1e-4).value), 3)
      8.0

    Reference: Caron et al. (2023), appendix H.3.
    """
    check_setting(setting)
    check(scales=scales, step_size=step_size)
    lib = library(*setting, scales, step_size)
    norm = lib.sqrt(initial_error(setting).value)
    step = step_size * gradient_norm(setting.n, setting.d, scales, norm).value
    value = quotient(step, _one_minus_beta(setting, step_size))
    formula = "c_j/2, c_j = η n / (1−β) √(8 λ_j (C² + C_1) / (δ d))"
    return Bound(value, formula, 1.0, source("appendix H.3"))


def squared_change(
    n: ArrayLike,
    d: ArrayLike,
    step_size: ArrayLike,
    residual_norm: ArrayLike,
    *,
    slope: ArrayLike = 1.0,
) -> Bound:
    """The bound on ‖u_{s+1} − u_s‖² in one step, η² n² L⁴ / d² ‖y − u_s‖², for any Lipschitz σ.

    Example:
      >>> squared_change(4, 2, 0.5, 2.0).value
      4.0

    Reference: Caron et al. (2023), proof of Lemma H.3.
    """
    check(n=n, d=d, step_size=step_size, residual_norm=residual_norm, slope=slope)
    value = (step_size * real(n) * slope**2 / d * residual_norm) ** 2
    place = source("Lemma H.3, proof", "L is 1 there")
    return Bound(value, "η² n² L⁴ / d² ‖y − u_s‖²", 1.0, place)


def euler_error(
    n: ArrayLike,
    d: ArrayLike,
    step_size: ArrayLike,
    residual_norm: ArrayLike,
    curvature: ArrayLike,
    *,
    slope: ArrayLike = 1.0,
) -> Bound:
    """The bound on ‖u_{s+1} − u_s − ηΘ(s)(y − u_s)‖ in one step, η² M L² n^(3/2) / d² ‖y − u_s‖².

    Example:
      >>> euler_error(4, 2, 0.5, 2.0, 1.0).value
      2.0

    Reference: Caron et al. (2023), proof of Lemma H.3, the norm of I_2.
    """
    check(n=n, d=d, step_size=step_size, residual_norm=residual_norm)
    check(curvature=curvature, slope=slope)
    value = curvature * real(n) ** 1.5 * (step_size * slope * residual_norm / d) ** 2
    place = source("Lemma H.3, proof", "L is 1 there")
    return Bound(value, "η² M L² n^(3/2) / d² ‖y − u_s‖²", 1.0, place)


def contraction_factor(
    n: ArrayLike,
    d: ArrayLike,
    step_size: ArrayLike,
    smallest_eigenvalue: ArrayLike,
    residual_norm: ArrayLike,
    curvature: ArrayLike,
    *,
    slope: ArrayLike = 1.0,
) -> Bound:
    """The bound on ‖y − u_{s+1}‖² / ‖y − u_s‖² in one step from any weights, for ‖x_i‖ ≤ 1.

    1 − 2η λ_min(Θ(s)) + 2η² M L² n^(3/2) / d² ‖y − u_s‖ + η² n² L⁴ / d².

    Args:
      n, d: samples and features.
      step_size: η.
      smallest_eigenvalue: λ_min(Θ(s)).
      residual_norm: ‖y − u_s‖.
      curvature: M = sup |σ''|.
      slope: L = sup |σ'|, which the paper takes to be 1.

    Example:
      >>> contraction_factor(4, 2, 0.125, 1.0, 1.0, 1.0).value
      0.875

    Reference: Caron et al. (2023), Lemma H.3.
    """
    check(smallest_eigenvalue=smallest_eigenvalue)
    error = euler_error(n, d, step_size, 1.0, curvature, slope=slope).value * residual_norm
    change = squared_change(n, d, step_size, 1.0, slope=slope).value
    value = 1 - 2 * step_size * smallest_eigenvalue + 2 * error + change
    formula = "1 − 2η λ_min(Θ(s)) + 2η² M L² n^(3/2)/d² ‖y − u_s‖ + η² n² L⁴/d²"
    return Bound(value, formula, 1.0, source("Lemma H.3", "L is 1 there"))


def _one_minus_beta(setting: Setting, step_size: ArrayLike) -> Any:
    """1 − √(1 − α), α = ηγκ_n/2, without the cancellation at small α; 1 beyond α = 1."""
    alpha = step_size * setting.gamma * setting.kappa / 2
    lib = library(alpha)
    return alpha / (1 + lib.sqrt(lib.maximum(1 - alpha, 0.0)))
