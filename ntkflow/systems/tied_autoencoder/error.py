"""The error ‖x − u‖² of one sample at initialization: Lemma 6.1 of Nguyen, Wong and Hegde (2019a).

Throughout: d the dimension, m the width, `variance` σ² of an entry of W, `norm` ‖x‖. By rotation
all inputs of one norm are alike. Arguments are scalars or arrays that broadcast.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.arguments import check, real, source as _source
from ntkflow.theory import Bound

source = functools.partial(_source, "Nguyen, Wong and Hegde (2019a)")


def expected_error(
    d: ArrayLike, m: ArrayLike, variance: ArrayLike = 2.0, norm: ArrayLike = 1.0
) -> Bound:
    """E ‖x − u‖² = ((σ²/2 − 1)² + (2d + 3) σ⁴/4m) ‖x‖², exactly.

    The first term is the bias of u, whose mean is σ²x/2; the second its variance, 1/m of that of
    φ(w·x) w. With σ² = 2 it is (2d + 3) ‖x‖²/m.

    Example:
      >>> float(expected_error(10, 50).value)
      0.46

    Reference: Nguyen, Wong and Hegde (2019a), Lemma 6.1.
    """
    check(d=d, m=m, variance=variance, norm=norm)
    spread = (2 * real(d) + 3) * variance**2 / (4 * real(m))
    value = ((variance / 2 - 1) ** 2 + spread) * norm**2
    formula = "(σ²/2 − 1)² ‖x‖² + (2d + 3) σ⁴ ‖x‖² / 4m"
    return Bound(value, formula, 1.0, source("Lemma 6.1, equation (6.4)"))


def error_variance(
    d: ArrayLike, m: ArrayLike, variance: ArrayLike = 2.0, norm: ArrayLike = 1.0
) -> Bound:
    """Var ‖x − u‖² over draws of W, exactly. Not in the paper.

    With T = (1/m) Σ_r φ(z_r)², z_r = w_r·x/(σ‖x‖) ~ N(0, 1), the part of u along x is σ²T x, and
    that across it is Gaussian given T: ‖x − u‖² = ‖x‖² ((1 − σ²T)² + σ⁴ (T/m) χ²_{d−1}). T has the
    mean ½ and the cumulants 5/4m, 11/2m², 279/8m³. At σ² = 2, as m grows, ‖x − u‖² is distributed
    as (5 χ²_1 + 2 χ²_{d−1}) ‖x‖²/m: its standard deviation is √(8d + 42)/(2d + 3) of its mean.

    Example:
      >>> float(error_variance(10, 10_000).value * 10_000**2).__round__(1)  # 8d + 42
      122.4
    """
    check(d=d, m=m, variance=variance, norm=norm)
    across, m = real(d) - 1, real(m)
    second, third, fourth = 5 / (4 * m), 11 / (2 * m**2), 279 / (8 * m**3) + 75 / (16 * m**2)
    # ‖x − u‖²/‖x‖² given T = ½ + τ: its variance, and its mean, which is slope τ + σ⁴τ² + const.
    given = 2 * across * variance**4 / m**2 * (1 / 4 + second)
    slope = variance**2 * across / m - 2 * variance * (1 - variance / 2)
    of_mean = slope**2 * second + 2 * slope * variance**2 * third
    of_mean += variance**4 * (fourth - second**2)
    formula = "E Var(‖x − u‖² | T) + Var E(‖x − u‖² | T)"
    return Bound((given + of_mean) * norm**4, formula, 1.0, source("section 6", "derived"))


def best_variance(d: ArrayLike, m: ArrayLike) -> Bound:
    """The σ² that minimizes (6.4) at width m: 2m/(m + 2d + 3), which tends to 2.

    The error is then (2d + 3)/(m + 2d + 3) of ‖x‖², less than ‖x‖² at every width, where σ² = 2
    has (2d + 3)/m. Not in the paper, which has m → ∞ in mind.

    Example:
      >>> float(best_variance(10, 69).value.__round__(6)), float(best_variance(10, 10**6).value)
      (1.5, 1.999954...)
    """
    check(d=d, m=m)
    value = 2 * real(m) / (m + 2 * real(d) + 3)
    return Bound(value, "2m / (m + 2d + 3)", 1.0, source("Lemma 6.1", "derived from (6.4)"))


def required_width(
    d: ArrayLike, error: ArrayLike, norm: ArrayLike = 1.0, *, printed: bool = False
) -> Bound:
    """The width from which E ‖x − u‖² ≤ ε at σ² = 2, without any training: (2d + 3) ‖x‖²/ε.

    Remark 6.1 prints 3d/ε, of a unit input, which suffices for d ≥ 3 and does not for d = 1, 2.

    Args:
      d: dimension.
      error: ε > 0.
      norm: ‖x‖.
      printed: whether to take 3d for 2d + 3.

    Example:
      >>> [float(required_width(d, 0.1, printed=p).value) for d in (1, 10) for p in (False, True)]
      [50.0, 30.0, 230.0, 300.0]

    Reference: Nguyen, Wong and Hegde (2019a), Remark 6.1.
    """
    check(d=d, norm=norm)
    if checks.is_concrete(error) and not np.all(np.asarray(error) > 0):
        raise ValueError(f"error is {error}; expected greater than 0: no finite width has none.")
    count = 3 * real(d) if printed else 2 * real(d) + 3
    formula = "3d ‖x‖² / ε" if printed else "(2d + 3) ‖x‖² / ε"
    note = "as printed, for d ≥ 3" if printed else "exact; printed 3d/ε"
    return Bound(count * norm**2 / error, formula, 1.0, source("Remark 6.1", note))


def mean_feature(x: ArrayLike, variance: ArrayLike = 2.0) -> jax.Array:
    """E[φ(w·x) w] = σ²x/2 for w ~ N(0, σ²I), the mean of u; shape of x.

    The text has E[wwᵀ] = I in the line after it, for σ²I.

    Example:
      >>> mean_feature(jnp.array([1.0, -2.0]), variance=3.0).tolist()
      [1.5, -3.0]

    Reference: Nguyen, Wong and Hegde (2019a), the line before (6.2).
    """
    check(variance=variance)
    return jnp.asarray(x) * (variance / 2)


def second_moment(
    d: ArrayLike, variance: ArrayLike = 1.0, norm: ArrayLike = 1.0, *, printed: bool = False
) -> Bound:
    """E[φ(w·x)² ‖w‖²] = (d + 2) σ⁴ ‖x‖²/2 for w ~ N(0, σ²I): 3/2 along x, (d − 1)/2 across it.

    The line after (6.3) prints (2d + 4) σ⁴ ‖x‖², four times that; (6.4) follows from the right one.

    Example:
      >>> float(second_moment(4).value), float(second_moment(4, printed=True).value)
      (3.0, 12.0)

    Reference: Nguyen, Wong and Hegde (2019a), equation (6.3).
    """
    check(d=d, variance=variance, norm=norm)
    value = (real(d) + 2) * variance**2 * norm**2 / 2
    if printed:
        place = source("the line after (6.3)", "as printed")
        return Bound(4 * value, "(2d + 4) σ⁴ ‖x‖²", 1.0, place)
    return Bound(value, "(d + 2) σ⁴ ‖x‖² / 2", 1.0, source("equation (6.3)", "scaled by σ⁴"))


class ErrorTerms(NamedTuple):
    """The mean of (6.1), term by term: E ‖x − u‖² is their sum.

    Attributes:
      input: ‖x‖².
      cross: −2 E[x·u] = −σ² ‖x‖².
      pairs: of different neurons in E ‖u‖², (m − 1) σ⁴ ‖x‖²/4m.
      own: of each neuron with itself, E[φ(w·x)² ‖w‖²]/m.
    """

    input: ArrayLike
    cross: ArrayLike
    pairs: ArrayLike
    own: ArrayLike


def error_terms(
    d: ArrayLike,
    m: ArrayLike,
    variance: ArrayLike = 2.0,
    norm: ArrayLike = 1.0,
    *,
    printed: bool = False,
) -> ErrorTerms:
    """Expand E ‖x − u‖² as (6.2) does.

    The first line of (6.2) is printed without σ² in the cross term, −‖x‖², and with m in place of
    1/m before the own term; its second line is right. `printed=True` has the first line.

    Example:
      >>> terms = error_terms(10, 50)
      >>> [float(term) for term in terms], round(float(sum(terms)), 6)
      ([1.0, -2.0, 0.98, 0.48], 0.46)

    Reference: Nguyen, Wong and Hegde (2019a), equation (6.2).
    """
    check(d=d, m=m, variance=variance, norm=norm)
    squared, m = norm**2, real(m)
    own = second_moment(d, variance, norm).value
    return ErrorTerms(
        input=squared,
        cross=-1.0 * squared if printed else -1.0 * variance * squared,
        pairs=(m - 1) / (4 * m) * variance**2 * squared,
        own=m * own if printed else own / m,
    )
