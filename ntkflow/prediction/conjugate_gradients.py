"""Kernel regression without the kernel matrix: conjugate gradients on an operator."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.operators import KernelOperator
from ntkflow.kernels.spectrum import rounding_of_eigenvalues

_ROUNDS = 10


class Regression(NamedTuple):
    """A regression, solved as far as `residual` says.

    Attributes:
      coefficients: α, of the shape of y; predictions are `operator.cross(x_test, α)`.
      residual: ‖y − (Θ + ridge) α‖ / ‖y‖ of each right-hand side, () or (k,), computed anew.
      steps: how many were taken, each one product with Θ.
      converged: whether the residual is at most the tolerance, () or (k,). Check it.
    """

    coefficients: jax.Array
    residual: jax.Array
    steps: jax.Array
    converged: jax.Array


def kernel_regression(
    operator: KernelOperator,
    y: ArrayLike,
    *,
    ridge: float | jax.Array = 0.0,
    tolerance: float = 1e-4,
    max_steps: int = 1000,
    landmarks: int | None = None,
    key: jax.Array | None = None,
) -> Regression:
    """Solve (Θ + ridge · I) α = y by preconditioned conjugate gradients.

    The preconditioner is Θ̂ + μ · I, with Θ̂ = L Lᵀ of low rank, which agrees with Θ on the columns
    of some landmarks (Nyström), and μ the ridge and the mean of the diagonal of Θ − Θ̂. Landmarks
    are drawn in rounds with probabilities in proportion to that diagonal, hence where
    those before explain least; their choice moves the number of steps, not the solution.

    Training a network on the squared loss to the end, linearized, is
    f(x) = f₀(x) + Θ(x, x_train) α with y = y_train − f₀(x_train).

    Time: the columns of the landmarks, and a product for each step and for the final residual.
    Memory: N · o · landmarks numbers, and six vectors.

    Args:
      operator: Θ, of `ntk_operator` or `kernel_operator`.
      y: labels, of `operator.vector_shape`, or (*vector_shape, k) for k right-hand sides, each
        with its own step sizes: (n, k) for the kernel of a scalar output.
      ridge: ≥ 0, in the kernel's units. 0 asks for a kernel that is well conditioned in its dtype.
      tolerance: of the residual, relative to y, > 0. Float32 reaches 1e-4 of most systems, and
        seldom 1e-6.
      max_steps: products at most, the final one apart.
      landmarks: how many samples; None takes 4 √n, 0 none: plain conjugate gradients.
      key: of the landmarks; None takes a fixed one.

    Returns:
      Regression. What has not converged says so.

    Raises:
      ValueError: shapes that do not fit, NaN, no operator, a negative ridge, a tolerance or counts
        out of range.

    Example:
      >>> from ntkflow.kernels.operators import kernel_operator
      >>> x = jnp.arange(12.0).reshape(4, 3)
      >>> operator = kernel_operator(lambda x1, x2: x1 @ x2.T, x)
      >>> regression = kernel_regression(operator, x @ jnp.ones(3), ridge=1e-3)
      >>> bool(regression.converged)
      True
      >>> operator.cross(jnp.eye(3), regression.coefficients).sum().round(2).tolist()
      3.0

    References:
      Hestenes and Stiefel (1952), "Methods of conjugate gradients for solving linear systems".
      Chen, Epperly, Tropp and Webber (2025), "Randomly pivoted Cholesky: practical approximation
      of a kernel matrix with few entry evaluations", section 3.
      Frangella, Tropp and Udell (2023), "Randomized Nyström preconditioning".
    """
    if not isinstance(operator, KernelOperator):
        raise ValueError(
            f"operator is of type {type(operator).__name__}; expected a KernelOperator, as "
            "ntk_operator and kernel_operator build it. For a kernel matrix use gp_posterior."
        )
    y = operator.vectors("y", y)
    if checks.is_concrete(ridge) and not ridge >= 0:
        raise ValueError(f"ridge is {ridge}; expected a number ≥ 0, in the kernel's units.")
    if checks.is_concrete(tolerance) and not tolerance > 0:
        raise ValueError(f"tolerance is {tolerance}; expected a number greater than 0.")
    checks.positive_int("max_steps", max_steps)
    n = operator.vector_shape[0]
    if landmarks is None:
        landmarks = min(n, math.ceil(4 * math.sqrt(n)))
    elif landmarks != 0 and checks.positive_int("landmarks", landmarks) > n:
        raise ValueError(f"landmarks is {landmarks}; expected at most the {n} samples.")
    checks.prng_key(key)
    key = jax.random.key(0) if key is None else key
    return _solve(operator, y, ridge, tolerance, max_steps, key, landmarks)


@functools.partial(jax.jit, static_argnames="landmarks")
def _solve(operator, y, ridge, tolerance, max_steps, key, landmarks) -> Regression:
    n = operator.shape[0]
    ridge = jnp.asarray(ridge, operator.dtype)
    right = y.reshape(n, -1)

    def product(v):
        return (operator @ v.reshape(y.shape)).reshape(v.shape) + ridge * v

    precondition = _preconditioner(operator, ridge, key, landmarks) if landmarks else lambda r: r
    norms = jnp.linalg.norm(right, axis=0)
    solution, steps = _conjugate_gradients(
        product, precondition, right, tolerance * norms, max_steps
    )
    residual = jnp.linalg.norm(right - product(solution), axis=0) / jnp.where(norms > 0, norms, 1.0)
    residual = residual.reshape(y.shape[len(operator.vector_shape) :])
    return Regression(solution.reshape(y.shape), residual, steps, residual <= tolerance)


Matrix = Callable[[jax.Array], jax.Array]


class _State(NamedTuple):
    """Of the iteration, one column for each right-hand side; `active` are those not yet solved."""

    solution: jax.Array
    residual: jax.Array
    direction: jax.Array
    inner: jax.Array
    active: jax.Array
    steps: jax.Array


def _conjugate_gradients(
    product: Matrix, precondition: Matrix, right: jax.Array, limits: jax.Array, max_steps: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Columns x with |right − A x| ≤ limits by the recursion's own account, and the steps taken."""

    def inner(a, b):
        return jnp.sum(a * b, axis=0)

    def step(state: _State) -> _State:
        image = product(state.direction)
        curvature = inner(state.direction, image)
        # Rounding can make the matrix indefinite: that column has come as far as it goes.
        active = state.active & (curvature > 0)
        length = jnp.where(active, state.inner / jnp.where(active, curvature, 1.0), 0.0)
        solution = state.solution + length[None] * state.direction
        residual = state.residual - length[None] * image
        active = active & (jnp.linalg.norm(residual, axis=0) > limits)
        preconditioned = precondition(residual)
        new = inner(residual, preconditioned)
        turn = jnp.where(active, new / jnp.where(active, state.inner, 1.0), 0.0)
        direction = preconditioned + turn[None] * state.direction
        return _State(solution, residual, direction, new, active, state.steps + 1)

    preconditioned = precondition(right)
    start = _State(
        jnp.zeros_like(right),
        right,
        preconditioned,
        inner(right, preconditioned),
        jnp.linalg.norm(right, axis=0) > limits,
        jnp.zeros((), jnp.int32),
    )
    going = lambda state: jnp.any(state.active) & (state.steps < max_steps)  # noqa: E731
    end = jax.lax.while_loop(going, step, start)
    return end.solution, end.steps


def _preconditioner(
    operator: KernelOperator, ridge: jax.Array, key: jax.Array, landmarks: int
) -> Matrix:
    """r ↦ μ (L Lᵀ + μ)⁻¹ r, by Woodbury's identity."""
    factor, left = _nystrom(operator, key, landmarks)
    trace = jnp.sum(jnp.square(factor)) + jnp.sum(left)
    # Lifted above rounding, so that the factorization exists: this is no part of the solution.
    shift = ridge + jnp.mean(left) + rounding_of_eigenvalues(trace, factor.dtype)
    small = _dot(factor.T, factor)
    cholesky = jax.scipy.linalg.cho_factor(small + shift * jnp.eye(len(small), dtype=small.dtype))
    return lambda r: r - _dot(factor, jax.scipy.linalg.cho_solve(cholesky, _dot(factor.T, r)))


def _nystrom(
    operator: KernelOperator, key: jax.Array, landmarks: int
) -> tuple[jax.Array, jax.Array]:
    """L with L Lᵀ ≈ Θ, and the diagonal of Θ − L Lᵀ, by randomly pivoted Cholesky in blocks."""
    size, n = operator.shape[0], operator.vector_shape[0]
    outputs, rounds = size // n, min(_ROUNDS, landmarks)
    block = landmarks // rounds
    rank = block * outputs

    def grow(carry, inputs):
        factor, left = carry
        key, start = inputs
        weights = jnp.sum(left.reshape(n, outputs), axis=1)
        # The largest of perturbed logarithms: drawn without replacement, in proportion to weights.
        chosen = jax.lax.top_k(jnp.log(weights) + jax.random.gumbel(key, (n,), left.dtype), block)[
            1
        ]
        rows = (chosen[:, None] * outputs + jnp.arange(outputs)[None, :]).reshape(-1)
        columns = operator.columns(chosen).reshape(size, rank)
        columns = columns - _dot(factor, factor[rows].T)
        # Lifted above the rounding that is left of samples that earlier ones explain.
        lift = 25 * rounding_of_eigenvalues(jnp.sum(diagonal[rows]), left.dtype)
        pivots = jnp.linalg.cholesky(columns[rows] + lift * jnp.eye(rank, dtype=left.dtype))
        new = jax.scipy.linalg.solve_triangular(pivots, columns.T, lower=True).T
        new = jnp.where(jnp.all(jnp.isfinite(new)), new, 0.0)
        factor = jax.lax.dynamic_update_slice_in_dim(factor, new, start, 1)
        return (factor, jnp.maximum(left - jnp.sum(jnp.square(new), axis=1), 0.0)), None

    diagonal = operator.diagonal().reshape(-1)
    starts = jnp.arange(rounds) * rank
    empty = jnp.zeros((size, rounds * rank), operator.dtype)
    return jax.lax.scan(grow, (empty, diagonal), (jax.random.split(key, rounds), starts))[0]


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
