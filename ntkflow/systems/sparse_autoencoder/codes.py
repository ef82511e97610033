"""Code consistency, measured: when the encoder σ(Wᵀy + b) finds the support of the true code."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow.systems.sparse_autoencoder.network import preactivations


def code_consistency(codes: ArrayLike, true_codes: ArrayLike, *, signs: bool = False) -> jax.Array:
    """Compute the share of samples whose code has the support of the true one.

    A code that holds NaN or infinite values is not consistent.

    Args:
      codes: x, shape (N, m).
      true_codes: x*, shape (N, m).
      signs: whether signs must agree too, as Theorem 3 (i) has it for sparse coding.

    Returns:
      A scalar in [0, 1].

    Raises:
      ValueError: codes are not of shape (N, m), or their shapes differ.

    Example:
      >>> codes, true_codes = jnp.array([[0.9, 0.0], [-0.7, 0.0]]), jnp.array([[1.0, 0.0]] * 2)
      >>> [float(code_consistency(codes, true_codes, signs=signs)) for signs in (False, True)]
      [1.0, 0.5]
    """
    codes, true_codes = jnp.asarray(codes), jnp.asarray(true_codes)
    _check_codes(codes.shape, true_codes)
    same = jnp.sign(codes) == jnp.sign(true_codes) if signs else (codes != 0) == (true_codes != 0)
    same &= jnp.isfinite(codes)  # what diverged is not 0, and no code either
    return jnp.mean(jnp.all(same, axis=1), dtype=jnp.result_type(codes.dtype, jnp.float32))


class Margins(NamedTuple):
    """Where the pre-activations z = Wᵀy + b of each sample lie; arrays of shape (N,).

    ReLU finds the support where on > 0 ≥ off; a threshold λ finds the signs where on ≥ λ and
    λ > off_size.

    Attributes:
      on: the smallest z_i sgn(x_i*) on the support; inf where it is empty.
      off: the largest z_i off the support; −inf where it is empty.
      off_size: the largest |z_i| off the support; 0 where it is empty.
    """

    on: jax.Array
    off: jax.Array
    off_size: jax.Array


def margins(weights: ArrayLike, bias: ArrayLike, y: ArrayLike, true_codes: ArrayLike) -> Margins:
    """Measure the margins of the encoder on samples.

    Args:
      weights: W, shape (n, m).
      bias: b, shape (m,).
      y: samples, shape (N, n).
      true_codes: x*, shape (N, m).

    Raises:
      ValueError: shapes that do not fit.

    Example:
      >>> y = jnp.array([[1.0, 0.2]])
      >>> seen = margins(jnp.eye(2), jnp.array([-0.3, -0.3]), y, jnp.array([[1.0, 0.0]]))
      >>> [round(float(side[0]), 4) for side in seen]
      [0.7, -0.1, 0.1]
    """
    z, true_codes = preactivations(weights, bias, y), jnp.asarray(true_codes)
    _check_codes(z.shape, true_codes)
    signs = jnp.sign(true_codes)
    return Margins(
        on=jnp.min(jnp.where(signs != 0, signs * z, jnp.inf), axis=1),
        off=jnp.max(jnp.where(signs == 0, z, -jnp.inf), axis=1),
        off_size=jnp.max(jnp.where(signs == 0, jnp.abs(z), 0), axis=1),
    )


def _check_codes(shape: tuple[int, ...], true_codes: jax.Array) -> None:
    if len(shape) != 2 or true_codes.shape != shape or 0 in shape:
        raise ValueError(
            f"codes have shape {shape} and true codes {true_codes.shape}; expected (N, m), alike, "
            "and at least one sample: samples are rows."
        )
