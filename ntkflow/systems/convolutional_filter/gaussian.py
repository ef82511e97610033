"""γ, L, β and L_cross in closed form: Gaussian patches, the unit sphere, and angles in the plane.

Smallest constants that the assumptions of Du (2019), chapter 6, allow, beside those of Theorems 6.7
and 6.8, which are larger. Arguments on the host give NumPy's numbers, Python's in float64.
"""

from typing import Any

import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.convolutional_filter.arguments import check, library, one_number, real
from ntkflow.systems.convolutional_filter.moments import Moments


def gaussian_gamma(phi: ArrayLike, k: int = 1) -> Any:
    """Compute γ(φ) = (π − φ − sin φ)/2πk for k independent patches Z_i ~ N(0, I).

    A_{w,w*} has the eigenvalues (π − φ ± sin φ)/2π, of w/‖w‖ ± w*/‖w*‖, and (π − φ)/2π, the same
    for every w at angle φ. E[Z_i 1{++}] = (w/‖w‖ + w*/‖w*‖)/√(8π) adds to the largest alone, so
    that E[Z_{++} Z_{++}ᵀ] = A/k + (1 − 1/k) E[Z 1{++}] E[Z 1{++}]ᵀ has 1/k of the smallest.

    Args:
      phi: φ in [0, π].
      k: patches, which do not overlap.

    Returns:
      γ(φ), of the shape of φ; 0 at π.

    Raises:
      ValueError: an angle outside of [0, π], k no whole number greater than 0.

    Example:
      >>> [round(float(gaussian_gamma(phi)), 4) for phi in (0.0, np.pi / 2, np.pi)]
      [0.5, 0.0908, 0.0]

    Reference: Du (2019), Definition 6.1 and (6.4). The text after Definition 6.1 has γ(φ) = L(φ)
    for rotation-invariant laws, which holds at 0 and π alone.
    """
    xp, rest, sine = _rest(phi, k)
    return xp.maximum(rest - sine, 0) / (2 * np.pi * k)


def gaussian_smoothness(phi: ArrayLike, k: int = 1) -> Any:
    """Compute L(φ) = (π − φ + sin φ)/2πk + (1 − 1/k)(1 + cos φ)/4π for k patches Z_i ~ N(0, I).

    Args:
      phi: φ in [0, π].
      k: patches, which do not overlap.

    Raises:
      ValueError: an angle outside of [0, π], k no whole number greater than 0.

    Example:
      >>> [round(float(gaussian_smoothness(phi)), 4) for phi in (0.0, np.pi / 2, np.pi)]
      [0.5, 0.4092, 0.0]

    Reference: Du (2019), Definition 6.1 and (6.4).
    """
    xp, rest, sine = _rest(phi, k)
    together = (1 - 1 / k) * (1 + xp.cos(phi)) / (4 * np.pi)
    return xp.maximum(rest + sine, 0) / (2 * np.pi * k) + together


def gaussian_beta(p: int, k: int = 1, *, printed: bool = False) -> float:
    """Compute the smallest β for k patches Z_i ~ N(0, I_p): 1/π for k = 1, in every dimension.

        λ_max(E[Z_{+−} Z_{+−}ᵀ]) = (φ + sin φ)/2πk + (1 − 1/k) sin²(φ/2)/2π ≤ βφ, 0 ≤ φ ≤ π/2;

    for k = 1 the ratio to φ is largest as φ → 0. For k ≥ 2, where it is concave in φ, its maximum
    is found by bisection.

    Args:
      p: entries of a patch, at least 2. The smallest β does not depend on it.
      k: patches, which do not overlap.
      printed: whether to give Theorem 6.8's β = p, for k = 1. It is larger by a factor πp.

    Raises:
      ValueError: p or k no whole number greater than 0, p = 1, the printed one with k > 1.

    Example:
      >>> round(gaussian_beta(10), 4), gaussian_beta(10, printed=True)
      (0.3183, 10.0)

    Reference: Du (2019), Theorem 6.8.
    """
    _check_plane(p)
    checks.positive_int("k", k)
    if printed:
        if k != 1:
            raise ValueError(f"k is {k}; Theorem 6.8, the printed one, is for k = 1 alone.")
        return float(p)
    # (sin φ/φ)' and ((1 − cos φ)/2φ)', times φ².
    share = 1 / k
    slope = lambda x: share * (x * np.cos(x) - np.sin(x)) + (1 - share) * _versine_slope(x)  # noqa: E731
    x = _root(slope)
    sine, versine = (np.sin(x) / x, (1 - np.cos(x)) / (2 * x)) if x else (1.0, 0.0)
    return float((share * (1 + sine) + (1 - share) * versine) / (2 * np.pi))


def gaussian_cross(k: int) -> float:
    """Compute the smallest L_cross for k independent patches Z_i ~ N(0, I_p), p ≥ 2.

    Of independent patches only pairs of different ones count, and each matrix has rank one: the
    three norms are (1 − 1/k)/2π times ½ sin φ, ½ sin φ and sin²(φ/2). Their sum, over φ, is
    largest at φ = 0.6948: L_cross = 1.0883 (1 − 1/k)/2π.

    6 L_cross > γ(0) for every k ≥ 2, so that Theorem 6.3 does not speak of such patches.

    Args:
      k: patches, which do not overlap.

    Raises:
      ValueError: k is no whole number greater than 0.

    Example:
      >>> round(gaussian_cross(2), 4), gaussian_cross(1)
      (0.0866, 0.0)

    Reference: Du (2019), Assumption 6.3.
    """
    checks.positive_int("k", k)
    x = _root(lambda x: x * np.cos(x) - np.sin(x) + _versine_slope(x))
    largest = (np.sin(x) + (1 - np.cos(x)) / 2) / x
    return float((1 - 1 / k) * largest / (2 * np.pi))


def gaussian_moments(phi: ArrayLike, k: int = 1) -> Moments:
    """Collect γ(φ), L(φ), β and L_cross of k independent patches Z_i ~ N(0, I).

    Example:
      >>> moments = gaussian_moments(0.0)
      >>> [round(float(value), 4) for value in moments]
      [0.5, 0.5, 0.3183, 0.0]

    Reference: Du (2019), Assumptions 6.1 to 6.3.
    """
    return Moments(
        gaussian_gamma(phi, k), gaussian_smoothness(phi, k), gaussian_beta(2, k), gaussian_cross(k)
    )


def sphere_moments(phi: ArrayLike, p: int, *, printed: bool = False) -> Moments:
    """Compute γ, L and β for one patch of norm 1 with a rotation-invariant law, in any dimension.

    A law that does not change under rotations has 1/p times E‖Z‖² times the matrices of N(0, I_p),
    hence for ‖Z‖ = 1: γ = (π − φ − sin φ)/2πp, L = (π − φ + sin φ)/2πp, β = 1/πp. The proof of
    Theorem 6.7 leaves out the density 1/2π on the circle: its β = 1, `printed=True`, is a bound
    all the same.

    Args:
      phi: φ in [0, π].
      p: entries of a patch, at least 2.
      printed: whether to give Theorem 6.7's β.

    Raises:
      ValueError: an angle outside of [0, π], p no whole number greater than 1.

    Example:
      >>> [round(float(value), 4) for value in sphere_moments(np.pi / 2, p=2)]
      [0.0454, 0.2046, 0.1592, 0.0]

    Reference: Du (2019), Theorem 6.7.
    """
    _check_plane(p)
    gamma, smoothness, beta, cross = gaussian_moments(phi)
    return Moments(gamma / p, smoothness / p, 1.0 if printed else beta / p, cross)


def angle_mixture_moments(phi: ArrayLike, sigma: ArrayLike) -> Moments:
    """Compute γ(φ), L(φ) and β of `ntkflow.data.angle_mixture` in the plane, by quadrature.

    The signed angle from w* or from −w* has the density q(t) ∝ exp(−t²/2σ²) on [−π/2, π/2], half
    of it each. With M(a, b) = ½ ∫_a^b q(t) (cos t, sin t)ᵀ(cos t, sin t) dt, both filters at angle
    φ have A_{w,w*} = M(φ − π/2, π/2) and A_{w,−w*} = M(−π/2, φ − π/2), up to reflection. 128
    nodes on the part within 10σ of 0; β is the largest ratio at 512 angles, and as φ → 0.

    As σ → 0, L/γ grows without bound, as the text of section 6.4 has it. β does not: it tends to
    1/2π, its value for σ → ∞ too, and is smaller in between, by 17 % at most (σ = 1.2).

    Args:
      phi: φ in [0, π], of any shape.
      sigma: σ, a standard deviation in radians, one number.

    Returns:
      `Moments`, of k = 1: cross is 0.

    Raises:
      ValueError: an angle outside of [0, π], σ not positive or not one number.

    Example:
      >>> [round(float(value), 4) for value in angle_mixture_moments(np.pi / 2, 1e6)]
      [0.0454, 0.2046, 0.1592, 0.0]

    Reference: Du (2019), section 6.4.
    """
    check(phi=phi, sigma=sigma)
    one_number(sigma=sigma)
    xp = library(phi, sigma)
    turn, width = real(phi), real(sigma)
    dtype = xp.result_type(turn, width)  # before they are arrays: Python's numbers have none
    turn, width = xp.asarray(turn, dtype), xp.asarray(width, dtype)
    half = np.pi / 2
    total = _second_moment(xp, xp.full_like(turn, -half), xp.full_like(turn, half), width)[0]
    low, high = _extremes(xp, *_second_moment(xp, turn - half, xp.full_like(turn, half), width))
    angles = xp.linspace(half / 512, half, 512, dtype=width.dtype)
    start = xp.full_like(angles, -half)
    growth = _extremes(xp, *_second_moment(xp, start, angles - half, width))[1] / angles
    whole = _second_moment(xp, start[:1], -start[:1], width)[0]
    beta = xp.maximum(xp.max(growth), xp.exp(-half * half / (2 * width * width))) / (2 * whole[0])
    return Moments(low / (2 * total), high / (2 * total), beta, 0.0)


def _second_moment(xp: Any, lower: Any, upper: Any, sigma: Any) -> tuple[Any, Any, Any]:
    """∫ exp(−t²/2σ²) (1, cos 2t, sin 2t) dt from `lower` to `upper`."""
    nodes, weights = np.polynomial.legendre.leggauss(128)
    nodes, weights = (xp.asarray(a, dtype=sigma.dtype) for a in (nodes, weights))
    lower, upper = (xp.clip(end, -10 * sigma, 10 * sigma)[..., None] for end in (lower, upper))
    middle, reach = (upper + lower) / 2, (upper - lower) / 2
    shape = (1,) * (middle.ndim - 1) + (-1,)
    t = middle + reach * nodes.reshape(shape)
    mass = reach * weights.reshape(shape) * xp.exp(-t * t / (2 * sigma * sigma))
    return mass.sum(-1), (mass * xp.cos(2 * t)).sum(-1), (mass * xp.sin(2 * t)).sum(-1)


def _extremes(xp: Any, mass: Any, cosine: Any, sine: Any) -> tuple[Any, Any]:
    """The eigenvalues of ½ [[mass + cosine, sine], [sine, mass − cosine]]."""
    spread = xp.hypot(cosine, sine)
    return xp.maximum(mass - spread, 0) / 2, (mass + spread) / 2


def _rest(phi: ArrayLike, k: int) -> tuple[Any, Any, Any]:
    """π − φ and sin φ, both from π − φ: they cancel near π."""
    check(phi=phi)
    checks.positive_int("k", k)
    xp = library(phi)
    rest = np.pi - xp.asarray(real(phi))
    return xp, rest, xp.sin(rest)


def _versine_slope(x: float) -> float:
    """x² d/dx (1 − cos x)/2x."""
    return (x * np.sin(x) + np.cos(x) - 1) / 2


def _root(slope: Any) -> float:
    """Where a concave function on [0, π/2] is largest: the zero of its slope, or an end."""
    low, high = 0.0, np.pi / 2
    if slope(high) >= 0:
        return high
    if slope(1e-4) <= 0:
        return low
    low = 1e-4
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return low


def _check_plane(p: int) -> None:
    if checks.positive_int("p", p) < 2:
        raise ValueError("p is 1; expected at least 2: on a line there are no angles but 0 and π.")
