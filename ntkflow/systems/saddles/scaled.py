"""Numbers too small for floating point: a mantissa in [½, 1) and an exponent of their own.

A coordinate that waits at saddle point after saddle point is 2^−2510 when its turn comes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow.systems.saddles.arguments import floating


class Scaled(NamedTuple):
    """Numbers x = mantissa · 2^exponent, elementwise.

    Products round the mantissa once, as those of floating point do, at any size of x; a logarithm
    of |x| would round in proportion to |log |x||.

    Attributes:
      mantissa: ½ ≤ |mantissa| < 1 with the sign of x, or 0; floating point.
      exponent: int32, of the same shape; 0 where x is 0.
    """

    mantissa: jax.Array
    exponent: jax.Array


def to_scaled(x: ArrayLike) -> Scaled:
    """The numbers `x`, exactly.

    Args:
      x: floating point, of any shape. Numbers below the smallest normal one may be taken for 0, as
        XLA does.

    Returns:
      Of the shape and precision of `x`.

    Example:
      >>> to_scaled(jnp.array([6.0, -0.25])).mantissa.tolist()
      [0.75, -0.5]
    """
    return Scaled(*jnp.frexp(floating("x", x)))


def from_scaled(number: Scaled) -> jax.Array:
    """The number in floating point: 0 where it is too small.

    Example:
      >>> small = Scaled(jnp.array([0.5, 0.5]), jnp.array([-3, -10000], jnp.int32))
      >>> from_scaled(small).tolist()
      [0.0625, 0.0]
    """
    return jnp.ldexp(number.mantissa, number.exponent)


def multiply(number: Scaled, factor: ArrayLike) -> Scaled:
    """`factor` times the number: 0 below 2^(4096 − 2³¹), where the exponent leaves int32.

    Args:
      number: the numbers.
      factor: floating point, of the same shape or a scalar.

    Returns:
      The product, in the precision of `number`.

    Example:
      >>> tiny = Scaled(jnp.array(0.75), jnp.array(-5000, jnp.int32))
      >>> [float(part) for part in multiply(tiny, -0.5)]
      [-0.75, -5001.0]
    """
    product = number.mantissa * jnp.asarray(factor, number.mantissa.dtype)
    mantissa, exponent = jnp.frexp(product)
    # The factor's exponent is above −2048: compared before it is added, as the sum may wrap.
    gone = (mantissa == 0) | (number.exponent < 4096 - 2**31)
    return Scaled(jnp.where(gone, 0, mantissa), jnp.where(gone, 0, number.exponent + exponent))


def log_magnitude(number: Scaled) -> jax.Array:
    """log |x|, the natural logarithm: −∞ for 0.

    Example:
      >>> round(float(log_magnitude(Scaled(jnp.array(-0.5), jnp.array(-9999, jnp.int32)))), 3)
      -6931.472
    """
    dtype = number.mantissa.dtype
    scale = number.exponent.astype(dtype) * jnp.log(jnp.asarray(2, dtype))
    return jnp.log(jnp.abs(number.mantissa)) + scale
