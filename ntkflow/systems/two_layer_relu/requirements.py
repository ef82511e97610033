"""What Du (2019), chapter 2, asks of width, step size and weights, for the loss ½ Σ_i (f − y)².

Arguments and conventions are those of `bounds`. The proofs determine most constants that the text
leaves open in Ω(·) and O(·); those stand here.
"""

from jax.typing import ArrayLike

from ntkflow.systems.two_layer_relu.arguments import (
    DISTANCE_FACTOR,
    RADIUS_CONSTANT,
    Dynamics,
    check,
    check_dynamics,
    library,
    real,
    source,
)
from ntkflow.theory import Bound


def required_width(
    n: ArrayLike,
    lambda_0: ArrayLike,
    delta: ArrayLike,
    *,
    constant: ArrayLike = 1.0,
    printed: bool = False,
) -> Bound:
    """The width of Theorems 2.2 and 2.3, m = Ω(n⁶ / (λ_0⁴ δ³)).

    Both theorems print λ_0⁶; the text after them and the proof (`confined_width` with
    ‖y − u(0)‖² = O(n/δ)) give λ_0⁴. `sufficient_constant` gives a constant that suffices.

    Example:
      >>> f"{required_width(10, 0.25, 0.1).value:.3g}"
      '2.56e+11'
    """
    check(n=n, lambda_0=lambda_0, delta=delta, constant=constant)
    power = 6 if printed else 4
    value = constant * (real(n) ** 6 / (lambda_0**power * delta**3))
    formula = f"m = Ω(n⁶ / (λ_0{'⁶' if printed else '⁴'} δ³))"
    note = "as printed" if printed else "λ_0⁴ as in the proof; the theorems print λ_0⁶"
    return Bound(value, formula, constant, source("Theorems 2.2 and 2.3", note))


def sufficient_constant(label_bound: ArrayLike, dynamics: Dynamics) -> Bound:
    """A constant that suffices in `required_width`, for labels |y_i| ≤ C.

    Three events fail with probability δ each in the proof (Lemma 2.1, Lemma 2.2 or 2.5, and
    Markov's inequality for ‖y − u(0)‖² ≤ n (C² + ½) / δ), whose union the text counts as δ. With
    δ/3 for each, R' < R becomes m > 27 f² (C² + ½) / c² · n⁶ / (λ_0⁴ δ³), where f = 2, c = √(2π)/16
    for the flow and f = 4, c = √(2π)/32 for descent. Lemma 2.1's width is smaller, as λ_0 ≤ ½.

    Example:
      >>> [round(sufficient_constant(1.0, dynamics).value) for dynamics in ("flow", "descent")]
      [6600, 105608]
    """
    check(label_bound=label_bound)
    check_dynamics(dynamics)
    ratio = DISTANCE_FACTOR[dynamics] / RADIUS_CONSTANT[dynamics]
    value = 27 * ratio**2 * (label_bound**2 + 0.5)
    place = source("proofs of Theorems 2.2 and 2.3", "derived; the text leaves Ω(·) open")
    return Bound(value, "27 f² (C² + ½) / c²", 1.0, place)


def largest_step_size(n: ArrayLike, lambda_0: ArrayLike, *, constant: ArrayLike = 1.0) -> Bound:
    """The step size of Theorem 2.3, η = O(λ_0 / n²); the proof holds with the constant ¼.

    Example:
      >>> largest_step_size(5, 0.25, constant=0.25).value
      0.0025
    """
    check(n=n, lambda_0=lambda_0, constant=constant)
    value = constant * (lambda_0 / real(n) ** 2)
    return Bound(value, "η = O(λ_0 / n²)", constant, source("Theorem 2.3", "¼ suffices"))


def initial_gram_width(
    n: ArrayLike,
    lambda_0: ArrayLike,
    delta: ArrayLike,
    *,
    constant: ArrayLike | None = None,
    printed: bool = False,
) -> Bound:
    """The width of Lemma 2.1, above which ‖H(0) − H^∞‖ ≤ λ_0/4 and λ_min(H(0)) ≥ ¾ λ_0.

    From n · `initial_gram_entry_deviation` ≤ λ_0/4: m ≥ 8 n² log(2n²/δ) / λ_0²; the printed
    deviation gives 256 n² log(n/δ) / λ_0². The constant is the proof's where it is None.

    Example:
      >>> [round(float(initial_gram_width(10, 0.25, 0.1, printed=p).value)) for p in (False, True)]
      [97292, 1886278]
    """
    check(n=n, lambda_0=lambda_0, delta=delta)
    log = library(n, lambda_0, delta).log
    proof, ratio = (256.0, real(n) / delta) if printed else (8.0, 2 * real(n) ** 2 / delta)
    constant = proof if constant is None else constant
    value = constant * (real(n) ** 2 * log(ratio) / lambda_0**2)
    formula = f"m = Ω(n² log({'n/δ' if printed else '2n²/δ'}) / λ_0²)"
    note = f"constant {proof:g} from the proof" + ("" if printed else ", by Hoeffding's inequality")
    return Bound(value, formula, constant, source("Lemma 2.1", note))


def confined_width(
    n: ArrayLike,
    lambda_0: ArrayLike,
    delta: ArrayLike,
    residual_norm: ArrayLike,
    dynamics: Dynamics,
) -> Bound:
    """The width above which R' < R, so that Lemma 2.4 holds: f² n⁵ ‖y − u(0)‖² / (c² λ_0⁴ δ²).

    Example:
      >>> [f"{confined_width(3, 0.25, 0.1, 2.0, d).value:.3g}" for d in ("flow", "descent")]
      ['4.06e+09', '6.49e+10']
    """
    check(n=n, lambda_0=lambda_0, delta=delta, residual_norm=residual_norm)
    check_dynamics(dynamics)
    constant = (DISTANCE_FACTOR[dynamics] / RADIUS_CONSTANT[dynamics]) ** 2
    value = constant * (real(n) ** 5 * residual_norm**2 / (lambda_0**4 * delta**2))
    place = source("Lemma 2.4 and the line after it", "constant from the proofs")
    return Bound(value, "m = Ω(n⁵ ‖y − u(0)‖² / (λ_0⁴ δ²))", constant, place)


def stable_radius(
    n: ArrayLike,
    lambda_0: ArrayLike,
    delta: ArrayLike,
    dynamics: Dynamics,
    *,
    constant: ArrayLike | None = None,
    printed: bool = False,
) -> Bound:
    """R = c δ λ_0 / n²: H stays within λ_0/4 of H(0) while every w_r stays within R of w_r(0).

    The constants are those of the proofs, c = √(2π)/16 for the flow (Lemma 2.2) and √(2π)/32 for
    descent (section 2.3.1). For descent the text prints R = c λ_0 / n² without δ; its last
    inequality, 2C (n² + n^1.5) R / δ + η n² ≤ λ_0/2, then fails for every fixed c as δ → 0.

    Example:
      >>> f"{stable_radius(10, 0.25, 0.1, 'flow').value:.3g}"
      '3.92e-05'
    """
    check(n=n, lambda_0=lambda_0, delta=delta)
    check_dynamics(dynamics)
    constant = RADIUS_CONSTANT[dynamics] if constant is None else constant
    value = constant * (lambda_0 / real(n) ** 2)
    place = "Lemma 2.2" if dynamics == "flow" else "section 2.3.1"
    if printed and dynamics == "descent":
        return Bound(value, "R = c λ_0 / n²", constant, source(place, "as printed, without δ"))
    note = "constant from the proof" + ("" if dynamics == "flow" else "; printed without δ")
    return Bound(value * delta, "R = c δ λ_0 / n²", constant, source(place, note))
