"""The arguments of theorems: checked at the door, in floating point, on the host or traced."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks

# What an argument of that name must be; any other is a number, 0 or greater.
_WHOLE = {"n", "m", "d", "depth", "pixels", "filter_size", "rank"}
_POSITIVE = {"lambda_0": "greater than 0; it is 0 where inputs are parallel"}
_PROBABILITY = {"delta"}


def source(work: str, place: str, note: str = "") -> str:
    """Author and year, theorem or equation, and the correction where one is made.

    >>> source("Du (2019)", "Theorem 2.2", "corrected")
    'Du (2019), Theorem 2.2 (corrected)'
    """
    return f"{work}, {place}" + (f" ({note})" if note else "")


def real(value: ArrayLike) -> Any:
    """`value` in floating point: n⁶ overflows an integer from n = 1449 on."""
    return value * 1.0


def library(*values: ArrayLike) -> Any:
    """NumPy for what is on the host, in float64 for Python's numbers; else jax.numpy."""
    return jnp if any(isinstance(value, jax.Array) for value in values) else np


def check(**values: ArrayLike) -> None:
    """Refuse what theorems do not speak of, as far as the values can be read.

    >>> check(n=3, lambda_0=0.5, delta=1.5)
    Traceback (most recent call last):
    ...
    ValueError: delta is 1.5; expected a probability of failure in (0, 1).
    """
    for name, value in values.items():
        if not checks.is_concrete(value):
            continue
        array = np.asarray(value, dtype=float)
        if name in _PROBABILITY:
            valid, expected = (array > 0) & (array < 1), "a probability of failure in (0, 1)"
        elif name in _WHOLE:
            valid = (array >= 1) & (array == np.floor(array))
            expected = "a whole number greater than 0"
        elif name in _POSITIVE:
            valid, expected = array > 0, _POSITIVE[name]
        else:  # NaN passes: the residual of a run that diverged is data
            valid, expected = ~(array < 0), "0 or greater"
        if not np.all(valid):
            raise ValueError(f"{name} is {value}; expected {expected}.")
