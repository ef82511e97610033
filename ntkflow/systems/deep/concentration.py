"""Du (2019), Theorem 3.4: how close the features of a random network are to their limit, layer by
layer, (1/m) Σ_α X_i X_jᵀ to K^(h) and (1/m) Σ_α X_i to b^(h), h = 1..H−1; and the measurement.

X^(h) = √m x^(h). A random layer is X^(h) = D(X^(h−1)) + ρ(W X^(h−1) / √m), and 𝒲(K) = E[W K Wᵀ].
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.arguments import check, library, real, source
from ntkflow.systems.deep.activations import activation_constants
from ntkflow.systems.deep.gram import last_layer_gram
from ntkflow.systems.deep.limits import Limit
from ntkflow.systems.deep.networks import ConvolutionalResNet, FullyConnected, hidden
from ntkflow.theory import Bound


class FrameworkConstants(NamedTuple):
    """The constants of Theorem 3.4. Those of layers 2..H−1 are numbers, or of shape (H − 2,).

    Attributes:
      kernel: M = 1 + 100 max |𝒲(K^(h))|.
      mean: B = 1 + 100 max |b^(h)|.
      first: C_(1) = |ρ(0)| + sup |ρ'| of layer 1.
      activation: C_(h) of layers 2..H−1.
      skip: max{‖D‖, ‖D · Dᵀ‖}, norms on ℓ^∞: A_(h) without the 1 that its definition adds.
      covariance: Λ_(h), a Lipschitz constant of E[ρ(u)ρ(v)] and E[ρ(u)] in the covariance.
      weights: 𝔚 = 1 + ‖𝒲‖, the norm on ℓ^∞.
    """

    kernel: ArrayLike
    mean: ArrayLike
    first: ArrayLike
    activation: ArrayLike
    skip: ArrayLike
    covariance: ArrayLike
    weights: ArrayLike


class InitialErrors(NamedTuple):
    """How far a random network is from its limit.

    Attributes:
      kernels: the largest |(1/m) Σ_α X_i X_jᵀ − K_ij^(h)| over samples and pixels, shape (H − 1,)
        for h = 1..H−1.
      means: the largest |(1/m) Σ_α X_i − b_i^(h)|, shape (H − 1,).
      last: ‖G^(H)(0) − K^(H)‖, the spectral norm.
    """

    kernels: jax.Array
    means: jax.Array
    last: jax.Array


def covariance_lipschitz(
    value_at_zero: ArrayLike, lipschitz: ArrayLike, smoothness: ArrayLike, variance: ArrayLike
) -> Bound:
    """Λ of Lemma 3.30, which the text leaves open: max{L² + β (|ρ(0)| + L √v), β/2}.

    For F(A) = E[ρ(u)ρ(v)], (u, v) ~ N(0, A) with variances up to v: ∂F/∂A_12 = E[ρ'(u)ρ'(v)] and
    ∂F/∂A_11 = ½ E[ρ''(u)ρ(v)], and the derivative of E[ρ(u)] in the variance is ½ E[ρ''(u)].

    Args:
      value_at_zero: |ρ(0)|.
      lipschitz: L = sup |ρ'|.
      smoothness: β = sup |ρ''|.
      variance: v, the largest variance.

    Example:
      >>> float(covariance_lipschitz(0.0, 1.0, 0.25, 4.0).value)  # tanh-like, ρ(0) = 0
      1.5
    """
    check(
        value_at_zero=value_at_zero, lipschitz=lipschitz, smoothness=smoothness, variance=variance
    )
    numpy = library(value_at_zero, lipschitz, smoothness, variance)
    product = lipschitz**2 + smoothness * (value_at_zero + lipschitz * numpy.sqrt(variance))
    value = numpy.maximum(product, smoothness / 2)
    place = source("Du (2019)", "Lemma 3.30", "derived; the text leaves the constant open")
    return Bound(value, "Λ = max{L² + β (|ρ(0)| + L √v), β/2}", 1.0, place)


def framework_constants(module: nn.Module, limit: Limit) -> FrameworkConstants:
    """The constants of Theorem 3.4 for one of the three architectures and its limit.

    Remark 3.7 gives their orders: M, B, 𝔚 = O(1); A = 0, C, Λ = O(1) for the fully connected
    network; A = 1, C, Λ = O(1/H) for the two residual ones. Λ is `covariance_lipschitz` with v = M.

    Args:
      module: `FullyConnected`, `ResNet` or `ConvolutionalResNet`.
      limit: that of the module on the data, `ntkflow.systems.deep.limit(module, x)`.
    """
    constants = activation_constants(module.activation)
    root = constants.normalization**0.5
    connected = isinstance(module, FullyConnected)
    scale = root if connected else module.residual / module.depth
    q = module.filter_size if isinstance(module, ConvolutionalResNet) else 1
    norm = min(q, limit.means.shape[-1]) if q > 1 else 1
    # |𝒲(K)| ≤ ‖𝒲‖ |K|: an equality for the networks of vectors, where 𝒲 is the identity.
    m = 1 + 100 * norm * _largest_entry(limit.kernels)
    b = 1 + 100 * _largest_entry(limit.means)
    size = abs(constants.value_at_zero) + constants.lipschitz
    covariance = covariance_lipschitz(
        scale * abs(constants.value_at_zero),
        scale * constants.lipschitz,
        scale * constants.smoothness,
        m,
    ).value
    return FrameworkConstants(
        kernel=m,
        mean=b,
        first=root * size,
        activation=scale * size,
        skip=0.0 if connected else 1.0,
        covariance=covariance,
        weights=1.0 + norm,
    )


def error_constant(
    constants: FrameworkConstants,
    depth: int,
    *,
    constant: ArrayLike = 1.0,
    printed: bool = False,
) -> Bound:
    """𝓔 of Theorem 3.4: how errors of the layers below add up until layer H − 1.

    𝓔 = C Σ_l Π_{h>l} f_(h) · max{𝔚 √((1 + C_(1)²) M²), √(C_(1)² M)}, l = 1..H−1, where
    f_(h) = A_(h) + Λ_(h)𝔚 + 2 C_(h)A_(h) (B𝔚 + √(𝔚M)).

    The theorem prints the product over all layers alone, A_(h) with a 1 added to it, and no factor
    2. The proof has the 2, each layer adds an error of its own, and with A_(h) = 2 the product
    would be 2^(H−2) for residual networks also, where Remark 3.7 takes A_(h) = 1.

    Args:
      constants: of the architecture, `framework_constants(module, limit)`, or others.
      depth: H.
      constant: C, the absolute constant that the theorem leaves open.
      printed: 𝓔 as the theorem prints it.

    Returns:
      The bound; infinite where floating point ends, for M and B carry a factor 100 each.

    Raises:
      ValueError: a depth that is no whole number greater than 0.

    Example:
      >>> steady = FrameworkConstants(1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 2.0)  # f = 1: errors only add
      >>> [round(float(error_constant(steady, depth).value), 3) for depth in (2, 3, 6)]
      [2.828, 5.657, 14.142]

    Reference: Du (2019), Theorem 3.4.
    """
    check(depth=depth, constant=constant)
    numpy = library(*constants)
    with np.errstate(over="ignore"):
        cross = constants.activation * (
            constants.mean * constants.weights + numpy.sqrt(constants.weights * constants.kernel)
        )
        skip = constants.skip + 1.0 if printed else constants.skip
        times = 1.0 if printed else 2.0
        factor = skip + constants.covariance * constants.weights + times * cross * skip
        factors = numpy.broadcast_to(factor, (max(depth - 2, 0),))
        # Errors that layers H−1, H−2, ..., 1 add, grown until layer H − 1.
        grown = numpy.concatenate([numpy.ones(1), numpy.cumprod(factors[::-1])])
        total = grown[-1] if printed else numpy.sum(grown)
        own = numpy.maximum(
            constants.weights * constants.kernel * numpy.sqrt(1 + constants.first**2),
            constants.first * numpy.sqrt(constants.kernel),
        )
        value = constant * (total * own)
    formula = "Π_h (A + Λ𝔚 + C A B 𝔚 + C A √(𝔚M)) · max{𝔚 √((1 + C²) M²), √(C² M)}"
    if not printed:
        formula = "Σ_l Π_{h>l} (A + Λ𝔚 + 2 C A B 𝔚 + 2 C A √(𝔚M)) · max{𝔚 √((1 + C²) M²), √(C² M)}"
    note = "as printed" if printed else "A without the 1 added, factor 2 and sum as in the proof"
    return Bound(value, f"𝓔 = C {formula}", constant, source("Du (2019)", "Theorem 3.4", note))


def initial_deviation(
    n: ArrayLike,
    m: ArrayLike,
    depth: ArrayLike,
    delta: ArrayLike,
    error: ArrayLike,
    *,
    pixels: ArrayLike = 1,
) -> Bound:
    """The largest entry of (1/m) Σ_α X_i X_jᵀ − K_ij^(h), and of the means: 𝓔 √(log(Hnp/δ) / m).

    Args:
      n, m, depth: samples, width and H.
      delta: probability of failure, for all layers and samples at once.
      error: 𝓔, `error_constant(...).value`.
      pixels: p, 1 for networks of vectors.

    Example:
      >>> round(float(initial_deviation(10, 10_000, 4, 0.1, error=3.0).value), 4)
      0.0734

    Reference: Du (2019), (3.17) and (3.18).
    """
    check(n=n, m=m, depth=depth, delta=delta, error=error, pixels=pixels)
    numpy = library(n, m, depth, delta, error, pixels)
    value = error * numpy.sqrt(numpy.log(real(depth) * n * pixels / delta) / m)
    place = source("Du (2019)", "Theorem 3.4, (3.17) and (3.18)")
    return Bound(value, "𝓔 √(log(Hnp/δ) / m)", 1.0, place)


def concentration_width(
    n: ArrayLike,
    lambda_0: ArrayLike,
    depth: ArrayLike,
    delta: ArrayLike,
    error: ArrayLike,
    *,
    pixels: ArrayLike = 1,
    constant: ArrayLike = 1.0,
    printed: bool = False,
) -> Bound:
    """The width of Remark 3.7, m = Ω(𝓔² n²p² log(Hnp/δ) / λ_0²), with 𝓔 kept.

    It makes `initial_deviation` c λ_0/(np), and an (np, np) matrix with such entries has norm
    c λ_0. Lemma 3.22 prints c λ_0/n², for which 𝓔² n⁴ would be needed: `printed`. The remark counts
    𝓔 as 2^O(H) for fully connected networks and as O(1) for residual ones.

    Example:
      >>> f"{concentration_width(10, 0.25, 4, 0.1, error=3.0).value:.3g}"
      '8.63e+04'
    """
    check(n=n, lambda_0=lambda_0, depth=depth, delta=delta, error=error, pixels=pixels)
    check(constant=constant)
    numpy = library(n, lambda_0, depth, delta, error, pixels)
    size = (real(n) * pixels) ** (4 if printed else 2)
    with np.errstate(over="ignore"):
        value = constant * (error**2 * size * numpy.log(real(depth) * n * pixels / delta))
        value = value / lambda_0**2
    power = "⁴" if printed else "²"
    note = "c λ_0/n² as Lemma 3.22 prints it" if printed else "from c λ_0/n in Lemma 3.22"
    formula = f"m = Ω(𝓔² (np){power} log(Hnp/δ) / λ_0²)"
    return Bound(value, formula, constant, source("Du (2019)", "Remark 3.7", note))


def initial_errors(module: nn.Module, variables: Any, x: ArrayLike, limit: Limit) -> InitialErrors:
    """Measure how far a network at initialization is from its limit.

    Args:
      module: `FullyConnected`, `ResNet` or `ConvolutionalResNet`.
      variables: drawn by `module.init`.
      x: shape (n, d), or (n, p, d) for the convolutional network.
      limit: `ntkflow.systems.deep.limit(module, x)`.

    Returns:
      The errors of kernels and means of layers 1..H−1, and that of the last layer's Gram matrix.

    Reference: Du (2019), (3.17), (3.18) and Lemma 3.22.
    """
    features = hidden(module, variables, x)[:-1]
    width = features.shape[-1]
    if features.ndim == 4:
        kernels = jnp.einsum("hilr,hjkr->hijlk", features, features)
    else:
        kernels = jnp.einsum("hir,hjr->hij", features, features)
    means = jnp.sum(features, axis=-1) / jnp.sqrt(jnp.asarray(width, features.dtype))
    return InitialErrors(
        kernels=_largest(kernels - limit.kernels[1:]),
        means=_largest(means - limit.means[1:]),
        last=jnp.linalg.norm(last_layer_gram(module, variables, x) - limit.last, 2),
    )


def _largest(layers: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(layers), axis=tuple(range(1, layers.ndim)))


def _largest_entry(array: jax.Array) -> Any:
    if checks.is_concrete(array):
        return np.abs(array).max()
    return jnp.max(jnp.abs(array))
