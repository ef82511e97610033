"""Theorem 3: the weights and biases with which the encoder σ(Wᵀy + b) finds the true support.

Throughout: δ = max_i ‖W_i − A_i‖ is the `closeness`, μ the incoherence, |⟨A_i, A_j⟩| ≤ μ/√n, k the
sparsity, [a_1, a_2] = [`smallest`, `largest`] the sizes of nonzero codes, σ the `noise` per entry;
columns of W and A have norm 1. Arguments are scalars or arrays that broadcast.
"""

import math
from typing import NamedTuple

from jax.typing import ArrayLike

from ntkflow.data.generative import Kind
from ntkflow.systems.sparse_autoencoder.arguments import check, library, real, source
from ntkflow.theory import Bound

# Claims 1 and 2.


def smallest_alignment(closeness: ArrayLike) -> Bound:
    """The bound on λ_i = ⟨W_i, A_i⟩ = 1 − ‖W_i − A_i‖²/2 from below, 1 − δ²/2.

    Example:
      >>> smallest_alignment(0.2).value
      0.98
    """
    check(closeness=closeness)
    return Bound(1 - real(closeness) ** 2 / 2, "1 − δ²/2", 1.0, source("Claim 1 (i)"))


def largest_correlation(n: ArrayLike, incoherence: ArrayLike, closeness: ArrayLike) -> Bound:
    """The bound on |⟨W_i, A_j⟩|, j ≠ i: μ/√n + δ.

    Example:
      >>> round(largest_correlation(100, 0.5, 0.2).value, 12)
      0.25
    """
    check(n=n, incoherence=incoherence, closeness=closeness)
    value = incoherence / real(n) ** 0.5 + closeness
    return Bound(value, "μ/√n + δ", 1.0, source("Claim 1 (ii)"))


def squared_correlations(
    n: ArrayLike,
    sparsity: ArrayLike,
    incoherence: ArrayLike,
    closeness: ArrayLike,
    *,
    printed: bool = False,
) -> Bound:
    """The bound on Σ_{j ∈ S∖{i}} ⟨W_i, A_j⟩², (μ √(k/n) + δ √(1 + (k−1)μ/√n))².

    By the triangle inequality in ℓ², and ‖A_S‖² ≤ 1 + (k−1)μ/√n (Gershgorin). The proof has
    2μ²k/n + 2‖A_S‖²δ², larger; appendix A.2 goes on with μ²k/n + δ² (`printed=True`), without
    these factors, which is exceeded where the error W_i − A_i points along another atom.

    Example:
      >>> round(float(squared_correlations(100, 4, 0.0, 0.2).value), 4)
      0.04
    """
    check(n=n, sparsity=sparsity, incoherence=incoherence, closeness=closeness)
    lib, root = library(n, sparsity, incoherence, closeness), real(n) ** 0.5
    if printed:
        value = real(sparsity) * (incoherence / root) ** 2 + real(closeness) ** 2
        return Bound(value, "μ²k/n + δ²", 1.0, source("appendix A.2", "as printed"))
    norm = lib.sqrt(1 + (sparsity - 1) * incoherence / root)
    value = (incoherence * lib.sqrt(real(sparsity)) / root + closeness * norm) ** 2
    formula = "(μ √(k/n) + δ √(1 + (k−1)μ/√n))²"
    return Bound(value, formula, 1.0, source("Claim 1 (iii)", "with constants"))


def largest_noise(n: ArrayLike, noise: ArrayLike) -> Bound:
    """The bound on max_i |⟨W_i, η⟩|, σ ln n, which holds but with `noise_failure`.

    Example:
      >>> largest_noise(784, 0.03).value.round(4).item()
      0.1999
    """
    check(n=n, noise=noise)
    value = noise * library(n, noise).log(real(n))
    return Bound(value, "σ ln n", 1.0, source("Claim 2"))


def noise_failure(n: ArrayLike, m: ArrayLike) -> Bound:
    """The bound on P(max_i |⟨W_i, η⟩| > σ ln n), m exp(−ln²n / 2), which is n^(−ω(1)) for m = O(n).

    Example:
      >>> f"{noise_failure(784, 10).value:.0e}"
      '2e-09'
    """
    check(n=n, m=m)
    lib = library(n, m)
    value = m * lib.exp(-(lib.log(real(n)) ** 2) / 2)
    return Bound(value, "m exp(−ln²n / 2)", 1.0, source("proof of Claim 2", "with constants"))


# The margins of appendix A.2, and what they ask of the bias.


def smallest_on_support(
    n: ArrayLike,
    sparsity: ArrayLike,
    incoherence: ArrayLike,
    closeness: ArrayLike,
    smallest: ArrayLike,
    largest: ArrayLike,
    *,
    noise: ArrayLike = 0.0,
    bias: ArrayLike = 0.0,
    printed: bool = False,
) -> Bound:
    """The bound on z_i from below, i ∈ S, codes in [a_1, a_2]: (1 − δ²/2) a_1 − Z − σ ln n + b_i.

    Z = a_2 √k √(Σ_j ⟨W_i, A_j⟩²), with the bound of `squared_correlations`. With noise it holds but
    with `noise_failure`.

    Args:
      n, sparsity, incoherence, closeness, smallest, largest: n, k, μ, δ, a_1, a_2.
      noise, bias: σ and b_i.
      printed: whether Z is a_2 √(μ²k²/n + kδ²).

    Example:
      >>> round(float(smallest_on_support(100, 1, 0.0, 0.2, 1.0, 1.0, bias=-0.3).value), 12)
      0.48
    """
    check(smallest=smallest)
    z, formula = _interference(n, sparsity, incoherence, closeness, largest, printed)
    value = (
        smallest_alignment(closeness).value * smallest - z - largest_noise(n, noise).value + bias
    )
    formula = f"(1 − δ²/2) a_1 − {formula} − σ ln n + b_i"
    return Bound(value, formula, 1.0, source("appendix A.2", _note(printed)))


def largest_off_support(
    n: ArrayLike,
    sparsity: ArrayLike,
    incoherence: ArrayLike,
    closeness: ArrayLike,
    largest: ArrayLike,
    *,
    noise: ArrayLike = 0.0,
    bias: ArrayLike = 0.0,
    printed: bool = False,
) -> Bound:
    """The bound on z_i from above, i ∉ S: Z + σ ln n + b_i; for b = 0 it bounds |z_i|.

    Arguments and Z are those of `smallest_on_support`. With it, ReLU finds the support where this
    is at most 0, and a threshold a_1/2 where this is below a_1/2; codes may have signs there.

    Example:
      >>> round(float(largest_off_support(100, 1, 0.0, 0.2, 1.0, bias=-0.3).value), 12)
      -0.1
    """
    z, formula = _interference(n, sparsity, incoherence, closeness, largest, printed)
    value = z + largest_noise(n, noise).value + bias
    return Bound(value, f"{formula} + σ ln n + b_i", 1.0, source("appendix A.2", _note(printed)))


class Interval(NamedTuple):
    """Of biases: lower < b_i ≤ upper; empty where lower ≥ upper."""

    lower: Bound
    upper: Bound


def bias_interval(
    n: ArrayLike,
    sparsity: ArrayLike,
    incoherence: ArrayLike,
    closeness: ArrayLike,
    smallest: ArrayLike,
    largest: ArrayLike,
    *,
    noise: ArrayLike = 0.0,
    printed: bool = False,
) -> Interval:
    """The biases with which ReLU finds the support of non-negative codes.

    (−(1 − δ²/2) a_1 + Z + σ ln n, −Z − σ ln n], from the margins. The theorem has
    [−(1 − δ) a_1 + a_2 δ √k, −a_2 δ √k] (`printed=True`), which leaves no room for μ and σ: two
    atoms at the angle that it allows, δ = 0.1, W_1 = A_1 moved towards A_2 by δ, and b = −δ give
    z_1 = 0.099 > 0 on y = A_2.

    Args:
      n, sparsity, incoherence, closeness, smallest, largest: n, k, μ, δ, a_1, a_2.
      noise: σ.
      printed: whether to give the theorem's interval.

    Example:
      >>> [round(float(end.value), 4) for end in bias_interval(100, 1, 0.5, 0.1, 1.0, 1.0)]
      [-0.845, -0.15]
    """
    if printed:
        check(sparsity=sparsity, closeness=closeness, smallest=smallest, largest=largest)
        z = largest * closeness * real(sparsity) ** 0.5
        place = source("Theorem 3 (ii)", "as printed")
        lower = Bound(z - (1 - closeness) * smallest, "−(1 − δ) a_1 + a_2 δ √k", 1.0, place)
        return Interval(lower, Bound(-1 * z, "−a_2 δ √k", 1.0, place))
    setting = n, sparsity, incoherence, closeness
    low = smallest_on_support(*setting, smallest, largest, noise=noise)
    high = largest_off_support(*setting, largest, noise=noise)
    place = source("Theorem 3 (ii)", "from the margins of appendix A.2")
    lower = Bound(-1 * low.value, "−(1 − δ²/2) a_1 + Z + σ ln n", 1.0, place)
    return Interval(lower, Bound(-1 * high.value, "−Z − σ ln n", 1.0, place))


def mixture_bias_interval(closeness: ArrayLike) -> Interval:
    """The biases of the proof for mixtures of Gaussians: −1 + δ < b_i ≤ −2δ, where μ ≤ δ √n.

    Without noise they suffice. With it they ask σ ln n < δ − δ²/2 on the support, and off it
    b_i ≤ −2δ − σ ln n where μ = δ √n: `bias_interval` has both. Section 5 names a third interval,
    [−1 + 2δ √k, −δ].

    Example:
      >>> [round(end.value, 4) for end in mixture_bias_interval(0.2)]
      [-0.8, -0.4]
    """
    check(closeness=closeness)
    place = source("proof of Theorem 3")
    upper = Bound(-2 * real(closeness), "−2δ", 1.0, place)
    return Interval(Bound(real(closeness) - 1, "−1 + δ", 1.0, place), upper)


# The hypotheses of Theorem 3.


def largest_closeness(n: ArrayLike, *, constant: ArrayLike = 1.0) -> Bound:
    """The δ = O*(1/ln n) that Theorem 3 allows, C / ln n.

    Example:
      >>> largest_closeness(784).value.round(4).item()
      0.1501
    """
    check(n=n, constant=constant)
    value = constant / library(n, constant).log(real(n))
    return Bound(value, "C / ln n", constant, source("Theorem 3"))


def largest_noise_level(n: ArrayLike, *, constant: ArrayLike = 1.0) -> Bound:
    """The σ = O(1/√n) that Theorem 3 allows, C / √n.

    Example:
      >>> round(largest_noise_level(784).value, 4)
      0.0357
    """
    check(n=n, constant=constant)
    return Bound(constant / real(n) ** 0.5, "C / √n", constant, source("Theorem 3"))


def largest_incoherence(
    n: ArrayLike, sparsity: ArrayLike, closeness: ArrayLike, kind: Kind
) -> Bound:
    """The μ that Theorem 3 allows: √n / ln²n for sparse coding, δ √n / k for non-negative codes.

    Example:
      >>> largest_incoherence(784, 5, 0.15, "sparse_coding").value.round(2).item()
      0.63
    """
    check(n=n, sparsity=sparsity, closeness=closeness, kind=kind)
    root = real(n) ** 0.5
    if kind == "sparse_coding":
        value = root / library(n).log(real(n)) ** 2
        return Bound(value, "√n / ln²n", 1.0, source("Theorem 3 (i)"))
    return Bound(closeness * root / sparsity, "δ √n / k", 1.0, source("Theorem 3 (ii), (iii)"))


def largest_sparsity(
    n: ArrayLike, closeness: ArrayLike, kind: Kind, *, constant: ArrayLike = 1.0
) -> Bound:
    """The k that Theorem 3 allows: n / ln n for sparse coding, C / δ² for non-negative codes.

    Example:
      >>> largest_sparsity(784, 0.15, "sparse_coding").value.round(1).item()
      117.6
    """
    check(n=n, closeness=closeness, kind=kind, constant=constant)
    if kind == "sparse_coding":
        value = real(n) / library(n).log(real(n))
        return Bound(value, "n / ln n", 1.0, source("Theorem 3 (i)"))
    lib = library(closeness, constant)
    square = lib.square(closeness)
    value = lib.where(square > 0, constant / lib.where(square > 0, square, 1.0), math.inf)[()]
    return Bound(value, "C / δ²", constant, source("Theorem 3 (ii), (iii)"))


def threshold_level(smallest: ArrayLike) -> Bound:
    """The level of the hard threshold, a_1/2; appendix A.2 writes ½, right for a_1 = 1.

    Example:
      >>> threshold_level(0.5).value
      0.25
    """
    check(smallest=smallest)
    return Bound(real(smallest) / 2, "a_1/2", 1.0, source("Theorem 3 (i), (iii)"))


def _interference(n, sparsity, incoherence, closeness, largest, printed):
    """Z, the bound on |Σ_{j ∈ S∖{i}} ⟨W_i, A_j⟩ x_j*|, and how it is written."""
    check(largest=largest)
    squares = squared_correlations(n, sparsity, incoherence, closeness, printed=printed)
    lib = library(n, sparsity, incoherence, closeness, largest)
    value = largest * lib.sqrt(sparsity * squares.value)
    return value, "a_2 √(μ²k²/n + kδ²)" if printed else "Z"


def _note(printed: bool) -> str:
    return "as printed" if printed else "with the constants of Claim 1 (iii)"
