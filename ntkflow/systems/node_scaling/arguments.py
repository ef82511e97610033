"""What the quantities of Caron et al. (2023) are given, checked at the door.

>>> check(gamma=1.5)
Traceback (most recent call last):
...
ValueError: gamma is 1.5; expected a number in [0, 1]: the share of the nodes' equal part.
>>> check(alpha=1.0)
Traceback (most recent call last):
...
ValueError: alpha is 1.0; expected a number in (0, 1): the weights j^(−1/α) must have a sum.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.arguments import (
    EIGENVALUE,
    Rule,
    checker,
    library as library,
    one_number as one_number,
    real as real,
    source as _source,
)

source = functools.partial(_source, "Caron et al. (2023)")


check = checker(
    gamma=Rule(
        lambda a: (a >= 0) & (a <= 1), "a number in [0, 1]: the share of the nodes' equal part"
    ),
    alpha=Rule(
        lambda a: (a > 0) & (a < 1), "a number in (0, 1): the weights j^(−1/α) must have a sum"
    ),
    kappa_n=EIGENVALUE,
)


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


def check_variance(variance: ArrayLike) -> None:
    """Refuse a variance of the weights that is no number greater than 0."""
    one_number(variance=variance)
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
    array = checks.floating(array)
    checks.finite(name, array)
    return array
