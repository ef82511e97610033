"""Gaussian expectations E[f(u) g(v)] of any two functions, and their derivatives, by quadrature."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ntkflow.kernels.arccos import arccos_kernel, ratio, safe_sqrt, sine

Function = Callable[[Array], Array]
Kernel = Callable[[Array, Array, Array], Array]
Kernels = Callable[[Array, Array, Array], tuple[Array, ...]]

_TERMS = 256  # of the Hermite series
_ANGLES, _RADII = 24, 24  # of the polar rule
_END, _LINEAR = 8.0, 3.2  # of the variable of the cut rule: z = 3.2 y + 4.8 y³ ends at ±8


class Piecewise(NamedTuple):
    """An elementwise function that is smooth between its breaks.

    Attributes:
      function: keeps shape and dtype; its derivatives exist but at the breaks.
      breaks: where it or a derivative of it jumps, in ascending order.
      pieces: the polynomials between the breaks, each by its coefficients from the constant on,
        one more than there are breaks; None where it is not polynomials.
    """

    function: Function
    breaks: tuple[float, ...] = ()
    pieces: tuple[tuple[float, ...], ...] | None = None

    def differentiate(self, order: int) -> "Piecewise":
        """The derivative of that order, point masses at the breaks left out."""
        if order == 0:
            return self
        pieces = self.pieces and tuple(
            tuple(k * c for k, c in enumerate(piece))[1:] or (0.0,) for piece in self.pieces
        )
        return Piecewise(derivative(self.function), self.breaks, pieces).differentiate(order - 1)

    def jumps(self, dtype: jnp.dtype) -> Array:
        """f(b⁺) − f(b⁻) at the breaks b."""
        limits, at = jnp.finfo(dtype), np.array(self.breaks)
        step = np.maximum(8 * np.abs(at) * float(limits.eps), float(limits.tiny) ** 0.5)
        above, below = (self.function(jnp.asarray(x, dtype)) for x in (at + step, at - step))
        return above - below


# (f, g, n) to the function (q₁, c, q₂) ↦ (E[f(u) g(v)], E[f'(u) g'(v)], …) with n results.
Rule = Callable[[Piecewise, Piecewise, int], Kernels]


def elementwise(phi: Callable) -> Function:
    """`phi` with the dtype of its argument."""
    return lambda x: jnp.asarray(phi(x), x.dtype)


def derivative(f: Function) -> Function:
    """The derivative of an elementwise function, by one vector-Jacobian product."""

    def slope(x):
        y, pullback = jax.vjp(f, x)
        return pullback(jnp.ones_like(y))[0]

    return slope


def interval_rule(points: int, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Gauss–Legendre nodes and weights on (0, end)."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    return end * (nodes + 1) / 2, end * weights / 2


def hermite_rule(terms: int = _TERMS) -> tuple[np.ndarray, np.ndarray]:
    """Nodes zᵢ and matrix Wₖᵢ with Σᵢ Wₖᵢ f(zᵢ) = E[f(z) hₖ(z)], hₖ the orthonormal Hermite
    polynomials."""
    half, weights = interval_rule(200, 12.5)  # the density beyond is below 1e-34
    nodes = np.append(-half[::-1], half)
    weights = np.append(weights[::-1], weights) * np.exp(-(nodes**2) / 2) / np.sqrt(2 * np.pi)
    rows = [weights, weights * nodes]
    for k in range(1, terms - 1):
        rows.append((nodes * rows[k] - np.sqrt(k) * rows[k - 1]) / np.sqrt(k + 1))
    return nodes, np.stack(rows)


def radial_rule(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss nodes and weights for ∫₀^∞ f(r) r exp(−r²/2) dr, by Lanczos on a fine rule."""
    fine, weights = interval_rule(400, 14.0)
    vector = np.sqrt(weights * fine * np.exp(-(fine**2) / 2))
    basis = [vector / np.linalg.norm(vector)]
    diagonal, off = np.zeros(points), np.zeros(points - 1)
    for k in range(points):
        step = fine * basis[k]
        diagonal[k] = basis[k] @ step
        for _ in range(2):  # orthogonalized twice: once leaves an error that grows with k
            step = step - np.stack(basis).T @ (np.stack(basis) @ step)
        if k < points - 1:
            off[k] = np.linalg.norm(step)
            basis.append(step / off[k])
    nodes, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))
    return nodes, vectors[0] ** 2


def hermite_dual(f: Piecewise, g: Piecewise, count: int) -> Kernels:
    """The `Rule` for functions without breaks: the Hermite series.

    E = Σₖ aₖ(q₁) bₖ(q₂) ρᵏ with aₖ(q) = E[f(√q z) hₖ(z)], bₖ likewise from g. The coefficients
    are computed on q₁ and q₂ as they come, before they are broadcast against each other; the sum
    costs O(n²) memory.
    """
    nodes, weights = hermite_rule()

    def coefficients(h, q):
        values = h(jnp.asarray(nodes, q.dtype).reshape(-1, *[1] * q.ndim) * safe_sqrt(q)[None])
        matrix = jnp.asarray(weights, q.dtype)
        return jnp.tensordot(matrix, values, axes=1, precision=jax.lax.Precision.HIGHEST)

    def duals(q1, c, q2):
        rho = jnp.clip(ratio(c, safe_sqrt(q1) * safe_sqrt(q2)), -1, 1)
        start = jnp.zeros(jnp.broadcast_shapes(q1.shape, c.shape, q2.shape), c.dtype)

        def horner(total, pair):
            return total * rho + pair[0] * pair[1], None

        def series(order):
            slopes = f.differentiate(order).function, g.differentiate(order).function
            pairs = coefficients(slopes[0], q1), coefficients(slopes[1], q2)
            return jax.lax.scan(horner, start, pairs, reverse=True, unroll=8)[0]

        return tuple(series(order) for order in range(count))

    return duals


def polar_dual(f: Piecewise, g: Piecewise, count: int) -> Kernels:
    """The `Rule` for functions with a break at 0 alone, in polar coordinates.

    With θ = arccos ρ, u = √q₁ r cos ψ and v = √q₂ r cos(ψ − θ), the plane is cut where u or v
    changes sign: in each of the four sectors the integrand is smooth. In the one with u, v > 0,
    of opening w = π − θ, u = √q₁ r sin(w (1 − t)) and v = √q₂ r sin(w t), 0 < t < 1; in the one
    with u > 0 > v the same with w = θ and the sign of v; r → −r gives the other two. The nodes
    are summed one by one: O(n²) memory.
    """
    turns, turn_weights = interval_rule(_ANGLES, 1.0)
    radii, radius_weights = radial_rule(_RADII)
    signed = np.append(radii, -radii), np.append(radius_weights, radius_weights)
    slopes = _slopes(f, g, count)

    def duals(q1, c, q2):
        a, b = safe_sqrt(q1), safe_sqrt(q2)
        width = np.pi * arccos_kernel(0, a, b, c)
        zeros = (jnp.zeros_like(width),) * count

        def constants(*arrays):
            return tuple(jnp.asarray(x, c.dtype) for x in arrays)

        def angle(total, node):
            t, turn_weight, sign = node
            w = jnp.where(sign > 0, width, np.pi - width)
            u, v = a * jnp.sin(w * (1 - t)), sign * b * jnp.sin(w * t)

            def radius(inner, node):
                r, weight = node
                return tuple(
                    s + weight * h(r * u) * k(r * v)
                    for s, (h, k) in zip(inner, slopes, strict=True)
                ), None

            inner, _ = jax.lax.scan(radius, zeros, constants(*signed), unroll=2)
            return tuple(s + turn_weight * w * x for s, x in zip(total, inner, strict=True)), None

        rule = constants(np.tile(turns, 2), np.tile(turn_weights, 2), np.repeat([1, -1], _ANGLES))
        return tuple(x / (2 * np.pi) for x in jax.lax.scan(angle, zeros, rule)[0])

    return duals


def cut_dual(f: Piecewise, g: Piecewise, count: int) -> Kernels:
    """The `Rule` for functions with any breaks: panels cut at all of them.

    With ρ = cos θ >= 0 and independent standard normal w and t,

        u = √q₁ (cos(θ/2) w − sin(θ/2) t),  v = √q₂ (cos(θ/2) w + sin(θ/2) t).

    At fixed t, the breaks u = b and v = d cut the integral over w into smooth panels. What it
    gives is smooth in t but where two such cuts meet, at t = (d/√q₂ − b/√q₁)/(2 sin(θ/2)): there
    the integral over t is cut. Nothing of this becomes singular as θ → 0. If ρ < 0, the same is
    done for g(−v). The nodes are summed one by one: O(n²) memory.
    """
    slopes = _slopes(f, g, count)

    def duals(q1, c, q2):
        a, b = safe_sqrt(q1), safe_sqrt(q2)
        nodes = 28 if c.dtype == jnp.float64 else 20
        sign = jnp.where(c < 0, -1, 1).astype(c.dtype)
        tan = ratio(sine(a * b, c), a * b + jnp.abs(c))  # of θ/2
        cos = 1 / jnp.sqrt(1 + tan * tan)
        sin = tan * cos
        at_u = [_standard(x, a) for x in f.breaks]
        at_v = [_standard(x, b) * sign for x in g.breaks]
        meets = [jnp.zeros_like(tan)] if 0 in f.breaks and 0 in g.breaks else []
        for x, left in zip(f.breaks, at_u, strict=True):
            for y, right in zip(g.breaks, at_v, strict=True):
                if x or y:
                    meets.append((right - left) / jnp.maximum(2 * sin, 1e-30))

        def over_w(t):
            cuts = [(x + sin * t) / cos for x in at_u] + [(y - sin * t) / cos for y in at_v]

            def at(w):
                u, v = a * (cos * w - sin * t), sign * b * (cos * w + sin * t)
                return tuple(h(u) * k(v) for h, k in slopes)

            return over_normal(at, cuts or [jnp.zeros_like(t)], nodes, count)

        return over_normal(over_w, meets or [jnp.zeros_like(tan)], nodes, count)

    return duals


def _slopes(f: Piecewise, g: Piecewise, count: int) -> list[tuple[Function, Function]]:
    return [(f.differentiate(k).function, g.differentiate(k).function) for k in range(count)]


def _standard(x: float, deviation: Array) -> Array:
    """x/deviation, far out where the deviation is 0."""
    return jnp.clip(x / jnp.maximum(deviation, 1e-30), -1e3, 1e3)


def over_normal(f: Callable, cuts: list[Array], nodes: int, count: int) -> tuple[Array, ...]:
    """E[f(z)], z ~ N(0, 1), of a function with `count` results that is smooth between the cuts.

    Gauss–Legendre between the cuts in the variable y with z = 3.2 y + 4.8 y³, |y| < 1, in which
    nodes are dense where the density is large.
    """
    rule = tuple(jnp.asarray(x, cuts[0].dtype) for x in interval_rule(nodes, 1.0))
    cuts = list(jnp.broadcast_arrays(*(jnp.clip(x, -_END, _END) for x in cuts)))
    for last in range(len(cuts) - 1, 0, -1):  # sorted elementwise: they are few
        for i in range(last):
            low, high = cuts[i], cuts[i + 1]
            cuts[i], cuts[i + 1] = jnp.minimum(low, high), jnp.maximum(low, high)
    ends = jnp.full_like(cuts[0], _END)
    edges = jnp.stack([-ends, *cuts, ends])
    # The root y of z = 3.2 y + 4.8 y³.
    p = _LINEAR / (3 * (_END - _LINEAR))
    edges = 2 * p**0.5 * jnp.sinh(jnp.arcsinh(edges / (2 * (_END - _LINEAR) * p**1.5)) / 3)

    def add_panel(total, panel):
        left, width = panel

        def add_node(total, node):
            y = left + width * node[0]
            z = y * (_LINEAR + (_END - _LINEAR) * y * y)
            stretch = _LINEAR + 3 * (_END - _LINEAR) * y * y
            weight = (2 * np.pi) ** -0.5 * node[1] * width * stretch * jnp.exp(-z * z / 2)
            return tuple(s + weight * x for s, x in zip(total, f(z), strict=True)), None

        return jax.lax.scan(add_node, total, rule)[0], None

    start = (jnp.zeros_like(cuts[0]),) * count
    return jax.lax.scan(add_panel, start, (edges[:-1], jnp.diff(edges, axis=0)))[0]


def normal_means(
    f: Piecewise, center: Array, deviation: Array, count: int, nodes: int
) -> tuple[Array, ...]:
    """E[f(x)], E[f'(x)], …, x ~ N(center, deviation²); of no deviation at a jump, the mean of both
    sides."""
    limits = jnp.finfo(deviation.dtype)
    least = 64 * float(limits.eps) * jnp.abs(center) + float(limits.tiny) ** 0.5
    deviation = jnp.maximum(deviation, least)
    functions = [f.differentiate(order).function for order in range(count)]

    def at(z):
        x = center + deviation * z
        return tuple(h(x) for h in functions)

    cuts = [(b - center) / deviation for b in f.breaks] or [jnp.zeros_like(deviation)]
    return over_normal(at, cuts, nodes, count)


def with_derivatives(rule: Rule, f: Piecewise, g: Piecewise, count: int = 1) -> Kernels:
    """(q₁, c, q₂) ↦ (E[f(u) g(v)], E[f'(u) g'(v)], …) by a rule, with Gaussian derivatives.

    By Price's theorem ∂E/∂c = E[f'(u) g'(v)] and ∂E/∂q₁ = ½ E[f''(u) g(v)], where a break of f
    at b with jumps [f] and [f'] adds [f] δ(u − b) to f' and [f'] δ(u − b) + [f] δ'(u − b) to f'':
    densities at b times expectations given u = b. These have no singular point, at |ρ| = 1 and
    q = 0 neither, but for jumps of both f and g at |ρ| = 1, and jumps and kinks at q = 0: there
    the divergent term is left out.
    """

    @jax.custom_jvp
    @jax.jit  # or each eager call compiles the loops anew
    def dual(q1, c, q2):
        return rule(f, g, count)(q1, c, q2)

    @functools.cache
    def slopes(order):
        h, k = f.differentiate(order), g.differentiate(order)
        pairs = ((h, k, 1, 1), (h, k, 2, 0), (h, k, 0, 2))
        return (
            h,
            k,
            [
                with_derivatives(rule, h.differentiate(m), k.differentiate(n))
                for h, k, m, n in pairs
            ],
        )

    @dual.defjvp
    def dual_jvp(primals, tangents):
        dq1, dc, dq2 = tangents
        outs = []
        for order in range(count):
            h, k, rules = slopes(order)
            by_c, by_q1, by_q2 = (kernel(*primals)[0] for kernel in rules)
            masses = _point_masses(h, k, *primals)
            tangent = (by_c + masses[0]) * dc
            tangent += (by_q1 + masses[1]) * dq1 / 2 + (by_q2 + masses[2]) * dq2 / 2
            outs.append(tangent)
        return dual(*primals), tuple(outs)

    return dual


def _point_masses(f: Piecewise, g: Piecewise, q1: Array, c: Array, q2: Array) -> tuple:
    """What the point masses at breaks add to E[f'g'], E[f''g] and E[fg'']."""
    a, b = safe_sqrt(q1), safe_sqrt(q2)
    root = sine(a * b, c)

    def side(h, own, q_own, other):
        """What h's masses add to E[h' other'], to E[h'' other], and the part of the first that
        comes from pairs of masses; all breaks of h at once, on a first axis."""
        if not h.breaks:
            return (jnp.zeros_like(root),) * 3
        column = [-1] + [1] * c.ndim
        at = jnp.asarray(h.breaks, c.dtype).reshape(column)
        jump, kink = (x.jumps(c.dtype).reshape(column) for x in (h, h.differentiate(1)))
        density, slope = _density(at, own[None]), ratio(c, q_own)[None]
        # Of the other variable, given that this one is at the break.
        center, spread = at * slope, ratio(root, own)[None]
        value, value_slope = normal_means(other, center, spread, 2, 28)
        pairs = jnp.zeros_like(value)
        for d, other_jump in zip(other.breaks, other.jumps(c.dtype), strict=True):
            pairs += other_jump * _density(d - center, spread)
        first = jump * density * value_slope
        pairs = jump * density * pairs
        second = (kink + jump * ratio(at, q_own[None])) * density * value - slope * (first + pairs)
        return tuple(jnp.sum(x, axis=0) for x in (first, second, pairs))

    first1, second1, pairs = side(f, a, q1, g)
    first2, second2, _ = side(g, b, q2, f)
    return first1 + first2 + pairs, second1, second2


def _density(x: Array | float, deviation: Array) -> Array:
    """The density of N(0, deviation²) at x, 0 where the deviation is."""
    z = ratio(jnp.asarray(x), deviation)
    return ratio(jnp.exp(-z * z / 2), (2 * np.pi) ** 0.5 * deviation)


def variance_mean(f: Piecewise) -> Function:
    """q ↦ E[f(u)], u ~ N(0, q), with the derivative ½ E[f''(u)], point masses included."""

    @jax.custom_jvp
    @jax.jit
    def expectation(q):
        return normal_means(f, jnp.zeros_like(q), safe_sqrt(q), 1, 64)[0]

    @functools.cache
    def second():
        return variance_mean(f.differentiate(2))

    @expectation.defjvp
    def expectation_jvp(primals, tangents):
        (q,), (dq,) = primals, tangents
        curvature = second()(q)
        jumps, kinks = f.jumps(q.dtype), f.differentiate(1).jumps(q.dtype)
        for at, jump, kink in zip(f.breaks, jumps, kinks, strict=True):
            mass = kink + jump * at * ratio(jnp.ones_like(q), q)
            curvature += mass * _density(at, safe_sqrt(q))
        return expectation(q), curvature * dq / 2

    return expectation
