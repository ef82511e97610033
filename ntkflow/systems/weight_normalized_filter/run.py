"""A record of a run as certificates read it: checked, on the host, with what rounding may do."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow.systems.arguments import one_number
from ntkflow.systems.records import check_history, steps_of
from ntkflow.systems.weight_normalized_filter.arguments import check
from ntkflow.systems.weight_normalized_filter.bounds import signal, sum_step_size
from ntkflow.systems.weight_normalized_filter.network import Teacher
from ntkflow.systems.weight_normalized_filter.reduction import (
    Problem,
    check_problem,
    reduce_teacher,
)
from ntkflow.theory import Bound, Inequality, inequality

NAMES = ("angle", "output_error", "sum_error", "overlap", "total", "filter_norm", "loss")
FIRST = (..., slice(0, 1))
NOW, AFTER = (..., slice(None, -1)), (..., slice(1, None))


class Run(NamedTuple):
    """A record as theorems read it: float64, infinities as NaN.

    Attributes:
      angle, output_error, sum_error, overlap, total, filter_norm, loss: shape (..., records).
      steps: of the records.
      problem: of the run, on the host.
      dtype: of the record, which decides what rounding is.
    """

    angle: np.ndarray
    output_error: np.ndarray
    sum_error: np.ndarray
    overlap: np.ndarray
    total: np.ndarray
    filter_norm: np.ndarray
    loss: np.ndarray
    steps: np.ndarray
    problem: Problem
    dtype: Any

    @property
    def signal(self) -> np.ndarray:
        """λ along the run."""
        unit = np.where(self.filter_norm > 0, self.filter_norm, np.nan)
        phi = np.minimum(self.angle, np.pi)
        return np.asarray(signal(self.overlap, phi, self.problem.filter_norm, unit).value)

    @property
    def size(self) -> float:
        """‖w*‖‖a*‖, the norm of the output layer that is sought."""
        return self.problem.filter_norm * self.problem.norm

    def claim(
        self,
        statement: str,
        place: str,
        smaller: ArrayLike,
        larger: ArrayLike,
        slack: ArrayLike = 0.0,
        during: ArrayLike = True,
    ) -> Inequality:
        """`smaller <= larger + slack` at the records `during`; elsewhere nothing is claimed."""
        smaller, larger = np.where(during, smaller, 0.0), np.where(during, larger + slack, np.inf)
        return inequality(statement, f"Du (2019), {place}", smaller, larger, self.dtype)


def read_run(history: Mapping[str, ArrayLike], steps: ArrayLike, problem: Any) -> Run:
    """Check a record and its problem, a `Teacher` or a `Problem`, and bring them to the host.

    Raises:
      ValueError: a record is missing, the first is not at 0, the problem is none.
    """
    check_history(history, NAMES, "observables(teacher)")
    problem = problem_of(problem)
    # bfloat16 is none of NumPy's.
    dtype = np.dtype(jnp.promote_types(jnp.result_type(history["angle"]), jnp.float32))
    record = {name: np.asarray(history[name], dtype).astype(np.float64) for name in NAMES}
    record = {name: np.where(np.isinf(array), np.nan, array) for name, array in record.items()}
    return Run(**record, steps=steps_of(steps, record["loss"]), problem=problem, dtype=dtype)


def problem_of(problem: Any) -> Problem:
    """The problem, of one setting, in Python's numbers."""
    problem = reduce_teacher(problem) if isinstance(problem, Teacher) else problem
    check_problem(problem)
    one_number(**problem._asdict())
    return Problem(*(float(part) for part in problem))


class Rounding:
    """What is forgiven, of each quantity; over many steps rounding adds up to 1/(η·rate) of it."""

    def __init__(self, run: Run, step_size: float):
        k, _, norm, filter_norm = run.problem
        self.one = 64 * float(np.finfo(run.dtype).eps)
        self.start = self.one * (run.output_error[FIRST] + run.size) * norm
        self.start_total = self.start / norm * np.sqrt(k)
        size = (run.output_error[FIRST] + run.size) * (1 + 1 / step_size)
        self.output = self.one * size
        self.total = self.output * np.sqrt(k)
        self.overlap = self.output * norm
        self.angle = self.one
        self.path = self.one * (1 + 1 / (step_size * run.size**2))
        self.square = self.path * (np.sin(run.angle) + self.path)
        self.signal = self.overlap * filter_norm / run.filter_norm[FIRST] ** 2


def check_step_size(step_size: ArrayLike) -> None:
    """Refuse what is no step size of one setting."""
    one_number(step_size=step_size)
    check(step_size=step_size)


def forbid(step_size: float, largest: Bound, ready: np.ndarray, k: float, theorem: str) -> None:
    """Refuse a step that the theorem forbids to a start that meets its other conditions."""
    allowed = sum_step_size(k)
    value, formula = float(np.asarray(allowed.value)), allowed.formula
    if ready.any():
        found = float(np.min(np.where(ready, largest.value, np.inf)))
        if found < value:
            value, formula = found, largest.formula
    if step_size > value * (1 + 1e-6):  # a bound of a start in float32 is known no better
        raise ValueError(
            f"step_size is {step_size}; {theorem} allows at most {value:.6g}, {formula}. Run with "
            "that or less; certificate_lemmas speaks of any step size."
        )
