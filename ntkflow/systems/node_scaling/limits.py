"""The kernel of the node-scaled network at initialization: its mean, its variance, its limit.

Θ* is the same for all λ; how far Θ strays from it is Σ_j λ_j², and in the limit (1 − γ)² Σ_j λ̃_j².
"""

import functools
import math
from typing import Any, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.arccos import norms_and_products
from ntkflow.kernels.dual import dual_activation, mean
from ntkflow.kernels.quadrature import derivative
from ntkflow.kernels.spectrum import smallest_eigenvalue
from ntkflow.systems.deep.activations import activation_constants
from ntkflow.systems.node_scaling.arguments import (
    check,
    check_scales,
    check_variance,
    check_weights,
    one_number,
    source,
)
from ntkflow.systems.node_scaling.gram import gram, pair
from ntkflow.systems.node_scaling.network import Activation, Output
from ntkflow.systems.node_scaling.scales import power_sum, scale_parts
from ntkflow.theory import Bound


def mean_gram(
    x1: ArrayLike,
    x2: ArrayLike | None = None,
    *,
    activation: Activation,
    variance: ArrayLike = 1.0,
    output: Output = "fixed",
) -> jax.Array:
    """Compute Θ*(x, x') = E[Θ(x, x')] = (x·x'/d) E[σ'(u) σ'(v)] at initialization.

    (u, v) is Gaussian with covariance v/d times the inner products of x and x'. It is the same for
    every λ and every width, and it is the limit under NTK scaling. Closed form where
    `ntkflow.kernels.dual_activation` has one: for ReLU E[σ'(u) σ'(v)] = (π − θ)/2π, θ the angle.

    Args:
      x1, x2: inputs, shapes (n1, d) and (n2, d), of any norms; x2=None means x1.
      activation: σ, elementwise.
      variance: v of the weights.
      output: "trained" adds E[σ(u) σ(v)].

    Returns:
      Shape (n1, n2); exactly symmetric where x2 is None. With K outputs and a fixed output layer
      it is the mean of each diagonal block, and the others have mean 0.

    Raises:
      ValueError: x1 or x2 is not of shape (n, d), holds NaN, or their d differ; the activation is
        not elementwise; v is not positive; `output` is unknown.

    Example:
      >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8]])
      >>> mean_gram(x, activation=jax.nn.relu).round(4).tolist()
      [[0.25, 0.1057], [0.1057, 0.25]]

    Reference: Caron et al. (2023), section 3.
    """
    if output not in get_args(Output):
        raise ValueError(f"output is {output!r}; expected one of {list(get_args(Output))}.")
    check_variance(variance)
    x1, x2, symmetric = pair(x1, x2)
    return _mean_gram(x1, None if symmetric else x2, variance, activation, output)


def limit_smallest_eigenvalue(
    x: ArrayLike, *, activation: Activation, variance: ArrayLike = 1.0
) -> jax.Array:
    """Compute κ_n = λ_min(Θ*), which sets every rate of the paper.

    It is positive where no two inputs are collinear and σ is no polynomial. For 100 inputs on the
    unit sphere of R⁵⁰ it is 0.0037 for ReLU and 6e-5 for swish.

    Example:
      >>> float(limit_smallest_eigenvalue(jnp.eye(2), activation=jax.nn.relu))
      0.25

    Reference: Caron et al. (2023), section 3.
    """
    return smallest_eigenvalue(mean_gram(x, activation=activation, variance=variance))


def gram_variance(x: ArrayLike, *, activation: Activation, variance: ArrayLike = 1.0) -> jax.Array:
    """Compute C_0(X) = Σ_ik (x_i·x_k/d)² Var(σ'(u_i) σ'(u_k)), u = Xw/√d for one node.

    For ReLU the variance is p(1 − p) with p = (π − θ)/2π. In general it takes E[σ'² σ'²] and
    E[σ' σ'], two kernels of `dual_activation`.

    Args:
      x: inputs, shape (n, d).
      activation: σ.
      variance: v of the weights.

    Returns:
      A scalar ≥ 0.

    Example:
      >>> float(gram_variance(jnp.eye(2), activation=jax.nn.relu))
      0.125

    Reference: Caron et al. (2023), Proposition 3.1.
    """
    check_variance(variance)
    return _gram_variance(checks.matrix("x", x), variance, activation)


def expected_squared_deviation(
    x: ArrayLike, scales: ArrayLike, *, activation: Activation, variance: ArrayLike = 1.0
) -> Bound:
    """Compute E‖Θ − Θ*‖_F² = C_0(X) Σ_j λ_j² at initialization, exact at every width.

    The nodes are independent with weights λ_j, so that (7) holds with λ_j for its limit; with
    `kernel_departure(gamma, alpha)` for Σ_j λ_j² it is (7).

    Args:
      x: inputs, shape (n, d).
      scales: λ, shape (m,), of sum 1.
      activation, variance: as for `gram_variance`.

    Example:
      >>> scales = jnp.array([0.5, 0.5])
      >>> bound = expected_squared_deviation(jnp.eye(2), scales, activation=jax.nn.relu)
      >>> float(bound.value)
      0.0625

    Reference: Caron et al. (2023), Proposition 3.1, equation (7).
    """
    scales = check_scales(scales)
    value = gram_variance(x, activation=activation, variance=variance) * power_sum(scales, 2)
    place = source("Proposition 3.1, equation (7)", "derived at finite m")
    return Bound(value, "C_0(X) Σ_j λ_j²", 1.0, place)


def limit_gram(
    kernel: ArrayLike,
    x: ArrayLike,
    weights: ArrayLike,
    gamma: ArrayLike,
    *,
    activation: Activation,
    variance: ArrayLike = 1.0,
) -> jax.Array:
    """Compute Θ_∞ = γ Θ* + (1 − γ) Θ⁽²⁾_∞ of given weights, its sum over the nodes cut at m.

    Θ⁽²⁾_∞ = (x·x'/d) Σ_j λ̃_j σ'(Z_j(x)) σ'(Z_j(x')) over infinitely many nodes; here the m given
    ones, with λ̃ divided by its sum, which leaves the mean at Θ*. `limit_distance` bounds what
    is cut off.

    Args:
      kernel: W at initialization, shape (d, m), column j for node j.
      x: inputs, shape (n, d).
      weights: λ̃, shape (m,).
      gamma: γ in [0, 1].
      activation, variance: as for `mean_gram`.

    Returns:
      Shape (n, n).

    Raises:
      ValueError: as for `node_scales` and `gram`.

    Reference: Caron et al. (2023), Proposition 3.1.
    """
    x, kernel = checks.matrix("x", x), checks.matrix("kernel", kernel)
    _, asymmetric = scale_parts(weights, gamma)
    if kernel.shape != (x.shape[1], asymmetric.size):
        raise ValueError(
            f"kernel has shape {kernel.shape}; expected {(x.shape[1], asymmetric.size)}: a row "
            "for each feature of x, a column for each weight."
        )
    asymmetric = asymmetric.astype(kernel.dtype)
    variables = {
        "params": {"kernel": kernel},
        "fixed": {"output": jnp.ones_like(asymmetric), "scales": asymmetric},
    }
    theta = gram(variables, x, activation=activation)
    share = jnp.asarray(gamma, theta.dtype)
    return share * mean_gram(x, activation=activation, variance=variance) + theta


def sample_limit(
    key: jax.Array,
    x: ArrayLike,
    weights: ArrayLike,
    gamma: ArrayLike,
    *,
    activation: Activation,
    variance: ArrayLike = 1.0,
) -> jax.Array:
    """Draw Θ_∞, the random kernel of infinite width, its sum over the nodes cut at m.

    Its mean is Θ*, and E‖Θ_∞ − Θ*‖_F² = C_0(X) (1 − γ)² Σ_j λ̃_j² (7): random unless γ = 1.

    Args:
      key: draws the weights of the nodes, with the first of m nodes mattering most.
      x, weights, gamma, activation, variance: as for `limit_gram`.

    Returns:
      Shape (n, n).

    Example:
      >>> from ntkflow.systems.node_scaling.scales import zipf
      >>> x, weights = jnp.eye(2), zipf(50, 0.5)
      >>> draw = jax.jit(lambda gamma: sample_limit(
      ...     jax.random.key(0), x, weights, gamma, activation=jax.nn.relu))
      >>> draw(1.0).tolist(), bool(jnp.all(draw(0.5) == draw(1.0)))
      ([[0.25, 0.0], [0.0, 0.25]], False)

    Reference: Caron et al. (2023), Proposition 3.1.
    """
    check_variance(variance)
    x, weights = checks.matrix("x", x), check_weights(weights)
    kernel = jax.random.normal(key, (x.shape[1], weights.size), x.dtype)
    kernel *= jnp.sqrt(jnp.asarray(variance, x.dtype))
    return limit_gram(kernel, x, weights, gamma, activation=activation, variance=variance)


def limit_distance(
    kernel: ArrayLike,
    x: ArrayLike,
    weights: ArrayLike,
    gamma: ArrayLike,
    *,
    activation: Activation,
    variance: ArrayLike = 1.0,
    slope: ArrayLike = 1.0,
) -> Bound:
    """Compute what |Θ_m − Θ_∞| is at most, entry by entry, both on the same weights.

    |x·x'/d| (γ |(1/m) Σ_j σ'σ' − E[σ'σ']| + 2 (1 − γ) L² (1 − Σ_{j≤m} λ̃_j)), with L = sup |σ'|,
    which the paper takes to be 1. With γ = 0 it bounds what `limit_gram` cuts off.

    Args:
      kernel: W at initialization, shape (d, m), the first m nodes of infinitely many.
      x, weights, gamma, activation, variance: as for `limit_gram`; the λ̃ must be those of an
        infinite sequence of sum 1, as `zipf` gives them.
      slope: L.

    Returns:
      The value has the shape (n, n).

    Raises:
      ValueError: Σ_{j≤m} λ̃_j > 1, or as for `limit_gram`.

    Reference: Caron et al. (2023), appendix C.
    """
    weights = check_weights(weights)
    one_number(gamma=gamma)
    check(gamma=gamma)
    tail = 1 - jnp.sum(weights)
    rounding = 100 * float(jnp.finfo(weights.dtype).eps)
    if checks.is_concrete(tail) and float(tail) < -rounding:
        raise ValueError(
            f"weights have the sum {1 - float(tail):.6g}; expected at most 1, and 1 for all "
            "infinitely many: they are compared with their limit here, not divided by their sum."
        )
    x = checks.matrix("x", x)
    arguments: dict[str, Any] = {"activation": activation, "variance": variance}
    equal = limit_gram(kernel, x, jnp.full_like(weights, 1 / weights.size), 0.0, **arguments)
    uniform = jnp.abs(equal - mean_gram(x, **arguments))
    inner = jnp.abs(norms_and_products(x)[2]) / x.shape[1]
    share, most = jnp.asarray(gamma, uniform.dtype), jnp.square(jnp.asarray(slope, uniform.dtype))
    value = share * uniform + 2 * (1 - share) * most * inner * jnp.maximum(tail, 0).astype(
        uniform.dtype
    )
    formula = "|x·x'/d| (γ |1/m Σ_j σ'σ' − E[σ'σ']| + 2(1−γ) L² (1 − Σ_{j≤m} λ̃_j))"
    return Bound(value, formula, 1.0, source("appendix C", "with L, 1 in the paper"))


def largest_second_moment(d: int, *, activation: Activation, variance: float = 1.0) -> Bound:
    """Compute C_1 = sup_{0<c≤1} E[σ(c z/√d)²], z ~ N(0, 1): what E[f(x)²] is at most, ‖x‖ ≤ 1.

    257 values of c, and as many around the largest: where the supremum is not at c = 1 the error is
    of the second order in 3e-5. It is 1/2d for ReLU.

    Args:
      d: the number of features.
      activation: σ.
      variance: v of the weights, for z ~ N(0, v).

    Example:
      >>> bound = largest_second_moment(50, activation=jax.nn.swish)
      >>> round(float(bound.value), 7)
      0.0050738

    Reference: Caron et al. (2023), equation (8).
    """
    d = checks.positive_int("d", d)
    check_variance(variance)
    value = _largest_moment(jnp.asarray(variance, float) / d, activation)
    place = source("Theorem 4.1, equation (8)", "computed")
    return Bound(value, "sup_{c ∈ (0,1]} E[σ(c z/√d)²]", 1.0, place)


def largest_second_moment_upper(d: int, *, activation: Activation) -> Bound:
    """Compute σ(0)² + 2 |σ(0)| L E|z| + L² E[z²] ≥ C_1, z ~ N(0, 1/d), L = sup |σ'|.

    Example:
      >>> bound = largest_second_moment_upper(50, activation=jax.nn.relu)
      >>> round(float(bound.value), 6)
      0.02

    Reference: Caron et al. (2023), after equation (8), with L = 1.
    """
    d = checks.positive_int("d", d)
    constants = activation_constants(activation)
    at_zero, slope = abs(constants.value_at_zero), constants.lipschitz
    value = at_zero**2 + 2 * at_zero * slope * math.sqrt(2 / (math.pi * d)) + slope**2 / d
    place = source("after equation (8)", "with L, 1 in the paper")
    return Bound(value, "σ(0)² + 2|σ(0)| L E|z| + L² E[z²]", 1.0, place)


# Jitted at module level: called eagerly, the quadratures' loops would compile anew each time.
@functools.partial(jax.jit, static_argnames=("activation", "output"))
def _mean_gram(x1, x2, variance, activation, output):
    value, slope = dual_activation(activation)
    covariances, inner = _covariances(x1, x2, variance)
    theta = inner * slope(*covariances)
    if output == "trained":
        theta += value(*covariances)
    return (theta + theta.T) / 2 if x2 is None else theta


@functools.partial(jax.jit, static_argnames="activation")
def _gram_variance(x, variance, activation):
    slope = derivative(activation)
    covariances, inner = _covariances(x, None, variance)
    first = dual_activation(activation)[1](*covariances)
    second = dual_activation(lambda z: jnp.square(slope(z)))[0](*covariances)
    return jnp.sum(jnp.square(inner) * jnp.maximum(second - jnp.square(first), 0))


@functools.partial(jax.jit, static_argnames="activation")
def _largest_moment(variance, activation):
    moment = mean(lambda z: jnp.square(activation(z)))
    low, high = jnp.zeros(()), jnp.ones(())
    for _ in range(2):
        grid = jnp.linspace(low, high, 257)
        values = moment(variance * grid**2)
        best = jnp.argmax(values)
        low, high = grid[jnp.maximum(best - 1, 0)], grid[jnp.minimum(best + 1, 256)]
    return values[best]


def _covariances(
    x1: jax.Array, x2: jax.Array | None, variance: ArrayLike
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], jax.Array]:
    """Those of the preactivations, for `dual_activation`, and x·x'/d."""
    inner = norms_and_products(x1, x2)[2]
    # Not the norms squared: on the diagonal all three are one number, whose angle with itself is 0.
    squares1, squares2 = (jnp.sum(jnp.square(x), axis=1) for x in (x1, x1 if x2 is None else x2))
    scale = jnp.asarray(variance, inner.dtype) / x1.shape[1]
    covariances = (squares1[:, None] * scale, inner * scale, squares2[None, :] * scale)
    return covariances, inner / x1.shape[1]
