"""The baselines of Du (2019), chapter 1, with the loss (1/2n) Σ_i (f(x_i) − y_i)², halved mean.

Gradient descent (1.1) is `descend(loss, optax.sgd(step_size), steps)`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.spectrum import extreme_eigenvalues
from ntkflow.theory import Bound, Certificate, inequality
from ntkflow.training.losses import squared_loss


def half_mean_loss(apply: Callable[[Any, Any], jax.Array]) -> Callable[[Any, Any], jax.Array]:
    """Build the loss of chapter 1, L(θ) = (1/2n) Σ_i (f(θ, x_i) − y_i)².

    With `linear_model` it is (1.2), with `FullyConnected(...).apply` it is (1.3). Chapters 2 and 3
    have ½ Σ instead: their step sizes are n times smaller.

    Args:
      apply: a scalar network, `apply(params, x)` of shape (n,).

    Returns:
      `loss(params, (x, y)) -> scalar`.

    Raises:
      ValueError: as for `squared_loss`.

    Example:
      >>> loss = half_mean_loss(linear_model)
      >>> float(loss(jnp.array([2.0]), (jnp.array([[1.0], [3.0]]), jnp.array([1.0, 2.0]))))
      4.25

    Reference: Du (2019), equations (1.2) and (1.3).
    """
    mean = squared_loss(apply, reduction="mean")
    return lambda params, data: mean(params, data) / 2


def linear_model(theta: jax.Array, x: ArrayLike) -> jax.Array:
    """x·θ, shape (n,), for `theta` of shape (d,)."""
    return checks.matrix("x", x) @ theta


class FullyConnected(nn.Module):
    """Deep fully connected network of (1.3), f(x) = W_H σ(W_{H−1} ⋯ σ(W_1 x)), without scaling.

    No bias, and no factor of the width in the forward pass. The text leaves the initialization
    open: `kernel_init` has variance 2 / fan_in by default, which keeps the scale through ReLU.

    Attributes:
      widths: d_1, …, d_{H−1}; d_H = 1 is added.
      activation: σ.
      kernel_init: initializer of every W_h, whose kernel has shape (d_{h−1}, d_h).

    Raises:
      ValueError: a width is not positive, x is not of shape (n, d).

    Example:
      >>> network = FullyConnected(widths=(16, 8))
      >>> variables = network.init(jax.random.key(0), jnp.ones((5, 3)))
      >>> [layer["kernel"].shape for layer in variables["params"].values()]
      [(3, 16), (16, 8), (8, 1)]
      >>> network.apply(variables, jnp.ones((5, 3))).shape
      (5,)

    Reference: Du (2019), equation (1.3).
    """

    widths: Sequence[int]
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    kernel_init: Callable[..., jax.Array] = nn.initializers.he_normal()

    @nn.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        x = checks.matrix("x", x)
        for position, width in enumerate(self.widths):
            width = checks.positive_int(f"widths[{position}]", width)
            x = self.activation(self._layer(width)(x))
        return self._layer(1)(x)[:, 0]

    def _layer(self, features: int) -> nn.Dense:
        dtype = jax.dtypes.canonicalize_dtype(float)
        return nn.Dense(features, use_bias=False, kernel_init=self.kernel_init, param_dtype=dtype)


def linear_regression_smoothness(x: ArrayLike) -> Bound:
    """β = λ_max(XᵀX) / n, the smoothness of (1.2): descent is stable for η < 2/β.

    Example:
      >>> float(linear_regression_smoothness(jnp.array([[2.0, 0.0], [0.0, 1.0]])).value)
      2.0
    """
    x = checks.matrix("x", x)
    gram = x @ x.T if x.shape[0] < x.shape[1] else x.T @ x
    source = "derived: the Hessian of Du (2019), equation (1.2)"
    return Bound(extreme_eigenvalues(gram).largest / len(x), "β = λ_max(XᵀX) / n", 1.0, source)


def linear_regression_solution(x: ArrayLike, y: ArrayLike, theta_0: ArrayLike) -> jax.Array:
    """The least-squares solution nearest to θ_0, θ* = θ_0 + X⁺(y − Xθ_0): the limit of descent.

    Example:
      >>> linear_regression_solution(jnp.array([[1.0, 0.0]]), jnp.ones(1), jnp.ones(2) * 3).tolist()
      [1.0, 3.0]
    """
    x = checks.matrix("x", x)
    theta_0, y = jnp.asarray(theta_0, x.dtype), jnp.asarray(y, x.dtype)
    checks.same_length(x=x, y=y)
    return theta_0 + jnp.linalg.lstsq(x, y - x @ theta_0)[0]


def suboptimality(distance: ArrayLike, step_size: ArrayLike, steps: ArrayLike) -> Bound:
    """The bound on L(θ(k)) − L*, ‖θ_0 − θ*‖² / (2ηk), for convex L and η ≤ 1/β.

    The text claims O(1/ε) iterations "under certain regularity conditions": this is the standard
    statement with its constant, k ≥ ‖θ_0 − θ*‖² / (2ηε). It is +∞ at k = 0.

    Args:
      distance: ‖θ_0 − θ*‖, with any minimizer θ*.
      step_size: η.
      steps: k.

    Example:
      >>> suboptimality(2.0, 0.5, np.array([1, 10])).value.tolist()
      [4.0, 0.4]
    """
    steps = np.asarray(steps, float)
    for name, value in (("step_size", step_size), ("steps", steps)):
        if not np.all(np.asarray(value) >= 0):
            raise ValueError(f"{name} is {value}; expected 0 or greater.")
    with np.errstate(divide="ignore"):
        value = np.square(np.asarray(distance, float)) / (2 * np.asarray(step_size, float) * steps)
    source = "derived for Du (2019), section 1, O(1/ε) on equation (1.2)"
    return Bound(value, "‖θ_0 − θ*‖² / (2ηk)", 1.0, source)


def certificate_linear_regression(
    losses: ArrayLike,
    steps: ArrayLike,
    data: tuple[ArrayLike, ArrayLike],
    theta_0: ArrayLike,
    step_size: float,
) -> Certificate:
    """Hold plain descent on (1.2) against its O(1/ε).

    Args:
      losses: history["loss"] of `half_mean_loss(linear_model)`, shape (records,).
      steps: of the records, shape (records,).
      data: (x, y) of the run.
      theta_0: parameters at step 0, shape (d,).
      step_size: η.

    Example:
      >>> import optax
      >>> from ntkflow.training.descent import descend
      >>> data = jnp.array([[1.0, 0.5], [0.0, 1.0]]), jnp.array([1.0, -1.0])
      >>> run = descend(half_mean_loss(linear_model), optax.sgd(0.5), steps=20)
      >>> trajectory = run(jnp.zeros(2), data)
      >>> certificate = certificate_linear_regression(
      ...     trajectory.history["loss"], trajectory.steps, data, jnp.zeros(2), 0.5
      ... )
      >>> bool(certificate.applies), bool(certificate.holds)
      (True, True)
    """
    x, y = data
    solution = linear_regression_solution(x, y, theta_0)
    least = float(half_mean_loss(linear_model)(solution, data))
    excess = np.asarray(losses) - least
    smoothness = linear_regression_smoothness(x)
    distance = float(jnp.linalg.norm(jnp.asarray(theta_0) - solution))
    rate = suboptimality(distance, step_size, steps)
    return Certificate(
        theorem="Du (2019), section 1: gradient descent on linear regression, O(1/ε)",
        hypotheses=(
            inequality("η ≤ 1/β", smoothness.source, step_size, 1 / np.asarray(smoothness.value)),
        ),
        claims=(inequality("L(k) − L* ≤ ‖θ_0 − θ*‖² / (2ηk)", rate.source, excess, rate.value),),
    )
