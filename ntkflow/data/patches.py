"""Patches of images, and patches drawn around a direction: inputs of a convolutional filter."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkflow.checks import finite, floating, is_concrete, positive_int


def image_patches(images: ArrayLike, size: int, stride: int = 1) -> Array:
    """Cut images into square patches, without padding.

    Args:
      images: shape (n, h, w).
      size: pixels along a side of a patch, static.
      stride: pixels from a patch to the next, along both axes, static; with stride < size patches
        overlap.

    Returns:
      z, shape (n, k, size²): patches row by row, and their pixels row by row. k is
      (⌊(h − size)/stride⌋ + 1)(⌊(w − size)/stride⌋ + 1); it takes k size²/(h w) times the memory
      of the images.

    Raises:
      ValueError: images of another shape, or smaller than a patch; `size` or `stride` no whole
        number greater than 0.

    Example:
      >>> image_patches(jnp.arange(9.0).reshape(1, 3, 3), size=2).tolist()[0]
      [[0.0, 1.0, 3.0, 4.0], [1.0, 2.0, 4.0, 5.0], [3.0, 4.0, 6.0, 7.0], [4.0, 5.0, 7.0, 8.0]]
    """
    size, stride = positive_int("size", size), positive_int("stride", stride)
    images = jnp.asarray(images)
    if images.ndim != 3 or 0 in images.shape:
        raise ValueError(
            f"images have shape {images.shape}; expected (n, h, w). For images of c channels, "
            "write them as c images, for one image images[None]."
        )
    n, height, width = images.shape
    if size > min(height, width):
        raise ValueError(f"size is {size} and the images are {height} × {width}; expected less.")
    tops, lefts = (np.arange(0, side - size + 1, stride) for side in (height, width))
    within = np.arange(size)
    rows = (tops[:, None] + within[None, :])[:, None, :, None]
    columns = (lefts[:, None] + within[None, :])[None, :, None, :]
    pixels = (rows * width + columns).reshape(-1, size * size)
    return jnp.take(images.reshape(n, -1), jnp.asarray(pixels), axis=1)


def angle_mixture(key: Array, n: int, target: ArrayLike, sigma: ArrayLike) -> Array:
    """Draw unit vectors whose angle to ±w* is a truncated normal number.

    z = s (cos θ w*/‖w*‖ + sin θ v), with θ ~ N(0, σ²) truncated to [−π/2, π/2], a sign s = ±1 with
    probability ½ each, and v a uniform unit vector orthogonal to w*. In two dimensions it is the
    law of the signed angle from w*, ½ N(0, σ²) on [−π/2, π/2] + ½ N(π, σ²) on [π/2, 3π/2]; there
    σ → ∞ gives the uniform law on the circle. With p > 2 it gives the uniform angle, which no
    rotation-invariant law has.

    Args:
      key: PRNG key.
      n: number of points, static.
      target: w*, shape (p,), p ≥ 2, not 0.
      sigma: σ, a standard deviation in radians, at least 0; may be traced. The thesis writes
        N(0, σ) and does not say which of the two it is.

    Returns:
      z, shape (n, p), in the target's dtype, each row of norm 1 up to rounding.

    Raises:
      ValueError: n no whole number greater than 0, a target of another shape, σ negative or no
        number.

    Example:
      >>> draw = lambda key: angle_mixture(key, 1000, jnp.array([2.0, 0.0]), sigma=0.1)
      >>> z = np.asarray(jax.jit(draw)(jax.random.key(0)))
      >>> z.shape, abs(z).mean(axis=0).round(2).tolist()
      ((1000, 2), [1.0, 0.08])

    Reference:
      S. S. Du, "Gradient Descent for Non-convex Problems in Modern Machine Learning" (2019),
      section 6.4, where the second half is printed on [−π/2, π/2] too, on which N(−π, σ) would be
      cut to its tails.
    """
    n, target = positive_int("n", n), _target(target)
    _check_deviation("sigma", sigma)
    key_sign, key_turn = jax.random.split(key)
    sign = jax.random.rademacher(key_sign, (n, 1)).astype(target.dtype)
    target /= jnp.max(jnp.abs(target))  # so that no square leaves the range of the dtype
    center = jnp.broadcast_to(target / jnp.linalg.norm(target), (n, target.size))
    return _turn(key_turn, sign * center, sigma, np.pi / 2)


def close_patches(
    key: Array,
    n: int,
    k: int,
    target: ArrayLike,
    sigma: ArrayLike = 1.0,
    sigma2: ArrayLike = 0.5,
) -> Array:
    """Draw samples of k unit patches that lie around one: the smaller σ₂, the closer.

    Z̃ from `angle_mixture`, then Z_i = cos α_i Z̃ + sin α_i v_i with α_i ~ N(0, σ₂²) truncated to
    [−π, π] and v_i a uniform unit vector orthogonal to Z̃, independent over i. σ₂ = 0 gives
    identical patches, exactly.

    Args:
      key: PRNG key.
      n: number of samples, static.
      k: patches of a sample, static.
      target: w*, shape (p,), p ≥ 2, not 0.
      sigma: σ of Z̃, a standard deviation in radians, at least 0; the thesis takes 1.
      sigma2: σ₂, likewise; the thesis does not give its values. Both may be traced.

    Returns:
      z, shape (n, k, p), in the target's dtype, each patch of norm 1 up to rounding.

    Raises:
      ValueError: n or k no whole number greater than 0, a target of another shape, σ or σ₂
        negative or no number.

    Example:
      >>> draw = lambda key: close_patches(key, 5, 3, jnp.array([1.0, 0.0]), sigma2=0.0)
      >>> z = np.asarray(jax.jit(draw)(jax.random.key(0)))
      >>> z.shape, bool((z[:, 0] == z[:, 2]).all())
      ((5, 3, 2), True)

    Reference:
      S. S. Du, "Gradient Descent for Non-convex Problems in Modern Machine Learning" (2019),
      section 6.4.
    """
    n, k, target = positive_int("n", n), positive_int("k", k), _target(target)
    _check_deviation("sigma2", sigma2)
    key_center, key_turn = jax.random.split(key)
    center = angle_mixture(key_center, n, target, sigma)
    around = jnp.broadcast_to(center[:, None, :], (n, k, target.size)).reshape(n * k, -1)
    return _turn(key_turn, around, sigma2, np.pi).reshape(n, k, -1)


def _turn(key: Array, center: Array, deviation: ArrayLike, largest: float) -> Array:
    """Turn unit vectors (n, p) by truncated normal angles, each in a uniform direction."""
    key_angle, key_direction = jax.random.split(key)
    deviation = jnp.asarray(deviation, center.dtype)
    bound = largest / deviation
    angle = deviation * jax.random.truncated_normal(
        key_angle, -bound, bound, (len(center), 1), center.dtype
    )
    if center.shape[1] == 2:  # the signed angle: its law is symmetric, no direction to draw
        direction = jnp.stack([-center[:, 1], center[:, 0]], axis=1)
    else:
        direction = jax.random.normal(key_direction, center.shape, center.dtype)
        for _ in range(2):  # once leaves eps/‖rest‖ along the center, where little is left
            direction -= jnp.sum(direction * center, axis=1, keepdims=True) * center
            direction /= jnp.linalg.norm(direction, axis=1, keepdims=True)
    return jnp.cos(angle) * center + jnp.sin(angle) * direction


def _target(target: ArrayLike) -> Array:
    target = jnp.asarray(target)
    if target.ndim != 1 or target.size < 2:
        raise ValueError(
            f"target has shape {target.shape}; expected (p,) with p ≥ 2: on a line there are no "
            "angles but 0 and π."
        )
    target = floating(target)
    finite("target", target)
    if is_concrete(target) and not np.any(np.asarray(target)):
        raise ValueError("target is 0; expected a filter with a direction.")
    return target


def _check_deviation(name: str, value: ArrayLike) -> None:
    if jnp.ndim(value) or (is_concrete(value) and not 0 <= np.asarray(value) < np.inf):
        raise ValueError(
            f"{name} is {value}; expected a standard deviation in radians, a number ≥ 0. For "
            "several use jax.vmap."
        )
