"""How close the kernels of Nguyen, Wong and Hegde (2019a) are to their limits at initialization.

Lemma 4.1 (appendix B.1) for the encoder's kernel G, Lemma 5.1 (appendix C.1) for the decoder's H,
and the norms of random weights. Symbols are those of `bounds`; ε is a bound on the spectral norm.
"""

import math
from typing import Any

from jax.typing import ArrayLike

from ntkflow.systems.autoencoder.arguments import check, library, real, source
from ntkflow.theory import Bound


def encoder_gram_tail(
    n: ArrayLike,
    d: ArrayLike,
    m: ArrayLike,
    lambda_n: ArrayLike,
    epsilon: ArrayLike,
    *,
    printed: bool = False,
) -> Bound:
    """The bound on P(‖G(0) − G^∞‖ ≥ ε), 2nd exp(−(mε²/2) / ((d+1)λ_nε/3 + dλ_n²)).

    Matrix Bernstein's inequality for Rademacher decoders. Printed with nd for 2nd: the inequality
    cited is for the largest eigenvalue, and the norm has two sides.

    Args:
      epsilon: ε. The text has mε for it.

    Example:
      >>> f"{encoder_gram_tail(10, 5, 100_000, 2.0, 0.1).value:.1e}"
      '2.3e-09'

    Reference: Nguyen, Wong and Hegde (2019a), proof of Lemma 4.1; Tropp (2012), Theorem 1.4.
    """
    check(n=n, d=d, m=m, lambda_n=lambda_n, epsilon=epsilon)
    numpy = library(n, d, m, lambda_n, epsilon)
    d, lambda_n, sides = real(d), real(lambda_n), 1 if printed else 2
    spread = (d + 1) * lambda_n * epsilon / 3 + d * lambda_n**2
    value = sides * n * d * numpy.exp(-real(m) * epsilon**2 / 2 / spread)
    formula = f"{'nd' if printed else '2nd'} exp(−(mε²/2) / ((d+1)λ_nε/3 + dλ_n²))"
    note = "as printed, one side" if printed else "both sides; printed nd"
    return Bound(value, formula, 1.0, source("proof of Lemma 4.1", note))


def encoder_gram_width(
    n: ArrayLike,
    d: ArrayLike,
    lambda_0: ArrayLike,
    lambda_n: ArrayLike,
    delta: ArrayLike,
    *,
    constant: ArrayLike = 1.0,
    printed: bool = False,
) -> Bound:
    """The width of Lemma 4.1, above which ‖G(0) − G^∞‖ ≤ λ_0/4 and λ_min(G(0)) ≥ ¾ λ_0.

    `encoder_gram_tail` = δ at ε = λ_0/4, solved: 32 (dλ_n² + (d+1)λ_nλ_0/12) log(2nd/δ) / λ_0². As
    λ_0 ≤ ½ ≤ λ_n/2, that is at most 34.7 dλ_n² log(2nd/δ)/λ_0². For Gaussian data λ_n is of the
    order max(n/d, 1), and for n = O(d) the width Õ(d) (Remark 4.1).

    Args:
      constant: C of the printed form.
      printed: C λ_n² d log(nd/δ) / λ_0².

    Example:
      >>> round(float(encoder_gram_width(10, 5, 0.2, 2.0, 0.1).value))
      111629

    Reference: Nguyen, Wong and Hegde (2019a), Lemma 4.1.
    """
    check(n=n, d=d, lambda_0=lambda_0, lambda_n=lambda_n, delta=delta, constant=constant)
    log = library(n, d, lambda_0, lambda_n, delta).log
    if printed:
        value = constant * (real(lambda_n) ** 2 * d * log(real(n) * d / delta) / lambda_0**2)
        formula = "m = Ω(λ_n² d log(nd/δ) / λ_0²)"
        return Bound(value, formula, constant, source("Lemma 4.1", "as printed"))
    spread = real(d) * real(lambda_n) ** 2 + (real(d) + 1) * lambda_n * lambda_0 / 12
    value = 32 * spread * log(2 * real(n) * d / delta) / lambda_0**2
    formula = "m = 32 (dλ_n² + (d+1)λ_nλ_0/12) log(2nd/δ) / λ_0²"
    return Bound(value, formula, 32.0, source("Lemma 4.1", "constant from the proof, both sides"))


def limit_gram_norm(n: ArrayLike, lambda_n: ArrayLike) -> Bound:
    """The bound on ‖H^∞‖ = ‖h‖, n/(2π) + λ_n (½ − 1/(2π)).

    φ(z) = (z + |z|)/2, so that 4h = XᵀX + E|Xᵀw||wᵀX|, and the second has 2/π (1 + Σ c_k γ^{2k})
    for entries with c_k ≥ 0, Σ c_k = π/2 − 1 and γ = x_i·x_j. It is equal for orthogonal samples,
    and where all are the same: of the order n, though λ_n may be 1.

    Example:
      >>> round(limit_gram_norm(10, 1.0).value, 4), limit_gram_norm(10, 10.0).value
      (1.9324, 5.0)

    Reference: derived, for Nguyen, Wong and Hegde (2019a), Lemma 5.1 and Claim C.2.
    """
    check(n=n, lambda_n=lambda_n)
    value = real(n) / (2 * math.pi) + lambda_n * (0.5 - 0.5 / math.pi)
    return Bound(value, "n/(2π) + λ_n (½ − 1/(2π))", 1.0, source("Claim C.2", "derived"))


def feature_gram_norm(lambda_n: ArrayLike, neuron_norm: ArrayLike) -> Bound:
    """The bound on ‖Z_r‖ = ‖φ(Xᵀw_r)‖², λ_n ‖w_r‖².

    Example:
      >>> feature_gram_norm(2.0, 3.0).value
      18.0

    Reference: Nguyen, Wong and Hegde (2019a), Claim C.1 (i).
    """
    check(lambda_n=lambda_n, neuron_norm=neuron_norm)
    return Bound(lambda_n * real(neuron_norm) ** 2, "λ_n ‖w_r‖²", 1.0, source("Claim C.1 (i)"))


def squared_neuron_norm(d: ArrayLike, delta: ArrayLike, *, printed: bool = False) -> Bound:
    """The bound on ‖w_r(0)‖² that fails with probability δ, d + 2 √(d log(1/δ)) + 2 log(1/δ).

    Claim C.1 prints 4d √log(2/δ), by a tail exp(−ε²/(8d)) that a χ² variable has for ε ≤ d alone:
    it fails for d = 1 and δ below some 8e-4, and like that in any d for δ below about 2 exp(−4d²).

    Example:
      >>> round(float(squared_neuron_norm(10, 0.01).value), 3)
      32.783

    Reference: Nguyen, Wong and Hegde (2019a), Claim C.1 (ii); Laurent and Massart (2000), Lemma 1.
    """
    check(d=d, delta=delta)
    numpy = library(d, delta)
    if printed:
        value = 4 * real(d) * numpy.sqrt(numpy.log(2 / delta))
        return Bound(value, "4d √log(2/δ)", 4.0, source("Claim C.1 (ii)", "as printed"))
    log = numpy.log(1 / delta)
    value = d + 2 * numpy.sqrt(real(d) * log) + 2 * log
    place = source("Claim C.1 (ii)", "by Laurent and Massart (2000); printed 4d √log(2/δ)")
    return Bound(value, "d + 2 √(d log(1/δ)) + 2 log(1/δ)", 1.0, place)


def feature_gram_variance(
    n: ArrayLike,
    d: ArrayLike,
    lambda_n: ArrayLike,
    *,
    gram_norm: ArrayLike | None = None,
    printed: bool = False,
) -> Bound:
    """The bound on ‖E Z_r Z_rᵀ‖, Z_r = φ(Xᵀw_r)φ(w_rᵀX): (q + 2) λ_n ‖h‖, q = min(n, d).

    ‖φ(Xᵀw)‖² ≤ λ_n ‖Pw‖² with P the projection onto the samples' span, and E ‖Pw‖² (b·φ(Xᵀw))² =
    (q + 2) bᵀhb, for φ is homogeneous. Claim C.2 prints 3nλ_n, by Stein's identity without the
    boundary terms: false for n = d = 50 orthogonal samples, which have 232 against 150.

    Args:
      gram_norm: ‖h‖; None takes the bound `limit_gram_norm`.

    Example:
      >>> round(float(feature_gram_variance(50, 50, 1.0).value), 1)
      431.5
      >>> feature_gram_variance(50, 50, 1.0, printed=True).value
      150.0

    Reference: Nguyen, Wong and Hegde (2019a), Claim C.2.
    """
    check(n=n, d=d, lambda_n=lambda_n)
    if printed:
        value = 3 * real(n) * lambda_n
        return Bound(value, "3nλ_n", 3.0, source("Claim C.2", "as printed"))
    norm = limit_gram_norm(n, lambda_n).value if gram_norm is None else gram_norm
    check(gram_norm=norm)
    value = (_rank(n, d) + 2) * lambda_n * norm
    place = source("Claim C.2", "derived; printed 3nλ_n")
    return Bound(value, "(min(n, d) + 2) λ_n ‖h‖", 1.0, place)


def feature_gram_deviation(d: ArrayLike, lambda_n: ArrayLike, *, printed: bool = False) -> Bound:
    """The bound on sup_b √E[(bᵀZ_rb)²] over unit b, √(d² + 2d) λ_n.

    E ‖w‖⁴ = d² + 2d, for which the text has 3d² and √3 dλ_n: true, and equal for d = 1.

    Example:
      >>> round(feature_gram_deviation(2, 1.0).value, 3)
      2.828

    Reference: Nguyen, Wong and Hegde (2019a), Claim C.3.
    """
    check(d=d, lambda_n=lambda_n)
    if printed:
        value = math.sqrt(3) * real(d) * lambda_n
        return Bound(value, "√3 dλ_n", math.sqrt(3), source("Claim C.3", "as printed; looser"))
    value = (real(d) * (d + 2)) ** 0.5 * lambda_n
    return Bound(value, "√(d² + 2d) λ_n", 1.0, source("Claim C.3", "E ‖w‖⁴ = d² + 2d; printed 3d²"))


def decoder_gram_tail(
    n: ArrayLike,
    d: ArrayLike,
    m: ArrayLike,
    lambda_n: ArrayLike,
    epsilon: ArrayLike,
    *,
    gram_norm: ArrayLike | None = None,
) -> Bound:
    """The bound on P(‖H(0) − H^∞‖ ≥ ε), 2n exp(−(mε²/2) / (σ² + Rε)).

    σ² = (q + 2) λ_n ‖h‖, `feature_gram_variance`, and R = λ_n max(2, (q + 4)/3), q = min(n, d). It
    stands for the text's tail, `printed_decoder_gram_failure`, which rests on Claim C.2.
    E Z^p ≼ λ_n^{p−1} (q+2)(q+4)⋯(q+2p−2) h ≼ (p!/2) R^{p−2} σ² I, so that Tropp's (2012) master
    bound has the exponent of a sub-exponential variable; no centering is needed, as Z_r ≽ 0.

    Args:
      gram_norm: ‖h‖; None takes the bound `limit_gram_norm`.

    Example:
      >>> f"{decoder_gram_tail(10, 5, 100_000, 2.0, 0.1).value:.1e}"
      '4.0e-06'

    Reference: derived, for Nguyen, Wong and Hegde (2019a), Lemma 5.1.
    """
    check(n=n, d=d, m=m, lambda_n=lambda_n, epsilon=epsilon)
    variance = feature_gram_variance(n, d, lambda_n, gram_norm=gram_norm).value
    exp = library(n, d, m, epsilon, variance).exp
    spread = variance + _size(n, d, lambda_n) * epsilon
    value = 2 * n * exp(-real(m) * epsilon**2 / 2 / spread)
    formula = "2n exp(−(mε²/2) / ((q+2)λ_n‖h‖ + λ_n max(2, (q+4)/3) ε)), q = min(n, d)"
    return Bound(value, formula, 1.0, source("Lemma 5.1", "derived"))


def decoder_gram_width(
    n: ArrayLike,
    d: ArrayLike,
    lambda_0: ArrayLike,
    lambda_n: ArrayLike,
    delta: ArrayLike,
    *,
    gram_norm: ArrayLike | None = None,
    constant: ArrayLike = 1.0,
    printed: bool = False,
) -> Bound:
    """The width of Lemma 5.1, above which ‖H(0) − H^∞‖ ≤ λ_0/4 and λ_min(H(0)) ≥ ¾ λ_0.

    λ_0 is λ_min(h) here. `decoder_gram_tail` = δ at ε = λ_0/4, solved:
    32 (σ² + Rλ_0/4) log(2n/δ) / λ_0². Printed: C max(n, d) λ_n log²(nd/δ) / λ_0² (the body of the
    text has λ_δ² for λ_0²), with another probability, `printed_decoder_gram_failure`.

    Args:
      gram_norm: ‖h‖; None takes the bound `limit_gram_norm`.
      constant: C of the printed form.

    Example:
      >>> round(float(decoder_gram_width(10, 5, 0.05, 2.0, 0.1).value))
      2163433

    Reference: Nguyen, Wong and Hegde (2019a), Lemmas 5.1 and C.1.
    """
    check(n=n, d=d, lambda_0=lambda_0, lambda_n=lambda_n, delta=delta, constant=constant)
    numpy = library(n, d, lambda_0, lambda_n, delta)
    if printed:
        order = numpy.maximum(real(n), real(d)) * lambda_n / lambda_0**2
        value = constant * (order * numpy.log(real(n) * d / delta) ** 2)
        formula = "m = Ω(max(n, d) λ_n log²(nd/δ) / λ_0²)"
        place = source("Lemmas 5.1 and C.1", "as printed, λ_0 for λ_δ")
        return Bound(value, formula, constant, place)
    variance = feature_gram_variance(n, d, lambda_n, gram_norm=gram_norm).value
    spread = variance + _size(n, d, lambda_n) * lambda_0 / 4
    value = 32 * spread * numpy.log(2 * real(n) / delta) / lambda_0**2
    formula = "m = 32 ((q+2)λ_n‖h‖ + λ_n max(2, (q+4)/3) λ_0/4) log(2n/δ) / λ_0², q = min(n, d)"
    return Bound(value, formula, 32.0, source("Lemmas 5.1 and C.1", "derived"))


def printed_decoder_gram_failure(
    n: ArrayLike, d: ArrayLike, m: ArrayLike, delta: ArrayLike
) -> Bound:
    """The probability that the printed Lemma 5.1 fails with, 1/(2nd)^{2 log(nd)} + mδ.

    It grows with the width: δ is asked to be below λ_0/(12dλ_n²), and has to be below 1/m, too.

    Example:
      >>> round(float(printed_decoder_gram_failure(10, 5, 1000, 1e-5).value), 6)
      0.01

    Reference: Nguyen, Wong and Hegde (2019a), Lemmas 5.1 and C.1.
    """
    check(n=n, d=d, m=m, delta=delta)
    numpy = library(n, d, m, delta)
    size = real(n) * d
    value = numpy.exp(-2 * numpy.log(size) * numpy.log(2 * size)) + real(m) * delta
    return Bound(value, "1/(2nd)^{2 log(nd)} + mδ", 1.0, source("Lemmas 5.1 and C.1"))


def initial_weight_norm(d: ArrayLike, m: ArrayLike) -> Bound:
    """The bound on ‖W(0)‖ for Gaussian weights, 2√m + √d; see `initial_weight_norm_failure`.

    The text has it for ‖A(0)‖, too; for Rademacher weights take `initial_decoder_norm`.

    Example:
      >>> initial_weight_norm(4, 100).value
      22.0

    Reference: Nguyen, Wong and Hegde (2019a), proof of Theorem 5.1.
    """
    check(d=d, m=m)
    value = 2 * real(m) ** 0.5 + real(d) ** 0.5
    return Bound(value, "2√m + √d", 1.0, source("proof of Theorem 5.1"))


def initial_weight_norm_failure(m: ArrayLike, *, printed: bool = False) -> Bound:
    """The probability that `initial_weight_norm` fails, exp(−m/2).

    P(‖W‖ ≥ √m + √d + t) ≤ exp(−t²/2) for t = √m. The text has 2 exp(−m), which is false: for d = 1
    ‖W‖² is χ² with m degrees of freedom, and exceeds (2√m + 1)² with probability 3.3e-82 for
    m = 200, not with 2 e⁻²⁰⁰ = 2.8e-87.

    Example:
      >>> round(float(initial_weight_norm_failure(10).value), 5)
      0.00674

    Reference: Nguyen, Wong and Hegde (2019a), proof of Theorem 5.1; Davidson and Szarek (2001).
    """
    check(m=m)
    exp = library(m).exp
    if printed:
        place = source("proof of Theorem 5.1", "as printed")
        return Bound(2 * exp(-real(m)), "2 exp(−m)", 2.0, place)
    place = source("proof of Theorem 5.1", "t = √m; printed 2 exp(−m)")
    return Bound(exp(-real(m) / 2), "exp(−m/2)", 1.0, place)


def initial_decoder_norm(d: ArrayLike, m: ArrayLike, delta: ArrayLike) -> Bound:
    """The bound on ‖A(0)‖ for Rademacher decoders that fails with probability δ, √(m + t).

    t = c/3 + √(c²/9 + 2mc), c = (d − 1) log(d/δ), by matrix Bernstein's inequality for Σ a_r a_rᵀ:
    the terms have norm d, mean I and variance (d − 1) I. ‖A(0)‖ = √m for d = 1.

    Example:
      >>> round(float(initial_decoder_norm(4, 10_000, 0.1).value), 2)
      102.34

    Reference: derived, for Nguyen, Wong and Hegde (2019a), proof of Theorem 5.1.
    """
    check(d=d, m=m, delta=delta)
    numpy = library(d, m, delta)
    c = (real(d) - 1) * numpy.log(real(d) / delta)
    value = numpy.sqrt(m + c / 3 + numpy.sqrt(c**2 / 9 + 2 * m * c))
    return Bound(value, "√(m + t)", 1.0, source("proof of Theorem 5.1", "derived"))


def initial_features_norm(
    n: ArrayLike,
    m: ArrayLike,
    lambda_0: ArrayLike,
    lambda_n: ArrayLike,
    *,
    gram_norm: ArrayLike | None = None,
) -> Bound:
    """The bound on ‖φ(XᵀW(0))‖ where Lemma 5.1 holds, √(m (‖h‖ + λ_0/4)).

    The text has √λ_n ‖W(0)‖ ≤ √λ_n (2√m + √d) for it, which is smaller where λ_n ≪ n.

    Args:
      gram_norm: ‖h‖; None takes the bound `limit_gram_norm`.

    Example:
      >>> round(initial_features_norm(10, 100, 0.1, 1.0).value, 3)
      13.991

    Reference: derived, for Nguyen, Wong and Hegde (2019a), Lemma 5.2.
    """
    check(n=n, m=m, lambda_0=lambda_0, lambda_n=lambda_n)
    norm = limit_gram_norm(n, lambda_n).value if gram_norm is None else gram_norm
    check(gram_norm=norm)
    value = (real(m) * (norm + lambda_0 / 4)) ** 0.5
    return Bound(value, "√(m (‖h‖ + λ_0/4))", 1.0, source("Lemma 5.2", "derived"))


def _rank(n: ArrayLike, d: ArrayLike) -> Any:
    return library(n, d).minimum(real(n), real(d))


def _size(n: ArrayLike, d: ArrayLike, lambda_n: ArrayLike) -> Any:
    """R of `decoder_gram_tail`."""
    return lambda_n * library(n, d, lambda_n).maximum(2.0, (_rank(n, d) + 4) / 3)
