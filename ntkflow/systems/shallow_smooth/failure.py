"""Song et al. (2021), appendix E.2 to E.7: the probabilities p_1 to p_5 of failure, and ψ.

p_2 and p_3 rest on Lemma 6, which is wrong (`concentration`): here on matrix Chernoff bounds, which
keep the theorem's width. R and ℓ are those of `concentration`.
"""

from typing import Any

from jax.typing import ArrayLike

from ntkflow.systems.shallow_smooth.arguments import check, library, real, source
from ntkflow.systems.shallow_smooth.bounds import expected_gram_norm, expected_gram_smallest
from ntkflow.systems.shallow_smooth.concentration import (
    chi_square_tail,
    gram_lipschitz,
    neuron_feature_norm,
    truncation,
)
from ntkflow.systems.shallow_smooth.setting import SLACK, DataConstants, Slack, check_slack
from ntkflow.systems.shallow_smooth.spectra import ActivationConstants
from ntkflow.theory import Bound


def weight_norm_failure(
    d_0: ArrayLike,
    d_1: ArrayLike,
    d_2: ArrayLike,
    *,
    slack: Slack = SLACK,
    constant: ArrayLike = 1.0,
    printed: bool = False,
) -> Bound:
    """p_1, the probability that (60) fails: d_1 P(χ²_d > s d) for both layers, s = k² log d_1.

    With Chernoff's bound P(χ²_d > s d) ≤ exp(−d (s − 1 − log s)/2), s > 1, of the order of
    d_1^(1 − k²d/2). Printed, d_1^(−C k₁d_0) + d_1^(−C k₂d_2), for some C and large k.

    Args:
      constant: C of the printed form.

    Example:
      >>> f"{weight_norm_failure(10, 1000, 1).value:.1e}"
      '8.7e-03'

    Reference: Song et al. (2021), (61).
    """
    check(d_0=d_0, d_1=d_1, d_2=d_2, constant=constant)
    check_slack(slack)
    numpy = library(d_0, d_1, d_2, constant, *slack)
    wide = real(d_1)
    if printed:
        exponents = slack.k_1 * real(d_0), slack.k_2 * real(d_2)
        value = sum(numpy.power(wide, real(constant) * -exponent) for exponent in exponents)
        return _probability(value, "d_1^(−C k₁d_0) + d_1^(−C k₂d_2)", constant, "(61)", "printed")
    log = numpy.log(wide)
    value = sum(
        wide * chi_square_tail(d, k**2 * log * d, numpy)
        for d, k in ((real(d_0), slack.k_1), (real(d_2), slack.k_2))
    )
    formula = "d_1 Σ_d exp(−d (s − 1 − log s)/2), s = k² log d_1, over d = d_0 and d_2"
    return _probability(value, formula, 1.0, "(61)", "Chernoff's bound, no constant is open")


def smallest_gram_failure(
    phi: ActivationConstants,
    data: DataConstants,
    d_1: ArrayLike,
    omega1: ArrayLike,
    *,
    slack: Slack = SLACK,
    printed: bool = False,
) -> Bound:
    """p_2, the probability of σ_min(M_0) ≤ (1 − δ₁) B, B = `expected_gram_smallest`.

    Matrix Chernoff bound for the A_i of neurons within (60), of norm at most (ℓR)² and of a mean
    sum above B' = B − d_1 ℓ²ω₁²d_0 q: n (e^(−δ)/(1 − δ)^(1 − δ))^(B'/(ℓR)²), 1 − δ = (1 − δ₁) B/B'.
    Printed, exp(−(δ₁B/κ)²), by Lemma 6. With its constant corrected that way asks for a width of
    the order n², above the theorem's n^(3/2)/d_0; this one for n, up to logarithms.

    Args:
      phi: `constants(activation, scale=omega1)`; printed, `constants(activation)`.

    Example:
      >>> import jax.numpy as jnp, numpy as np
      >>> from ntkflow.systems.shallow_smooth.spectra import constants
      >>> data = DataConstants(n=4, d_0=4, norm=1.0, power=1.0, t=1)
      >>> widths = np.array([1e3, 1e4, 1e5])
      >>> probability = smallest_gram_failure(constants(jnp.tanh), data, widths, omega1=1.0).value
      >>> probability.round(4).tolist()
      [1.0, 0.0877, 0.0]

    References:
      Song et al. (2021), p_2 of appendix E.2, corrected; Tropp (2012), "User-friendly tail bounds
      for sums of random matrices", Corollary 5.2.
    """
    mean = expected_gram_smallest(phi, data, d_1, omega1=omega1, printed=printed).value
    if printed:
        return _printed_tail("p_2", slack.delta_1 * mean, phi, data, d_1, omega1, slack)
    check_slack(slack)
    largest = neuron_feature_norm(phi, data, d_1, omega1, slack=slack).value ** 2
    numpy = library(mean, largest)
    size = (phi.slope * real(data.norm) * omega1) ** 2 * real(data.d_0)
    kept = mean - real(d_1) * size * truncation(data, d_1, slack)
    some = kept > (1 - slack.delta_1) * mean
    share = (1 - slack.delta_1) * mean / numpy.where(some, kept, 1.0)
    share = numpy.where(some & (share > 0), share, 0.5)
    exponent = 1 - share + share * numpy.log(share)  # of e^δ (1 − δ)^(1 − δ), share = 1 − δ
    value = real(data.n) * numpy.exp(-_ratio(kept, largest, numpy) * exponent)
    formula = "n (e^(−δ)/(1 − δ)^(1 − δ))^(B'/(ℓR)²)"
    value = numpy.where(some, value, 1.0)
    return _probability(value, formula, 1.0, "p_2", "matrix Chernoff in place of Lemma 6")


def largest_gram_failure(
    phi: ActivationConstants,
    data: DataConstants,
    d_1: ArrayLike,
    omega1: ArrayLike,
    *,
    slack: Slack = SLACK,
    printed: bool = False,
) -> Bound:
    """p_3, the probability under (60) of σ_max(M_0) ≥ (1 + δ₂) B, B = `expected_gram_norm`.

    n (e^δ₂/(1 + δ₂)^(1 + δ₂))^(B/(ℓR)²), the matrix Chernoff bound. Printed, exp(−(δ₂B/κ)²).

    Args:
      phi: `constants(activation, scale=omega1)`; printed, `constants(activation)`.

    Example:
      >>> import jax.numpy as jnp, numpy as np
      >>> from ntkflow.systems.shallow_smooth.spectra import constants
      >>> data = DataConstants(n=4, d_0=4, norm=1.0, power=1.0, t=1)
      >>> widths = np.array([1e3, 1e4, 1e5])
      >>> probability = largest_gram_failure(constants(jnp.tanh), data, widths, omega1=1.0).value
      >>> probability.round(4).tolist()
      [1.0, 0.2212, 0.0]

    References:
      Song et al. (2021), p_3 of appendix E.2, corrected; Tropp (2012), Corollary 5.2.
    """
    mean = expected_gram_norm(phi, data, d_1, omega1=omega1, printed=printed).value
    if printed:
        return _printed_tail("p_3", slack.delta_2 * mean, phi, data, d_1, omega1, slack)
    check_slack(slack)
    largest = neuron_feature_norm(phi, data, d_1, omega1, slack=slack).value ** 2
    numpy = library(mean, largest)
    share = 1 + real(slack.delta_2)
    exponent = share * numpy.log(share) - slack.delta_2
    value = real(data.n) * numpy.exp(-_ratio(mean, largest, numpy) * exponent)
    formula = "n (e^δ₂/(1 + δ₂)^(1 + δ₂))^(B/(ℓR)²)"
    return _probability(value, formula, 1.0, "p_3", "matrix Chernoff in place of Lemma 6")


def output_norm_failure(d_1: ArrayLike, *, constant: ArrayLike = 0.5) -> Bound:
    """p_4, the probability that `initial_output_norm` fails, exp(−C d_1) with C = ½.

    As σ_max of a Gaussian matrix exceeds √d_1 + √d_2 + s, in units of ω₂, with probability at most
    exp(−s²/2), and s = √d_1.

    Example:
      >>> round(float(output_norm_failure(10).value), 5)
      0.00674

    References:
      Song et al. (2021), (69); Davidson and Szarek (2001), Theorem II.13.
    """
    check(d_1=d_1, constant=constant)
    value = library(d_1, constant).exp(real(constant) * d_1 * -1)
    return _probability(value, "exp(−C d_1)", constant, "(69)", "C = ½ derived")


def initial_output_failure(
    delta_3: ArrayLike, *, constant: ArrayLike = 0.5, printed: bool = False
) -> Bound:
    """p_5, the probability under (60) that `initial_loss` fails, 2 exp(−C δ₃²) with C = ½.

    V_0φ(W_0X) is a sum of d_1 independent matrices of mean 0 and bounded norm: Hoeffding's
    inequality in a Hilbert space. The text goes through the sum of their norms, which has no such
    tail, being d_1 positive numbers; and prints no 2.

    Example:
      >>> round(float(initial_output_failure(3.0).value), 5)
      0.02222

    References:
      Song et al. (2021), appendix E.5; Pinelis (1994), "Optimum bounds for the distributions of
      martingales in Banach spaces", Theorem 3.5.
    """
    check(delta_3=delta_3, constant=constant)
    value = library(delta_3, constant).exp(real(constant) * real(delta_3) ** 2 * -1)
    if printed:
        return _probability(value, "exp(−C δ₃²)", constant, "appendix E.5", "printed")
    note = "C = ½ and the 2 derived"
    return _probability(2 * value, "2 exp(−C δ₃²)", constant, "appendix E.5", note)


def failure_probability(
    phi: ActivationConstants,
    data: DataConstants,
    d_1: ArrayLike,
    d_2: ArrayLike,
    omega1: ArrayLike,
    *,
    slack: Slack = SLACK,
    printed: bool = False,
    constant: ArrayLike = 1.0,
) -> Bound:
    """ψ, the probability that Theorem 3 fails: p_1 + p_2 + p_3 + p_4 + p_5, at most 1.

    Args:
      phi: `constants(activation, scale=omega1)`; printed, `constants(activation)`.
      data: numbers of the data.
      d_1, d_2, omega1: width, outputs, deviation of the hidden weights.
      slack: C_δ.
      printed: p_1 to p_5 as printed, with one C. The final display drops ω₁ from p_2 and p_3.
      constant: C of the printed form.

    Example:
      >>> import jax.numpy as jnp, numpy as np
      >>> from ntkflow.systems.shallow_smooth.spectra import constants
      >>> data = DataConstants(n=4, d_0=4, norm=1.0, power=1.0, t=1)
      >>> phi = constants(jnp.tanh)
      >>> round(float(failure_probability(phi, data, 100_000, 1, omega1=1.0).value), 4)
      0.0223

    Reference: Song et al. (2021), appendix E.7.
    """
    given: dict[str, Any] = {"slack": slack, "printed": printed}
    c: dict[str, Any] = {"constant": constant} if printed else {}
    parts = (
        weight_norm_failure(data.d_0, d_1, d_2, **given, **c),
        smallest_gram_failure(phi, data, d_1, omega1, **given),
        largest_gram_failure(phi, data, d_1, omega1, **given),
        output_norm_failure(d_1, **c),
        initial_output_failure(slack.delta_3, printed=printed, **c),
    )
    value = sum(part.value for part in parts)
    note = "as printed" if printed else "p_1 to p_5 corrected"
    return _probability(value, "p_1 + p_2 + p_3 + p_4 + p_5", constant, "appendix E.7", note)


def _ratio(mean: Any, largest: Any, numpy: Any) -> Any:
    """mean/(ℓR)²; where R is 0, d_1 = 1, no neuron is within it and the bound says nothing."""
    return numpy.where(largest > 0, mean / numpy.where(largest > 0, largest, 1.0), 0.0)


def _printed_tail(name, deviation, phi, data, d_1, omega1, slack) -> Bound:
    kappa = gram_lipschitz(phi, data, d_1, omega1, slack=slack, printed=True).value
    numpy = library(deviation, kappa)
    value = numpy.exp(-(_ratio(deviation, kappa, numpy) ** 2))
    delta = {"p_2": "δ₁σ_min", "p_3": "δ₂σ_max"}[name]
    return _probability(value, f"exp(−({delta}(E M_0)/κ)²)", 1.0, name, "as printed; false")


def _probability(value: Any, formula: str, constant: ArrayLike, place: str, note: str) -> Bound:
    return Bound(library(value).minimum(value, 1.0), formula, constant, source(place, note))
