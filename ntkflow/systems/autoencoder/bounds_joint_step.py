"""The terms of one step of joint training, Nguyen, Wong and Hegde (2019a), appendix C.2.

Each function bounds one of C_1, ..., C_5, which add up to ‖X − U(k+1)‖_F² − ‖X − U(k)‖_F², as a
multiple of ‖X − U(k)‖_F². Conventions are those of `bounds_joint`: ‖φ(XᵀW)‖ stands as it is. The
text puts 2√m for ‖W‖ and ‖A‖, and an η/d too many into C_3 and C_4: `printed=True`.
"""

from jax.typing import ArrayLike

from ntkflow.systems.autoencoder.arguments import check, real, source
from ntkflow.systems.autoencoder.bounds import kernel_term
from ntkflow.systems.autoencoder.constants import WeightNorms
from ntkflow.theory import Bound


def joint_unstable_gram_norm(m: ArrayLike, lambda_n: ArrayLike, norms: WeightNorms) -> Bound:
    """The bound on ‖K^⊥‖ ≤ ‖G^⊥‖ + ‖H^⊥‖, (λ_n ‖A‖² + ‖φ(XᵀW)‖²) / m, however many patterns flip.

    The text has λ_n ‖W‖² for ‖φ(XᵀW)‖², and 2 ‖A(0)‖, 2 ‖W(0)‖ for the norms along the run.

    Example:
      >>> joint_unstable_gram_norm(100, 4.0, WeightNorms(20.0, 10.0, 30.0)).value
      13.0

    Reference: Nguyen, Wong and Hegde (2019a), proof of Claim C.5.
    """
    check(m=m, lambda_n=lambda_n, **norms._asdict())
    value = (lambda_n * real(norms.decoder) ** 2 + real(norms.features) ** 2) / real(m)
    place = source("proof of Claim C.5", "‖φ(XᵀW)‖² for λ_n ‖W‖²")
    return Bound(value, "(λ_n ‖A‖² + ‖φ(XᵀW)‖²) / m", 1.0, place)


def joint_unstable_gram_term(
    d: ArrayLike,
    m: ArrayLike,
    lambda_n: ArrayLike,
    step_size: ArrayLike,
    norms: WeightNorms,
    *,
    printed: bool = False,
) -> Bound:
    """The bound on C_2 = (2η/d) rᵀK^⊥r, as a multiple of ‖r‖², r = vec(X − U(k)).

    (2η/d) times `joint_unstable_gram_norm`. Printed: 8ηλ_n/d, for which the norms ‖A(k)‖, ‖W(k)‖
    would have to be below √(2m); with the 2√m that the claims after it use it is 16ηλ_n/d.

    Args:
      norms: along the step; not used where printed.

    Example:
      >>> norms = WeightNorms(20.0, 10.0, 30.0)
      >>> joint_unstable_gram_term(5, 100, 4.0, 0.5, norms).value
      2.6
      >>> joint_unstable_gram_term(5, 100, 4.0, 0.5, norms, printed=True).value
      3.2

    Reference: Nguyen, Wong and Hegde (2019a), Claim C.5.
    """
    check(d=d, step_size=step_size)
    norm = joint_unstable_gram_norm(m, lambda_n, norms).value
    if printed:
        value = 8 * (step_size * lambda_n / real(d))
        return Bound(value, "C_2 ≤ (8ηλ_n/d) ‖X − U(k)‖²", 8.0, source("Claim C.5", "as printed"))
    formula = "C_2 ≤ (2η/d) (λ_n ‖A‖² + ‖φ(XᵀW)‖²)/m ‖X − U(k)‖²"
    place = source("Claim C.5", "norms kept; printed 8ηλ_n/d")
    return Bound(2 * (step_size / real(d)) * norm, formula, 2.0, place)


def joint_unstable_change_term(
    n: ArrayLike,
    d: ArrayLike,
    m: ArrayLike,
    lambda_n: ArrayLike,
    step_size: ArrayLike,
    norms: WeightNorms,
    *,
    printed: bool = False,
) -> Bound:
    """The bound on C_3 = −2 rᵀv_2, as a multiple of ‖r‖².

    (2η/(md)) √(2n (‖φ(XᵀW)‖² ‖W‖² + λ_n ‖A‖⁴)). Printed: (16η²/d) √(nλ_n), from C_3 defined with
    η/d in place of 1. With the proof's norms 2√m and λ_n ‖W‖² for ‖φ(XᵀW)‖² it is (16η/d) √(nλ_n).

    Args:
      norms: along the step; not used where printed.

    Example:
      >>> norms = WeightNorms(20.0, 10.0, 30.0)
      >>> round(joint_unstable_change_term(2, 5, 100, 4.0, 0.5, norms).value, 2)
      2.53

    Reference: Nguyen, Wong and Hegde (2019a), Claim C.6.
    """
    check(n=n, d=d, m=m, lambda_n=lambda_n, step_size=step_size, **norms._asdict())
    if printed:
        value = 16 * step_size**2 / real(d) * (real(n) * lambda_n) ** 0.5
        formula = "C_3 ≤ (16η²/d) √(nλ_n) ‖X − U(k)‖²"
        return Bound(value, formula, 16.0, source("Claim C.6", "as printed"))
    squares = (real(norms.features) * norms.encoder) ** 2 + lambda_n * real(norms.decoder) ** 4
    value = 2 * step_size * (2 * real(n) * squares) ** 0.5 / (real(m) * d)
    formula = "C_3 ≤ (2η/(md)) √(2n (‖φ(XᵀW)‖² ‖W‖² + λ_n ‖A‖⁴)) ‖X − U(k)‖²"
    return Bound(value, formula, 2.0, source("Claim C.6", "C_3 = −2 rᵀv_2; printed −(2η/d) rᵀv_2"))


def joint_second_order_term(
    n: ArrayLike,
    d: ArrayLike,
    m: ArrayLike,
    lambda_n: ArrayLike,
    step_size: ArrayLike,
    residual_norm: ArrayLike,
    norms: WeightNorms,
    *,
    printed: bool = False,
) -> Bound:
    """The bound on C_4 = −2 rᵀv_3, as a multiple of ‖r‖².

    2η² √(nλ_n) ‖φ(XᵀW)‖ ‖A‖ ‖X − U‖_F / (md)^{3/2}. Printed, and labeled C_3:
    (8η²/d) √(nλ_n²) ‖X − U(0)‖_F. Its proof loses a factor 1/(md) of ‖v_3‖², and is looser.

    Args:
      residual_norm: ‖X − U(k)‖_F, or ‖X − U(0)‖_F, which bounds it while the loss decreases.
      norms: along the step; not used where printed.

    Example:
      >>> norms = WeightNorms(20.0, 10.0, 30.0)
      >>> round(joint_second_order_term(4, 4, 100, 4.0, 0.5, 3.0, norms).value, 3)
      0.225

    Reference: Nguyen, Wong and Hegde (2019a), Claim C.7.
    """
    check(n=n, d=d, m=m, lambda_n=lambda_n, step_size=step_size, residual_norm=residual_norm)
    check(**norms._asdict())
    if printed:
        value = 8 * step_size**2 / real(d) * real(n) ** 0.5 * lambda_n * residual_norm
        formula = "C_4 ≤ (8η²/d) √(nλ_n²) ‖X − U(0)‖ ‖X − U(k)‖²"
        return Bound(value, formula, 8.0, source("Claim C.7", "as printed; looser"))
    size = (real(n) * lambda_n) ** 0.5 * norms.features * norms.decoder
    value = 2 * step_size**2 * size * residual_norm / (real(m) * d) ** 1.5
    formula = "C_4 ≤ 2η² √(nλ_n) ‖φ(XᵀW)‖ ‖A‖ ‖X − U(0)‖ / (md)^{3/2} ‖X − U(k)‖²"
    return Bound(value, formula, 2.0, source("Claim C.7", "with 1/(md)³ in ‖v_3‖²; labeled C_3"))


def joint_squared_change_term(
    d: ArrayLike,
    m: ArrayLike,
    lambda_n: ArrayLike,
    step_size: ArrayLike,
    norms: WeightNorms,
    *,
    printed: bool = False,
) -> Bound:
    """The bound on C_5 = ‖U(k+1) − U(k)‖_F², as a multiple of ‖X − U(k)‖_F².

    2η² (‖φ(XᵀW)‖⁴ + λ_n² ‖A‖⁴) / (md)². Printed: 64η²λ_n²/(md), from 1/m² for the factor 1/(md) of
    ‖U(k+1) − U(k)‖_F². The right power is 64η²λ_n²/d² with the proof's norms, and the printed one
    fails for wide networks: C_5 goes to (η/d)² ‖K^∞ r‖², whatever m.

    Args:
      norms: along the step; not used where printed.

    Example:
      >>> norms = WeightNorms(20.0, 10.0, 30.0)
      >>> round(joint_squared_change_term(4, 100, 4.0, 0.5, norms).value, 3)
      3.031

    Reference: Nguyen, Wong and Hegde (2019a), Claim C.8.
    """
    check(d=d, m=m, lambda_n=lambda_n, step_size=step_size, **norms._asdict())
    if printed:
        value = 64 * (step_size * lambda_n) ** 2 / (real(m) * d)
        formula = "C_5 ≤ (64η²λ_n²/(md)) ‖X − U(k)‖²"
        return Bound(value, formula, 64.0, source("Claim C.8", "as printed"))
    fourth = real(norms.features) ** 4 + (lambda_n * real(norms.decoder) ** 2) ** 2
    value = 2 * (step_size / (real(m) * d)) ** 2 * fourth
    formula = "C_5 ≤ 2η² (‖φ(XᵀW)‖⁴ + λ_n² ‖A‖⁴) / (md)² ‖X − U(k)‖²"
    return Bound(value, formula, 2.0, source("Claim C.8", "1/(md) for the text's 1/m²"))


def joint_contraction_factor(
    n: ArrayLike,
    d: ArrayLike,
    m: ArrayLike,
    lambda_0: ArrayLike,
    lambda_n: ArrayLike,
    step_size: ArrayLike,
    residual_norm: ArrayLike,
    norms: WeightNorms,
    *,
    printed: bool = False,
) -> Bound:
    """The left side of (5.20), 1 − ηλ_0/d and the bounds on C_2, C_3, C_4 and C_5.

    The text claims that it is at most 1 − ηλ_0/(2d), with 8ηλ_n/d ≤ ηλ_0/(8d). That cannot be, as
    λ_n ≥ λ_0: the printed value is above 1 for every step size, and so is the corrected one, where
    ‖A‖² ≥ m: the bound on C_2 counts every pattern as one that flips. So the text does not prove
    (5.15), which runs can be held against all the same.

    Args:
      residual_norm: ‖X − U(0)‖_F.
      norms: along the step; not used where printed.

    Example:
      >>> norms = WeightNorms(20.0, 10.0, 30.0)
      >>> factor = joint_contraction_factor(2, 4, 100, 0.3, 2.0, 1e-3, 2.0, norms, printed=True)
      >>> round(float(factor.value), 4)  # 1 − ηλ_0/(2d) is 0.99996
      1.0039

    Reference: Nguyen, Wong and Hegde (2019a), (5.20).
    """
    flag = {"printed": printed}
    value = (
        1
        + kernel_term(d, lambda_0, step_size).value
        + joint_unstable_gram_term(d, m, lambda_n, step_size, norms, **flag).value
        + joint_unstable_change_term(n, d, m, lambda_n, step_size, norms, **flag).value
        + joint_second_order_term(n, d, m, lambda_n, step_size, residual_norm, norms, **flag).value
        + joint_squared_change_term(d, m, lambda_n, step_size, norms, **flag).value
    )
    note = "as printed; cannot be met" if printed else "corrected terms; cannot be met"
    formula = "1 + (C_1 + C_2 + C_3 + C_4 + C_5) / ‖X − U(k)‖²"
    return Bound(value, formula, 1.0, source("equation (5.20)", note))
