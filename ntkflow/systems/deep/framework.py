"""Population Gram matrices of networks with shared weights and skip connections, from one engine.

A network is a list of `Layer`; `population` follows its kernels K and means b to the last layer.
"""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.dual import dual_activation, mean

Shared = Callable[[Array], Array]


def unshared(kernel: Array) -> Array:
    """The map 𝒲 of one weight for all positions: W = w·Id, w ~ N(0, 1), so that 𝒲(K) = K."""
    return kernel


def convolution(filter_size: int) -> Shared:
    """Build the map 𝒲 of a convolution: 𝒲(K)_lr = Σ_o K_{l+o, r+o}, −q/2 < o < q/2.

    Stride 1, padded by zeros: the trace of K between the patches around l and r.

    Args:
      filter_size: q, odd.

    Returns:
      The map of arrays (..., p, p), the same function for the same q.

    Raises:
      ValueError: q is not odd.

    Example:
      >>> convolution(3)(jnp.eye(3)).tolist()
      [[2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 2.0]]
    """
    size = checks.positive_int("filter_size", filter_size)
    if size % 2 == 0:
        raise ValueError(f"filter_size is {size}; expected an odd number, to center the patches.")
    return _convolution(size)


@cache  # one function for each size: `population` compiles anew for another
def _convolution(size: int) -> Shared:
    def shared(kernel: Array) -> Array:
        positions = kernel.shape[-1]
        widths = [(0, 0)] * (kernel.ndim - 2) + [(size // 2, size // 2)] * 2
        padded = jnp.pad(kernel, widths)
        total = jnp.zeros_like(kernel)
        for offset in range(size):
            window = slice(offset, offset + positions)
            total += padded[..., window, window]
        return total

    return shared


class Layer(NamedTuple):
    """One layer, or `repeats` like it, on p positions and m channels.

        X^(h) = D X^(h−1) + ρ(U),   U_α = Σ_β W_αβ X_β^(h−1) / √m   (no 1/√m in the first layer)

    with an independent Gaussian matrix W_αβ = Σ_k g_k e_k, g ~ N(0, I), for each pair of channels;
    the fixed matrices e_1, …, e_q, each (p', p), say which weights are shared: e_1 = Id where
    p = 1, the q shifts in a convolution.

    Attributes:
      activation: σ, an elementwise function.
      factor: ρ(z) = factor·σ(z); a number, or one for each repeat.
      skip: D; None for no skip connection, a number c or one for each repeat for c·Id, or a
        (p', p) matrix. The first layer of a network has none: None, or 0 first.
      shared: the map 𝒲: K ↦ E[W K Wᵀ] = Σ_k e_k K e_kᵀ, from arrays (..., p, p) to
        (..., p', p'). What is passed should be one object for all calls: a new function compiles
        anew.
      repeats: how many such layers follow each other; they cost one compilation. A ResNet as a
        whole is one `Layer`, with skip=[0, 1, …, 1].
    """

    activation: Callable
    factor: ArrayLike = 1.0
    skip: ArrayLike | None = None
    shared: Shared = unshared
    repeats: int = 1


class Population(NamedTuple):
    """Limits of infinite width, of a network with H layers.

    Attributes:
      kernels: K^(h)_ij = lim (1/m) Σ_α X_i,α X_j,αᵀ for h < H: one array for the inputs, h = 0,
        shape (1, n, n, p, p), and one for each `Layer`, shape (repeats, n, n, p, p); the last has
        one less.
      means: b^(h)_i = lim (1/m) Σ_α X_i,α, likewise, shapes (repeats, n, p); b^(0) = 0.
      last: K^(H), shape (n, n), the limit of the Gram matrix of the gradients with respect to the
        last layer's weights.
    """

    kernels: tuple[Array, ...]
    means: tuple[Array, ...]
    last: Array


def population(x: ArrayLike, layers: Sequence[Layer]) -> Population:
    """Compute the population Gram matrices of a network of infinite width.

    For each pair of samples, with (U, V) ~ N(0, [[𝒲(K_ii), 𝒲(K_ij)], [𝒲(K_ji), 𝒲(K_jj)]]) and K
    and b of the layer below,

        K^(h)_ij = D K_ij Dᵀ + E[ρ(U)] (D b_j)ᵀ + (D b_i) E[ρ(V)]ᵀ + E[ρ(U) ρ(V)ᵀ]
        b^(h)_i  = D b_i + E[ρ(U)]                              K^(0)_ij = x_i x_jᵀ, b^(0) = 0.

    The network ends in f = ⟨a, X^(H)⟩/√m, a ~ N(0, I). Its gradients with respect to the
    coefficients g of the last layer's weights have the Gram matrix G^(H), whose limit is

        K^(H)_ij = Σ_l 𝒲(K^(H−1)_ij)_ll E[ρ'(U_l) ρ'(V_l)].

    Expectations are those of `ntkflow.kernels.dual`. Time and compilation: one loop for each
    `Layer`, whatever its `repeats`. Memory: H arrays of shape (n, n, p, p) for all kernels.

    Args:
      x: inputs, shape (n, p, d): p positions with d channels each.
      layers: the network, from the input on; `repeats` add up to H.

    Returns:
      The limits, in the dtype of x, exactly symmetric: K_ji = K_ijᵀ.

    Raises:
      ValueError: x is not of shape (n, p, d) or holds NaN; there is no layer, the first has a
        skip connection, or factors, D and 𝒲 are not of the shapes that they should have.

    Example:
      >>> x = jnp.eye(2)[:, None, :]  # one position
      >>> relu = Layer(jax.nn.relu, factor=2**0.5, repeats=3)
      >>> population(x, [relu]).last.round(4).tolist()
      [[1.0, 0.328], [0.328, 1.0]]

    References:
      Du (2019), Definition 3.4, equations (3.15) and (3.16); K^(H) from Definitions 3.1 to 3.3.
    """
    x = jnp.asarray(x)
    if x.ndim != 3 or 0 in x.shape:
        raise ValueError(f"x has shape {x.shape}; expected (samples, positions, channels).")
    x = checks.floating(x)
    checks.finite("x", x)
    _check(layers, x)
    strengths = tuple((layer.factor, layer.skip) for layer in layers)
    plans = tuple((layer.activation, layer.shared, layer.repeats) for layer in layers)
    return _population(x, strengths, plans)


def moments(layer: Layer, kernel: Array) -> tuple[Array, Array]:
    """E[ρ(U_i)], shape (n, p'), and E[ρ(U_i) ρ(U_j)ᵀ], (n, n, p', p'), of a layer above K."""
    covariance = layer.shared(kernel)
    own = _own(covariance)
    factor = jnp.asarray(layer.factor, kernel.dtype)
    expectations = _expectations(layer.activation)
    second = expectations.product(own[:, None, :, None], covariance, own[None, :, None, :])
    return factor * expectations.mean(own), factor**2 * second


def last_gram(layer: Layer, kernel: Array, covariance: Array | None = None) -> Array:
    """K^(H), shape (n, n), from the last layer and the K below it.

    `covariance` takes the place of K in the law of (U, V), as the thesis prints it.
    """
    inner = jnp.diagonal(layer.shared(kernel), axis1=-2, axis2=-1)
    law = inner
    if covariance is not None:
        law = jnp.diagonal(layer.shared(covariance), axis1=-2, axis2=-1)
    own = jnp.einsum("iil->il", law)
    slopes = _expectations(layer.activation).slopes(own[:, None, :], law, own[None, :, :])
    gram = jnp.asarray(layer.factor, kernel.dtype) ** 2 * jnp.sum(inner * slopes, axis=-1)
    return (gram + gram.T) / 2  # quadrature treats u and v apart: their order shows in the last bit


class _Expectations(NamedTuple):
    mean: Callable
    product: Callable
    slopes: Callable


@lru_cache(maxsize=16)  # what an activation is takes longer to find than a layer to compute
def _expectations(activation: Callable) -> _Expectations:
    return _Expectations(mean(activation), *dual_activation(activation))


def input_gram(x: Array) -> Array:
    """K^(0)_ij = x_i x_jᵀ, shape (n, n, p, p), of inputs (n, p, d)."""
    kernel = jnp.einsum("ila,jra->ijlr", x, x, precision=jax.lax.Precision.HIGHEST)
    return symmetric(kernel)


def symmetric(kernel: Array) -> Array:
    """The mean of K_ij and K_jiᵀ, which differ by rounding."""
    return (kernel + kernel.transpose(1, 0, 3, 2)) / 2


def outer(left: Array, right: Array) -> Array:
    """left_i right_jᵀ, shape (n, n, p, p), of arrays (n, p)."""
    return left[:, None, :, None] * right[None, :, None, :]


@partial(jax.jit, static_argnames="plans")  # or each call compiles the loops anew
def _population(x, strengths, plans):
    layers = [
        Layer(activation, factor, skip, shared, repeats)
        for (factor, skip), (activation, shared, repeats) in zip(strengths, plans, strict=True)
    ]
    kernel, bias = input_gram(x), jnp.zeros(x.shape[:2], x.dtype)
    kernels, means = [kernel[None]], [bias[None]]
    for layer in layers:
        is_last = layer is layers[-1]
        strength = layer.factor, layer.skip
        each = jax.tree.map(partial(_for_each_repeat, layer.repeats, x.dtype), strength)
        if is_last:
            each, top = (jax.tree.map(lambda a: a[part], each) for part in (slice(-1), -1))

        # A loop, not unrolled: compilation does not depend on depth.
        def step(below, strength):
            factor, skip = strength
            above = _advance(layer._replace(factor=factor, skip=skip), *below)
            return above, above

        if layer.repeats > 1:
            (kernel, bias), above = jax.lax.scan(step, (kernel, bias), each)
        elif not is_last:  # apart, because the number of positions may change
            (kernel, bias), _ = step((kernel, bias), jax.tree.map(lambda a: a[0], each))
            above = kernel[None], bias[None]
        else:
            above = kernel[None][:0], bias[None][:0]
        kernels.append(above[0])
        means.append(above[1])
    last = last_gram(layers[-1]._replace(factor=top[0]), kernel)
    return Population(tuple(kernels), tuple(means), last)


def _for_each_repeat(repeats: int, dtype: Any, value: ArrayLike) -> Array:
    """Numbers and vectors to shape (repeats,), a matrix to (repeats, p', p)."""
    array = jnp.asarray(value, dtype)
    return array if array.ndim == 1 else jnp.broadcast_to(array, (repeats, *array.shape))


def _advance(layer: Layer, kernel: Array, bias: Array) -> tuple[Array, Array]:
    """K^(h) and b^(h) from those below."""
    first, second = moments(layer, kernel)
    if layer.skip is None:
        return symmetric(second), first
    bias = _skip(layer, bias)
    kept = jnp.swapaxes(_skip(layer, jnp.swapaxes(_skip(layer, kernel), -1, -2)), -1, -2)
    kernel = kept + outer(first, bias) + outer(bias, first) + second
    return symmetric(kernel), bias + first


def _skip(layer: Layer, array: Array) -> Array:
    """D along the last axis."""
    skip = jnp.asarray(layer.skip, array.dtype)
    if skip.ndim == 0:
        return skip * array
    return jnp.einsum("...l,ml->...m", array, skip, precision=jax.lax.Precision.HIGHEST)


def _own(covariance: Array) -> Array:
    """The variances, shape (n, p)."""
    return jnp.einsum("iill->il", covariance)


def _check(layers: Sequence[Layer], x: Array) -> None:
    if isinstance(layers, Layer) or not all(isinstance(layer, Layer) for layer in layers):
        raise ValueError(
            f"layers is {layers!r}; expected several Layers: of one alone write [layer]."
        )
    if not layers:
        raise ValueError("layers is empty; expected at least one Layer.")
    n, positions, _ = x.shape
    for index, layer in enumerate(layers):
        name = f"layers[{index}]"
        repeats = checks.positive_int(f"{name}.repeats", layer.repeats)
        checks.finite(name, (layer.factor, layer.skip))
        above = _positions_above(
            name, layer, jax.ShapeDtypeStruct((n, n, *2 * (positions,)), x.dtype)
        )
        if repeats > 1 and above != positions:
            raise ValueError(
                f"{name} turns {positions} positions into {above}, and repeats {repeats} times; "
                "expected repeats=1 where the positions change."
            )
        if np.shape(layer.factor) not in ((), (repeats,)):
            raise ValueError(
                f"{name}.factor has shape {np.shape(layer.factor)}; expected one number, or one "
                f"for each of {repeats} repeats."
            )
        numbers = ((), (repeats,)) if above == positions else ()
        if layer.skip is not None and np.shape(layer.skip) not in (*numbers, (above, positions)):
            raise ValueError(
                f"{name}.skip has shape {np.shape(layer.skip)}; expected ({above}, {positions}), a "
                "matrix from the positions below to those above, or where these are as many a "
                f"number, or one for each of {repeats} repeats."
            )
        positions = above
    first = layers[0].skip
    if first is not None and (
        np.ndim(first) != 1 or (checks.is_concrete(first) and np.asarray(first)[0] != 0)
    ):
        raise ValueError(
            "The first layer has a skip connection; expected skip=None, or 0 as the first of "
            "several numbers: its inputs have other channels than its outputs."
        )


def _positions_above(name: str, layer: Layer, kernel: jax.ShapeDtypeStruct) -> int:
    result = jax.eval_shape(layer.shared, kernel)
    shape: tuple[int, ...] = getattr(result, "shape", ())
    if len(shape) != 4 or shape != (*kernel.shape[:2], shape[-1], shape[-1]):
        raise ValueError(
            f"{name}.shared turns a kernel of shape {kernel.shape} into {result}; expected a map "
            "on the last two axes, which stay equal to each other."
        )
    return shape[-1]
