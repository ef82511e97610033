"""A recorded run of the autoencoder, and the numbers that its theorems speak of."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, get_args

import jax
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.spectrum import Extremes, extreme_eigenvalues
from ntkflow.systems.autoencoder.constants import Dynamics
from ntkflow.systems.autoencoder.gram import data_norm, limit_gram
from ntkflow.systems.autoencoder.observables import observables, step_observables
from ntkflow.systems.autoencoder.requirements import Regime
from ntkflow.systems.records import check_history, steps_of
from ntkflow.theory import Inequality, inequality


class Run(NamedTuple):
    """A run and the numbers that the theorems speak of.

    Attributes:
      record: of the observers, shape (..., records) or (..., records, n).
      steps: of the records, or times.
      x: samples, shape (n, d).
      m: the width.
      trains: "encoder" or "both".
      lambda_0, lambda_h: λ_min(G^∞) and λ_min(H^∞).
      lambda_n: ‖XᵀX‖.
      gram_norm: ‖H^∞‖.
      resolution: what rounding leaves undecided of λ_0 and λ_H.
      delta: δ, of all events together; `share` is that of one.
      dynamics: "flow" or "descent".
    """

    record: dict[str, np.ndarray]
    steps: np.ndarray
    x: np.ndarray
    m: int
    trains: Regime
    lambda_0: float
    lambda_h: float
    lambda_n: float
    gram_norm: float
    resolution: float
    delta: float
    dynamics: Dynamics

    def claim(self, statement: str, origin: str, smaller: Any, larger: Any) -> Inequality:
        """An inequality in the precision of the record, which decides what rounding is."""
        return inequality(statement, origin, smaller, larger, self.record["squared_error"].dtype)

    @property
    def n(self) -> int:
        return self.x.shape[0]

    @property
    def d(self) -> int:
        return self.x.shape[1]

    @property
    def share(self) -> float:
        return self.delta / (4 if (self.trains, self.dynamics) == ("encoder", "descent") else 3)

    @property
    def proof(self) -> float:
        """The smallest eigenvalue that the proof rests on: λ_0, or λ_H for both layers."""
        return self.lambda_0 if self.trains == "encoder" else self.lambda_h

    @property
    def norm(self) -> np.ndarray:
        """‖X − U‖_F along the run."""
        return np.sqrt(self.record["squared_error"])


def read(
    history: Mapping[str, ArrayLike],
    steps: ArrayLike,
    data: tuple[ArrayLike, ArrayLike],
    width: int,
    trains: Regime,
    delta: float,
    dynamics: Dynamics,
) -> Run:
    """Check what a certificate is given, and bring it to the host."""
    if trains not in get_args(Regime):
        raise ValueError(
            f"trains is {trains!r}; expected one of {list(get_args(Regime))}: the paper has no "
            "theorem on anything else."
        )
    x, y = data
    x = checks.matrix("x", x)
    if np.shape(y) != x.shape or not np.array_equal(np.asarray(y), np.asarray(x)):
        raise ValueError(
            f"data is (x, y) with x of shape {x.shape} and another y, of shape {np.shape(y)}; "
            "expected (x, x): the theorems are about reconstruction."
        )
    m = checks.positive_int("width", width)
    flow = dynamics == "flow"
    needed: Iterable[str] = observables() if flow else step_observables(0.0)
    check_history(history, needed, "observables()" if flow else "step_observables(step_size)")
    record = {name: np.asarray(history[name]) for name in needed}
    moved = record["decoder_distance"]  # infinite where a flow could not be solved
    if trains == "encoder" and np.any(np.isfinite(moved) & (moved > 0)):
        raise ValueError(
            "trains is 'encoder', and the decoder moved in the record; expected the run of an "
            "Autoencoder(width, trains='encoder'), or trains='both'."
        )
    return Run(
        record=record,
        steps=steps_of(steps, record["squared_error"]),
        x=np.asarray(x),
        m=m,
        trains=trains,
        delta=delta,
        dynamics=dynamics,
        **_spectra(x),
    )


def _spectra(x: jax.Array) -> dict[str, float]:
    """The eigenvalues among the fields of a `Run`."""
    (g, h), lambda_n = jax.device_get(_decompose(x))
    lambda_0, lambda_h = float(g.smallest), float(h.smallest)
    if min(lambda_0, lambda_h) <= 0:
        raise ValueError(
            f"λ_min(G^∞) is {lambda_0:g} and λ_min(H^∞) {lambda_h:g}, up to rounding; expected "
            "both greater than 0: no zero rows in x and no parallel ones, see check_data(x)."
        )
    return {
        "lambda_0": lambda_0,
        "lambda_h": lambda_h,
        "lambda_n": float(lambda_n),
        "gram_norm": float(h.largest),
        "resolution": max(float(g.resolution), float(h.resolution)),
    }


@jax.jit
def _decompose(x: jax.Array) -> tuple[tuple[Extremes, Extremes], jax.Array]:
    g, h = limit_gram(x, trains="encoder"), limit_gram(x, trains="decoder")
    return (extreme_eigenvalues(g), extreme_eigenvalues(h)), data_norm(x)
