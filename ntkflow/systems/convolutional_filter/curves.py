"""γ and L as curves over the angle: functions of φ, or tables."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.convolutional_filter.arguments import check, library, real

Curve = Callable[[Any], Any] | ArrayLike

_FRACTIONS = np.linspace(0.0, 1.0, 65)


def over_angles(curve: Curve, phi: ArrayLike, phis: ArrayLike | None = None) -> Any:
    """Evaluate γ or L at the angles of [0, φ], along a new last axis.

    Args:
      curve: a function of φ, taken at 65 angles from 0 to φ; or its values at `phis`, taken at
        those up to the first that is not below φ: never less of the table than up to φ.
      phi: φ in [0, π].
      phis: angles of a table, increasing from 0, shape (g,), up to the largest φ (under a trace
        a larger one takes the table whole).

    Returns:
      Shape (*phi.shape, 65), or (*phi.shape, g) with the first value repeated in place of those
      at larger angles.

    Raises:
      ValueError: a table without angles, angles that do not increase from 0 or end below φ.

    Example:
      >>> over_angles(np.array([3.0, 2.0, 1.0]), 0.4, phis=np.array([0.0, 0.5, 1.0])).tolist()
      [3.0, 2.0, 3.0]

    Reference: Du (2019), Theorem 6.2, where η_t is a minimum over 0 ≤ φ ≤ φ_t.
    """
    check(phi=phi)
    if callable(curve):
        angle: Any = library(phi).asarray(real(phi))
        fractions = _FRACTIONS.astype(angle.dtype).reshape((1,) * angle.ndim + (-1,))
        angles = angle[..., None] * fractions
        values = curve(angles)
        return library(values, angles).broadcast_to(values, angles.shape)
    if phis is None:
        raise ValueError(
            f"A table of shape {np.shape(curve)} is given without its angles; expected phis as "
            "well, or a function of φ."
        )
    xp = library(phi, curve, phis)
    angle, values, angles = (xp.asarray(x) * 1.0 for x in (phi, curve, phis))
    check_table(angles, values)
    if checks.is_concrete(angle) and checks.is_concrete(angles):
        largest, end = np.max(angle, initial=0.0), np.max(angles)
        if largest > end + 1e-6:  # angles of a float32 run are rounded
            raise ValueError(
                f"phi is {largest:.6g} and the table ends at {end:.6g}; expected a table up to "
                "the largest angle, φ_0."
            )
    last = xp.searchsorted(angles, angle)[..., None]
    row = (1,) * angle.ndim + (-1,)
    kept = xp.arange(angles.size).reshape(row) <= last
    return xp.where(kept, values.reshape(row), values[0])


def check_table(angles: Any, values: ArrayLike) -> None:
    """Refuse a table that is not of one value per angle, angles increasing from 0."""
    if np.ndim(angles) != 1 or np.shape(values) != np.shape(angles) or np.size(angles) == 0:
        raise ValueError(
            f"The table has shape {np.shape(values)} and phis {np.shape(angles)}; expected one "
            "value per angle, shape (g,) both."
        )
    if checks.is_concrete(angles):
        steps = np.diff(np.asarray(angles, float))
        if angles[0] != 0 or not np.all(steps > 0):
            raise ValueError(f"phis is {angles}; expected angles that increase from 0.")


def numbers(values: ArrayLike) -> Any:
    """`values` in floating point, a list as an array; Python's numbers stay, and widen nothing."""
    return real(values if hasattr(values, "dtype") or not np.ndim(values) else np.asarray(values))


def last_axis(reduce: str, values: ArrayLike) -> Any:
    """The "min" or "max" of `values` along the last axis; a number itself."""
    values = numbers(values)
    return getattr(values, reduce)(axis=-1) if np.ndim(values) else values
