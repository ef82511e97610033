"""Extreme eigenvalues of a kernel matrix, and what the precision can resolve of them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow import checks


class Extremes(NamedTuple):
    """The extreme eigenvalues of a symmetric matrix.

    Attributes:
      smallest, largest: λ_min and λ_max.
      resolution: 4 ε λ_max, with ε of the kernel's own dtype: more than rounding its entries moves
        λ_min by (`tests/kernels/test_spectrum.py`, n up to 200). A kernel is positive
        semidefinite, so that a λ_min below says only "not resolved": it is returned as 0.
    """

    smallest: jax.Array
    largest: jax.Array
    resolution: jax.Array


def extreme_eigenvalues(kernel: ArrayLike) -> Extremes:
    """Compute λ_min and λ_max of a symmetric positive semidefinite matrix.

    The matrix is decomposed in float64 where JAX has it enabled, whatever its own dtype; its
    entries then still carry their own rounding, which `resolution` counts. Enable it by
    `jax.config.update("jax_enable_x64", True)`. A float32 kernel resolves nothing below 5e-7 λ_max.

    Args:
      kernel: shape (n, n) or (batch, n, n), symmetric: the lower triangle is read, and symmetry is
        not checked. A full empirical NTK, (n, n, o, o), becomes one matrix by
        `.transpose(0, 2, 1, 3).reshape(n * o, n * o)`.

    Returns:
      Extremes, each of shape () or (batch,) and of the kernel's dtype (float32 for lower ones). An
      eigenvalue of absolute value below `resolution` is returned as 0; one that is more
      negative is returned as it is, because then the matrix is not positive semidefinite.

    Raises:
      ValueError: the matrix is not square, empty, or holds NaN.

    Example:
      >>> [float(v) for v in extreme_eigenvalues(jnp.diag(jnp.array([3.0, 1.0, 2.0])))[:2]]
      [1.0, 3.0]
    """
    array = jnp.asarray(kernel)
    if array.ndim not in (2, 3) or array.shape[-1] != array.shape[-2] or array.shape[-1] == 0:
        raise ValueError(
            f"kernel has shape {array.shape}; expected (n, n) with n > 0, or (batch, n, n). A full "
            "NTK of shape (n, n, o, o) becomes one matrix by "
            ".transpose(0, 2, 1, 3).reshape(n * o, n * o); for more axes in front use jax.vmap."
        )
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(f"kernel has dtype {array.dtype}; expected a real symmetric matrix.")
    array = checks.floating(array)
    checks.finite("kernel", array)
    dtype = jnp.promote_types(array.dtype, jnp.float32)
    wide = jnp.promote_types(dtype, jax.dtypes.canonicalize_dtype(float))
    values = jnp.linalg.eigvalsh(array.astype(wide))
    smallest, largest = values[..., 0], values[..., -1]
    magnitude = jnp.maximum(jnp.abs(smallest), jnp.abs(largest))
    resolution = rounding_of_eigenvalues(magnitude, array.dtype)
    smallest, largest = (
        jnp.where(jnp.abs(value) < resolution, 0.0, value) for value in (smallest, largest)
    )
    return Extremes(*(value.astype(dtype) for value in (smallest, largest, resolution)))


def rounding_of_eigenvalues(magnitude: jax.Array, dtype: Any) -> jax.Array:
    """4 ε λ_max: what lies below is not resolved in a kernel whose entries are of `dtype`."""
    return 4 * jnp.finfo(dtype).eps * magnitude


def smallest_eigenvalue(kernel: ArrayLike) -> jax.Array:
    """Compute λ_min, the rate of the slowest direction: see `extreme_eigenvalues`.

    Example:
      >>> float(smallest_eigenvalue(jnp.ones((2, 2))))  # singular: not resolved, hence 0
      0.0
    """
    return extreme_eigenvalues(kernel).smallest
