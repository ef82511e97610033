"""Song et al. (2021), appendix F: when the shallow network may leave the lazy regime.

Of the order of β_Φ/ν², along a family ω₁ω₂ = P: it grows with ω₂/ω₁. An order estimate, for ν_Φ, an
upper bound of Lip(Φ), stands in a denominator: a large value allows a gap, and forces none. So does
the gap that networks have, given time: where ω₂ ≫ ω₁ the kernel's condition number is what grows,
and a run that stops before the curved directions are fitted is lazy.
`phi` is `constants(activation, scale=omega1)`; with `printed=True` it is `constants(activation)`.
"""

import math

from jax.typing import ArrayLike

from ntkflow.systems.composite.arguments import divide
from ntkflow.systems.composite.lazy import lazy_ratio
from ntkflow.systems.shallow_smooth.arguments import check, real, source
from ntkflow.systems.shallow_smooth.initialization import Scales
from ntkflow.systems.shallow_smooth.network_bounds import near_isometry_bound
from ntkflow.systems.shallow_smooth.setting import (
    SLACK,
    DataConstants,
    Slack,
    check_setting,
    check_slack,
    exponent,
    has_mean,
)
from ntkflow.systems.shallow_smooth.spectra import ActivationConstants
from ntkflow.theory import Bound


def lazy_bound(
    phi: ActivationConstants,
    data: DataConstants,
    d_1: ArrayLike,
    scales: Scales,
    *,
    d_2: ArrayLike = 1,
    initial_loss: ArrayLike = 1.0,
    largest_output_norm: ArrayLike | None = None,
    slack: Slack = SLACK,
    constant: ArrayLike = 1.0,
    printed: bool = False,
) -> Bound:
    """The order of |h(Θ_i) − h̃(Θ̃_i)| / h(Θ_0): C √h(Θ_0) β_Φ/ν², with ν and χ of the bounds.

    √h(Θ_0) = ‖Φ(Θ_0) − Y‖ is the factor that (82) lacks: see `composite.lazy_ratio`.
    Printed, (83) with (84), without it: ν without its term in √(c_1² + c_∞²), which for an odd φ,
    c_0 = 0, leaves it 0 where ω₂ is; c_t of (67) left out of (84); ω₁^{r₁} and ω₁^{r₂}, though
    their condition is for ω₁ < 1. What follows (84) prints σ_min^{2r₁}(X^{*t}) for its
    σ_min²(X^{*t}).

    Args:
      phi: `constants(activation, scale=scales.omega1)`; printed, `constants(activation)`.
      data: numbers of the data.
      d_1, d_2: width and outputs.
      scales: ω₁ and ω₂.
      initial_loss: h(Θ_0), also for (81); printed, σ_max(X) of (75) stands for its root in (84).
      largest_output_norm: χ in place of (81).
      slack: δ₁ and δ₂; printed, δ₂ alone.
      constant: C.

    Raises:
      ValueError: a number is not in its range, c_t = 0; printed, φ has no exponents and ω₁ ≠ 1.

    Example:
      >>> from ntkflow.systems.shallow_smooth.initialization import fixed_product
      >>> from ntkflow.systems.shallow_smooth.network import gelu
      >>> from ntkflow.systems.shallow_smooth.spectra import constants
      >>> data = DataConstants(n=20, d_0=10, norm=2.0, power=0.5, t=2)
      >>> for omega2 in (0.002, 0.02, 0.2):
      ...     scales = fixed_product(0.02, omega2)
      ...     bound = lazy_bound(constants(gelu, scale=scales.omega1), data, 100, scales)
      ...     print(f"{bound.value:.1e}")
      7.7e-04
      7.9e-01
      6.4e+03

    Reference: Song et al. (2021), (82) to (84).
    """
    omega1, omega2 = scales
    check(omega1=omega1, initial_loss=initial_loss, constant=constant)
    if not printed:
        known = (
            {"initial_loss": initial_loss}
            if largest_output_norm is None
            else {"largest_output_norm": largest_output_norm}
        )
        near = near_isometry_bound(phi, data, d_1, d_2, omega2, slack=slack, **known)
        value = lazy_ratio(near, real(initial_loss) ** 0.5, constant).value
        place = source("(82)", "with the residual; β_Φ, ν and χ of (46), (76), (81)")
        return Bound(value, "C √h(Θ_0) β_Φ/ν²", constant, place)
    check_setting(phi, data)
    check_slack(slack)
    check(d_1=d_1, omega1=omega1, omega2=omega2)
    wide = real(d_1)
    mean = exponent(phi, "r2", omega1) * abs(float(phi.coefficients[0])) * real(data.n) ** 0.5
    slope = omega2 * phi.slope * data.norm
    chi = largest_output_norm
    if chi is None:
        denominator = exponent(phi, "r1", omega1) ** 2 * wide**0.5 * real(data.power) ** 2
        chi = divide((slope + mean) * data.norm, denominator) + omega2 * wide**0.5
    bend = phi.curvature * chi if phi.curvature else 0.0
    lipschitz = wide**0.5 * (slope + (1 + real(slack.delta_2)) ** 0.5 * mean)
    value = divide(constant * math.sqrt(2) * data.norm * (phi.slope + bend), lipschitz**2)
    formula = (
        "√2 σ_max(X) (φ'_max + φ''_max χ) / (ω₂φ'_max σ_max(X) √d_1 + ω₁^{r₂}|c_0| √((1+δ₂)d_1n))²"
    )
    return Bound(value, formula, constant, source("(83), (84)", "as printed"))


def lazy_bound_large_outputs(
    phi: ActivationConstants,
    data: DataConstants,
    d_1: ArrayLike,
    scales: Scales,
    *,
    slack: Slack = SLACK,
    printed: bool = False,
) -> Bound:
    """F.1: what (83) with (84) tends to as ω₂/ω₁ → ∞ at fixed ω₁ω₂, where it goes to ∞.

    √2 φ'_max φ''_max σ_max³(X) ω₂ d_1^(−3/2) / (ω₁^{r₁}σ_min(X^{*t}) (ω₂φ'_max σ_max(X) +
    ω₁^{r₂}|c_0| √((1 + δ₂) n)))². Printed with σ_max²: one of the three factors σ_max(X) is lost
    between the first line and the second. It grows like ω₂^{2r₁−1}: for r₁ ≤ ½ it does not go to ∞.

    Args:
      phi: `constants(activation)`, with r₁ and r₂.
      data, d_1, scales, slack: as for `lazy_bound`.
      printed: the last display, where constants and ω₁ω₂√(d_0d_1) count as 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from ntkflow.systems.shallow_smooth.initialization import fixed_product
      >>> from ntkflow.systems.shallow_smooth.spectra import constants
      >>> data = DataConstants(n=20, d_0=10, norm=2.0, power=0.5, t=1)
      >>> phi, scales = constants(jnp.tanh), fixed_product(0.02, omega2=100.0)
      >>> full = lazy_bound(phi, data, 100, scales, printed=True).value
      >>> round(float(full / lazy_bound_large_outputs(phi, data, 100, scales).value), 4)
      1.0

    Reference: Song et al. (2021), appendix F.1, corrected.
    """
    check_setting(phi, data)
    check_slack(slack)
    omega1, omega2 = scales
    check(d_1=d_1, omega1=omega1, omega2=omega2)
    r1, r2 = exponent(phi, "r1", omega1), exponent(phi, "r2", omega1)
    mean = r2 * abs(float(phi.coefficients[0])) * real(data.n) ** 0.5
    wide, norm = real(d_1), real(data.norm)
    if printed:
        reach = norm * r1 / omega1 / (data.d_0 * wide) ** 0.5 + r1 * mean
        value = divide(norm**2 * omega2 / wide**1.5, (data.power * reach) ** 2)
        formula = (
            "σ_max²(X) ω₂ d_1^(−3/2) / (σ_min(X^{*t}) σ_max(X) ω₁^{r₁−1}/√(d_0d_1) + "
            "ω₁^{r₁+r₂}σ_min(X^{*t})|c_0| √n)²"
        )
        return Bound(value, formula, 1.0, source("appendix F.1", "as printed"))
    reach = omega2 * phi.slope * norm + (1 + real(slack.delta_2)) ** 0.5 * mean
    top = math.sqrt(2) * phi.slope * phi.curvature * norm**3 * omega2 / wide**1.5
    value = divide(top, (r1 * real(data.power) * reach) ** 2)
    formula = (
        "√2 φ'_max φ''_max σ_max³(X) ω₂ d_1^(−3/2) / (ω₁^{r₁}σ_min(X^{*t}) (ω₂φ'_max σ_max(X) + "
        "ω₁^{r₂}|c_0| √((1+δ₂)n)))²"
    )
    return Bound(value, formula, 1.0, source("appendix F.1", "σ_max³; constants kept"))


def lazy_bound_large_hidden(
    phi: ActivationConstants,
    data: DataConstants,
    d_1: ArrayLike,
    scales: Scales,
    *,
    constant: ArrayLike = 1.0,
    printed: bool = False,
) -> Bound:
    """F.2: the bound as ω₁/ω₂ → ∞, C √2 σ_max(X) (φ'_max + ω₂φ''_max √d_1) / (c_0² d_1 n).

    It goes to 0, and training is bound to be lazy, where c_0 of z ↦ φ(ω₁z) grows: for GELU and
    softplus, like ω₁. Where φ is odd it is ∞ (c_0 = 0), and where φ is bounded it stays above 0
    (r₂ = 0): of tanh, which the paper names among its activations, F.2 says nothing.

    Args:
      phi: `constants(activation, scale=omega1)`; printed, `constants(activation)`, with ω₁^{r₂}.
      data, d_1, scales: as for `lazy_bound`.
      constant: C.

    Example:
      >>> from ntkflow.systems.shallow_smooth.initialization import fixed_product
      >>> from ntkflow.systems.shallow_smooth.network import gelu
      >>> from ntkflow.systems.shallow_smooth.spectra import constants
      >>> data = DataConstants(n=20, d_0=10, norm=2.0, power=0.5, t=2)
      >>> for omega1 in (1.0, 10.0, 100.0):
      ...     phi, scales = constants(gelu, scale=omega1), fixed_product(0.02, 0.02 / omega1)
      ...     print(f"{lazy_bound_large_hidden(phi, data, 100, scales).value:.1e}")
      2.3e-02
      1.0e-04
      1.0e-06

    Reference: Song et al. (2021), (85).
    """
    check_setting(phi, data)
    omega1, omega2 = scales
    check(d_1=d_1, omega1=omega1, omega2=omega2, constant=constant)
    c_0 = float(phi.coefficients[0]) if has_mean(phi) else 0.0
    factor = exponent(phi, "r2", omega1) if printed else 1.0
    top = math.sqrt(2) * real(data.norm) * (phi.slope + omega2 * phi.curvature * real(d_1) ** 0.5)
    value = divide(constant * top, (factor * c_0) ** 2 * real(d_1) * data.n)
    power = "ω₁^{r₂}" if printed else ""
    formula = f"√2 σ_max(X) (φ'_max + ω₂φ''_max √d_1) / ({power}c_0 √(d_1n))²"
    note = "as printed" if printed else "with c_0 of z ↦ φ(ω₁z)"
    return Bound(value, formula, constant, source("(85)", note))
