"""The networks of Du (2019), chapter 3, at their initialization: norms, variances, widths.

Throughout: n samples of unit norm, m the width, H = `depth`, δ the probability of failure,
`constants` those of the activation, `residual` = c_res, None for the fully connected network, and
`patches` the sizes of a convolution, None without. Arguments are scalars or arrays that broadcast;
where the text errs, the corrected quantity is the default, and `printed=True` gives the other.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.deep.activations import ActivationConstants, evaluate
from ntkflow.systems.deep.constants import (
    ABSOLUTE_MOMENT,
    InitialNorms,
    Patches,
    check,
    check_lipschitz,
    check_residual,
    geometric_series,
    library,
    real,
    sizes_of,
    source,
)
from ntkflow.systems.deep.technical_bounds import gaussian_operator_norm
from ntkflow.theory import Bound

_END, _PANELS = 13, 2  # beyond ±13 the density is below 1e-37; panels per unit, cut at 0
_SCALES = 257


def norm_growth(constants: ActivationConstants, *, printed: bool = False) -> Bound:
    """C of Lemma 3.1: |c_σ E σ(αz)² − 1| ≤ C |α − 1|, for norms 1/2 ≤ α ≤ 3/2 of the layer below.

    C = c_σ L (2|σ(0)| √(2/π) + 5L/2), as α + 1 ≤ 5/2. The text prints 2L for 5L/2, which needs
    α ≤ 1: an activation close to a line violates it for α > 1.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> [round(norm_growth(softplus, printed=p).value, 3) for p in (False, True)]
      [3.914, 3.372]
    """
    check_lipschitz(constants)
    at_zero, lipschitz, _, normalization = constants
    factor = 2.0 if printed else 2.5
    value = normalization * lipschitz * (2 * abs(at_zero) * ABSOLUTE_MOMENT + factor * lipschitz)
    note = "as printed" if printed else "printed 2L for 5L/2"
    formula = f"C = c_σ L (2|σ(0)| √(2/π) + {factor:g} L)"
    return Bound(value, formula, 1.0, source("Lemma 3.1", note))


def feature_variance(
    m: ArrayLike,
    constants: ActivationConstants,
    *,
    norm: ArrayLike = 2.0,
    pixels: ArrayLike = 1,
    printed: bool = False,
) -> Bound:
    """The bound on Var ‖x^(h)‖² given a layer below of norm ≤ α: p² C_2 / m.

    C_2 = c_σ² E(|σ(0)| + Lα|z|)⁴ by the four absolute moments of z ~ N(0, 1). The text prints it
    without c_σ², so that scaling σ makes it as small as one likes while ‖x^(h)‖ stays, and with
    32 for E z⁴ = 3. α = 2 in Lemma 3.1, 1 in Lemmas 3.8 and 3.15.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> [round(feature_variance(100, softplus, norm=1.0, printed=p).value, 3)
      ...  for p in (False, True)]
      [0.137, 0.406]
    """
    check(m=m, norm=norm, pixels=pixels)
    check_lipschitz(constants)
    zero, slope = abs(constants.value_at_zero), constants.lipschitz * real(norm)
    moments = zero**4 + 4 * zero**3 * slope * ABSOLUTE_MOMENT + 6 * zero**2 * slope**2
    moments = moments + 8 * zero * slope**3 * ABSOLUTE_MOMENT
    if printed:
        constant = moments + 32 * slope**4
        note = "as printed, without c_σ² and with 32 for E z⁴ = 3"
    else:
        constant = constants.normalization**2 * (moments + 3 * slope**4)
        note = "with the c_σ² that the text drops, and E z⁴ = 3"
    value = real(pixels) ** 2 * constant / m
    return Bound(value, "p² C_2 / m", 1.0, source("proofs of Lemmas 3.1, 3.8 and 3.15", note))


def fully_connected_norm_deviation(
    layer: ArrayLike, depth: ArrayLike, constants: ActivationConstants
) -> Bound:
    """The bound on |‖x^(h)(0)‖ − 1| at the width of Lemma 3.1, g_C(h) / (2 g_C(H)) ≤ 1/2.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> [round(float(fully_connected_norm_deviation(h, 3, softplus).value), 3) for h in (1, 3)]
      [0.025, 0.5]
    """
    check(layer=layer, depth=depth)
    growth = norm_growth(constants).value
    value = geometric_series(growth, layer) / (2 * geometric_series(growth, depth))
    return Bound(value, "g_C(h) / (2 g_C(H))", 1.0, source("proof of Lemma 3.1"))


def fully_connected_norm_width(
    n: ArrayLike,
    depth: ArrayLike,
    delta: ArrayLike,
    constants: ActivationConstants,
    *,
    printed: bool = False,
) -> Bound:
    """The width of Lemma 3.1, above which 1/2 ≤ ‖x^(h)(0)‖ ≤ 2 for all: 4 C_2 n H g_C(H)² / δ.

    Chebyshev's inequality with probability δ/(nH) for each. `printed` takes C and C_2 as printed.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> f"{fully_connected_norm_width(10, 3, 0.1, softplus).value:.3g}"
      '5.63e+07'
    """
    check(n=n, depth=depth, delta=delta)
    series = geometric_series(norm_growth(constants, printed=printed).value, depth)
    constant = 4 * feature_variance(1, constants, printed=printed).value
    value = constant * (real(n) * depth * series**2 / delta)
    note = "as printed" if printed else "constant from the proof"
    return Bound(value, "m = Ω(n H g_C(H)² / δ)", constant, source("Lemma 3.1", note))


def patch_normalization(activation: Callable, pixels: int) -> float:
    """c_{σ,1/√p} = 1 / min E σ(αz)² over 1/√p ≤ α ≤ 1, on a grid of 257 α.

    For softplus it is at most 1/log²2, whatever p.

    Example:
      >>> [round(patch_normalization(jax.nn.softplus, p), 6) for p in (1, 4)]
      [1.085487, 1.701593]
    """
    check(pixels=pixels)
    checks.elementwise("activation", activation)
    half = 1 / (2 * _PANELS)
    nodes, weights = np.polynomial.legendre.leggauss(16)
    z = (np.arange(-_END, _END, 2 * half)[:, None] + half * (1 + nodes)).ravel()
    weights = np.tile(half * weights, len(z) // 16) * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    scales = np.geomspace(pixels**-0.5, 1.0, _SCALES if pixels > 1 else 1)
    points = scales[:, None] * z
    values = evaluate(jax.jit(activation), points.ravel()).reshape(points.shape)
    smallest_square = float(np.min(values**2 @ weights))
    if not 0 < smallest_square < np.inf:
        raise ValueError(
            f"The least E[σ(αz)²] of the activation is {smallest_square}, z ~ N(0, 1); expected a "
            "number greater than 0 and finite."
        )
    return 1 / smallest_square


def _given(smallest_square: ArrayLike | None) -> Any:
    if smallest_square is None:
        raise ValueError(
            "smallest_square is None; with a convolution, expected c_{σ,1/√p}: write "
            "smallest_square=patch_normalization(activation, pixels)."
        )
    check(smallest_square=smallest_square)
    return real(smallest_square)


def residual_norm_width(
    n: ArrayLike,
    delta: ArrayLike,
    constants: ActivationConstants,
    *,
    pixels: ArrayLike | None = None,
    smallest_square: ArrayLike | None = None,
    printed: bool = False,
) -> Bound:
    """The width above which the first layer's features are bounded: the Ω(n/δ) of Lemma 3.8.

    Without pixels 16 C_2 n / (9δ), for 1/4 ≤ ‖x^(1)‖² ≤ 4 where E ‖x^(1)‖² = 1. With p pixels
    4 p² C_2 c² n / (c_σ² δ) with c = c_{σ,1/√p}, for ‖x^(1)‖² ≥ c_σ / (2c): Lemma 3.15 prints c²
    in the denominator.

    Args:
      smallest_square: c_{σ,1/√p}, `patch_normalization`; wanted with pixels.
      printed: C_2 as printed, and c² in the denominator.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> round(residual_norm_width(10, 0.1, softplus).value)
      2430
    """
    check(n=n, delta=delta)
    variance = feature_variance(1, constants, norm=1.0, printed=printed).value
    note = "as printed" if printed else "constant from the proof"
    if pixels is None:
        value = 16 / 9 * variance * (real(n) / delta)
        return Bound(value, "m = Ω(n / δ)", 16 / 9 * variance, source("Lemma 3.8", note))
    check(pixels=pixels)
    square = _given(smallest_square)
    if printed:
        ratio, constant, formula = square**-2, 4 * variance, "p² n / (c² δ)"
    else:
        ratio, formula = square**2, "c² p² n / δ"
        constant, note = 4 * variance / constants.normalization**2, note + "; printed 1/c²"
    value = constant * (ratio * real(pixels) ** 2 * n / delta)
    return Bound(value, f"m = Ω({formula}), c = c_(σ,1/√p)", constant, source("Lemma 3.15", note))


def largest_residual_feature(
    residual: ArrayLike,
    constants: ActivationConstants,
    weight: ArrayLike,
    *,
    patches: Patches | None = None,
    printed: bool = False,
) -> Bound:
    """c_{x,0} of the two ResNets, the bound on every ‖x^(h)(0)‖ for ‖W^(h)(0)‖ ≤ c_{w,0} √m.

    s eᵃ + (b/a)(eᵃ − 1) with a = √q c_res c_{w,0} L and b = c_res √p |σ(0)|; s = 2 of the first
    layer, and √c_σ (√q L c_{w,0} + √p |σ(0)|) with a convolution. The text prints ‖σ(Wx)‖ ≤
    L ‖Wx‖, that is b = 0 and no σ(0) in s, which wants σ(0) = 0; that of softplus is log 2.

    Args:
      weight: c_{w,0}.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> largest = largest_residual_feature
      >>> bounds = [largest(0.5, softplus, 2.0, printed=p) for p in (False, True)]
      >>> [round(float(bound.value), 3) for bound in bounds]
      [6.032, 5.437]
    """
    check_residual(residual)
    check_lipschitz(constants)
    check(weight=weight)
    p, q = sizes_of(patches)
    zero = 0.0 if printed else abs(constants.value_at_zero)
    start = 2.0
    if patches is not None:
        start = q**0.5 * constants.lipschitz * weight + p**0.5 * zero
        start = constants.normalization**0.5 * start
    exponent = q**0.5 * residual * weight * constants.lipschitz
    lib = library(exponent, start)
    offset = (p / q) ** 0.5 * zero / (weight * constants.lipschitz)
    value = start * lib.exp(exponent) + offset * lib.expm1(exponent)
    place = source(
        "Lemma 3.8" if patches is None else "Lemma 3.15",
        "as printed, for σ(0) = 0" if printed else "with the σ(0) that the text drops",
    )
    return Bound(value, "c_{x,0} = s eᵃ + (b/a)(eᵃ − 1)", 1.0, place)


def smallest_residual_feature(
    depth: ArrayLike,
    residual: ArrayLike,
    constants: ActivationConstants,
    weight: ArrayLike,
    *,
    patches: Patches | None = None,
    smallest_square: ArrayLike | None = None,
    printed: bool = False,
) -> Bound:
    """The lower bound on every ‖x^(h)(0)‖, (1 − a/H)^(H−1) (s + b/a) − b/a; 0 where it is negative.

    a and b as in `largest_residual_feature`; s = 1/2, or √(c_σ / (2c)) with a convolution. The
    text prints s e^(−a), which wants σ(0) = 0, and a < 2: (1 − a/H)^(H−1) is smaller for greater
    a. No later bound uses it. Where σ ≥ 0, as softplus, features only grow, and s is a bound.

    Args:
      smallest_square: c = c_{σ,1/√p}, `patch_normalization`; wanted with patches.

    Example:
      >>> tanh = ActivationConstants(0.0, 1.0, 0.77, 2.536)
      >>> [round(float(smallest_residual_feature(2, 0.9, tanh, 2.0, printed=p).value), 3)
      ...  for p in (False, True)]
      [0.05, 0.083]
    """
    check(depth=depth, weight=weight)
    check_residual(residual)
    check_lipschitz(constants)
    p, q = sizes_of(patches)
    start: ArrayLike = 0.5
    if patches is not None:
        start = (constants.normalization / (2 * _given(smallest_square))) ** 0.5
    exponent = q**0.5 * residual * weight * constants.lipschitz
    lib = library(exponent, depth, start)
    place = source("Lemma 3.8" if patches is None else "Lemma 3.15", "as printed" * printed)
    if printed:
        return Bound(start * lib.exp(-exponent), "s e^(−a)", 1.0, place)
    offset = (p / q) ** 0.5 * abs(constants.value_at_zero) / (weight * constants.lipschitz)
    shrink = lib.maximum(1 - exponent / depth, 0.0) ** (real(depth) - 1)
    value = lib.maximum(shrink * (start + offset) - offset, 0.0)
    return Bound(value, "(1 − a/H)^(H−1) (s + b/a) − b/a", 1.0, place)


def output_norms(m: ArrayLike, delta: ArrayLike, *, pixels: ArrayLike = 1) -> tuple[Bound, Bound]:
    """a_{2,0} and a_{4,0}: ‖a‖_2 ≤ a_{2,0} √m and ‖a‖_4 ≤ a_{4,0} m^(1/4) for every pixel at once.

    Both norms are Lipschitz in a ~ N(0, I), with means at most √m and (3m)^(1/4): with
    t = √(2 log(2p/δ)), 1 + t/√m and 3^(1/4) + t/m^(1/4), each with probability 1 − δ/2.

    Example:
      >>> [round(float(bound.value), 3) for bound in output_norms(10_000, 0.1)]
      [1.024, 1.561]
    """
    check(m=m, delta=delta, pixels=pixels)
    lib = library(m, delta, pixels)
    tail = lib.sqrt(2 * lib.log(2 * real(pixels) / delta))
    place = source("Lemma 3.4", "constants by Gaussian concentration; the text leaves them open")
    second = Bound(1 + tail / lib.sqrt(real(m)), "a_{2,0} = 1 + t/√m", 1.0, place)
    fourth = Bound(3**0.25 + tail / real(m) ** 0.25, "a_{4,0} = 3^¼ + t/m^¼", 1.0, place)
    return second, fourth


def initial_norms(
    m: ArrayLike,
    depth: ArrayLike,
    delta: ArrayLike,
    constants: ActivationConstants,
    residual: ArrayLike | None = None,
    patches: Patches | None = None,
) -> InitialNorms:
    """`InitialNorms` that hold with probability 1 − δ, at widths that bound the first layer too.

    c_{w,0} and (a_{2,0}, a_{4,0}) with δ/2 each; c_{x,0} = 2 for the fully connected network, at
    `fully_connected_norm_width`, and `largest_residual_feature` for the two ResNets, at
    `residual_norm_width`: the δ of those widths comes on top. For inputs of at most m channels.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> norms = initial_norms(10_000, 8, 0.1, softplus, residual=0.5)
      >>> [round(float(value), 3) for value in norms]
      [2.032, 6.125, 1.027, 1.588]
    """
    check(m=m, depth=depth, delta=delta)
    p, q = sizes_of(patches)
    weight = gaussian_operator_norm(m, real(delta) / 2, ratio=q, count=depth).value
    feature: ArrayLike = 2.0
    if residual is not None:
        feature = largest_residual_feature(residual, constants, weight, patches=patches).value
    second, fourth = output_norms(m, real(delta) / 2, pixels=p)
    return InitialNorms(weight, feature, second.value, fourth.value)


def initial_residual_norm(
    n: ArrayLike, delta: ArrayLike, label_bound: ArrayLike, feature: ArrayLike
) -> Bound:
    """The bound on ‖y − u(0)‖ for labels |y_i| ≤ C: √n (C + c_{x,0} (1 + √(2 log(1/δ)))).

    u(0) is Gaussian given the features, ‖x^(H)‖ ≤ c_{x,0}. The text has O(√n), without δ: the
    first term of the widths of Theorems 3.1–3.3 then lacks a factor log(1/δ).

    Example:
      >>> round(float(initial_residual_norm(4, 0.1, 1.0, 2.0).value), 3)
      14.584
    """
    check(n=n, delta=delta, label_bound=label_bound, feature=feature)
    lib = library(n, delta, label_bound, feature)
    tail = 1 + lib.sqrt(2 * lib.log(1 / real(delta)))
    value = lib.sqrt(real(n)) * (label_bound + feature * tail)
    place = source("proof of Lemma 3.6", "constant derived; the text has O(√n)")
    return Bound(value, "√n (C + c_{x,0} (1 + √(2 log(1/δ))))", 1.0, place)
