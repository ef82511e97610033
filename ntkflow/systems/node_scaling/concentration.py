"""Random kernels near their mean: the matrix Chernoff inequalities, and the smallest eigenvalue of
Θ at initialization, Proposition D.1.

Bounds on probabilities are returned as they are: one above 1 says nothing.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import xlog1py
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.node_scaling.arguments import check, library, real, source
from ntkflow.systems.node_scaling.bounds import Setting, check_setting, quotient
from ntkflow.theory import Bound


def chernoff_lower(
    n: ArrayLike,
    mean: ArrayLike,
    largest: ArrayLike,
    deviation: ArrayLike,
    *,
    simplified: bool = False,
) -> Bound:
    """The bound on P(λ_min(Σ_j X_j) ≤ (1 − ε) μ), n (e^(−ε) / (1 − ε)^(1 − ε))^(μ/R).

    For independent positive semidefinite X_j, (n, n), with λ_max(X_j) ≤ R and μ = λ_min(Σ E X_j).

    Args:
      n: the size of the matrices.
      mean: μ.
      largest: R.
      deviation: ε in [0, 1].
      simplified: n exp(−ε² μ / 2R), which is larger.

    Raises:
      ValueError: ε is outside of [0, 1], or another number is negative.

    Example:
      >>> tails = [chernoff_lower(4, 30.0, 1.0, 0.5, simplified=s) for s in (False, True)]
      >>> [round(float(tail.value), 4) for tail in tails]
      [0.0401, 0.0941]

    Reference: Tropp (2012), "User-friendly tail bounds for sums of random matrices"; Caron et al.
    (2023), Proposition B.1.
    """
    _check_tail(n, mean, largest, deviation)
    if checks.is_concrete(deviation) and np.any(np.asarray(deviation) > 1):
        raise ValueError(
            f"deviation is {deviation}; expected a number in [0, 1]: λ_min is 0 or greater."
        )
    epsilon = real(deviation)
    exponent = -(epsilon**2) / 2 if simplified else -epsilon - _xlog1p(-epsilon)
    formula = "n exp(−ε² μ/2R)" if simplified else "n (e^(−ε) / (1−ε)^(1−ε))^(μ/R)"
    return _tail(n, mean, largest, exponent, formula)


def chernoff_upper(
    n: ArrayLike,
    mean: ArrayLike,
    largest: ArrayLike,
    deviation: ArrayLike,
    *,
    simplified: bool = False,
) -> Bound:
    """The bound on P(λ_max(Σ_j X_j) ≥ (1 + ε) μ), n (e^ε / (1 + ε)^(1 + ε))^(μ/R).

    Args:
      n, largest: as for `chernoff_lower`.
      mean: μ = λ_max(Σ_j E X_j).
      deviation: ε ≥ 0.
      simplified: n exp(−ε² μ / ((2 + ε) R)), which is larger.

    Example:
      >>> tails = [chernoff_upper(4, 30.0, 1.0, 0.5, simplified=s) for s in (False, True)]
      >>> [round(float(tail.value), 4) for tail in tails]
      [0.1557, 0.1991]

    Reference: Tropp (2012); Caron et al. (2023), Proposition B.1.
    """
    _check_tail(n, mean, largest, deviation)
    epsilon = real(deviation)
    smaller = -(epsilon**2) / (2 + epsilon)
    exponent = smaller if simplified else epsilon - _xlog1p(epsilon)
    formula = "n exp(−ε² μ/((2+ε)R))" if simplified else "n (e^ε / (1+ε)^(1+ε))^(μ/R)"
    return _tail(n, mean, largest, exponent, formula)


def initial_failure(
    setting: Setting,
    width: ArrayLike,
    deviation: ArrayLike = 0.5,
    *,
    data_norm: ArrayLike | None = None,
    slope: ArrayLike = 1.0,
) -> Bound:
    """The bound on P(λ_min(Θ(0)) ≤ (1 − ε) γκ_n), n exp(−ε² m κ_n d / 2n).

    By `chernoff_lower` for the equal part Θ⁽¹⁾, which Θ exceeds: it is a mean of m terms of norm at
    most γ L² ‖XXᵀ‖ / d. The same bound holds for every γ.

    Args:
      setting: n, d, κ_n.
      width: m.
      deviation: ε in [0, 1]; the proposition's is ½.
      data_norm: ‖XXᵀ‖; None takes n, which it is at most for ‖x_i‖ ≤ 1.
      slope: L = sup |σ'|, which the paper takes to be 1.

    Example:
      >>> setting = Setting(100, 50, 1.0, 0.00365)  # ReLU, simulated data
      >>> round(float(initial_failure(setting, 30_281).value), 4)
      0.1

    Reference: Caron et al. (2023), proof of Proposition D.1.
    """
    check_setting(setting)
    check(m=width, slope=slope)
    norm = real(setting.n) if data_norm is None else data_norm
    mean = real(width) * setting.kappa * setting.d
    tail = chernoff_lower(setting.n, mean, slope**2 * norm, deviation, simplified=True)
    place = source("Proposition D.1, proof", "L is 1 there and ‖XXᵀ‖ its bound n")
    return Bound(tail.value, "n exp(−ε² m κ_n d / 2L²‖XXᵀ‖)", 1.0, place)


def initial_width(
    setting: Setting,
    share: float = 1.0,
    *,
    data_norm: ArrayLike | None = None,
    slope: ArrayLike = 1.0,
) -> Bound:
    """The width above which λ_min(Θ(0)) > γκ_n/2 with probability 1 − δ, 2³ n log(n/δ) / (κ_n d).

    Theorems 4.1 and H.1 leave half of δ to it, Theorem A.1 a quarter: log(2n/δ), log(4n/δ).

    Args:
      setting: n, d, κ_n, δ.
      share: the part of δ that takes the place of δ.
      data_norm, slope: as for `initial_failure`.

    Example:
      >>> setting = Setting(100, 50, 1.0, 0.00365)  # ReLU, simulated data
      >>> f"{float(initial_width(setting).value):.3g}"
      '3.03e+04'

    Reference: Caron et al. (2023), Proposition D.1.
    """
    check_setting(setting)
    check(slope=slope)
    norm = real(setting.n) if data_norm is None else data_norm
    log = library(*setting).log(real(setting.n) / (share * setting.delta))
    value = quotient(8 * slope**2 * norm * log, setting.kappa * setting.d)
    number = "" if share == 1 else f"{1 / share:g}"
    formula = f"m = 2³ n log({number}n/δ) / (κ_n d)"
    return Bound(value, formula, 1.0, source("Proposition D.1"))


def initial_smallest_eigenvalue(setting: Setting, deviation: ArrayLike = 0.5) -> Bound:
    """What λ_min(Θ(0)) exceeds but with the probability of `initial_failure`, (1 − ε) γκ_n.

    Example:
      >>> initial_smallest_eigenvalue(Setting(10, 5, gamma=0.5, kappa=0.08)).value
      0.02

    Reference: Caron et al. (2023), Proposition D.1.
    """
    check_setting(setting)
    value = (1 - deviation) * setting.gamma * setting.kappa
    return Bound(value, "(1 − ε) γκ_n", 1.0, source("Proposition D.1"))


def _check_tail(n, mean, largest, deviation):
    check(n=n, mean=mean, largest=largest, deviation=deviation)


def _tail(n, mean, largest, exponent, formula) -> Bound:
    lib = library(n, mean, largest, exponent)
    value = real(n) * lib.exp(exponent * mean / largest)
    return Bound(value, formula, 1.0, source("Proposition B.1"))


def _xlog1p(x: Any) -> Any:
    """(1 + x) log(1 + x), 0 at x = −1."""
    if isinstance(x, jax.Array):
        return xlog1py(1 + x, jnp.where(x > -1, x, 0.0))
    inside = np.where(np.asarray(x) > -1, x, 0.0)
    return ((1 + np.asarray(x)) * np.log1p(inside))[()]
