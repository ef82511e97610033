"""Losses of a network on data (x, y)."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import optax

from ntkflow import checks
from ntkflow.training.observe import Loss

Reduction = Literal["half_sum", "sum", "mean"]


def gradient_scale(reduction: Reduction, size: int) -> float:
    """c in ∂L/∂f = c (f − y) for the squared loss over `size` numbers: ½Σ, Σ or the mean.

    Every step size and every rate of the theory carries this factor.

    Example:
      >>> [gradient_scale(reduction, 10) for reduction in ("half_sum", "sum", "mean")]
      [1.0, 2.0, 0.2]
    """
    scales = {"half_sum": 1.0, "sum": 2.0, "mean": 2.0 / size}
    if reduction not in scales:
        raise ValueError(
            f"reduction is {reduction!r}; expected one of {list(get_args(Reduction))}."
        )
    return scales[reduction]


def squared_loss(apply: Callable[[Any, Any], jax.Array], reduction: Reduction = "half_sum") -> Loss:
    """Build the squared loss of a network.

    "half_sum": ½ Σ (f − y)², "sum": Σ (f − y)², "mean": the mean of (f − y)² over samples and
    outputs.

    Args:
      apply: the network, `apply(params, x)` of shape (n, o), or (n,) for a scalar network.
      reduction: one of the three.

    Returns:
      `loss(params, (x, y)) -> scalar`, in the promoted dtype of the outputs and the labels.

    Raises:
      ValueError: unknown reduction; and from the loss: no samples, labels whose shape is not
        that of the outputs.

    Example:
      >>> loss = squared_loss(lambda params, x: x @ params)
      >>> float(loss(jnp.array([2.0]), (jnp.array([[1.0], [3.0]]), jnp.array([1.0, 2.0]))))
      8.5
    """
    checks.network(apply)
    gradient_scale(reduction, 1)  # refuses an unknown one here, not in the first step

    def loss(params: Any, data: tuple[Any, Any]) -> jax.Array:
        x, y = _pair(data)
        f = apply(params, x)
        if f.shape != jnp.shape(y):
            raise ValueError(
                f"The network's outputs have shape {f.shape} and the labels y {jnp.shape(y)}; "
                "expected the same. For one output, write y[:, None] or return f[:, 0]."
            )
        total = jnp.sum(jnp.square(f - y))
        return total * jnp.asarray(gradient_scale(reduction, f.size) / 2, total.dtype)

    return loss


def cross_entropy_loss(apply: Callable[[Any, Any], jax.Array]) -> Loss:
    """Build the softmax cross-entropy of a network, its mean over samples.

    Args:
      apply: the network, `apply(params, x)` of shape (n, o): the logits.

    Returns:
      `loss(params, (x, y)) -> scalar`, with `y` class numbers of shape (n,), integers, or
      probabilities (one-hot, say) of shape (n, o).

    Raises:
      ValueError: from the loss: no samples, or labels of another shape.

    Example:
      >>> loss = cross_entropy_loss(lambda params, x: x * params)
      >>> float(loss(0.0, (jnp.ones((3, 2)), jnp.array([0, 1, 1])))).__round__(4)
      0.6931
    """

    checks.network(apply)

    def loss(params: Any, data: tuple[Any, Any]) -> jax.Array:
        x, y = _pair(data)
        logits = apply(params, x)
        y = jnp.asarray(y)
        if logits.ndim != 2:
            raise ValueError(f"The logits have shape {logits.shape}; expected (samples, classes).")
        if y.shape == logits.shape:
            values = optax.softmax_cross_entropy(logits, y)
        elif y.shape == logits.shape[:1] and jnp.issubdtype(y.dtype, jnp.integer):
            values = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        else:
            raise ValueError(
                f"y has shape {y.shape} and dtype {y.dtype}; expected integers of shape "
                f"{logits.shape[:1]} or probabilities of shape {logits.shape}."
            )
        return values.mean()

    return loss


def _pair(data: Any) -> tuple[Any, Any]:
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ValueError(f"data is of type {type(data).__name__}; expected a pair (x, y).")
    x, y = data
    checks.same_length(x=x, y=y)
    return x, y
