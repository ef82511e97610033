"""Training with the kernel of infinite width frozen: what a wide autoencoder does, in closed form.

X − U(t) = exp(−k t/d) (X − U(0)) for gradient flow, (I − η k/d)^s (X − U(0)) for descent.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.prediction.mse import Prediction, gradient_descent_mse, gradient_flow_mse
from ntkflow.systems.autoencoder.arguments import Trains
from ntkflow.systems.autoencoder.gram import limit_gram


def predict_descent(
    x: ArrayLike,
    outputs: ArrayLike,
    step_size: float,
    steps: ArrayLike,
    trains: Trains = "both",
    *,
    x_test: ArrayLike | None = None,
    outputs_test: ArrayLike = 0.0,
    constant_input: bool = False,
    printed: bool = False,
) -> Prediction:
    """Predict gradient descent from the outputs at initialization, with the kernel k ⊗ I_d.

    X − U(s) = (I − (η/d) k)^s (X − U(0)), stable for η < 2d/λ_max(k). A finite network departs from
    it by O(1/√m) with the right kernel (`limit_gram`); with the printed one the gap does not close
    (`tests/systems/autoencoder/test_autoencoder_frozen.py`).

    Args:
      x: data, samples as rows, shape (n, d).
      outputs: U(0), shape (n, d), as `module.apply(variables, x)`; 0 stands for a zero function.
      step_size: η, for the loss ½ Σ ‖x − u‖².
      steps: whole numbers of steps s, of any shape.
      trains, constant_input, printed: as for `limit_gram`.
      x_test: further inputs, shape (n_test, d), whose outputs are predicted as well.
      outputs_test: theirs at initialization, shape (n_test, d), or 0.

    Returns:
      `Prediction(train, test)`, shapes (..., n, d) and (..., n_test, d) with the shape of `steps`
      in front; test is None without `x_test`.

    Raises:
      ValueError: shapes that do not fit, NaN, `outputs_test` without `x_test`, an unknown
        `trains`, a step size that is not positive, steps that are no whole numbers.

    Example:
      >>> x = jnp.eye(2)  # k = I/2
      >>> predict_descent(x, 0 * x, 1.0, jnp.arange(3), "encoder").train[:, 0, 0].tolist()
      [0.0, 0.25, 0.4375]

    References:
      Nguyen, Wong and Hegde (2019a), equations (4.5) and (5.8) with K = K^∞; Lee et al. (2019).
    """
    train, initial = _problem(x, outputs, trains, x_test, outputs_test, constant_input, printed)
    return gradient_descent_mse(*train, learning_rate=step_size)(steps, *initial)


def predict_flow(
    x: ArrayLike,
    outputs: ArrayLike,
    times: ArrayLike,
    trains: Trains = "both",
    *,
    x_test: ArrayLike | None = None,
    outputs_test: ArrayLike = 0.0,
    constant_input: bool = False,
    printed: bool = False,
) -> Prediction:
    """Predict gradient flow from the outputs at initialization, with the kernel k ⊗ I_d.

    X − U(t) = exp(−k t/d) (X − U(0)). After infinite time, from a zero function, the output on x'
    is k(x', X) k⁻¹ X: kernel regression of the samples on themselves.

    Args:
      times: in the time of the ODE dθ/dt = −∂L/∂θ, of any shape; may hold infinity.
      x, outputs, trains, x_test, outputs_test, constant_input, printed: as for `predict_descent`.

    Returns, Raises: as for `predict_descent`.

    Example:
      >>> x = jnp.eye(2)
      >>> predict_flow(x, 0 * x, 4 * jnp.log(2.0), "encoder").train.round(4).tolist()
      [[0.5, 0.0], [0.0, 0.5]]

    References:
      Nguyen, Wong and Hegde (2019a), equations (4.5) and (5.8) with K = K^∞; Lee et al. (2019).
    """
    train, initial = _problem(x, outputs, trains, x_test, outputs_test, constant_input, printed)
    return gradient_flow_mse(*train)(times, *initial)


def _problem(x, outputs, trains, x_test, outputs_test, constant_input, printed):
    """The kernel k/d and the labels; the outputs at initialization and the test set's kernel."""
    x = checks.matrix("x", x)
    outputs = _outputs("outputs", outputs, x)
    if x_test is not None:
        x_test = checks.matrix("x_test", x_test)
        outputs_test = _outputs("outputs_test", outputs_test, x_test)
        if x_test.shape[1] != x.shape[1]:
            raise ValueError(
                f"x_test has {x_test.shape[1]} features and x {x.shape[1]}; expected the same."
            )
    elif jnp.ndim(outputs_test):
        raise ValueError("outputs_test is given without x_test; pass the inputs they belong to.")

    choices = {"constant_input": constant_input, "printed": printed}
    train = limit_gram(x, None, trains, **choices) / x.shape[1]
    test = None if x_test is None else limit_gram(x_test, x, trains, **choices) / x.shape[1]
    return (train, x), (outputs, outputs_test, test)


def _outputs(name, values, samples):
    values = jnp.asarray(values)
    if values.ndim and values.shape != samples.shape:
        raise ValueError(
            f"{name} has shape {values.shape}; expected that of its samples, {samples.shape}."
        )
    checks.finite(name, values)
    return values
