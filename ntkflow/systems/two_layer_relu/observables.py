"""What to observe along a run of the two-layer ReLU network on the loss ½ Σ_i (f(x_i) − y_i)².

Each observer is a function of a snapshot whose data are (x, y), for `descend` and `gradient_flow`.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow.kernels.spectrum import smallest_eigenvalue
from ntkflow.systems.two_layer_relu.network import (
    gram,
    limit_gram,
    one_step,
    patterns,
    predict,
    weight_gradient,
    weights,
)
from ntkflow.training.observe import Observer, Snapshot


def residuals(snapshot: Snapshot) -> jax.Array:
    """u − y, shape (n,)."""
    x, y = snapshot.data
    return predict(snapshot.params, x) - jnp.asarray(y)


def squared_error(snapshot: Snapshot) -> jax.Array:
    """‖u − y‖², twice the loss."""
    return jnp.sum(jnp.square(residuals(snapshot)))


def pattern_changes(snapshot: Snapshot) -> jax.Array:
    """The share of the mn activation patterns that differ from those at initialization.

    Reference: Du (2019), section 2.4, where the outer sum is printed up to m instead of n.
    """
    x, _ = snapshot.data
    changed = patterns(snapshot.params, x) != patterns(snapshot.initial_params, x)
    return jnp.mean(changed, dtype=weights(snapshot.params)[0].dtype)


def largest_weight_distance(snapshot: Snapshot) -> jax.Array:
    """max_r ‖w_r(k) − w_r(0)‖.

    Reference: Du (2019), section 2.4.
    """
    kernel, _ = weights(snapshot.params)
    initial, _ = weights(snapshot.initial_params)
    return jnp.max(jnp.linalg.norm(kernel - initial, axis=0))


def gram_smallest_eigenvalue(snapshot: Snapshot) -> jax.Array:
    """λ_min(H(k)); one eigenvalue decomposition of (n, n)."""
    return smallest_eigenvalue(gram(snapshot.params, snapshot.data[0]))


def gram_change(snapshot: Snapshot) -> jax.Array:
    """‖H(k) − H(0)‖, the spectral norm; one eigenvalue decomposition of (n, n)."""
    x, _ = snapshot.data
    return _spectral_norm(gram(snapshot.params, x) - gram(snapshot.initial_params, x))


def gram_error(snapshot: Snapshot) -> jax.Array:
    """‖H(k) − H^∞‖, the spectral norm; one eigenvalue decomposition of (n, n)."""
    return _spectral_norm(_limit_difference(snapshot))


def gram_entry_error(snapshot: Snapshot) -> jax.Array:
    """The largest |H_ij(k) − H^∞_ij|."""
    return jnp.max(jnp.abs(_limit_difference(snapshot)))


def largest_gradient_norm(snapshot: Snapshot) -> jax.Array:
    """max_r ‖∂L/∂w_r‖."""
    x, y = snapshot.data
    return jnp.max(jnp.linalg.norm(weight_gradient(snapshot.params, x, y), axis=0))


def observables() -> dict[str, Observer]:
    """All observers of this module, by name; what `certificate_gradient_flow` reads.

    Those on the Gram matrix decompose it at every record: choose fewer where n is large. Figure
    2.1 is `pattern_changes`, `largest_weight_distance` and `gram_smallest_eigenvalue`.

    Example:
      >>> sorted(observables())  # doctest: +NORMALIZE_WHITESPACE
      ['gram_change', 'gram_entry_error', 'gram_error', 'gram_smallest_eigenvalue',
       'largest_gradient_norm', 'largest_weight_distance', 'pattern_changes', 'squared_error']
    """
    chosen = (
        squared_error,
        pattern_changes,
        largest_weight_distance,
        gram_smallest_eigenvalue,
        gram_change,
        gram_error,
        gram_entry_error,
        largest_gradient_norm,
    )
    return {observer.__name__: observer for observer in chosen}


def step_observables(step_size: ArrayLike, radius: ArrayLike) -> dict[str, Observer]:
    """`observables()`, and the quantities of one step of gradient descent.

    They are what `certificate_gradient_descent` reads, which takes η and R from the record.

    Args:
      step_size: η of the run, for the loss ½ Σ (f − y)².
      radius: R, which tells S_i from S_i^⊥; `stable_radius(n, λ_0, δ, "descent").value`.

    Returns:
      Names → observers. Besides `observables()`: step_size, radius, unstable_neurons (|S_i^⊥|,
      shape (n,)), unstable_change (I_2, shape (n,)), unstable_gram_norm (‖H^⊥(k)‖),
      stable_pattern_changes (in the next step, of neurons in S_i), squared_change
      (‖u(k+1) − u(k)‖²) and next_squared_error (‖u(k+1) − y‖²).

    Example:
      >>> len(step_observables(step_size=0.1, radius=1e-3)) - len(observables())
      8
    """

    def step(snapshot):
        x, y = snapshot.data
        return one_step(snapshot.params, snapshot.initial_params, x, y, step_size, radius)

    def change(snapshot):
        taken = step(snapshot)
        return taken.stable + taken.unstable

    return observables() | {
        "step_size": lambda snapshot: jnp.asarray(step_size, float),
        "radius": lambda snapshot: jnp.asarray(radius, float),
        "unstable_neurons": lambda snapshot: step(snapshot).unstable_neurons,
        "unstable_change": lambda snapshot: step(snapshot).unstable,
        "unstable_gram_norm": lambda snapshot: jnp.linalg.norm(step(snapshot).unstable_gram, 2),
        "stable_pattern_changes": lambda snapshot: step(snapshot).changes,
        "squared_change": lambda snapshot: jnp.sum(jnp.square(change(snapshot))),
        "next_squared_error": lambda snapshot: jnp.sum(
            jnp.square(residuals(snapshot) + change(snapshot))
        ),
    }


def _limit_difference(snapshot: Snapshot) -> jax.Array:
    x, _ = snapshot.data
    return gram(snapshot.params, x) - limit_gram(x)


def _spectral_norm(symmetric: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(jnp.linalg.eigvalsh(symmetric)))
