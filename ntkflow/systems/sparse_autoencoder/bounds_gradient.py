"""Lemmas of Nguyen, Wong and Hegde (2019b), appendix B, on the expected gradient near the truth.

For one column: λ_i = ⟨W_i, A_i⟩ is its `alignment`, ‖W_i − A_i‖ its `distance`, and ‖W_i‖ = 1, so
that 2(1 − λ_i) = ‖W_i − A_i‖²; `moments` are those of the model of the data.
All lemmas rest on one identity: with v_i = g_i − c (W_i − A_i), for any c > 0,

    2⟨g_i, W_i − A_i⟩ = c ‖W_i − A_i‖² + ‖g_i‖²/c − ‖v_i‖²/c.

Arguments are scalars or arrays that broadcast.
"""

from typing import NamedTuple

from jax.typing import ArrayLike

from ntkflow.data.generative import BilinearModel, Moments
from ntkflow.systems.sparse_autoencoder.arguments import check, library, real, source
from ntkflow.theory import Bound


class Sides(NamedTuple):
    """The two sides of an inequality smaller ≤ larger, arrays."""

    smaller: ArrayLike
    larger: ArrayLike


def bias_condition(
    bias: ArrayLike, alignment: ArrayLike, moments: Moments, *, printed: bool = False
) -> Sides:
    """|κ_2 λ_i² + 2κ_1 b_i λ_i + b_i² − κ_2 λ_i| ≤ 2κ_2 (1 − λ_i), which Lemmas 1 and 4 ask.

    For a mixture of Gaussians it is |(b_i + λ_i)² − λ_i| ≤ 2(1 − λ_i). b = 0 satisfies it for
    every λ_i in [0, 1]; another bias that stays as it is does not once λ_i is near 1. Lemma 4
    has 2κ_1 p_i b_i λ_i (`printed=True`), which admits biases with which its claim is false.

    Args:
      bias, alignment: b_i and λ_i.
      moments: of the model, `model.moments`.
      printed: whether to keep the p_i of Lemma 4.

    Example:
      >>> import jax.numpy as jnp
      >>> from ntkflow.data.generative import mixture_of_gaussians
      >>> moments = mixture_of_gaussians(jnp.eye(4)).moments
      >>> [round(float(side), 4) for side in bias_condition(-0.1, 0.9, moments)]
      [0.26, 0.2]
    """
    check(moments=moments)
    lib = library(bias, alignment, moments.kappa_1, moments.kappa_2)
    spurious = moments.single if printed else 1
    on_w = moments.kappa_2 * alignment**2 + 2 * moments.kappa_1 * spurious * bias * alignment
    smaller = lib.abs(on_w + bias**2 - moments.kappa_2 * alignment)
    return Sides(smaller, 2 * moments.kappa_2 * (1 - alignment))


def gradient_correlation(
    distance: ArrayLike,
    alignment: ArrayLike,
    squared_norm: ArrayLike,
    closeness: ArrayLike,
    moments: Moments,
    remainder: ArrayLike = 0.0,
    *,
    printed: bool = False,
) -> Bound:
    """The bound on 2⟨g_i, W_i − A_i⟩ from below, of Lemmas 1 and 4, where `bias_condition` holds.

    c (1 − 2δ²/λ_i²) ‖W_i − A_i‖² + ‖g_i‖²/c − 2‖γ_i‖²/c, c = κ_2 p_i λ_i, with γ_i what the
    gradient has beside `leading_gradient`; remainder = ‖γ_i‖. The lemmas print λ_i − 2δ² for
    λ_i (1 − 2δ²/λ_i²) = λ_i − 2δ²/λ_i (`printed=True`): the proof loses a 1/λ_i, and a γ_i along
    W_i at the rim of the bias condition breaks the printed form. Without γ_i and for λ_i ≥ ½ both
    hold.

    Args:
      distance, alignment: ‖W_i − A_i‖ and λ_i > 0.
      squared_norm: ‖g_i‖².
      closeness: δ ≥ ‖W_i − A_i‖.
      moments: of the model, `model.moments`.
      remainder: ‖γ_i‖: 0 for mixtures of Gaussians and consistent codes; see
        `nonnegative_remainder`.
      printed: whether to give the first term without 1/λ_i.

    Example:
      >>> import jax.numpy as jnp
      >>> from ntkflow.data.generative import mixture_of_gaussians
      >>> moments = mixture_of_gaussians(jnp.eye(2)).moments
      >>> round(float(gradient_correlation(0.2, 0.98, 0.01, 0.2, moments).value), 5)
      0.03838
    """
    check(distance=distance, closeness=closeness, squared_norm=squared_norm, remainder=remainder)
    check(moments=moments)
    scale = moments.kappa_2 * moments.single
    c = scale * alignment
    loss = 2 * closeness**2 if printed else 2 * closeness**2 / alignment
    value = scale * (alignment - loss) * distance**2 + (squared_norm - 2 * remainder**2) / c
    term = "λ_i − 2δ²" if printed else "λ_i − 2δ²/λ_i"
    note = "as printed" if printed else "with the 1/λ_i of the proof"
    formula = f"κ_2 p_i ({term}) ‖W_i − A_i‖² + (‖g_i‖² − 2‖γ_i‖²)/(κ_2 p_i λ_i)"
    return Bound(value, formula, 1.0, source("Lemmas 1 and 4", note))


def sparse_gradient_correlation(
    distance: ArrayLike,
    alignment: ArrayLike,
    squared_norm: ArrayLike,
    closeness: ArrayLike,
    moments: Moments,
    remainder: ArrayLike,
    *,
    printed: bool = False,
) -> Bound:
    """The bound on 2⟨g_i, W_i − A_i⟩ from below, of Lemma 2, for sparse coding and b = 0.

    c (1 − δ²/2) ‖W_i − A_i‖² + ‖g_i‖²/c − 2 R²/c, c = p_i λ_i, where R = `sparse_remainder` bounds
    what the gradient has beside −p_i λ_i A_i + p_i λ_i² W_i. The lemma lacks the factor that its
    proof ends with (`printed=True`); where R = 0, as for k = 1, it is false.

    Arguments are those of `gradient_correlation`.

    Example:
      >>> import jax.numpy as jnp
      >>> from ntkflow.data.generative import sparse_coding
      >>> moments = sparse_coding(jnp.eye(4), 2).moments
      >>> round(float(sparse_gradient_correlation(0.2, 0.98, 0.01, 0.2, moments, 0.0).value), 5)
      0.03962
    """
    check(distance=distance, closeness=closeness, squared_norm=squared_norm, remainder=remainder)
    check(moments=moments)
    c = moments.single * alignment
    factor = 1.0 if printed else 1 - real(closeness) ** 2 / 2
    value = c * factor * distance**2 + (squared_norm - 2 * remainder**2) / c
    term = "" if printed else "(1 − δ²/2) "
    formula = f"p_i λ_i {term}‖W_i − A_i‖² + (‖g_i‖² − 2 R²)/(p_i λ_i)"
    note = "as printed" if printed else "with the factor of its proof"
    return Bound(value, formula, 1.0, source("Lemma 2", note))


def sparse_remainder(
    n: ArrayLike, sparsity: ArrayLike, moments: Moments, *, constant: ArrayLike = 1.0
) -> Bound:
    """R of Lemma 2, C p_i k/n: the terms of j ≠ i, with ‖W‖ and ‖A‖ of order √(m/n).

    The terms that equation (15) drops are of the same order: C is between 1 and 6 with all of them,
    on a random dictionary with n = m = 60, k = 3 and ‖W_i − A_i‖ = 0.3.

    Example:
      >>> import jax.numpy as jnp
      >>> from ntkflow.data.generative import sparse_coding
      >>> sparse_remainder(4, 2, sparse_coding(jnp.eye(4), 2).moments).value
      0.25
    """
    check(n=n, sparsity=sparsity, constant=constant, moments=moments)
    value = constant * (moments.single * sparsity / real(n))
    return Bound(value, "C p_i k/n", constant, source("proof of Lemma 2"))


def nonnegative_remainder(
    m: ArrayLike,
    sparsity: ArrayLike,
    moments: Moments,
    coupling: ArrayLike = 0.0,
    *,
    constant: ArrayLike = 1.0,
    printed: bool = False,
) -> Bound:
    """The bound on what a non-negative model's gradient has beside (16): C κ_2 p_i k/√m + ‖e_i‖.

    Claims 3 and 4 give κ_2 p_i k/√m for k ≤ √m; the text loses their p_i (`printed=True`, and κ_2
    for max(κ_1², κ_2), which it is). For e_i, what α_i W_i − β_i A_i leaves, it takes C κ_2 p_i k/m
    from another paper. That cannot be: e_i holds κ_1² p_ij λ_i Σ_{j≠i} (W_j − A_j), which for a
    shift that all columns share is κ_1² p_i (k − 1) δ, measured to 10 % on orthonormal atoms.

    Args:
      m, sparsity: m and k.
      moments: of the model, `model.moments`.
      coupling: ‖e_i‖ ≥ 0.
      constant: C.
      printed: whether to give the text's C max(κ_1², κ_2) k/√m, which is not of the gradient's
        scale.

    Example:
      >>> import jax.numpy as jnp
      >>> from ntkflow.data.generative import nonnegative_sparse_coding
      >>> moments = nonnegative_sparse_coding(jnp.eye(16), 2, 1.0, 1.0).moments
      >>> float(nonnegative_remainder(16, 2, moments).value)
      0.0625
    """
    check(m=m, sparsity=sparsity, coupling=coupling, constant=constant, moments=moments)
    scale = constant * moments.kappa_2 * sparsity / real(m) ** 0.5
    if printed:
        return Bound(scale, "C κ_2 k/√m", constant, source("equation (16)", "as printed"))
    value = moments.single * scale + coupling
    note = "with its p_i, and e_i for itself"
    return Bound(value, "C κ_2 p_i k/√m + ‖e_i‖", constant, source("equation (16)", note))


def alpha_deviation(
    bias: ArrayLike, alignment: ArrayLike, model: BilinearModel, norm: ArrayLike = 1.0
) -> Bound:
    """The bound on |α_i − p_i (κ_2 λ_i² + 2κ_1 b_i λ_i + b_i²)|, with constants; norm = ‖A‖.

    κ_2 p_ij ‖A‖² + κ_1² p_ijl m ‖A‖² + 2κ_1 p_ij (κ_1 |λ_i| + |b_i|) √m ‖A‖, where Claim 3 has
    p_i k/m for p_ij, p_i k²/m² for p_ijl, and O(·) for ‖A‖.
    """
    check(model=model, norm=norm)
    lib = library(bias, alignment, norm, model.dictionary)
    mean, second = _deviations(model, norm)
    signed = 2 * model.moments.kappa_1 * mean
    value = second + signed * (model.moments.kappa_1 * lib.abs(alignment) + lib.abs(bias))
    formula = "κ_2 p_ij ‖A‖² + κ_1² p_ijl m ‖A‖² + 2κ_1 p_ij (κ_1 |λ_i| + |b_i|) √m ‖A‖"
    return Bound(value, formula, 1.0, source("Claim 3", "with its constants"))


def beta_deviation(
    bias: ArrayLike, model: BilinearModel, norm: ArrayLike = 1.0, weight_norm: ArrayLike = 1.0
) -> Bound:
    """The bound on |β_i − κ_2 p_i λ_i|, with constants; norm = ‖A‖, weight_norm = ‖W‖.

    κ_2 p_ij ‖W‖² + κ_1² p_ij √m (‖A‖ + ‖W‖) + κ_1² p_ijl m ‖W‖² + κ_1 p_ij max|b| √m ‖W‖;
    `bias` = max |b_j|.
    """
    check(model=model, norm=norm, weight_norm=weight_norm)
    mean, _ = _deviations(model, 1.0)
    _, second = _deviations(model, weight_norm)
    kappa_1 = model.moments.kappa_1
    shared = kappa_1 * (norm + weight_norm) + library(bias).abs(bias) * weight_norm
    formula = "κ_2 p_ij ‖W‖² + κ_1² p_ijl m ‖W‖² + κ_1 p_ij (κ_1 (‖A‖ + ‖W‖) + max|b| ‖W‖) √m"
    return Bound(second + kappa_1 * mean * shared, formula, 1.0, source("Claim 4", "constants"))


def _deviations(model: BilinearModel, norm: ArrayLike) -> tuple[ArrayLike, ArrayLike]:
    """p_ij √m ‖·‖ and κ_2 p_ij ‖·‖² + κ_1² p_ijl m ‖·‖²."""
    moments, m = model.moments, model.dictionary.shape[1]
    second = moments.kappa_2 * moments.pair + moments.kappa_1**2 * moments.triple * m
    return moments.pair * m**0.5 * norm, second * norm**2
