"""Hermite coefficients of any function under the standard normal law, and its norm.

Probabilists' polynomials throughout: He₀ = 1, He₁ = z, He₂ = z² − 1, with E[He_i He_j] = i! δ_ij.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import gammaln
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.arccos import safe_sqrt
from ntkflow.kernels.breaks import piecewise
from ntkflow.kernels.quadrature import Piecewise, interval_rule

_END = 12.5  # the density beyond is below 1e-34
_NODES = 32  # in each panel
_FIXED = np.arange(-4.0, 5.0) * _END / 5  # cuts of z, for the polynomials
_SCALED = np.outer([-1.0, 1.0], 3.0 ** np.arange(7)).ravel()  # cuts of scale·z, for φ


def hermite_coefficients(
    phi: Callable, terms: int, scale: ArrayLike = 1.0, *, normalized: bool = False
) -> Array:
    """Compute the Hermite coefficients of z ↦ φ(scale·z).

    c_i = E[φ(scale·z) He_i(z)], z ~ N(0, 1), so that φ(scale·z) = Σ_i (c_i/i!) He_i(z) and
    Σ_i c_i²/i! = E[φ(scale·z)²].

    Gauss–Legendre panels, cut where `ntkflow.kernels.breaks.piecewise` finds that φ or a derivative
    breaks: a kink costs no accuracy, whereas Gauss–Hermite with 200 nodes errs by 1e-4 for ELU.
    For scales from 0.01 to 100 and i up to 256, the error of c_i/√i! of the activations in use is
    below 1e-14 √E[φ²] in float64 and 3e-6 √E[φ²] in float32 (`tests/kernels/test_hermite.py`);
    c_0 to c_8 at scale 1 then come out to 3e-6 in float32. Not resolved is what oscillates in
    scale·z faster than the polynomials do, sin(100 z) say, or grows like exp(3z).
    Memory: some 850 numbers for each scale.

    Args:
      phi: an elementwise function of floating-point arrays.
      terms: how many coefficients, from c_0 on.
      scale: standard deviation of the argument, ω₁ for a weight; an array of any shape, which may
        be traced and differentiated. Its dtype is that of the result.
      normalized: c_i/√i! instead, the coefficients by orthonormal polynomials, which do not
        overflow (√i! does, at i = 301 in float64 and i = 57 in float32).

    Returns:
      Shape (terms, *scale.shape).

    Raises:
      ValueError: `phi` is no elementwise function or is NaN somewhere, `terms` is not positive, or
        the scale is negative or not finite.

    Example:
      >>> print(hermite_coefficients(jnp.tanh, terms=6)[1::2].round(7))
      [ 0.6057055 -0.3635954  0.6851738]

    Reference: Song et al. (2021), Definition 4, equations (47), (48) and (52).
    """
    terms = checks.positive_int("terms", terms)
    scale = _scale(scale)
    found = _coefficients(_pieces(phi), terms, scale)
    if normalized:
        return found
    roots = jnp.exp(gammaln(jnp.arange(1, terms + 1, dtype=scale.dtype)) / 2)
    return found * roots.reshape(-1, *[1] * scale.ndim)


def hermite_norm(
    phi: Callable, scale: ArrayLike = 1.0, *, printed: bool = False, terms: int = 13
) -> Array:
    """Compute the Hermite norm of z ↦ φ(scale·z), √(Σ_i c_i²/i!) = √E[φ(scale·z)²].

    Definition 4 prints √(Σ_i c_i²), which is infinite for each activation of the paper: E[He_i²] is
    i!, not 1. With the paper's own c_i the sum that is finite, and that its proof needs, has 1/i!.

    Args:
      phi: an elementwise function.
      scale: standard deviation of the argument.
      printed: the partial sums of the printed series instead, √(Σ_{i<k} c_i²) for k = 1, ...,
        terms; they grow without bound.
      terms: how many of them.

    Returns:
      Shape of `scale`; printed, (terms, *scale.shape).

    Raises:
      ValueError: as for `hermite_coefficients`.

    Example:
      >>> round(float(hermite_norm(jnp.tanh)) ** 2, 7)  # E[tanh(z)²]
      0.3942945
      >>> hermite_norm(jnp.tanh, printed=True, terms=13)[::4].round(2).tolist()
      [0.0, 0.71, 2.44, 65.91]

    Reference: Song et al. (2021), Definition 4, corrected.
    """
    if printed:
        return jnp.sqrt(jnp.cumsum(hermite_coefficients(phi, terms, scale) ** 2, axis=0))
    return safe_sqrt(_tail(_pieces(phi), 0, _scale(scale)))


def hermite_tail(phi: Callable, start: int = 2, scale: ArrayLike = 1.0) -> Array:
    """Compute Σ_{i≥start} c_i²/i!; from 2 on it is the paper's c_∞².

    As E[(φ − Σ_{i<start} (c_i/i!) He_i)²], a sum of squares: E[φ²] − c_0² − c_1² would lose the
    digits of a small tail.

    Args:
      phi: an elementwise function.
      start: the first term of the sum.
      scale: standard deviation of the argument.

    Returns:
      Shape of `scale`, 0 or greater.

    Raises:
      ValueError: `start` is not positive, or as for `hermite_coefficients`.

    Example:
      >>> round(float(hermite_tail(jnp.tanh)), 7)
      0.0274153

    Reference: Song et al. (2021), appendix E.1, c_∞.
    """
    start = checks.positive_int("start", start)
    return _tail(_pieces(phi), start, _scale(scale))


def _pieces(phi: Callable) -> Piecewise:
    checks.elementwise("phi", phi)
    return piecewise(phi)[0]


def _scale(scale: ArrayLike) -> Array:
    array = jnp.asarray(scale)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(f"scale is {scale}; expected a real standard deviation.")
    array = checks.floating(array)
    checks.finite("scale", array)
    if checks.is_concrete(array) and (np.asarray(array) < 0).any():
        raise ValueError(f"scale is {scale}; expected a standard deviation, 0 or greater.")
    return array


@functools.partial(jax.jit, static_argnums=(0, 1))
def _coefficients(phi: Piecewise, terms: int, scale: Array) -> Array:
    """E[f(scale·z) h_i(z)], h_i orthonormal, shape (terms, *scale.shape)."""
    z, weights = _rule(phi.breaks, scale)
    weighted = weights * phi.function(scale[None].astype(z.dtype) * z)

    def term(carry, i):
        before, current = carry
        total = jnp.sum(weighted * current, axis=0)
        after = (z * current - jnp.sqrt(i) * before) / jnp.sqrt(i + 1)
        return (current, after), total

    start = jnp.zeros_like(z), jnp.ones_like(z)
    return jax.lax.scan(term, start, jnp.arange(terms, dtype=z.dtype))[1].astype(scale.dtype)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _tail(phi: Piecewise, start: int, scale: Array) -> Array:
    z, weights = _rule(phi.breaks, scale)
    rest = phi.function(scale[None].astype(z.dtype) * z)
    before, current = jnp.zeros_like(z), jnp.ones_like(z)
    for i in range(start):
        rest -= jnp.sum(weights * rest * current, axis=0)[None] * current
        before, current = current, (z * current - i**0.5 * before) / (i + 1) ** 0.5
    return jnp.sum(weights * rest * rest, axis=0).astype(scale.dtype)


def _rule(breaks: tuple[float, ...], scale: Array) -> tuple[Array, Array]:
    """Nodes z and weights, with the density, for E[g(z)] of g smooth between breaks/scale.

    Shape (nodes, *scale.shape). Cuts of two kinds: where scale·z passes a break, or 0, ±1, ±3, ±9
    and so on, near which an activation bends; and fixed ones, which a polynomial needs.
    """
    scale = scale.astype(
        jnp.promote_types(scale.dtype, jnp.float32)
    )  # half is too coarse to sum in
    dtype = scale.dtype
    column = (-1, *[1] * scale.ndim)
    own = jnp.asarray(np.concatenate([breaks, _SCALED]), dtype).reshape(column)
    own = jnp.clip(own / jnp.maximum(scale, 1e-30)[None], -_END, _END)
    fixed = jnp.asarray(np.append(_FIXED, [-_END, _END]), dtype).reshape(column)
    fixed = jnp.broadcast_to(fixed, (fixed.shape[0], *scale.shape))
    edges = jnp.sort(jnp.concatenate([own, fixed]), axis=0)
    unit, unit_weights = (
        jnp.asarray(a, dtype).reshape(1, *column) for a in interval_rule(_NODES, 1.0)
    )
    width = jnp.diff(edges, axis=0)[:, None]
    z = edges[:-1, None] + width * unit
    weights = width * unit_weights * jnp.exp(-z * z / 2) * (2 * np.pi) ** -0.5
    shape = (width.shape[0] * _NODES, *scale.shape)
    return z.reshape(shape), weights.reshape(shape)
