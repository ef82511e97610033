"""The phases of a run, measured: |1ᵀa − 1ᵀa*‖w*‖| falls first, then nothing much, then everything.

A run is what `observables(teacher)` recorded, or `reduced_observables(path, problem)` of a reduced
one; leading axes are seeds or cells.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from ntkflow.systems.records import DIVERGENCE_IS_DATA
from ntkflow.systems.weight_normalized_filter.arguments import check
from ntkflow.systems.weight_normalized_filter.bounds import gap
from ntkflow.systems.weight_normalized_filter.bounds_descent import phase_one_overlap
from ntkflow.systems.weight_normalized_filter.network import Teacher
from ntkflow.systems.weight_normalized_filter.reduction import Problem
from ntkflow.systems.weight_normalized_filter.run import read_run


class Phases(NamedTuple):
    """When the phases of Figure 5.2 end, in steps; inf where the record has no end of one.

    Attributes:
      sums: T_0, from where on S is within 1% of its start's distance to where φ lets it go, the
        (k+g(φ)−1)/(k+π−1) s‖w*‖ that makes ∂ℓ/∂S = 0: "the first ~10 iterations".
      signal: T_1 of Theorem 5.3, from where on φ ≤ π/3 and Q ≥ 0.2132‖w*‖‖a*‖²: the slow phase I.
      accuracy: T_1 + T_2, from where on ℓ ≤ ε‖w*‖²‖a*‖²: the fast phase II.
    """

    sums: Any
    signal: Any
    accuracy: Any


class Rates(NamedTuple):
    """By how much quantities fall per step, −Δ log/Δt, in the three phases: shape (..., 3) each.

    Attributes:
      loss, sum_error, output_error, angle: the four curves of Figure 5.2. NaN of phases that the
        record lacks.
    """

    loss: Any
    sum_error: Any
    output_error: Any
    angle: Any


@DIVERGENCE_IS_DATA
def phases(
    history: Mapping[str, ArrayLike],
    steps: ArrayLike,
    problem: Teacher | Problem,
    epsilon: float = 1e-3,
) -> Phases:
    """Measure when the three phases of a run end.

    Args:
      history: of the run, shape (..., records) each.
      steps: of the records; `trajectory.steps`.
      problem: the teacher, or what of it matters.
      epsilon: ε, in (0, 1].

    Returns:
      Steps, of the shape of the leading axes. What counts is the first record from which on it
      holds to the end of the record.

    Raises:
      ValueError: a record is missing, the first is not at 0, ε is out of (0, 1].

    Example:
      >>> from ntkflow.systems.weight_normalized_filter.reduction import (
      ...     Reduced, reduced_observables, simulate
      ... )
      >>> start, problem = Reduced(0.01, 1.0, 0.0, 0.05, 0.1), Problem(20, 1.0, 1.0)
      >>> steps, path = simulate(start, problem, 0.1, steps=600)
      >>> history = reduced_observables(path, problem)
      >>> [int(time) for time in phases(history, steps, problem)]
      [11, 131, 243]

    Reference: Du (2019), section 5.5.1 and Theorem 5.3.
    """
    check(epsilon=epsilon)
    run = read_run(history, steps, problem)
    k, s, norm, filter_norm = run.problem
    rest = run.total - s * filter_norm * (1 - gap(run.angle) / (k + np.pi - 1))
    settled = np.abs(rest) <= 0.01 * np.abs(rest[..., :1])
    ready = (run.angle <= np.pi / 3) & (run.overlap >= phase_one_overlap(norm, filter_norm).value)
    accurate = run.loss <= epsilon * run.size**2
    return Phases(*(_last_entry(holds, run.steps) for holds in (settled, ready, accurate)))


@DIVERGENCE_IS_DATA
def phase_rates(
    history: Mapping[str, ArrayLike],
    steps: ArrayLike,
    problem: Teacher | Problem,
    epsilon: float = 1e-3,
) -> Rates:
    """Measure how fast the four curves of Figure 5.2 fall in each of the phases.

    Args:
      history, steps, problem, epsilon: as for `phases`.

    Returns:
      Mean rates per step from 0 to T_0, from T_0 to T_1, and from T_1 to T_1 + T_2.

    Raises:
      ValueError: as `phases`.

    Example:
      >>> from ntkflow.systems.weight_normalized_filter.reduction import (
      ...     Reduced, reduced_observables, simulate
      ... )
      >>> start, problem = Reduced(0.01, 1.0, 0.0, 0.05, 0.1), Problem(20, 1.0, 1.0)
      >>> steps, path = simulate(start, problem, 0.1, steps=600)
      >>> rates = phase_rates(reduced_observables(path, problem), steps, problem)
      >>> rates.sum_error.round(3).tolist()
      [0.207, 0.005, 0.052]

    Reference: Du (2019), section 5.5.1.
    """
    run = read_run(history, steps, problem)
    ends = np.stack(phases(history, steps, problem, epsilon), axis=-1)
    stages = np.concatenate([np.zeros_like(ends[..., :1]), ends], axis=-1)
    present = np.isfinite(stages)
    index = np.argmax(run.steps[..., None, :] >= np.where(present, stages, 0)[..., None], axis=-1)
    present = present[..., 1:] & present[..., :-1] & (np.diff(stages) > 0)

    def rate(record: np.ndarray) -> np.ndarray:
        logs = np.broadcast_to(np.log(record)[..., None, :], (*index.shape, record.shape[-1]))
        falls = -np.diff(np.take_along_axis(logs, index[..., None], axis=-1)[..., 0])
        return np.where(present, falls / np.where(present, np.diff(stages), 1), np.nan)

    return Rates(*(rate(getattr(run, name)) for name in Rates._fields))


def _last_entry(holds: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The first step from which on `holds` to the end; inf without one."""
    stays = np.flip(np.logical_and.accumulate(np.flip(holds, -1), axis=-1), -1)
    first = np.argmax(stays, axis=-1)
    times = np.take_along_axis(np.broadcast_to(steps, holds.shape), first[..., None], axis=-1)
    return np.where(stays[..., -1], times[..., 0], np.inf)
