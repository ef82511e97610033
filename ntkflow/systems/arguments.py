"""The arguments of theorems: checked at the door, in floating point, on the host or traced.

>>> check(n=3, lambda_0=0.5, delta=1.5)
Traceback (most recent call last):
...
ValueError: delta is 1.5; expected a probability of failure in (0, 1).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks


class Rule(NamedTuple):
    """What an argument of some name must be.

    Attributes:
      holds: of its values, an array, entry by entry.
      expected: the same in words.
    """

    holds: Callable[[np.ndarray], np.ndarray]
    expected: str


WHOLE = Rule(lambda a: (a >= 1) & (a == np.floor(a)), "a whole number greater than 0")
FINITE_POSITIVE = Rule(lambda a: (a > 0) & np.isfinite(a), "a finite number greater than 0")
# π rounded to float32 is above π. NaN passes: the record of a run that diverged is data.
ANGLE = Rule(lambda a: ~((a < 0) | (a > np.float32(np.pi))), "an angle in [0, π], in radians")
EIGENVALUE = Rule(lambda a: a > 0, "greater than 0; it is 0 where inputs are parallel")
_PROBABILITY = Rule(lambda a: (a > 0) & (a < 1), "a probability of failure in (0, 1)")
# NaN passes: the residual of a run that diverged is data.
_NOT_NEGATIVE = Rule(lambda a: ~(a < 0), "0 or greater")
_RULES = {
    **dict.fromkeys(("n", "m", "d", "depth", "pixels", "filter_size", "rank"), WHOLE),
    "lambda_0": EIGENVALUE,
    "delta": _PROBABILITY,
}


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


def checker(**rules: Rule) -> Callable[..., None]:
    """Build `check(**values)`: refuse what theorems do not speak of, as far as it can be read.

    Names without a rule, here or among those that all systems share, are numbers, 0 or greater.

    >>> checker(share=Rule(lambda a: a <= 1, "at most 1"))(share=2.0)
    Traceback (most recent call last):
    ...
    ValueError: share is 2.0; expected at most 1.
    """
    rules = _RULES | rules

    def check(**values: ArrayLike) -> None:
        for name, value in values.items():
            if not checks.is_concrete(value):
                continue
            rule = rules.get(name, _NOT_NEGATIVE)
            if not np.all(rule.holds(np.asarray(value, dtype=float))):
                raise ValueError(f"{name} is {value}; expected {rule.expected}.")

    return check


check = checker()


def one_number(**values: ArrayLike) -> None:
    """Refuse an array where one number belongs: it would multiply entry by entry.

    >>> one_number(gamma=jnp.ones(3))
    Traceback (most recent call last):
    ...
    ValueError: gamma has shape (3,); expected one number. For several use jax.vmap.
    """
    for name, value in values.items():
        if np.ndim(value):
            raise ValueError(
                f"{name} has shape {np.shape(value)}; expected one number. For several use "
                "jax.vmap."
            )
