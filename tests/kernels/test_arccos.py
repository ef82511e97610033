import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import compiled

from ntkflow.kernels.arccos import arccos_kernel, orders_01

ORDERS = (0, 1, 2)
KERNEL, ORDERS_01 = jax.jit(arccos_kernel, static_argnums=0), jax.jit(orders_01)


def exact(order, norm1, norm2, inner):
    """The formulas in extended precision, of exactly these numbers."""
    a, b, c = (np.asarray(v, np.longdouble) for v in (norm1, norm2, inner))
    p, pi = a * b, np.arccos(np.longdouble(-1))
    below, above = np.maximum(p - c, 0), np.maximum(p + c, 0)
    theta, sine = 2 * np.arctan2(np.sqrt(below), np.sqrt(above)), np.sqrt(below * above)
    terms = (
        pi - theta,
        sine + (pi - theta) * c,
        3 * sine * c + (pi - theta) * (p * p + 2 * c * c),
    )
    return terms[order] / pi


def inputs(dtype, angles):
    rng = np.random.default_rng(1)
    a, b = np.exp(rng.normal(size=(2, angles.size))).astype(dtype)
    return a, b, (a.astype(np.longdouble) * b * np.cos(angles.astype(np.longdouble))).astype(dtype)


def error(dtype, order, angles):
    a, b, c = inputs(dtype, angles)
    kernel = KERNEL(order, a, b, c)
    assert kernel.dtype == dtype
    return np.max(
        np.abs(np.asarray(kernel) - exact(order, a, b, c)) / (a.astype(np.longdouble) * b) ** order
    )


@pytest.mark.quick
@pytest.mark.parametrize("order", ORDERS)
def test_is_the_gaussian_integral_that_defines_it(order):
    """2 E[Θ Θ (w·x)ⁿ (w·y)ⁿ] in polar coordinates, by Gauss–Legendre over the angle."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    for theta in (0.0, 0.3, 1.2, 2.5, np.pi):
        psi = theta - np.pi / 2 + (np.pi - theta) * (nodes + 1) / 2
        angular = (np.pi - theta) / 2 * weights @ (np.cos(psi) * np.cos(psi - theta)) ** order
        radial = 2**order * math.factorial(order)
        expected = radial * angular / np.pi * (1.5 * 0.7) ** order
        kernel = KERNEL(order, 1.5, 0.7, 1.5 * 0.7 * math.cos(theta))
        # cos θ and the norms are rounded, which moves the angle by √eps at θ = 0 and π.
        np.testing.assert_allclose(kernel, expected, rtol=1e-13, atol=1e-15 if order else 1e-8)


@pytest.mark.parametrize("order", ORDERS)
def test_error_is_rounding_at_separated_angles(order, dtype):
    """Covers the polynomial that stands for the arctangent in float32."""
    angles = np.random.default_rng(0).uniform(0.1, 3.04, 100_000)
    assert error(dtype, order, angles) < (2, 2, 6)[order] * np.finfo(dtype).eps


@pytest.mark.parametrize("order", ORDERS)
def test_error_near_parallel_and_antiparallel(order, dtype):
    small = 10 ** np.random.default_rng(0).uniform(-9, -1, 20_000)
    eps = float(np.finfo(dtype).eps)
    bound = (0.75 * eps**0.5, 2 * eps, 6 * eps)[order]
    assert error(dtype, order, np.append(small, np.pi - small)) < bound


def test_parallel_inputs_are_parallel_however_the_norm_was_rounded(dtype):
    square = np.random.default_rng(0).uniform(0.5, 2, 10_000).astype(dtype)
    norm = np.sqrt(square)
    k0, k1 = map(np.asarray, ORDERS_01(norm, norm, square))
    assert (k0 == 1).all()
    np.testing.assert_allclose(k1, square, rtol=2 * np.finfo(dtype).eps)
    assert (np.asarray(ORDERS_01(norm, norm, -square)[0]) == 0).all()


# Norms 1 and 2: the true (one-sided) derivatives by norm1, norm2 and inner.
SINGULAR = {
    (1, "parallel"): (0, 0, 1),
    (1, "antiparallel"): (0, 0, 0),
    (2, "parallel"): (8, 4, 8),  # k₂ = p² + 2 c² at θ = 0: 2p norm2, 2p norm1, 4c
    (2, "antiparallel"): (0, 0, 0),
}


@pytest.mark.quick
@pytest.mark.parametrize(("order", "where"), SINGULAR)
def test_gradient_at_singular_inputs(order, where, dtype):
    point = [jnp.asarray(v, dtype) for v in (1, 2, 2 if where == "parallel" else -2)]
    gradient = compiled(jax.grad(lambda *p: arccos_kernel(order, *p), (0, 1, 2)))(*point)
    np.testing.assert_allclose(gradient, SINGULAR[order, where], atol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("order", ORDERS)
def test_first_and_second_derivatives_are_finite(order, dtype):
    points = np.array([(1, 1, 1), (1, 2, -2), (0, 0, 0), (0, 1, 0), (3, 0, 0)], dtype)

    def kernel(p):
        return arccos_kernel(order, *p)

    @compiled
    @jax.vmap
    def derivatives(p):
        return [transform(kernel)(p) for transform in (jax.grad, jax.jacfwd, jax.hessian)]

    for found in derivatives(points):
        assert np.isfinite(found).all()


def test_second_derivatives_of_order_2_on_the_diagonal():
    """∂²k₂/∂c² = 4 k₀ = 4 and ∂²k₂/∂p² = 2 k₀ − 2 cos θ sin θ/π = 2 with p = norm1·norm2."""
    hessian = compiled(jax.hessian(lambda *p: arccos_kernel(2, *p), (0, 1, 2)))(1.0, 1.0, 1.0)
    hessian = np.asarray(hessian)
    np.testing.assert_allclose(hessian, [[2, 4, 0], [4, 2, 0], [0, 0, 4]], atol=1e-14)


@pytest.mark.parametrize("order", ORDERS)
def test_derivatives_at_general_inputs(order):
    """First and second ones, in both modes, against central differences of what is below."""
    points = np.array([(1.3, 1.1, inner) for inner in (-1.2, -0.3, 0.0, 0.9)])
    step = 1e-5

    def kernel(p):
        return arccos_kernel(order, *p)

    @compiled
    @jax.vmap
    def compute(p):
        gradient = jax.grad(kernel)
        firsts = gradient(p), jax.jacfwd(kernel)(p)
        return kernel(p), firsts, (jax.jacrev(gradient)(p), jax.jacfwd(gradient)(p))

    _, firsts, seconds = compute(points)
    for i in range(3):
        above, below = (compute(points + sign * step * np.eye(3)[i]) for sign in (1, -1))
        slopes, curvatures = (
            (np.asarray(a) - np.asarray(b)) / (2 * step)
            for a, b in ((above[0], below[0]), (above[1][0], below[1][0]))
        )
        for first, second in zip(firsts, seconds, strict=True):
            np.testing.assert_allclose(first[:, i], slopes, rtol=1e-7, atol=1e-7)
            np.testing.assert_allclose(second[:, i], curvatures, rtol=1e-7, atol=1e-7)


def test_gradient_keeps_its_digits_close_to_the_diagonal():
    """∂k₁/∂c = k₀ and ∂k₁/∂norm1 = norm2 sin θ/π, where a plain sum of terms would cancel."""
    inner = 1 - 2.0**-40
    sine = 2.0**-20 * (1 + inner) ** 0.5
    by_norm, _, by_inner = jax.jit(jax.grad(functools.partial(arccos_kernel, 1), (0, 1, 2)))(
        1.0, 1.0, inner
    )
    np.testing.assert_allclose(by_norm, sine / np.pi, rtol=1e-14)
    np.testing.assert_allclose(by_inner, 1 - np.arcsin(sine) / np.pi, rtol=1e-15)


def test_gradient_through_the_inputs_on_the_diagonal():
    """k₁(x, x) = ‖x‖² has the gradient 2x, also where its two arguments move together."""
    x = jnp.array([0.3, -0.5, 0.1])

    def diagonal(x):
        norm = jnp.sqrt(x @ x)
        return arccos_kernel(1, norm, norm, x @ x)

    np.testing.assert_allclose(jax.jit(jax.grad(diagonal))(x), 2 * np.asarray(x), rtol=1e-14)


def test_zero_vectors_are_orthogonal_to_all():
    assert [float(KERNEL(n, 0.0, 1.0, 0.0)) for n in ORDERS] == [0.5, 0.0, 0.0]


def test_arguments_broadcast():
    norms = np.arange(1.0, 4)
    table = KERNEL(1, norms[:, None], norms, 0)
    np.testing.assert_allclose(table, np.outer(norms, norms) / np.pi, rtol=1e-15)
    assert jax.eval_shape(functools.partial(arccos_kernel, 1), 2, 2, 4).dtype == jnp.float64


def test_unknown_order():
    with pytest.raises(ValueError, match=r"order is 3; expected 0, 1 or 2"):
        arccos_kernel(3, 1.0, 1.0, 0.0)


@pytest.mark.parametrize("scale", [1e-10, 1e10])
def test_float32_keeps_its_range(scale):
    # p² leaves the range of float32 where p itself does not.
    scale = np.float32(scale)
    for order, power in ((0, 0), (1, 2)):
        unit = KERNEL(order, np.float32(1), np.float32(1), np.float32(0.3))
        scaled = np.asarray(KERNEL(order, scale, scale, np.float32(0.3) * scale * scale))
        np.testing.assert_allclose(scaled / scale**power, unit, rtol=1e-5)


def test_what_is_not_a_number_remains_so():
    """A run that diverged has no kernel: 0 or ½ would look like one."""
    points = np.array([[np.nan, 1, 1], [1, np.nan, 1], [1, 1, np.nan]]).T
    for order in ORDERS:
        assert np.isnan(KERNEL(order, *points)).all()
