"""Filters that teachers have on images: random ones, and Gabor's.

Square filters of size² entries, row by row as `ntkflow.data.image_patches` has them:
`w.reshape(size, size)` is the picture. Scales do not matter to gradient descent: f(cw) = c f(w) for
c > 0, so that c w* learned from c w_0 is c times w* learned from w_0.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.arguments import FINITE_POSITIVE, checker, one_number

# σ/λ with which the response is one half at the frequencies 2/(3λ) and 4/(3λ), an octave apart.
_ONE_OCTAVE = 3 / math.pi * math.sqrt(math.log(2) / 2)

_check = checker(**dict.fromkeys(("wavelength", "sigma", "aspect"), FINITE_POSITIVE))


def random_filter(key: jax.Array, size: int, dtype: Any = float) -> jax.Array:
    """Draw a filter of independent entries N(0, 1).

    Args:
      key: PRNG key.
      size: pixels along a side, static.
      dtype: floating-point type.

    Returns:
      w, shape (size²,).

    Raises:
      ValueError: `size` is no whole number greater than 0.

    Example:
      >>> random_filter(jax.random.key(0), 5).shape
      (25,)

    Reference: Du (2019), section 6.4, Figure 6.4a; its size is not given.
    """
    checks.prng_key(key)
    return jax.random.normal(key, (checks.positive_int("size", size) ** 2,), dtype)


def gabor_filter(
    size: int,
    wavelength: ArrayLike,
    orientation: ArrayLike = 0.0,
    phase: ArrayLike = 0.0,
    sigma: ArrayLike | None = None,
    aspect: ArrayLike = 0.5,
    dtype: Any = float,
) -> jax.Array:
    """Compute a Gabor filter: a plane wave under a Gaussian envelope.

    w(x, y) = exp(−(u² + γ²v²)/(2σ²)) cos(2πu/λ + ψ), with u = x cos θ + y sin θ and
    v = y cos θ − x sin θ; x counts pixels to the right from the center, y downwards.

    Args:
      size: pixels along a side, static. For an even one the center lies between pixels.
      wavelength: λ, in pixels. Below 2 the pixels cannot resolve the wave.
      orientation: θ, in radians, from the x axis to the normal of the stripes; π/2 has them
        horizontal.
      phase: ψ, in radians: 0 gives an even filter, π/2 an odd one.
      sigma: σ, in pixels. None takes 0.5622 λ: frequencies that are answered by half the response
        at 1/λ lie an octave apart.
      aspect: γ, the envelope's width along u over that along v.
      dtype: floating-point type.

    All but the size may be traced.

    Returns:
      w, shape (size²,), between −1 and 1.

    Raises:
      ValueError: `size` is no whole number greater than 0; λ, σ or γ not positive; an argument
        that is no one finite number.

    Example:
      >>> draw = jax.jit(gabor_filter, static_argnums=0)
      >>> np.asarray(draw(3, wavelength=4.0, aspect=1.0)).reshape(3, 3).round(2).tolist()
      [[0.0, 0.91, 0.0], [0.0, 1.0, 0.0], [0.0, 0.91, 0.0]]

    Reference: Daugman (1985), "Uncertainty relation for resolution in space, spatial frequency, and
    orientation optimized by two-dimensional visual cortical filters"; Du (2019), section 6.4,
    Figure 6.4b, does not say which.
    """
    size = checks.positive_int("size", size)
    sigma = _ONE_OCTAVE * wavelength if sigma is None else sigma
    turned = {"orientation": orientation, "phase": phase}
    shaped = {"wavelength": wavelength, "sigma": sigma, "aspect": aspect}
    one_number(**turned, **shaped)
    _check(**shaped)
    for name, value in turned.items():
        checks.finite(name, value)
    wavelength, sigma, aspect, orientation, phase = (
        jnp.asarray(value, dtype) for value in (*shaped.values(), *turned.values())
    )
    pixel = jnp.asarray(np.arange(size) - (size - 1) / 2, dtype)
    x, y = jnp.tile(pixel, size), jnp.repeat(pixel, size)
    u = x * jnp.cos(orientation) + y * jnp.sin(orientation)
    v = y * jnp.cos(orientation) - x * jnp.sin(orientation)
    envelope = jnp.exp(-(jnp.square(u / sigma) + jnp.square(aspect * v / sigma)) / 2)
    return envelope * jnp.cos(2 * jnp.pi * u / wavelength + phase)
