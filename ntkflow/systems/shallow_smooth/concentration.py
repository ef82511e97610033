"""Song et al. (2021), appendix E.2: how far M_0 = φ(W_0X)ᵀφ(W_0X) is from its mean.

Under (60) no neuron's weights are longer than R = k₁ω₁√(d_0 log d_1); ℓ = φ'_max σ_max(X) is the
Lipschitz constant of w ↦ φ(Xᵀw), φ(0) = 0. Lemma 6 and (66) are wrong as printed: M_0 is a sum of
d_1 terms, and W_0 has the deviation ω₁.
"""

import math
from typing import Any

from jax.typing import ArrayLike

from ntkflow.systems.shallow_smooth.arguments import check, library, real, source
from ntkflow.systems.shallow_smooth.setting import (
    SLACK,
    DataConstants,
    Slack,
    check_setting,
    check_slack,
)
from ntkflow.systems.shallow_smooth.spectra import ActivationConstants
from ntkflow.theory import Bound


def weight_norm(
    inputs: ArrayLike, d_1: ArrayLike, omega: ArrayLike, k: ArrayLike = SLACK.k_1
) -> Bound:
    """(60): the largest norm of a neuron's weights, k ω √(d log d_1).

    Args:
      inputs: d, which is d_0 for the hidden layer's rows and d_2 for the output layer's columns.
      d_1: width.
      omega: ω₁, or ω₂.
      k: k₁, or k₂.

    Example:
      >>> round(float(weight_norm(10, d_1=1000, omega=0.5, k=2.0).value), 4)
      8.3113

    Reference: Song et al. (2021), (60).
    """
    check(inputs=inputs, d_1=d_1, k=k)
    check(omega1=omega)
    numpy = library(inputs, d_1, omega, k)
    value = k * omega * numpy.sqrt(real(inputs) * numpy.log(real(d_1)))
    return Bound(value, "k ω √(d log d_1)", 1.0, source("(60)"))


def neuron_feature_norm(
    phi: ActivationConstants,
    data: DataConstants,
    d_1: ArrayLike,
    omega1: ArrayLike,
    *,
    slack: Slack = SLACK,
) -> Bound:
    """The bound on ‖φ(Xᵀw_i)‖ under (60), ℓ R = φ'_max σ_max(X) k₁ω₁√(d_0 log d_1).

    Its square bounds σ_max(A_i), A_i = φ(Xᵀw_i)φ(w_iᵀX), (63).

    Example:
      >>> import jax.numpy as jnp
      >>> from ntkflow.systems.shallow_smooth.spectra import constants
      >>> data = DataConstants(n=20, d_0=10, norm=2.0, power=0.5, t=2)
      >>> round(float(neuron_feature_norm(constants(jnp.tanh), data, 1000, 0.5).value), 4)
      16.6226

    Reference: Song et al. (2021), (62) and (63).
    """
    check_setting(phi, data)
    check_slack(slack)
    radius = weight_norm(data.d_0, d_1, omega1, slack.k_1).value
    value = phi.slope * real(data.norm) * radius
    return Bound(value, "φ'_max σ_max(X) k₁ω₁√(d_0 log d_1)", 1.0, source("(62)"))


def gram_lipschitz(
    phi: ActivationConstants,
    data: DataConstants,
    d_1: ArrayLike,
    omega1: ArrayLike,
    *,
    slack: Slack = SLACK,
    printed: bool = False,
) -> Bound:
    """The Lipschitz constant of W ↦ M(W) = φ(WX)ᵀφ(WX) under (60): 2 ℓ² R √d_1.

    ‖M(W) − M(W')‖ ≤ (‖φ(WX)‖ + ‖φ(W'X)‖) ‖φ(WX) − φ(W'X)‖ ≤ 2 (ℓ R √d_1) (ℓ ‖W − W'‖_F). Equal
    rows of norm R and φ(z) = z reach it. Lemma 6 prints κ = 4 ℓ² R, that of one row, and takes it
    for the sum of d_1 of them.

    Args:
      phi: its slope alone is read.
      printed: κ, which is false for d_1 > 4.

    Example:
      >>> import jax.numpy as jnp
      >>> from ntkflow.systems.shallow_smooth.spectra import constants
      >>> data = DataConstants(n=20, d_0=10, norm=2.0, power=0.5, t=2)
      >>> phi = constants(jnp.tanh)
      >>> round(float(gram_lipschitz(phi, data, 1000, 0.5).value), 1)
      2102.6
      >>> round(float(gram_lipschitz(phi, data, 1000, 0.5, printed=True).value), 1)
      133.0

    Reference: Song et al. (2021), Lemma 6, corrected.
    """
    length = neuron_feature_norm(phi, data, d_1, omega1, slack=slack).value
    once = phi.slope * real(data.norm) * length
    if printed:
        formula = "4 φ'_max² σ_max²(X) k₁ω₁√(d_0 log d_1)"
        return Bound(4 * once, formula, 1.0, source("Lemma 6", "as printed; one row's"))
    value = 2 * once * real(d_1) ** 0.5
    formula = "2 φ'_max² σ_max²(X) k₁ω₁√(d_0 d_1 log d_1)"
    return Bound(value, formula, 1.0, source("Lemma 6", "for the sum of d_1 rows"))


def gram_deviation(
    phi: ActivationConstants,
    data: DataConstants,
    d_1: ArrayLike,
    omega1: ArrayLike,
    k_3: ArrayLike,
    *,
    slack: Slack = SLACK,
    printed: bool = False,
) -> Bound:
    """The bound on σ_max(M_0 − E M_0) that fails under (60) with probability at most exp(−k_3²).

    ℓ²ω₁² √(d_1 d_0 (d_0 + 2)) + d_1 ℓ²ω₁² d_0 q + √2 k_3 ω₁L, with L = `gram_lipschitz` and q of
    `truncation`. A Lipschitz function of Gaussian weights of deviation ω₁ exceeds its own mean by
    √2 k_3 ω₁L with that probability; the mean of this one, at most the two first terms, is not 0.
    Printed, k_3 κ: √d_1 times too small, with ω₁ where ω₁² belongs, and without a mean. Of 30 draws
    of the test (GELU, n = 20, d_0 = 10, d_1 = 2000, k₁ = 1) 27 are beyond its k_3 = 1, of
    probability at most 0.37, and 12 beyond 1.5, of 0.11.

    Args:
      k_3: deviations, 0 or greater.

    Example:
      >>> import jax.numpy as jnp
      >>> from ntkflow.systems.shallow_smooth.spectra import constants
      >>> data = DataConstants(n=20, d_0=10, norm=2.0, power=0.5, t=2)
      >>> round(float(gram_deviation(constants(jnp.tanh), data, 1000, 0.5, k_3=2.0).value), 1)
      3319.9

    Reference: Song et al. (2021), Lemma 7 and (66), corrected.
    """
    check(k_3=k_3)
    constant = gram_lipschitz(phi, data, d_1, omega1, slack=slack, printed=printed).value
    if printed:
        return Bound(k_3 * constant, "k_3 κ", 1.0, source("(66)", "as printed; false"))
    d_0, wide = real(data.d_0), real(d_1)
    size = (phi.slope * real(data.norm) * omega1) ** 2
    mean = size * (wide * d_0 * (d_0 + 2)) ** 0.5 + wide * size * d_0 * truncation(data, d_1, slack)
    value = mean + math.sqrt(2) * k_3 * omega1 * constant
    formula = "ℓ²ω₁² (√(d_1 d_0 (d_0 + 2)) + d_1 d_0 q) + √2 k_3 ω₁L"
    return Bound(value, formula, 1.0, source("(66)", "with the sum's constant and the mean"))


def truncation(data: DataConstants, d_1: ArrayLike, slack: Slack = SLACK) -> Any:
    """q with E[‖w‖²; ‖w‖ > R] ≤ ω₁²d_0 q: the bound on P(χ²_{d_0+2} > k₁²d_0 log d_1).

    What M_0 has beyond (60), and the concentration under (60) says nothing of.

    Example:
      >>> data = DataConstants(n=20, d_0=10, norm=2.0, power=0.5, t=2)
      >>> f"{truncation(data, 1000):.1e}"
      '6.0e-50'
    """
    numpy = library(d_1, data.d_0, slack.k_1)
    d_0 = real(data.d_0)
    limit = real(slack.k_1) ** 2 * d_0 * numpy.log(real(d_1))
    return chi_square_tail(d_0 + 2, limit, numpy)


def chi_square_tail(d: Any, limit: Any, numpy: Any) -> Any:
    """Chernoff's bound on P(χ²_d > limit), 1 below the mean."""
    s = numpy.maximum(limit / d, 1.0)
    return numpy.exp(-d * (s - 1 - numpy.log(s)) / 2)
