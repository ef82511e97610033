"""K^(h), b^(h) and K^(H) of the three architectures at infinite width: Definitions 3.1 to 3.3."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.data import check_inputs
from ntkflow.kernels.spectrum import smallest_eigenvalue
from ntkflow.systems.deep.activations import check_activation, normalization
from ntkflow.systems.deep.constants import one_residual
from ntkflow.systems.deep.framework import (
    Layer,
    Shared,
    convolution,
    input_gram,
    last_gram,
    moments,
    population,
    unshared,
)
from ntkflow.systems.deep.networks import (
    FullyConnected,
    ResNet,
    form_of,
    rows_of_pixels,
)


class Limit(NamedTuple):
    """Limits of infinite width of a network with H layers.

    Attributes:
      kernels: K^(0), …, K^(H−1), the limits of ⟨x_i^(h), x_j^(h)⟩, shape (H, n, n); of a
        convolutional network between pixels, (H, n, n, p, p).
      means: b^(0) = 0, …, b^(H−1), the limits of (1/√m) Σ_α x_i,α^(h), shape (H, n) or (H, n, p).
      last: K^(H), shape (n, n), the limit of G^(H).
    """

    kernels: Array
    means: Array
    last: Array


def fully_connected_limit(
    x: ArrayLike,
    depth: int,
    activation: Callable = jax.nn.softplus,
    *,
    printed: bool = False,
) -> Limit:
    """Compute the limits of the fully connected network.

    With (u, v) ~ N(0, A^(h)_ij), A^(h)_ij the 2×2 block of K^(h−1) on samples i and j:

        K^(0)_ij = ⟨x_i, x_j⟩,   K^(h)_ij = c_σ E[σ(u) σ(v)] for h < H,
        K^(H)_ij = c_σ K^(H−1)_ij E[σ'(u) σ'(v)].

    For unit inputs K^(h)_ii = 1 for h < H. With ReLU and one layer, K^(1) = 2 H^∞ of
    `ntkflow.systems.two_layer_relu`. λ_min(K^(H)) falls geometrically in H, with softplus and unit
    inputs by a factor 0.318 a layer: from some 30 layers on float64 does not resolve it.

    Args:
      x: inputs, shape (n, d), of any norms.
      depth: H, the number of layers with weights before the output layer.
      activation: σ, an elementwise function; c_σ follows from it.
      printed: take the last line as (3.7) prints it, with A^(H−1), which is built from K^(H−2), in
        place of A^(H).

    Returns:
      The limits, in the dtype of x.

    Raises:
      ValueError: x is not of shape (n, d) or holds NaN; the depth is no whole number > 0, or 1
        where the printed form needs 2.

    Example:
      >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8]])
      >>> fully_connected_limit(x, depth=1, activation=jax.nn.relu).last.round(4).tolist()
      [[1.0, 0.4229], [0.4229, 1.0]]

    Reference: Du (2019), Definition 3.1, with A^(H) in the last line as its Lemma 3.22 has it.
    """
    x = checks.matrix("x", x)
    depth = _depth(depth, printed)
    factor = normalization(activation) ** 0.5
    found = _limit(x, factor, None, activation, unshared, depth)
    return found._replace(last=_printed_last(found, factor, activation)) if printed else found


def resnet_limit(
    x: ArrayLike,
    depth: int,
    activation: Callable = jax.nn.softplus,
    residual: ArrayLike = 0.5,
    *,
    printed: bool = False,
) -> Limit:
    """Compute the limits of the ResNet.

    With (u, v) ~ N(0, A^(h)_ij) as in `fully_connected_limit`, c = c_res/H and 2 ≤ h < H:

        K^(1)_ij = c_σ E[σ(u) σ(v)],   b^(1)_i = √c_σ E[σ(u)],
        K^(h)_ij = K^(h−1)_ij + c b^(h−1)_j E[σ(u)] + c b^(h−1)_i E[σ(v)] + c² E[σ(u) σ(v)],
        b^(h)_i  = b^(h−1)_i + c E[σ(u)],
        K^(H)_ij = c² K^(H−1)_ij E[σ'(u) σ'(v)].

    H² λ_min(K^(H)) hardly depends on H. A ResNet of one layer has no residual block, and its K^(1)
    is that of the fully connected network.

    Args:
      x: inputs, shape (n, d), of any norms.
      depth: H, the number of layers with weights before the output layer.
      activation: σ, an elementwise function.
      residual: c_res, in (0, 1).
      printed: take the recursion as (3.8) prints it: b_i with σ(u) and b_j with σ(v), which is
        the same for inputs of one norm only, and A^(H−1) in the last line.

    Returns:
      The limits, in the dtype of x.

    Raises:
      ValueError: as `fully_connected_limit`, or c_res is not in (0, 1).

    Example:
      >>> x = jnp.array([[0.2, 0.0], [0.0, 6.0]])
      >>> resnet_limit(x, depth=3, residual=0.9).kernels[2].round(3).tolist()
      [[0.935, 3.078], [3.078, 23.592]]

    Reference: Du (2019), Definition 3.2, corrected by Definition 3.4.
    """
    x = checks.matrix("x", x)
    return _residual_limit(x, depth, activation, residual, unshared, printed)


def convolutional_resnet_limit(
    x: ArrayLike,
    depth: int,
    activation: Callable = jax.nn.softplus,
    residual: ArrayLike = 0.5,
    filter_size: int = 3,
    *,
    printed: bool = False,
) -> Limit:
    """Compute the limits of the convolutional ResNet.

    Two p×p matrices belong to a pair of samples: K^(h)_ij between pixels, and between patches
    𝒲(K^(h)_ij)_lr = Σ_o K^(h)_ij,{l+o, r+o}, zero beyond the border, the covariance of the layer
    above. With (u, v) ~ N(0, 𝒲(K^(h−1)) on samples i and j), c = c_res/H and 2 ≤ h < H:

        K^(0)_ij = x_i x_jᵀ,   K^(1)_ij = c_σ E[σ(u) σ(v)ᵀ],   b^(1)_i = √c_σ E[σ(u)],
        K^(h)_ij = K^(h−1)_ij + c E[σ(u)] b_jᵀ + c b_i E[σ(v)]ᵀ + c² E[σ(u) σ(v)ᵀ],
        b^(h)_i  = b^(h−1)_i + c E[σ(u)],
        K^(H)_ij = c² Σ_l 𝒲(K^(H−1)_ij)_ll E[σ'(u_l) σ'(v_l)].

    Args:
      x: inputs, shape (n, p, d_0): p pixels with d_0 channels each.
      depth: H, the number of layers with weights before the output layer.
      activation: σ, an elementwise function.
      residual: c_res, in (0, 1).
      filter_size: q, odd and at most 2p − 1; stride 1, zero padding.
      printed: take the recursion as (3.9) prints it: `kernels` hold matrices between patches,
        which stand in the skip term too, K^(1) as it is and K^(h) = 𝒲(…) of the sum from h = 2 on;
        b_i with σ(u) and b_j with σ(v); A^(h−1), built from K^(h−2), for the products in K^(h)
        and K^(H). The factor c² of K^(H), which is not in print, is kept.

    Returns:
      The limits, in the dtype of x. The thesis gives the matrices between patches the name K^(h);
      here K^(h) is that of Definition 3.4 and Theorem 3.4, for all architectures.

    Raises:
      ValueError: x is not of shape (n, p, d_0) or holds NaN; q is even or greater than 2p − 1; the
        depth or c_res as for `resnet_limit`.

    Example:
      >>> limit = convolutional_resnet_limit(jnp.ones((1, 4, 2)), 2, jax.nn.relu)
      >>> limit.kernels.shape, limit.means.shape, limit.last.round(4).tolist()
      ((2, 1, 1, 4, 4), (2, 1, 4), [[1.625]])

    Reference: Du (2019), Definition 3.3, corrected by Definition 3.4 and equation (3.14).
    """
    x = rows_of_pixels(x, filter_size)
    return _residual_limit(x, depth, activation, residual, convolution(filter_size), printed)


def limit(module: Any, x: ArrayLike) -> Limit:
    """Compute the limits that a network's grams have at infinite width.

    Args:
      module: a `FullyConnected`, `ResNet` or `ConvolutionalResNet`; its width is not used.
      x: inputs, shape (n, d), or (n, p, d_0) for the convolutional one.

    Raises:
      ValueError: another module, or as the function for the architecture.

    Example:
      >>> limit(ResNet(width=64, depth=3), jnp.eye(2)).kernels.shape
      (3, 2, 2)
    """
    form_of(module)  # or its errors
    if isinstance(module, FullyConnected):
        return fully_connected_limit(x, module.depth, module.activation)
    if isinstance(module, ResNet):
        return resnet_limit(x, module.depth, module.activation, module.residual)
    return convolutional_resnet_limit(
        x, module.depth, module.activation, module.residual, module.filter_size
    )


def limit_smallest_eigenvalue(module: Any, x: ArrayLike) -> Array:
    """Compute λ_0 = λ_min(K^(H)), which sets width, step size and rate of Theorems 3.1 to 3.3.

    It is positive for an analytic σ that is no polynomial, if no two inputs are parallel or
    antiparallel; 0 is returned where it is not resolved (see `ntkflow.kernels.spectrum`), as in a
    fully connected network of many layers.

    Args:
      module, x: as for `limit`.

    Returns:
      A scalar of the dtype of x.

    Raises:
      ValueError: σ is a polynomial, an input is 0, two are parallel, or as for `limit`.

    Example:
      >>> module = FullyConnected(width=8, depth=1, activation=jax.nn.relu)
      >>> round(float(limit_smallest_eigenvalue(module, jnp.eye(3))), 6)
      1.0

    Reference: Du (2019), Propositions 3.1 and 3.2.
    """
    x = form_of(module).inputs(x)
    check_activation(module.activation)
    if checks.is_concrete(x):
        check_inputs(x.reshape(len(x), -1), unit_norm=False)
    return smallest_eigenvalue(limit(module, x).last)


def _residual_limit(
    x: Array,
    depth: int,
    activation: Callable,
    residual: ArrayLike,
    shared: Shared,
    printed: bool,
) -> Limit:
    depth = _depth(depth, printed)
    first, block = normalization(activation) ** 0.5, one_residual(residual) / depth
    if printed:
        return _printed(x, (first, block), activation, shared, depth)
    is_block = np.arange(depth) > 0
    return _limit(x, jnp.where(is_block, block, first), is_block, activation, shared, depth)


@partial(jax.jit, static_argnames=("activation", "shared", "depth"))
def _limit(x, factor, skip, activation, shared, depth):
    kernels, means, last = population(
        _with_positions(x), [Layer(activation, factor, skip, shared, depth)]
    )
    found = Limit(jnp.concatenate(kernels), jnp.concatenate(means), last)
    return found if x.ndim == 3 else _without_positions(found)


@partial(jax.jit, static_argnames="activation")
def _printed_last(found, factor, activation):
    law, kernel = found.kernels[-2:, :, :, None, None]
    return last_gram(Layer(activation, factor), kernel, law)


@partial(jax.jit, static_argnames=("activation", "shared", "depth"))
def _printed(x, factors, activation, shared, depth):
    """Definitions 3.2 and 3.3 to the letter; `unshared` is the ResNet."""
    first, block = (Layer(activation, factor) for factor in factors)
    inputs = shared(input_gram(_with_positions(x)))
    bias, kernel = moments(first, inputs)

    def step(carry, _):
        below, kernel, bias = carry
        mean, product = moments(block, kernel)
        # A^(h), built from K^(h−1), in (3.8), and A^(h−1) in (3.9).
        mean_u, product = (mean, product) if shared is unshared else moments(block, below)
        own = bias[:, :, None] * mean_u[:, None, :]
        above = shared(kernel + own[:, None] + own[None, :] + product)
        return (kernel, above, bias + mean), (above, bias + mean)

    carry = inputs, kernel, bias
    (below, last, _), (kernels, means) = jax.lax.scan(step, carry, length=depth - 2)
    found = Limit(
        jnp.concatenate([inputs[None], kernel[None], kernels]),
        jnp.concatenate([jnp.zeros_like(bias)[None], bias[None], means]),
        last_gram(block, last, below),
    )
    return found if x.ndim == 3 else _without_positions(found)


def _with_positions(x: Array) -> Array:
    return x if x.ndim == 3 else x[:, None, :]


def _without_positions(found: Limit) -> Limit:
    return Limit(found.kernels[..., 0, 0], found.means[..., 0], found.last)


def _depth(depth: int, printed: bool) -> int:
    depth = checks.positive_int("depth", depth)
    if printed and depth == 1:
        raise ValueError("depth is 1; the printed last line uses A^(H−1): expected 2 or more.")
    return depth
