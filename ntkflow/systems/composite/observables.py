"""What to observe along a run of h(w) = f(Φ(w)) to hold it against the general theorems."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.parameters import Predicate, partition
from ntkflow.systems.composite.arguments import check
from ntkflow.systems.composite.constants import (
    Apply,
    LossBuilder,
    build,
    loss_of_outputs,
    singular_values,
)
from ntkflow.training.observe import Observer, Snapshot


def observables(
    apply: Apply, loss: LossBuilder, *, trainable: Predicate | None = None
) -> dict[str, Observer]:
    """All that `certificate_gradient_flow` reads, of any network and any loss of its outputs.

    Each record decomposes an empirical NTK of n·o rows: choose `every` accordingly.

    Args:
      apply: the network Φ, `apply(params, x)`.
      loss: the builder of the run's loss, `loss(apply) -> (params, data) -> scalar`: that of the
        paper is `functools.partial(ntkflow.squared_loss, reduction="sum")`.
      trainable: the predicate of the run, if it has one.

    Returns:
      Names → observers: distance (‖w − w₀‖), gradient_norm (‖∇h(w)‖), output_gradient_norm
      (‖∇f(z)‖, by the outputs) and singular_values (σ_min and σ_max of ∇Φ*(w), shape (2,)).

    Example:
      >>> from ntkflow.training.losses import squared_loss
      >>> observe = observables(lambda w, x: x @ w, squared_loss)
      >>> moment = Snapshot(1, jnp.array([3.0]), jnp.array([0.0]), (jnp.eye(1) * 2, jnp.ones(1)))
      >>> {name: observer(moment).tolist() for name, observer in observe.items()}
      {'distance': 3.0, 'gradient_norm': 10.0, 'output_gradient_norm': 5.0,
       'singular_values': [2.0, 2.0]}
    """
    checks.network(apply)
    built = build(loss, apply)

    def distance(snapshot: Snapshot) -> jax.Array:
        now, _ = partition(snapshot.params, trainable)
        start, _ = partition(snapshot.initial_params, trainable)
        return optax.tree.norm(optax.tree.sub(now, start))

    def gradient_norm(snapshot: Snapshot) -> jax.Array:
        return optax.tree.norm(_gradient(built, snapshot, trainable)[1])

    def output_gradient_norm(snapshot: Snapshot) -> jax.Array:
        z = apply(snapshot.params, snapshot.data[0])
        return jnp.linalg.norm(jax.grad(loss_of_outputs(loss, snapshot.data))(z).reshape(-1))

    def both_singular_values(snapshot: Snapshot) -> jax.Array:
        return jnp.stack(
            singular_values(apply, snapshot.params, snapshot.data[0], trainable=trainable)
        )

    return {
        "distance": distance,
        "gradient_norm": gradient_norm,
        "output_gradient_norm": output_gradient_norm,
        "singular_values": both_singular_values,
    }


def step_observables(
    apply: Apply, loss: LossBuilder, step_size: ArrayLike, *, trainable: Predicate | None = None
) -> dict[str, Observer]:
    """`observables`, and one step of gradient descent: what `certificate_gradient_descent` reads.

    Args:
      apply, loss, trainable: as for `observables`.
      step_size: η of the run.

    Returns:
      Names → observers: those of `observables`, step_size, and next_loss (h after the next step,
      whatever the records' distance).

    Example:
      >>> from ntkflow.training.losses import squared_loss
      >>> observe = step_observables(lambda w, x: x @ w, squared_loss, 0.25)
      >>> moment = Snapshot(1, jnp.array([3.0]), jnp.array([0.0]), (jnp.eye(1) * 2, jnp.ones(1)))
      >>> float(observe["next_loss"](moment))
      0.0
    """
    check(step_size=step_size)
    built = build(loss, apply)

    def next_loss(snapshot: Snapshot) -> jax.Array:
        selected, gradient, merge = _gradient(built, snapshot, trainable)
        moved = jax.tree.map(
            lambda w, g: w - jnp.asarray(step_size, w.dtype) * g, selected, gradient
        )
        return built(merge(moved), snapshot.data)

    return observables(apply, loss, trainable=trainable) | {
        "step_size": lambda snapshot: jnp.asarray(step_size, float),
        "next_loss": next_loss,
    }


def _gradient(loss: Any, snapshot: Snapshot, trainable: Predicate | None) -> tuple[Any, Any, Any]:
    selected, merge = partition(snapshot.params, trainable)
    gradient = jax.grad(lambda part: loss(merge(part), snapshot.data))(selected)
    return selected, gradient, merge
