"""What the proofs of Du (2019), chapter 3, share: one step of descent, products, Gaussian matrices.

Arguments are scalars or arrays that broadcast; what the theorems do not speak of is refused.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.deep.constants import check, library, real, source
from ntkflow.theory import Bound


def error_decay(steps: ArrayLike, lambda_0: ArrayLike, step_size: ArrayLike) -> Bound:
    """The bound on ‖y − u(k)‖² / ‖y − u(0)‖² of Theorems 3.1–3.3, (1 − ηλ_0/2)ᵏ.

    It is Condition 3.3, which the proofs carry from step to step; 0 where ηλ_0 ≥ 2.

    Example:
      >>> error_decay(2, 0.5, 0.4).value.round(4).item()
      0.81
    """
    check(steps=steps, lambda_0=lambda_0, step_size=step_size)
    lib = library(steps, lambda_0, step_size)
    base = lib.maximum(1 - lambda_0 * real(step_size) / 2, 0.0)
    place = source("Theorems 3.1–3.3, Condition 3.3")
    return Bound(lib.power(base, real(steps)), "(1 − ηλ_0/2)ᵏ", 1.0, place)


def squared_error_after(residual: ArrayLike, change: ArrayLike) -> Array:
    """‖y − u(k+1)‖² by (3.11): ‖r‖² − 2 r·Δ + ‖Δ‖² with r = y − u(k) and Δ = u(k+1) − u(k).

    Example:
      >>> float(squared_error_after(jnp.array([3.0, 4.0]), jnp.array([3.0, 0.0])))
      16.0
    """
    residual, change = jnp.asarray(residual), jnp.asarray(change)
    checks.same_length(residual=residual, change=change)
    return residual @ residual - 2 * residual @ change + change @ change


def contraction_factor(
    step_size: ArrayLike,
    gram_eigenvalue: ArrayLike,
    second_order: ArrayLike,
    squared_change: ArrayLike,
) -> Bound:
    """The bound on ‖y − u(k+1)‖² / ‖y − u(k)‖² that ends the proofs: 1 − 2ηλ + 2ι + ν.

    With λ ≤ λ_min(G(k)), ‖I_2‖ ≤ ι ‖y − u(k)‖ and ‖u(k+1) − u(k)‖² ≤ ν ‖y − u(k)‖². What the
    lemmas give, λ = λ_0/2 and ι = ν = ηλ_0/8, makes it 1 − 5ηλ_0/8, below the 1 − ηλ_0/2 claimed.

    Example:
      >>> contraction_factor(0.1, 0.2, 0.005, 0.005).value
      0.975
    """
    check(step_size=step_size, gram_eigenvalue=gram_eigenvalue)
    check(second_order=second_order, squared_change=squared_change)
    value = 1 - 2 * step_size * real(gram_eigenvalue) + 2 * second_order + squared_change
    return Bound(value, "1 − 2ηλ + 2ι + ν", 1.0, source("section 3.9, after Lemma 3.7"))


def product_change(norms: Sequence[ArrayLike], changes: Sequence[ArrayLike]) -> Bound:
    """The bound on ‖Π A_i − Π B_i‖_F, (Σ α_i) Π M_i.

    For `norms` M_i ≥ ‖A_i‖, ‖B_i‖, spectral, and `changes` α_i with ‖A_i − B_i‖_F ≤ α_i M_i.

    Example:
      >>> product_change([2.0, 3.0], [0.5, 0.25]).value
      4.5
    """
    if len(norms) != len(changes):
        raise ValueError(
            f"norms has {len(norms)} entries, changes {len(changes)}; expected one of each per "
            "factor."
        )
    for norm, change in zip(norms, changes, strict=True):
        check(norms=norm, changes=change)
    value = sum(map(real, changes), start=0.0)
    for norm in norms:
        value = value * norm
    return Bound(value, "(Σ α_i) Π M_i", 1.0, source("Lemma 3.26"))


def operator_norm_failure(m: ArrayLike, weight: ArrayLike, ratio: ArrayLike = 1.0) -> Bound:
    """The bound on P(‖W‖ > c √m) for an m × rm matrix of N(0, 1): exp(−(c − √r − 1)² m / 2).

    1 where c ≤ √r + 1, of which the lemma does not speak. Its proof prints exp(+t²/2).

    Args:
      weight: c.
      ratio: r, columns per row.

    Example:
      >>> round(float(operator_norm_failure(100, 2.3).value), 4)
      0.0111
    """
    check(m=m, weight=weight, ratio=ratio)
    lib = library(m, weight, ratio)
    beyond = lib.maximum(weight - lib.sqrt(real(ratio)) - 1, 0.0)
    value = lib.exp(-(beyond**2) * m / 2)
    return Bound(value, "exp(−(c − √r − 1)² m / 2)", 1.0, source("Lemma 3.27"))


def gaussian_operator_norm(
    m: ArrayLike, delta: ArrayLike, *, ratio: ArrayLike = 1.0, count: ArrayLike = 1
) -> Bound:
    """c_{w,0}, the bound on ‖W‖ / √m for `count` matrices m × rm of N(0, 1) at once.

    1 + √r + √(2 log(count/δ) / m): `operator_norm_failure` solved for c. The text takes 2.01.

    Example:
      >>> round(float(gaussian_operator_norm(1000, 0.1, count=10).value), 4)
      2.096
    """
    check(m=m, delta=delta, ratio=ratio, count=count)
    lib = library(m, delta, ratio, count)
    value = 1 + lib.sqrt(real(ratio)) + lib.sqrt(2 * lib.log(count / real(delta)) / m)
    place = source("Lemma 3.27", "solved for c_{w,0}")
    return Bound(value, "c_{w,0} = 1 + √r + √(2 log(count/δ) / m)", 1.0, place)
