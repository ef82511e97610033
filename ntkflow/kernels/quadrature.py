"""Gaussian expectations E[f(u) g(v)] of any two functions, and their derivatives, by quadrature."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ntkflow.kernels.arccos import arccos_kernel, ratio, safe_sqrt, sine

Function = Callable[[Array], Array]
Kernel = Callable[[Array, Array, Array], Array]

_TERMS = 256  # of the Hermite series
_ANGLES, _RADII = 24, 24  # of the polar rule


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


def normal_rule(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for E[f(z)], z ~ N(0, 1), exact also where f breaks at 0."""
    nodes, weights = interval_rule(points // 2, 12.5)  # the density beyond is below 1e-34
    density = weights * np.exp(-(nodes**2) / 2) / np.sqrt(2 * np.pi)
    return np.append(-nodes[::-1], nodes), np.append(density[::-1], density)


def hermite_rule(terms: int = _TERMS) -> tuple[np.ndarray, np.ndarray]:
    """Nodes zᵢ and matrix Wₖᵢ with Σᵢ Wₖᵢ f(zᵢ) = E[f(z) hₖ(z)], hₖ the orthonormal Hermite
    polynomials."""
    nodes, weights = normal_rule(400)
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


def hermite_dual(f: Function, g: Function) -> Kernel:
    """(q₁, c, q₂) ↦ E[f(u) g(v)] for smooth f and g, by the Hermite series.

    E = Σₖ aₖ(q₁) bₖ(q₂) ρᵏ with aₖ(q) = E[f(√q z) hₖ(z)], bₖ likewise from g. The coefficients
    are computed on q₁ and q₂ as they come, before they are broadcast against each other; the sum
    costs O(n²) memory.

    Derivatives are Gaussian expectations again (Price's theorem): ∂E/∂c = E[f'(u) g'(v)],
    ∂E/∂q₁ = ½ E[f''(u) g(v)]: they have no singular point, at |ρ| = 1 and q = 0 neither.
    """
    nodes, weights = hermite_rule()

    def coefficients(h, q):
        values = h(jnp.asarray(nodes, q.dtype).reshape(-1, *[1] * q.ndim) * safe_sqrt(q)[None])
        matrix = jnp.asarray(weights, q.dtype)
        return jnp.tensordot(matrix, values, axes=1, precision=jax.lax.Precision.HIGHEST)

    @jax.custom_jvp
    @jax.jit  # or each eager call compiles the loop anew
    def dual(q1, c, q2):
        rho = jnp.clip(ratio(c, safe_sqrt(q1) * safe_sqrt(q2)), -1, 1)

        def horner(total, pair):
            return total * rho + pair[0] * pair[1], None

        start = jnp.zeros(jnp.broadcast_shapes(q1.shape, c.shape, q2.shape), c.dtype)
        pairs = coefficients(f, q1), coefficients(g, q2)
        return jax.lax.scan(horner, start, pairs, reverse=True, unroll=8)[0]

    slopes = _built_once(hermite_dual, f, g)

    @dual.defjvp
    def dual_jvp(primals, tangents):
        dq1, dc, dq2 = tangents
        by_c, by_q1, by_q2 = slopes()
        tangent = by_c(*primals) * dc
        tangent += by_q1(*primals) * dq1 / 2 + by_q2(*primals) * dq2 / 2
        return dual(*primals), tangent

    return dual


def polar_dual(f: Function, g: Function) -> Kernel:
    """(q₁, c, q₂) ↦ E[f(u) g(v)] for functions smooth but for a break at 0, in polar coordinates.

    With θ = arccos ρ, u = √q₁ r cos ψ and v = √q₂ r cos(ψ − θ), the plane is cut where u or v
    changes sign: in each of the four sectors the integrand is smooth. In the one with u, v > 0,
    of opening w = π − θ, u = √q₁ r sin(w (1 − t)) and v = √q₂ r sin(w t), 0 < t < 1; in the one
    with u > 0 > v the same with w = θ and the sign of v; r → −r gives the other two. The nodes
    are summed one by one: O(n²) memory.

    Derivatives are Gaussian expectations of f' + [f] δ and so on, with [f] the jump of f at 0
    and δ the point mass there. Where they diverge (jumps of both f and g at |ρ| = 1, and jumps
    at q = 0) the divergent term is left out.
    """
    turns, turn_weights = interval_rule(_ANGLES, 1.0)
    radii, radius_weights = radial_rule(_RADII)
    signed = np.append(radii, -radii), np.append(radius_weights, radius_weights)

    @jax.custom_jvp
    @jax.jit  # or each eager call compiles the loop anew
    def dual(q1, c, q2):
        a, b = safe_sqrt(q1), safe_sqrt(q2)
        width = np.pi * arccos_kernel(0, a, b, c)

        def constants(*arrays):
            return tuple(jnp.asarray(x, c.dtype) for x in arrays)

        def angle(total, node):
            t, turn_weight, sign = node
            w = jnp.where(sign > 0, width, np.pi - width)
            u, v = a * jnp.sin(w * (1 - t)), sign * b * jnp.sin(w * t)

            def radius(inner, node):
                r, weight = node
                return inner + weight * f(r * u) * g(r * v), None

            inner, _ = jax.lax.scan(radius, jnp.zeros_like(w), constants(*signed), unroll=2)
            return total + turn_weight * w * inner, None

        rule = constants(np.tile(turns, 2), np.tile(turn_weights, 2), np.repeat([1, -1], _ANGLES))
        return jax.lax.scan(angle, jnp.zeros_like(width), rule)[0] / (2 * np.pi)

    slopes = _built_once(polar_dual, f, g)

    @dual.defjvp
    def dual_jvp(primals, tangents):
        (q1, c, q2), (dq1, dc, dq2) = primals, tangents
        a, b = safe_sqrt(q1), safe_sqrt(q2)
        root = sine(a * b, c)
        at_0 = ratio(jnp.ones_like(root), 2 * np.pi * root)  # joint density at (0, 0)

        def side(h, own, q_own, other, q_other):
            """E of own's second derivative, and the part of ∂/∂c that own's jump adds."""
            density = ratio(jnp.ones_like(own), (2 * np.pi) ** 0.5 * own)
            spread = ratio(root, own)  # of the other variable, given that this one is 0
            slope_h, slope = derivative(h), derivative(other)
            mean, mean_slope = normal_mean(other, spread), normal_mean(slope, spread)
            onto_slope = jump(h, c.dtype) * density * mean_slope
            both = jump(h, c.dtype) * jump(other, c.dtype) * at_0
            kink = jump(slope_h, c.dtype) * density * mean
            return kink - ratio(c, q_own) * (onto_slope + both), onto_slope, both

        second1, onto1, both = side(f, a, q1, g, q2)
        second2, onto2, _ = side(g, b, q2, f, q1)
        by_c, by_q1, by_q2 = slopes()
        tangent = (by_c(*primals) + onto1 + onto2 + both) * dc
        tangent += (by_q1(*primals) + second1) * dq1 / 2
        tangent += (by_q2(*primals) + second2) * dq2 / 2
        return dual(*primals), tangent

    return dual


def _built_once(rule: Callable, f: Function, g: Function) -> Callable[[], tuple[Kernel, ...]]:
    """E[f'g'], E[f''g] and E[fg''], built when they are first asked for."""

    @functools.cache
    def slopes():
        slope1, slope2 = derivative(f), derivative(g)
        second1, second2 = derivative(slope1), derivative(slope2)
        return rule(slope1, slope2), rule(second1, g), rule(f, second2)

    return slopes


def jump(f: Function, dtype: jnp.dtype) -> Array:
    """f(0⁺) − f(0⁻)."""
    step = jnp.sqrt(jnp.finfo(dtype).tiny).astype(dtype)
    return f(step) - f(-step)


def normal_mean(f: Function, spread: Array) -> Array:
    """E[f(z)], z ~ N(0, spread²), for f with a break at 0 at most."""
    nodes, weights = (jnp.asarray(x, spread.dtype) for x in normal_rule(120))

    def add(total, node):
        return total + node[1] * f(node[0] * spread), None

    return jax.lax.scan(add, jnp.zeros_like(spread), (nodes, weights))[0]
