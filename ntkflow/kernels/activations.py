"""Activations with closed-form Gaussian expectations, and how one is told from its values.

Each family is a function of few parameters; a function belongs to one when parameters read off
at 0, ±1 and ±∞ give back its values, to rounding, on a dense set of points. Polynomials are
read from the code instead.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ntkflow.kernels.arccos import orders_01, safe_sqrt
from ntkflow.kernels.polynomials import polynomial_coefficients
from ntkflow.kernels.quadrature import derivative, elementwise

# Both E[φ(u) φ(v)] and E[φ'(u) φ'(v)] of the covariances k₁₁, k₁₂, k₂₂.
Pair = Callable[[Array, Array, Array], tuple[Array, Array]]


class Family(NamedTuple):
    """A family of activations, and the member of it that was found.

    Attributes:
      name: the name of the family: a key of `closed_forms`.
      parameters: those of that closed form, in its order.
    """

    name: str
    parameters: tuple[float, ...]


def rectifier(right: float, left: float) -> Pair:
    """φ(x) = right·max(x, 0) + left·min(x, 0): ReLU, LeakyReLU, |x|, the identity.

    E[φφ] = right·left·k₁₂ + ½ (right − left)² k₁, E[φ'φ'] = right·left + ½ (right − left)² k₀, with
    the arc-cosine kernels of order 1 and 0; φ'(0) counts as the mean of the slopes.
    """

    def pair(k11, k12, k22):
        if k11 is k12 is k22:  # variances: no angle to take
            mean = (right**2 + left**2) / 2
            return mean * k12, jnp.full_like(k12, mean)
        if right == left:
            shape = jnp.broadcast_shapes(k11.shape, k12.shape, k22.shape)
            return tuple(jnp.broadcast_to(right**2 * k, shape) for k in (k12, jnp.ones_like(k12)))
        k0, k1 = orders_01(safe_sqrt(k11), safe_sqrt(k22), k12)
        both, half = right * left, (right - left) ** 2 / 2
        return (both * k12 + half * k1, both + half * k0) if both else (half * k1, half * k0)

    return pair


def step(right: float, left: float) -> Pair:
    """φ = right where x > 0, left where x < 0: the unit step, the sign.

    E[φφ] = right·left + ½ (right − left)² k₀; φ' is 0 almost everywhere, hence E[φ'φ'] = 0, which
    is what automatic differentiation sees, and not ∂E[φφ]/∂k₁₂. φ(0) counts as the mean of the
    values.
    """

    def pair(k11, k12, k22):
        k0, _ = orders_01(safe_sqrt(k11), safe_sqrt(k22), k12)
        return right * left + (right - left) ** 2 / 2 * k0, jnp.zeros_like(k0)

    return pair


def polynomial(*coefficients: float) -> Pair:
    """φ(x) = Σⱼ cⱼ xʲ. E[φφ] = Σₖ k! bₖ(k₁₁) bₖ(k₂₂) k₁₂ᵏ with the coefficients
    bₖ(q) = Σₘ c₂ₘ₊ₖ qᵐ (2m + k)! / (2ᵐ m! k!) of φ(√q z) by Hermite polynomials of z, over √qᵏ."""

    def expectation(c, k11, k12, k22):
        total = jnp.zeros(jnp.broadcast_shapes(k11.shape, k12.shape, k22.shape), k12.dtype)
        for k in reversed(range(len(c))):
            # k! is shared between the two factors, so that neither overflows.
            b = [
                c[j] * math.factorial(j) / 2**m / math.factorial(m) / math.sqrt(math.factorial(k))
                for m, j in enumerate(range(k, len(c), 2))
            ]
            total = total * k12 + _horner(b, k11) * _horner(b, k22)
        return total

    def pair(k11, k12, k22):
        slopes = [j * c for j, c in enumerate(coefficients)][1:] or [0.0]
        return expectation(coefficients, k11, k12, k22), expectation(slopes, k11, k12, k22)

    return pair


def _horner(coefficients: list[float], x: Array) -> Array:
    total = jnp.zeros_like(x)
    for c in reversed(coefficients):
        total = total * x + c
    return total


def _determinant(s: float, k11: Array, k12: Array, k22: Array) -> Array:
    """det(1 + s K)."""
    return 1 + s * (k11 + k22) + s * s * (k11 * k22 - k12 * k12)


def erf(amplitude: float, scale: float, offset: float) -> Pair:
    """φ(x) = amplitude·erf(scale·x) + offset. With s = 2 scale² and D = det(1 + s K),
    E[erf erf] = (2/π) arctan(s k₁₂/√D), E[φ'φ'] = amplitude² (2/π) s/√D (Williams 1997)."""

    def pair(k11, k12, k22):
        s = 2 * scale**2
        root = jnp.sqrt(_determinant(s, k11, k12, k22))
        power = 2 / np.pi * amplitude**2
        return offset**2 + power * jnp.arctan(s * k12 / root), power * s / root

    return pair


def gelu(amplitude: float, scale: float) -> Pair:
    """φ(x) = amplitude·x Φ(scale·x), Φ the normal distribution function.

    φ = ½ amplitude (x + x erf(scale·x/√2)), whose cross terms are odd. With s = scale²,
    D = det(1 + s K) and G = E[erf(u·) erf(v·)] = (2/π) arctan(s k₁₂/√D), two integrations by
    parts give T = E[u erf(u·) v erf(v·)] =
    k₁₂ G + (2s/π√D) (k₁₁k₂₂ + k₁₂² − s k₁₂² (k₁₁/(1 + s k₁₁) + k₂₂/(1 + s k₂₂))); then
    E[φφ] = ¼ amplitude² (k₁₂ + T), and E[φ'φ'] = ∂E[φφ]/∂k₁₂.
    """

    def pair(k11, k12, k22):
        s = scale**2
        d = _determinant(s, k11, k12, k22)
        root = jnp.sqrt(d)
        angle = 2 / np.pi * jnp.arctan(s * k12 / root)
        density = 2 * s / (np.pi * root)
        shrink = s * (k11 / (1 + s * k11) + k22 / (1 + s * k22))
        bracket = k11 * k22 + (1 - shrink) * k12 * k12
        value = k12 + k12 * angle + density * bracket
        # ∂(1/√D)/∂k₁₂ = s² k₁₂ / D^{3/2}
        slope = 1 + angle + density * k12 * (1 + 2 * (1 - shrink) + s * s * bracket / d)
        return amplitude**2 / 4 * value, amplitude**2 / 4 * slope

    return pair


def sinusoid(amplitude: float, frequency: float, phase: float) -> Pair:
    """φ(x) = amplitude·sin(frequency·x + phase). With t = frequency² k₁₂ and
    m = frequency² (k₁₁ + k₂₂)/2, E[φφ] = amplitude² e⁻ᵐ (sin²phase cosh t + cos²phase sinh t);
    φ' is the member with another amplitude and the phase plus π/2."""

    def pair(k11, k12, k22):
        square = frequency**2
        t, m = square * k12, square * (k11 + k22) / 2
        # Written so that nothing overflows, and small t keep their digits.
        sign = jnp.where(t >= 0, 1, -1)
        grown, rest = jnp.exp(sign * t - m), jnp.expm1(-2 * sign * t)
        cosh, sinh = grown * (1 + rest / 2), -sign * grown * rest / 2
        a, b = amplitude**2 * math.sin(phase) ** 2, amplitude**2 * math.cos(phase) ** 2
        return a * cosh + b * sinh, square * (b * cosh + a * sinh)

    return pair


def exponential(amplitude: float, rate: float) -> Pair:
    """φ(x) = amplitude·exp(rate·x): E[φφ] = amplitude² exp(½ rate² (k₁₁ + 2 k₁₂ + k₂₂))."""

    def pair(k11, k12, k22):
        value = amplitude**2 * jnp.exp(rate**2 / 2 * (k11 + 2 * k12 + k22))
        return value, rate**2 * value

    return pair


def gaussian(amplitude: float, rate: float) -> Pair:
    """φ(x) = amplitude·exp(−rate·x²), rate > 0. With D = det(1 + 2 rate K), E[φφ] = amplitude²/√D
    and E[φ'φ'] = 4 rate² amplitude² k₁₂ / D^{3/2}."""

    def pair(k11, k12, k22):
        d = _determinant(2 * rate, k11, k12, k22)
        value = amplitude**2 / jnp.sqrt(d)
        return value, 4 * rate**2 * value * k12 / d

    return pair


closed_forms: dict[str, Callable[..., Pair]] = {
    "rectifier": rectifier,
    "step": step,
    "polynomial": polynomial,
    "erf": erf,
    "gelu": gelu,
    "sinusoid": sinusoid,
    "exponential": exponential,
    "gaussian": gaussian,
}


def sample(phi: Callable, x: np.ndarray) -> np.ndarray | None:
    """φ(x) in the widest enabled dtype, as float64 on the host, also under a trace.

    Args:
      phi: a function wrapped by `jax.jit`: inside `vmap`, primitives with derivative rules of
        their own escape `ensure_compile_time_eval` otherwise.
      x: points, of any number.

    Returns:
      The values; None where φ has none yet because it closes over traced ones, or has no
      derivative that was asked for.
    """
    try:
        with jax.ensure_compile_time_eval():
            padded = np.resize(x, -(-x.size // 2048) * 2048)  # one length: one compilation
            values = phi(jnp.asarray(padded, jnp.result_type(float)))
            return np.asarray(values, np.float64)[: x.size]
    except (jax.errors.TracerArrayConversionError, NotImplementedError):
        return None


_DENSE = np.linspace(-8.0, 8.0, 2001)
_SCALED = np.linspace(-30.0, 30.0, 2001)
_DECADES = np.outer([1.0, -1.0], 10.0 ** np.arange(-30, 31)).ravel()


def recognise(phi: Callable) -> Family | None:
    """Tell which family with a closed form `phi` belongs to, by what it computes.

    `jax.nn.relu`, `lambda x: jnp.maximum(x, 0)` and `lambda x: (x + jnp.abs(x)) / 2` are one
    function, and are found to be. Relatives are not mistaken: values are compared to rounding (of
    float64 if it is enabled) at 2001 points in [−8, 8], and as far out and as near to 0 as the
    family asks. A function that differs from a family nowhere there is not told from it.

    Args:
      phi: an elementwise function.

    Returns:
      The family and its parameters; None where none fits, or `phi` has no values yet because it
      closes over traced ones.

    Example:
      >>> recognise(lambda x: 0.5 * (x + jnp.abs(x)))
      Family(name='rectifier', parameters=(1.0, 0.0))
      >>> recognise(jax.nn.softplus) is None
      True
    """
    phi = jax.jit(elementwise(phi))
    ends = sample(phi, np.array([1.0, -1.0, 0.0, 1e30]))
    if ends is None:
        return None
    right, left, at_0, far = ends
    with np.errstate(all="ignore"):
        if _agrees(phi, lambda x: np.where(x > 0, right * x, -left * x), abs, _DENSE, _DECADES):
            return Family("rectifier", (float(right), float(0 - left)))
        nonzero = _DENSE[_DENSE != 0]
        if right != left and _agrees(
            phi, lambda x: np.where(x > 0, right, left), np.ones_like, nonzero, _DECADES
        ):
            return Family("step", (float(right), float(left)))
        coefficients = polynomial_coefficients(phi)
        if coefficients is not None:
            return Family("polynomial", tuple(coefficients.tolist()))
        return _analytic(phi, at_0, far)


def _analytic(phi: Callable, at_0: np.float64, far: np.float64) -> Family | None:
    """The families whose parameters are read from the derivatives of φ at 0."""
    taylor, f = [at_0], phi
    for _ in range(3):
        f = derivative(f)
        value = sample(jax.jit(f), np.zeros(1))
        if value is None:
            return None
        taylor.append(value[0])
    d0, d1, d2, d3 = taylor

    def fits(name, parameters, function, size, scale):
        found = np.isfinite(parameters).all() and scale != 0
        if not found or not _agrees(phi, function, size, _DENSE, _SCALED / scale):
            return None
        return Family(name, tuple(float(p) for p in parameters))

    def flat(x):
        return np.ones_like(x)

    amplitude = far - d0
    scale = d1 * np.sqrt(np.pi) / (2 * amplitude)
    family = fits(
        "erf", (amplitude, scale, d0), lambda x: d0 + amplitude * _erf(scale * x), flat, scale
    )
    if family:
        return family

    amplitude, scale = 2 * d1, d2 / d1 * np.sqrt(np.pi / 8)
    family = fits(
        "gelu",
        (amplitude, scale),
        lambda x: amplitude * x * (1 + _erf(scale * x / np.sqrt(2))) / 2,
        np.abs,
        scale,
    )
    if family:
        return family

    for square in (-d2 / d0, -d3 / d1):
        w = np.sqrt(square)
        amplitude, phase = np.hypot(d0, d1 / w), np.arctan2(d0, d1 / w)
        family = fits(
            "sinusoid",
            (amplitude, w, phase),
            lambda x: amplitude * np.sin(w * x + phase),
            lambda x: 1 + w * np.abs(x),
            w,
        )
        if family:
            return family

    rate = d1 / d0
    family = fits(
        "exponential",
        (d0, rate),
        lambda x: d0 * np.exp(rate * x),
        lambda x: np.exp(rate * x) * (1 + np.abs(rate * x)),
        rate,
    )
    if family:
        return family

    rate = -d2 / (2 * d0)
    return fits("gaussian", (d0, rate), lambda x: d0 * np.exp(-rate * x * x), flat, np.sqrt(rate))


_erf = np.vectorize(math.erf, otypes=[float])


def _agrees(phi: Callable, function: Callable, size: Callable, *points: np.ndarray) -> bool:
    """Whether φ is `function` at all points, to rounding of `size` times the largest ratio."""
    limits = jnp.finfo(jnp.result_type(float))
    rounding, overflow = 64 * float(limits.eps), float(limits.max)
    for x in points:
        x = x.astype(limits.dtype).astype(np.float64)
        values, expected, weight = sample(phi, x), function(x), size(x)
        finite = (np.abs(expected) < overflow) & np.isfinite(weight)
        if values is None or not finite.any():
            return False
        values, expected, weight = values[finite], expected[finite], weight[finite]
        with_weight = weight > 0
        largest = np.max(np.abs(expected[with_weight]) / weight[with_weight], initial=0.0)
        if not np.all(np.abs(values - expected) <= rounding * largest * weight):
            return False
    return True
