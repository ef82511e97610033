"""The numbers, constants and checks that the quantities of Du (2019), chapter 2, share."""

import math
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks

Dynamics = Literal["flow", "descent"]

# 2 / √(2π): P(|z| < R) ≤ 2R / √(2π) for z ~ N(0, 1).
ANTI_CONCENTRATION = 2 / math.sqrt(2 * math.pi)

# c in R = c δ λ_0 / n². Flow: 4n²R / (√(2π) δ) = λ_0/4 in Lemma 2.2. Descent: half of λ_0/2 for
# H^⊥ and I_2 in the contraction, 4 C n² R / δ = λ_0/4 with C = 2/√(2π).
RADIUS_CONSTANT = {"flow": math.sqrt(2 * math.pi) / 16, "descent": math.sqrt(2 * math.pi) / 32}

# The factor of √n ‖y − u(0)‖ / (√m λ_0) in R': ∫ exp(−λ_0 s/2) ds, and η Σ_k (1 − ηλ_0/2)^(k/2).
DISTANCE_FACTOR = {"flow": 2.0, "descent": 4.0}


def source(place: str, note: str = "") -> str:
    return f"Du (2019), {place}" + (f" ({note})" if note else "")


def real(value: ArrayLike) -> Any:
    """`value` in floating point: n⁶ overflows an integer from n = 1449 on."""
    return value * 1.0


def library(*values: ArrayLike) -> Any:
    """NumPy for what is on the host, in float64 for Python's numbers; else jax.numpy."""
    return jnp if any(isinstance(value, jax.Array) for value in values) else np


def check(**values: ArrayLike) -> None:
    """Refuse what the theorems do not speak of, as far as the values can be read."""
    for name, value in values.items():
        if not checks.is_concrete(value):
            continue
        array = np.asarray(value, dtype=float)
        if name == "delta":
            valid, expected = (array > 0) & (array < 1), "a probability of failure in (0, 1)"
        elif name in ("n", "m"):
            valid = (array >= 1) & (array == np.floor(array))
            expected = "a whole number greater than 0"
        elif name == "lambda_0":
            valid, expected = array > 0, "greater than 0; it is 0 where inputs are parallel"
        else:  # NaN passes: the residual of a run that diverged is data
            valid, expected = ~(array < 0), "0 or greater"
        if not np.all(valid):
            raise ValueError(f"{name} is {value}; expected {expected}.")


def check_dynamics(dynamics: str) -> None:
    if dynamics not in get_args(Dynamics):
        raise ValueError(f"dynamics is {dynamics!r}; expected one of {list(get_args(Dynamics))}.")
