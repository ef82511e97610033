"""How close G^(H)(0) is to K^(H): Lemma 3.22 of Du (2019), and with it Lemmas 3.2, 3.9 and 3.16.

G^(H)(0) − K^(H) = (G^(H)(0) − K̂^(H)) + (K̂^(H) − K^(H)), where K̂^(H) is the expectation over the
last two layers of weights with the features of layer H − 1 as they are. The text bounds each by
λ_0/8. `scale` is 1/n times the largest entry that either can have, `last_gram_scale`.
"""

from typing import Any

from jax.typing import ArrayLike

from ntkflow.systems.deep.activations import ActivationConstants
from ntkflow.systems.deep.constants import (
    ABSOLUTE_MOMENT,
    Patches,
    check,
    check_lipschitz,
    check_residual,
    check_smooth,
    library,
    real,
    sizes_of,
    source,
)
from ntkflow.theory import Bound


def last_gram_scale(
    constants: ActivationConstants,
    feature: ArrayLike,
    *,
    depth: ArrayLike = 1,
    residual: ArrayLike | None = None,
    patches: Patches | None = None,
) -> Bound:
    """The bound on every |G_ij^(H)| / ((1/m) Σ a_r²): c c_{x,0}² L² with c = c_σ or c_res² / H².

    With a convolution it is c q c_{x,0}² L², for Σ a_r² over all pixels: a patch repeats a pixel at
    most q times.

    Args:
      feature: c_{x,0}, the largest norm of features of layer H − 1.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> last_gram_scale(softplus, 2.0).value, last_gram_scale(
      ...     softplus, 2.0, depth=4, residual=0.5).value
      (4.342, 0.0625)
    """
    check(depth=depth, feature=feature)
    check_lipschitz(constants)
    _, q = sizes_of(patches)
    factor: Any = constants.normalization
    if residual is not None:
        check_residual(residual)
        factor = (residual / real(depth)) ** 2
    value = factor * q * (real(feature) * constants.lipschitz) ** 2
    return Bound(value, "c q c_{x,0}² L²", 1.0, source("equations (3.12)–(3.14)"))


def last_gram_deviation(
    n: ArrayLike,
    m: ArrayLike,
    delta: ArrayLike,
    scale: ArrayLike,
    *,
    pixels: ArrayLike = 1,
) -> Bound:
    """The bound on ‖G^(H)(0) − K̂^(H)‖, n s p (√(6t/m) + 2t/m) with t = log(2n²/δ), s = `scale`.

    By Bernstein's inequality for a_r² σ'σ', whose moments are those of a_r² times L^(2k) at most;
    p times that for the squared norm over p pixels. The text leaves the constants open.

    Example:
      >>> round(float(last_gram_deviation(2, 10_000, 0.1, 4.342).value), 3)
      0.453
    """
    check(n=n, m=m, delta=delta, scale=scale, pixels=pixels)
    lib = library(n, m, delta, scale, pixels)
    ratio = lib.log(2 * real(n) ** 2 / delta) / m
    value = n * scale * real(pixels) * (lib.sqrt(6 * ratio) + 2 * ratio)
    place = source("proof of Lemma 3.22", "constants by Bernstein's inequality")
    return Bound(value, "n s p (√(6t/m) + 2t/m), t = log(2n²/δ)", 1.0, place)


def last_gram_width(
    n: ArrayLike,
    lambda_0: ArrayLike,
    delta: ArrayLike,
    scale: ArrayLike,
    *,
    pixels: ArrayLike = 1,
) -> Bound:
    """The width above which ‖G^(H)(0) − K̂^(H)‖ ≤ λ_0/8, of Lemma 3.22: Ω(n² log(n/δ) / λ_0²).

    `last_gram_deviation` solved for m: t / v², v = (√(6 + 8ε) − √6) / 4, ε = λ_0 / (8 n s p).

    Example:
      >>> round(float(last_gram_width(2, 0.1, 0.1, 4.342).value))
      12701714
    """
    check(n=n, lambda_0=lambda_0, delta=delta, scale=scale, pixels=pixels)
    lib = library(n, lambda_0, delta, scale, pixels)
    allowed = lambda_0 / (8 * real(n) * scale * pixels)
    # (√(6 + 8ε) − √6) / 4 without the difference of nearly equal numbers.
    root = 2 * allowed / (lib.sqrt(6 + 8 * allowed) + 6**0.5)
    value = lib.log(2 * real(n) ** 2 / delta) / root**2
    place = source("Lemma 3.22", "constants by Bernstein's inequality")
    return Bound(value, "m = Ω(n² log(n/δ) / λ_0²)", 1.0, place)


def limit_gram_change(
    n: ArrayLike,
    entry_error: ArrayLike,
    constants: ActivationConstants,
    *,
    smallest: ArrayLike = 0.5,
    largest: ArrayLike = 2.0,
) -> Bound:
    """The bound on ‖K̂^(H) − K^(H)‖ / c of the fully connected network and the ResNet, c as above.

    n ε (L² + l² (β² (1 + l/s) + βL √(2/π) / s)) where |K̂_ij^(H−1) − K_ij^(H−1)| ≤ ε and both
    diagonals lie in [s², l²]. The text has a constant C, and asks for ε ≤ cλ_0/n² where λ_0/n
    suffices; it prints K̂^(H−1) for K̂^(H) and leaves c_σ out.

    Args:
      smallest: s; 1/2 by Lemma 3.1.
      largest: l; 2 by Lemma 3.1.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> round(limit_gram_change(2, 1e-3, softplus).value, 5)
      0.00769
    """
    check_smooth(constants)
    check(n=n, entry_error=entry_error, smallest=smallest, largest=largest)
    slope, bend = constants.lipschitz, constants.smoothness
    small, large = real(smallest), real(largest)
    # d E[σ'(u)σ'(v)]: β² by the covariance, and by each variance a² at a fixed covariance at most
    # (E|z σ''(az)| L + β² b |ρ|) / 2a.
    expectation = bend**2 * (1 + large / small) + bend * slope * ABSOLUTE_MOMENT / small
    value = real(n) * entry_error * (slope**2 + large**2 * expectation)
    formula = "n ε (L² + l² (β² (1 + l/s) + βL √(2/π) / s))"
    place = source("Lemma 3.22", "constant derived; the text has C")
    return Bound(value, formula, 1.0, place)
