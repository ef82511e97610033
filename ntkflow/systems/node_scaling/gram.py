"""The neural tangent kernel of the node-scaled network at any weights, and its two parts."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.node_scaling.arguments import check, one_number
from ntkflow.systems.node_scaling.network import (
    Activation,
    Variables,
    preactivations,
    product,
    slopes,
    weights,
)

Part = Literal["whole", "uniform", "asymmetric"]


def gram(
    variables: Variables,
    x1: ArrayLike,
    x2: ArrayLike | None = None,
    *,
    activation: Activation,
    part: Part = "whole",
    gamma: ArrayLike | None = None,
) -> jax.Array:
    """Compute Θ(x, x') = (x·x'/d) Σ_j λ_j σ'(Z_j(x)) σ'(Z_j(x')), Z_j(x) = w_j·x/√d.

    It is the empirical neural tangent kernel: λ_j a_j² stands for λ_j, which is the same for signs,
    λ_j a_jk a_jl with several outputs, and δ_kl Σ_j λ_j σ(Z_j(x)) σ(Z_j(x')) is added where the
    output layer is a parameter. With λ⁽¹⁾_j = γ/m or λ⁽²⁾_j = λ_j − γ/m for λ_j it is one of the
    two parts, whose sum is the whole.

    Time O(n1 n2 m K²), memory O((n1 + n2) m K): one matrix product.

    Args:
      variables: of `NodeScaledNetwork`.
      x1, x2: inputs, shapes (n1, d) and (n2, d); x2=None means x1.
      activation: σ, that of the network.
      part: "whole", or "uniform" (λ⁽¹⁾), or "asymmetric" (λ⁽²⁾).
      gamma: γ, which the parts need: λ alone does not tell it.

    Returns:
      Shape (n1, n2), or (n1, n2, K, K) for K outputs; exactly symmetric where x2 is None.

    Raises:
      ValueError: x1 or x2 is not of shape (n, d), their d differ, `part` is unknown, γ is missing
        or not that of λ, or the variables are not those of a NodeScaledNetwork.

    Example:
      >>> variables = {"params": {"kernel": jnp.eye(2)},
      ...              "fixed": {"output": jnp.ones(2), "scales": jnp.array([0.75, 0.25])}}
      >>> x = jnp.array([[1.0, 1.0], [1.0, -1.0]])
      >>> gram(variables, x, activation=jax.nn.relu).round(6).tolist()
      [[1.0, 0.0], [0.0, 0.75]]

    Reference: Caron et al. (2023), equations (4) and (5).
    """
    _, output, scales = weights(variables)
    roots = jnp.sqrt(_part(scales, part, gamma))
    x1, x2, symmetric = pair(x1, x2)
    signs = roots[:, None] * output.reshape(len(scales), -1)

    def features(x):
        steps = slopes(variables, x, activation)  # (n, m) → (n K, m)
        return (steps[:, None, :] * signs.T[None, :, :]).reshape(-1, len(scales))

    def layer(x):
        return roots[None, :] * activation(preactivations(variables, x))

    left = features(x1)
    right = left if symmetric else features(x2)
    shape = (len(x1), signs.shape[1], len(x2), signs.shape[1])
    theta = product(left, right.T).reshape(shape).transpose(0, 2, 1, 3)
    theta *= product(x1, x2.T)[:, :, None, None] / x1.shape[1]
    if "output" in variables["params"]:
        inner = product(layer(x1), layer(x2).T)
        theta += inner[:, :, None, None] * jnp.eye(signs.shape[1], dtype=inner.dtype)[None, None]
    if symmetric:
        theta = (theta + theta.transpose(1, 0, 3, 2)) / 2
    return theta[:, :, 0, 0] if output.ndim == 1 else theta


def pair(x1: ArrayLike, x2: ArrayLike | None) -> tuple[jax.Array, jax.Array, bool]:
    """Two sets of inputs of the same d, and whether the second is the first (None)."""
    a = checks.matrix("x1", x1)
    b = a if x2 is None else checks.matrix("x2", x2)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"x1 has {a.shape[1]} features and x2 {b.shape[1]}; expected the same.")
    return a, b, x2 is None


def _part(scales: jax.Array, part: str, gamma: ArrayLike | None) -> jax.Array:
    if part not in get_args(Part):
        raise ValueError(f"part is {part!r}; expected one of {list(get_args(Part))}.")
    if part == "whole":
        return scales
    if gamma is None:
        raise ValueError(f"gamma is None; expected the γ of λ, which the {part} part needs.")
    one_number(gamma=gamma)
    check(gamma=gamma)
    uniform = jnp.asarray(gamma, scales.dtype) / len(scales)
    if part == "uniform":
        return jnp.full_like(scales, 1) * uniform
    rest = scales - uniform
    if checks.is_concrete(rest):
        rounding = 16 * float(jnp.finfo(rest.dtype).eps) / len(scales)
        if np.min(np.asarray(rest)) < -rounding:
            raise ValueError(
                f"gamma is {gamma}, but the smallest scale is {np.min(np.asarray(scales)):.3g} < "
                "γ/m; expected the γ that λ was made with."
            )
    return jnp.maximum(rest, 0)
