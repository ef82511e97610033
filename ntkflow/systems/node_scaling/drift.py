"""Where the first moment of training leads on average: the expected velocity of weights and of the
kernel at initialization, over Gaussian weights and random signs. The labels drop out of both.

The loss is ½ Σ_i (f(x_i) − y_i)²: a step of size η of gradient descent is η units of time.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.arccos import ratio, safe_sqrt
from ntkflow.kernels.breaks import piecewise
from ntkflow.kernels.dual import mean
from ntkflow.kernels.quadrature import derivative, elementwise
from ntkflow.systems.node_scaling.arguments import check_scales
from ntkflow.systems.node_scaling.network import Activation, product

_NODES, _END = 24, 6.2  # of the trapezoidal rule, in each of three dimensions
# Its axes. Where points are parallel the integrand varies along the first alone; a lattice that is
# turned has more distinct nodes along it, and the error for tanh falls from 1e-3 to 2e-8.
_AXES = np.linalg.qr(np.array([[1, 0.7549, 0.5698], [0.3, -1, 0.5], [0.1, 0.2, 1]]).T)[0].T


def g_1(x: ArrayLike, *, activation: Activation, variance: ArrayLike = 1.0) -> jax.Array:
    """Compute g_1(x) = E[σ(u) σ'(u)], u ~ N(0, v‖x‖²/d), of each row: shape (n,).

    ‖x‖ √(v / 2πd) for ReLU. Any activation of the library: kinks and jumps cost no accuracy.

    Args:
      x: shape (n, d).
      activation: σ.
      variance: v of the weights; the paper's is 1, its released code takes 2.

    Example:
      >>> x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
      >>> g_1(x, activation=jax.nn.relu).round(6).tolist()  # 5/√(4π)
      [1.410474, 0.0]

    Reference: Caron et al. (2023), section 4 and appendix A.2.
    """
    x = checks.matrix("x", x)
    squares = jnp.sum(jnp.square(x), axis=1) * (jnp.asarray(variance, x.dtype) / x.shape[1])
    return _slope_product(squares, activation)


def expected_weight_drift(
    x: ArrayLike, scales: ArrayLike, activation: Activation, *, variance: ArrayLike = 1.0
) -> jax.Array:
    """Compute E[dw_j/dt] at t = 0, −(λ_j / √d) Σ_i g_1(x_i) x_i: shape (d, m), as the kernel.

    It shrinks the outputs. For a node of λ_j → (1 − γ) λ̃_j > 0 it stays at any width.

    Args:
      x: shape (n, d).
      scales: λ, shape (m,).
      activation: σ, smooth or ReLU.
      variance: v of the weights.

    Raises:
      ValueError: x is no matrix, or λ no vector of numbers ≥ 0 with sum 1.

    Example:
      >>> drift = expected_weight_drift(jnp.eye(2), jnp.array([0.75, 0.25]), jax.nn.relu)
      >>> (drift * math.sqrt(2 * math.pi)).round(6).tolist()  # ReLU: −λ_j Σ_i ‖x_i‖ x_i / d√(2π)
      [[-0.375, -0.125], [-0.375, -0.125]]

    Reference: Caron et al. (2023), Theorem 4.3.
    """
    x, scales = checks.matrix("x", x), check_scales(scales)
    weight = g_1(x, activation=activation, variance=variance)
    total = jnp.sum(weight[:, None] * x, axis=0) / math.sqrt(x.shape[1])
    return -total[:, None] * scales[None, :]


def g_2(
    x1: ArrayLike,
    x2: ArrayLike,
    x3: ArrayLike,
    *,
    activation: Activation,
    variance: ArrayLike = 1.0,
) -> jax.Array:
    """Compute g_2 = E[σ''(u) σ'(s) σ'(w) σ(w)] for all rows: shape (n1, n2, n3).

    (u, s, w) is a centered Gaussian of covariance v x_a·x_b / d, of any rank: equal, parallel and
    zero rows are as good as others. By a lattice of 11008 nodes, whose absolute error at unit
    inputs is below 2e-9 for swish and 1e-7 for tanh
    (`test_expectations_are_as_accurate_as_documented`); time O(11008 n1 n2 n3).

    Args:
      x1, x2, x3: shapes (n1, d), (n2, d), (n3, d).
      activation: σ, smooth.
      variance: v of the weights.

    Raises:
      ValueError: σ has a kink or a jump in a derivative, as ReLU has, or d differs among the rows.

    Example:
      >>> x = jnp.eye(3)
      >>> values = g_2(x[:1], x[:1], x, activation=jnp.sin)[0, 0]  # −sin² cos², else odd in w
      >>> [round(float(value), 6) for value in values]
      [-0.116315, 0.0, 0.0]

    Reference: Caron et al. (2023), section 4.
    """
    x1, x2, x3 = _matrices(x1=x1, x2=x2, x3=x3)
    _check_smooth(activation)
    return _g_2(x1, x2, x3, variance, activation)


def expected_gram_drift(
    x1: ArrayLike,
    x2: ArrayLike | None,
    x: ArrayLike,
    scales: ArrayLike,
    activation: Activation,
    *,
    variance: ArrayLike = 1.0,
    printed: bool = False,
) -> jax.Array:
    """Compute E[dΘ(x1, x2)/dt] at t = 0, for training on the inputs x: shape (n1, n2).

    −(x_k·x_l / d²) Σ_i [g_2(x_k, x_l, x_i) x_k·x_i + g_2(x_l, x_k, x_i) x_l·x_i] Σ_j λ_j².

    The paper prints d^(3/2) for d²: of the two factors 1/d one belongs to Θ, and one to
    ∇Z_k·∇Z_i = x_k·x_i / d. A Monte Carlo estimate rejects d^(3/2) (`test_node_scaling_drift.py`).

    Args:
      x1, x2: shapes (n1, d), (n2, d); None for x2 takes x1, and is exactly symmetric.
      x: training inputs, (n, d).
      scales: λ, shape (m,).
      activation: σ, smooth.
      variance: v of the weights.
      printed: with d^(3/2), as the paper prints it.

    Returns:
      The drift, of the accuracy of `g_2`. Time O(11008 n1 n2 n), half of it where x2 is None.

    Raises:
      ValueError: σ is not smooth (of ReLU the theorem does not speak), or as for
        `expected_weight_drift`.

    Example:
      >>> x, scales = jnp.eye(3), jnp.array([0.5, 0.5])
      >>> drift = expected_gram_drift(x, None, x, scales, jnp.sin)
      >>> drift.round(6).tolist()[0]
      [0.012924, 0.0, 0.0]

    Reference: Caron et al. (2023), Theorem 4.4; the correction of d is ours.
    """
    symmetric = x2 is None
    x1, x2, x = _matrices(x1=x1, x2=x1 if x2 is None else x2, x=x)
    scales = check_scales(scales)
    _check_smooth(activation)
    if symmetric:
        rows, columns = np.triu_indices(len(x1))
    else:
        rows, columns = (index.ravel() for index in np.indices((len(x1), len(x2))))
    values, d = _pair_drifts(x1[rows], x2[columns], x, variance, activation), x.shape[1]
    drift = jnp.zeros((len(x1), len(x2)), values.dtype).at[rows, columns].set(values)
    if symmetric:
        drift = drift.at[columns, rows].set(values)
    return -jnp.sum(jnp.square(scales)) / d ** (1.5 if printed else 2) * drift


def _matrices(**points: ArrayLike) -> list[jax.Array]:
    arrays = [checks.matrix(name, array) for name, array in points.items()]
    if len({array.shape[1] for array in arrays}) > 1:
        shapes = ", ".join(
            f"{name} has shape {a.shape}" for name, a in zip(points, arrays, strict=True)
        )
        raise ValueError(f"{shapes}; expected the same number of features in all.")
    return arrays


# Jitted at module level: called eagerly, their loops would compile anew each time.
@functools.partial(jax.jit, static_argnames="activation")
def _slope_product(squares, activation):
    phi = elementwise(activation)
    slope = derivative(phi)
    return mean(lambda u: phi(u) * slope(u))(squares)


@functools.partial(jax.jit, static_argnames="activation")
def _g_2(x1, x2, x3, variance, activation):
    triple = _triple(activation, variance)

    def of_pair(a, b):
        return jax.vmap(lambda c: triple(a, b, c)[0])(x3)

    return jax.lax.map(lambda a: jax.lax.map(lambda b: of_pair(a, b), x2), x1)


@functools.partial(jax.jit, static_argnames="activation")
def _pair_drifts(left, right, x, variance, activation):
    """The drifts of pairs of rows but for λ and d, shape (pairs,)."""
    triple = _triple(activation, variance)

    def of_pair(pair):
        a, b = pair

        def of_sample(c):
            first, second = triple(a, b, c)
            return first * (a @ c) + second * (b @ c)

        return (a @ b) * jnp.sum(jax.vmap(of_sample)(x))

    return jax.lax.map(of_pair, (left, right))


def _check_smooth(activation: Activation) -> None:
    checks.elementwise("activation", activation)
    breaks = piecewise(activation)[0].breaks
    if breaks:
        raise ValueError(
            f"activation breaks at {breaks}; expected a smooth one, since Theorem 4.4 speaks of "
            "σ'': take swish, softplus or tanh in place of ReLU."
        )


def _triple(activation: Activation, variance: ArrayLike) -> Callable[..., jax.Array]:
    """(a, b, c) ↦ g_2(a, b, c) and g_2(b, a, c), which share their nodes: shape (2,)."""
    phi = elementwise(activation)
    slope = derivative(phi)
    curvature = derivative(slope)
    nodes, weights = _lattice()

    def triple(a, b, c):
        z, p = jnp.asarray(nodes, a.dtype), jnp.asarray(weights, a.dtype)
        factor = _factor(jnp.stack([a, b, c]), variance)
        u, s, w = product(factor, z)
        inner = slope(w) * phi(w) * p
        pairs = curvature(u) * slope(s), slope(u) * curvature(s)
        return jnp.stack([jnp.sum(pair * inner) for pair in pairs])

    return triple


def _lattice() -> tuple[np.ndarray, np.ndarray]:
    """Nodes (3, 11008) and weights of a rule for E[f(z)], z ~ N(0, I_3), f analytic."""
    line = np.linspace(-_END, _END, _NODES)
    grid = np.stack(np.meshgrid(line, line, line, indexing="ij")).reshape(3, -1)
    weights = np.exp(-np.sum(np.square(grid), axis=0) / 2)
    kept = weights > 1e-13 * weights.max()
    return _AXES @ grid[:, kept], weights[kept] / weights.sum()


def _factor(points: jax.Array, variance: ArrayLike) -> jax.Array:
    """A lower triangular factor of the covariance of w·x/√d, whatever its rank.

    By Gram and Schmidt on the points: Cholesky on their products loses all digits where two points
    are 10⁻⁸ apart. What a point adds to those before it is taken for 0 where rounding cannot tell.
    """
    axes: list[jax.Array] = []
    for point in points[:2]:
        left = point
        for _ in range(2):  # once leaves an error that grows as points approach each other
            for axis in axes:
                left = left - (axis @ left) * axis
        length = safe_sqrt(left @ left)
        rounding = 8 * jnp.finfo(points.dtype).eps * safe_sqrt(point @ point)
        axes.append(jnp.where(length > rounding, left * ratio(jnp.ones_like(length), length), 0.0))
    basis = jnp.stack(axes)
    rest = points[2] - product(product(points[2], basis.T), basis)
    known = product(points, basis.T) * jnp.array([[1, 0], [1, 1], [1, 1]], points.dtype)
    last = jnp.stack([jnp.zeros_like(points[2, 0])] * 2 + [safe_sqrt(rest @ rest)])
    scale = jnp.sqrt(jnp.asarray(variance, points.dtype) / points.shape[1])
    return jnp.concatenate([known, last[:, None]], axis=1) * scale
