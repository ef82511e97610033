"""What Song et al. (2021), sections 2 to 4, promise of h(w) = f(Φ(w)), for any network and loss.

Throughout: `near` holds μ, ν, β_Φ of the network and `loss` holds α, β_f of the loss; `dynamics` is
the flow or descent with steps η. The paper hides its constants in O(·); here they are derived,
from its proofs with all factors kept, and an argument `constant` replaces them.

`sharpened=True` is our own improvement: ‖∇h‖ ≥ (μ/2) ‖∇f‖ in place of ‖∇h‖ ≤ (3ν/2) ‖∇f‖ and its
square saves a factor 3 ν/μ in each length, and hence ν altogether.
"""

import math

from jax.typing import ArrayLike

from ntkflow.systems.composite.arguments import (
    Dynamics,
    check,
    check_dynamics,
    check_loss_constants,
    check_near_isometry,
    divide,
    library,
    real,
    source,
)
from ntkflow.systems.composite.constants import LossConstants, NearIsometry
from ntkflow.theory import Bound

# Length of the path ≤ c ν √h(w₀) / (μ² √α). Of the flow: (3/2) ν ∫ ‖∇f‖, and ∫ ‖∇f‖ ≤ √h(w₀)
# / (μ²/8 √(2α)). A step of descent of the largest η lowers h by half of what the flow does.
LENGTH_CONSTANT = {"flow": 6 * math.sqrt(2), "descent": 12 * math.sqrt(2)}
# The same of √h(w₀) / (μ √α): −d√h/dτ ≥ ‖∇h‖ (μ/2) √(2α) / 2.
SHARPENED_LENGTH_CONSTANT = {"flow": 2 * math.sqrt(2), "descent": 4 * math.sqrt(2)}
# C in (14): half of η ‖∇h‖² ≥ η (μ/2)² 2α h.
RATE_CONSTANT = 0.25
# What suffices in (13) as it is printed: 1 / max_{r ≤ 1} (¾ r + 9/4) / (r² + 1), with r = μ/ν.
PRINTED_STEP_CONSTANT = 8 * (math.sqrt(10) - 3) / 3


def ball_radius(near: NearIsometry) -> Bound:
    """ρ_Φ = μ / (2 β_Φ), the radius in which the network stays near-isometric; inf if it is linear.

    Example:
      >>> float(ball_radius(NearIsometry(0.5, 2.0, 5.0)).value)
      0.05
    """
    check_near_isometry(*near)
    value = divide(near.mu, 2 * near.smoothness)
    return Bound(value, "μ / (2 β_Φ)", 1.0, source("Lemma 1, equation (6)"))


def singular_values_in_ball(near: NearIsometry) -> tuple[Bound, Bound]:
    """The bounds on σ_min(∇Φ*(w)) and σ_max(∇Φ*(w)) for ‖w − w₀‖ ≤ ρ_Φ: μ/2 and 3ν/2.

    Example:
      >>> [bound.value for bound in singular_values_in_ball(NearIsometry(0.5, 2.0, 5.0))]
      [0.25, 3.0]
    """
    check_near_isometry(*near)
    place = source("Lemma 1, equation (5)")
    return Bound(near.mu / 2, "μ / 2", 1.0, place), Bound(near.nu * 1.5, "3 ν / 2", 1.0, place)


def output_change(near: NearIsometry, distance: ArrayLike) -> Bound:
    """The bound on ‖Φ(u) − Φ(v)‖ for u, v in the ball, (3ν/2) ‖u − v‖.

    Example:
      >>> output_change(NearIsometry(0.5, 2.0, 5.0), 0.01).value
      0.03
    """
    check_near_isometry(*near)
    check(distance=distance)
    return Bound(near.nu * 1.5 * distance, "(3ν/2) ‖u − v‖", 1.0, source("Lemma 4"))


def flow_length(
    near: NearIsometry,
    loss: LossConstants,
    initial_loss: ArrayLike,
    *,
    sharpened: bool = False,
    constant: ArrayLike | None = None,
) -> Bound:
    """The bound on the length of the flow inside of the ball, c ν √h(w₀) / (μ² √α), c = 6√2.

    (29) goes from σ_min²/2 to μ², where Lemma 1 leaves μ²/8, by a "≥" that holds up to constants
    alone, as the O(·) of the lemma does: c = 1 fails for Φ(w) = w and f(z) = z² already.

    Args:
      near, loss: the constants of Φ and f.
      initial_loss: h(w₀).
      sharpened: c √h(w₀) / (μ √α), c = 2√2, instead.
      constant: c.

    Example:
      >>> near, loss = NearIsometry(0.5, 2.0, 5.0), LossConstants(2.0, 2.0)
      >>> round(float(flow_length(near, loss, 1e-6).value), 4)
      0.048
      >>> round(float(flow_length(near, loss, 1e-6, sharpened=True).value), 4)
      0.004
    """
    return _length(near, loss, initial_loss, "flow", sharpened, constant)


def descent_length(
    near: NearIsometry,
    loss: LossConstants,
    initial_loss: ArrayLike,
    *,
    sharpened: bool = False,
    constant: ArrayLike | None = None,
) -> Bound:
    """The bound on Σ ‖w_{i+1} − w_i‖ for η ≤ `largest_step_size`, c ν √h(w₀) / (μ² √α), c = 12√2.

    (33) has another term, η ν ‖∇f(z_{I−1})‖, for the step that would leave the ball. It is not
    needed: the descent inequality holds for the part of that step that ends on the sphere.

    Args:
      near, loss, initial_loss, constant: as for `flow_length`.
      sharpened: c √h(w₀) / (μ √α), c = 4√2, instead.

    Example:
      >>> near, loss = NearIsometry(0.5, 2.0, 5.0), LossConstants(2.0, 2.0)
      >>> round(float(descent_length(near, loss, 1e-6).value), 4)
      0.096
    """
    return _length(near, loss, initial_loss, "descent", sharpened, constant)


def largest_initial_loss(
    near: NearIsometry,
    loss: LossConstants,
    dynamics: Dynamics,
    *,
    sharpened: bool = False,
    constant: ArrayLike | None = None,
) -> Bound:
    """(9), below which h(w₀) must lie: c α μ⁶ / (β_Φ² ν²), where the length's bound reaches ρ_Φ.

    c = 1/288 for the flow, 1/1152 for descent; inf for a linear network.

    Args:
      near, loss: the constants of Φ and f.
      dynamics: "flow" (Theorem 1) or "descent" (Theorem 2).
      sharpened: c α μ⁴ / β_Φ², c = 1/32 and 1/128, instead: larger by 9 ν²/μ².
      constant: c.

    Example:
      >>> near, loss = NearIsometry(0.5, 2.0, 5.0), LossConstants(2.0, 2.0)
      >>> f"{largest_initial_loss(near, loss, 'flow').value:.3g}"
      '1.09e-06'
      >>> f"{largest_initial_loss(near, loss, 'flow', sharpened=True).value:.3g}"
      '0.000156'
    """
    check_dynamics(dynamics)
    check_near_isometry(*near)
    check_loss_constants(*loss)
    if constant is None:
        table = SHARPENED_LENGTH_CONSTANT if sharpened else LENGTH_CONSTANT
        constant = 1 / (2 * table[dynamics]) ** 2
    check(constant=constant)
    mu = real(near.mu)
    if sharpened:
        value, formula = divide(mu**2, near.smoothness) ** 2, "c α μ⁴ / β_Φ²"
    else:
        value = divide(mu**3, real(near.smoothness) * near.nu) ** 2
        formula = "c α μ⁶ / (β_Φ² ν²)"
    theorem = {"flow": "Theorem 1", "descent": "Theorem 2"}[dynamics]
    note = "sharpened: our own" if sharpened else "c derived from the proof"
    return Bound(
        constant * loss.pl * value, formula, constant, source(f"{theorem}, equation (9)", note)
    )


def gradient_bound(near: NearIsometry, loss: LossConstants, initial_gradient: ArrayLike) -> Bound:
    """The bound on ‖∇f(z)‖ in the ball, ‖∇f(z₀)‖ + ¾ β_f μ ν / β_Φ.

    (34) prints μ ρ_Φ for ν ρ_Φ in its last line but one; its result is right.

    Args:
      near, loss: the constants of Φ and f.
      initial_gradient: ‖∇f(z₀)‖, the norm of the gradient by the outputs.

    Example:
      >>> near, loss = NearIsometry(0.5, 2.0, 5.0), LossConstants(2.0, 2.0)
      >>> round(float(gradient_bound(near, loss, 0.1).value), 4)
      0.4
    """
    check_near_isometry(*near)
    check_loss_constants(*loss)
    check(initial_gradient=initial_gradient)
    reach = divide(loss.smoothness * near.mu * near.nu * 0.75, near.smoothness)
    formula = "‖∇f(z₀)‖ + ¾ β_f μ ν / β_Φ"
    return Bound(initial_gradient + reach, formula, 1.0, source("equation (34)"))


def largest_step_size(
    near: NearIsometry,
    loss: LossConstants,
    initial_gradient: ArrayLike,
    *,
    printed: bool = False,
    constant: ArrayLike = 1.0,
) -> Bound:
    """The largest η of Theorem 2, c / (β_Φ ‖∇f(z₀)‖ + ¾ β_f μ ν + (9/4) β_f ν²), c = 1.

    It is (31) with (34) put in, and suffices for the rate with C = ¼. (13) has β_f μ² + β_f ν²
    in place of the last two terms: (35) goes from μν to μ² as if that made η smaller, and it makes
    it larger. As μ ≤ ν it is right up to its constant, which must be at most
    8 (√10 − 3) / 3 = 0.4327 (`PRINTED_STEP_CONSTANT`).

    Args:
      near, loss: the constants of Φ and f.
      initial_gradient: ‖∇f(z₀)‖, the norm of the gradient by the outputs.
      printed: (13) as it stands.
      constant: c.

    Example:
      >>> near, loss = NearIsometry(0.5, 2.0, 5.0), LossConstants(2.0, 2.0)
      >>> round(float(largest_step_size(near, loss, 0.1).value), 4)
      0.05
    """
    check_near_isometry(*near)
    check_loss_constants(*loss)
    check(initial_gradient=initial_gradient, constant=constant)
    mu, nu = real(near.mu), real(near.nu)
    first = near.smoothness * initial_gradient
    if printed:
        value = divide(constant, first + loss.smoothness * (mu**2 + nu**2))
        formula, note = "c / (β_Φ ‖∇f(z₀)‖ + β_f μ² + β_f ν²)", "as printed; c ≤ 0.4327 suffices"
    else:
        value = divide(constant, first + loss.smoothness * (0.75 * mu * nu + 2.25 * nu**2))
        formula = "c / (β_Φ ‖∇f(z₀)‖ + ¾ β_f μ ν + (9/4) β_f ν²)"
        note = "factors of (31) and (34) kept"
    return Bound(value, formula, constant, source("Theorem 2, equation (13)", note))


def step_decrease(
    near: NearIsometry,
    loss: LossConstants,
    step_size: ArrayLike,
    gradient: ArrayLike,
    output_gradient: ArrayLike,
) -> Bound:
    """The least decrease of h in one step inside of the ball, ‖∇h‖ and ‖∇f‖ given.

    η ‖∇h‖² (1 − η β_Φ ‖∇f‖ / 2 − 9 η β_f ν² / 8), and at least η ‖∇h‖² / 2 for
    η ≤ `largest_step_size`.

    Example:
      >>> near, loss = NearIsometry(0.5, 2.0, 5.0), LossConstants(2.0, 2.0)
      >>> round(float(step_decrease(near, loss, 0.05, 0.1, 0.1).value), 7)
      0.0002688
    """
    check_near_isometry(*near)
    check_loss_constants(*loss)
    check(step_size=step_size, gradient=gradient, output_gradient=output_gradient)
    curvature = near.smoothness * output_gradient / 2 + 1.125 * loss.smoothness * real(near.nu) ** 2
    value = step_size * real(gradient) ** 2 * (1 - step_size * curvature)
    formula = "η ‖∇h‖² (1 − η β_Φ ‖∇f‖ / 2 − 9 η β_f ν² / 8)"
    return Bound(value, formula, 1.0, source("appendix C, descent inequality"))


def flow_rate(near: NearIsometry, loss: LossConstants, times: ArrayLike) -> Bound:
    """The bound on h(w(t)) / h(w₀) along the flow, exp(−α μ² t / 2).

    Theorem 1 names no rate; (27) with Lemma 1 and the PL condition gives it.

    Example:
      >>> near, loss = NearIsometry(0.5, 2.0, 5.0), LossConstants(2.0, 2.0)
      >>> round(float(flow_rate(near, loss, 4.0).value), 4)
      0.3679
    """
    check_near_isometry(*near)
    check_loss_constants(*loss)
    exponent = loss.pl * real(near.mu) ** 2 / -2
    value = library(exponent, times).exp(exponent * times)
    return Bound(value, "exp(−α μ² t / 2)", 0.5, source("Theorem 1", "rate derived from (27)"))


def descent_rate(
    near: NearIsometry,
    loss: LossConstants,
    step_size: ArrayLike,
    steps: ArrayLike = 1,
    *,
    constant: ArrayLike = RATE_CONSTANT,
) -> Bound:
    """The bound on h(w_i) / h(w₀), (1 − C η α μ²)ⁱ, C = ¼ for η ≤ `largest_step_size`.

    Example:
      >>> near, loss = NearIsometry(0.5, 2.0, 5.0), LossConstants(2.0, 2.0)
      >>> round(float(descent_rate(near, loss, 0.05, 100).value), 4)
      0.5342
    """
    check_near_isometry(*near)
    check_loss_constants(*loss)
    check(step_size=step_size, constant=constant)
    base = 1 - constant * step_size * loss.pl * real(near.mu) ** 2
    value = library(base, steps).power(base, real(steps))
    note = "C = ¼ derived from (36)"
    return Bound(value, "(1 − C η α μ²)ⁱ", constant, source("Theorem 2, equation (14)", note))


def _length(near, loss, initial_loss, dynamics, sharpened, constant) -> Bound:
    check_near_isometry(*near)
    check_loss_constants(*loss)
    table = SHARPENED_LENGTH_CONSTANT if sharpened else LENGTH_CONSTANT
    constant = table[dynamics] if constant is None else constant
    check(initial_loss=initial_loss, constant=constant)
    root = divide(real(initial_loss), loss.pl) ** 0.5
    mu = real(near.mu)
    if sharpened:
        value, formula = divide(constant * root, mu), "c √h(w₀) / (μ √α)"
    else:
        value, formula = divide(constant * root * near.nu, mu**2), "c ν √h(w₀) / (μ² √α)"
    place = {"flow": "Lemma 2", "descent": "equation (33)"}[dynamics]
    note = "sharpened: our own" if sharpened else "c derived from the proof"
    return Bound(value, formula, constant, source(place, note))
