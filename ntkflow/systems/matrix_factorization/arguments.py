"""What the quantities of Du (2019), sections 4.3, 4.7 and 4.8, share: factors, targets, and ε."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.arguments import (
    check as check,
    library as library,
    real as real,
    source as _source,
)

source = functools.partial(_source, "Du (2019)")


class Factors(NamedTuple):
    """U (d_1, r), V (d_2, r) and M* (d_1, d_2), checked against each other."""

    u: jax.Array
    v: jax.Array
    target: jax.Array


def read(params: Any, target: ArrayLike) -> Factors:
    """U, V and M* of a run; `params` is {"u": ..., "v": ...}, or Flax variables that hold it."""
    u, v = factors(params)
    target = check_target(target)
    if target.shape != (u.shape[0], v.shape[0]):
        raise ValueError(
            f"M* has shape {target.shape}, u {u.shape} and v {v.shape}; expected "
            f"({u.shape[0]}, {v.shape[0]}) for M*, one row per row of u, one column per row of v."
        )
    return Factors(u, v, target)


def factors(params: Any) -> tuple[jax.Array, jax.Array]:
    """U and V, with the same number of columns."""
    inner = params.get("params", params) if isinstance(params, Mapping) else params
    if not isinstance(inner, Mapping) or not {"u", "v"} <= set(inner):
        held = sorted(inner) if isinstance(inner, Mapping) else type(inner).__name__
        raise ValueError(f'params holds {held}; expected {{"u": (d_1, r), "v": (d_2, r)}}.')
    u, v = checks.floating(inner["u"]), checks.floating(inner["v"])
    if u.ndim != 2 or v.ndim != 2 or u.shape[1] != v.shape[1]:
        raise ValueError(
            f"u has shape {u.shape} and v {v.shape}; expected (d_1, r) and (d_2, r), with the same "
            "r. For rank 1 write u[:, None]."
        )
    return u, v


def alike(name: str, params: Any, other: Any) -> tuple[jax.Array, jax.Array]:
    """U and V of `other`, a second tree of the shapes of `params`."""
    shapes, (u, v) = [factor.shape for factor in factors(params)], factors(other)
    if [u.shape, v.shape] != shapes:
        raise ValueError(
            f"{name} holds shapes {u.shape} and {v.shape}; expected those of params, {shapes[0]} "
            f"and {shapes[1]}."
        )
    return u, v


def wide(array: jax.Array) -> jax.Array:
    """`array` in float32 at least: there are no decompositions in bfloat16 and float16."""
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def host(value: ArrayLike) -> np.ndarray:
    """`value` for NumPy, in float32 at least: of bfloat16 it knows no precision."""
    array = np.asarray(value)
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def check_target(target: ArrayLike) -> jax.Array:
    """M* as a floating-point matrix."""
    array = jnp.asarray(target)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"M* has shape {array.shape}; expected a matrix, (d_1, d_2).")
    array = checks.floating(array)
    checks.finite("M*", array)
    return array


def check_rank(rank: int, d_1: int, d_2: int) -> int:
    """`rank` as an int, at most the smaller dimension."""
    rank = checks.positive_int("rank", rank)
    if rank > min(d_1, d_2):
        raise ValueError(
            f"rank is {rank}; expected at most {min(d_1, d_2)}: no matrix of shape ({d_1}, {d_2}) "
            "has a higher one."
        )
    return rank


def check_epsilon(epsilon: ArrayLike, norm: ArrayLike) -> None:
    """Refuse an ε outside of (0, ‖M*‖_F), where both can be read."""
    if not (checks.is_concrete(epsilon) and checks.is_concrete(norm)):
        return
    accuracy, size = np.asarray(epsilon, float), np.asarray(norm, float)
    if not np.all((accuracy > 0) & (accuracy < size)):
        raise ValueError(
            f"epsilon is {epsilon} and ‖M*‖_F {size.min()}; expected 0 < ε < ‖M*‖_F: with a "
            "larger ε, U = V = 0 is accurate enough already."
        )


def check_positive(**values: ArrayLike) -> None:
    """Refuse what is not greater than 0, where it can be read."""
    for name, value in values.items():
        if not checks.is_concrete(value):
            continue
        array = np.asarray(value, float)
        if not np.all((array > 0) & (array < np.inf)):
            raise ValueError(f"{name} is {value}; expected greater than 0, and finite.")


def check_excess(excess: ArrayLike) -> None:
    """Refuse a δ outside of (0, ½], where it can be read."""
    if not checks.is_concrete(excess):
        return
    value = np.asarray(excess, float)
    if not np.all((value > 0) & (value <= 0.5)):
        raise ValueError(
            f"excess is {excess}; expected δ in (0, ½]: the squares of the steps must sum to a "
            "finite number, and the steps must not."
        )
