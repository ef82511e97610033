"""Gaussian expectations of Nguyen, Wong and Hegde (2019a), appendix A, and half-moments.

w ~ N(0, I_d) throughout; x and y are vectors of any norm but 0. θ is the angle between them.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.arccos import arccos_kernel, ratio, sine
from ntkflow.systems.autoencoder.arguments import check


class SteinSides(NamedTuple):
    """The two sides of Stein's identity, over samples.

    Attributes:
      left: the mean of w h(w)ᵀ, shape (d, k).
      right: the mean of (D_w h)ᵀ, shape (d, k).
      standard_error: of left − right, shape (d, k).
    """

    left: jax.Array
    right: jax.Array
    standard_error: jax.Array


def stein_sides(h: Callable[[jax.Array], jax.Array], w: ArrayLike) -> SteinSides:
    """Estimate both sides of E[w h(w)ᵀ] = E[(D_w h)ᵀ] by a mean over samples.

    They agree for weakly differentiable h. For h(w) = 1{w·x > 0} φ(w·y), to which the paper applies
    it in H^∞ = G^∞, they do not: the derivative that exists almost everywhere misses the jump.

    Args:
      h: maps w, shape (d,), to shape (k,).
      w: samples of N(0, I_d), shape (N, d), N ≥ 2.

    Returns:
      Both means, and the standard error of their difference.

    Raises:
      ValueError: w is not a matrix, or has one row; h gives anything but an array of shape (k,).

    Example:
      >>> w = jax.random.normal(jax.random.key(0), (10_000, 2))
      >>> sides = jax.jit(stein_sides, static_argnums=0)(jax.nn.relu, w)  # E[w φ(w)ᵀ] = I/2
      >>> sides.right.round(1).tolist()
      [[0.5, 0.0], [0.0, 0.5]]
      >>> bool((abs(sides.left - sides.right) < 4 * sides.standard_error).all())
      True

    Reference: Nguyen, Wong and Hegde (2019a), Lemma A.1.
    """
    w = checks.matrix("w", w)
    if len(w) < 2:
        raise ValueError(f"w has shape {w.shape}; expected at least two samples.")
    shape = jnp.shape(jax.eval_shape(h, w[0]))
    if len(shape) != 1:
        raise ValueError(
            f"h gives shape {shape} for one w of shape {w[0].shape}; expected (k,): for a number "
            "write h(w)[None]."
        )

    def sides(sample: jax.Array) -> tuple[jax.Array, jax.Array]:
        return sample[:, None] * h(sample)[None, :], jax.jacobian(h)(sample).T

    left, right = jax.vmap(sides)(w)
    error = jnp.std(left - right, axis=0, ddof=1) / math.sqrt(len(w))
    return SteinSides(jnp.mean(left, axis=0), jnp.mean(right, axis=0), error)


def half_moment(order: int) -> float:
    """E[z^q 1{z ≥ 0}], z ~ N(0, 1): 2^{q/2 − 1} Γ((q+1)/2) / √π.

    Example:
      >>> [round(half_moment(q), 6) for q in (0, 1, 2, 4)]  # ½, 1/√(2π), ½, 3/2
      [0.5, 0.398942, 0.5, 1.5]

    Reference: Nguyen, Wong and Hegde (2019a), proof of Lemma 6.1 (α, β, γ).
    """
    check(order=order)
    return 2 ** (order / 2 - 1) * math.gamma((order + 1) / 2) / math.sqrt(math.pi)


def activation_probability(x: ArrayLike, y: ArrayLike) -> jax.Array:
    """E[1{w·x ≥ 0, w·y ≥ 0}] = (π − θ)/2π.

    Args:
      x, y: vectors, shape (d,); for pairs of many, `jax.vmap`.

    Raises:
      ValueError: shapes other than (d,), or a vector that is 0.

    Example:
      >>> round(float(activation_probability(jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0]))), 6)
      0.25

    Reference: Nguyen, Wong and Hegde (2019a), Lemma A.3.
    """
    pair = _pair(x, y)
    return arccos_kernel(0, *pair.lengths, pair.inner) / 2


def feature_product(x: ArrayLike, y: ArrayLike, *, printed: bool = False) -> jax.Array:
    """E[φ(w·x)φ(w·y)] = ‖x‖‖y‖ (sin θ + (π − θ) cos θ)/2π.

    Printed: x·y E[1{w·x ≥ 0, w·y ≥ 0}], without sin θ: see `stein_sides`.

    Args, Raises: as for `activation_probability`.

    Example:
      >>> x, y = jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0])
      >>> round(float(feature_product(x, y)), 6), float(feature_product(x, y, printed=True))
      (0.31831, 0.0)

    Reference: Nguyen, Wong and Hegde (2019a), section 3.2.
    """
    pair = _pair(x, y)
    if printed:
        return pair.scale * (pair.inner * activation_probability(x, y))
    return pair.scale * (arccos_kernel(1, *pair.lengths, pair.inner) / 2)


def activation_second_moment(x: ArrayLike, y: ArrayLike, *, printed: bool = False) -> jax.Array:
    """E[1{w·x ≥ 0, w·y ≥ 0} wwᵀ] = (π − θ)/2π I + (sin θ/2π)(bbᵀ − eeᵀ).

    b and e are the unit vectors along x/‖x‖ + y/‖y‖ and y/‖y‖ − x/‖x‖. Lemma A.2 prints the first
    term alone, by Stein's identity without the boundary term: see `stein_sides`. For unit vectors
    the second is also (xyᵀ + yxᵀ − cos θ (xxᵀ + yyᵀ)) / (2π sin θ).

    Args, Raises: as for `activation_probability`.

    Returns:
      Shape (d, d), symmetric.

    Example:
      >>> activation_second_moment(jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0])).round(4).tolist()
      [[0.25, 0.1592], [0.1592, 0.25]]

    Reference: Nguyen, Wong and Hegde (2019a), Lemma A.2, corrected.
    """
    pair, probability = _pair(x, y), activation_probability(x, y)
    identity = probability * jnp.eye(len(pair.first), dtype=probability.dtype)
    if printed:
        return identity
    first, second = pair.first / pair.lengths[0], pair.second / pair.lengths[1]
    product = pair.lengths[0] * pair.lengths[1]
    sin = sine(product, pair.inner) / product
    b, e = (v[:, None] * v[None, :] for v in (first + second, second - first))
    # Over the squared lengths 2 (1 ± cos θ); at θ = 0 or π one is 0, and so is sin θ.
    boundary = ratio(b, jnp.trace(b)) - ratio(e, jnp.trace(e))
    return identity + sin / (2 * math.pi) * boundary


def activation_norm_moment(x: ArrayLike, y: ArrayLike) -> jax.Array:
    """E[1{w·x ≥ 0, w·y ≥ 0} ‖w‖²] = d (π − θ)/2π: true, as the term that A.2 misses has trace 0.

    Args, Raises: as for `activation_probability`.

    Example:
      >>> round(float(activation_norm_moment(jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0]))), 6)
      0.5

    Reference: Nguyen, Wong and Hegde (2019a), Lemma A.3.
    """
    return activation_probability(x, y) * len(jnp.asarray(x))


class _Pair(NamedTuple):
    """Two vectors in one dtype, over their sizes, so that squares stay in range.

    Attributes:
      first, second: x and y over their largest entries, shape (d,).
      lengths: the norms of these.
      inner: their inner product.
      scale: what it takes to bring back a product of the two.
    """

    first: jax.Array
    second: jax.Array
    lengths: tuple[jax.Array, jax.Array]
    inner: jax.Array
    scale: jax.Array


def _pair(x: ArrayLike, y: ArrayLike) -> _Pair:
    x, y = jnp.asarray(x), jnp.asarray(y)
    if x.ndim != 1 or x.shape != y.shape or not x.size:
        raise ValueError(f"x has shape {x.shape} and y {y.shape}; expected (d,) for both.")
    dtype = jnp.result_type(x, y)
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.result_type(float)
    sizes = [jax.lax.stop_gradient(jnp.max(jnp.abs(v))).astype(dtype) for v in (x, y)]
    for name, size in zip("xy", sizes, strict=True):
        if checks.is_concrete(size) and not 0 < size < math.inf:
            raise ValueError(
                f"The largest entry of {name} is {size}; expected a finite vector other than 0."
            )
    first, second = (
        v.astype(dtype) / jnp.where(size > 0, size, 1)
        for v, size in zip((x, y), sizes, strict=True)
    )
    lengths = jnp.linalg.norm(first), jnp.linalg.norm(second)
    return _Pair(first, second, lengths, jnp.dot(first, second), sizes[0] * sizes[1])
