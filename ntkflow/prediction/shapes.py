"""The shapes of kernels and labels that predictions are made from, checked at the door."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow import checks


def training_pair(k_train_train: ArrayLike, y_train: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """The kernel and the labels, of one floating dtype, if their shapes fit."""
    kernel, y = jnp.asarray(k_train_train), jnp.asarray(y_train)
    n = checks.same_length(k_train_train=kernel, y_train=y)
    checks.finite("k_train_train", kernel)
    checks.finite("y_train", y)
    outputs = y.shape[1:]
    if len(outputs) > 1 or kernel.shape not in ((n, n), (n, n, *outputs, *outputs)):
        raise ValueError(
            f"k_train_train has shape {kernel.shape} and y_train {y.shape}; expected (n, n) with "
            "(n,) or (n, o), or (n, n, o, o) with (n, o)."
        )
    dtype = jnp.promote_types(jnp.result_type(kernel, y), jnp.float32)
    return kernel.astype(dtype), y.astype(dtype)


def cross_kernel(k_test_train: ArrayLike, train_shape: tuple[int, ...]) -> jax.Array:
    """The kernel between test and training set, if it fits the training set's own."""
    kernel = jnp.asarray(k_test_train)
    if kernel.shape[1:] != train_shape[1:]:
        rest = ", ".join(map(str, train_shape[1:]))
        raise ValueError(f"k_test_train has shape {kernel.shape}; expected (n_test, {rest}).")
    checks.finite("k_test_train", kernel)
    return kernel


def as_matrix(kernel: jax.Array) -> jax.Array:
    """(n1, n2, o, o) as (n1·o, n2·o), outputs running fastest; (n1, n2) as it is."""
    if kernel.ndim == 2:
        return kernel
    n1, n2, o, _ = kernel.shape
    return kernel.transpose(0, 2, 1, 3).reshape(n1 * o, n2 * o)
