"""A recorded run of the node-scaled network as certificates read it: records, data, assumptions."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.deep.activations import ActivationConstants
from ntkflow.systems.node_scaling.arguments import (
    check,
    check_scales,
    check_variance,
    one_number,
    source,
)
from ntkflow.systems.node_scaling.assumptions import (
    assumptions_on_activation,
    assumptions_on_data,
    assumptions_on_network,
    findings,
)
from ntkflow.systems.node_scaling.bounds import Setting, measure_setting
from ntkflow.systems.node_scaling.network import Activation
from ntkflow.systems.records import check_history, steps_of
from ntkflow.theory import Bound, Inequality, inequality
from ntkflow.training.observe import Observers


class Run(NamedTuple):
    """A run, and what its network was."""

    record: dict[str, np.ndarray]
    steps: np.ndarray
    x: jax.Array
    y: np.ndarray
    scales: np.ndarray
    gamma: float
    activation: Activation
    constants: ActivationConstants
    variance: float

    @property
    def smooth(self) -> bool:
        """Whether σ'' is bounded, so that the theorems and lemmas for smooth σ speak of it."""
        return bool(np.isfinite(self.constants.smoothness))

    def claim(self, statement: str, place: str, smaller: Any, larger: Any) -> Inequality:
        """An inequality in the precision of the record, which decides what rounding is."""
        dtype = self.record["residual_norm"].dtype
        return inequality(statement, source(place), smaller, larger, dtype)

    def decay(self, statement: str, place: str, factor: ArrayLike) -> Inequality:
        """‖y − u‖² ≤ factor ‖y − u_0‖² from the second record on: at 0 it is an equality."""
        squared = self.record["residual_norm"] ** 2
        larger = np.asarray(factor) * squared[..., :1]
        return self.claim(statement, place, squared[..., 1:], larger[..., 1:])


def read(
    history: Mapping[str, ArrayLike],
    observe: Observers,
    builder: str,
    steps: ArrayLike,
    data: tuple[ArrayLike, ArrayLike],
    scales: ArrayLike,
    gamma: ArrayLike,
    activation: Activation,
    variance: float,
) -> Run:
    """Check and collect what was recorded; `builder` says in words what records `observe`."""
    check_history(history, observe, builder)
    x, y = data
    x, y = checks.matrix("x", x), np.asarray(y, float)
    checks.same_length(x=x, y=y)
    if y.ndim != 1:
        raise ValueError(f"y has shape {y.shape}; expected (n,): the theorems are for one output.")
    scales = np.asarray(check_scales(scales))
    one_number(gamma=gamma)
    check(gamma=gamma)
    check_variance(variance)
    record = {name: np.asarray(history[name]) for name in observe}
    nodes = record["weight_distance"].shape[-1]
    if nodes != len(scales):
        raise ValueError(
            f"scales has shape {scales.shape} and the history {nodes} nodes; expected the λ of "
            "the run."
        )
    steps = steps_of(steps, record["residual_norm"])
    constants, share = findings(activation).constants, float(np.asarray(gamma))
    return Run(record, steps, x, y, scales, share, activation, constants, variance)


def setting_of(run: Run, delta: float, label_bound: float | None) -> Setting:
    """The numbers of the theorems, on the host."""
    one_number(delta=delta, label_bound=0.0 if label_bound is None else label_bound)
    measured = measure_setting(
        run.x,
        run.y,
        run.gamma,
        activation=run.activation,
        delta=delta,
        label_bound=label_bound,
        variance=run.variance,
    )
    numbers = Setting(*(np.asarray(number)[()] for number in measured))
    # Rounding may leave a singular kernel with an eigenvalue below 0.
    return numbers._replace(kappa=np.maximum(numbers.kappa, 0.0))


def assumptions(
    run: Run, *, smooth: bool, label_bound: float | None = None
) -> tuple[Inequality, ...]:
    """Every assumption of the paper, as a hypothesis."""
    return (
        *assumptions_on_data(run.x, run.y, label_bound=label_bound),
        *assumptions_on_activation(run.activation, smooth=smooth),
        *assumptions_on_network(run.scales, run.gamma, variance=run.variance),
    )


def requirements(
    run: Run, setting: Setting, conditions: tuple[Bound, ...]
) -> tuple[Inequality, ...]:
    """0 < κ_n, and the widths that m must reach."""
    m, tiny = float(len(run.scales)), float(np.finfo(np.float32).tiny)
    place = source("section 3, of Assumptions 2.1 to 2.3")
    return (
        inequality("0 < κ_n, up to rounding", place, tiny, setting.kappa),
        *(
            inequality(f"{bound.formula.removeprefix('m = ')} ≤ m", bound.source, bound.value, m)
            for bound in conditions
        ),
    )
