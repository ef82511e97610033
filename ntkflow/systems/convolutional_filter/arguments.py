"""What the quantities of Du (2019), chapter 6, are given, checked at the door.

>>> check(phi=4.0)
Traceback (most recent call last):
...
ValueError: phi is 4.0; expected an angle in [0, π], in radians.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.checks import floating as floating
from ntkflow.systems.arguments import (
    ANGLE,
    FINITE_POSITIVE,
    WHOLE,
    checker,
    library as library,
    one_number as one_number,
    real as real,
    source as _source,
)

source = functools.partial(_source, "Du (2019)")

check = checker(
    phi=ANGLE,
    **dict.fromkeys(("k", "p", "steps"), WHOLE),
    **dict.fromkeys(("step_size", "sigma", "target_norm"), FINITE_POSITIVE),
)


def filter_of(w: Any, name: str = "w") -> jax.Array:
    """The filter (p,), given as it is, or within the variables of a `ConvolutionalFilter`.

    >>> filter_of({"params": {"filter": jnp.array([1.0, 2.0])}}).tolist()
    [1.0, 2.0]
    """
    if isinstance(w, Mapping):
        inner = w.get("params", w)
        if not isinstance(inner, Mapping) or "filter" not in inner:
            raise ValueError(
                f"{name} holds {sorted(map(str, inner))}; expected the variables of a "
                'ConvolutionalFilter, {"params": {"filter": (p,)}}, or its filter.'
            )
        w = inner["filter"]
    array = floating(w)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"{name} has shape {array.shape}; expected one filter, (p,). For several use jax.vmap."
        )
    checks.finite(name, array)
    return array


def pair(w: Any, w_star: Any) -> tuple[jax.Array, jax.Array]:
    """Two filters of the same size, in one floating-point type."""
    w, w_star = filter_of(w), filter_of(w_star, "w_star")
    if w.shape != w_star.shape:
        raise ValueError(
            f"w has shape {w.shape} and w_star {w_star.shape}; expected filters of the same size."
        )
    dtype = jnp.result_type(w, w_star)
    return w.astype(dtype), w_star.astype(dtype)


def patches_of(z: ArrayLike, size: int | None = None) -> jax.Array:
    """`z` as patches in rows, (n, k, p), each of `size` entries."""
    array = floating(z)
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(
            f"z has shape {array.shape}; expected (n, k, p), patches being rows. For one neuron "
            "write z[:, None, :], for images ntkflow.data.image_patches."
        )
    if size is not None and array.shape[-1] != size:
        raise ValueError(
            f"z has shape {array.shape} and the filter ({size},); expected patches of as many "
            "entries as the filter has. Patches are rows."
        )
    checks.finite("z", array)
    return array
