"""Inputs and labels drawn at random, as the papers draw them."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkflow.checks import is_concrete, matrix, positive_int
from ntkflow.data.dataset import Dataset


def sphere(key: Array, n: int, d: int, dtype=float) -> Array:
    """Draw points uniformly from the unit sphere: x = z/‖z‖ with z ~ N(0, I_d).

    Args:
      key: PRNG key.
      n: number of points, static.
      d: dimension of the space around the sphere, static; d = 1 gives ±1.
      dtype: floating-point type.

    Returns:
      x, shape (n, d), each row of norm 1 up to rounding.

    Raises:
      ValueError: n or d is no whole number greater than 0.

    Example:
      >>> x = sphere(jax.random.key(0), n=5, d=3)
      >>> x.shape, jnp.linalg.norm(x, axis=1).round(6).tolist()
      ((5, 3), [1.0, 1.0, 1.0, 1.0, 1.0])
    """
    n, d = positive_int("n", n), positive_int("d", d)
    z = jax.random.normal(key, (n, d), dtype)
    norm = jnp.linalg.norm(z, axis=1, keepdims=True)
    # A normal number is exactly 0 with probability 2⁻²⁴ in float32: for d = 1, within reach.
    pole = jnp.zeros((1, d), z.dtype).at[0, 0].set(1)
    return jnp.where(norm > 0, z / jnp.where(norm > 0, norm, 1), pole)


def sphere_gaussian_labels(key: Array, n: int, d: int, dtype=float) -> Dataset:
    """Draw points uniformly from the unit sphere, with labels y ~ N(0, 1) that ignore them.

    The data of Figure 2.1, there with n = d = 1000. With d ≥ 2 no two points are parallel,
    almost surely.

    Args:
      key: PRNG key.
      n: number of points, static.
      d: dimension of the space around the sphere, static.
      dtype: floating-point type.

    Returns:
      `Dataset` with x of shape (n, d) and y of shape (n,).

    Raises:
      ValueError: n or d is no whole number greater than 0.

    Example:
      >>> x, y = sphere_gaussian_labels(jax.random.key(0), n=5, d=3)
      >>> x.shape, y.shape
      ((5, 3), (5,))

    Reference:
      S. S. Du, "Gradient Descent for Non-convex Problems in Modern Machine Learning" (2019),
      section 2.4.
    """
    key_x, key_y = jax.random.split(key)
    x = sphere(key_x, n, d, dtype)
    return Dataset(x, jax.random.normal(key_y, (n,), dtype))


def sine_labels(key: Array, x: ArrayLike, noise: ArrayLike = 1.0) -> Array:
    """Draw labels y = (5/d) Σ_j sin(π x_j) + ε with ε ~ N(0, noise²).

    The labels of the simulated experiment, there with n = 100 points of the sphere and d = 50,
    where the signal has a standard deviation of 0.29. The paper prints noise 1; its test risks,
    0.04, are those of its released code's 0.1: no risk lies below noise², in expectation.

    Args:
      key: PRNG key.
      x: inputs, shape (n, d).
      noise: standard deviation, at least 0 (checked where it can be read).

    Returns:
      y, shape (n,), in x's dtype.

    Raises:
      ValueError: x is no finite matrix, or the noise no number ≥ 0.

    Example:
      >>> sine_labels(jax.random.key(0), jnp.array([[0.5, 0.5], [1.0, 0.5]]), noise=0).round(6)
      Array([5. , 2.5], dtype=float64)

    Reference:
      F. Caron, F. Ayed, P. Jung, H. Lee, J. Lee and H. Yang, "Over-parameterised shallow neural
      networks with asymmetrical node scaling" (2023), appendix J.
    """
    x = matrix("x", x)
    if jnp.ndim(noise) or (is_concrete(noise) and not 0 <= np.asarray(noise) < np.inf):
        raise ValueError(f"noise is {noise}; expected a standard deviation, a number ≥ 0.")
    signal = 5 * jnp.mean(jnp.sin(jnp.pi * x), axis=1)
    return signal + jnp.asarray(noise, x.dtype) * jax.random.normal(key, (len(x),), x.dtype)
