"""What Nguyen, Wong and Hegde (2019a), section 5 and appendix C, promise where both layers train.

Symbols and conventions are those of `bounds` and `bounds_weak`, but λ_0 is λ_min(H^∞) here,
`limit_smallest_eigenvalue(x, "decoder")`: the proofs rest on H alone, and the paper takes its limit
to be G^∞. They also take ‖φ(XᵀW)‖ ≤ ‖X‖ ‖W‖, which holds for Frobenius norms and not for spectral
ones: with n = d orthogonal samples, m = n, the left side grows like n and the right one like √n.
Here ‖φ(XᵀW)‖ stands as it is; `printed=True` has √λ_n ‖W‖ in its place.
"""

from typing import Any

from jax.typing import ArrayLike

from ntkflow.systems.autoencoder.arguments import check, library, real, source
from ntkflow.systems.autoencoder.constants import DISTANCE_FACTOR, Dynamics, check_dynamics
from ntkflow.theory import Bound


def _scale(d: ArrayLike, m: ArrayLike, residual_norm: ArrayLike) -> Any:
    return residual_norm / (real(m) * d) ** 0.5


def joint_encoder_gradient_norm(
    d: ArrayLike,
    m: ArrayLike,
    lambda_n: ArrayLike,
    residual_norm: ArrayLike,
    decoder_norm: ArrayLike,
) -> Bound:
    """The bound on ‖∂L/∂W‖_F, √λ_n ‖A‖ ‖X − U‖_F / √(md).

    Example:
      >>> joint_encoder_gradient_norm(4, 100, 4.0, 3.0, decoder_norm=10.0).value
      3.0

    Reference: Nguyen, Wong and Hegde (2019a), (C.2) and the proof of Lemma 5.4.
    """
    check(d=d, m=m, lambda_n=lambda_n, residual_norm=residual_norm, decoder_norm=decoder_norm)
    value = real(lambda_n) ** 0.5 * decoder_norm * _scale(d, m, residual_norm)
    return Bound(value, "√λ_n ‖A‖ ‖X − U‖ / √(md)", 1.0, source("equation (C.2)"))


def joint_decoder_gradient_norm(
    d: ArrayLike,
    m: ArrayLike,
    lambda_n: ArrayLike,
    residual_norm: ArrayLike,
    norm: ArrayLike,
    *,
    printed: bool = False,
) -> Bound:
    """The bound on ‖∂L/∂A‖_F, ‖φ(XᵀW)‖ ‖X − U‖_F / √(md).

    (C.3) prints √λ_n ‖W‖ for ‖φ(XᵀW)‖, and fails for wide networks on nearly orthogonal samples.

    Args:
      d, m, lambda_n, residual_norm: as in `joint_encoder_gradient_norm`.
      norm: ‖φ(XᵀW)‖, the spectral norm; where printed ‖W‖.

    Example:
      >>> joint_decoder_gradient_norm(4, 100, 4.0, 3.0, 10.0).value
      1.5

    Reference: Nguyen, Wong and Hegde (2019a), (C.3) and the proof of Lemma 5.5.
    """
    check(d=d, m=m, lambda_n=lambda_n, residual_norm=residual_norm, norm=norm)
    value = norm * _scale(d, m, residual_norm)
    if printed:
        value = real(lambda_n) ** 0.5 * value
        place = source("equation (C.3)", "as printed")
        return Bound(value, "√λ_n ‖W‖ ‖X − U‖ / √(md)", 1.0, place)
    place = source("equation (C.3)", "‖φ(XᵀW)‖ for √λ_n ‖W‖")
    return Bound(value, "‖φ(XᵀW)‖ ‖X − U‖ / √(md)", 1.0, place)


def joint_encoder_distance(
    d: ArrayLike,
    m: ArrayLike,
    lambda_0: ArrayLike,
    lambda_n: ArrayLike,
    residual_norm: ArrayLike,
    decoder_norm: ArrayLike,
    radius: ArrayLike,
    dynamics: Dynamics,
) -> Bound:
    """R'_w, the bound on ‖W − W(0)‖_F: f √(dλ_n) (‖A(0)‖ + R_a) ‖X − U(0)‖_F / (√m λ_0).

    f = 2 along the flow, 4 along gradient descent.

    Args:
      decoder_norm: ‖A(0)‖.
      radius: R_a, within which ‖A − A(0)‖_F stays.

    Example:
      >>> round(joint_encoder_distance(4, 100, 0.5, 4.0, 3.0, 10.0, 2.0, "flow").value, 6)
      57.6

    Reference: Nguyen, Wong and Hegde (2019a), Lemmas 5.4 and 5.7.
    """
    check(d=d, m=m, lambda_0=lambda_0, lambda_n=lambda_n, residual_norm=residual_norm)
    check(decoder_norm=decoder_norm, radius=radius)
    check_dynamics(dynamics)
    factor = DISTANCE_FACTOR[dynamics]
    rate = real(d) / lambda_0 * real(lambda_n) ** 0.5
    value = factor * rate * (decoder_norm + radius) * _scale(d, m, residual_norm)
    formula = f"R'_w = {factor:g} √(dλ_n) (‖A(0)‖ + R_a) ‖X − U(0)‖ / (√m λ_0)"
    place = source("Lemma 5.4" if dynamics == "flow" else "Lemma 5.7")
    return Bound(value, formula, factor, place)


def joint_decoder_distance(
    d: ArrayLike,
    m: ArrayLike,
    lambda_0: ArrayLike,
    lambda_n: ArrayLike,
    residual_norm: ArrayLike,
    norm: ArrayLike,
    radius: ArrayLike,
    dynamics: Dynamics,
    *,
    printed: bool = False,
) -> Bound:
    """R'_a, the bound on ‖A − A(0)‖_F: f √d (‖φ(XᵀW(0))‖ + √λ_n R_w) ‖X − U(0)‖_F / (√m λ_0).

    f = 2 along the flow, 4 along gradient descent. Printed with √λ_n ‖W(0)‖ for ‖φ(XᵀW(0))‖; the
    last line of the proof of Lemma 5.7 loses √d, its statement has it.

    Args:
      norm: ‖φ(XᵀW(0))‖, the spectral norm; where printed ‖W(0)‖.
      radius: R_w, within which ‖W − W(0)‖_F stays.

    Example:
      >>> joint_decoder_distance(4, 100, 0.5, 4.0, 3.0, 10.0, 2.0, "flow").value
      33.6

    Reference: Nguyen, Wong and Hegde (2019a), Lemmas 5.5 and 5.7.
    """
    check(d=d, m=m, lambda_0=lambda_0, lambda_n=lambda_n, residual_norm=residual_norm)
    check(norm=norm, radius=radius)
    check_dynamics(dynamics)
    factor, root = DISTANCE_FACTOR[dynamics], real(lambda_n) ** 0.5
    first = root * norm if printed else norm
    scale = _scale(d, m, residual_norm)
    value = factor * real(d) / lambda_0 * (first + root * radius) * scale
    name = "√λ_n ‖W(0)‖" if printed else "‖φ(XᵀW(0))‖"
    formula = f"R'_a = {factor:g} √d ({name} + √λ_n R_w) ‖X − U(0)‖ / (√m λ_0)"
    note = "as printed" if printed else "‖φ(XᵀW(0))‖ for √λ_n ‖W(0)‖"
    place = source("Lemma 5.5" if dynamics == "flow" else "Lemma 5.7", note)
    return Bound(value, formula, factor, place)


def joint_distances(
    d: ArrayLike,
    m: ArrayLike,
    lambda_0: ArrayLike,
    lambda_n: ArrayLike,
    residual_norm: ArrayLike,
    decoder_norm: ArrayLike,
    norm: ArrayLike,
    dynamics: Dynamics,
    *,
    printed: bool = False,
) -> tuple[Bound, Bound]:
    """The smallest R_w = R'_w and R_a = R'_a: each of the two distances bounds the other.

    With α = f √(dλ_n) ‖X − U(0)‖_F / (√m λ_0) and b = ‖φ(XᵀW(0))‖ / √λ_n, or ‖W(0)‖ as printed:
    R_w = α (‖A(0)‖ + α b) / (1 − α²), R_a = α (b + α ‖A(0)‖) / (1 − α²), and infinite for α ≥ 1.

    Args:
      decoder_norm, norm: as in `joint_encoder_distance` and `joint_decoder_distance`.

    Returns:
      R_w and R_a.

    Example:
      >>> r_w, r_a = joint_distances(1, 100, 0.5, 1.0, 0.5, 10.0, 7.0, "flow")
      >>> round(float(r_w.value), 4), round(float(r_a.value), 4)
      (2.375, 1.875)
      >>> again = joint_encoder_distance(1, 100, 0.5, 1.0, 0.5, 10.0, r_a.value, "flow")
      >>> round(float(again.value), 4)
      2.375

    Reference: Nguyen, Wong and Hegde (2019a), Lemmas 5.6, 5.7 and the proof of Theorem 5.1.
    """
    check(d=d, m=m, lambda_0=lambda_0, lambda_n=lambda_n, residual_norm=residual_norm)
    check(decoder_norm=decoder_norm, norm=norm)
    check_dynamics(dynamics)
    numpy = library(d, m, lambda_0, lambda_n, residual_norm, decoder_norm, norm)
    root = real(lambda_n) ** 0.5
    factor = DISTANCE_FACTOR[dynamics]
    alpha = factor * root * real(d) / lambda_0 * _scale(d, m, residual_norm)
    other = norm if printed else norm / root
    below = numpy.where(alpha < 1, 1 - alpha**2, 1.0)
    distances = (
        numpy.where(alpha < 1, alpha * (mine + alpha * theirs) / below, numpy.inf)
        for mine, theirs in ((decoder_norm, other), (other, decoder_norm))
    )
    name = "‖W(0)‖" if printed else "‖φ(XᵀW(0))‖ / √λ_n"
    formulas = (
        f"R_w = α (‖A(0)‖ + α {name}) / (1 − α²)",
        f"R_a = α ({name} + α ‖A(0)‖) / (1 − α²)",
    )
    place = source("Lemma 5.6" if dynamics == "flow" else "Lemma 5.7", "solved for equality")
    r_w, r_a = (Bound(v, f, factor, place) for v, f in zip(distances, formulas, strict=True))
    return r_w, r_a


def decoder_gram_perturbation(
    m: ArrayLike,
    lambda_n: ArrayLike,
    norm: ArrayLike,
    radius: ArrayLike,
    *,
    printed: bool = False,
) -> Bound:
    """The bound on ‖H − H(0)‖, (√λ_n/m) (2 ‖φ(XᵀW(0))‖ + √λ_n R_w) R_w.

    For all W with ‖W − W(0)‖_F ≤ R_w. Printed: (λ_n/m) (2 ‖W(0)‖ + R_w) R_w, whose proof takes
    ‖φ(XᵀW)‖ ≤ ‖X‖ ‖W‖. It is false: with n = m = 100 orthonormal samples, moving all active weights
    by the same amount, R_w = √m/10 in all, changes Ĥ by 1.46 times as much, by 2.46 for 300.

    Args:
      m, lambda_n: width and λ_n.
      norm: ‖φ(XᵀW(0))‖, the spectral norm; where printed ‖W(0)‖.
      radius: R_w.

    Example:
      >>> decoder_gram_perturbation(100, 4.0, 10.0, 0.5).value
      0.21

    Reference: Nguyen, Wong and Hegde (2019a), Lemma 5.2.
    """
    check(m=m, lambda_n=lambda_n, norm=norm, radius=radius)
    root = real(lambda_n) ** 0.5
    if printed:
        value = lambda_n / real(m) * (2 * norm + radius) * radius
        place = source("Lemma 5.2", "as printed")
        return Bound(value, "(λ_n/m) (2 ‖W(0)‖ + R_w) R_w", 1.0, place)
    value = root / real(m) * (2 * norm + root * radius) * radius
    place = source("Lemma 5.2", "‖φ(XᵀW(0))‖ for √λ_n ‖W(0)‖")
    return Bound(value, "(√λ_n/m) (2 ‖φ(XᵀW(0))‖ + √λ_n R_w) R_w", 1.0, place)
