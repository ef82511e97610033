"""What the quantities of Song et al. (2021) are given, checked at the door."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.arguments import (
    check as _check,
    library as library,
    real as real,
    source as _source,
)

Activation = Callable[[jax.Array], jax.Array]

source = functools.partial(_source, "Song et al. (2021)")

_WHOLE = {"d_0", "d_1", "d_2", "t", "width"}
_POSITIVE = {"omega1", "omega2", "product", "slope"}


def check(**values: ArrayLike) -> None:
    """Refuse what the theorems do not speak of: see `ntkflow.systems.arguments.check`.

    Dimensions d_0, d_1, d_2 and the power t are whole numbers, ω₁ and ω₂ greater than 0.

    >>> check(n=3, d_0=2, omega1=0.0)
    Traceback (most recent call last):
    ...
    ValueError: omega1 is 0.0; expected a finite number greater than 0.
    """
    others = {}
    for name, value in values.items():
        if name not in _WHOLE | _POSITIVE:
            others[name] = value
            continue
        if not checks.is_concrete(value):
            continue
        array = np.asarray(value, dtype=float)
        if name in _WHOLE:
            valid, expected = (array >= 1) & (array == np.floor(array)), "a whole number"
        else:
            valid, expected = (array > 0) & np.isfinite(array), "a finite number"
        if not np.all(valid):
            raise ValueError(f"{name} is {value}; expected {expected} greater than 0.")
    _check(**others)


def check_number(**values: ArrayLike) -> None:
    """Refuse what is not one number too: an array would be taken for one number for each row.

    >>> check_number(omega1=np.ones(2))
    Traceback (most recent call last):
    ...
    ValueError: omega1 has shape (2,); expected one number. For several networks use jax.vmap.
    """
    for name, value in values.items():
        if np.ndim(value):
            raise ValueError(
                f"{name} has shape {np.shape(value)}; expected one number. For several networks "
                "use jax.vmap."
            )
    check(**values)


def check_activation(activation: Any) -> None:
    """Refuse what is no elementwise function of floating-point arrays.

    >>> check_activation("gelu")
    Traceback (most recent call last):
    ...
    ValueError: activation is 'gelu'; expected an elementwise function, e.g. jax.nn.relu.
    """
    checks.elementwise("activation", activation)
