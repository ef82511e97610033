"""Song et al. (2021), appendix E.1 to E.3: singular values of the random features φ(W_0X).

Throughout: `phi` is `constants(activation, scale=omega1)`, the numbers of z ↦ φ(ω₁z). The paper
takes those of φ and powers of ω₁; `printed=True` does, and wants `constants(activation)`. A bound
on a random matrix fails with the probabilities of `concentration`.
"""

import math

from jax.typing import ArrayLike

from ntkflow.systems.shallow_smooth.arguments import check, real, source
from ntkflow.systems.shallow_smooth.setting import (
    SLACK,
    DataConstants,
    Slack,
    check_setting,
    check_slack,
    coefficient,
    exponent,
)
from ntkflow.systems.shallow_smooth.spectra import ActivationConstants
from ntkflow.theory import Bound


def higher_gram_norm(phi: ActivationConstants, data: DataConstants) -> Bound:
    """The bound on ‖Σ_{i≥2} (c_i²/i!) (X^{*i})ᵀ X^{*i}‖, c_∞² σ_max²(X).

    By Schur's product theorem, ‖(XᵀX)^{⊙i}‖ ≤ ‖XᵀX‖ for inputs of norm 1.

    Example:
      >>> from ntkflow.systems.shallow_smooth.network import gelu
      >>> from ntkflow.systems.shallow_smooth.spectra import constants
      >>> data = DataConstants(n=20, d_0=10, norm=2.0, power=0.5, t=2)
      >>> round(higher_gram_norm(constants(gelu), data).value, 5)
      0.38258

    Reference: Song et al. (2021), (57).
    """
    check_setting(phi, data)
    return Bound(phi.tail * real(data.norm) ** 2, "c_∞² σ_max²(X)", 1.0, source("(57)"))


def expected_gram_norm(
    phi: ActivationConstants,
    data: DataConstants,
    d_1: ArrayLike,
    *,
    omega1: ArrayLike = 1.0,
    printed: bool = False,
) -> Bound:
    """The bound on σ_max(E M_0), d_1 (n c_0² + (c_1² + c_∞²) σ_max²(X)).

    Args:
      phi: `constants(activation, scale=omega1)`; printed, `constants(activation)`.
      data: n, σ_max(X) and the like of the data.
      d_1: width.
      omega1: ω₁, for the printed form alone.
      printed: times ω₁^{2r₂}, by the exponents of φ. It is stated for ω₁ < 1; at ω₁ > 1, where
        |φ(ω₁a)| ≥ ω₁^{r₂} |φ(a)|, it is false.

    Raises:
      ValueError: a number is not in its range; printed, r₂ does not exist.

    Example:
      >>> from ntkflow.systems.shallow_smooth.network import gelu
      >>> from ntkflow.systems.shallow_smooth.spectra import constants
      >>> data = DataConstants(n=20, d_0=10, norm=2.0, power=0.5, t=2)
      >>> round(float(expected_gram_norm(constants(gelu), data, d_1=100).value), 3)
      297.413

    Reference: Song et al. (2021), (58).
    """
    check_setting(phi, data)
    check(d_1=d_1, omega1=omega1)
    norm2 = real(data.norm) ** 2
    sum_ = data.n * _c(phi, 0) ** 2
    sum_ = sum_ + (_c(phi, 1) ** 2 + phi.tail) * norm2
    factor = exponent(phi, "r2", omega1) ** 2 if printed else 1.0
    formula = "d_1 (n c_0² + (c_1² + c_∞²) σ_max²(X))"
    return _bound(factor * d_1 * sum_, "ω₁^{2r₂} ", formula, "(58)", printed)


def expected_gram_smallest(
    phi: ActivationConstants,
    data: DataConstants,
    d_1: ArrayLike,
    *,
    omega1: ArrayLike = 1.0,
    printed: bool = False,
) -> Bound:
    """The lower bound on σ_min(E M_0), d_1 (c_t²/t!) σ_min²(X^{*t}).

    Printed, c_t is that of φ, times ω₁^{r₁}. That is false for ω₁ < 1: τ^{r₁} |φ(a)| ≤ |φ(τa)| for
    every a orders no matrices. For small ω₁ tanh is linear, and M_0 nearly of rank d_0: with
    n > d_0 and t = 3 its smallest eigenvalue falls like ω₁⁶, not ω₁². c_t of z ↦ φ(ω₁z) is exact.

    Args, Raises: as for `expected_gram_norm`; c_t = 0 is refused; printed, r₁ does not exist.

    Example:
      >>> from ntkflow.systems.shallow_smooth.network import gelu
      >>> from ntkflow.systems.shallow_smooth.spectra import constants
      >>> data = DataConstants(n=20, d_0=10, norm=2.0, power=0.5, t=2)
      >>> round(float(expected_gram_smallest(constants(gelu), data, d_1=100).value), 4)
      2.2381

    Reference: Song et al. (2021), (58), for ω₁ ≠ 1 corrected.
    """
    check_setting(phi, data)
    check(d_1=d_1, omega1=omega1)
    factor = exponent(phi, "r1", omega1) ** 2 if printed else 1.0
    power2 = real(data.power) ** 2
    value = factor * d_1 * coefficient(phi, data.t) ** 2 / math.factorial(data.t) * power2
    return _bound(value, "ω₁^{2r₁} ", "d_1 (c_t²/t!) σ_min²(X^{*t})", "(58)", printed)


def feature_smallest_singular_value(
    phi: ActivationConstants,
    data: DataConstants,
    d_1: ArrayLike,
    *,
    slack: Slack = SLACK,
    omega1: ArrayLike = 1.0,
    printed: bool = False,
) -> Bound:
    """The lower bound on σ_min(φ(W_0X)) = μ_Φ, √((1 − δ₁) (c_t²/t!) d_1) σ_min(X^{*t}).

    It fails with probability `smallest_gram_failure`, p_2; the text adds p_1, which is not needed.
    (67) has σ_min(X^{*t}) under the root, (68) outside, as here.

    Args, Raises: as for `expected_gram_smallest`; δ₁ is `slack.delta_1`.

    Example:
      >>> from ntkflow.systems.shallow_smooth.network import gelu
      >>> from ntkflow.systems.shallow_smooth.spectra import constants
      >>> data = DataConstants(n=20, d_0=10, norm=2.0, power=0.5, t=2)
      >>> round(float(feature_smallest_singular_value(constants(gelu), data, d_1=100).value), 4)
      1.0579

    Reference: Song et al. (2021), (67) and (68).
    """
    check_slack(slack)
    gram = expected_gram_smallest(phi, data, d_1, omega1=omega1, printed=printed).value
    value = ((1 - real(slack.delta_1)) * gram) ** 0.5
    formula = "√((1 − δ₁) (c_t²/t!) d_1) σ_min(X^{*t})"
    return _bound(value, "ω₁^{r₁} ", formula, "(67), (68)", printed)


def feature_largest_singular_value(
    phi: ActivationConstants,
    data: DataConstants,
    d_1: ArrayLike,
    *,
    slack: Slack = SLACK,
    omega1: ArrayLike = 1.0,
    printed: bool = False,
) -> Bound:
    """The bound on σ_max(φ(W_0X)), √(1 + δ₂) (√((c_1² + c_∞²) d_1) σ_max(X) + |c_0| √(d_1 n)).

    It fails with probability `largest_gram_failure`, p_3, where the weights' norms are as in (60).

    Args, Raises: as for `expected_gram_norm`; δ₂ is `slack.delta_2`.

    Example:
      >>> from ntkflow.systems.shallow_smooth.network import gelu
      >>> from ntkflow.systems.shallow_smooth.spectra import constants
      >>> data = DataConstants(n=20, d_0=10, norm=2.0, power=0.5, t=2)
      >>> round(float(feature_largest_singular_value(constants(gelu), data, d_1=100).value), 3)
      29.852

    Reference: Song et al. (2021), (67).
    """
    check_setting(phi, data)
    check_slack(slack)
    check(d_1=d_1, omega1=omega1)
    rest = (_c(phi, 1) ** 2 + phi.tail) ** 0.5 * real(data.norm)
    sum_ = rest + abs(_c(phi, 0)) * real(data.n) ** 0.5
    factor = exponent(phi, "r2", omega1) if printed else 1.0
    value = factor * ((1 + real(slack.delta_2)) * d_1) ** 0.5 * sum_
    formula = "√((1 + δ₂) d_1) (√(c_1² + c_∞²) σ_max(X) + |c_0| √n)"
    return _bound(value, "ω₁^{r₂} ", formula, "(67)", printed)


def _c(phi: ActivationConstants, i: int) -> float:
    return float(phi.coefficients[i])


def _bound(value: ArrayLike, power: str, formula: str, place: str, printed: bool) -> Bound:
    if printed:
        return Bound(value, power + formula, 1.0, source(place, "as printed"))
    return Bound(value, formula, 1.0, source(place, "with c_i of z ↦ φ(ω₁z)"))
