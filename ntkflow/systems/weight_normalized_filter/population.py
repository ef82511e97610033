"""The loss over all Gaussian inputs in closed form, its gradients, and the moments they rest on.

Every formula holds up to φ = 0 and φ = π, where autodiff of norms and angles would yield NaN.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.weight_normalized_filter.arguments import check, direction, one_number
from ntkflow.systems.weight_normalized_filter.network import (
    Teacher,
    Variables,
    read,
    target_output,
)


def angle(v: ArrayLike, w: ArrayLike) -> jax.Array:
    """Compute φ = ∠(v, w) in [0, π] by atan2, right to a few roundings of 1 at every angle.

    arccos of the cosine resolves angles to √eps only near 0 and π. The derivative has no limit at
    0 and π; it is finite there, in the direction that rounding leaves, or 0.

    Args:
      v, w: vectors (p,), neither of them 0.

    Returns:
      φ in radians, a scalar. π − φ to full relative precision is angle(v, −w).

    Raises:
      ValueError: a vector is 0, or the shapes differ.

    Example:
      >>> tiny = angle(jnp.array([1.0, 0.0]), jnp.array([3.0, 3e-12]))
      >>> round(float(tiny) * 1e12, 9)
      1.0

    Reference: Du (2019), section 5.2.
    """
    return _angle(*_pair(v, w))


def overlap_function(phi: ArrayLike) -> jax.Array:
    """Compute g(φ) = (π − φ) cos φ + sin φ, from g(0) = π over g(π/2) = 1 down to g(π) = 0.

    It is π times the normalized arc-cosine kernel of order 1, in terms of the angle.

    Args:
      phi: φ in [0, π], any shape.

    Raises:
      ValueError: an angle is out of [0, π].

    Example:
      >>> overlap_function(jnp.array([0.0, jnp.pi / 2, jnp.pi])).round(6).tolist()
      [3.141593, 1.0, 0.0]

    Reference: Du (2019), Theorem 5.1; Cho and Saul (2009), equation 6.
    """
    check(angle=phi)
    return _overlap(np.pi - jnp.asarray(phi))


def inverse_overlap(value: ArrayLike) -> jax.Array:
    """Compute φ with g(φ) = value by bisection, to rounding of g; NaN out of [0, π].

    Its derivative is −1/((π − φ) sin φ), infinite at both ends.

    Example:
      >>> inverse_overlap(jnp.array([jnp.pi, 1.0, 0.0])).round(4).tolist()
      [0.0, 1.5708, 3.1416]
    """
    return _bisect(checks.floating(value))


@jax.custom_jvp
@jax.jit
def _bisect(value: jax.Array) -> jax.Array:
    def halve(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high) / 2
        above = _overlap(np.pi - middle) > value
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    ends = jnp.zeros_like(value), jnp.full_like(value, np.pi)
    low, high = jax.lax.fori_loop(0, jnp.finfo(value.dtype).nmant + 4, halve, ends)
    # g is flat at its ends: there the midpoint of what rounding cannot tell apart.
    inside = (value >= 0) & (value <= jnp.asarray(np.pi, value.dtype))
    return jnp.where(inside, (low + high) / 2, jnp.nan)


@_bisect.defjvp
def _bisect_jvp(primals, tangents):
    phi = _bisect(*primals)
    return phi, -tangents[0] / ((np.pi - phi) * jnp.sin(phi))


def population_loss(variables: Variables, teacher: Teacher, *, printed: bool = False) -> jax.Array:
    """Compute ℓ(v, a) = ½ E(f(Z) − f*(Z))² over independent standard normal entries of Z.

    With b = ‖w*‖a* and φ = ∠(v, w*),

        ℓ = (1/4π) [(π−1)‖a‖² + (π−1)‖b‖² − 2(g(φ)−1) a·b + (1ᵀa)² + (1ᵀb)² − 2(1ᵀa)(1ᵀb)]
          = (1/4π) [(π−1)‖a − b‖² + 2(π − g(φ)) a·b + (1ᵀ(a − b))²],

    computed as in the second line, whose terms do not cancel near the minimum. In (5.3) the last
    term of the first line lacks its 1/(2π): Monte Carlo confirms the form with it
    (`tests/systems/weight_normalized_filter/test_weight_normalized_population.py`).

    Its gradients are those of Theorem 5.2, at every angle and at a = 0, also by autodiff: as the
    loss of `descend`, with the teacher as data and `optax.sgd(η)`, it is Algorithm 1.

    Args:
      variables: {"params": {"filter": v (p,), "output": a (k,)}}.
      teacher: w* (p,) and a* (k,).
      printed: the last term without 1/(2π), as in (5.3).

    Returns:
      ℓ, a scalar.

    Raises:
      ValueError: shapes that do not fit, a filter that is 0.

    Example:
      >>> teacher = Teacher(jnp.array([1.0, 0.0]), jnp.array([1.0, -1.0, 0.0]))
      >>> output = jnp.array([1.0, 0.0, 0.0])
      >>> start = {"params": {"filter": jnp.array([0.0, 1.0]), "output": output}}
      >>> round(float(population_loss(start, teacher)), 6)
      0.590845

    Reference: Du (2019), Theorem 5.1, equation (5.3), corrected.
    """
    shared, output, teacher = read(variables, teacher)
    target = target_output(teacher)
    error, gap = output - target, _gap(*_pair(shared, teacher.filter))
    total = (
        (np.pi - 1) * jnp.sum(jnp.square(error))
        + 2 * gap * jnp.sum(output * target)
        + jnp.square(jnp.sum(error))
    )
    if printed:
        total = total - (4 * np.pi - 2) * jnp.sum(output) * jnp.sum(target)
    return total / (4 * np.pi)


def population_gradients(variables: Variables, teacher: Teacher) -> dict[str, Any]:
    """Compute the gradients of `population_loss` by hand.

        ∂ℓ/∂v = −(1/(2π‖v‖)) (a·a*)(π − φ)(I − vvᵀ/‖v‖²) w*
        ∂ℓ/∂a = (1/2π)(11ᵀ + (π−1)I) a − (1/2π)(11ᵀ + (g(φ)−1)I) ‖w*‖a*

    Args:
      variables, teacher: as for `population_loss`.

    Returns:
      {"params": {"filter": (p,), "output": (k,)}}. That of the filter is orthogonal to v.

    Raises:
      ValueError: as `population_loss`.

    Example:
      >>> teacher = Teacher(jnp.array([1.0, 0.0]), jnp.array([1.0, -1.0]))
      >>> start = {"params": {"filter": jnp.array([0.0, 1.0]), "output": jnp.array([1.0, 0.0])}}
      >>> population_gradients(start, teacher)["params"]["filter"].round(6).tolist()
      [-0.25, -0.0]

    Reference: Du (2019), Theorem 5.2.
    """
    shared, output, teacher = read(variables, teacher)
    target = target_output(teacher)
    v, w = _pair(shared, teacher.filter)
    size, across = jnp.linalg.norm(v), _across(v, w)
    overlap = jnp.sum(output * teacher.output)
    error = output - target
    along = (np.pi - 1) * error + _gap(v, w) * target + jnp.sum(error)
    return {
        "params": {
            "filter": -overlap * _angle(v, -w) / (2 * np.pi * size) * across,
            "output": along / (2 * np.pi),
        }
    }


def moment_matrix(w: ArrayLike, k: int) -> jax.Array:
    """Compute A(w) = E[σ(Zw)σ(Zw)ᵀ] = (‖w‖²/2π)(11ᵀ + (π−1)I), shape (k, k).

    Raises:
      ValueError: w is 0 or no vector, k is no whole number greater than 0.

    Example:
      >>> moment_matrix(jnp.array([1.0, 0.0]), k=2).round(4).tolist()
      [[0.5, 0.1592], [0.1592, 0.5]]

    Reference: Du (2019), equation (5.5).
    """
    k, w = checks.positive_int("k", k), direction("w", w)
    return jnp.sum(jnp.square(w)) / (2 * np.pi) * _ones_and_diagonal(k, np.pi - 1, w.dtype)


def cross_matrix(w: ArrayLike, w_star: ArrayLike, k: int) -> jax.Array:
    """Compute B(w, w*) = E[σ(Zw)σ(Zw*)ᵀ] = (‖w‖‖w*‖/2π)(11ᵀ + (g(φ)−1)I), shape (k, k).

    Raises:
      ValueError: a vector is 0, the shapes differ, k is no whole number greater than 0.

    Example:
      >>> cross_matrix(jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0]), k=2).round(4).tolist()
      [[0.3183, 0.3183], [0.3183, 0.3183]]

    Reference: Du (2019), equation (5.6).
    """
    k, (w, w_star) = checks.positive_int("k", k), _pair(w, w_star)
    diagonal = np.pi - 1 - _gap(w, w_star)
    size = jnp.linalg.norm(w) * jnp.linalg.norm(w_star) / (2 * np.pi)
    return size * _ones_and_diagonal(k, diagonal, w.dtype)


def half_space_product(w: ArrayLike) -> jax.Array:
    """Compute E[zzᵀ 1{z·w ≥ 0}] w = ½ w for z ~ N(0, I), shape (p,): the matrix is ½ I.

    Reference: Du (2019), Lemma 5.6, first identity.
    """
    return direction("w", w) / 2


def half_space_mean(w: ArrayLike) -> jax.Array:
    """Compute E[z 1{z·w ≥ 0}] = w/(√(2π)‖w‖) for z ~ N(0, I), shape (p,).

    Example:
      >>> [round(entry, 4) for entry in half_space_mean(jnp.array([3.0, 4.0])).tolist()]
      [0.2394, 0.3192]

    Reference: Du (2019), Lemma 5.6, second identity.
    """
    w = direction("w", w)
    return w / (math.sqrt(2 * math.pi) * jnp.linalg.norm(w))


def wedge_moments(phi: ArrayLike) -> jax.Array:
    """Compute E[zzᵀ 1{z·w ≥ 0, z·w* ≥ 0}] in the plane of w and w*, shape (2, 2).

    (1/2π) [[π − φ + sin φ cos φ, sin² φ], [sin² φ, π − φ − sin φ cos φ]], with the first axis along
    w* and the second towards w. Across the plane the matrix is (π − φ)/(2π) I.

    Args:
      phi: φ = ∠(w, w*), a scalar.

    Raises:
      ValueError: φ is out of [0, π], or not one number.

    Example:
      >>> wedge_moments(jnp.pi / 2).round(4).tolist()
      [[0.25, 0.1592], [0.1592, 0.25]]

    Reference: Du (2019), proof of Lemma 5.6.
    """
    one_number(phi=phi)
    check(angle=phi)
    phi = jnp.asarray(phi)
    sine, both = jnp.sin(phi), jnp.sin(phi) * jnp.cos(phi)
    rows = [[np.pi - phi + both, sine**2], [sine**2, np.pi - phi - both]]
    return jnp.stack([jnp.stack(row) for row in rows]) / (2 * np.pi)


def wedge_product(w: ArrayLike, w_star: ArrayLike) -> jax.Array:
    """Compute E[zzᵀ 1{z·w ≥ 0, z·w* ≥ 0}] w*, shape (p,), for z ~ N(0, I).

    ((π − φ)/2π) w* + (sin φ/2π)(‖w*‖/‖w‖) w.

    Example:
      >>> wedge_product(jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0])).round(4).tolist()
      [0.3183, 0.5]

    Reference: Du (2019), Lemma 5.6, third identity.
    """
    w, w_star = _pair(w, w_star)
    rest, scale = _angle(w, -w_star), jnp.linalg.norm(w_star) / jnp.linalg.norm(w)
    return (rest * w_star + jnp.sin(rest) * scale * w) / (2 * np.pi)


def relu_product(w: ArrayLike, w_star: ArrayLike) -> jax.Array:
    """Compute E[σ(z·w)σ(z·w*)] = (‖w‖‖w*‖/2π) g(φ) for z ~ N(0, I), a scalar.

    Half the arc-cosine kernel of order 1, from the vectors themselves: their inner product would
    resolve angles to √eps only.

    Example:
      >>> round(float(relu_product(jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0]))), 4)
      0.3183

    Reference: Du (2019), Lemma 5.6, fourth identity.
    """
    w, w_star = _pair(w, w_star)
    return jnp.linalg.norm(w) * jnp.linalg.norm(w_star) * (np.pi - _gap(w, w_star)) / (2 * np.pi)


def _overlap(delta: jax.Array) -> jax.Array:
    """g(π − δ): not below 0 at π, as it would be in terms of φ, whose sine is not 0 there."""
    return jnp.sin(delta) - delta * jnp.cos(delta)


def _pair(v: ArrayLike, w: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Two vectors of one length and one dtype, neither of them 0."""
    first, second = direction("v", v), direction("w", w)
    if first.shape != second.shape:
        raise ValueError(
            f"The vectors have shapes {first.shape} and {second.shape}; expected the same, (p,)."
        )
    dtype = jnp.promote_types(first.dtype, second.dtype)
    return first.astype(dtype), second.astype(dtype)


def _across(v: jax.Array, w: jax.Array) -> jax.Array:
    """(I − vvᵀ/‖v‖²) w: orthogonal to v up to rounding of its own size."""
    unit = v / jnp.linalg.norm(v)
    for _ in range(2):  # where w is nearly parallel to v, once leaves rounding of the size of w
        w = w - jnp.sum(unit * w) * unit
    return w


@jax.custom_jvp
def _angle(v: jax.Array, w: jax.Array) -> jax.Array:
    return jnp.arctan2(jnp.linalg.norm(_across(v, w)), jnp.sum(v * w) / jnp.linalg.norm(v))


@_angle.defjvp
def _angle_jvp(primals, tangents):
    (v, w), (dv, dw) = primals, tangents
    turn = _along(_across(v, w), dv) / jnp.linalg.norm(v) + _along(
        _across(w, v), dw
    ) / jnp.linalg.norm(w)
    return _angle(v, w), -turn


def _along(across: jax.Array, tangent: jax.Array) -> jax.Array:
    """The tangent's part along `across`, 0 where that is 0."""
    square = jnp.sum(jnp.square(across))
    size = jnp.sqrt(jnp.where(square > 0, square, 1))
    return jnp.sum(jnp.where(square > 0, across / size, 0) * tangent)


@jax.custom_jvp
def _gap(v: jax.Array, w: jax.Array) -> jax.Array:
    """π − g(φ) ≥ 0, without cancellation near φ = 0, where it is (π/2) φ²."""
    phi = _angle(v, w)
    return 2 * np.pi * jnp.sin(phi / 2) ** 2 + (phi * jnp.cos(phi) - jnp.sin(phi))


@_gap.defjvp
def _gap_jvp(primals, tangents):
    # By hand: g'(φ) = −(π − φ) sin φ, and sin φ cancels against that of φ's derivative.
    (v, w), (dv, dw) = primals, tangents
    turn = jnp.sum(_across(v, w) * dv) + jnp.sum(_across(w, v) * dw)
    return _gap(v, w), -_angle(v, -w) * turn / (jnp.linalg.norm(v) * jnp.linalg.norm(w))


def _ones_and_diagonal(k: int, diagonal: ArrayLike, dtype: Any) -> jax.Array:
    """11ᵀ + diagonal I."""
    return 1 + jnp.asarray(diagonal, dtype) * jnp.eye(k, dtype=dtype)
