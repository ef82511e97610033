"""What the quantities of Nguyen, Wong and Hegde (2019a) are given, checked at the door.

>>> check(n=3, m=2.5)
Traceback (most recent call last):
...
ValueError: m is 2.5; expected a whole number greater than 0.
>>> check(lambda_n=0.0)
Traceback (most recent call last):
...
ValueError: lambda_n is 0.0; expected greater than 0: it is at least 1 for data of norm 1.
"""

import functools
from typing import Literal, get_args

import jax
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.data.inputs import check_inputs, find_violations
from ntkflow.systems.arguments import (
    Rule,
    checker,
    library as library,
    real as real,
    source as _source,
)

Trains = Literal["encoder", "decoder", "both"]

source = functools.partial(_source, "Nguyen, Wong and Hegde (2019a)")


def check_trains(trains: str) -> None:
    """Refuse what is none of the three regimes.

    >>> check_trains("joint")
    Traceback (most recent call last):
    ...
    ValueError: trains is 'joint'; expected one of ['encoder', 'decoder', 'both'].
    """
    if trains not in get_args(Trains):
        raise ValueError(f"trains is {trains!r}; expected one of {list(get_args(Trains))}.")


check = checker(
    lambda_n=Rule(lambda a: a > 0, "greater than 0: it is at least 1 for data of norm 1")
)


def check_data(x: ArrayLike) -> None:
    """Refuse data that break the assumptions: rows of norm other than 1, zero or parallel rows.

    Assumption 1 is ‖x_i‖ = 1. Assumption 2, λ_0 > 0, holds where no two samples are parallel.

    Args:
      x: samples as rows, shape (n, d); the paper's X is its transpose.

    Raises:
      ValueError: as for `ntkflow.data.check_inputs`, which lists the rows; or the columns have norm
        1 instead of the rows.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[0.6, 0.8], [0.0, 1.0], [1.0, 0.0]])
      >>> check_data(x)
      >>> check_data(x.T)
      Traceback (most recent call last):
      ...
      ValueError: The columns of x have norm 1, its rows have not: samples are rows here, ...

    Reference: Nguyen, Wong and Hegde (2019a), Assumptions 1 and 2.
    """
    array = checks.matrix("x", x)
    try:
        check_inputs(array)
    except ValueError:
        if checks.is_concrete(array) and not _unit_rows(array) and _unit_rows(array.T):
            raise ValueError(
                "The columns of x have norm 1, its rows have not: samples are rows here, shape "
                f"(n, d), the transpose of the paper's X; x has shape {array.shape}. Pass x.T."
            ) from None
        raise


def _unit_rows(x: jax.Array) -> bool:
    found = find_violations(x)
    return not len(found.norm) + len(found.zero)
