"""What the quantities of Caron et al. (2023) are given, checked at the door."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.arguments import (
    check as _check,
    library as library,
    real as real,
    source as _source,
)

source = functools.partial(_source, "Caron et al. (2023)")


def check(**values: ArrayLike) -> None:
    """Refuse what the theorems do not speak of: see `ntkflow.systems.arguments.check`.

    >>> check(gamma=1.5)
    Traceback (most recent call last):
    ...
    ValueError: gamma is 1.5; expected a number in [0, 1]: the share of the nodes' equal part.
    >>> check(alpha=1.0)
    Traceback (most recent call last):
    ...
    ValueError: alpha is 1.0; expected a number in (0, 1): the weights j^(−1/α) must have a sum.
    """
    for name, value in values.items():
        if name not in ("gamma", "alpha", "kappa_n") or not checks.is_concrete(value):
            continue
        array = np.asarray(value, dtype=float)
        if name == "gamma":
            valid = (array >= 0) & (array <= 1)
            expected = "a number in [0, 1]: the share of the nodes' equal part"
        elif name == "alpha":
            valid = (array > 0) & (array < 1)
            expected = "a number in (0, 1): the weights j^(−1/α) must have a sum"
        else:
            valid, expected = array > 0, "greater than 0: it is 0 where inputs are parallel"
        if not np.all(valid):
            raise ValueError(f"{name} is {value}; expected {expected}.")
    own = ("gamma", "alpha", "kappa_n")
    _check(**{name: value for name, value in values.items() if name not in own})


def check_weights(weights: ArrayLike) -> jax.Array:
    """`weights` as the λ̃ of (1): shape (m,), 0 or greater, not all 0, in decreasing order."""
    array = vector("weights", weights)
    if checks.is_concrete(array):
        values = np.asarray(array)
        if np.any(values < 0) or not np.any(values > 0):
            raise ValueError(
                f"weights are between {values.min()} and {values.max()}; expected 0 or greater, "
                "and not 0 all: they are divided by their sum."
            )
        if np.any(np.diff(values) > 0):
            first = int(np.argmax(np.diff(values) > 0))
            raise ValueError(
                f"weights increase from {values[first]} at {first} to {values[first + 1]}; "
                "expected λ̃_1 ≥ λ̃_2 ≥ …, as in (1): sort them in decreasing order."
            )
    return array


def check_scales(scales: ArrayLike) -> jax.Array:
    """`scales` as λ: shape (m,), 0 or greater, of sum 1 up to rounding."""
    array = vector("scales", scales)
    if checks.is_concrete(array):
        values = np.asarray(array, dtype=float)
        if np.any(values < 0):
            raise ValueError(
                f"scales hold {values.min()}; expected λ_j ≥ 0, since √λ_j multiplies a node."
            )
        total = values.sum()
        if not abs(total - 1) <= 100 * float(jnp.finfo(array.dtype).eps):
            raise ValueError(
                f"scales have the sum {total:.6g}; expected 1, as in (9): write "
                "node_scales(weights, gamma), which divides by it."
            )
    return array


def scalar(name: str, value: ArrayLike) -> None:
    """Refuse an array where one number belongs: it would multiply entry by entry.

    >>> scalar("gamma", jnp.ones(3))
    Traceback (most recent call last):
    ...
    ValueError: gamma has shape (3,); expected one number. For several map over them with jax.vmap.
    """
    if jnp.ndim(value) != 0:
        raise ValueError(
            f"{name} has shape {jnp.shape(value)}; expected one number. For several map over them "
            "with jax.vmap."
        )


def check_variance(variance: ArrayLike) -> None:
    """Refuse a variance of the weights that is no number greater than 0."""
    scalar("variance", variance)
    # On the host: a comparison of JAX would be traced under `jit`, of a constant too.
    if checks.is_concrete(variance) and not np.asarray(variance) > 0:
        raise ValueError(f"variance is {variance}; expected a number greater than 0.")


def vector(name: str, values: ArrayLike) -> jax.Array:
    """`values` as a floating-point array of shape (m,), finite where it can be read."""
    array = jnp.asarray(values)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"{name} have shape {array.shape}; expected (m,), one for each hidden node. For "
            "several settings map over them with jax.vmap."
        )
    if not jnp.issubdtype(array.dtype, jnp.floating):
        array = array.astype(float)
    checks.finite(name, array)
    return array
