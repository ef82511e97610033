"""γ(φ), L(φ), β and L_cross of any distribution of patches, estimated from samples.

A sample mean of matrices is unbiased, its extreme eigenvalues are not: λ_min is too small, λ_max
and singular values too large, in expectation. The extreme over the filters tried errs the other
way.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.data.synthetic import sphere
from ntkflow.systems.convolutional_filter.arguments import (
    check,
    filter_of,
    one_number,
    patches_of,
)
from ntkflow.systems.convolutional_filter.network import product, unit_vector
from ntkflow.systems.convolutional_filter.search import QUANTITIES, Estimate, best, search, turn


class Moments(NamedTuple):
    """What the theorems of chapter 6 ask of a distribution.

    Attributes:
      gamma: γ(φ) = min λ_min(E[Z_{++} Z_{++}ᵀ]) over ∠(w, w*) = φ, of the shape of φ.
      smoothness: L(φ), the largest λ_max of the same matrix over the same w, of the shape of φ.
      beta: β, a number: λ_max(E[Z_{+−} Z_{+−}ᵀ]) ≤ βφ for all w at φ ≤ π/2.
      cross: L_cross, a number: the norms of E[Z_{++} Z_{+−}ᵀ], E[Z_{++} Z_{−+}ᵀ] and
        E[Z_{+−} Z_{−+}ᵀ] have a sum ≤ L_cross φ for all w at φ ≤ π/2; 0 for k = 1.
    """

    gamma: Any
    smoothness: Any
    beta: Any
    cross: Any


def cone_directions(key: jax.Array, w_star: Any, count: int) -> jax.Array:
    """Draw unit vectors orthogonal to w*, uniformly: w = cos φ w*/‖w*‖ + sin φ u is at angle φ.

    Args:
      key: PRNG key.
      w_star: w*, shape (p,), p ≥ 2.
      count: how many, static; for p = 2 there are two, and both are returned.

    Returns:
      u, shape (count, p), or (2, 2).

    Raises:
      ValueError: w* has fewer than two entries or is 0, count no whole number greater than 0.

    Example:
      >>> cone_directions(jax.random.key(0), jnp.array([2.0, 0.0]), 32).tolist()
      [[-0.0, 1.0], [0.0, -1.0]]
    """
    w_star, count = _target(w_star), checks.positive_int("count", count)
    unit = unit_vector(w_star)
    if w_star.size == 2:
        across = jnp.stack([-unit[1], unit[0]])
        return jnp.stack([across, -across])
    drawn = sphere(key, count, w_star.size, w_star.dtype)
    across = drawn - product(drawn, unit)[:, None] * unit[None, :]
    return across / jnp.linalg.norm(across, axis=1, keepdims=True)


def at_angle(w_star: Any, phi: ArrayLike, direction: ArrayLike) -> jax.Array:
    """Compute ‖w*‖ (cos φ w*/‖w*‖ + sin φ u), the filter at angle φ from w* towards u.

    Args:
      w_star: w*, shape (p,).
      phi: φ in [0, π].
      direction: u, a unit vector orthogonal to w* (not checked), shape (p,).

    Example:
      >>> at_angle(jnp.array([2.0, 0.0]), jnp.pi / 6, jnp.array([0.0, 1.0])).round(4).tolist()
      [1.7321, 1.0]
    """
    w_star = _target(w_star)
    check(phi=phi)
    one_number(phi=phi)
    cosine, sine = turn(phi, w_star.dtype)
    direction = filter_of(direction, "direction").astype(w_star.dtype)
    if direction.shape != w_star.shape:
        raise ValueError(
            f"direction has shape {direction.shape} and w_star {w_star.shape}; expected the same."
        )
    return cosine * w_star + sine * jnp.linalg.norm(w_star) * direction


def estimate_gamma(
    z: ArrayLike,
    w_star: Any,
    phi: ArrayLike,
    directions: ArrayLike | None = None,
    *,
    rounds: int = 6,
    held_out: ArrayLike | None = None,
) -> Estimate:
    """Estimate γ(φ) = min_{∠(w, w*) = φ} λ_min(E[Z_{++} Z_{++}ᵀ]).

    The samples are the distribution: for the distribution that puts 1/n on each, the value is an
    upper bound of γ(φ), the smallest over the filters tried, and exact for p = 2, where two filters
    are all there are. As an estimate for the law that samples were drawn from, it is too small
    for each filter (E λ_min(Â) ≤ λ_min(A)), by O(1/n) where λ_min is simple.

    With `held_out`, filter and eigenvector v come from z, and the value, a mean of (v·Z_{++})²,
    from the other samples: it is unbiased for vᵀ A_{w,w*} v ≥ γ(φ), so that the value is, in
    expectation, above γ(φ) of that law, and its standard error says all of its noise.

    Filters: those of `directions`, then in each round the best one moved along each of them, by
    ½, ¼, … of their length. That may end in a local extreme: more directions make it less likely.
    Time O(n k p + n p²) for each filter; memory O(n (k + p)), one at a time.

    Args:
      z: patches, shape (n, k, p), p ≥ 2.
      w_star: w*, shape (p,).
      phi: φ in [0, π], one number; may be traced.
      directions: unit vectors orthogonal to w* (not checked), shape (m, p), of
        `cone_directions`; by default 32 of a fixed key, and for p = 2 both.
      rounds: rounds of refinement, static; for p = 2 there is nothing to refine.
      held_out: other samples of the same law, shape (n', k, p).

    Returns:
      `Estimate`. The value is a mean of squares, never negative; values below some
      eps·L(φ) are rounding.

    Raises:
      ValueError: shapes that do not fit, NaN, an angle outside of [0, π], w* = 0, p = 1. Under a
        trace, NaN gives NaN.

    Example:
      >>> z = np.random.default_rng(0).normal(size=(4000, 1, 2))
      >>> estimate = estimate_gamma(z, jnp.array([1.0, 0.0]), np.pi / 3)
      >>> exact = (np.pi - np.pi / 3 - np.sin(np.pi / 3)) / (2 * np.pi)
      >>> bool(abs(float(estimate.value) - exact) < 3 * estimate.standard_error.item())
      True

    Reference: Du (2019), Definition 6.1 and (6.4).
    """
    return _estimate("gamma", z, w_star, phi, directions, rounds, held_out)


def estimate_smoothness(
    z: ArrayLike,
    w_star: Any,
    phi: ArrayLike,
    directions: ArrayLike | None = None,
    *,
    rounds: int = 6,
    held_out: ArrayLike | None = None,
) -> Estimate:
    """Estimate L(φ) = max_{∠(w, w*) = φ} λ_max(E[Z_{++} Z_{++}ᵀ]).

    For the samples themselves the value is a lower bound, exact for p = 2; for the law that they
    were drawn from it is, for each filter, too large. With `held_out` it is, in expectation,
    below L(φ) of that law. Arguments, result and errors: `estimate_gamma`.

    Reference: Du (2019), Definition 6.1 and (6.4).
    """
    return _estimate("smoothness", z, w_star, phi, directions, rounds, held_out)


def estimate_beta(
    z: ArrayLike,
    w_star: Any,
    phi: ArrayLike,
    directions: ArrayLike | None = None,
    *,
    rounds: int = 6,
    held_out: ArrayLike | None = None,
) -> Estimate:
    """Estimate max_{∠(w, w*) = φ} λ_max(E[Z_{+−} Z_{+−}ᵀ])/φ; β is its supremum over 0 < φ ≤ π/2.

    Lower and upper as for `estimate_smoothness`. Few patches are in +− where φ is small: for a
    density there, the relative standard error grows like 1/√(nφ). Arguments, result and errors:
    `estimate_gamma`, with φ in (0, π/2].

    Reference: Du (2019), Assumptions 6.1 and 6.2.
    """
    return _estimate("beta", z, w_star, phi, directions, rounds, held_out)


def estimate_cross(
    z: ArrayLike,
    w_star: Any,
    phi: ArrayLike,
    directions: ArrayLike | None = None,
    *,
    rounds: int = 6,
    held_out: ArrayLike | None = None,
) -> Estimate:
    """Estimate what L_cross is the supremum of over 0 < φ ≤ π/2.

        max_{∠(w, w*) = φ} (‖E[Z_{++} Z_{+−}ᵀ]‖ + ‖E[Z_{++} Z_{−+}ᵀ]‖ + ‖E[Z_{+−} Z_{−+}ᵀ]‖)/φ

    in operator norms, which is what the proof of Theorem 6.3 uses. The assumption prints λ_max;
    the matrices are not symmetric, and their eigenvalues bound nothing: for independent Gaussian
    patches all three λ_max are 0, and the norms are not.

    Lower and upper as for `estimate_smoothness`; exactly 0 for k = 1, and where the patches of
    each sample are equal. Arguments, result and errors: `estimate_gamma`, with φ in (0, π/2].

    Reference: Du (2019), Assumption 6.3.
    """
    return _estimate("cross", z, w_star, phi, directions, rounds, held_out)


def estimate_moments(
    z: ArrayLike,
    w_star: Any,
    phis: ArrayLike,
    directions: ArrayLike | None = None,
    *,
    rounds: int = 6,
) -> Moments:
    """Estimate γ and L at given angles, and β and L_cross over those in (0, π/2].

    One search for each quantity and angle, as `estimate_gamma` and the other three do it, which
    give standard errors too. β and L_cross are the largest of their values at the angles, so that
    the assumptions hold of the samples there, at the filters tried; between angles they may fail.

    γ and L decrease in φ for k = 1: on the way from w* to w the region ++ shrinks. For k > 1 they
    need not, since Σ_i Z_i 1{Z_i in ++} may be smaller than its parts: for Z_1 = (cos t, sin t),
    Z_2 = (cos t, −sin t), γ(0) = 0 < γ(π/2). Theorem 6.3 then holds with the smallest γ(φ) over
    φ ≤ φ_t for γ(φ_t): the last step of its proof takes γ as decreasing.

    Args:
      z: patches, shape (n, k, p), p ≥ 2.
      w_star: w*, shape (p,).
      phis: angles in [0, π], shape (m,), at least one of them in (0, π/2].
      directions, rounds: as for `estimate_gamma`.

    Returns:
      `Moments`: gamma and smoothness of shape (m,), beta and cross numbers.

    Raises:
      ValueError: as from `estimate_gamma`; no angle in (0, π/2], which under a trace gives NaN.

    Example:
      >>> z = np.random.default_rng(0).normal(size=(4000, 1, 2))
      >>> moments = estimate_moments(z, jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0, 2.0]))
      >>> moments.gamma.shape, moments.beta.shape, float(moments.cross)
      ((3,), (), 0.0)

    Reference: Du (2019), Definition 6.1, Assumptions 6.1 to 6.3.
    """
    z, w_star, directions, rounds = _read(z, w_star, directions, rounds)
    check(phi=phis)
    checks.finite("phis", phis)
    phis = jnp.asarray(phis, w_star.dtype)
    if phis.ndim != 1 or phis.size == 0:
        raise ValueError(f"phis has shape {phis.shape}; expected angles, (m,).")
    if checks.is_concrete(phis) and not np.any(_acute(np.asarray(phis))):
        raise ValueError("phis holds no angle in (0, π/2]; expected one, for β and L_cross.")
    return _moments(z, w_star, phis, directions, rounds)


def _estimate(
    name: str,
    z: ArrayLike,
    w_star: Any,
    phi: ArrayLike,
    directions: ArrayLike | None,
    rounds: int,
    held_out: ArrayLike | None,
) -> Estimate:
    check(phi=phi)
    one_number(phi=phi)
    checks.finite("phi", phi)
    per_angle = name in ("beta", "cross")
    if per_angle and checks.is_concrete(phi) and not _acute(np.asarray(phi)):
        raise ValueError(f"phi is {phi}; expected an angle in (0, π/2]: its value is per φ.")
    z, w_star, directions, rounds = _read(z, w_star, directions, rounds)
    phi = jnp.asarray(phi, w_star.dtype)
    held_out = z if held_out is None else patches_of(held_out, w_star.size).astype(w_star.dtype)
    if held_out.shape[1] != z.shape[1]:
        raise ValueError(
            f"held_out has shape {held_out.shape} and z {z.shape}; expected as many patches of "
            "each sample."
        )
    found = search((name,), z, w_star, phi, directions, rounds, held_out)[name]
    if per_angle:
        return found._replace(value=found.value / phi, standard_error=found.standard_error / phi)
    return found


def _read(
    z: ArrayLike, w_star: Any, directions: ArrayLike | None, rounds: int
) -> tuple[jax.Array, jax.Array, jax.Array, int]:
    w_star = _target(w_star)
    z = patches_of(z, w_star.size)
    dtype = jnp.result_type(z, w_star)
    z, w_star = z.astype(dtype), w_star.astype(dtype)
    if directions is None:
        directions = cone_directions(jax.random.key(0), w_star, 32)
    directions = jnp.asarray(directions, dtype)
    if directions.ndim != 2 or directions.shape[1] != w_star.size or len(directions) == 0:
        raise ValueError(
            f"directions have shape {directions.shape}; expected (m, {w_star.size}), as of "
            "cone_directions."
        )
    checks.finite("directions", directions)
    if rounds:
        rounds = checks.positive_int("rounds", rounds)
    return z, w_star, directions, 0 if w_star.size == 2 else rounds


def _target(w_star: Any) -> jax.Array:
    w_star = filter_of(w_star, "w_star")
    if w_star.size < 2:
        raise ValueError(
            f"w_star has shape {w_star.shape}; expected (p,) with p ≥ 2: on a line there are no "
            "angles but 0 and π."
        )
    if checks.is_concrete(w_star) and not np.any(np.asarray(w_star)):
        raise ValueError("w_star is 0; expected a filter with a direction.")
    return w_star


def _acute(phi: Any) -> Any:
    return (phi > 0) & (phi <= np.float32(np.pi / 2))  # which is above π/2


@functools.partial(jax.jit, static_argnames="rounds")
def _moments(
    z: jax.Array, w_star: jax.Array, phis: jax.Array, directions: jax.Array, rounds: int
) -> Moments:
    # One patch has no cross terms: nothing to search.
    names = QUANTITIES if z.shape[1] > 1 else QUANTITIES[:3]

    def at(phi: jax.Array) -> list[jax.Array]:
        return list(best(names, z, w_star, phi, directions, rounds)[1])

    gamma, smoothness, *growths = jax.lax.map(at, phis)
    gamma = jnp.maximum(gamma, 0)  # what is below is rounding
    growths += [jnp.zeros_like(gamma)] * (4 - len(names))
    acute = _acute(phis)
    beta, cross = (
        jnp.where(
            jnp.any(acute),
            jnp.max(jnp.where(acute, growth / jnp.where(acute, phis, 1), 0)),
            jnp.nan,
        )
        for growth in growths
    )
    return Moments(gamma, smoothness, beta, cross)
