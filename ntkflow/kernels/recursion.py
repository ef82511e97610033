"""NNGP and NTK of deep fully connected networks of infinite width, by their recursion."""

import operator
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ntkflow.checks import finite, matrix
from ntkflow.kernels.dual import dual_pair


class Kernels(NamedTuple):
    """The two kernels of one output of an infinitely wide network.

    Attributes:
      nngp: covariance of the output at initialization, shape (n1, n2).
      ntk: neural tangent kernel, shape (n1, n2).
    """

    nngp: Array
    ntk: Array


def fully_connected(
    x1: ArrayLike,
    x2: ArrayLike | None,
    depth: int,
    w_std: ArrayLike = 2**0.5,
    b_std: ArrayLike = 0.0,
    activation: Callable = jax.nn.relu,
) -> Kernels:
    """Compute NNGP and NTK of a fully connected network in the limit of infinite width.

    NTK parameterization: each layer computes w_std/√fan_in · W h + b_std · b with all entries of W
    and b N(0, 1) and trained; `depth` hidden layers with the activation φ are followed by one
    linear layer, so that depth 0 is the linear model. For one output, over features x ∈ ℝᵈ:

        K⁰(x, y)   = w_std² x·y/d + b_std²                     Θ⁰ = K⁰
        Kˡ⁺¹(x, y) = w_std² E[φ(u) φ(v)] + b_std²              (u, v) ~ N(0, Kˡ on {x, y})
        Θˡ⁺¹(x, y) = Kˡ⁺¹(x, y) + w_std² E[φ'(u) φ'(v)] Θˡ(x, y)

    nngp = K and ntk = Θ at l = depth. For ReLU the expectations are ½ k₁ and ½ k₀, arc-cosine
    kernels that share one angle per layer and pair; for others see `dual_activation`.

    float32 resolves angles between inputs down to about 7e-4 (see `arccos_kernel`), so that the
    NTK of nearly parallel rows is right to some 1e-4 of its diagonal; the NNGP to rounding.
    Diagonals with x2=None are exact. Memory: a few arrays of shape (n1, n2).

    Args:
      x1: (n1, d) samples.
      x2: (n2, d) samples; None means x1 and gives exactly symmetric kernels.
      depth: number of hidden layers, 0 or more.
      w_std: standard deviation of the weights before the factor 1/√fan_in; a scalar.
      b_std: standard deviation of the biases; a scalar.
      activation: an elementwise function.

    Returns:
      `Kernels(nngp, ntk)`, each (n1, n2).

    Raises:
      ValueError: x1 or x2 is no matrix, is empty or holds NaN; their numbers of features differ;
        depth is no whole number >= 0.

    Example:
      >>> x = jnp.eye(2)
      >>> kernels = fully_connected(x, None, 1, b_std=0.0)
      >>> kernels.ntk.round(4).tolist()
      [[2.0, 0.3183], [0.3183, 2.0]]

    Reference:
      Jacot, Gabriel and Hongler (2018), theorem 1; Lee et al. (2019), appendix E; the kernels of
      ReLU from Cho and Saul (2009).
    """
    layers = _depth(depth)
    symmetric = x2 is None
    x1 = matrix("x1", x1)
    x2 = x1 if symmetric else matrix("x2", x2)
    if x1.shape[1] != x2.shape[1]:
        raise ValueError(
            f"x1 has shape {x1.shape} and x2 {x2.shape}; expected as many features in both."
        )
    dtype = jnp.promote_types(x1.dtype, x2.dtype)
    weight, bias = _variance("w_std", w_std, dtype), _variance("b_std", b_std, dtype)
    x1, x2 = x1.astype(dtype), None if symmetric else x2.astype(dtype)
    return _recursion(x1, x2, weight, bias, layers, activation)


@partial(jax.jit, static_argnames=("layers", "activation"))  # or each call compiles the loop anew
def _recursion(x1, x2, weight, bias, layers, activation):
    pair = dual_pair(activation)
    scale = weight / x1.shape[1]

    def self_covariance(x):
        return scale * jnp.sum(x * x, axis=1) + bias

    def exact(k, own):
        """The diagonal by self-covariances: by the matrix product it differs by rounding."""
        if x2 is not None:
            return k
        rows, columns = (jax.lax.broadcasted_iota(jnp.int32, k.shape, axis) for axis in (0, 1))
        return jnp.where(rows == columns, own[:, None], k)

    own1 = self_covariance(x1)
    own2 = own1 if x2 is None else self_covariance(x2)
    gram = jnp.matmul(x1, (x1 if x2 is None else x2).T, precision=jax.lax.Precision.HIGHEST)
    if x2 is None:
        gram = (gram + gram.T) / 2
    nngp = exact(scale * gram + bias, own1)

    # A loop, not unrolled: across layers XLA would fuse, and compute each layer many times over.
    def layer(_, carry):
        own1, own2, nngp, ntk = carry
        value, slope = pair(own1[:, None], nngp, own2[None, :])
        own1, own2 = (weight * pair(own, own, own)[0] + bias for own in (own1, own2))
        nngp = exact(weight * value + bias, own1)
        return own1, own2, nngp, nngp + weight * slope * ntk

    _, _, nngp, ntk = jax.lax.fori_loop(0, layers, layer, (own1, own2, nngp, nngp))
    if x2 is None:  # quadrature treats u and v apart, and their order shows in the last bit
        nngp, ntk = (nngp + nngp.T) / 2, (ntk + ntk.T) / 2
    return Kernels(nngp, ntk)


def fully_connected_relu(
    x1: ArrayLike,
    x2: ArrayLike | None,
    depth: int,
    w_std: ArrayLike = 2**0.5,
    b_std: ArrayLike = 0.0,
) -> Kernels:
    """Compute `fully_connected` for ReLU, the reference for anything that follows a network.

    With w_std = √2 and b_std = 0 self-covariances stay 2‖x‖²/d through all layers.

    Args:
      x1, x2, depth, w_std, b_std: as in `fully_connected`.

    Returns:
      `Kernels(nngp, ntk)`, each (n1, n2).

    Example:
      >>> nngp, ntk = fully_connected_relu(jnp.ones((1, 4)), None, depth=3)
      >>> nngp.round(6).tolist(), ntk.round(6).tolist()
      ([[2.0]], [[8.0]])
    """
    return fully_connected(x1, x2, depth, w_std, b_std, jax.nn.relu)


def _depth(depth: Any) -> int:
    try:
        layers = -1 if isinstance(depth, bool) else operator.index(depth)
    except TypeError:
        layers = -1
    if layers < 0:
        raise ValueError(
            f"depth is {depth!r}; expected a whole number of hidden layers, 0 or more."
        )
    return layers


def _variance(name: str, std: ArrayLike, dtype: Any) -> Array:
    std = jnp.asarray(std, dtype)
    if std.ndim:
        raise ValueError(f"{name} has shape {std.shape}; expected one number for all layers.")
    finite(name, std)
    return std**2
