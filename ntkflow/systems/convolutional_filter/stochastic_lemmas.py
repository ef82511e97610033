"""The explicit conditions of Lemmas 6.2 and 6.3 of Du (2019), on which Theorem 6.4 rests.

As in `bounds_stochastic` κ = γ(φ_1) − 6 L_cross; M = L(0) + 10 L_cross + 4β, ‖∇ℓ‖ ≤ M‖w − w*‖.
"""

from typing import Any

import numpy as np
from jax.typing import ArrayLike

from ntkflow.systems.convolutional_filter.arguments import check, source
from ntkflow.systems.convolutional_filter.bounds import curvature, gradient_factor
from ntkflow.systems.convolutional_filter.bounds_stochastic import (
    StochasticSetting,
    check_setting,
)
from ntkflow.theory import Inequality, inequality


def stay_conditions(
    setting: StochasticSetting,
    step_size: ArrayLike,
    steps: ArrayLike,
    *,
    printed: bool = False,
) -> tuple[Inequality, ...]:
    """Hold a step against Lemma 6.2: then ‖w_t − w*‖ ≤ r_1 for all t ≤ T with probability 1 − δ.

    With α = κ − ηM², n = ηB²/α and d = 2ηB r_1 + η²B²:

        0 < ηα < 1,   log(T/δ) ≤ (r_1² − max(r_0², n))² / (2 d² min(T, 1/(ηα))).

    Printed: γ(φ_1) for κ, α with M for M², d with a factor M on its first term (a gradient for a
    distance), T(1 + 2ηαT) for 2 min(T, 1/(ηα)), by (1 − ηα)^{−2T} ≤ 1 + 2ηαT, which is the wrong
    way round; the factor (1 − ηα)^{−T} that the proof drops on the other side makes up for it.

    Args:
      setting: of the run.
      step_size, steps: η and T.
      printed: whether to take the conditions as printed.

    Example:
      >>> setting = StochasticSetting(0.5, 0.5, 0.0, 0.0, 1.0, 1.0, 0.2, 0.9, delta=0.1)
      >>> [bool(row.holds) for row in stay_conditions(setting, 1e-3, 5000)]
      [True, True, True]

    Reference: Du (2019), Lemma 6.2.
    """
    check(step_size=step_size, steps=steps)
    check_setting(setting, 1.0)
    factor, alpha = _alpha(setting, step_size, printed)
    bound, inner, outer = setting.gradient_bound, setting.initial_distance, setting.radius
    rate = step_size * alpha
    deviation = (
        2 * step_size * bound * outer * (factor if printed else 1) + (step_size * bound) ** 2
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        if printed:
            room = outer**2 - inner**2
            variance = steps * (1 + 2 * rate * steps) * deviation**2
        else:
            noise = np.where(alpha > 0, step_size * bound**2 / alpha, np.inf)
            room = np.maximum(outer**2 - np.maximum(inner**2, noise), 0.0)
            variance = 2 * deviation**2 * np.minimum(steps, np.where(rate > 0, 1 / rate, np.inf))
        exponent = room**2 / variance
    place = source("Lemma 6.2", "as printed" if printed else "corrected")
    # The first condition, whose α has M² also where the others' is printed with M.
    first = step_size * (setting.gamma - step_size * factor**2) if printed else rate
    return (
        inequality("0 ≤ η (κ − ηM²)", place, 0.0, first),
        inequality("η (κ − ηM²) ≤ 1", place, first, 1.0),
        inequality(
            "log(T/δ) ≤ (r_1² − r_0²)² / (T (1 + 2ηαT) (2ηBM r_1 + η²B²)²)"
            if printed
            else "log(T/δ) ≤ (r_1² − max(r_0², n))² / (2 min(T, 1/(ηα)) (2ηB r_1 + η²B²)²)",
            place,
            np.log(steps / setting.delta),
            exponent,
        ),
    )


def rate_conditions(
    setting: StochasticSetting,
    step_size: ArrayLike,
    steps: ArrayLike,
    epsilon: ArrayLike,
    *,
    printed: bool = False,
) -> tuple[Inequality, ...]:
    """Hold a step against Lemma 6.3: then ‖w_T − w*‖ ≤ 2ε‖w*‖ with probability at least 1 − 2δ.

    The conditions of Lemma 6.2, and with α = κ − ηM²

        log(r_0²/(ε²‖w*‖²δ)) ≤ ηαT,   ηB² ≤ 3δ ε² α ‖w*‖².

    The second is printed without 3δ. Its proof applies Markov's inequality to ‖w − w*‖² − ηB²/α,
    which takes negative values; to ‖w − w*‖² itself, the inequality leaves (q^T r_0² + ηB²/α) /
    (4ε²‖w*‖²), which is δ under the corrected condition, and ¼ under the printed one. The printed
    lemma is false: for p = 1, noise ±s and δ = 0.0005
    (`tests/systems/convolutional_filter/test_convolutional_filter_bounds.py`).

    Args:
      setting: of the run.
      step_size, steps: η and T.
      epsilon: ε.
      printed: whether to take the conditions as printed.

    Example:
      >>> setting = StochasticSetting(0.5, 0.5, 0.0, 0.0, 1.0, 1.0, 0.2, 0.9, delta=0.1)
      >>> [bool(row.holds) for row in rate_conditions(setting, 5e-4, 20_000, 0.1)]
      [True, True, True, True, True]

    Reference: Du (2019), Lemma 6.3.
    """
    check_setting(setting, epsilon)
    factor, alpha = _alpha(setting, step_size, printed)
    if printed:  # here M is squared in print
        alpha = setting.gamma - step_size * factor**2
    reach = (epsilon * setting.target_norm) ** 2
    place = source("Lemma 6.3", "as printed" if printed else "corrected")
    share = 1 if printed else 3 * setting.delta
    with np.errstate(divide="ignore"):  # of a start at w*
        start = np.log(setting.initial_distance**2 / (reach * setting.delta))
    return (
        *stay_conditions(setting, step_size, steps, printed=printed),
        inequality(
            "log(r_0²/(ε²‖w*‖²δ)) ≤ ηαT",
            place,
            start,
            step_size * alpha * steps,
        ),
        inequality(
            f"ηB² ≤ {'' if printed else '3δ '}ε² α ‖w*‖²",
            place,
            step_size * setting.gradient_bound**2,
            share * reach * alpha,
        ),
    )


def _alpha(setting: StochasticSetting, step_size: ArrayLike, printed: bool) -> tuple[Any, Any]:
    """M and α."""
    kappa = setting.gamma if printed else curvature(setting.gamma, setting.cross).value
    factor = gradient_factor(setting.smoothness, setting.beta, setting.cross).value
    return factor, np.asarray(kappa - step_size * factor ** (1 if printed else 2), float)
