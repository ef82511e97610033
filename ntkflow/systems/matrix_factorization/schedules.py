"""Step sizes for the factorization, as optax schedules; t counts from 0."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from ntkflow.systems.matrix_factorization.arguments import (
    check,
    check_epsilon,
    check_excess,
    check_positive,
)


def theorem_schedule(epsilon: ArrayLike, rank: ArrayLike, norm: ArrayLike) -> optax.Schedule:
    """Build the schedule of Theorem 4.4, η_t = √(ε/r) / (100 (t+1) ‖M*‖_F^{3/2}).

    Its steps sum to √(ε/r) / (100 ‖M*‖_F^{3/2}) · ln t: with r = 1, ‖M*‖_F = 1 and ε = 0.1 a
    million steps are 0.046 units of the flow's time. It keeps Lemma 4.1's promises, and does not
    reach ε in any number of steps that can be taken; `power_schedule` does.

    Args:
      epsilon: ε, the accuracy of UVᵀ, 0 < ε < ‖M*‖_F.
      rank: r, the number of columns.
      norm: ‖M*‖_F.

    Returns:
      `schedule(t) -> η_t`, for `optax.sgd`.

    Raises:
      ValueError: ε is not in (0, ‖M*‖_F), the rank is no whole number greater than 0.

    Example:
      >>> schedule = theorem_schedule(epsilon=0.25, rank=1, norm=1.0)
      >>> [round(float(schedule(t)), 6) for t in (0, 1, 9)]
      [0.005, 0.0025, 0.0005]

    Reference: Du (2019), Theorem 4.4.
    """
    check(rank=rank)
    check_epsilon(epsilon, norm)
    first = (epsilon / rank) ** 0.5 / (100 * norm**1.5)
    return lambda count: jnp.asarray(first / _since_one(count))


def power_schedule(initial: ArrayLike, excess: ArrayLike) -> optax.Schedule:
    """Build the schedule of Theorem 4.4's footnote, η_t = η_0 (t+1)^{−(½+δ)}, δ in (0, ½].

    The footnote leaves the factor open in Θ(·): `largest_initial_step` gives what the proof of
    Lemma 4.1 needs. In practice far larger ones keep its promises too.

    Args:
      initial: η_0 > 0.
      excess: δ; ½ gives the decay of the theorem's own schedule.

    Returns:
      `schedule(t) -> η_t`, for `optax.sgd`.

    Raises:
      ValueError: η_0 is not positive, δ is not in (0, ½].

    Example:
      >>> schedule = power_schedule(initial=0.5, excess=0.1)
      >>> [round(float(schedule(t)), 4) for t in (0, 1, 99)]
      [0.5, 0.3299, 0.0315]

    Reference: Du (2019), footnote 6.
    """
    check_positive(initial=initial)
    check_excess(excess)
    return lambda count: jnp.asarray(initial * _since_one(count) ** (-0.5 - excess))


def constant_schedule(c_step: ArrayLike, sigma_1: ArrayLike) -> optax.Schedule:
    """Build the constant step size of Theorem 4.5, η = c_step / σ_1.

    Args:
      c_step: a "sufficiently small" constant; the proof's steps hold for c_step ≤ c_1/2.
      sigma_1: σ_1, the largest singular value of M*.

    Returns:
      `schedule(t) -> η`, for `optax.sgd`.

    Raises:
      ValueError: c_step or σ_1 is not positive.

    Example:
      >>> float(constant_schedule(c_step=0.1, sigma_1=2.0)(7))
      0.05

    Reference: Du (2019), Theorem 4.5.
    """
    check_positive(c_step=c_step, sigma_1=sigma_1)
    return lambda count: jnp.asarray(c_step / sigma_1)


def _since_one(count: ArrayLike) -> jax.Array:
    return jnp.asarray(count) + 1.0
