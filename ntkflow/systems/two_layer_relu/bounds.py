"""What Du (2019), chapter 2, promises of a run on the loss ½ Σ_i (f(x_i) − y_i)², without 1/n.

Throughout: n samples of unit norm, m the width, λ_0 = λ_min(H^∞), δ the probability of failure,
`residual_norm` = ‖y − u(0)‖ unless said. Arguments are scalars or arrays that broadcast; what the
theorems do not speak of is refused with a ValueError. Where the text errs, the corrected quantity
is the default, and `printed=True` gives the other.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.two_layer_relu.arguments import (
    ANTI_CONCENTRATION,
    DISTANCE_FACTOR,
    Dynamics,
    check,
    check_dynamics,
    library,
    real,
    source,
)
from ntkflow.theory import Bound


def error_decay_flow(times: ArrayLike, lambda_0: ArrayLike) -> Bound:
    """The bound on ‖u(t) − y‖² / ‖u(0) − y‖² along the flow, exp(−λ_0 t).

    Example:
      >>> error_decay_flow(2.0, 0.5).value.round(4).item()
      0.3679
    """
    check(lambda_0=lambda_0)
    value = library(times, lambda_0).exp(lambda_0 * -real(times))
    return Bound(value, "exp(−λ_0 t)", 1.0, source("Theorem 2.2, Lemma 2.3"))


def error_decay_descent(steps: ArrayLike, lambda_0: ArrayLike, step_size: ArrayLike) -> Bound:
    """The bound on ‖u(k) − y‖² / ‖u(0) − y‖² along gradient descent, (1 − ηλ_0/2)^k.

    Example:
      >>> error_decay_descent(2, 0.5, 0.4).value.round(4).item()
      0.81
    """
    check(lambda_0=lambda_0, step_size=step_size)
    base = 1 - step_size * lambda_0 / 2
    value = library(steps, lambda_0, step_size).power(base, real(steps))
    return Bound(value, "(1 − ηλ_0/2)ᵏ", 1.0, source("Theorem 2.3, Condition 2.1"))


def initial_gram_entry_deviation(
    n: ArrayLike, m: ArrayLike, delta: ArrayLike, *, printed: bool = False
) -> Bound:
    """The bound on all |H_ij(0) − H^∞_ij| at once, √(log(2n²/δ) / 2m).

    Hoeffding's inequality for m terms in an interval of length |x_i·x_j| ≤ 1, two-sided, with
    δ' = δ/n² for each pair. The text prints 4 √(log(n/δ) / m), from δ' = n²δ (a slip: the union
    bound wants δ/n²) and without Hoeffding's constants; it is true for n ≥ 2, and looser.

    Example:
      >>> round(float(initial_gram_entry_deviation(10, 1000, 0.1).value), 4)
      0.0616
    """
    check(n=n, m=m, delta=delta)
    lib = library(n, m, delta)
    if printed:
        value = 4 * lib.sqrt(lib.log(real(n) / delta) / m)
        return Bound(value, "4 √(log(n/δ) / m)", 4.0, source("proof of Lemma 2.1", "as printed"))
    value = lib.sqrt(lib.log(2 * real(n) ** 2 / delta) / (2 * real(m)))
    place = source("proof of Lemma 2.1", "with Hoeffding's constants; looser as printed")
    return Bound(value, "√(log(2n²/δ) / 2m)", 1.0, place)


def gram_perturbation(n: ArrayLike, radius: ArrayLike, delta: ArrayLike) -> Bound:
    """The bound on ‖H − H(0)‖ for all weights within R of the initial ones, 4 n² R / (√(2π) δ).

    Lemma 2.2 adds λ_min(H) > λ_0/2, for which it needs Lemma 2.1's width without saying so.

    Example:
      >>> round(gram_perturbation(10, 1e-5, 0.1).value, 4)
      0.016
    """
    check(n=n, radius=radius, delta=delta)
    value = 2 * ANTI_CONCENTRATION * real(n) ** 2 * radius / delta
    return Bound(value, "4 n² R / (√(2π) δ)", 1.0, source("proof of Lemma 2.2"))


def largest_distance(
    n: ArrayLike,
    m: ArrayLike,
    lambda_0: ArrayLike,
    residual_norm: ArrayLike,
    dynamics: Dynamics,
    *,
    printed: bool = False,
) -> Bound:
    """R', the bound on every ‖w_r − w_r(0)‖: f √n ‖y − u(0)‖ / (√m λ_0).

    f = 2 along the flow, where Lemma 2.3 prints 1: its proof bounds ‖y − u(s)‖ by exp(−λ_0 s),
    though its own result is exp(−λ_0 s/2). One sample of which 3 of 8 neurons are active meets
    the lemma's condition, and moves by 4/3 of the printed bound. f = 4 along gradient descent.

    Example:
      >>> largest_distance(4, 10_000, 0.5, 3.0, "flow").value
      0.24
    """
    check(n=n, m=m, lambda_0=lambda_0, residual_norm=residual_norm)
    check_dynamics(dynamics)
    factor = 1.0 if printed and dynamics == "flow" else DISTANCE_FACTOR[dynamics]
    value = factor * (real(n) / real(m)) ** 0.5 * residual_norm / lambda_0
    note = "" if dynamics == "descent" else ("as printed" if printed else "factor 2; printed 1")
    place = "Lemma 2.3" if dynamics == "flow" else "Corollary 2.1, equation (2.7)"
    return Bound(value, f"R' = {factor:g} √n ‖y − u(0)‖ / (√m λ_0)", 1.0, source(place, note))


def expected_initial_error(x: ArrayLike, y: ArrayLike, *, printed: bool = False) -> Bound:
    """E ‖y − u(0)‖² = Σ_i (y_i² + ‖x_i‖²/2), exactly, for inputs of any norm.

    E f(x) = 0 and E f(x)² = ‖x‖²/2 at initialization. The text prints Σ (y_i² + 1), an upper
    bound for unit inputs, and y_i E f for the term −2 y_i E f, which is 0. By Markov's inequality
    ‖y − u(0)‖² ≤ E ‖y − u(0)‖² / δ with probability 1 − δ.

    Example:
      >>> float(expected_initial_error(jnp.eye(2), jnp.array([1.0, -2.0])).value)
      6.0
    """
    x, y = checks.matrix("x", x), jnp.asarray(y)
    checks.same_length(x=x, y=y)
    second_moment = jnp.ones(len(x), x.dtype) if printed else jnp.sum(jnp.square(x), axis=1) / 2
    formula = "Σ (y_i² + 1)" if printed else "Σ (y_i² + ‖x_i‖²/2)"
    place = source("end of section 2.2.1", "as printed" if printed else "exact; printed y_i² + 1")
    return Bound(jnp.sum(jnp.square(y) + second_moment), formula, 1.0, place)


def pattern_change_probability(radius: ArrayLike) -> Bound:
    """The bound on P(A_ir) = P(|z| < R) = erf(R/√2), z ~ N(0, 1): 2R / √(2π), for any norms.

    Example:
      >>> round(pattern_change_probability(0.1).value, 5)  # erf(0.1/√2) = 0.07966
      0.07979
    """
    check(radius=radius)
    value = ANTI_CONCENTRATION * radius
    return Bound(value, "2R / √(2π)", 1.0, source("proof of Lemma 2.2"))


def unstable_neurons(
    n: ArrayLike,
    m: ArrayLike,
    radius: ArrayLike,
    delta: ArrayLike,
    *,
    constant: ArrayLike = ANTI_CONCENTRATION,
) -> Bound:
    """The bound on Σ_i |S_i^⊥|, C m n R / δ; C = 2/√(2π), by (2.11) and Markov's inequality.

    Example:
      >>> round(unstable_neurons(10, 1000, 0.001, 0.1).value, 2)
      79.79
    """
    check(n=n, m=m, radius=radius, delta=delta, constant=constant)
    value = constant * (real(m) * real(n) * radius / delta)
    place = source("Lemma 2.5, equation (2.12)", "C = 2/√(2π) from (2.11)")
    return Bound(value, "C m n R / δ", constant, place)


def unstable_gram_norm(n: ArrayLike, m: ArrayLike, unstable: ArrayLike) -> Bound:
    """The bound on ‖H^⊥‖, n Σ_i |S_i^⊥| / m, with `unstable` = Σ_i |S_i^⊥|.

    Example:
      >>> unstable_gram_norm(10, 1000, 5).value
      0.05
    """
    check(n=n, m=m, unstable=unstable)
    value = real(n) * unstable / m
    return Bound(value, "n Σ_i |S_i^⊥| / m", 1.0, source("section 2.3.1"))


def unstable_change(
    n: ArrayLike, m: ArrayLike, step_size: ArrayLike, unstable: ArrayLike, residual_norm: ArrayLike
) -> Bound:
    """The bound on |I_2^i|, η |S_i^⊥| √n ‖u(k) − y‖ / m, with `unstable` = |S_i^⊥|.

    Summed over i it bounds ‖I_2‖; `residual_norm` is that of step k.

    Example:
      >>> unstable_change(4, 1000, 0.1, 5, 2.0).value
      0.002
    """
    check(n=n, m=m, step_size=step_size, unstable=unstable, residual_norm=residual_norm)
    value = step_size * unstable * real(n) ** 0.5 * residual_norm / m
    return Bound(value, "η |S_i^⊥| √n ‖u(k) − y‖ / m", 1.0, source("section 2.3.1"))


def gradient_norm(n: ArrayLike, m: ArrayLike, residual_norm: ArrayLike) -> Bound:
    """The bound on every ‖∂L/∂w_r‖, √n ‖y − u‖ / √m.

    Example:
      >>> gradient_norm(4, 100, 2.0).value
      0.4
    """
    check(n=n, m=m, residual_norm=residual_norm)
    value = (real(n) / real(m)) ** 0.5 * residual_norm
    return Bound(value, "√n ‖y − u‖ / √m", 1.0, source("proofs of Lemma 2.3 and Corollary 2.1"))


def squared_change(n: ArrayLike, step_size: ArrayLike, residual_norm: ArrayLike) -> Bound:
    """The bound on ‖u(k+1) − u(k)‖², η² n² ‖y − u(k)‖².

    Example:
      >>> squared_change(4, 0.5, 2.0).value
      16.0
    """
    check(n=n, step_size=step_size, residual_norm=residual_norm)
    value = (step_size * real(n) * residual_norm) ** 2
    return Bound(value, "η² n² ‖y − u(k)‖²", 1.0, source("section 2.3.1"))


def contraction_factor(
    n: ArrayLike,
    lambda_0: ArrayLike,
    delta: ArrayLike,
    step_size: ArrayLike,
    radius: ArrayLike,
    *,
    constant: ArrayLike = ANTI_CONCENTRATION,
) -> Bound:
    """The bound on ‖y − u(k+1)‖² / ‖y − u(k)‖², the last step of the proof of Theorem 2.3.

    1 − ηλ_0 + 2C η n² R / δ + 2C η n^1.5 R / δ + η² n². It is at most 1 − ηλ_0/2 with R =
    `stable_radius(..., "descent")` and η ≤ λ_0 / (4n²).

    Example:
      >>> from ntkflow.systems.two_layer_relu import stable_radius
      >>> radius = stable_radius(1, 0.5, 0.1, "descent").value
      >>> round(contraction_factor(1, 0.5, 0.1, 0.125, radius).value, 12)  # 1 − ηλ_0/2
      0.96875
    """
    check(n=n, lambda_0=lambda_0, delta=delta, step_size=step_size, radius=radius)
    check(constant=constant)
    n = real(n)
    perturbation = 2 * constant * step_size * (n**2 + n**1.5) * radius / delta
    value = 1 - step_size * lambda_0 + perturbation + (step_size * n) ** 2
    formula = "1 − ηλ_0 + 2C η n² R / δ + 2C η n^1.5 R / δ + η² n²"
    return Bound(value, formula, constant, source("section 2.3.1", "C = 2/√(2π) from (2.11)"))
