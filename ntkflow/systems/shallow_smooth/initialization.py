"""The deviations ω₁ and ω₂ of the initial weights: He's, LeCun's, and families of one product."""

import math
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.shallow_smooth.arguments import check, library, real, source
from ntkflow.theory import Bound


class Scales(NamedTuple):
    """Standard deviations of the initial weights; a pair that unpacks into `ShallowSmooth`.

    Attributes:
      omega1: ω₁ of the hidden layer.
      omega2: ω₂ of the output layer.
    """

    omega1: ArrayLike
    omega2: ArrayLike


def he(d_0: int, d_1: int) -> Scales:
    """He's deviations, ω₁ = √(2/d_0) and ω₂ = √(2/d_1).

    Their product is 2/√(d_0 d_1), the number that the paper's Figure 1 keeps.

    Example:
      >>> scales = he(784, 1000)
      >>> round(scales.omega1, 6), round(scales.omega2, 6), round(scales.omega1 * scales.omega2, 7)
      (0.050508, 0.044721, 0.0022588)

    References:
      Song et al. (2021), section 6; He et al. (2015), "Delving deep into rectifiers".
    """
    return _from_fan_in(2.0, d_0, d_1)


def lecun(d_0: int, d_1: int) -> Scales:
    """LeCun's deviations, ω₁ = 1/√d_0 and ω₂ = 1/√d_1.

    Example:
      >>> lecun(4, 100)
      Scales(omega1=0.5, omega2=0.1)

    Reference: Song et al. (2021), section 6.
    """
    return _from_fan_in(1.0, d_0, d_1)


def fixed_product(product: ArrayLike, omega2: ArrayLike) -> Scales:
    """The member with deviation ω₂ of the family of one product: ω₁ = product/ω₂.

    Positively homogeneous φ of degree 1 give the same initial network, in law, all along the
    family; what differs is which layer moves.

    Args:
      product: ω₁ω₂ > 0; He's, in the paper's experiment.
      omega2: ω₂ > 0; an array gives a Scales of arrays, for `jax.vmap`.

    Example:
      >>> fixed_product(0.5, omega2=0.25)
      Scales(omega1=2.0, omega2=0.25)

    Reference: Song et al. (2021), section 6 and appendix G.
    """
    check(product=product, omega2=omega2)
    return Scales(product / omega2, omega2)


def largest_product(
    d_0: ArrayLike, d_1: ArrayLike, slope: ArrayLike | None = None, constant: ArrayLike = 1.0
) -> Bound:
    """The largest ω₁ω₂ of Theorem 3: c/√(d_0 d_1), or c/(φ'_max √(d_0 d_1) log d_1) given φ'_max.

    The first is the theorem's (19), up to the logarithm that the proof needs; the second is the
    proof's (74), which needs d_1 ≥ 2.

    Args:
      d_0, d_1: numbers of inputs and of neurons.
      slope: φ'_max = sup |φ'|; None for (19).
      constant: c, which the paper leaves open.

    Raises:
      ValueError: a number is not in its range.

    Example:
      >>> float(largest_product(784, 1000).value.round(7))  # half of He's
      0.0011294
      >>> float(largest_product(784, 1000, slope=1.0).value.round(7))
      0.0001635

    Reference: Song et al. (2021), equations (19) and (74).
    """
    check(d_0=d_0, d_1=d_1, constant=constant)
    if slope is None:
        value = constant / library(d_0, d_1, constant).sqrt(real(d_0) * d_1)
        return Bound(value, "c / √(d_0 d_1)", constant, source("Theorem 3, (19)"))
    check(slope=slope)
    if checks.is_concrete(d_1) and np.any(np.asarray(d_1) < 2):
        raise ValueError(f"d_1 is {d_1}; expected 2 or greater, as (74) divides by log d_1.")
    xp = library(d_0, d_1, constant, slope)
    value = constant / (slope * xp.sqrt(real(d_0) * d_1) * xp.log(real(d_1)))
    return Bound(value, "c / (φ'_max √(d_0 d_1) log d_1)", constant, source("E.5, (74)"))


def _from_fan_in(gain: float, d_0: int, d_1: int) -> Scales:
    d_0, d_1 = checks.positive_int("d_0", d_0), checks.positive_int("d_1", d_1)
    return Scales(math.sqrt(gain / d_0), math.sqrt(gain / d_1))
