"""How the tangent kernel of the node-scaled network moves under gradient flow."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.quadrature import derivative
from ntkflow.systems.node_scaling.gram import pair
from ntkflow.systems.node_scaling.network import (
    Activation,
    Variables,
    preactivations,
    product,
    weights,
)


def third_order_kernel(
    variables: Variables,
    x1: ArrayLike,
    x2: ArrayLike | None,
    x3: ArrayLike,
    *,
    activation: Activation,
    printed: bool = False,
) -> jax.Array:
    """Compute Θ⁽³⁾(x, x', z) = ⟨∇_W Θ(x, x'), ∇_W f(z)⟩ in closed form.

    Θ⁽³⁾ = (x·x'/d²) Σ_j λ_j^{3/2} a_j³ σ'(Z_j(z)) (x·z σ''(Z_j(x)) σ'(Z_j(x'))
    + x'·z σ''(Z_j(x')) σ'(Z_j(x))), and dΘ/dt = −Σ_i (f(x_i) − y_i) Θ⁽³⁾(x, x', x_i).

    The paper prints d^{3/2} for d²: one 1/d is that of Θ, another that of the inner product of two
    gradients (equal to `ntkflow.kernels.third_order_kernel`:
    `tests/systems/node_scaling/test_node_scaling_gram.py`). a_j³ = a_j for signs.

    Time O(n1 n2 n3 m), memory O((n1 + n2 + n3) m) beside the result.

    Args:
      variables: of `NodeScaledNetwork` with one output, the output layer fixed.
      x1, x2, x3: inputs, shapes (n1, d), (n2, d), (n3, d); x2=None means x1.
      activation: σ, twice differentiable: for ReLU σ'' is 0 but at 0, and so is the kernel.
      printed: the power d^{3/2} of the paper.

    Returns:
      Shape (n1, n2, n3).

    Raises:
      ValueError: as for `gram`; several outputs, or a trained output layer, of which
        `ntkflow.kernels.third_order_kernel` takes care.

    Reference: Caron et al. (2023), equation (34) and appendix I.2; Huang and Yau (2020).
    """
    _, output, scales = weights(variables)
    if output.ndim != 1 or "output" in variables["params"]:
        raise ValueError(
            "third_order_kernel is about one output and a fixed output layer; for others use "
            "ntkflow.kernels.third_order_kernel(empirical_ntk(apply), apply)."
        )
    x1, x2, _ = pair(x1, x2)
    x3 = checks.matrix("x3", x3)
    z = tuple(preactivations(variables, x) for x in (x1, x2, x3))
    sums = _sums(z, (product(x3, x1.T), product(x3, x2.T)), scales**1.5 * output**3, activation)
    power = 1.5 if printed else 2.0
    return product(x1, x2.T)[:, :, None] / x1.shape[1] ** power * sums


@functools.partial(jax.jit, static_argnames="activation")  # a loop compiles anew at each call
def _sums(z, inner, weight, activation):
    slope = derivative(activation)
    curvature = derivative(slope)
    z1, z2, z3 = z
    slope1, slope2 = slope(z1), slope(z2)
    curvature1, curvature2 = curvature(z1), curvature(z2)

    def at(row):  # one z at a time: nothing of size n1 n2 m
        to_first, to_second, factors = row
        one = product(curvature1 * factors[None, :], slope2.T) * to_first[:, None]
        other = product(slope1 * factors[None, :], curvature2.T) * to_second[None, :]
        return one + other

    rows = (*inner, slope(z3) * weight[None, :])
    return jnp.moveaxis(jax.lax.map(at, rows), 0, -1)
