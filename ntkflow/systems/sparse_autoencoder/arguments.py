"""What the quantities of Nguyen, Wong and Hegde (2019b) are given, checked at the door."""

import functools
from typing import Any, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow.data.dictionaries import check_atoms
from ntkflow.data.generative import BilinearModel, Kind, Moments
from ntkflow.systems.arguments import (
    WHOLE,
    Rule,
    checker,
    library as library,
    real as real,
    source as _source,
)

source = functools.partial(_source, "Nguyen, Wong and Hegde (2019b)")

_TYPES = {
    "model": (BilinearModel, "a model of the data, e.g. mixture_of_gaussians(dictionary)"),
    "moments": (Moments, "those of a model of the data, model.moments"),
}
_check = checker(sparsity=WHOLE, tau=Rule(lambda tau: (tau > 0) & (tau <= 1), "a share in (0, 1]"))


def check(**values: Any) -> None:
    """Refuse what the theorems do not speak of: see `ntkflow.systems.arguments.check`.

    >>> check(n=3, sparsity=2.5)
    Traceback (most recent call last):
    ...
    ValueError: sparsity is 2.5; expected a whole number greater than 0.
    >>> check(kind="mixture")
    Traceback (most recent call last):
    ...
    ValueError: kind is 'mixture'; expected one of ['mixture_of_gaussians', 'sparse_coding', ...
    >>> check(model=[1.0, 0.0])
    Traceback (most recent call last):
    ...
    ValueError: model is of type list; expected a model of the data, e.g. ...
    """
    for name, (kind, expected) in _TYPES.items():
        if name in values and not isinstance(value := values.pop(name), kind):
            raise ValueError(f"{name} is of type {type(value).__name__}; expected {expected}.")
    if values.get("kind") not in (None, *get_args(Kind)):
        raise ValueError(f"kind is {values['kind']!r}; expected one of {list(get_args(Kind))}.")
    values.pop("kind", None)
    _check(**values)


def pair(weights: ArrayLike, dictionary: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Weights W and the dictionary A as arrays of one shape, (n, m).

    >>> pair(jnp.ones((3, 2)), jnp.eye(3))
    Traceback (most recent call last):
    ...
    ValueError: weights has shape (3, 2) and dictionary (3, 3); expected both (n, m), ...
    """
    weights, dictionary = jnp.asarray(weights), check_atoms(dictionary)
    if weights.shape != dictionary.shape:
        raise ValueError(
            f"weights has shape {weights.shape} and dictionary {dictionary.shape}; expected both "
            "(n, m), as many hidden units as atoms."
        )
    return weights, dictionary
