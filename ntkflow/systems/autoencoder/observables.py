"""What to observe along a run of the autoencoder on the loss ½ Σ_i ‖x_i − u_i‖².

Each observer is a function of a snapshot whose data are (x, x), for `descend` and `gradient_flow`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow.kernels.spectrum import smallest_eigenvalue
from ntkflow.systems.autoencoder.arguments import Trains
from ntkflow.systems.autoencoder.gram import (
    decoder_gram,
    gram,
    kronecker,
    limit_gram,
    perpendicular_gram,
)
from ntkflow.systems.autoencoder.network import (
    Variables,
    decoder_gradient as _decoder_gradient,
    encoder_gradient as _encoder_gradient,
    encoder_inputs,
    patterns,
    preactivations,
    product,
    residual,
    trains_of,
    weights,
)
from ntkflow.systems.autoencoder.step import OneStep, one_step
from ntkflow.training.observe import Observer, Snapshot


def squared_error(snapshot: Snapshot) -> jax.Array:
    """‖X − U‖², twice the loss."""
    return jnp.sum(jnp.square(residual(snapshot.params, *snapshot.data)))


def encoder_distance(snapshot: Snapshot) -> jax.Array:
    """‖W(k) − W(0)‖_F.

    Reference: Nguyen, Wong and Hegde (2019a), Lemmas 5.4 and 5.7.
    """
    return jnp.linalg.norm(_moved(snapshot)[0])


def decoder_distance(snapshot: Snapshot) -> jax.Array:
    """‖A(k) − A(0)‖_F.

    Reference: Nguyen, Wong and Hegde (2019a), Lemmas 5.5 and 5.7.
    """
    return jnp.linalg.norm(_moved(snapshot)[1])


def largest_encoder_distance(snapshot: Snapshot) -> jax.Array:
    """max_r ‖w_r(k) − w_r(0)‖.

    Reference: Nguyen, Wong and Hegde (2019a), Lemmas 4.3 and 4.5.
    """
    return jnp.max(jnp.linalg.norm(_moved(snapshot)[0], axis=0))


def largest_decoder_distance(snapshot: Snapshot) -> jax.Array:
    """max_r ‖a_r(k) − a_r(0)‖."""
    return jnp.max(jnp.linalg.norm(_moved(snapshot)[1], axis=0))


def encoder_norm(snapshot: Snapshot) -> jax.Array:
    """‖W(k)‖, the spectral norm: near √m + √d at initialization."""
    return _spectral_norm(weights(snapshot.params)[0])


def decoder_norm(snapshot: Snapshot) -> jax.Array:
    """‖A(k)‖, the spectral norm: near √m + √d at initialization."""
    return _spectral_norm(weights(snapshot.params)[1])


def hidden_norm(snapshot: Snapshot) -> jax.Array:
    """‖φ(XᵀW(k))‖, the spectral norm, which the paper bounds by √λ_n ‖W‖: that is not true."""
    return _spectral_norm(_hidden(snapshot.params, snapshot.data[0]))


def gram_smallest_eigenvalue(snapshot: Snapshot) -> jax.Array:
    """λ_min(K(k)); one eigenvalue decomposition of (nd, nd)."""
    return smallest_eigenvalue(kronecker(gram(snapshot.params, snapshot.data[0])))


def gram_change(snapshot: Snapshot) -> jax.Array:
    """‖K(k) − K(0)‖, the spectral norm; one eigenvalue decomposition of (nd, nd)."""
    x, _ = snapshot.data
    change = gram(snapshot.params, x) - gram(snapshot.initial_params, x)
    return _largest_magnitude(kronecker(change))


def gram_error(snapshot: Snapshot) -> jax.Array:
    """‖K(k) − K^∞‖, the spectral norm; one eigenvalue decomposition of (nd, nd)."""
    x, _ = snapshot.data
    theta = gram(snapshot.params, x)
    limit = _limit(snapshot, trains_of(snapshot.params))
    identity = jnp.eye(theta.shape[-1], dtype=theta.dtype)
    return _largest_magnitude(kronecker(theta - limit[:, :, None, None] * identity[None, None]))


def decoder_gram_smallest_eigenvalue(snapshot: Snapshot) -> jax.Array:
    """λ_min(H(k)), that of Ĥ(k); one eigenvalue decomposition of (n, n)."""
    return smallest_eigenvalue(decoder_gram(snapshot.params, snapshot.data[0]))


def decoder_gram_change(snapshot: Snapshot) -> jax.Array:
    """‖H(k) − H(0)‖, the spectral norm; one eigenvalue decomposition of (n, n)."""
    x, _ = snapshot.data
    return _largest_magnitude(
        decoder_gram(snapshot.params, x) - decoder_gram(snapshot.initial_params, x)
    )


def decoder_gram_error(snapshot: Snapshot) -> jax.Array:
    """‖H(k) − H^∞‖, the spectral norm; one eigenvalue decomposition of (n, n)."""
    total = decoder_gram(snapshot.params, snapshot.data[0])
    return _largest_magnitude(total - _limit(snapshot, "decoder"))


def pattern_changes(snapshot: Snapshot) -> jax.Array:
    """The share of the mn activation patterns that differ from those at initialization."""
    x, _ = snapshot.data
    changed = patterns(snapshot.params, x) != patterns(snapshot.initial_params, x)
    return jnp.mean(changed, dtype=weights(snapshot.params)[0].dtype)


def largest_encoder_gradient(snapshot: Snapshot) -> jax.Array:
    """max_r ‖∂L/∂w_r‖, whether the encoder trains or not."""
    return jnp.max(jnp.linalg.norm(_encoder_gradient(snapshot.params, *snapshot.data), axis=0))


def encoder_gradient_norm(snapshot: Snapshot) -> jax.Array:
    """‖∂L/∂W‖_F, whether the encoder trains or not."""
    return jnp.linalg.norm(_encoder_gradient(snapshot.params, *snapshot.data))


def decoder_gradient_norm(snapshot: Snapshot) -> jax.Array:
    """‖∂L/∂A‖_F, whether the decoder trains or not."""
    return jnp.linalg.norm(_decoder_gradient(snapshot.params, *snapshot.data))


def observables() -> dict[str, Observer]:
    """All observers of this module, by name; what `certificate_gradient_flow` reads.

    Those on K decompose matrices of nd rows at every record: choose fewer where nd is large.

    Example:
      >>> sorted(observables())  # doctest: +NORMALIZE_WHITESPACE
      ['decoder_distance', 'decoder_gradient_norm', 'decoder_gram_change', 'decoder_gram_error',
       'decoder_gram_smallest_eigenvalue', 'decoder_norm', 'encoder_distance',
       'encoder_gradient_norm', 'encoder_norm', 'gram_change', 'gram_error',
       'gram_smallest_eigenvalue', 'hidden_norm', 'largest_decoder_distance',
       'largest_encoder_distance', 'largest_encoder_gradient', 'pattern_changes', 'squared_error']
    """
    chosen = (
        squared_error,
        encoder_distance,
        decoder_distance,
        largest_encoder_distance,
        largest_decoder_distance,
        encoder_norm,
        decoder_norm,
        hidden_norm,
        gram_smallest_eigenvalue,
        gram_change,
        gram_error,
        decoder_gram_smallest_eigenvalue,
        decoder_gram_change,
        decoder_gram_error,
        pattern_changes,
        largest_encoder_gradient,
        encoder_gradient_norm,
        decoder_gradient_norm,
    )
    return {observer.__name__: observer for observer in chosen}


def step_observables(step_size: ArrayLike) -> dict[str, Observer]:
    """`observables()`, and the quantities of the step of gradient descent that would follow.

    They are what `certificate_gradient_descent` reads, which takes η from the record.

    Args:
      step_size: η of the run, for the loss ½ Σ ‖x_i − u_i‖².

    Returns:
      Names → observers. Besides `observables()`: step_size; flips (|S_i^⊥|, the patterns on x_i
      that the step changes, shape (n,)); unstable_change (‖v_2,i‖, shape (n,));
      second_order_change (‖v_3‖); perpendicular_gram_norm (‖K^⊥‖, one decomposition of (nd, nd));
      kernel_term, perpendicular_term, unstable_term, second_order_term and squared_change (the
      C of sections 4.2 and 5.2, see `Terms`); next_squared_error (‖X − U(k+1)‖²); and
      next_largest_encoder_distance, next_encoder_norm, next_hidden_norm.

    Example:
      >>> len(step_observables(step_size=0.1)) - len(observables())
      14

    Reference: Nguyen, Wong and Hegde (2019a), sections 4.2 and 5.2.
    """

    def step(snapshot: Snapshot) -> OneStep:
        return _one_step(snapshot.params, *snapshot.data, step_size)

    def after(snapshot: Snapshot) -> Snapshot:
        return snapshot._replace(params=_next(snapshot.params, snapshot.data, step_size))

    def perpendicular_gram_norm(snapshot: Snapshot) -> jax.Array:
        x, _ = snapshot.data
        own = perpendicular_gram(snapshot.params, after(snapshot).params, x)
        return _spectral_norm(kronecker(own))

    return observables() | {
        "step_size": lambda snapshot: jnp.asarray(step_size, float),
        "flips": lambda snapshot: step(snapshot).flips,
        "unstable_change": lambda snapshot: jnp.linalg.norm(step(snapshot).unstable, axis=1),
        "second_order_change": lambda snapshot: jnp.linalg.norm(step(snapshot).second_order),
        "perpendicular_gram_norm": perpendicular_gram_norm,
        "kernel_term": lambda snapshot: step(snapshot).terms.kernel,
        "perpendicular_term": lambda snapshot: step(snapshot).terms.perpendicular,
        "unstable_term": lambda snapshot: step(snapshot).terms.unstable,
        "second_order_term": lambda snapshot: step(snapshot).terms.second_order,
        "squared_change": lambda snapshot: step(snapshot).terms.squared_change,
        "next_squared_error": lambda snapshot: squared_error(after(snapshot)),
        "next_largest_encoder_distance": lambda snapshot: largest_encoder_distance(after(snapshot)),
        "next_encoder_norm": lambda snapshot: encoder_norm(after(snapshot)),
        "next_hidden_norm": lambda snapshot: hidden_norm(after(snapshot)),
    }


def _moved(snapshot: Snapshot) -> tuple[jax.Array, jax.Array]:
    encoder, decoder = weights(snapshot.params)
    initial_encoder, initial_decoder = weights(snapshot.initial_params)
    return encoder - initial_encoder, decoder - initial_decoder


def _hidden(variables: Variables, x: jax.Array) -> jax.Array:
    return jax.nn.relu(preactivations(variables, x))


def _limit(snapshot: Snapshot, trains: Trains) -> jax.Array:
    return limit_gram(encoder_inputs(snapshot.params, snapshot.data[0]), trains=trains)


# Jitted, so that the observers that share a step trace it once.
_one_step = jax.jit(one_step)


@jax.jit
def _next(variables: Variables, data: tuple[Any, Any], step_size: ArrayLike) -> Variables:
    """The variables after a step of gradient descent."""
    gradients = {"encoder": _encoder_gradient, "decoder": _decoder_gradient}
    params = {
        name: leaf - step_size * gradients[name](variables, *data)
        for name, leaf in variables["params"].items()
    }
    return {**variables, "params": params}


def _spectral_norm(matrix: jax.Array) -> jax.Array:
    # By the smaller product: a decomposition of W, (d, m), would take memory m². For the largest
    # singular value squaring loses no digits.
    rows, columns = matrix.shape
    square = product(matrix, matrix.T) if rows <= columns else product(matrix.T, matrix)
    return jnp.sqrt(_largest_magnitude(square))


def _largest_magnitude(symmetric: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(jnp.linalg.eigvalsh(symmetric)))
