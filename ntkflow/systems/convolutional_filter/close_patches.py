"""Close patches, Theorem 6.5 of Du (2019): γ and L_cross bounded, and a sample held against it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.convolutional_filter.arguments import (
    check,
    filter_of,
    floating,
    library,
    patches_of,
    real,
    source,
)
from ntkflow.systems.convolutional_filter.population import angle, gradient_terms
from ntkflow.theory import Bound, Certificate, Inequality, inequality


def patch_gamma(
    gamma_avg: ArrayLike, rho: ArrayLike, mu: ArrayLike, *, printed: bool = False
) -> Bound:
    """Bound γ(φ) of close patches from below by that of their average.

    Unless a patch and the average Z_avg of its sample are on different sides of w or w*,
    Z_{++} = Z_avg 1{Z_avg in ++} exactly. Otherwise all patches are within 2ρ of that boundary:

        γ(φ) ≥ γ_avg(φ) − 4 μ ρ,  where P[|θ(Z_i, v) − π/2| ≤ 2ρ] ≤ 2μρ for v = w and v = w*.

    The printed bound, γ_avg − 4(1 − cos ρ), asks for no mass bound near w, takes 2(1 − cos ρ) for
    the distance of two unit vectors, which is its square, and forgets the patches that are
    inactive; it is false. Two patches at u(t ± ρ), t uniform on the circle, w = w*, lose about
    ρ/2π, and 2ρ² for ρ < 0.08 is less.

    Args:
      gamma_avg: γ_avg(φ) = λ_min(E[Z_avg Z_avgᵀ 1{w·Z_avg ≥ 0, w*·Z_avg ≥ 0}]).
      rho: ρ ≥ θ(Z_i, Z_avg), for all patches.
      mu: μ, unused where printed.
      printed: whether to take the printed bound.

    Example:
      >>> round(patch_gamma(gamma_avg=0.25, rho=0.01, mu=2 / np.pi).value, 4)
      0.2245

    Reference: Du (2019), Theorem 6.5.
    """
    check(gamma_avg=gamma_avg, phi=rho, mu=mu)
    loss = 4 * (1 - library(rho).cos(real(rho))) if printed else 4 * mu * rho
    return Bound(
        gamma_avg - loss,
        "γ_avg(φ) − 4 (1 − cos ρ)" if printed else "γ_avg(φ) − 4 μ ρ",
        4,
        source("Theorem 6.5", "as printed" if printed else "corrected"),
    )


def patch_cross(mu: ArrayLike, *, printed: bool = False) -> Bound:
    """Bound L_cross of patches of norm at most 1 by μ, where P[|θ(Z_i, w*) − π/2| ≤ ψ] ≤ μψ.

    With the shares p of a sample's patches, the three norms are at most
    E[p_{++}p_{+−} + p_{++}p_{−+} + p_{+−}p_{−+}] ≤ E[p_{+−} + p_{−+}], and both regions lie within
    φ of the boundary of w*, on its two sides. So μ for the printed 3μ, and 2μ where each side alone
    has the μ (signed angles in the plane, near π/2 and −π/2 each, of which the theorem speaks too).
    The hypothesis must hold for all ψ ≤ π/2; with ψ ≤ ρ, as printed, the bound is false at φ > ρ:
    mass near the boundary of w, where w* has none, is seen by E[Z_{++} Z_{−+}ᵀ].

    Args:
      mu: μ.
      printed: whether to take 3μ.

    Example:
      >>> patch_cross(mu=0.5).value, patch_cross(mu=0.5, printed=True).value
      (0.5, 1.5)

    Reference: Du (2019), Theorem 6.5.
    """
    check(mu=mu)
    factor = 3 if printed else 1
    return Bound(
        factor * real(mu),
        f"L_cross ≤ {'3' if printed else ''}μ",
        factor,
        source("Theorem 6.5", "as printed" if printed else "corrected, and sharper"),
    )


def certificate_close_patches(
    z: ArrayLike, w_star: Any, w: ArrayLike, *, printed: bool = False
) -> Certificate:
    """Hold a sample of patches, as a distribution of its own, against Theorem 6.5.

    ρ and μ are the smallest that the sample allows: ρ the largest angle of a patch from the average
    of its sample, μ the share of patches within ψ of the boundary of w*, per ψ, the largest over
    all ψ, or over ψ ≤ ρ where printed. For γ, corrected: at ψ = 2ρ, of w* and of w.

    Args:
      z: patches of norm 1 (corrected: at most 1), shape (n, k, p).
      w_star: w*, shape (p,).
      w: filters to compare γ and L_cross at, shape (m, p), none of them 0.
      printed: whether to hold the sample against the printed theorem, which is false.

    Returns:
      The certificate, with a record per filter.

    Raises:
      ValueError: shapes that do not fit, NaN; a filter, a patch or the average of a sample's that
        is 0, and has no angle.

    Example:
      >>> t = np.linspace(-np.pi, np.pi, 1000, endpoint=False) + 1e-3
      >>> both = np.stack([t - 0.02, t + 0.02], axis=1)
      >>> z = np.stack([np.cos(both), np.sin(both)], axis=-1)
      >>> w_star, w = jnp.array([1.0, 0.0]), jnp.array([[1.0, 1e-3], [1.0, 1.0]])
      >>> [bool(certificate_close_patches(z, w_star, w, printed=p).holds) for p in (False, True)]
      [True, False]

    Reference: Du (2019), Theorem 6.5.
    """
    w_star = filter_of(w_star, "w_star")
    z, w = patches_of(z, w_star.size), floating(w)
    if w.ndim != 2 or w.shape[1] != w_star.size or len(w) == 0:
        raise ValueError(f"w has shape {w.shape}; expected filters in rows, (m, {w_star.size}).")
    checks.finite("w", w)
    patches = np.asarray(z)
    average = patches.mean(axis=1)
    normals = np.concatenate([np.asarray(w_star)[None, :], np.asarray(w)])
    if not all(np.any(vectors, axis=-1).all() for vectors in (patches, average, normals)):
        raise ValueError(
            "A row of w, w_star, a patch or the average of a sample's patches is 0; expected "
            "vectors that have an angle."
        )
    norms = np.linalg.norm(patches, axis=-1)
    unit, center = _unit(patches), _unit(average)
    # The angle from half the chord: an arccosine would lose half of the digits near 0.
    chord = np.linalg.norm(unit - center[:, None, :], axis=-1).max()
    rho = 2 * np.arcsin(np.minimum(chord / 2, 1))
    tilts = np.abs(np.arcsin(np.clip(np.einsum("nkp,mp->mkn", unit, _unit(normals)), -1, 1)))
    both, whole, crossing, theta = (np.asarray(value) for value in _measure(z, w_star, w))
    gamma, gamma_avg = (np.maximum(np.linalg.eigvalsh(m)[:, 0], 0) for m in (both, whole))
    cross = np.linalg.norm(crossing, 2, axis=(-2, -1)).sum(axis=-1)
    mu = _density(tilts[0], rho if printed else np.inf)
    within = np.mean(tilts <= 2 * rho, axis=-1).max(axis=-1)
    mu_near = np.maximum(within[0], within[1:]) / (2 * rho) if rho > 0 else 0.0
    dtype, eps = gamma.dtype, np.finfo(gamma.dtype).eps
    note = "as printed" if printed else "corrected"

    def row(statement: str, smaller: Any, larger: Any) -> Inequality:
        return inequality(statement, f"Du (2019), Theorem 6.5 ({note})", smaller, larger, dtype)

    lower = patch_gamma(gamma_avg, rho, mu_near, printed=printed)
    upper = patch_cross(mu, printed=printed)
    return Certificate(
        theorem="Du (2019), Theorem 6.5: close patches, little mass near the boundary",
        hypotheses=(
            row("‖Z_i‖ ≤ 1", norms.max(), 1 + 100 * eps),
            *((row("1 ≤ ‖Z_i‖", 1 - 100 * eps, norms.min()),) if printed else ()),
        ),
        claims=(
            row(f"{lower.formula} ≤ γ(φ)", lower.value, gamma + 100 * eps),
            row(
                f"cross moments ≤ {'3' if printed else ''}μφ",
                cross,
                upper.value * theta + 100 * eps,
            ),
        ),
    )


@jax.jit
def _measure(z: jax.Array, w_star: jax.Array, w: jax.Array) -> tuple[jax.Array, ...]:
    average = jnp.mean(z, axis=1)

    def at(one: jax.Array) -> tuple[jax.Array, ...]:
        terms = gradient_terms(one, w_star, z)
        whole = gradient_terms(one, w_star, average[:, None, :])
        crossing = jnp.stack([terms.both_student, terms.both_teacher, terms.student_teacher])
        return terms.both, whole.both, crossing, angle(one, w_star)

    return jax.lax.map(at, w)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _density(tilts: np.ndarray, largest: Any) -> Any:
    """The smallest μ with P[tilt ≤ ψ] ≤ μψ, ψ ≤ largest, for every patch; tilts (k, n)."""
    tilts = np.sort(tilts, axis=-1)
    shares = np.arange(1, tilts.shape[-1] + 1) / tilts.shape[-1]
    with np.errstate(divide="ignore"):
        return np.where(tilts <= largest, shares / tilts, 0.0).max()
