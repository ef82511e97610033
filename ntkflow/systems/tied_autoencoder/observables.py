"""What to observe along a run of the tied autoencoder on the loss ½ Σ_i ‖x_i − u_i‖².

Each observer is a function of a snapshot whose data are (x, x), for `descend` and `gradient_flow`.
Errors are means over samples of ‖x − u‖², which (6.4) predicts at step 0: 2/n times the loss.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.data.synthetic import sphere
from ntkflow.systems.tied_autoencoder.network import Variables, predict, weights
from ntkflow.training.observe import Observer, Snapshot


def reconstruction_error(variables: Variables, x: ArrayLike) -> jax.Array:
    """Compute the mean of ‖x_i − u_i‖² over the rows of x."""
    x = checks.matrix("x", x)
    return jnp.mean(jnp.sum(jnp.square(predict(variables, x) - x), axis=1))


def train_error(snapshot: Snapshot) -> jax.Array:
    """The mean of ‖x_i − u_i‖² over the training set."""
    return reconstruction_error(snapshot.params, snapshot.data[0])


def relative_movement(snapshot: Snapshot) -> jax.Array:
    """‖W(k) − W(0)‖_F / ‖W(0)‖_F."""
    initial = weights(snapshot.initial_params)
    return jnp.linalg.norm(weights(snapshot.params) - initial) / jnp.linalg.norm(initial)


def held_out_error(x: ArrayLike) -> Observer:
    """Build the observer of the mean of ‖x_i − u_i‖² over inputs that are not trained on.

    Args:
      x: held-out inputs, shape (samples, d).
    """
    x = checks.matrix("x", x)

    def observe(snapshot: Snapshot) -> jax.Array:
        return reconstruction_error(snapshot.params, x)

    return observe


def identity_distance(key: jax.Array, points: int = 256) -> Observer:
    """Build the observer of how far the learned map is from the identity: max ‖x − u(x)‖.

    The maximum is over `points` inputs drawn from the unit sphere, the same at every record.
    """
    checks.prng_key(key)
    points = checks.positive_int("points", points)

    def observe(snapshot: Snapshot) -> jax.Array:
        w = weights(snapshot.params)
        x = sphere(key, points, w.shape[0], w.dtype)
        return jnp.max(jnp.linalg.norm(predict(snapshot.params, x) - x, axis=1))

    return observe


def observables() -> dict[str, Observer]:
    """The observers that need no inputs of their own, by name.

    Example:
      >>> held_out = {"held_out_error": held_out_error(jnp.eye(3))}
      >>> sorted(observables() | held_out)
      ['held_out_error', 'relative_movement', 'train_error']
    """
    return {observer.__name__: observer for observer in (train_error, relative_movement)}
