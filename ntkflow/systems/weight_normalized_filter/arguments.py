"""What the quantities of Du (2019), chapter 5, are given, checked at the door.

>>> check(step_size=0.0)
Traceback (most recent call last):
...
ValueError: step_size is 0.0; expected a finite number greater than 0.
>>> check(angle=4.0)
Traceback (most recent call last):
...
ValueError: angle is 4.0; expected an angle in [0, π], in radians.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.arguments import (
    ANGLE,
    FINITE_POSITIVE,
    WHOLE,
    Rule,
    checker,
    library as library,
    one_number as one_number,
    real as real,
    source as _source,
)

source = functools.partial(_source, "Du (2019)")

# NaN passes, as with sizes: the record of a run that diverged is data.
_FINITE = Rule(lambda a: ~np.isinf(a), "a finite number")
_LENGTH = Rule(lambda a: ~((a <= 0) | np.isinf(a)), FINITE_POSITIVE.expected)

check = checker(
    **dict.fromkeys(("k", "p"), WHOLE),
    **dict.fromkeys(
        ("step_size", "norm", "target_norm", "filter_norm", "constant"), FINITE_POSITIVE
    ),
    v_norm=_LENGTH,
    **dict.fromkeys(("overlap", "total", "target_sum"), _FINITE),
    angle=ANGLE,
    ratio=Rule(lambda a: (a >= 0) & np.isfinite(a), "a finite number, 0 or greater"),
    radius=Rule(lambda a: (a >= 0) & np.isfinite(a), "a finite number, 0 or greater"),
    epsilon=Rule(lambda a: (a > 0) & (a <= 1), "an accuracy in (0, 1], relative to ‖w*‖²‖a*‖²"),
    share=Rule(lambda a: (a > 0) & (a < 1), "a share in (0, 1)"),
)


def vector(name: str, value: ArrayLike) -> jax.Array:
    """`value` as a floating-point array with one axis, not empty, finite where it can be read."""
    array = jnp.asarray(value)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"{name} has shape {array.shape}; expected one axis, not empty. For several map over "
            "them with jax.vmap."
        )
    array = checks.floating(array)
    checks.finite(name, array)
    return array


def direction(name: str, value: ArrayLike) -> jax.Array:
    """`value` as a vector that has a direction: not 0, where it can be read."""
    array = vector(name, value)
    if checks.is_concrete(array) and not np.any(np.asarray(array)):
        raise ValueError(f"{name} is 0; expected a vector that has a direction.")
    return array
