"""Step sizes of chapter 6: constant, in two phases, and adapted to the angle φ_t of the moment."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.convolutional_filter.arguments import check, filter_of, floating
from ntkflow.systems.convolutional_filter.bounds import largest_step_size, step_ratio
from ntkflow.systems.convolutional_filter.curves import Curve, last_axis, over_angles

StepRule = Callable[[Any], Any]


def adaptive_step(
    gamma: Curve,
    smoothness: Curve,
    beta: ArrayLike,
    cross: ArrayLike = 0.0,
    *,
    phis: ArrayLike | None = None,
    constant: ArrayLike = 1.0,
) -> StepRule:
    """Build the rule φ ↦ η, the largest step that Theorems 6.2 and 6.3 allow at φ.

    Args:
      gamma, smoothness: γ and L, functions of φ; or tables at `phis`, as `estimate_moments`
        returns them. An estimate of γ from above makes steps that are too large by as much.
      beta, cross: β and L_cross; of arrays over angles the largest counts.
      phis: angles of the tables, increasing from 0, at least up to φ_0.
      constant: a factor on the step, of the thesis' Θ. The proof itself allows up to 3.

    Returns:
      `rule(phi) -> η`, of any shape, 0 where γ ≤ 6 L_cross; for `scale_by_adaptive_step`.

    Raises:
      ValueError: a table without its angles, or of another length; β or L_cross negative or not
        finite, a constant that is not positive.

    Example:
      >>> rule = adaptive_step(lambda phi: 0.5 - 0.3 * phi, lambda phi: 0.5 - 0 * phi, 0.125)
      >>> jax.jit(rule)(jnp.array([0.0, 1.0])).round(4).tolist()
      [0.25, 0.1]

    Reference: Du (2019), Theorems 6.2 and 6.3.
    """
    check(beta=beta, cross=cross, step_size=constant)
    beta, cross = (last_axis("max", value) for value in (beta, cross))
    for name, value in (("beta", beta), ("cross", cross)):
        checks.finite(name, value)
    over_angles(gamma, 0.0, phis), over_angles(smoothness, 0.0, phis)  # refuses what is no curve

    def rule(phi: ArrayLike) -> Any:
        phi = floating(phi)
        ratios = step_ratio(
            over_angles(gamma, phi, phis), over_angles(smoothness, phi, phis), beta, cross
        )
        return (constant * jnp.maximum(jnp.min(ratios, axis=-1), 0)).astype(phi.dtype)

    return rule


def scale_by_adaptive_step(rule: StepRule, w_star: Any) -> optax.GradientTransformation:
    """Build plain gradient descent with η_t = rule(φ_t), an optax optimizer for `descend`.

    φ_t = arcsin(‖w_t − w*‖ / ‖w*‖), π/2 beyond. Updates are −η_t times the gradients: it is an
    optimizer by itself, and may follow others in `optax.chain`. Knowing w*, it is a tool to study
    the theorems, not to find w*.

    Args:
      rule: φ ↦ η, as `adaptive_step` builds it.
      w_star: w*, shape (p,), or the variables that hold it; may be traced.

    Raises:
      ValueError: a rule that is no function, w* = 0; parameters that are not one filter.

    Example:
      >>> from ntkflow.systems.convolutional_filter.population import gaussian_loss
      >>> from ntkflow.training.descent import descend
      >>> w_star = jnp.array([1.0, 0.0])
      >>> optimizer = scale_by_adaptive_step(lambda phi: 1 - phi / 2, w_star)
      >>> run = jax.jit(descend(gaussian_loss, optimizer, 40))
      >>> w = run(jnp.array([0.8, 0.6]), w_star).params
      >>> bool(jnp.linalg.norm(w - w_star) < 1e-4)
      True

    Reference: Du (2019), section 6.2.1.
    """
    if not callable(rule):
        raise ValueError(
            f"rule is {rule!r}; expected a function φ ↦ η, e.g. of adaptive_step. For a constant "
            "step take optax.sgd(η)."
        )
    w_star = target_of(w_star)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if params is None:
            raise ValueError(
                "scale_by_adaptive_step needs the parameters, of which it takes the angle: "
                "update(gradients, state, params)."
            )
        step = jnp.asarray(rule(angle_of(params, w_star)))
        return jax.tree.map(lambda g: -step.astype(g.dtype) * g, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def target_of(w_star: Any) -> jax.Array:
    """w*, refused where it is 0."""
    w_star = filter_of(w_star, "w_star")
    if checks.is_concrete(w_star) and not np.any(np.asarray(w_star)):
        raise ValueError("w_star is 0; expected a filter, from which angles can be taken.")
    return w_star


def angle_of(params: Any, w_star: Any) -> jax.Array:
    """φ = arcsin(‖w − w*‖ / ‖w*‖) of the one filter in `params`; π/2 where w is further away.

    Where it has no derivative, at w* and at π/2, autodiff gives 0.

    Example:
      >>> round(float(angle_of(jnp.array([0.5, 0.0]), jnp.array([1.0, 0.0]))), 4)
      0.5236

    Reference: Du (2019), Theorem 6.2.
    """
    leaves = jax.tree.leaves(params)
    w_star = target_of(w_star)
    if len(leaves) != 1 or jnp.shape(leaves[0]) != w_star.shape:
        raise ValueError(
            f"params holds shapes {[jnp.shape(leaf) for leaf in leaves]}; expected one filter of "
            f"shape {w_star.shape}, that of w_star."
        )
    square = jnp.sum(jnp.square(floating(leaves[0]) - w_star))
    arrived = square == 0
    distance = jnp.where(arrived, 0, jnp.sqrt(jnp.where(arrived, 1, square)))
    ratio = distance / jnp.linalg.norm(w_star)
    # Not arcsin(min(ratio, 1)): its derivative is NaN from 1 on.
    far = ratio >= 1
    return jnp.where(far, np.pi / 2, jnp.arcsin(jnp.where(far, 0, ratio)))


def constant_step(
    phi_0: ArrayLike,
    gamma: Curve,
    smoothness: Curve,
    beta: ArrayLike,
    cross: ArrayLike = 0.0,
    *,
    phis: ArrayLike | None = None,
) -> Any:
    """Compute η = min_{φ≤φ_0} (γ − 6 L_cross)/(2 (L + 10 L_cross + 4β)²), allowed at every step.

    φ_t never grows under it, so that it remains allowed. For `optax.sgd`, and for the phases of
    `two_phase_schedule`.

    Args:
      phi_0: φ_0 of the start, below π/2.
      gamma, smoothness, beta, cross, phis: as for `adaptive_step`.

    Raises:
      ValueError: γ(φ_0) ≤ 6 L_cross, where no step is allowed; φ_0 of π/2 or more; a table that
        ends below φ_0; what `adaptive_step` refuses.

    Example:
      >>> float(constant_step(1.0, lambda phi: 0.5 - 0.3 * phi, lambda phi: 0.5 - 0 * phi, 0.125))
      0.1

    Reference: Du (2019), Theorems 6.2 and 6.3.
    """
    check(phi=phi_0)
    if checks.is_concrete(phi_0) and not np.all(np.asarray(phi_0) < np.pi / 2):
        raise ValueError(f"phi_0 is {phi_0}; expected less than π/2: ‖w_0 − w*‖ < ‖w*‖.")
    beta, cross = (last_axis("max", value) for value in (beta, cross))
    rates = over_angles(gamma, phi_0, phis), over_angles(smoothness, phi_0, phis)
    return largest_step_size(*rates, beta, cross).value


def two_phase_schedule(early: ArrayLike, late: ArrayLike, switch: ArrayLike) -> optax.Schedule:
    """Build the schedule of two phases: `early` before step `switch`, `late` from then on.

    The thesis prints no numbers. `constant_step` at φ_0 and at a smaller φ gives the two steps,
    and `iterations` with ε = sin φ a step from which on φ_t ≤ φ, and the late one is allowed.

    Args:
      early, late: steps > 0; they may be traced.
      switch: the first step of the second phase, ≥ 0.

    Returns:
      `schedule(t) -> η_t`, for `optax.sgd`; t counts from 0.

    Raises:
      ValueError: a step that is not positive, a negative switch.

    Example:
      >>> schedule = two_phase_schedule(0.1, 0.25, switch=50)
      >>> [round(float(schedule(t)), 4) for t in (0, 49, 50)]
      [0.1, 0.1, 0.25]

    Reference: Du (2019), section 6.2.1.
    """
    for step in (early, late):
        check(step_size=step)
    check(switch=switch)
    checks.finite("switch", switch)
    return lambda count: jnp.where(jnp.asarray(count) < switch, early, late)
