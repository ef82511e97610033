"""The assumptions of Caron et al. (2023), each by its number, as inequalities that hold or fail."""

import functools
from collections.abc import Hashable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.breaks import piecewise
from ntkflow.systems.deep.activations import (
    ActivationConstants,
    activation_constants,
    check_activation,
)
from ntkflow.systems.node_scaling.arguments import source
from ntkflow.systems.node_scaling.network import Activation
from ntkflow.theory import Inequality, inequality

_GRID = np.linspace(-4.0, 4.0, 65)


class Findings(NamedTuple):
    """What Assumption 2.2 asks of σ: L and M, whether it is a polynomial, how often it breaks."""

    constants: ActivationConstants
    polynomial: bool
    breaks: int


def findings(activation: Activation) -> Findings:
    """Evaluate σ and its derivatives, which takes half a second, once for each function.

    >>> findings(jax.nn.swish)[1:]
    (False, 0)
    """
    find = _find_once if isinstance(activation, Hashable) else _find
    return find(activation, jnp.result_type(float))


def _find(activation: Activation, dtype: np.dtype) -> Findings:
    constants = activation_constants(activation)
    try:
        check_activation(activation)
        polynomial = False
    except ValueError:  # that it is no function was said by activation_constants
        polynomial = True
    return Findings(constants, polynomial, len(piecewise(activation)[0].breaks))


_find_once = functools.lru_cache(maxsize=64)(_find)  # what is found depends on the dtype


def assumptions_on_data(
    x: ArrayLike, y: ArrayLike, *, label_bound: ArrayLike | None = None
) -> tuple[Inequality, ...]:
    """Assumption 2.1: (a) 0 < ‖x_i‖ ≤ 1, (b) no two inputs on one line, (c) |y_i| ≤ C.

    Args:
      x, y: data, shapes (n, d) and (n,).
      label_bound: C; None takes max |y_i|.

    Example:
      >>> x = jnp.array([[0.5, 0.5], [-1.0, -1.0]])
      >>> [bool(entry.holds) for entry in assumptions_on_data(x, jnp.zeros(2))]
      [True, False, False, True]

    Reference: Caron et al. (2023), Assumption 2.1.
    """
    x = np.asarray(checks.matrix("x", x))
    y = np.asarray(y)
    checks.same_length(x=x, y=y)
    dtype, limits = x.dtype, np.finfo(x.dtype)
    norms = np.linalg.norm(x, axis=1)
    unit = x / np.where(norms > 0, norms, 1)[:, None]
    cosines = np.abs(unit @ unit.T)[~np.eye(len(x), dtype=bool)]
    bound = np.abs(y).max() if label_bound is None else label_bound
    first, second, third = (source(f"Assumption 2.1, ({part})") for part in "abc")
    parallel = 1 - 64 * limits.eps
    return (
        inequality("0 < ‖x_i‖", first, limits.tiny, norms.min(), dtype),
        inequality("‖x_i‖ ≤ 1", first, norms.max(), 1.0, dtype),
        inequality("x_i ≠ c x_k", second, cosines.max(initial=0.0), parallel, dtype),
        inequality("|y_i| ≤ C", third, np.abs(y).max(), bound, dtype),
    )


def assumptions_on_activation(
    activation: Activation, *, smooth: bool = True
) -> tuple[Inequality, ...]:
    """Assumption 2.2: |σ'| ≤ 1, |σ''| ≤ M < ∞, σ analytic and no polynomial; or σ = ReLU.

    That it is analytic cannot be read from values: breaks of σ or of a derivative are counted.

    Args:
      activation: σ.
      smooth: whether the smooth case is meant, or that of ReLU.

    Example:
      >>> entries = assumptions_on_activation(jax.nn.swish)
      >>> [entry.statement for entry in entries if not entry.holds]
      ["|σ'| ≤ 1"]
      >>> float(entries[0].smaller[0].round(4))
      1.0998

    Reference: Caron et al. (2023), Assumption 2.2 and appendix A.
    """
    dtype, place = jnp.result_type(float), source("Assumption 2.2")
    if not smooth:
        with jax.ensure_compile_time_eval():
            values = np.asarray(activation(jnp.asarray(_GRID)))
        deviation = np.abs(values - np.maximum(_GRID, 0)).max()
        return (inequality("σ(z) = max(z, 0)", source("appendix A"), deviation, 0.0, dtype),)
    constants, polynomial, breaks = findings(activation)
    largest = float(jnp.finfo(dtype).max)
    return (
        inequality("|σ'| ≤ 1", place, constants.lipschitz, 1.0, dtype),
        inequality("|σ''| ≤ M < ∞", place, constants.smoothness, largest, dtype),
        inequality("σ is analytic: no breaks", place, float(breaks), 0.0, dtype),
        inequality("σ is no polynomial", place, float(polynomial), 0.0, dtype),
    )


def assumptions_on_network(
    scales: ArrayLike, gamma: ArrayLike, *, variance: ArrayLike = 1.0
) -> tuple[Inequality, ...]:
    """Assumption 2.3, w ~ N(0, I); λ as in (1), with γ > 0.

    Args:
      scales: λ, shape (m,).
      gamma: γ.
      variance: v of the weights, w ~ N(0, v I).

    Example:
      >>> entries = assumptions_on_network(jnp.full(4, 0.25), 0.0, variance=2.0)
      >>> [entry.statement for entry in entries if not entry.holds]
      ['v = 1: w_j ~ N(0, I)', '0 < γ']

    Reference: Caron et al. (2023), Assumption 2.3 and equations (1) and (9).
    """
    scales = np.asarray(scales)
    dtype = np.result_type(scales.dtype, np.float32)
    limits, share = np.finfo(dtype), np.asarray(gamma) / len(scales)
    deviation = np.abs(scales.sum() - 1)
    initial = np.abs(np.asarray(variance) - 1)
    return (
        inequality("v = 1: w_j ~ N(0, I)", source("Assumption 2.3"), initial, 0.0, dtype),
        inequality("0 < γ", source("Theorems 4.1, A.1 and H.1"), limits.tiny, gamma, dtype),
        inequality("γ/m ≤ λ_j", source("equation (1)"), share, scales.min(), dtype),
        inequality("Σ_j λ_j = 1", source("equation (9)"), deviation, 100 * limits.eps, dtype),
    )
