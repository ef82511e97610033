"""What chapter 7 proves of descent on the octopus: step sizes, escape times.

A_k = T_k − T_k^τ is the step at which coordinate k enters its buffer, T_k that at which it has
crossed it: the fields `buffer` and `stage` of `EscapeTimes`.
"""

from typing import Any

import numpy as np
from jax.typing import ArrayLike

from ntkflow.systems.arguments import FINITE_POSITIVE, Rule, checker
from ntkflow.systems.saddles.arguments import (
    THESIS,
    Constants,
    check_constants,
    check_step_size,
    library,
    real,
    source,
)
from ntkflow.systems.saddles.lipschitz import smoothness
from ntkflow.theory import Bound

_check = checker(
    rho=FINITE_POSITIVE,
    coordinate=Rule(lambda a: np.abs(a) < np.inf, "a finite number"),
)


def largest_step_size(constants: Constants = THESIS) -> Bound:
    """The step size of Lemmas 7.2 and 7.3, 1/(2L), above which waiting coordinates change sign.

    Theorem 7.3 asks for η ≤ 1/ℓ, which is less: ℓ ≥ 2L, see `smoothness`.

    Example:
      >>> largest_step_size(Constants(smoothness=2.0)).value
      0.25

    Reference: Du (2019), Lemma 7.2.
    """
    check_constants(constants)
    return Bound(1 / (2 * real(constants.smoothness)), "1/(2L)", 1.0, source("Lemma 7.2"))


def growth_ratio(
    constants: Constants = THESIS, *, step_size: ArrayLike, printed: bool = False
) -> Bound:
    """By which factor the escape times grow: lim A_{k+1}/A_k = 1 + ln(1/(1−2ηL)) / ln(1+2ηγ).

    The thesis says that they grow by (L+γ)/γ at each saddle point. That is a lower bound, and the
    limit for η → 0. At η = 1/(4L) the ratio is 1 + ln 2 / ln(1 + γ/2L): 5.1 rather than 3.7 at
    L = e. The limit follows from `earliest_entry` and `latest_entry`, which differ by a constant.

    Args:
      constants: L, γ, τ.
      step_size: η ≤ 1/(2L), where the ratio is infinite: waiting coordinates become 0.
      printed: the thesis' (L+γ)/γ.

    Returns:
      Bound.

    Raises:
      ValueError: η is not in (0, 1/(2L)], L < γ.

    Example:
      >>> ratio = growth_ratio(step_size=0.25 / np.e).value
      >>> round(float(ratio), 3), round(growth_ratio(step_size=0.01, printed=True).value, 3)
      (5.105, 3.718)

    Reference: Du (2019), sections 7.4.1 and 7.5; derived.
    """
    check_step_size(step_size, constants)
    if printed:
        value = 1 + real(constants.smoothness) / constants.curvature
        return Bound(value, "(L+γ)/γ", 1.0, source("Lemma 7.2"))
    growth, decay = _logarithms(constants, step_size)
    return Bound(
        1 + decay / growth,
        "1 + ln(1/(1−2ηL)) / ln(1+2ηγ)",
        1.0,
        source("section 7.5", "corrected: derived"),
    )


def buffer_time(
    constants: Constants = THESIS, *, step_size: ArrayLike, printed: bool = False
) -> Bound:
    """How long a coordinate is in its buffer [τ, 2τ): T_k^τ ≤ ⌈1/(2ηγ)⌉ steps.

    The lemma has 1/(2ηγ), without rounding it up: at γ = 1, L = 1.5 and η = 1/(2L) that is 1.5, and
    a coordinate at τ is at 5τ/3 after one step.

    Args:
      constants: L, γ, τ.
      step_size: η ≤ 1/(2L).
      printed: 1/(2ηγ).

    Example:
      >>> float(buffer_time(Constants(1.5), step_size=1 / 3).value)
      2.0

    Reference: Du (2019), proof of Lemma 7.2.
    """
    check_step_size(step_size, constants)
    value = 1 / (2 * real(step_size) * constants.curvature)
    if printed:
        return Bound(value, "1/(2ηγ)", 1.0, source("proof of Lemma 7.2"))
    lib = library(value)
    rounding = 4 * float(lib.finfo(lib.result_type(value)).eps)
    value = lib.ceil(value * (1 - rounding))  # 2, and not 3, where 2 was rounded
    return Bound(value, "⌈1/(2ηγ)⌉", 1.0, source("proof of Lemma 7.2", "corrected"))


def first_entry(
    coordinate: ArrayLike, constants: Constants = THESIS, *, step_size: ArrayLike
) -> Bound:
    """When the first coordinate enters its buffer: A_1 ≥ log(τ/|x_1^0|) / (2ηγ).

    At least 1/(2ηγ) for |x_1^0| ≤ 1 and τ ≥ e. The proof goes on to 1/(ηγ), which holds for
    |x_1^0| ≤ τ/e² alone: read 1/(2ηγ).

    Args:
      coordinate: x_1^0, of any shape.
      constants: L, γ, τ.
      step_size: η ≤ 1/(2L).

    Example:
      >>> round(float(first_entry(1.0, step_size=0.1).value), 6)
      5.0

    Reference: Du (2019), proof of Lemma 7.2.
    """
    distance = _log_distance(coordinate, constants)
    check_step_size(step_size, constants)
    value = distance / (2 * step_size * real(constants.curvature))
    return Bound(value, "log(τ/|x_1^0|) / (2ηγ)", 1.0, source("proof of Lemma 7.2"))


def earliest_entry(
    previous: ArrayLike,
    coordinate: ArrayLike,
    constants: Constants = THESIS,
    *,
    step_size: ArrayLike,
    printed: bool = False,
) -> Bound:
    """A_{k+1} ≥ κ A_k + log(τ/|x_{k+1}^0|) / log(1+2ηγ), κ of `growth_ratio`.

    x_{k+1} shrinks by 1 − 2ηL at each of the first A_k steps, and grows by 1 + 2ηγ at most at each
    step after them. The lemma has (L+γ)/γ A_k, which follows by log(1−θ) ≤ −θ and log(1+θ) ≤ θ.

    Args:
      previous: A_k, of any shape.
      coordinate: x_{k+1}^0, of the same shape.
      constants: L, γ, τ.
      step_size: η ≤ 1/(2L).
      printed: (L+γ)/γ A_k.

    Example:
      >>> round(float(earliest_entry(100.0, 1.0, step_size=0.05).value), 1)
      443.3

    Reference: Du (2019), proof of Lemma 7.2; derived.
    """
    distance = _log_distance(coordinate, constants)
    ratio = growth_ratio(constants, step_size=step_size, printed=printed)
    if printed:
        formula = "(L+γ)/γ (T_k − T_k^τ)"
        return Bound(ratio.value * previous, formula, 1.0, source("proof of Lemma 7.2"))
    growth, _ = _logarithms(constants, step_size)
    return Bound(
        _times(ratio.value, previous) + distance / growth,
        "κ A_k + log(τ/|x_{k+1}^0|) / log(1+2ηγ)",
        1.0,
        source("proof of Lemma 7.2", "sharpened: derived"),
    )


def latest_entry(
    previous: ArrayLike,
    coordinate: ArrayLike,
    constants: Constants = THESIS,
    *,
    step_size: ArrayLike,
) -> Bound:
    """A_{k+1} ≤ κ (A_k + ⌈1/(2ηγ)⌉) + log(τ/|x_{k+1}^0|) / log(1+2ηγ) + 1, for x_{k+1}^0 ≠ 0.

    In the buffer of coordinate k, of ⌈1/(2ηγ)⌉ steps at most, x_{k+1} shrinks by 1 − 2ηL at most;
    afterwards it grows by 1 + 2ηγ until it has passed τ. With `earliest_entry`: the ratio of
    successive times tends to κ.

    Args:
      previous, coordinate, constants, step_size: those of `earliest_entry`.

    Reference: derived; not in Du (2019).
    """
    earliest = earliest_entry(previous, coordinate, constants, step_size=step_size).value
    ratio = growth_ratio(constants, step_size=step_size).value
    value = earliest + ratio * buffer_time(constants, step_size=step_size).value + 1
    formula = "κ (A_k + ⌈1/(2ηγ)⌉) + log(τ/|x_{k+1}^0|) / log(1+2ηγ) + 1"
    return Bound(value, formula, 1.0, source("section 7.7.1", "derived"))


def escape_time(
    d: ArrayLike, constants: Constants = THESIS, *, step_size: ArrayLike, printed: bool = False
) -> Bound:
    """How long gradient descent takes to leave d saddle points: T_d ≥ ((L+γ)/γ)^{d−1} / (2ηγ).

    For every start in [−1, 1]^d, and τ ≥ e. With L = e and γ = 1 it is exp(1.31 (d−1) + log(1/2η)):
    the e^{Ω(d)} of Theorem 7.3.

    Args:
      d: number of saddle points, of any shape.
      constants: L, γ, τ.
      step_size: η ≤ 1/(2L).
      printed: what the lemma itself states, ((L+γ)/γ)^{d−1}.

    Raises:
      ValueError: d < 1, η is not in (0, 1/(2L)], L < γ.

    Example:
      >>> round(escape_time(5, step_size=0.25 / np.e).value)
      1039
      >>> round(escape_time(5, step_size=0.25 / np.e, printed=True).value)
      191

    Reference: Du (2019), Lemmas 7.2 and 7.3.
    """
    _check(d=d)
    ratio = growth_ratio(constants, step_size=step_size, printed=True).value
    lib = library(ratio, d)
    with np.errstate(over="ignore"):  # inf, not an error, as for arrays
        value = lib.power(ratio, real(d) - 1)
        longer = value / (2 * step_size * constants.curvature)
    if printed:
        return Bound(value, "((L+γ)/γ)^{d−1}", 1.0, source("Lemma 7.2"))
    return Bound(longer, "((L+γ)/γ)^{d−1} / (2ηγ)", 1.0, source("proof of Lemma 7.2"))


def distance_to_minima(constants: Constants = THESIS) -> Bound:
    """How far from every local minimum x is while |x_d| ≤ 2τ: 2τ, the Ω(1) of Theorem 7.3.

    Reference: Du (2019), Theorem 7.3; the constant is derived.
    """
    check_constants(constants)
    return Bound(2 * real(constants.tau), "2τ", 1.0, source("Theorem 7.3", "derived"))


def stationarity_accuracy(
    constants: Constants = THESIS, rho: ArrayLike | None = None, *, printed: bool = False
) -> Bound:
    """The ε below which no x with |x_d| < 2τ is ε-second-order stationary: min(2γτ, 4γ²/ρ).

    The remark has ε < γτ and ε ≤ 4γ²/ρ. Gradients in the buffers are 2γτ at least; and at
    ε = 4γ²/ρ the saddle points are stationary in this sense, λ_min = −2γ = −√(ρε): the inequality
    must be strict.

    Args:
      constants: L, γ, τ.
      rho: ρ; None is that of `smoothness` for d ≥ 2.
      printed: min(γτ, 4γ²/ρ).

    Example:
      >>> round(float(stationarity_accuracy().value), 4)
      0.0389

    Reference: Du (2019), Remark 7.2 and Corollary 7.1.
    """
    check_constants(constants)
    rho = smoothness(2, constants).hessian_lipschitz if rho is None else rho
    _check(rho=rho)
    _, curvature, tau = constants
    steep, curved = (1 if printed else 2) * real(curvature) * tau, 4 * curvature**2 / rho
    value = library(steep, curved).minimum(steep, curved)
    if printed:
        return Bound(value, "ε < γτ, ε ≤ 4γ²/ρ", 1.0, source("Remark 7.2"))
    return Bound(value, "ε < min(2γτ, 4γ²/ρ)", 1.0, source("Remark 7.2", "corrected"))


def _logarithms(constants: Constants, step_size: ArrayLike) -> tuple[Any, Any]:
    """log(1 + 2ηγ) and log(1/(1 − 2ηL)); the second is inf at η = 1/(2L)."""
    lib = library(*constants, step_size)
    growth = lib.log1p(2 * step_size * constants.curvature)
    with np.errstate(divide="ignore"):
        decay = -lib.log1p(-lib.minimum(2 * real(step_size) * constants.smoothness, 1.0))
    return growth, decay


def _log_distance(coordinate: ArrayLike, constants: Constants) -> Any:
    """log(τ/|x|), inf for x = 0."""
    check_constants(constants)
    _check(coordinate=coordinate)
    lib = library(coordinate, constants.tau)
    with np.errstate(divide="ignore"):
        return lib.log(constants.tau) - lib.log(lib.abs(real(coordinate)))


def _times(ratio: Any, previous: ArrayLike) -> Any:
    """ratio · previous, 0 where both no step was taken and the ratio is infinite."""
    lib = library(ratio, previous)
    with np.errstate(invalid="ignore"):
        return lib.where(lib.asarray(previous) == 0, 0.0, ratio * previous)
