"""What observers recorded along a run, as certificates read it."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jax.typing import ArrayLike

# As a decorator of certificates: inf and NaN of a run that diverged are compared in silence.
DIVERGENCE_IS_DATA = np.errstate(over="ignore", invalid="ignore", divide="ignore")


def check_history(history: Any, needed: Iterable[str], observe: str) -> None:
    """Refuse a history without the records `needed`; `observe` says what would record them.

    >>> check_history({"loss": [1.0]}, ["loss", "movement"], "observables()")
    Traceback (most recent call last):
    ...
    ValueError: The history lacks ['movement']; record with observe=observables().
    """
    if not isinstance(history, Mapping):
        raise ValueError(
            f"history is of type {type(history).__name__}; expected the records by name, "
            "trajectory.history."
        )
    missing = sorted(name for name in needed if name not in history)
    if missing:
        raise ValueError(f"The history lacks {missing}; record with observe={observe}.")


def steps_of(steps: ArrayLike, record: np.ndarray) -> np.ndarray:
    """The steps of a record, shape (..., records): at least two, from initialization on."""
    array = np.asarray(steps, float)
    records = record.shape[-1] if record.ndim else 0
    if array.ndim == 0 or array.shape[-1] != records or records < 2 or np.any(array[..., 0] != 0):
        raise ValueError(
            f"steps has shape {array.shape} and the history {records} records; expected the same "
            "number, at least two, the first at 0: the theorems compare with initialization."
        )
    return array


def tightest(smaller: np.ndarray, larger: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sides of `smaller <= larger` where it has the least slack, along the last axis."""
    smaller, larger = np.broadcast_arrays(smaller, larger)
    worst = np.argmin(larger - smaller, axis=-1)[..., None]
    first, second = (np.take_along_axis(side, worst, axis=-1)[..., 0] for side in (smaller, larger))
    return first, second
