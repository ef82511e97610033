"""How an activation grows with its argument: the exponents r₁ and r₂ of Theorem 3."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntkflow.kernels.breaks import piecewise
from ntkflow.systems.deep.activations import evaluate
from ntkflow.systems.shallow_smooth.arguments import check_activation

_NEAR = 1e-4  # nearer to 0, the limit is extrapolated
_GRID = np.geomspace(_NEAR, 1e8, 8192)
_PEAKS = 16
_UNBOUNDED = 1e4


class Exponents(NamedTuple):
    """Exponents with τ^{r₁} |φ(a)| ≤ |φ(τa)| ≤ τ^{r₂} |φ(a)| for all a and 0 < τ < 1.

    Attributes:
      r1: the smallest r₁, inf where there is none: τ^∞ = 0 bounds nothing.
      r2: the largest r₂, −inf where there is none: τ^{−∞} = ∞ bounds nothing.
    """

    r1: float
    r2: float


def homogeneity_exponents(activation: Any) -> Exponents:
    """Find the exponents of Theorem 3 from the function itself.

    log |φ| as a function of log |a| has slope s(a) = a φ'(a)/φ(a), and the condition bounds its
    mean slopes from log τ|a| to log |a|: r₁ = sup_a s(a) and r₂ = inf_a s(a). Where |φ| jumps
    outwards, or leaves 0, r₁ = inf; where it jumps or falls to 0, r₂ = −inf: so do GELU and SiLU,
    which fall like a Gaussian and an exponential towards −∞, and sigmoid too, |φ(τa)| > |φ(a)| for
    a < 0. The paper names sigmoid among those that satisfy the condition.

    s is evaluated at 8192 points of each sign, 1e-4 ≤ |a| ≤ 1e8, on finer and finer grids around
    its extremes, and extrapolated to 0; |s| > 1e4 counts as infinite. Errors are below 1e-8 in
    float64; in float32 below 1e-6, or 1e-2 where φ near 0 is a difference of larger numbers. What
    tends to its extreme as slowly as a logarithm does is given the value at 1e8.

    Args:
      activation: φ, an elementwise function whose values are known on the host.

    Returns:
      Exponents, Python floats.

    Raises:
      ValueError: `activation` is no elementwise function, is 0 everywhere, or closes over traced
        values.

    Example:
      >>> homogeneity_exponents(jnp.tanh), homogeneity_exponents(jax.nn.relu)
      (Exponents(r1=1.0, r2=0.0), Exponents(r1=1.0, r2=1.0))
      >>> homogeneity_exponents(jax.nn.silu).r2
      -inf

    Reference: Song et al. (2021), Theorem 3 and its footnote 3.
    """
    check_activation(activation)
    return _exponents(activation, jnp.result_type(float))


@functools.lru_cache(maxsize=64)  # a study asks for those of one activation again and again
def _exponents(activation: Any, dtype: jnp.dtype) -> Exponents:
    found = piecewise(activation)[0]
    value, slope = jax.jit(found.function), jax.jit(found.differentiate(1).function)

    def at(a):
        """a as the functions see it, |φ(a)| with its sign, and s(a), NaN where φ(a) is 0."""
        a = a.astype(jnp.result_type(float)).astype(float)
        phi = evaluate(value, a)
        return a, phi, np.where(phi == 0, np.nan, a * evaluate(slope, a) / phi)

    with np.errstate(all="ignore"):
        sides = [_side(at, sign, found.breaks) for sign in (-1.0, 1.0)]
    r1, r2 = max(side.r1 for side in sides), min(side.r2 for side in sides)
    if r1 < r2:
        raise ValueError("activation is 0 everywhere; expected a function that is not.")
    return Exponents(float(r1) + 0.0, float(r2) + 0.0)  # no −0


def _side(at: Callable, sign: float, breaks: tuple[float, ...]) -> Exponents:
    """sup s and inf s over the points of one sign; −inf and inf where φ is 0 there."""
    eps = float(jnp.finfo(jnp.result_type(float)).eps)
    edges = [b * (1 + step) for b in breaks if b * sign > 0 for step in (-64 * eps, 64 * eps)]
    grid = np.sort(np.abs(np.concatenate([[_NEAR / 2], _GRID, edges])))
    _, phi, s = at(sign * grid)
    left, right = np.abs(phi[:-1]), np.abs(phi[1:])
    # Where |φ| jumps the secant is steep without end; between other neighbours it is not so steep.
    ratio = np.log(right / left)
    jumps = (np.diff(grid) < 256 * eps * grid[1:]) & (np.abs(ratio) > 1e5 * eps)
    crosses = phi[:-1] * phi[1:] < 0
    rises = crosses | (jumps & (ratio > 0)) | ((left == 0) & (right > 0)) | np.isinf(right)
    falls = crosses | (jumps & (ratio < 0)) | ((left > 0) & (right == 0))

    limit = 2 * s[0] - s[1]  # s(a) = k + O(a) on either side of 0, k the order of φ there
    if abs(limit - np.round(limit)) < max(1e-6, 1e5 * eps):
        limit = np.round(limit)
    highest, lowest = (_extreme(at, sign * grid, s, by) for by in (1.0, -1.0))
    if np.isfinite(limit):
        highest, lowest = max(highest, limit), min(lowest, limit)
    r1 = np.inf if rises.any() or highest > _UNBOUNDED else highest
    r2 = -np.inf if falls.any() or lowest < -_UNBOUNDED else lowest
    return Exponents(r1, r2)


def _extreme(at: Callable, grid: np.ndarray, s: np.ndarray, by: float) -> float:
    """sup s for by = 1, inf s for by = −1, around the largest peaks on finer and finer grids."""
    heights = np.where(np.isfinite(s), by * s, -np.inf)
    best = heights.max()
    inner = heights[1:-1]
    (where,) = np.nonzero((inner > heights[:-2]) & (inner >= heights[2:]))
    where = where[np.argsort(-inner[where])[:_PEAKS]] + 1
    low, high = grid[where - 1], grid[where + 1]
    for _ in range(4 if where.size else 0):
        points = np.linspace(low, high, 2048 // _PEAKS, axis=1)
        _, _, s = at(points.ravel())
        heights = np.where(np.isfinite(s), by * s, -np.inf).reshape(points.shape)
        best = max(best, heights.max())
        rows = np.arange(where.size)
        top = np.clip(heights.argmax(axis=1), 1, points.shape[1] - 2)
        low, high = points[rows, top - 1], points[rows, top + 1]
    return by * best
