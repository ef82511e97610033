"""Where an activation breaks, and closed forms for those that are polynomials between breaks."""

import functools
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import erfc
from numpy.polynomial import Chebyshev, Polynomial

from ntkflow.kernels.activations import sample
from ntkflow.kernels.arccos import ratio, safe_sqrt, sine
from ntkflow.kernels.quadrature import (
    Kernels,
    Piecewise,
    derivative,
    elementwise,
    hermite_rule,
)

_ORDERS = 4  # φ and three derivatives are searched for jumps
_BREAKS = 8  # at most
_DEGREE = 4  # at most, of a polynomial between breaks
_NEAR = 40.0
_FAR = np.geomspace(_NEAR, 1e6, 2048)
# No point is a round number: a break inside a cell is found, one on its edge may not be.
_GRID = np.concatenate([-_FAR[::-1], np.linspace(-39.997, 39.991, 7 * 2048), _FAR])


def piecewise(phi: Callable) -> tuple[Piecewise, bool]:
    """Find the breaks of an elementwise function, and its polynomials if it consists of such.

    φ and three derivatives are evaluated at 18432 points up to ±10⁶, most of them in [−40, 40].
    Where a step between two of them is not what the derivative explains, it is followed by
    bisection to neighbouring floating-point numbers: a jump is still there. Breaks within one
    cell, of width 0.006 (beyond ±40 half a percent), may count as one or none.

    Args:
      phi: an elementwise function. What is found is remembered, as programs are by `jax.jit`.

    Returns:
      The function with its breaks, and whether the Hermite series at variance 1 holds all the
      energy of φ and φ'. A function that closes over traced values, has more than 8 breaks, or
      has none and yet no such series, is given a single break at 0.

    Raises:
      ValueError: φ or φ' is NaN somewhere.

    Example:
      >>> piecewise(jax.nn.hard_tanh)[0].breaks
      (-1.0, 1.0)
    """
    try:
        return (_find_once if _is_hashable(phi) else _find)(phi, jnp.result_type(float))
    except _TracedError:
        return Piecewise(elementwise(phi), (0.0,)), False


def _is_hashable(phi: Callable) -> bool:
    try:
        hash(phi)
    except TypeError:
        return False
    return True


class _TracedError(Exception):
    """The function closes over values that are traced: what is found holds of this trace alone."""


def _find(phi: Callable, dtype: jnp.dtype) -> tuple[Piecewise, bool]:
    functions = [elementwise(phi)]
    for _ in range(_ORDERS - 1):
        functions.append(derivative(functions[-1]))
    stacked = jax.jit(lambda x: jnp.stack([f(x) for f in functions], axis=1))
    broken_at_0 = Piecewise(functions[0], (0.0,))

    def jets(x):
        return sample(stacked, x)

    nodes, matrix = hermite_rule()
    values = jets(nodes)
    if values is None:
        raise _TracedError
    values = values[:, :2]
    undefined = np.isnan(values).any(axis=1)
    if undefined.any():
        raise ValueError(
            f"phi or its derivative is NaN at {nodes[undefined][0]:.3g}; expected a function on "
            "the whole real line, whose argument is Gaussian."
        )
    parts = np.split(_GRID, _GRID.size // 2048)  # equal parts: one compilation
    on_grid = np.concatenate([jets(part) for part in parts])
    breaks = _breaks(jets, on_grid)
    if len(breaks) > _BREAKS:
        return broken_at_0, False
    pieces = _polynomials(jets, breaks, on_grid[:, 0])
    if breaks:
        return Piecewise(functions[0], breaks, pieces), False
    energy = matrix[0] @ values**2
    rest = energy - np.sum((matrix @ values) ** 2, axis=0)
    if (rest <= max(1e-11, 100 * _eps()) * energy).all():
        return Piecewise(functions[0], (), pieces), True
    return broken_at_0, False


# The search takes longer than what is computed with its result, which depends on the dtype.
_find_once = functools.lru_cache(maxsize=64)(_find)


def _eps() -> float:
    return float(jnp.finfo(jnp.result_type(float)).eps)


def _breaks(jets: Callable[[np.ndarray], np.ndarray], on_grid: np.ndarray) -> tuple[float, ...]:
    """Where φ or a derivative jumps, from x ↦ φ⁽ᵐ⁾(x) and its values on the grid."""

    def points(x, values):
        """x, φ⁽ᵐ⁾(x), φ⁽ᵐ⁺¹⁾(x) for all x and m."""
        slopes = np.pad(values[:, 1:], ((0, 0), (0, 1)))
        slopes = np.where(np.isfinite(slopes), slopes, 0)
        return np.stack([np.broadcast_to(x[:, None], values.shape), values, slopes])

    def unexplained(left, right):
        width, step, _ = right - left
        step = np.abs(step - width * (left[2] + right[2]) / 2)
        return np.where(np.isfinite(step), step, -1)

    with np.errstate(all="ignore"):
        grid = points(_GRID, on_grid)
        steps = unexplained(grid[:, :-1], grid[:, 1:])
        near = np.abs(_GRID[:-1, None]) < _NEAR
        worst = [
            np.argsort(-np.where(part, steps, -2), axis=0)[:number]
            for part, number in ((near, 384), (~near, 128))
        ]
        cells = np.concatenate(worst).ravel()
        orders = np.resize(np.arange(_ORDERS), cells.size)
        left, right = grid[:, cells, orders], grid[:, cells + 1, orders]
        for _ in range(60):
            x = (left[0] + right[0]) / 2
            middle = points(x, jets(x))[:, np.arange(x.size), orders]
            leftwards = unexplained(left, middle) > unexplained(middle, right)
            left, right = np.where(leftwards, left, middle), np.where(leftwards, middle, right)

        # A jump counts if it is neither rounding of φ⁽ᵐ⁾ nor of its argument.
        central = np.where(np.isfinite(on_grid) & (np.abs(_GRID[:, None]) < 8), on_grid, 0)
        size = np.maximum.accumulate(np.max(np.abs(central), axis=0)) * 30.0 ** np.arange(_ORDERS)
        x, value, slope = np.maximum(np.abs(left), np.abs(right))
        jumps = unexplained(left, right)
        found = jumps > max(1e-9, 1e3 * _eps()) * size[orders]
        found &= jumps > max(1e-6, 1e4 * _eps()) * value
        found &= jumps > 64 * _eps() * x * slope
        found &= (orders < 2) | (x < _NEAR)  # far out high derivatives often overflow
    breaks: list[float] = []
    for b in np.sort((left[0] + right[0])[found] / 2):
        rounded = float(f"{b:.{-3 - math.log10(_eps()):.0f}g}") if abs(b) > 1e-12 else 0.0
        b = rounded if not rounded or abs(b - rounded) <= 4 * _eps() * abs(b) else float(b)
        if not breaks or b - breaks[-1] > max(1e-7, 16 * _eps()) * max(1, abs(b)):
            breaks.append(b)
    return tuple(breaks)


def _polynomials(
    jets: Callable[[np.ndarray], np.ndarray], breaks: tuple[float, ...], on_grid: np.ndarray
) -> tuple[tuple[float, ...], ...] | None:
    """The polynomials between the breaks, if φ is them to rounding."""
    unit = np.cos(np.pi * (np.arange(48) + 0.5) / 48)
    pieces = []
    for low, high in itertools.pairwise((-np.inf, *breaks, np.inf)):
        a = low if np.isfinite(low) else min(-8.0, 2 * high)
        b = high if np.isfinite(high) else max(8.0, 2 * low)
        inside = (low < _GRID) & (high > _GRID)
        few = (a + b) / 2 + (b - a) / 2 * unit
        x = np.append(few, _GRID[inside]).astype(jnp.result_type(float)).astype(float)
        y = np.append(jets(few)[:, 0], on_grid[inside])
        for degree in range(_DEGREE + 1):
            fit = Chebyshev.fit(x[: few.size], y[: few.size], degree, domain=[a, b])
            coefficients = fit.convert(kind=Polynomial).coef
            powers = np.abs(x[:, None]) ** np.arange(degree + 1)
            largest = np.max(powers[: few.size], axis=0) * np.abs(coefficients)
            coefficients[largest < 64 * _eps() * largest.max()] = 0
            size = powers @ np.abs(coefficients)
            if (np.abs(Polynomial(coefficients)(x) - y) <= 64 * _eps() * size).all():
                break
        else:
            return None
        pieces.append(tuple(coefficients.tolist()))
    return tuple(pieces)


def polynomial_dual(f: Piecewise, g: Piecewise, count: int) -> Kernels:
    """The `Rule` for polynomials between breaks: closed forms.

    f is the polynomial P around 0, plus corners J (±(u − b))₊ᵐ/m! that open away from 0; g is Q
    plus its corners. With σ = √q and h = |b|/σ a corner is J σᵐ (z − h)₊ᵐ/m! in the standard
    normal z = ±u/σ, and

        E[f g] = E[P(u) g(v)] + E[(f − P)(u) Q(v)] + Σ J₁ J₂ σ₁ᵐ σ₂ⁿ Tₘₙ(h, k, ±ρ)

    with the moments Tₘₙ of `_corner_moments`; the first two terms are finite sums of
    E[P⁽ˡ⁾(u)] E[g⁽ˡ⁾(v)] cˡ/l!.
    """
    degree = max(len(piece) for h in (f, g) for piece in h.pieces or ()) - 1
    parts1, parts2 = ([_corners(h.differentiate(n), degree) for n in range(count)] for h in (f, g))
    signs1, signs2 = ([_sign(at) for at in h.breaks] for h in (f, g))
    # By break of f, break of g, order of the derivative, m, n.
    orders = zip(parts1, parts2, strict=True)
    jumps = np.stack([np.einsum("im,jn->ijmn", p[1], q[1]) for p, q in orders], axis=2)

    def duals(q1, c, q2):
        a, b = safe_sqrt(q1), safe_sqrt(q2)
        p = jnp.broadcast_to(a * b, jnp.broadcast_shapes(q1.shape, c.shape, q2.shape))
        spread = jnp.where(p > 0, ratio(sine(p, c), p), 1)
        # 1 − |ρ|, which keeps its digits near |ρ| = 1.
        rest = jnp.where(p > 0, jnp.where(spread > 0, ratio(p - jnp.abs(c), p), 0), 1)
        rho = jnp.sign(c) * (1 - rest)

        if (f.breaks, f.pieces) == (g.breaks, g.pieces):  # at once: half the code to compile
            both = _means(f.breaks, parts1, jnp.append(a.ravel(), b.ravel()))
            means = tuple(x[..., : a.size] for x in both), tuple(x[..., a.size :] for x in both)
        else:
            means = _means(f.breaks, parts1, a.ravel()), _means(g.breaks, parts2, b.ravel())
        (center1, corner1, at_u), (center2, corner2, at_v) = (
            [x.reshape(*x.shape[:-1], *y.shape) for x in own]
            for own, y in zip(means, (a, b), strict=True)
        )
        totals = [jnp.zeros_like(rho)] * count
        for n, l in itertools.product(range(count), reversed(range(degree + 1))):
            term = center1[n, l] * (center2[n, l] + corner2[n, l]) + corner1[n, l] * center2[n, l]
            totals[n] = totals[n] * rho / (l + 1) + term

        def add_row(totals, row):
            (h, tail_h), sign1, weights = row

            def add_pair(totals, pair):
                (k, tail_k), sign2, weight = pair
                sums, sign = list(totals), sign1 * sign2 * jnp.sign(c)
                first = _corner_moments(h, k, tail_h, sign, rest, spread, True)
                second = _corner_moments(k, h, tail_k, sign, rest, spread, False)
                for n, i, j in np.argwhere(jumps.any(axis=(0, 1))).tolist():
                    moment = first(i, j) + second(j, i)
                    sums[n] += weight[n, i, j] * a**i * b**j * moment
                return tuple(sums), None

            return jax.lax.scan(add_pair, totals, (at_v, signs[1], weights))[0], None

        if not jumps.any():
            return tuple(totals)
        *signs, weights = (jnp.asarray(x, c.dtype) for x in (signs1, signs2, jumps))
        return jax.lax.scan(add_row, tuple(totals), (at_u, signs[0], weights))[0]

    return duals


def _sign(at: float) -> float:
    """Of the direction in which a corner opens."""
    return -1.0 if at < 0 else 1.0


def _corners(f: Piecewise, degree: int) -> tuple[np.ndarray, np.ndarray]:
    """The polynomial around 0, and the jumps of all derivatives outwards, by break."""
    assert f.pieces is not None
    jumps = np.zeros((len(f.breaks), degree + 1))
    for i, at in enumerate(f.breaks):
        sides = [Polynomial(piece) for piece in f.pieces[i : i + 2]]
        for m in range(max(len(side) for side in sides)):
            left, right = (side.deriv(m) for side in sides)
            jump = right(at) - left(at)
            size = sum(Polynomial(np.abs(side.coef))(abs(at)) for side in (left, right))
            jumps[i, m] = _sign(at) ** (m + 1) * jump if abs(jump) > 16 * _eps() * size else 0
    center = f.pieces[sum(b < 0 for b in f.breaks)]
    return np.pad(center, (0, degree + 1 - len(center))), jumps


def _means(
    breaks: tuple[float, ...], parts: list[tuple[np.ndarray, np.ndarray]], deviation: Array
) -> tuple[Array, Array, Array]:
    """What depends on one variable alone, of deviations σ: (d,).

    Returns:
      E of the derivatives by z of P(σz), (parts, orders, d), where
      E[dˡ(σz)ʲ/dzˡ] = σʲ j!/(2ʳ r!) if r = (j − l)/2 is an integer; the same of the sum of all
      corners; the heights h, at most 40 because nothing is above, and P(z > h): (breaks, 2, d).
    """
    size = parts[0][0].size
    center = np.zeros((len(parts), size, size))  # by part, order l, power of σ
    corner = np.zeros((len(parts), size, size, 2 * size - 1, len(breaks)))
    for n, (polynomial, jumps) in enumerate(parts):
        for l, m in itertools.product(range(size), range(size)):
            r, odd = divmod(m - l, 2)
            if r >= 0 and not odd:
                factor = math.factorial(m) / 2**r / math.factorial(r)
                center[n, l, m] = polynomial[m] * factor
            corner[n, l, m, m - l + size - 1] = [
                jump * _sign(at) ** l for jump, at in zip(jumps[:, m], breaks, strict=True)
            ]
    dot = functools.partial(jnp.tensordot, precision=jax.lax.Precision.HIGHEST)
    powers = jnp.stack([deviation**m for m in range(size)])
    heights = jnp.asarray(np.abs(breaks), deviation.dtype)[:, None]
    heights = jnp.minimum(heights / jnp.maximum(deviation, 1e-30)[None], 40)
    tail = _tails(heights)
    tails = jnp.stack([tail(n) for n in range(1 - size, size)])
    corners = dot(corner.astype(deviation.dtype), tails, 2)
    corners = jnp.sum(corners * powers[None, None], axis=2)
    edges = jnp.stack([heights, tail(0)], axis=1)
    return dot(center.astype(deviation.dtype), powers, 1), corners, edges


def _upper(x: Array) -> Array:
    """P(z > x)."""
    return erfc(x * 0.5**0.5) / 2


def _density(x: Array) -> Array:
    return (2 * np.pi) ** -0.5 * jnp.exp(-x * x / 2)


def _tails(h: Array) -> Callable[[int], Array]:
    """n ↦ E[(z − h)₊ⁿ]/n!, and its derivatives −d/dh for negative n."""

    @functools.cache
    def tail(n):
        if n == 0:
            return _upper(h)
        if n == -1:
            return _density(h)
        if n > 0:
            return (tail(n - 2) - h * tail(n - 1)) / n
        return (n + 2) * tail(n + 2) + h * tail(n + 1)

    return tail


def _corner_moments(
    h: Array, k: Array, tail: Array, sign: Array, rest: Array, spread: Array, first: bool
) -> Callable[[int, int], Array]:
    """(m, n) ↦ one of two parts of Tₘₙ = E[(x − h)₊ᵐ (y − k)₊ⁿ]/(m! n!), x and y standard normal.

    h, k >= 0, `tail` = P(x > h), the correlation is ρ = sign·(1 − rest), and spread = √(1 − ρ²).
    Integration by parts gives m Tₘₙ = Tₘ₋₂,ₙ + ρ Tₘ₋₁,ₙ₋₁ − h Tₘ₋₁,ₙ, and likewise in n, down to
    T₀₀, the probability of the corner, to T₋₁,ₙ, where x = h and y is normal with mean ρh, and to
    Tₘ,₋₁. All is linear in T₀₀, T₋₁,₀, T₀,₋₁ and T₋₁,₋₁; the part here comes from T₋₁,₀, from the
    piece of T₀₀ between the edge x = h and the ray to the tip, and, in the `first` part, from
    T₋₁,₋₁. The other part has x and y swapped.
    """
    h, k = (jnp.maximum(x, 1e-30) for x in (h, k))  # two lines through 0 meet on any ray
    rho = sign * (1 - rest)
    gaps = tuple(y - sign * x + sign * rest * x for x, y in ((h, k), (k, h)))  # k − ρh, h − ρk
    ray = gaps[0] / jnp.maximum(spread, 1e-30)
    above, density = _upper(ray), _density(h)

    @functools.cache
    def edge(side, n):
        if n == 0:
            return (density * above, 0)[side]
        if n == -1:
            return density * spread * _density(ray) if first else 0
        power = spread**2 if n > 1 else 1
        return (power * edge(side, n - 2) - gaps[side] * edge(side, n - 1)) / n

    @functools.cache
    def moment(m, n):
        if m == -1 or n == -1:
            return edge(0, n) if m == -1 else edge(1, m)
        if m > 0:
            return (moment(m - 2, n) + rho * moment(m - 1, n - 1) - h * moment(m - 1, n)) / m
        if n > 0:
            return (moment(0, n - 2) + rho * moment(-1, n - 1) - k * moment(0, n - 1)) / n
        return tail / 2 - _owen(h, tail, ray, above)

    return moment


def _owen(h: Array, tail_h: Array, x: Array, tail_x: Array) -> Array:
    """Owen's function T(h, x/h), h > 0: the probability of the part of the plane beyond a line at
    distance h from 0, between the normal onto it and the ray to its point x. The tails are
    P(z > h) and P(z > x).

    T(h, a) = ∫₀ᵃ exp(−h² (1 + t²)/2)/(1 + t²) dt/2π by Gauss–Legendre for a <= 1, to 1e-15, and
    T(h, x/h) + T(x, h/x) = ½ P(z > h) + ½ P(z > x) − P(z > h) P(z > x) (Owen 1956).
    """
    points = 10 if h.dtype == jnp.float64 else 5  # of the even rule on (−a, a)
    rule = (jnp.asarray(x[points:], h.dtype) for x in np.polynomial.legendre.leggauss(2 * points))
    size = jnp.abs(x)
    low, high = jnp.minimum(h, size), jnp.maximum(h, size)
    slope = low / high

    def add(total, node):
        square = 1 + (node[0] * slope) ** 2
        return total + node[1] * jnp.exp(-high * high / 2 * square) / square, None

    total = jax.lax.scan(add, jnp.zeros_like(size), tuple(rule))[0] * slope / (2 * np.pi)
    tail_x = jnp.where(x < 0, 1 - tail_x, tail_x)
    rest = (tail_h + tail_x) / 2 - tail_h * tail_x - total
    return jnp.sign(x) * jnp.where(size <= h, total, rest)
