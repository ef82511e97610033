"""ŷ = W σ(Wᵀy + b), without factors, with the loss ½ ‖y − ŷ‖², a mean over samples.

The network of Nguyen, Wong and Hegde (2019b), "On the Dynamics of Gradient Descent for
Autoencoders", and its gradients; samples are rows here.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.training.losses import squared_loss
from ntkflow.training.observe import Loss

Activation = Callable[[jax.Array], jax.Array]
Reduction = Literal["mean", "sum"]
Variables = Mapping[str, Any]


class SparseAutoencoder(nn.Module):
    """Two-layer autoencoder with shared weights and an encoder bias.

    ŷ = W x, x = σ(Wᵀy + b): column W_i is the atom of unit i. At initialization W_i ~ N(0, I/n), of
    norm about 1, and b = 0; both are trained.

    Attributes:
      width: m, the number of hidden units.
      activation: σ, elementwise: `jax.nn.relu`, or `threshold(level)`.
      param_dtype: of the parameters; float follows JAX.

    Raises:
      ValueError: the width is not positive, σ is no elementwise function, y is not of shape (N, n).

    Example:
      >>> module = SparseAutoencoder(width=4, activation=threshold(0.5))
      >>> key, x = jax.random.key(0), jnp.ones((5, 3))
      >>> outputs, parameters = jax.jit(module.init_with_output)(key, x)
      >>> jax.tree.map(jnp.shape, parameters)
      {'params': {'bias': (4,), 'weights': (3, 4)}}
      >>> outputs.shape
      (5, 3)

    Reference: Nguyen, Wong and Hegde (2019b), equation (2).
    """

    width: int
    activation: Activation = jax.nn.relu
    param_dtype: Any = float

    @nn.compact
    def __call__(self, y: ArrayLike) -> jax.Array:
        width = checks.positive_int("width", self.width)
        y = checks.matrix("y", y)
        n, dtype = y.shape[1], jax.dtypes.canonicalize_dtype(self.param_dtype)
        weights = self.param("weights", nn.initializers.normal(n**-0.5), (n, width), dtype)
        bias = self.param("bias", nn.initializers.zeros, (width,), dtype)
        return reconstruct(weights, bias, y, self.activation)


@dataclasses.dataclass(frozen=True)
class _Threshold:
    level: float

    def __call__(self, z: jax.Array) -> jax.Array:
        return jnp.where(jnp.abs(z) >= self.level, z, jnp.zeros_like(z))


def threshold(level: ArrayLike) -> Activation:
    """Build the hard threshold z 1{|z| ≥ level}, on both sides.

    Its derivative by autodiff is 1{|z| ≥ level}, without the jumps; equal levels are equal
    functions, which compile once.

    Args:
      level: λ ≥ 0, a number: a_1/2 for the generative models, ½ for mixtures of Gaussians.

    Raises:
      ValueError: the level is negative, not finite, or no number (traced, say).

    Example:
      >>> threshold(0.5)(jnp.array([-2.0, -0.4, 0.5])).tolist()
      [-2.0, 0.0, 0.5]
      >>> threshold(0.5) == threshold(0.5)
      True

    Reference: Nguyen, Wong and Hegde (2019b), section 2.1.
    """
    try:
        number = float(level)  # type: ignore[arg-type]
    except (TypeError, ValueError, jax.errors.ConcretizationTypeError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise ValueError(
            f"level is {level}; expected a number, 0 or greater, known before tracing."
        )
    return _Threshold(number)


def encode(
    weights: ArrayLike, bias: ArrayLike, y: ArrayLike, activation: Activation = jax.nn.relu
) -> jax.Array:
    """Compute the codes x = σ(Wᵀy + b) of samples y (N, n), shape (N, m)."""
    checks.elementwise("activation", activation)
    return activation(preactivations(weights, bias, y))


def reconstruct(
    weights: ArrayLike, bias: ArrayLike, y: ArrayLike, activation: Activation = jax.nn.relu
) -> jax.Array:
    """Compute ŷ = W σ(Wᵀy + b) of samples y (N, n), shape (N, n), as the module's `apply` does."""
    return product(encode(weights, bias, y, activation), jnp.asarray(weights).T)


def approximate_gradient(
    weights: ArrayLike,
    bias: ArrayLike,
    y: ArrayLike,
    activation: Activation = jax.nn.relu,
    reduction: Reduction = "mean",
) -> jax.Array:
    """Compute ∇̃_i L = −1{x_i ≠ 0} (W_i·y I + b_i I + y W_iᵀ)(y − W x), averaged over samples.

    It is the gradient that autodiff gives of ReLU and of `threshold(level)`, level > 0.

    Args:
      weights: W, shape (n, m).
      bias: b, shape (m,).
      y: samples, shape (N, n).
      activation: σ.
      reduction: "mean" over samples, for which the step size m of the paper is meant, or "sum".

    Returns:
      Shape (n, m).

    Raises:
      ValueError: shapes that do not fit, σ is no elementwise function, unknown reduction.

    Example:
      >>> weights, bias, y = jnp.eye(2), jnp.array([-0.5, 0.0]), jnp.array([[1.0, -1.0]])
      >>> approximate_gradient(weights, bias, y)[:, 0].tolist()
      [-0.75, 1.0]

    Reference: Nguyen, Wong and Hegde (2019b), equation (4) and the display after it.
    """
    weights, y, z, active, residual = _evaluate(weights, bias, y, activation)
    decoder = product(residual.T, jnp.where(active, z, 0))
    encoder = product(y.T, jnp.where(active, product(residual, weights), 0))
    return -(decoder + encoder) / divisor(reduction, y)


def bias_gradient(
    weights: ArrayLike,
    bias: ArrayLike,
    y: ArrayLike,
    activation: Activation = jax.nn.relu,
    reduction: Reduction = "mean",
) -> jax.Array:
    """Compute ∇̃_{b_i} L = −1{x_i ≠ 0} W_i·(y − W x), averaged over samples; shape (m,).

    Arguments and errors are those of `approximate_gradient`. Its expectation for unit columns and
    consistent codes of disjoint support is +p_i b_i; the paper's −p_i b_i has the sign wrong.

    Example:
      >>> weights, bias, y = jnp.eye(2), jnp.array([-0.5, 0.0]), jnp.array([[1.0, -1.0]])
      >>> float(bias_gradient(weights, bias, y)[0])
      -0.5

    Reference: Nguyen, Wong and Hegde (2019b), section 5.
    """
    weights, y, _, active, residual = _evaluate(weights, bias, y, activation)
    total = jnp.sum(jnp.where(active, product(residual, weights), 0), axis=0)
    return -total / divisor(reduction, y)


def mean_loss(activation: Activation = jax.nn.relu) -> Loss:
    """Build the loss ½ ‖y − ŷ‖², averaged over samples, `loss(variables, (y, y)) -> scalar`.

    The engine's "half_sum" over the number of samples: its gradient is `approximate_gradient`.

    Example:
      >>> parameters = variables(jnp.eye(2), jnp.zeros(2))
      >>> y = jnp.array([[1.0, -1.0], [0.0, 2.0]])
      >>> float(mean_loss()(parameters, (y, y)))
      0.25
    """
    checks.elementwise("activation", activation)
    total = squared_loss(lambda tree, y: reconstruct(*parameters(tree), y, activation))

    def loss(variables: Any, data: tuple[Any, Any]) -> jax.Array:
        return total(variables, data) / jnp.shape(data[1])[0]

    return loss


def normalize(weights: ArrayLike) -> jax.Array:
    """Divide each column by its norm; a zero column stays zero.

    Example:
      >>> normalize(jnp.array([[0.0, 0.0], [4.0, 0.0]])).tolist()
      [[0.0, 0.0], [1.0, 0.0]]

    Reference: Nguyen, Wong and Hegde (2019b), section 5.
    """
    weights = jnp.asarray(weights)
    squares = jnp.sum(jnp.square(weights), axis=0, keepdims=True)
    return weights / jnp.sqrt(jnp.where(squares > 0, squares, 1))


def variables(weights: ArrayLike, bias: ArrayLike) -> dict[str, dict[str, jax.Array]]:
    """The variables of a `SparseAutoencoder` with weights (n, m) and bias (m,), or a number."""
    weights, bias = jnp.asarray(weights), jnp.asarray(bias)
    if weights.ndim != 2 or bias.shape not in ((), weights.shape[1:]):
        raise ValueError(
            f"bias has shape {bias.shape} and weights {weights.shape}; expected (m,) beside "
            "(n, m), one number per column, or one number for all."
        )
    bias = jnp.broadcast_to(bias.astype(weights.dtype), weights.shape[1:])
    return {"params": {"weights": weights, "bias": bias}}


def parameters(variables: Variables) -> tuple[jax.Array, jax.Array]:
    """The weights (n, m) and the bias (m,) of the variables of a `SparseAutoencoder`."""
    try:
        params = variables["params"]
        return params["weights"], params["bias"]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            "Expected the variables of a SparseAutoencoder, as its init returns them: the "
            f"collection 'params' with 'weights' and 'bias'; missing: {error}."
        ) from error


def preactivations(weights: ArrayLike, bias: ArrayLike, y: ArrayLike) -> jax.Array:
    """Compute z = Wᵀy + b of samples y (N, n), shape (N, m)."""
    weights, bias, y = jnp.asarray(weights), jnp.asarray(bias), checks.matrix("y", y)
    if weights.ndim != 2 or bias.shape != weights.shape[1:]:
        raise ValueError(
            f"weights has shape {weights.shape} and bias {bias.shape}; expected (n, m) and (m,)."
        )
    if y.shape[1] != weights.shape[0]:
        raise ValueError(
            f"y has shape {y.shape} and weights {weights.shape}; expected (N, n) and (n, m): "
            "samples are rows, hidden units columns."
        )
    return product(y, weights) + bias[None, :]


def divisor(reduction: str, y: jax.Array) -> int:
    """What a sum over the samples y (N, n) is divided by: N for "mean", 1 for "sum"."""
    if reduction not in get_args(Reduction):
        raise ValueError(
            f"reduction is {reduction!r}; expected one of {list(get_args(Reduction))}."
        )
    return y.shape[0] if reduction == "mean" else 1


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """The matrix product, in full precision on accelerators too, which would round float32 factors.

    Supports are decided at 0 and at the level of a threshold.
    """
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _evaluate(weights, bias, y, activation) -> tuple[jax.Array, ...]:
    checks.elementwise("activation", activation)
    z = preactivations(weights, bias, y)
    weights, y, x = jnp.asarray(weights), checks.matrix("y", y), activation(z)
    return weights, y, z, x != 0, y - product(x, weights.T)
