"""Training on the squared loss in function space: a kernel matrix, and the closed form it implies.

With a fixed kernel Θ the residual r = f − y on the training set obeys a linear equation, solved in
the eigenbasis of Θ = Q Λ Qᵀ; every other prediction follows it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.spectrum import rounding_of_eigenvalues
from ntkflow.prediction.shapes import as_matrix, cross_kernel, training_pair
from ntkflow.training.losses import Reduction, gradient_scale


class Prediction(NamedTuple):
    """Predictions along a run, with the shape of `times` in front.

    Attributes:
      train: outputs on the training set, shape (..., n) or (..., n, o).
      test: outputs on the test set, or None where no test kernel was given.
    """

    train: jax.Array
    test: jax.Array | None


Predict = Callable[..., Prediction]


def gradient_flow_mse(
    k_train_train: ArrayLike, y_train: ArrayLike, *, reduction: Reduction = "half_sum"
) -> Predict:
    """Build the closed form of gradient flow on the squared loss with a fixed kernel.

    f(t) = y + e^{−cΘt} (f₀ − y) on the training set, and on a test set
    f*(t) = f*₀ + Θ* Θ⁻¹ (1 − e^{−cΘt}) (y − f₀); c is 1 for ½Σ, 2 for Σ, 2/(n·o) for the mean.

    Directions in which Θ is singular, to 4 ε λ_max, are not learnt: the form is finite for every
    Θ. It cannot be differentiated in Θ where two eigenvalues are equal.

    Args:
      k_train_train: Θ, shape (n, n), one kernel for every output, or (n, n, o, o).
      y_train: labels, shape (n,) or (n, o).
      reduction: of the squared loss, as in `squared_loss`.

    Returns:
      `predict(times, f_train=0, f_test=0, k_test_train=None) -> Prediction`; `f_train` and
      `f_test` are the outputs at time 0. `times` in the time of the ODE, of any shape.

    Raises:
      ValueError: shapes that do not fit, NaN, no samples.

    Example:
      >>> predict = gradient_flow_mse(jnp.eye(2), jnp.array([1.0, 2.0]))
      >>> predict(jnp.log(2.0)).train.round(6).tolist()  # half of the way
      [0.5, 1.0]

    References:
      Lee et al. (2019), "Wide neural networks of any depth evolve as linear models", eq. 8–11.
    """
    problem = _Problem.of(k_train_train, y_train)
    rate = gradient_scale(reduction, problem.y.size)

    def learnt(eigenvalues: jax.Array, times: jax.Array) -> jax.Array:
        """(1 − e^{−cλt}) / λ, which is ct at λ = 0."""
        exponent = rate * jnp.where(eigenvalues == 0, 0.0, eigenvalues * times)
        safe = jnp.where(eigenvalues == 0, 1.0, eigenvalues)
        # What Θ does not see never moves, also after infinite time: 0 stands for its ∞ · 0.
        linear = jnp.where(jnp.isinf(times), 0.0, rate * times)
        return jnp.where(eigenvalues == 0, linear, -jnp.expm1(-exponent) / safe)

    return problem.predictor(learnt)


def gradient_descent_mse(
    k_train_train: ArrayLike,
    y_train: ArrayLike,
    *,
    learning_rate: float = 1.0,
    momentum: float | None = None,
    reduction: Reduction = "half_sum",
) -> Predict:
    """Build the closed form of gradient descent on the squared loss with a fixed kernel.

    f(k) = y + (1 − ηcΘ)ᵏ (f₀ − y) on the training set; with momentum β the residual along an
    eigenvector obeys r(k+1) = (1 + β − ηcλ) r(k) − β r(k−1), r(1) = (1 − ηcλ) r(0), which is
    `optax.sgd(η, momentum=β)`. The test set as in `gradient_flow_mse`. A step that is too large,
    ηcλ > 2 (1 + β), makes it grow, as it makes the network.

    Args:
      k_train_train: Θ, shape (n, n) or (n, n, o, o).
      y_train: labels, shape (n,) or (n, o).
      learning_rate: η > 0.
      momentum: β in [0, 1), or None.
      reduction: of the squared loss, as in `squared_loss`.

    Returns:
      `predict(steps, f_train=0, f_test=0, k_test_train=None) -> Prediction`, for whole numbers of
      steps, of any shape.

    Raises:
      ValueError: shapes that do not fit, NaN, no samples, a rate or a momentum out of range.

    Example:
      >>> predict = gradient_descent_mse(jnp.eye(2), jnp.array([1.0, 2.0]), learning_rate=0.5)
      >>> predict(jnp.arange(3)).train.tolist()
      [[0.0, 0.0], [0.5, 1.0], [0.75, 1.5]]

    References:
      Lee et al. (2019), "Wide neural networks of any depth evolve as linear models", section 2.
    """
    if checks.is_concrete(learning_rate) and not learning_rate > 0:
        raise ValueError(f"learning_rate is {learning_rate}; expected a number greater than 0.")
    beta = 0.0 if momentum is None else momentum
    if checks.is_concrete(beta) and not 0 <= beta < 1:
        raise ValueError(f"momentum is {momentum}; expected a number in [0, 1).")
    problem = _Problem.of(k_train_train, y_train)
    rate = learning_rate * gradient_scale(reduction, problem.y.size)

    def learnt(eigenvalues: jax.Array, steps: jax.Array) -> jax.Array:
        """(1 − p_k(λ)) / λ, where r(k) = p_k(λ) r(0); rate · k at λ = 0 without momentum.

        s_k = (1 − p_k)/λ obeys s_{k+1} = (1 + β − rate·λ) s_k − β s_{k−1} + rate: computed so,
        nothing cancels at small λ.
        """
        shape = jnp.broadcast_shapes(eigenvalues.shape, steps.shape)
        zero, one = jnp.zeros(shape, eigenvalues.dtype), jnp.ones(shape, eigenvalues.dtype)
        lead = jnp.broadcast_to(1 + beta - rate * eigenvalues, shape)
        # One step as an affine map of (s_k, s_{k−1}, 1), and its power by repeated squaring.
        step = jnp.stack(
            [
                jnp.stack([lead, -beta * one, rate * one], -1),
                jnp.stack([one, zero, zero], -1),
                jnp.stack([zero, zero, one], -1),
            ],
            -2,
        )
        return _power(step, jnp.broadcast_to(steps, shape))[..., 0, 2]

    predict = problem.predictor(learnt)

    def predict_steps(steps: ArrayLike, *initial, **named) -> Prediction:
        _not_negative("steps", steps)
        if not jnp.issubdtype(jnp.asarray(steps).dtype, jnp.integer):
            raise ValueError(
                f"steps has dtype {jnp.asarray(steps).dtype}; expected whole numbers of steps. "
                "For real times use gradient_flow_mse."
            )
        return predict(steps, *initial, **named)

    return predict_steps


class _Problem(NamedTuple):
    """Θ = Q Λ Qᵀ and the labels, flattened where Θ couples outputs."""

    eigenvalues: jax.Array
    eigenvectors: jax.Array
    kernel_shape: tuple[int, ...]
    y: jax.Array

    @classmethod
    def of(cls, k_train_train: ArrayLike, y_train: ArrayLike) -> "_Problem":
        kernel, y = training_pair(k_train_train, y_train)
        eigenvalues, eigenvectors = jnp.linalg.eigh(as_matrix(kernel))
        # A kernel is positive semidefinite. What lies below its resolution is rounding: negative
        # it would grow, and positive it would be learnt after 1/ε units of time.
        resolution = rounding_of_eigenvalues(jnp.abs(eigenvalues[-1]), kernel.dtype)
        eigenvalues = jnp.where(eigenvalues < resolution, 0.0, eigenvalues)
        return cls(eigenvalues, eigenvectors, kernel.shape, y)

    def predictor(self, learnt: Callable[[jax.Array, jax.Array], jax.Array]) -> Predict:
        def predict(
            times: ArrayLike,
            f_train: ArrayLike = 0.0,
            f_test: ArrayLike = 0.0,
            k_test_train: ArrayLike | None = None,
        ) -> Prediction:
            _not_negative("times", times)
            times = jnp.asarray(times)
            if jnp.issubdtype(times.dtype, jnp.floating):  # they do not decide the precision
                times = times.astype(self.y.dtype)
            f_train = jnp.broadcast_to(jnp.asarray(f_train, self.y.dtype), self.y.shape)
            coupled = len(self.kernel_shape) == 4
            residual = (self.y - f_train).reshape(len(self.eigenvalues), -1)
            coefficients = self.eigenvectors.T @ residual
            gain = learnt(self.eigenvalues[None], times.reshape(-1, 1))  # (times, n)
            weights = gain[:, :, None] * coefficients[None]
            # Θ Q = Q Λ: the training set needs no product with the kernel.
            moved = jnp.einsum("ij,tjo->tio", self.eigenvectors * self.eigenvalues[None], weights)
            train = f_train[None] + moved.reshape(-1, *self.y.shape)
            train = train.reshape(*times.shape, *self.y.shape)
            if k_test_train is None:
                return Prediction(train, None)
            k_test = cross_kernel(k_test_train, self.kernel_shape)
            shape = (k_test.shape[0], *self.y.shape[1:])
            dual = jnp.einsum("ij,tjo->tio", self.eigenvectors, weights)
            if coupled:
                k_test = as_matrix(k_test)
            test = jnp.einsum("ij,tjo->tio", k_test, dual).reshape(*times.shape, *shape)
            f_test = jnp.broadcast_to(jnp.asarray(f_test, self.y.dtype), shape)
            return Prediction(train, test + f_test.reshape((1,) * times.ndim + shape))

        return predict


def _not_negative(name: str, times: ArrayLike) -> None:
    if not checks.is_concrete(times):
        return
    values = np.asarray(times)  # a constant of a trace, too, is read on the host
    if np.min(values, initial=0) < 0:
        raise ValueError(f"{name} holds {np.min(values)}; expected times from 0 on.")


@jax.jit  # called eagerly, a loop compiles anew each time
def _power(matrix: jax.Array, exponent: jax.Array) -> jax.Array:
    """matrix^exponent for exponents ≥ 0, elementwise over the leading axes."""
    bits = 31

    def square(carry, bit):
        result, base = carry
        left = (exponent >> bit)[..., None, None]
        # Powers beyond the highest bit are not needed: they may overflow, and NaN is contagious.
        base = jnp.where(left > 0, base, identity)
        result = jnp.where(left & 1 == 1, result @ base, result)
        base = jnp.where(left > 1, base, identity)
        return (result, base @ base), None

    identity = jnp.broadcast_to(jnp.eye(matrix.shape[-1], dtype=matrix.dtype), matrix.shape)
    (result, _), _ = jax.lax.scan(square, (identity, matrix), jnp.arange(bits))
    return result
