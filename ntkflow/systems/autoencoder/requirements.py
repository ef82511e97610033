"""What Nguyen, Wong and Hegde (2019a) ask of width, step size and weights, for ½ ‖X − U‖_F².

Arguments and conventions are those of `bounds`. `trains` is "encoder" for the paper's weak training
and "both" for joint training, where λ_0 is λ_min(H^∞): see `bounds_joint`. The theorems' widths
have a constant open; `sufficient_width` and `joint_confined_width` have what the proofs determine.
"""

from typing import Any, Literal, get_args

import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.autoencoder.arguments import check, library, real, source
from ntkflow.systems.autoencoder.bounds import initial_error
from ntkflow.systems.autoencoder.bounds_joint import joint_distances
from ntkflow.systems.autoencoder.concentration import (
    decoder_gram_width,
    initial_decoder_norm,
    initial_features_norm,
    initial_weight_norm,
    limit_gram_norm,
)
from ntkflow.systems.autoencoder.constants import DISTANCE_FACTOR, Dynamics, check_dynamics
from ntkflow.theory import Bound

Regime = Literal["encoder", "both"]


def _check_regime(trains: str) -> None:
    if trains not in get_args(Regime):
        raise ValueError(
            f"trains is {trains!r}; expected one of {list(get_args(Regime))}: the paper has no "
            "theorem on training the decoder alone, whose kernel stays as it was drawn "
            "(decoder_gram_width)."
        )


def required_width(
    trains: Regime,
    n: ArrayLike,
    d: ArrayLike,
    lambda_0: ArrayLike,
    lambda_n: ArrayLike,
    delta: ArrayLike,
    *,
    single_output: bool = False,
    constant: ArrayLike = 1.0,
    printed: bool = False,
) -> Bound:
    """The width of Theorems 2.1, 4.1, 4.2 (encoder) and 2.2, 5.1, 5.2 (both).

    Encoder: C n⁵d⁴λ_n/(λ_0⁴δ³). Both: C ndλ_n³/(λ_0⁴δ²). `printed=True` gives Theorems 4.1 and 5.1,
    which have δ² for δ³ and λ_0³ for λ_n³: their proofs, and the theorems beside them, have these.

    The proofs for both layers give 1/δ, not 1/δ², but take √λ_n ‖W(0)‖ for ‖φ(XᵀW(0))‖: with that
    corrected one λ_n of λ_n³ becomes ‖H^∞‖, which is n/(2π) at least. See `sufficient_width`.

    Args:
      trains: "encoder" or "both".
      single_output: without the powers of d, as Table 1 has it for a network with one output.
      constant: C.

    Raises:
      ValueError: another `trains`, or arguments that the theorems do not speak of.

    Example:
      >>> [f"{required_width(t, 20, 10, 0.125, 4.5, 0.1).value:.2g}" for t in ("encoder", "both")]
      ['5.9e+17', '7.5e+09']

    Reference: Nguyen, Wong and Hegde (2019a), Theorems 2.1, 2.2, 4.1, 4.2, 5.1, 5.2 and Table 1.
    """
    _check_regime(trains)
    check(n=n, d=d, lambda_0=lambda_0, lambda_n=lambda_n, delta=delta, constant=constant)
    size = 1.0 if single_output else real(d)
    name = (lambda power: "") if single_output else (lambda power: f"d{power}")
    note = "as printed" if printed else ""
    if trains == "encoder":
        theorem = "Theorem 4.1" if printed else "Theorems 2.1, 4.1 and 4.2"
        order = real(n) ** 5 * size**4 * lambda_n / lambda_0**4 / delta ** (2 if printed else 3)
        formula = f"m = Ω(n⁵{name('⁴')}λ_n / (λ_0⁴ δ{'²' if printed else '³'}))"
        note = note or "δ³; Theorem 4.1 prints δ²"
    else:
        theorem = "Theorem 5.1" if printed else "Theorems 2.2, 5.1 and 5.2"
        norm = lambda_0 if printed else real(lambda_n)
        order = real(n) * size * norm**3 / lambda_0**4 / delta**2
        formula = f"m = Ω(n{name('')}{'λ_0³' if printed else 'λ_n³'} / (λ_0⁴ δ²))"
        note = note or "λ_n³; Theorem 5.1 prints λ_0³"
    return Bound(constant * order, formula, constant, source(theorem, note))


def sufficient_width(
    trains: Regime,
    n: ArrayLike,
    d: ArrayLike,
    lambda_0: ArrayLike,
    lambda_n: ArrayLike,
    delta: ArrayLike,
    dynamics: Dynamics,
    *,
    gram_norm: ArrayLike | None = None,
) -> Bound:
    """A width that suffices, with the constant of the proofs and δ shared among their events.

    Encoder: 10368 n⁵d⁴λ_n/(λ_0⁴δ³) for the flow, from R' ≤ R with δ/3 for each of Lemma 4.1,
    Lemma 4.2 and ‖X − U(0)‖_F²; 98304 for descent, from δ/4 each with Lemma A.4 (n ≥ 2 or δ ≤ ½).

    Both: 1650 f² ndλ_n²‖H^∞‖/(λ_0⁴δ), f = 2 for the flow and 4 for descent, from
    the conditions of `joint_confined_width` with ‖A(0)‖ ≤ 2√m, for which m ≥ d log(3d/δ)/2 is taken
    for granted. For the flow it proves the rate exp(−λ_0t/d) with λ_0 = λ_min(H^∞). For descent it
    confines the weights if (5.15) holds, which is not proven: `joint_contraction_factor`.

    Args:
      gram_norm: ‖H^∞‖ = ‖h‖, for both alone; None takes the bound `limit_gram_norm`.

    Example:
      >>> f"{sufficient_width('encoder', 20, 10, 0.125, 4.5, 0.1, 'flow').value:.2g}"
      '6.1e+21'
      >>> f"{sufficient_width('both', 20, 10, 0.033, 4.5, 0.1, 'flow').value:.2g}"
      '1.1e+15'

    Reference: derived from the proofs of Theorems 4.1, 4.2, 5.1 and 5.2.
    """
    _check_regime(trains)
    check_dynamics(dynamics)
    check(n=n, d=d, lambda_0=lambda_0, lambda_n=lambda_n, delta=delta)
    note = "derived; the text leaves Ω(·) open"
    if trains == "encoder":
        constant = 10368.0 if dynamics == "flow" else 98304.0
        order = required_width("encoder", n, d, lambda_0, lambda_n, delta).value
        place = source(
            "proof of Theorem 4.1" if dynamics == "flow" else "proof of Theorem 4.2", note
        )
        return Bound(constant * order, f"{constant:g} n⁵d⁴λ_n / (λ_0⁴ δ³)", constant, place)
    constant = 1650 * DISTANCE_FACTOR[dynamics] ** 2
    norm = limit_gram_norm(n, lambda_n).value if gram_norm is None else gram_norm
    check(gram_norm=norm)
    order = real(n) * d * real(lambda_n) ** 2 * norm / (lambda_0**4 * delta)
    place = source("proof of Theorem 5.1" if dynamics == "flow" else "proof of Theorem 5.2", note)
    return Bound(constant * order, f"{constant:g} ndλ_n²‖H^∞‖ / (λ_0⁴ δ)", constant, place)


def largest_step_size(
    trains: Regime,
    n: ArrayLike,
    d: ArrayLike,
    lambda_0: ArrayLike,
    lambda_n: ArrayLike,
    *,
    constant: ArrayLike | None = None,
) -> Bound:
    """The step size of Theorems 4.2 and 5.2, C λ_0/(ndλ_n) and C λ_0/(nλ_n).

    None stands for the constants of the proofs, ¼ and 1/64. They are far below what is stable,
    η < 2d/λ_max(K^∞).

    Example:
      >>> [round(largest_step_size(t, 10, 10, 0.1661, 2.885).value, 6) for t in ("encoder", "both")]
      [0.000144, 9e-05]

    Reference: Nguyen, Wong and Hegde (2019a), Theorems 4.2 and 5.2 and their proofs.
    """
    _check_regime(trains)
    check(n=n, d=d, lambda_0=lambda_0, lambda_n=lambda_n)
    alone = trains == "encoder"
    constant = (0.25 if alone else 1 / 64) if constant is None else constant
    check(constant=constant)
    value = constant * lambda_0 / (real(n) * lambda_n) / (d if alone else 1.0)
    formula = "η = Θ(λ_0/(ndλ_n))" if alone else "η = Θ(λ_0/(nλ_n))"
    place = source("Theorem 4.2" if alone else "Theorem 5.2", "¼ in the proof" if alone else "1/64")
    return Bound(value, formula, constant, place)


def stable_radius(
    n: ArrayLike,
    d: ArrayLike,
    lambda_0: ArrayLike,
    delta: ArrayLike,
    dynamics: Dynamics,
    *,
    printed: bool = False,
) -> Bound:
    """R for the encoder: while every ‖w_r − w_r(0)‖ ≤ R, ‖G − G(0)‖ < λ_0/4, as Corollary 4.1 asks.

    λ_0δ/(8n²d) for the flow, by 2n²dR/δ = λ_0/4. For descent the smaller one of that and
    λ_0/(64nd), which (4.12) asks; there the text prints λ_0δ/(2n²d), four times as much.

    Example:
      >>> f"{stable_radius(10, 5, 0.1, 0.1, 'flow').value:.3g}"
      '2.5e-06'

    Reference: Nguyen, Wong and Hegde (2019a), Corollary 4.1 and the proof of Theorem 4.2.
    """
    check(n=n, d=d, lambda_0=lambda_0, delta=delta)
    check_dynamics(dynamics)
    n, d = real(n), real(d)
    if dynamics == "flow":
        value = lambda_0 * delta / (8 * n**2 * d)
        return Bound(value, "R = λ_0δ/(8n²d)", 1 / 8, source("Corollary 4.1"))
    number = 2 if printed else 8
    minimum = library(n, d, lambda_0, delta).minimum
    value = minimum(lambda_0 / (64 * n * d), lambda_0 * delta / (number * n**2 * d))
    note = "as printed" if printed else "8 of Corollary 4.1; printed 2"
    formula = f"R = min(λ_0/(64nd), λ_0δ/({number}n²d))"
    return Bound(value, formula, 1 / number, source("proof of Theorem 4.2", note))


def confined_width(
    n: ArrayLike,
    d: ArrayLike,
    lambda_0: ArrayLike,
    lambda_n: ArrayLike,
    delta: ArrayLike,
    residual_norm: ArrayLike,
    dynamics: Dynamics,
    *,
    printed: bool = False,
) -> Bound:
    """The width above which R' ≤ R for the encoder, so that Lemma 4.4 holds: (√m R' / R)².

    256 n⁴d⁴λ_n ‖X − U(0)‖_F² / (λ_0⁴δ²) for the flow, 64 as printed; with the 2n/δ of Claim 4.1 for
    the square 512 and 128 n⁵d⁴λ_n/(λ_0⁴δ³). For descent 1024 and 64, or what λ_0/(64nd) asks.

    Example:
      >>> residual = (2 * 20 / 0.1) ** 0.5
      >>> order = required_width("encoder", 20, 10, 0.125, 4.5, 0.1).value
      >>> for dynamics in ("flow", "descent"):
      ...     for printed in (False, True):
      ...         sizes = (20, 10, 0.125, 4.5, 0.1, residual)
      ...         width = confined_width(*sizes, dynamics, printed=printed).value
      ...         print(dynamics, round(float(width / order)))
      flow 512
      flow 128
      descent 2048
      descent 128

    Reference: Nguyen, Wong and Hegde (2019a), Lemma 4.4 and the proofs of Theorems 4.1 and 4.2.
    """
    check(lambda_n=lambda_n, residual_norm=residual_norm)
    radius = stable_radius(n, d, lambda_0, delta, dynamics, printed=printed).value
    factor = 1.0 if printed and dynamics == "flow" else DISTANCE_FACTOR[dynamics]
    value = lambda_n * (factor * real(d) * residual_norm / (lambda_0 * radius)) ** 2
    note = "as printed" if printed else "R' and R corrected"
    place = source("Lemma 4.4" if dynamics == "flow" else "proof of Theorem 4.2", note)
    return Bound(value, f"m = {factor**2:g} d²λ_n ‖X − U(0)‖² / (λ_0R)²", factor**2, place)


def joint_stable_radius(
    m: ArrayLike,
    lambda_0: ArrayLike,
    lambda_n: ArrayLike,
    norm: ArrayLike,
    dynamics: Dynamics = "flow",
    *,
    printed: bool = False,
) -> Bound:
    """R_w: while ‖W − W(0)‖_F ≤ R_w, ‖H − H(0)‖ ≤ λ_0/4 by `decoder_gram_perturbation`.

    The root of (√λ_n/m) (2F + √λ_n R) R = λ_0/4, F = ‖φ(XᵀW(0))‖. Printed with ‖W(0)‖ for F/√λ_n,
    and for descent with 4 ‖W(0)‖ for 2 ‖W(0)‖.

    Args:
      norm: ‖φ(XᵀW(0))‖, the spectral norm; where printed ‖W(0)‖.

    Example:
      >>> round(float(joint_stable_radius(100, 0.4, 4.0, 10.0).value), 4)
      0.244

    Reference: Nguyen, Wong and Hegde (2019a), Lemma 5.2 and the proofs of Theorems 5.1 and 5.2.
    """
    check(m=m, lambda_0=lambda_0, lambda_n=lambda_n, norm=norm)
    check_dynamics(dynamics)
    root = real(lambda_n) ** 0.5
    times = 2.0 if printed and dynamics == "descent" else 1.0
    size = times * (norm if printed else norm / root)
    change = real(m) * lambda_0 / (4 * lambda_n)
    value = change / (size + (size**2 + change) ** 0.5)
    name = "‖W(0)‖" if printed else "‖φ(XᵀW(0))‖/√λ_n"
    formula = f"(λ_n/m) ({2 * times:g} {name} + R) R = λ_0/4"
    note = "as printed" if printed else "‖φ(XᵀW(0))‖ for √λ_n ‖W(0)‖"
    return Bound(value, formula, 1 / 4, source("Lemma 5.2", note))


def joint_confined_width(
    n: ArrayLike,
    d: ArrayLike,
    lambda_0: ArrayLike,
    lambda_n: ArrayLike,
    delta: ArrayLike,
    dynamics: Dynamics,
    *,
    gram_norm: ArrayLike | None = None,
    printed: bool = False,
) -> Bound:
    """The smallest width with R'_w ≤ R_w, the "lower bound on m" of section 5, found numerically.

    R'_w and R_w depend on m, by `joint_distances` and `joint_stable_radius`, and through ‖A(0)‖ and
    ‖φ(XᵀW(0))‖. Those, ‖X − U(0)‖_F² and Lemma 5.1 hold with probability 1 − δ, δ/3 each, and the
    width is that of `decoder_gram_width` at least. Printed: ‖W(0)‖ = ‖A(0)‖ = 2√m + √d,
    ‖X − U(0)‖_F² = 3n/(2δ) for the flow and 2n/δ for descent, all with δ itself, and 2e⁻ᵐ ≤ δ.

    It is computed on the host.

    Args:
      gram_norm: ‖H^∞‖ = ‖h‖; None takes the bound `limit_gram_norm`.

    Raises:
      ValueError: arguments under a trace, or such as the theorems do not speak of.

    Example:
      >>> sizes = (20, 10, 0.125, 4.5, 0.1)
      >>> f"{joint_confined_width(*sizes, 'descent').value:.3g}"
      '3.67e+12'
      >>> width = joint_confined_width(*sizes, "descent", printed=True).value  # 131072 if d ≪ m
      >>> round(width * (0.125**4 * 0.1) / (20 * 10 * 4.5**3))
      131214

    Reference: Nguyen, Wong and Hegde (2019a), Lemma 5.6, proofs of Theorems 5.1 and 5.2.
    """
    check(n=n, d=d, lambda_0=lambda_0, lambda_n=lambda_n, delta=delta)
    check_dynamics(dynamics)
    norm = limit_gram_norm(n, lambda_n).value if gram_norm is None else gram_norm
    check(gram_norm=norm)
    given = (n, d, lambda_0, lambda_n, delta, norm)
    if not all(checks.is_concrete(value) for value in given):
        raise ValueError("joint_confined_width searches on the host; call it outside of jit.")
    n, d, lambda_0, lambda_n, delta, norm = np.broadcast_arrays(
        *(np.asarray(v) * 1.0 for v in given)
    )
    share = delta if printed else delta / 3
    loose = printed and dynamics == "descent"
    residual = initial_error(n, share, printed=loose).value ** 0.5

    def confined(m: np.ndarray) -> Any:
        if printed:
            decoder = other = initial_weight_norm(d, m).value
        else:
            decoder = initial_decoder_norm(d, m, share).value
            other = initial_features_norm(n, m, lambda_0, lambda_n, gram_norm=norm).value
        moved, _ = joint_distances(
            d, m, lambda_0, lambda_n, residual, decoder, other, dynamics, printed=printed
        )
        stable = joint_stable_radius(m, lambda_0, lambda_n, other, dynamics, printed=printed)
        return np.asarray(moved.value) <= np.asarray(stable.value)

    least: Any
    if printed:
        least = np.maximum(np.log(2 / delta), 1.0)
    else:
        least = decoder_gram_width(n, d, lambda_0, lambda_n, share, gram_norm=norm).value
    value = np.maximum(least, _smallest(confined, n.shape))
    note = "as printed, solved" if printed else "derived, with ‖φ(XᵀW(0))‖ for √λ_n ‖W(0)‖; solved"
    place = source("proof of Theorem 5.1" if dynamics == "flow" else "proof of Theorem 5.2", note)
    return Bound(value, "min {m : R'_w(m) ≤ R_w(m)}", 1.0, place)


def _smallest(holds: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The smallest number where `holds`, by bisection of its logarithm: beyond it, it holds on.

    Numbers, not whole numbers, as the other widths; the checks of `m` are for the caller's.
    """
    low, high = np.zeros(shape), np.full(shape, np.log(1e60))
    for _ in range(80):
        middle = (low + high) / 2
        reached = holds(np.ceil(np.exp(middle)))
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return np.exp(high)
