"""Gaussian process regression with the NNGP kernel, or any other."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.prediction.shapes import cross_kernel, training_pair


class Posterior(NamedTuple):
    """A Gaussian process after seeing the training set.

    Attributes:
      mean: shape (n_test,) or (n_test, o).
      covariance: shape (n_test, n_test), of each output.
    """

    mean: jax.Array
    covariance: jax.Array


def gp_posterior(
    k_train_train: ArrayLike,
    y_train: ArrayLike,
    k_test_train: ArrayLike,
    k_test_test: ArrayLike,
    *,
    noise: float = 0.0,
) -> Posterior:
    """Compute the posterior of a Gaussian process: Bayesian training of an infinite network.

    mean = K* (K + σ²)⁻¹ y,  covariance = K** − K* (K + σ²)⁻¹ K*ᵀ

    With `noise=0` the kernel must be well conditioned in its dtype; the Cholesky factor of one
    that is not holds NaN, and so does the result.

    Args:
      k_train_train: K, shape (n, n), the NNGP kernel.
      y_train: labels, shape (n,) or (n, o).
      k_test_train, k_test_test: K* of shape (n_test, n) and K** of shape (n_test, n_test).
      noise: σ² ≥ 0, the variance of the labels' noise.

    Returns:
      Posterior(mean, covariance).

    Raises:
      ValueError: shapes that do not fit, NaN, negative noise.

    Example:
      >>> k = jnp.array([[1.0, 0.5], [0.5, 1.0]])
      >>> posterior = gp_posterior(k, jnp.array([1.0, -1.0]), k, k)
      >>> posterior.mean.round(6).tolist()
      [1.0, -1.0]

    References:
      Rasmussen and Williams (2006), "Gaussian Processes for Machine Learning", eq. 2.23–2.24.
    """
    kernel, y = training_pair(k_train_train, y_train)
    if kernel.ndim != 2:
        raise ValueError(f"k_train_train has shape {kernel.shape}; expected (n, n).")
    k_star = cross_kernel(k_test_train, kernel.shape)
    k_test = jnp.asarray(k_test_test)
    if k_test.shape != (len(k_star), len(k_star)):
        raise ValueError(
            f"k_test_test has shape {k_test.shape}; expected {(len(k_star), len(k_star))}."
        )
    if checks.is_concrete(noise) and noise < 0:
        raise ValueError(f"noise is {noise}; expected a variance, ≥ 0.")
    factor = jnp.linalg.cholesky(kernel + noise * jnp.eye(len(kernel), dtype=kernel.dtype))
    solve = lambda b: jax.scipy.linalg.cho_solve((factor, True), b)  # noqa: E731
    half = jax.scipy.linalg.solve_triangular(factor, k_star.T, lower=True)
    return Posterior(k_star @ solve(y), k_test - half.T @ half)
