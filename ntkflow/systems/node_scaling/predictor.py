"""What infinitely wide networks with equal scales learn: regression with the mean kernel."""

import math
from collections.abc import Callable
from typing import Any

from jax.typing import ArrayLike

from ntkflow.prediction.mse import Prediction, gradient_flow_mse
from ntkflow.systems.node_scaling.limits import mean_gram
from ntkflow.systems.node_scaling.network import Activation, Output
from ntkflow.training.losses import Reduction


def limit_predictor(
    x: ArrayLike,
    y: ArrayLike,
    *,
    activation: Activation,
    variance: ArrayLike = 1.0,
    output: Output = "fixed",
    reduction: Reduction = "half_sum",
) -> Callable[..., Prediction]:
    """Build the predictions of gradient flow at γ = 1 and infinite width: kernel regression.

    f_t(X) = y + e^{−Θ* t} (f_0(X) − y), and f_∞(x) = f_0(x) + Θ*(x, X) Θ*(X)⁻¹ (y − f_0(X)). With
    γ < 1 the kernel is random at initialization and moves: no closed form is known.

    Args:
      x, y: training data, shapes (n, d), and (n,) or (n, K).
      activation, variance, output: as for `mean_gram`.
      reduction: of the squared loss, as in `ntkflow.squared_loss`.

    Returns:
      `predict(x_test, f_train=0, f_test=0, times=inf) -> Prediction`, with the outputs at
      initialization, 0 in the mean.

    Raises:
      ValueError: shapes that do not fit, NaN, no samples.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> x, y = jnp.eye(2), jnp.array([1.0, -1.0])
      >>> predict = limit_predictor(x, y, activation=jax.nn.relu)
      >>> predict(jnp.array([[1.0, 0.0], [0.6, 0.8]])).test.round(4).tolist()
      [1.0, -0.2132]

    Reference: Caron et al. (2023), sections 1 and 3; Jacot, Gabriel and Hongler (2018), section 5.
    """
    arguments: dict[str, Any] = {
        "activation": activation,
        "variance": variance,
        "output": output,
    }
    solve = gradient_flow_mse(mean_gram(x, **arguments), y, reduction=reduction)

    def predict(
        x_test: ArrayLike,
        f_train: ArrayLike = 0.0,
        f_test: ArrayLike = 0.0,
        times: ArrayLike = math.inf,
    ) -> Prediction:
        return solve(times, f_train, f_test, mean_gram(x_test, x, **arguments))

    return predict
