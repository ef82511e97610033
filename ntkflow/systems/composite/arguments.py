"""The arguments of the general theorems on h = f ∘ Φ: the constants of Φ and f, checked."""

import functools
from typing import Any, Literal, get_args

import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.arguments import (
    check as check,
    library as library,
    real as real,
    source as _source,
)

Dynamics = Literal["flow", "descent"]

source = functools.partial(_source, "Song et al. (2021)")


def check_dynamics(dynamics: str) -> None:
    if dynamics not in get_args(Dynamics):
        raise ValueError(f"dynamics is {dynamics!r}; expected one of {list(get_args(Dynamics))}.")


def check_near_isometry(mu: ArrayLike, nu: ArrayLike, smoothness: ArrayLike) -> None:
    """Refuse what is no near-isometry, as far as the values can be read; NaN passes: it is data.

    >>> check_near_isometry(2.0, 1.0, 0.5)
    Traceback (most recent call last):
    ...
    ValueError: mu is 2.0 and nu is 1.0; expected mu <= nu, as they bound σ_min and σ_max.
    """
    check(mu=mu, nu=nu, smoothness=smoothness)
    concrete = checks.is_concrete(mu) and checks.is_concrete(nu)
    if concrete and np.any(np.asarray(mu) > np.asarray(nu)):
        raise ValueError(
            f"mu is {mu} and nu is {nu}; expected mu <= nu, as they bound σ_min and σ_max."
        )


def check_loss_constants(pl: ArrayLike, smoothness: ArrayLike) -> None:
    """Refuse constants that no loss has, as far as the values can be read."""
    check(pl=pl, smoothness=smoothness)
    concrete = checks.is_concrete(pl) and checks.is_concrete(smoothness)
    if concrete and np.any(np.asarray(pl) > np.asarray(smoothness)):
        raise ValueError(
            f"The constants of the loss are pl = {pl} and smoothness = {smoothness}; expected "
            "pl <= smoothness: a smooth loss has ‖∇f‖² ≤ 2 β_f f, and the PL condition the reverse."
        )


def divide(numerator: ArrayLike, denominator: ArrayLike) -> Any:
    """The quotient, inf where the denominator is 0: a linear Φ has no radius, μ = 0 no bound.

    >>> float(divide(1.0, 0.0))
    inf
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return library(numerator, denominator).divide(numerator, denominator)
