"""Theorem 4 of Nguyen, Wong and Hegde (2019b): what a step of normalized descent leaves of W − A.

λ_i = ⟨W_i, A_i⟩ is the `alignment` of a column, ‖W_i‖ = 1, and ζ the step size; `moments` are those
of the model of the data. Arguments are scalars or arrays that broadcast.
"""

from jax.typing import ArrayLike

from ntkflow.data.generative import Kind, Moments
from ntkflow.systems.sparse_autoencoder.arguments import check, library, real, source
from ntkflow.theory import Bound


def lemma_step_size(alignment: ArrayLike, moments: Moments, *, printed: bool = False) -> Bound:
    """The ζ up to which the lemmas give descent, min_i 1/(κ_2 p_i λ_i), over the last axis.

    ‖W_i − ζg_i − A_i‖² is bounded with ζ (ζ − 1/c) ‖g_i‖² ≤ 0, c = κ_2 p_i λ_i, for each i: the
    smallest 1/c, where the proof takes the largest (`printed=True`). For non-negative codes of
    k ≥ 3 neither is small enough for descent to be stable: see `descent.largest_step_size`.

    Example:
      >>> import jax.numpy as jnp
      >>> from ntkflow.data.generative import mixture_of_gaussians
      >>> moments = mixture_of_gaussians(jnp.eye(2)).moments
      >>> float(lemma_step_size(jnp.array([1.0, 0.8]), moments).value)
      2.0
    """
    check(moments=moments)
    lib = library(alignment, moments.kappa_2)
    each = lib.atleast_1d(1 / (moments.kappa_2 * moments.single * alignment))
    value = (lib.max if printed else lib.min)(each, axis=-1)
    name = "max" if printed else "min"
    note = "as printed" if printed else "min for max"
    formula = f"{name}_i 1/(κ_2 p_i λ_i)"
    return Bound(value, formula, 1.0, source("proof of Theorem 4", note))


def contraction(
    step_size: ArrayLike,
    alignment: ArrayLike,
    closeness: ArrayLike,
    moments: Moments,
    *,
    printed: bool = False,
) -> Bound:
    """τ_i = ζ κ_2 p_i (λ_i − 2δ²/λ_i), by which ‖W_i − A_i‖² contracts; printed without /λ_i.

    For sparse coding, where ζ c (1 − δ²/2) is larger, it is a bound all the same.

    Example:
      >>> import jax.numpy as jnp
      >>> from ntkflow.data.generative import mixture_of_gaussians
      >>> moments = mixture_of_gaussians(jnp.eye(2)).moments
      >>> round(float(contraction(2.0, 0.98, 0.2, moments).value), 4)
      0.8984
    """
    check(step_size=step_size, closeness=closeness, moments=moments)
    loss = 2 * closeness**2 if printed else 2 * closeness**2 / alignment
    value = step_size * moments.kappa_2 * moments.single * (alignment - loss)
    formula = "ζ κ_2 p_i (λ_i − 2δ²)" if printed else "ζ κ_2 p_i (λ_i − 2δ²/λ_i)"
    note = "as printed" if printed else "with the 1/λ_i of the proof"
    return Bound(value, formula, 1.0, source("proof of Theorem 4", note))


def floor(
    n: ArrayLike,
    m: ArrayLike,
    sparsity: ArrayLike,
    kind: Kind,
    *,
    constant: ArrayLike = 1.0,
    exponent: ArrayLike = 2.0,
) -> Bound:
    """What Theorem 4 adds to (1 − τ) ‖W − A‖_F²: m n^(−c), m k²/n², or k³/m, by the kind of model.

    The proof's own terms for non-negative codes, ζ times the remainder of Lemma 4, sum to O(k²):
    k³/m forgets the factor ζ = Θ(m/k).

    Args:
      n, m, sparsity: n, m and k.
      kind: of the model, `model.kind`.
      constant: C, in front.
      exponent: c of the mixture; the text has some c > 1.

    Example:
      >>> floor(100, 200, 4, "sparse_coding").value
      0.32
    """
    check(n=n, m=m, sparsity=sparsity, kind=kind, constant=constant, exponent=exponent)
    if kind == "mixture_of_gaussians":
        value, formula, case = real(m) / real(n) ** exponent, "C m n^(−c)", "(i)"
    elif kind == "sparse_coding":
        value, formula, case = real(m) * sparsity**2 / real(n) ** 2, "C m k²/n²", "(ii)"
    else:
        value, formula, case = real(sparsity) ** 3 / m, "C k³/m", "(iii)"
    return Bound(constant * value, formula, constant, source(f"Theorem 4 {case}"))


def error_decay(steps: ArrayLike, tau: ArrayLike, initial: ArrayLike, floor: ArrayLike) -> Bound:
    """The bound on ‖W^s − A‖_F² after s steps: (1 − τ)^s ‖W⁰ − A‖_F² + F (1 − (1 − τ)^s)/τ.

    Args:
      steps: s.
      tau: τ in (0, 1].
      initial: ‖W⁰ − A‖_F².
      floor: F, what each step adds.

    Example:
      >>> error_decay(2, 0.5, 1.0, 0.25).value
      0.625
    """
    check(steps=steps, tau=tau, initial=initial, floor=floor)
    power = (1 - real(tau)) ** steps
    value = power * initial + floor * (1 - power) / tau
    return Bound(value, "(1 − τ)ˢ ‖W⁰ − A‖_F² + F (1 − (1 − τ)ˢ)/τ", 1.0, source("Theorem 4"))


def normalized_distance(distance: ArrayLike, *, printed: bool = False) -> Bound:
    """The bound on ‖normalize(W̃_i) − A_i‖, from ρ = ‖W̃_i − A_i‖: √(2 − 2√(1 − ρ²)).

    The worst W̃_i is a tangent's point: an angle with sine ρ, and its chord; it is ρ (1 + ρ²/8) for
    small ρ. For ρ > 1 it may point anywhere: 2. Lemma 5 has 2ρ/(1 + ρ) (`printed=True`), from
    w ≥ 1 − ρ by a slip of sign: it is exceeded for ρ > 0.8, and loses a factor of 2 where ρ is
    small.

    Args:
      distance: ρ, (1 − τ) ‖W_i − A_i‖ in Lemma 5.

    Example:
      >>> round(float(normalized_distance(0.6).value), 4)
      0.6325
    """
    check(distance=distance)
    lib, rho = library(distance), real(distance)
    if printed:
        value = 2 * rho / (1 + rho)
        return Bound(value, "2ρ/(1 + ρ)", 1.0, source("Lemma 5", "as printed"))
    inside = lib.where(rho > 1, 0.0, rho)
    # √(2 − 2√(1 − ρ²)), without the difference
    chord = inside * lib.sqrt(2 / (1 + lib.sqrt(1 - lib.square(inside))))
    value = lib.where(rho > 1, 2.0, chord)[()]
    return Bound(value, "√(2 − 2√(1 − ρ²))", 1.0, source("Lemma 5", "sharp; 2ρ/(1 − ρ) proven"))


def smallest_contraction(closeness: ArrayLike, *, printed: bool = False) -> Bound:
    """The τ from which Lemma 5 keeps ‖W_i − A_i‖ ≤ δ through normalization: (1 + δ)/(2 + δ).

    Its proof ends with it; the lemma has (1 − δ)/(2 − δ) (`printed=True`), from the slip of sign
    that `normalized_distance` names, and fails for δ = 0.9.

    Example:
      >>> round(smallest_contraction(0.5).value, 4)
      0.6
    """
    check(closeness=closeness)
    if printed:
        value = (1 - real(closeness)) / (2 - closeness)
        return Bound(value, "(1 − δ)/(2 − δ)", 1.0, source("Lemma 5", "as printed"))
    value = (1 + real(closeness)) / (2 + closeness)
    return Bound(value, "(1 + δ)/(2 + δ)", 1.0, source("proof of Lemma 5"))


def largest_spectral_distance(norm: ArrayLike) -> Bound:
    """The bound on ‖W − A‖ that nearness asks and Lemma 3 claims to last, 2‖A‖; norm = ‖A‖.

    Example:
      >>> largest_spectral_distance(1.5).value
      3.0
    """
    check(norm=norm)
    return Bound(2 * real(norm), "2‖A‖", 1.0, source("Definition 2, Lemma 3"))
