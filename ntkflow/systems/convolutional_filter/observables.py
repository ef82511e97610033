"""What to observe along a run of one filter, for `descend` and the certificates of chapter 6."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow.systems.convolutional_filter.arguments import check, filter_of, one_number
from ntkflow.systems.convolutional_filter.population import angle
from ntkflow.systems.convolutional_filter.schedules import StepRule, angle_of, target_of
from ntkflow.training.observe import Loss, Observer, Snapshot


def observables(
    w_star: Any,
    *,
    loss: Loss | None = None,
    step_size: ArrayLike | Callable[[Any], ArrayLike] | None = None,
    rule: StepRule | None = None,
) -> dict[str, Observer]:
    """Build the observers of a run towards w*, by name.

    - distance: ‖w − w*‖; target_norm: ‖w*‖.
    - angle: θ = ∠(w, w*); largest_angle: φ_t = arcsin(‖w − w*‖/‖w*‖), NaN where the distance is
      larger than ‖w*‖: there is none.

    With `loss` also zero_loss, the loss of w = 0; gradient_norm, ‖∇ℓ‖; and descent,
    ⟨∇ℓ, w − w*⟩. With `loss` and a step size also step_size, η_t; and next_distance and
    next_loss, those after one step of gradient descent from here. A record costs two gradients
    then.

    Args:
      w_star: w*, shape (p,), or the variables that hold it; may be traced.
      loss: of the run, `loss(params, data)`; gradients are those of the full data.
      step_size: η, or an optax schedule.
      rule: φ ↦ η, for a run of `scale_by_adaptive_step`; in place of `step_size`.

    Raises:
      ValueError: both a step size and a rule, or one of them without a loss; a step that is not
        positive, w* = 0.

    Example:
      >>> sorted(observables(jnp.ones(3)))
      ['angle', 'distance', 'largest_angle', 'target_norm']

    Reference: Du (2019), Theorem 6.2 and Lemma 6.1.
    """
    w_star = target_of(w_star)
    if step_size is not None and rule is not None:
        raise ValueError("step_size and rule are both given; expected one of them.")
    stepping = step_size is not None or rule is not None
    if stepping and loss is None:
        raise ValueError("A step size is given without loss; expected that of the run as well.")
    if step_size is not None and not callable(step_size):
        one_number(step_size=step_size)
        check(step_size=step_size)

    def target(params: Any) -> jax.Array:
        # in the precision of the run, of which the certificates read what rounding is
        return w_star.astype(filter_of(params).dtype)

    def difference(params: Any) -> jax.Array:
        return filter_of(params) - target(params)

    observers: dict[str, Observer] = {
        "distance": lambda now: jnp.linalg.norm(difference(now.params)),
        "target_norm": lambda now: jnp.linalg.norm(target(now.params)),
        "angle": lambda now: angle(now.params, w_star),
        "largest_angle": lambda now: jnp.arcsin(
            jnp.linalg.norm(difference(now.params)) / jnp.linalg.norm(target(now.params))
        ),
    }
    if loss is None:
        return observers

    def gradient(now: Snapshot) -> Any:
        return jax.grad(loss)(now.params, now.data)

    observers |= {
        "zero_loss": lambda now: loss(jax.tree.map(jnp.zeros_like, now.params), now.data),
        "gradient_norm": lambda now: jnp.linalg.norm(filter_of(gradient(now))),
        "descent": lambda now: jnp.sum(filter_of(gradient(now)) * difference(now.params)),
    }
    if not stepping:
        return observers

    def step_of(now: Snapshot) -> jax.Array:
        if rule is not None:
            return jnp.asarray(rule(angle_of(now.params, w_star)))
        return jnp.asarray(step_size(now.step) if callable(step_size) else step_size, float)

    def after(now: Snapshot) -> Any:
        step = step_of(now)
        return jax.tree.map(lambda w, g: w - step.astype(w.dtype) * g, now.params, gradient(now))

    return observers | {
        "step_size": step_of,
        "next_distance": lambda now: jnp.linalg.norm(difference(after(now))),
        "next_loss": lambda now: loss(after(now), now.data),
    }
