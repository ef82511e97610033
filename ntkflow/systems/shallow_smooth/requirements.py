"""Song et al. (2021), Theorem 3: the width that it asks for, in orders and for given data.

`phi` is `constants(activation, scale=omega1)`, the numbers of z ↦ φ(ω₁z); with `printed=True` it is
`constants(activation)`, and ω₁ enters by the exponents r₁ and r₂.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.composite.arguments import divide
from ntkflow.systems.composite.bounds import largest_initial_loss
from ntkflow.systems.composite.constants import NearIsometry
from ntkflow.systems.shallow_smooth.arguments import Activation, check, library, real, source
from ntkflow.systems.shallow_smooth.failure import failure_probability, initial_output_failure
from ntkflow.systems.shallow_smooth.initialization import Scales
from ntkflow.systems.shallow_smooth.network_bounds import (
    SQUARED_SUM,
    initial_loss,
    near_isometry_bound,
)
from ntkflow.systems.shallow_smooth.setting import (
    SLACK,
    DataConstants,
    Slack,
    check_data,
    check_setting,
    check_slack,
    coefficient,
    exponent,
    has_mean,
)
from ntkflow.systems.shallow_smooth.spectra import ActivationConstants, constants
from ntkflow.theory import Bound

# (9) for descent, h(Θ_0) ≤ α μ⁶/(1152 β²ν²), solved for d_1 as (77) does.
WIDTH_CONSTANT = math.sqrt(1152)
_LARGEST_WIDTH = 10**60


def width_factor(
    phi: ActivationConstants,
    t: int,
    *,
    d_2: ArrayLike = 1,
    largest_output_norm: ArrayLike | None = None,
    slack: Slack = SLACK,
    omega1: ArrayLike = 1.0,
    printed: bool = False,
) -> Bound:
    """ξ of (20), the factor of the width that does not depend on d_0, d_1 and n.

    ξ² = δ₃² k₁²k₂² d_2 c_0² (1 + δ₂) (φ'_max + φ''_max χ)² t!³ / ((1 − δ₁)³ c_t⁶). Printed, with
    δ₄⁴ = max(k₁, k₂)⁴, without d_2, and over ω₁^{6r₁−2r₂}.

    Args:
      phi: `constants(activation, scale=omega1)`; printed, `constants(activation)`.
      t: a power with c_t ≠ 0.
      d_2: outputs, which (75) loses.
      largest_output_norm: χ; None is Assumption 2's φ'_max/φ''_max, with the constant 1.
      slack: C_δ.
      omega1: ω₁, for the printed form alone.

    Raises:
      ValueError: c_0 or c_t is 0, or a number is not in its range.

    Example:
      >>> from ntkflow.systems.shallow_smooth.network import gelu
      >>> round(float(width_factor(constants(gelu), t=2).value), 1)
      988.4

    Reference: Song et al. (2021), (78).
    """
    check_slack(slack)
    check(d_2=d_2, omega1=omega1)
    if not has_mean(phi):
        raise ValueError(
            "c_0 of the activation is 0; expected one with c_0 ≠ 0, which is no odd one: the width "
            "of (20) supposes that c_0 dominates ν. `smallest_width` does not."
        )
    c_0, c_t = float(phi.coefficients[0]), coefficient(phi, t)
    bend: Any = phi.slope
    if largest_output_norm is not None:
        check(largest_output_norm=largest_output_norm)
        bend = phi.curvature * largest_output_norm if phi.curvature else 0.0
    share = (1 + real(slack.delta_2)) / (1 - real(slack.delta_1)) ** 3
    squared = real(slack.delta_3) ** 2 * c_0**2 * share * (phi.slope + bend) ** 2
    squared = squared * math.factorial(t) ** 3 / c_t**6
    if printed:
        largest = library(slack.k_1, slack.k_2).maximum(slack.k_1, slack.k_2)
        power = exponent(phi, "r1", omega1) ** 3 / exponent(phi, "r2", omega1)
        value = squared**0.5 * largest**2 / power
        formula = (
            "√(δ₃² c_0² (1 + δ₂) δ₄⁴ (φ'_max + φ''_max χ)² t!³ / (ω₁^{6r₁−2r₂} (1 − δ₁)³ c_t⁶))"
        )
        return Bound(value, formula, 1.0, source("(78)", "as printed"))
    value = squared**0.5 * slack.k_1 * slack.k_2 * real(d_2) ** 0.5
    formula = "√(δ₃² c_0² (1 + δ₂) k₁²k₂² d_2 (φ'_max + φ''_max χ)² t!³ / ((1 − δ₁)³ c_t⁶))"
    return Bound(value, formula, 1.0, source("(78)", "with d_2 and c_i of z ↦ φ(ω₁z)"))


def required_width(
    phi: ActivationConstants,
    data: DataConstants,
    *,
    d_2: ArrayLike = 1,
    largest_output_norm: ArrayLike | None = None,
    slack: Slack = SLACK,
    omega1: ArrayLike = 1.0,
    constant: ArrayLike = WIDTH_CONSTANT,
    printed: bool = False,
) -> Bound:
    """The width of Theorem 3, C ξ σ_max²(X) √n / σ_min³(X^{*t}).

    It solves (9) where |c_0| √((1 + δ₂) d_1n) stands for ν, (75) for h(Θ_0), and ‖Y‖ is left out:
    an order. `smallest_width` solves it with all terms. On `order_estimates(n, d_0)` it is the
    threshold curve n^{3/2}/d_0.

    Args:
      phi, d_2, largest_output_norm, slack, omega1, printed: as for `width_factor`.
      data: numbers of the data, arrays of them for a curve.
      constant: C = √1152, derived from (9) for descent; √288 for the flow.

    Example:
      >>> import numpy as np
      >>> from ntkflow.systems.shallow_smooth.network import gelu
      >>> from ntkflow.systems.shallow_smooth.setting import order_estimates
      >>> data = order_estimates(np.array([100, 400]), d_0=np.array([10, 20]))
      >>> required_width(constants(gelu), data).value.round(-3).tolist()
      [3355000.0, 13419000.0]

    Reference: Song et al. (2021), (20) and (79).
    """
    check_setting(phi, data)
    check(constant=constant)
    xi = width_factor(
        phi, data.t, d_2=d_2, largest_output_norm=largest_output_norm, slack=slack,
        omega1=omega1, printed=printed,
    ).value  # fmt: skip
    value = constant * xi * real(data.norm) ** 2 * real(data.n) ** 0.5
    value = divide(value, real(data.power) ** 3)
    formula = "d_1 = C ξ σ_max²(X) √n / σ_min³(X^{*t})"
    note = "ξ as printed; C = √1152 derived" if printed else "C = √1152 derived"
    return Bound(value, formula, constant, source("(20)", note))


def relaxed_width(data: DataConstants, *, constant: ArrayLike = 1.0) -> Bound:
    """The width without the assumption on ‖V_k‖, C (n² σ_max⁶(X) / σ_min¹⁰(X^{*t}))^{1/3}.

    Example:
      >>> from ntkflow.systems.shallow_smooth.setting import order_estimates
      >>> round(float(relaxed_width(order_estimates(n=1000, d_0=10)).value), 1)
      10000.0

    Reference: Song et al. (2021), end of appendix E.7.
    """
    check_data(data)
    check(constant=constant)
    value = constant * real(data.n) ** (2 / 3) * data.norm**2
    value = divide(value, real(data.power) ** (10 / 3))
    formula = "d_1 = C (n² σ_max⁶(X) / σ_min¹⁰(X^{*t}))^{1/3}"
    return Bound(value, formula, constant, source("appendix E.7, without the bound on ‖V_k‖"))


def width_order(
    n: ArrayLike, d_0: ArrayLike, *, relaxed: bool = False, constant: ArrayLike = 1.0
) -> Bound:
    """The order of the width, C n^{3/2}/d_0, or n^{5/3}/d_0 without the assumption on ‖V_k‖.

    Times d_0 it is the number of parameters. It is n for d_0 ≃ √n. Arrays make curves.

    Args:
      n, d_0: samples and inputs, n ≃ d_0^t with t ≥ 2.
      relaxed: the second one.
      constant: C, which holds ξ and logarithms.

    Example:
      >>> round(float(width_order(n=10_000, d_0=100).value))
      10000

    Reference: Song et al. (2021), (21) and (80); end of appendix E.7.
    """
    check(n=n, d_0=d_0, constant=constant)
    if relaxed:
        value, formula, place = real(n) ** (5 / 3), "d_1 = C n^{5/3}/d_0", "end of appendix E.7"
    else:
        value, formula, place = real(n) ** 1.5, "d_1 = C n^{3/2}/d_0", "(21), (80)"
    return Bound(constant * value / d_0, formula, constant, source(place))


class Requirement(NamedTuple):
    """What Theorem 2 asks of a shallow network, by the bounds at its initialization.

    Attributes:
      initial_loss: the bound on h(Θ_0).
      largest_initial_loss: what (9) allows.
      near: μ, ν, β_Φ from the bounds, χ by (81) or as given.
      failure: ψ, the probability that one of the bounds fails.
    """

    initial_loss: Any
    largest_initial_loss: Any
    near: NearIsometry
    failure: Any

    @property
    def holds(self) -> Any:
        """Whether the bound on h(Θ_0) meets (9); the failure is another matter."""
        return self.initial_loss <= self.largest_initial_loss


def requirement(
    phi: ActivationConstants,
    data: DataConstants,
    d_1: ArrayLike,
    scales: Scales,
    *,
    d_2: ArrayLike = 1,
    largest_output_norm: ArrayLike | None = None,
    slack: Slack = SLACK,
    constant: ArrayLike | None = None,
) -> Requirement:
    """Both sides of (9) at a width, with no term left out, and ψ.

    Args:
      phi: `constants(activation, scale=scales.omega1)`.
      data: of `data_constants(x, t, y)`.
      d_1, d_2: width and outputs.
      scales: ω₁ and ω₂.
      largest_output_norm: χ, as Assumption 2 gives it; None needs no assumption and bounds it by
        (81).
      slack: C_δ.
      constant: of (9); None is 1/1152, derived for descent. The flow's is 1/288.

    Example:
      >>> from ntkflow.systems.shallow_smooth.initialization import Scales
      >>> from ntkflow.systems.shallow_smooth.network import gelu
      >>> data = DataConstants(n=4, d_0=4, norm=1.0, power=1.0, t=2)
      >>> [bool(requirement(constants(gelu), data, width, Scales(1.0, 1e-9)).holds)
      ...  for width in (10_000, 20_000)]
      [False, True]

    Reference: Song et al. (2021), appendix E.6 and Theorem 2.
    """
    omega1, omega2 = scales
    start = initial_loss(phi, data, d_1, d_2, omega1, omega2, slack=slack).value
    known = {"initial_loss": start} if largest_output_norm is None else {}
    near = near_isometry_bound(
        phi, data, d_1, d_2, omega2, slack=slack, largest_output_norm=largest_output_norm, **known
    )
    allowed = largest_initial_loss(near, SQUARED_SUM, "descent", constant=constant).value
    failure = failure_probability(phi, data, d_1, d_2, omega1, slack=slack).value
    return Requirement(start, allowed, near, failure)


def smallest_width(
    activation: Activation,
    data: DataConstants,
    scales: Any,
    *,
    d_2: int = 1,
    failure: float = 1.0,
    largest_output_norm: ArrayLike | None = None,
    slack: Slack = SLACK,
    constant: ArrayLike | None = None,
) -> int:
    """Find the smallest width at which Theorem 3 holds for given data, with all its constants.

    By bisection for (9), `requirement`, and ψ ≤ `failure`, from d_1 = 3 on: what a width has, the
    larger ones are supposed to have too, as they do for He's deviations and for fixed ones.

    Args:
      activation: φ.
      data: of `data_constants(x, t, y)`.
      scales: a function from the width to ω₁ and ω₂, e.g. `lambda width: he(d_0, width)`.
      d_2: outputs.
      failure: the largest ψ allowed; 1 asks for (9) alone.
      largest_output_norm, slack, constant: as for `requirement`.

    Returns:
      d_1.

    Raises:
      ValueError: none up to 10⁶⁰ will do, as where σ_min(X^{*t}) = 0; or c_t = 0.

    Example:
      >>> from ntkflow.systems.shallow_smooth.initialization import Scales
      >>> from ntkflow.systems.shallow_smooth.network import gelu
      >>> data = DataConstants(n=4, d_0=4, norm=1.0, power=1.0, t=2)
      >>> smallest_width(gelu, data, lambda width: Scales(1.0, 1e-9))
      17311

    Reference: Song et al. (2021), Theorem 3.
    """
    if not callable(scales):
        raise ValueError(
            f"scales is of type {type(scales).__name__}; expected a function from the width to "
            "ω₁ and ω₂, e.g. lambda width: he(d_0, width)."
        )
    check(d_2=d_2, failure=failure)
    check_data(data)
    found: dict[float, ActivationConstants] = {}

    def suffices(width: int) -> bool:
        deviations = Scales(*scales(width))
        omega1 = np.asarray(deviations.omega1, float).item()
        if omega1 not in found:  # He's ω₁ is the same at each width
            found[omega1] = constants(activation, terms=max(9, data.t + 1), scale=omega1)
        result = requirement(
            found[omega1], data, width, deviations, d_2=d_2, slack=slack, constant=constant,
            largest_output_norm=largest_output_norm,
        )  # fmt: skip
        return bool(result.holds) and bool(result.failure <= failure)

    if data.power == 0:
        raise ValueError(
            f"σ_min(X^{{*t}}) is 0 for t = {data.t}: no width suffices. Samples are parallel or "
            "too many for this t: take a larger one."
        )
    if not suffices(_LARGEST_WIDTH):
        outputs = initial_output_failure(slack.delta_3).value
        raise ValueError(
            "No width suffices, 10⁶⁰ neither. Where ω₁ω₂ falls more slowly than 1/√d_1, h(Θ_0) of "
            "(73) grows; φ'_max and φ''_max must be finite; and ψ ≤ failure asks for more than "
            f"p_5 = {outputs:.3g} (raise slack.delta_3), and for k_1 and k_2 that are large enough."
        )
    return smallest_integer(suffices, start=3, largest=_LARGEST_WIDTH)


def smallest_integer(
    suffices: Callable[[int], bool], *, start: int = 1, largest: int = 2**20
) -> int:
    """Find the smallest number ≥ start with a property that larger ones have too, by bisection.

    For the smallest width that fits, measured: `suffices(width)` trains a network of that width.

    Args:
      suffices: the property; where it is not monotone, some number that has it while the one below,
        or `start`, has not.
      start: the first number tried; then its doubles.
      largest: where the search gives up.

    Raises:
      ValueError: none up to `largest` has the property.

    Example:
      >>> smallest_integer(lambda width: width**2 >= 1000)
      32

    Reference: Song et al. (2021), section 5.3: the width to be compared with n^{3/2}/d_0.
    """
    low, high = checks.positive_int("start", start) - 1, start
    while not suffices(high):
        if high >= largest:
            raise ValueError(f"No number up to {largest:.3g} suffices; raise `largest`.")
        low, high = high, min(2 * high, largest)
    while high - low > 1 and high > start:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high
