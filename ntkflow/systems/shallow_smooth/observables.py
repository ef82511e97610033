"""What to observe along a run of the shallow network to hold it against Theorem 3."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow.systems.composite.observables import step_observables as _step_observables
from ntkflow.systems.shallow_smooth.arguments import Activation, check_activation
from ntkflow.systems.shallow_smooth.network import features, predict, weights
from ntkflow.training.losses import squared_loss
from ntkflow.training.observe import Observer, Snapshot


def output_norm(snapshot: Snapshot) -> jax.Array:
    """σ_max(V), which Assumption 2 bounds along the run."""
    return _singular_values(weights(snapshot.params)[1])[0]


def observables(activation: Activation) -> dict[str, Observer]:
    """The singular values that Theorem 3 speaks of, and nothing of n·o rows.

    Args:
      activation: φ of the network.

    Returns:
      Names → observers: output_norm (σ_max(V)) and feature_singular_values (σ_min and σ_max of
      φ(WX), shape (2,); σ_min is 0 where d_1 < n).

    Example:
      >>> sorted(observables(jnp.tanh))
      ['feature_singular_values', 'output_norm']
    """
    check_activation(activation)

    def feature_singular_values(snapshot: Snapshot) -> jax.Array:
        hidden = features(snapshot.params, snapshot.data[0], activation)
        singular = _singular_values(hidden)
        wide = hidden.shape[1] >= hidden.shape[0]
        return jnp.stack([singular[-1] if wide else jnp.zeros_like(singular[0]), singular[0]])

    return {"output_norm": output_norm, "feature_singular_values": feature_singular_values}


def step_observables(activation: Activation, step_size: ArrayLike) -> dict[str, Observer]:
    """All that `certificate_gradient_descent` reads, for the loss Σ_i ‖f(x_i) − y_i‖².

    Args:
      activation: φ of the network.
      step_size: η of the run.

    Returns:
      Names → observers: `observables(activation)` and those of `composite.step_observables`, which
      decompose the empirical NTK of n·d_2 rows at each record.

    Example:
      >>> len(step_observables(jnp.tanh, 0.1))
      8
    """
    apply = functools.partial(predict, activation=activation)
    loss = functools.partial(squared_loss, reduction="sum")
    return _step_observables(apply, loss, step_size) | observables(activation)


def _singular_values(matrix: jax.Array) -> jax.Array:
    # full_matrices=True reserves d_1² numbers, though no vectors are asked for.
    matrix = matrix.astype(jnp.promote_types(matrix.dtype, jnp.float32))  # none of half precision
    return jnp.linalg.svd(matrix, full_matrices=False, compute_uv=False)
