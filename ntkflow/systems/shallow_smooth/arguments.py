"""What the quantities of Song et al. (2021) are given, checked at the door.

>>> check(n=3, d_0=2, omega1=0.0)
Traceback (most recent call last):
...
ValueError: omega1 is 0.0; expected a finite number greater than 0.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.arguments import (
    FINITE_POSITIVE,
    WHOLE,
    checker,
    library as library,
    one_number,
    real as real,
)
from ntkflow.systems.composite.arguments import source as source

Activation = Callable[[jax.Array], jax.Array]

check = checker(
    **dict.fromkeys(("d_0", "d_1", "d_2", "t", "width"), WHOLE),
    **dict.fromkeys(("omega1", "omega2", "product", "slope"), FINITE_POSITIVE),
)


def check_number(**values: ArrayLike) -> None:
    """Refuse what is not one number too: an array would be taken for one number for each row."""
    one_number(**values)
    check(**values)


def check_activation(activation: Any) -> None:
    """Refuse what is no elementwise function of floating-point arrays.

    >>> check_activation("gelu")
    Traceback (most recent call last):
    ...
    ValueError: activation is 'gelu'; expected an elementwise function, e.g. jax.nn.relu.
    """
    checks.elementwise("activation", activation)
