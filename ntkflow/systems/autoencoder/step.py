"""One step of gradient descent taken apart, as the proofs of Theorems 4.2 and 5.2 do."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow.systems.autoencoder.network import (
    Variables,
    decoder_gradient,
    encoder_gradient,
    encoder_inputs,
    preactivations,
    product,
    residual,
    trains_of,
    weights,
)


class Terms(NamedTuple):
    """What ‖Y − U(k+1)‖² − ‖Y − U(k)‖² consists of; with r = vec(Y − U(k)), each a scalar.

    Attributes:
      kernel: C_1 = −(2η/d) rᵀK r.
      perpendicular: C_2 = (2η/d) rᵀK^⊥ r.
      unstable: C_3 = −2 rᵀv_2.
      second_order: −2 rᵀv_3, the C_4 of section 5.2; 0 unless both layers train.
      squared_change: ‖U(k+1) − U(k)‖², the C_4 of section 4.2 and the C_5 of section 5.2.
    """

    kernel: jax.Array
    perpendicular: jax.Array
    unstable: jax.Array
    second_order: jax.Array
    squared_change: jax.Array


class OneStep(NamedTuple):
    """One step of gradient descent in function space, U(k+1) − U(k) = stable + unstable.

    Attributes:
      stable: v_1, from the neurons in S_i, whose pattern on x_i the step keeps, shape (n, d).
      unstable: v_2, from the neurons in S_i^⊥, shape (n, d).
      linear: (η/d) (K − K^⊥) vec(Y − U(k)), shape (n, d).
      second_order: v_3 = v_1 − linear, what both layers moving at once adds, shape (n, d).
      flips: |S_i^⊥|, shape (n,).
      terms: what the squared error changes by.
    """

    stable: jax.Array
    unstable: jax.Array
    linear: jax.Array
    second_order: jax.Array
    flips: jax.Array
    terms: Terms


def one_step(
    variables: Variables,
    x: ArrayLike,
    y: ArrayLike,
    step_size: ArrayLike,
    *,
    printed: bool = False,
) -> OneStep:
    """Take the step of gradient descent that would follow apart.

    vec(U(k+1) − U(k)) = v_1 + v_2 with v_1 = (η/d)(K − K^⊥) vec(Y − U(k)) + v_3, equations (4.11)
    and (5.19), and ‖Y − U(k+1)‖² = ‖Y − U(k)‖² + Σ `terms`. Both are exact for every step size.

    Section 5.2 prints η/d in front of C_3 and C_4, with which the squared error does not add up.

    Time O(n m d): the kernels are applied, not formed.

    Args:
      variables: of `Autoencoder`, any of its regimes; what is fixed does not move.
      x, y: data, shapes (n, d); y is x for an autoencoder.
      step_size: η, a number, for the loss ½ Σ ‖y − u‖².
      printed: C_3 and C_4 as section 5.2 prints them, which tells only where both layers train.

    Returns:
      `OneStep`.

    Raises:
      ValueError: x is not of shape (n, d) with the weights' d, y of another shape, or the step
        size an array.

    Example:
      >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8]])
      >>> encoder = jnp.array([[1.0, -0.1], [1.0, 0.1]])
      >>> decoder = jnp.array([[1.0, 1.0], [1.0, -1.0]])
      >>> variables = {"params": {"encoder": encoder, "decoder": decoder}}
      >>> step = jax.jit(one_step)(variables, x, x, step_size=1.0)
      >>> step.flips.tolist()
      [0, 1]

    Reference: Nguyen, Wong and Hegde (2019a), sections 4.2 and 5.2.
    """
    if jnp.ndim(step_size):
        raise ValueError(
            f"step_size has shape {jnp.shape(step_size)}; expected a number: for several step "
            "sizes use jax.vmap."
        )
    trains = trains_of(variables)
    encoder, decoder = weights(variables)
    seen, errors = encoder_inputs(variables, x), residual(variables, x, y)
    scale, eta = 1 / math.sqrt(decoder.size), jnp.asarray(step_size, decoder.dtype)
    encoder_move, decoder_move = jnp.zeros_like(encoder), jnp.zeros_like(decoder)
    if trains != "decoder":
        encoder_move = -eta * encoder_gradient(variables, x, y)
    if trains != "encoder":
        decoder_move = -eta * decoder_gradient(variables, x, y)

    before = preactivations(variables, x)
    move = product(seen, encoder_move)
    after, active = before + move, before > 0
    flipped = active != (after > 0)
    hidden, linear_move = jax.nn.relu(before), jnp.where(active, move, 0.0)

    def change(selected):
        """Σ over the selected neurons of a_r(k+1) φ(w_r(k+1)·x_i) − a_r(k) φ(w_r(k)·x_i)."""
        moved = jnp.where(selected, jax.nn.relu(after) - hidden, 0.0)
        kept = jnp.where(selected, hidden, 0.0)
        return scale * (product(moved, (decoder + decoder_move).T) + product(kept, decoder_move.T))

    def linear(selected):
        """(η/d) times the kernel of the selected neurons, applied to vec(Y − U)."""
        encoder_part = product(jnp.where(selected, linear_move, 0.0), decoder.T)
        decoder_part = product(jnp.where(selected, hidden, 0.0), decoder_move.T)
        return scale * (encoder_part + decoder_part)

    stable, unstable = change(~flipped), change(flipped)
    kept, lost = linear(~flipped), linear(flipped)
    second_order = scale * product(jnp.where(flipped, 0.0, linear_move), decoder_move.T)
    factor = eta / decoder.shape[0] if printed and trains == "both" else jnp.ones_like(eta)
    return OneStep(
        stable=stable,
        unstable=unstable,
        linear=kept,
        second_order=second_order,
        flips=jnp.sum(flipped, axis=1),
        terms=Terms(
            kernel=-2 * jnp.sum(errors * (kept + lost)),
            perpendicular=2 * jnp.sum(errors * lost),
            unstable=-2 * factor * jnp.sum(errors * unstable),
            second_order=-2 * factor * jnp.sum(errors * second_order),
            squared_change=jnp.sum(jnp.square(stable + unstable)),
        ),
    )
