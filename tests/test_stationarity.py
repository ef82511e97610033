"""Tests of stationarity against functions whose curvature is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled, samples

from ntkflow.stationarity import (
    gradient_norm,
    is_first_order_stationary,
    is_second_order_stationary,
    is_strict_saddle,
    measure_smoothness,
    smallest_hessian_eigenvalue,
)

D = 12
TURN = np.linalg.qr(np.random.default_rng(0).normal(size=(D, D)))[0]
EIGENVALUES = np.linspace(-3.0, 8.0, D)
MATRIX = TURN * EIGENVALUES @ TURN.T


def quadratic(x):
    return 0.5 * jnp.vdot(x, jnp.asarray(MATRIX, x.dtype) @ x)


def of_tree(tree):
    """The same function of two leaves."""
    return quadratic(jnp.concatenate([tree["a"].reshape(-1), tree["b"]]))


def tree(x):
    return {"a": x[:6].reshape(2, 3), "b": x[6:]}


@pytest.mark.quick
def test_the_smallest_eigenvalue_is_found_with_its_error(dtype):
    x = samples(0, D, dtype=dtype)
    dense, lanczos, norm = compiled(
        lambda x: (
            smallest_hessian_eigenvalue(quadratic)(x),
            smallest_hessian_eigenvalue(of_tree, "lanczos")(tree(x)),
            gradient_norm(of_tree)(tree(x)),
        )
    )(x)
    for smallest in (dense, lanczos):
        assert smallest.value.dtype == dtype
        assert abs(float(smallest.value) + 3) <= float(smallest.error)
        assert smallest.error < 500 * jnp.finfo(dtype).eps
    assert dense.error == dense.resolution
    assert_close(norm, np.linalg.norm(MATRIX.astype(dtype) @ np.asarray(x)))


def test_few_steps_of_lanczos_leave_an_error_that_is_known():
    spread, origin = np.linspace(-1.0, 1.0, 400), np.zeros(400)
    options = {"method": "lanczos", "key": jax.random.key(1), "steps": 12}

    def all_of(scale, epsilon, alpha):
        f = lambda x: 0.5 * jnp.sum(scale * spread * x**2)  # noqa: E731
        second = is_second_order_stationary(f, epsilon, epsilon, **options)
        strict = is_strict_saddle(f, alpha, **options)
        return smallest_hessian_eigenvalue(f, **options)(origin), second(origin), strict(origin)

    scale, epsilon, alpha = np.array([1.0, 2.0]), np.array([1.1, 4.0]), np.array([0.9, 2.0])
    smallest, second, strict = jax.device_get(compiled(jax.vmap(all_of))(scale, epsilon, alpha))
    value, error, resolution = (part[0] for part in smallest)
    assert -1 <= value < -0.9
    assert value + 1 <= error < 1
    assert resolution < 1e-12
    assert_close(smallest.value[1], 2 * np.asarray(value))
    # A curvature of −1 is not told from less than −√(ρε) = −1.1; nor, for sure, to be −1 or less.
    np.testing.assert_array_equal(second, [False, True])
    np.testing.assert_array_equal(strict, [True, False])


def test_the_orders_of_stationarity_are_told_apart():
    saddle = lambda x: x[0] ** 2 - 0.125 * x[1] ** 2  # noqa: E731
    bowl = lambda x: jnp.sum(x**2)  # noqa: E731
    flat = lambda x: x[0] ** 2 + jnp.sum(x**4)  # noqa: E731
    origin, off = jnp.zeros(2), jnp.array([0.5, 0.0])  # of gradients 0 and 1
    results = compiled(
        lambda: {
            "first": [
                is_first_order_stationary(saddle)(origin),
                is_first_order_stationary(saddle, 1.1)(off),
                ~is_first_order_stationary(saddle, 0.9)(off),
            ],
            "second": [  # λ_min = −1/4, and −√(ρε) = −0.3 and −0.2
                is_second_order_stationary(saddle, 0.9, 0.1)(origin),
                ~is_second_order_stationary(saddle, 0.4, 0.1)(origin),
                ~is_second_order_stationary(saddle, 0.9, 0.1)(off),
                is_second_order_stationary(bowl)(origin),
                is_second_order_stationary(flat)(origin),
            ],
            "strict": [
                is_strict_saddle(saddle, 0.25)(origin),
                ~is_strict_saddle(saddle, 0.26)(origin),
                ~is_strict_saddle(saddle, 0.25)(off),
                is_strict_saddle(saddle, 0.25, tolerance=1.1)(off),
                ~is_strict_saddle(flat, 0.1)(origin),
                is_strict_saddle(lambda x: -bowl(x), 2.0)(origin),  # a maximum, by the definition
            ],
        }
    )()
    for name, holds in results.items():
        assert all(holds), (name, holds)


def test_the_tests_are_jitted_and_mapped_also_over_functions():

    def of_scaled(scale, x):
        f = lambda y: scale * quadratic(y)  # noqa: E731
        return smallest_hessian_eigenvalue(f)(x).value, is_first_order_stationary(f, 1.0)(x)

    scales, x = np.array([1.0, 2.0, -1.0]), np.array(samples(1, 3, D))
    x[1] = 0
    curvature, stationary = compiled(jax.vmap(of_scaled))(scales, x)
    assert_close(curvature, np.array([-3.0, -6.0, -8.0]), factor=1e4)
    np.testing.assert_array_equal(stationary, [False, True, False])


def test_the_error_of_the_dense_eigenvalue_bounds_that_of_indefinite_matrices():
    """Against Rayleigh quotients in extended precision, whose error is squared."""
    a = np.random.default_rng(0).normal(size=(300, D, D))
    a += a.transpose(0, 2, 1)
    v = np.linalg.eigh(a)[1][:, :, 0].astype(np.longdouble)
    exact = np.einsum("ni,nij,nj->n", v, a, v) / np.sum(v**2, axis=1)

    def eigenvalue(a):
        return smallest_hessian_eigenvalue(lambda x: 0.5 * jnp.vdot(x, a @ x))(jnp.zeros(D))

    value, error, _ = map(np.asarray, compiled(jax.vmap(eigenvalue))(a))
    assert np.all(np.abs(value - exact) <= error)
    largest = np.abs(np.linalg.eigvalsh(a)).max(axis=1)
    assert np.any(np.abs(value - exact) > 4 * np.finfo(float).eps * largest)


def test_a_gradient_whose_square_underflows_is_not_zero(dtype):
    x = np.full(3, 3 * float(np.finfo(dtype).tiny), dtype)
    norm = compiled(gradient_norm(lambda x: 0.5 * jnp.sum(x**2)))(x)
    assert_close(norm, np.sqrt(np.asarray(3.0, dtype)) * x[0])
    assert norm > 0


def test_smoothness_is_measured_where_it_is_known(dtype):
    """f = Σ a_j y_j³ in turned coordinates y: ∇³f is largest along one, 6 max |a_j|."""
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]

    def cubic(x):
        y = jnp.asarray(turn, x.dtype) @ x
        return jnp.sum(jnp.asarray([1.0, -2.0, 0.5], x.dtype) * y**3)

    points = np.asarray([[0.0, 0.0, 0.0], *turn.tolist(), *(-turn).tolist()], dtype)
    of_leaves = lambda t: cubic(jnp.concatenate([t["a"], t["b"]]))  # noqa: E731
    measure = compiled(lambda tree: measure_smoothness(of_leaves, tree, batch_size=3))
    # At y = (0, ±1, 0); without these points at y = (±1, 0, 0).
    some = points[[0, 1, 3, 4, 6, 1, 1]]
    for x, known in ((points, (2.0, 12.0, 12.0)), (some, (1.0, 6.0, 12.0))):
        measured = measure({"a": x[:, :1], "b": x[:, 1:]})
        for value, number in zip(measured, known, strict=True):
            assert value.dtype == dtype
            assert_close(value, np.asarray(number, dtype), factor=1e3)


def test_what_cannot_be_judged_is_refused():
    bowl = lambda x: jnp.sum(x**2)  # noqa: E731
    with pytest.raises(ValueError, match=r"method is 'power'; expected"):
        smallest_hessian_eigenvalue(bowl, "power")
    with pytest.raises(ValueError, match="f is of type int; expected a function"):
        gradient_norm(3)
    with pytest.raises(ValueError, match="x holds no numbers"):
        smallest_hessian_eigenvalue(bowl, "lanczos")(jnp.zeros(0))
    with pytest.raises(ValueError, match="x has dtype complex128; expected real numbers"):
        gradient_norm(lambda x: jnp.sum(jnp.abs(x)))(np.ones(2) * 1j)
    with pytest.raises(ValueError, match="expected one real number"):
        gradient_norm(lambda x: x)(jnp.ones(2))
    with pytest.raises(ValueError, match="x holds NaN"):
        gradient_norm(bowl)(jnp.array([1.0, jnp.nan]))
    with pytest.raises(ValueError, match=r"epsilon is -0\.1; expected a number, 0 or greater"):
        is_first_order_stationary(bowl, -0.1)
    with pytest.raises(ValueError, match="hessian_lipschitz is -1"):
        is_second_order_stationary(bowl, 0.1, -1)
    with pytest.raises(ValueError, match=r"alpha is 0\.0; expected a number greater than 0"):
        is_strict_saddle(bowl, 0.0)
    with pytest.raises(ValueError, match="steps is 0"):
        smallest_hessian_eigenvalue(bowl, "lanczos", steps=0)
    with pytest.raises(ValueError, match="hold no samples"):
        measure_smoothness(bowl, jnp.zeros((0, 2)))
    with pytest.raises(ValueError, match="hold no samples"):
        measure_smoothness(lambda tree: 1.0, {})
