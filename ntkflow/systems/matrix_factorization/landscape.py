"""Stationary points of ½ ‖UVᵀ − M*‖_F²: curvature, the direction of escape, and Lemma 4.2."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow.systems.matrix_factorization.arguments import (
    alike,
    check_positive,
    check_rank,
    check_target,
    factors,
    host,
    read,
    wide,
)
from ntkflow.systems.matrix_factorization.bounds import saddle_curvature
from ntkflow.systems.matrix_factorization.problem import (
    Params,
    gradient,
    imbalance,
    objective,
    residual,
)
from ntkflow.theory import Certificate, inequality


class Landscape(NamedTuple):
    """What Lemma 4.2 and its proof speak of at a point, all scalars.

    Attributes:
      error: ‖UVᵀ − M*‖_F.
      imbalance: ‖UᵀU − VᵀV‖_F.
      gradient_norm: ‖∇f‖_F.
      excess_rank: σ_{r+1}(M*), 0 where M* has rank r at most, as the lemma asks.
      slope: ⟨∇f, Δ⟩.
      first_term: ⟨UVᵀ − M*, Δ_U Δ_Vᵀ⟩, of Claim 4.4.
      second_term: ‖U Δ_Vᵀ + Δ_U Vᵀ‖_F², of Claim 4.5.
      curvature: [∇²f](Δ, Δ), twice the first term plus the second.
      expansion: ‖U Δ_Vᵀ + Δ_U Vᵀ − Δ_U Δ_Vᵀ − (UVᵀ − M*)‖_F, 0 by (4.19).
      direction: ‖ΔΔᵀ‖_F² and what (4.20) says it is.
      distance: ‖WWᵀ − W*W*ᵀ‖_F² and what (4.21) says it is.
      scale: ‖U‖_F² + ‖V‖_F² + ‖M*‖_F, the unit of rounding errors.
    """

    error: jax.Array
    imbalance: jax.Array
    gradient_norm: jax.Array
    excess_rank: jax.Array
    slope: jax.Array
    first_term: jax.Array
    second_term: jax.Array
    curvature: jax.Array
    expansion: jax.Array
    direction: tuple[jax.Array, jax.Array]
    distance: tuple[jax.Array, jax.Array]
    scale: jax.Array


def hessian_form(params: Any, direction: Any, target: ArrayLike) -> jax.Array:
    """[∇²f(U, V)](Δ, Δ) = 2 ⟨UVᵀ − M*, Δ_U Δ_Vᵀ⟩ + ‖U Δ_Vᵀ + Δ_U Vᵀ‖_F².

    Args:
      params: (U, V).
      direction: Δ, of the shapes of `params`.
      target: M*.

    Raises:
      ValueError: the shapes do not fit.

    Example:
      >>> saddle = {"u": jnp.zeros((2, 1)), "v": jnp.zeros((2, 1))}
      >>> downhill = {"u": jnp.array([[1.0], [0.0]]), "v": jnp.array([[1.0], [0.0]])}
      >>> float(hessian_form(saddle, downhill, jnp.diag(jnp.array([3.0, 1.0]))))
      -6.0

    Reference: Du (2019), equation (4.12).
    """
    u, v, _ = read(params, target)
    along_u, along_v = alike("direction", params, direction)
    r = residual(params, target)
    change = u @ along_v.T + along_u @ v.T
    return 2 * jnp.sum(r * (along_u @ along_v.T)) + jnp.sum(jnp.square(change))


def hessian_eigenvalues(params: Any, target: ArrayLike) -> jax.Array:
    """All eigenvalues of ∇²f(U, V), ascending, shape ((d_1 + d_2) r,).

    For small problems: it forms the matrix. The first is negative at a strict saddle.

    Example:
      >>> saddle = {"u": jnp.zeros((2, 1)), "v": jnp.zeros((2, 1))}
      >>> m = jnp.diag(jnp.array([3.0, 1.0]))
      >>> jax.jit(hessian_eigenvalues)(saddle, m).round(6).tolist()
      [-3.0, -1.0, 1.0, 3.0]
    """
    u, v, target = read(params, target)
    flat, restore = jax.flatten_util.ravel_pytree({"u": u, "v": v})
    matrix = jax.hessian(lambda point: objective(restore(point), target))(flat)
    return jnp.linalg.eigvalsh(wide(matrix)).astype(matrix.dtype)


def stationary_point(
    target: ArrayLike, rank: int, chosen: Sequence[int] | None = None, *, scale: ArrayLike = 1.0
) -> Params:
    """A stationary point of f: U = s Φ_S Σ_S^{1/2}, V = Ψ_S Σ_S^{1/2} / s, of singular vectors S.

    With the r largest it is a global minimum, (U*, V*) for s = 1. With fewer, or others, it is a
    strict saddle.

    Args:
      target: M* = ΦΣΨᵀ, shape (d_1, d_2).
      rank: r, the number of columns; those without a singular vector are 0.
      chosen: numbers of the singular vectors, 0 for the largest; None is all up to the r-th.
      scale: s; 1 is balanced, UᵀU = VᵀV.

    Returns:
      {"u": (d_1, r), "v": (d_2, r)}.

    Raises:
      ValueError: the rank exceeds a dimension, `chosen` repeats a number, has more than r, or
        one that M* does not have, the scale is not positive.

    Example:
      >>> saddle = stationary_point(jnp.diag(jnp.array([3.0, 1.0])), rank=1, chosen=[1])
      >>> jnp.abs(saddle["u"] @ saddle["v"].T).round(6).tolist()
      [[0.0, 0.0], [0.0, 1.0]]
    """
    target = check_target(target)
    rank = check_rank(rank, *target.shape)
    given = np.arange(rank) if chosen is None else np.asarray(chosen)
    whole = given.ndim == 1 and (given.size == 0 or np.issubdtype(given.dtype, np.integer))
    numbers = given.astype(int).tolist() if whole else []
    valid = whole and all(0 <= number < min(target.shape) for number in numbers)
    if not valid or len(set(numbers)) != len(numbers) or len(numbers) > rank:
        raise ValueError(
            f"chosen is {chosen}; expected at most {rank} distinct numbers from 0 to "
            f"{min(target.shape) - 1}, the singular vectors of M*."
        )
    check_positive(scale=scale)
    left, values, right = (
        part.astype(target.dtype) for part in jnp.linalg.svd(wide(target), full_matrices=False)
    )
    picked = np.array([*numbers, *[0] * (rank - len(numbers))])
    used = np.arange(rank) < len(numbers)
    root = jnp.where(used, jnp.sqrt(values[picked]), 0)[None, :]
    scale = jnp.asarray(scale, target.dtype)
    return {"u": scale * left[:, picked] * root, "v": right[picked].T * root / scale}


def procrustes(params: Any, reference: Any) -> jax.Array:
    """R = argmin over orthogonal R' of ‖W − W*R'‖_F, W = [U; V], shape (r, r).

    Args:
      params: W.
      reference: W*, of the same shapes.

    Raises:
      ValueError: the shapes differ.

    Example:
      >>> reference = {"u": jnp.eye(2), "v": jnp.eye(2)}
      >>> turned = {"u": jnp.eye(2)[::-1], "v": jnp.eye(2)[::-1]}
      >>> jnp.abs(procrustes(turned, reference)).round(6).tolist()
      [[0.0, 1.0], [1.0, 0.0]]

    Reference: Du (2019), section 4.7.3.
    """
    (u, v), (u_0, v_0) = factors(params), alike("reference", params, reference)
    product = u_0.T @ u + v_0.T @ v
    left, _, right = jnp.linalg.svd(wide(product))
    return (left @ right).astype(product.dtype)


def escape_direction(params: Any, target: ArrayLike) -> Params:
    """Δ = W − W*R: from the nearest global minimum W*R to W, R the Procrustes rotation.

    Reference: Du (2019), section 4.7.3.
    """
    u, v, target = read(params, target)
    best = _minimum(target, u.shape[1])
    rotation = procrustes(params, best)
    return {"u": u - best["u"] @ rotation, "v": v - best["v"] @ rotation}


def landscape(params: Any, target: ArrayLike) -> Landscape:
    """What Lemma 4.2 and its proof speak of at (U, V); a pure function, for observers and `vmap`.

    Example:
      >>> m = jnp.diag(jnp.array([3.0, 1.0]))
      >>> point = jax.jit(landscape)(stationary_point(m, rank=2, chosen=[1]), m)
      >>> round(float(point.error), 6), round(float(point.curvature), 6)
      (3.0, -18.0)

    Reference: Du (2019), section 4.7.3.
    """
    u, v, target = read(params, target)
    rank = u.shape[1]
    best, along = _minimum(target, rank), escape_direction(params, target)
    r, slopes = residual(params, target), gradient(params, target)
    along_product = along["u"] @ along["v"].T
    change = u @ along["v"].T + along["u"] @ v.T
    values = jnp.linalg.svd(wide(target), compute_uv=False).astype(target.dtype)
    first, second = jnp.sum(r * along_product), _square(change)

    w, w_best, delta = (
        jnp.concatenate([pair["u"], pair["v"]]) for pair in ({"u": u, "v": v}, best, along)
    )
    crossed = u.T @ best["u"] - v.T @ best["v"]
    return Landscape(
        error=_norm(r),
        imbalance=_norm(imbalance(params)),
        gradient_norm=jnp.sqrt(_square(slopes["u"]) + _square(slopes["v"])),
        excess_rank=values[rank] if rank < len(values) else jnp.zeros_like(values[0]),
        slope=jnp.sum(slopes["u"] * along["u"]) + jnp.sum(slopes["v"] * along["v"]),
        first_term=first,
        second_term=second,
        curvature=2 * first + second,
        expansion=_norm(change - along_product - r),
        direction=(
            _square(delta @ delta.T),
            4 * _square(along_product) + _square(imbalance(along)),
        ),
        distance=(
            _square(w @ w.T - w_best @ w_best.T),
            4 * _square(u @ v.T - best["u"] @ best["v"].T)
            - 2 * _square(crossed)
            + _square(imbalance(params))
            + _square(imbalance(best)),
        ),
        scale=_square(u) + _square(v) + _norm(target),
    )


def certificate_stationary_point(
    point: Landscape, epsilon: ArrayLike, *, tolerance: float = 1e-6
) -> Certificate:
    """Hold a point, or the points along a run, against Lemma 4.2 and each step of its proof.

    The claims are written for any point, with the term ⟨∇f, Δ⟩ that a stationary one lacks: they
    follow by the same proof, and are the text's where ∇f = 0.

    Args:
      point: what `landscape` returned, of one point or mapped over points; the last axis, if any,
        is that of the points, and axes before it are seeds.
      epsilon: ε.
      tolerance: what counts as 0: ‖∇f‖_F ≤ tolerance · s^{3/2} and σ_{r+1}(M*) ≤ tolerance · s,
        with s = ‖U‖_F² + ‖V‖_F² + ‖M*‖_F.

    Returns:
      The certificate. Its last claim is the lemma's: small error, or negative curvature.

    Raises:
      ValueError: ε is not positive, the point is no `Landscape`.

    Example:
      >>> m = jnp.diag(jnp.array([3.0, 1.0]))
      >>> saddle = stationary_point(m, rank=2, chosen=[0])
      >>> certificate = certificate_stationary_point(jax.jit(landscape)(saddle, m), epsilon=0.1)
      >>> bool(certificate.applies), bool(certificate.holds)
      (True, True)

    References:
      Du (2019), Lemma 4.2 and section 4.7.3.
    """
    check_positive(epsilon=epsilon)
    if not isinstance(point, Landscape):
        raise ValueError(
            f"point is of type {type(point).__name__}; expected landscape(params, target)."
        )
    rounding = 100 * float(jnp.finfo(jnp.result_type(point.error)).eps)
    point = jax.tree.map(host, point)
    epsilon = np.asarray(epsilon, point.error.dtype)
    unit = point.scale**2
    bound = np.asarray(saddle_curvature(point.error, point.imbalance).value)

    def claim(statement, place, smaller, larger, slack=0.0):
        return inequality(statement, f"Du (2019), {place}", smaller, larger + slack)

    def identity(statement, place, pair):
        difference = np.abs(pair[0] - pair[1])
        return claim(f"{statement}, up to rounding", place, difference, 0.0, rounding * unit)

    claim_4_4 = (point.first_term, point.slope - point.error**2)
    claim_4_5 = point.error**2 + point.imbalance**2 / 2 + 2 * point.slope
    decision = np.minimum(point.error - epsilon, point.curvature + epsilon**2 / 2)
    return Certificate(
        theorem="Du (2019), Lemma 4.2: stationary points of the factorization",
        hypotheses=(
            claim("∇f = 0", "Lemma 4.2", point.gradient_norm, tolerance * point.scale**1.5),
            claim("‖UᵀU − VᵀV‖_F ≤ ε", "Lemma 4.2", point.imbalance, epsilon),
            claim("rank M* ≤ r", "section 4.3", point.excess_rank, tolerance * point.scale),
        ),
        claims=(
            identity(
                "UΔ_Vᵀ + Δ_UVᵀ = Δ_UΔ_Vᵀ + M − M*",
                "equation (4.19)",
                (point.expansion * np.sqrt(unit), 0.0),
            ),
            identity(
                "‖ΔΔᵀ‖² = 4 ‖Δ_UΔ_Vᵀ‖² + ‖Δ_UᵀΔ_U − Δ_VᵀΔ_V‖²", "equation (4.20)", point.direction
            ),
            identity(
                "‖WWᵀ − W*W*ᵀ‖² = 4 ‖M − M*‖² − 2 ‖UᵀU* − VᵀV*‖² + ‖UᵀU − VᵀV‖²",
                "equation (4.21)",
                point.distance,
            ),
            claim(
                "‖ΔΔᵀ‖² ≤ 2 ‖WWᵀ − W*W*ᵀ‖²",
                "equation (4.22)",
                point.direction[0],
                2 * point.distance[0],
                rounding * unit,
            ),
            identity("⟨M − M*, Δ_UΔ_Vᵀ⟩ = −‖M − M*‖² + ⟨∇f, Δ⟩", "Claim 4.4", claim_4_4),
            claim(
                "‖UΔ_Vᵀ + Δ_UVᵀ‖² ≤ ‖M − M*‖² + ½ ‖UᵀU − VᵀV‖² + 2 ⟨∇f, Δ⟩",
                "Claim 4.5",
                point.second_term,
                claim_4_5,
                rounding * unit,
            ),
            claim(
                "[∇²f](Δ, Δ) ≤ −‖M − M*‖² + ½ ‖UᵀU − VᵀV‖² + 4 ⟨∇f, Δ⟩",
                "proof of Lemma 4.2",
                point.curvature,
                bound + 4 * point.slope,
                rounding * unit,
            ),
            claim(
                "‖M − M*‖ ≤ ε, or [∇²f](Δ, Δ) ≤ −½ε²",
                "Lemma 4.2",
                decision,
                np.zeros_like(decision),
            ),
        ),
    )


def _minimum(target: jax.Array, rank: int) -> Params:
    """(U*, V*) with r columns; r may exceed the dimensions, unlike in `stationary_point`."""
    smaller = min(target.shape)
    best = stationary_point(target, min(rank, smaller))
    empty = ((0, 0), (0, max(rank - smaller, 0)))
    return {name: jnp.pad(factor, empty) for name, factor in best.items()}


def _square(matrix: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(matrix))


def _norm(matrix: jax.Array) -> jax.Array:
    return jnp.sqrt(_square(matrix))
