"""The numbers that the quantities of Du (2019), chapter 3, share.

c_{w,0}, c_{x,0}, a_{2,0} and a_{4,0} bound a network at its initialization; every lemma about its
training is a statement about networks within such bounds, whatever their distribution.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.arguments import (
    check as check,
    library as library,
    real as real,
    source as _source,
)
from ntkflow.systems.deep.activations import ActivationConstants

source = functools.partial(_source, "Du (2019)")

# E|z| = √(2/π), z ~ N(0, 1); E|z|³ is twice that.
ABSOLUTE_MOMENT = math.sqrt(2 / math.pi)


class InitialNorms(NamedTuple):
    """What bounds the norms of a network at its initialization, for all layers and samples.

    Attributes:
      weight: c_{w,0}, with ‖W^(h)(0)‖ ≤ c_{w,0} √m, the spectral norm.
      feature: c_{x,0} ≥ 1, with ‖x^(h)(0)‖ ≤ c_{x,0}; over all pixels where there are any.
      output: a_{2,0}, with ‖a(0)‖_2 ≤ a_{2,0} √m, for every pixel.
      output_fourth: a_{4,0}, with ‖a(0)‖_4 ≤ a_{4,0} m^(1/4), for every pixel.
    """

    weight: ArrayLike
    feature: ArrayLike
    output: ArrayLike
    output_fourth: ArrayLike


class Patches(NamedTuple):
    """What a convolution adds to the ResNet.

    Attributes:
      pixels: p.
      filter_size: q, the number of pixels in a patch.
    """

    pixels: ArrayLike
    filter_size: ArrayLike


def measured_norms(params: Mapping[str, Array], features: Array) -> InitialNorms:
    """The smallest `InitialNorms` that hold for one network on its inputs.

    Args:
      params: "layer_1" (d, m), "layer_h" (m, m), "output" (m,); of a convolution (q, d, m),
        (q, m, m) and (p, m).
      features: x^(h) of all samples, shape (layers, n, ...).

    Example:
      >>> params = {"layer_1": 2 * jnp.eye(4), "output": jnp.array([1.0, -1.0, 1.0, -1.0])}
      >>> norms = measured_norms(params, jnp.full((1, 3, 4), 0.75))
      >>> [float(value) for value in norms]
      [1.0, 1.5, 1.0, 1.0]
    """
    output = params["output"]
    m = output.shape[-1]
    kernels = [leaf for name, leaf in params.items() if name != "output"]
    weight = jnp.stack([jnp.linalg.norm(w.reshape(-1, m), ord=2) for w in kernels]).max()
    sizes = jnp.linalg.norm(features.reshape(*features.shape[:2], -1), axis=-1)
    second, fourth = (jnp.mean(jnp.abs(output) ** power, axis=-1) for power in (2, 4))
    return InitialNorms(
        weight / m**0.5, jnp.maximum(sizes.max(), 1.0), second.max() ** 0.5, fourth.max() ** 0.25
    )


def geometric_series(ratio: ArrayLike, terms: ArrayLike) -> Any:
    """g_α(n) = Σ_{i<n} αⁱ, for α ≥ 0; infinite where it overflows.

    Example:
      >>> [round(float(geometric_series(ratio, 3)), 12) for ratio in (0.0, 1.0, 2.0)]
      [1.0, 3.0, 7.0]
    """
    check(ratio=ratio, terms=terms)
    lib = library(ratio, terms)
    apart = lib.where(lib.equal(ratio, 1), 2.0, ratio)  # from 1, where the quotient is 0/0
    with np.errstate(over="ignore"):
        quotient = lib.expm1(terms * lib.log(lib.maximum(apart, 1e-30))) / (apart - 1)
    return _number(lib.where(lib.equal(ratio, 1), real(terms), quotient), ratio, terms)


def power(base: ArrayLike, exponent: ArrayLike) -> Any:
    """base^exponent; infinite, not an error, where it overflows."""
    with np.errstate(over="ignore"):
        return _number(library(base, exponent).power(real(base), exponent), base, exponent)


def _number(value: Any, *arguments: ArrayLike) -> Any:
    """Of Python's numbers a Python number, which takes the dtype of arrays that it meets."""
    return float(value) if all(isinstance(a, float | int) for a in arguments) else value


def smallest(*values: ArrayLike) -> Any:
    return functools.reduce(library(*values).minimum, values)


def largest(*values: ArrayLike) -> Any:
    return functools.reduce(library(*values).maximum, values)


def layer_growth(constants: ActivationConstants, norms: InitialNorms) -> Any:
    """c_x = 2 √c_σ L c_{w,0}: by how much one fully connected layer can stretch a perturbation."""
    check_lipschitz(constants)
    return 2 * constants.normalization**0.5 * constants.lipschitz * norms.weight


def check_norms(norms: InitialNorms) -> None:
    if not isinstance(norms, InitialNorms):
        raise ValueError(
            f"norms is of type {type(norms).__name__}; expected InitialNorms, of `initial_norms` "
            "or `measured_norms`."
        )
    check(**{f"norms.{name}": value for name, value in norms._asdict().items()})


def check_lipschitz(constants: ActivationConstants) -> None:
    """Refuse an activation without a Lipschitz constant, of which no lemma speaks."""
    if math.isinf(constants.lipschitz):
        raise ValueError(
            "constants.lipschitz is inf: the activation jumps or its slope is unbounded. Condition "
            "3.1 asks for a Lipschitz activation; take one such as jax.nn.softplus."
        )


def check_smooth(constants: ActivationConstants) -> None:
    """Refuse an activation with a kink, of which no lemma on training speaks."""
    check_lipschitz(constants)
    if math.isinf(constants.smoothness):
        raise ValueError(
            "constants.smoothness is inf: the activation has a kink. Condition 3.1 asks for a "
            "Lipschitz derivative; take a smooth activation such as jax.nn.softplus."
        )


def check_residual(residual: ArrayLike) -> None:
    """Refuse c_res outside (0, 1).

    >>> check_residual(1.5)
    Traceback (most recent call last):
    ...
    ValueError: residual is 1.5; expected c_res in (0, 1), as in equation (3.3).
    """
    if checks.is_concrete(residual):
        value = np.asarray(residual)
        within = jnp.issubdtype(value.dtype, jnp.floating) and np.all((value > 0) & (value < 1))
        if not within:
            raise ValueError(
                f"residual is {residual!r}; expected c_res in (0, 1), as in equation (3.3)."
            )


def one_residual(residual: Any) -> Any:
    """c_res of one network, on the host where it can be read."""
    if np.shape(residual):
        raise ValueError(
            f"residual has shape {np.shape(residual)}; expected one number, c_res in (0, 1): "
            "for several networks at once take jax.vmap."
        )
    check_residual(residual)
    return float(residual) if checks.is_concrete(residual) else residual


def check_depth(depth: ArrayLike) -> None:
    """Refuse H = 1, where G^(H) of a ResNet has √c_σ for c_res/H."""
    check(depth=depth)
    if checks.is_concrete(depth) and not np.all(np.asarray(depth) >= 2):
        raise ValueError(
            f"depth is {depth}; expected 2 or more: without a residual layer it is no ResNet. Take "
            "the bounds of the fully connected network."
        )


def sizes_of(patches: Patches | None) -> tuple[Any, Any]:
    """p and q in floating point, 1 and 1 without a convolution."""
    if patches is None:
        return 1.0, 1.0
    if not isinstance(patches, Patches):
        raise ValueError(
            f"patches is {patches!r}; expected Patches(pixels, filter_size), or None without a "
            "convolution."
        )
    check(pixels=patches.pixels, filter_size=patches.filter_size)
    return real(patches.pixels), real(patches.filter_size)
