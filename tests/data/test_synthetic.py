import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled

from ntkflow.data import sine_labels, sphere, sphere_gaussian_labels


@pytest.mark.quick
@pytest.mark.parametrize("d", [2, 50])
def test_points_have_norm_one(dtype, d):
    x = compiled(lambda key: sphere(key, 200, d, dtype))(jax.random.key(1))
    assert x.shape == (200, d)
    assert x.dtype == dtype
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(jnp.linalg.norm(x, axis=1), 1, rtol=0, atol=4 * eps)


def test_points_are_uniform():
    # Uniform on the sphere: E x = 0, E xxᵀ = I/d, E x⁴ = 3/(d(d+2)); each within 5 standard errors.
    n, d = 20_000, 4
    x = np.asarray(compiled(lambda key: sphere(key, n, d))(jax.random.key(2)))
    for sample, mean in (
        (x, np.zeros(d)),
        (x[:, :, None] * x[:, None, :], np.eye(d) / d),
        (x**4, np.full(d, 3 / (d * (d + 2)))),
    ):
        error = sample.std(axis=0) / n**0.5
        # The trace of xxᵀ is fixed, not its entries; none has standard error 0.
        assert (np.abs(sample.mean(axis=0) - mean) < 5 * error).all()


def test_one_dimension_gives_both_signs():
    x = np.asarray(compiled(lambda key: sphere(key, 100, 1))(jax.random.key(3)))
    assert set(x[:, 0].tolist()) == {-1.0, 1.0}


def test_labels_are_gaussian_and_independent_of_inputs():
    n = 20_000
    # Of one of several mapped keys: the plain call's.
    keys = jax.random.split(jax.random.key(5), 3)
    mapped = compiled(jax.vmap(lambda key: sphere_gaussian_labels(key, n, 3)))(keys)
    x, y = (np.asarray(a) for a in sphere_gaussian_labels(keys[1], n, 3))
    assert_close(mapped.x[1], x)
    assert_close(mapped.y[1], y)
    assert abs(y.mean()) < 5 / n**0.5
    assert abs((y**2).mean() - 1) < 5 * 2**0.5 / n**0.5
    assert abs((y**4).mean() - 3) < 5 * 96**0.5 / n**0.5
    assert (np.abs((x * y[:, None]).mean(axis=0)) < 5 * (x * y[:, None]).std(axis=0) / n**0.5).all()


@pytest.mark.parametrize(("n", "d", "name"), [(0, 3, "n"), (3, -1, "d")])
def test_sizes_are_checked(n, d, name):
    with pytest.raises(ValueError, match=rf"{name} is .*whole number"):
        sphere_gaussian_labels(jax.random.key(0), n, d)


@pytest.mark.quick
def test_sine_labels_are_a_signal_with_noise(dtype):
    n, d = 4000, 50

    def draw(key):
        x = sphere(key, n, d, dtype)
        noises = (0.0, 0.1, 1.0)
        return x, [sine_labels(key, x, noise) for noise in noises], jax.jit(sine_labels)(key, x)

    x, (clean, noisy, loud), default = compiled(draw)(jax.random.key(6))
    assert clean.dtype == loud.dtype == dtype
    tolerance = 50 * float(jnp.finfo(dtype).eps)
    signal = 5 / d * np.sin(np.pi * np.asarray(x, float)).sum(axis=1)
    np.testing.assert_allclose(clean, signal, rtol=0, atol=tolerance)
    assert abs(signal.std() - 0.29) < 5 * 0.29 / (2 * n) ** 0.5  # as the docstring says
    error = np.asarray(loud, float) - signal
    assert abs(error.mean()) < 5 / n**0.5
    assert abs((error**2).mean() - 1) < 5 * (2 / n) ** 0.5
    np.testing.assert_allclose(np.asarray(noisy, float) - signal, 0.1 * error, atol=tolerance)
    np.testing.assert_allclose(default, loud, rtol=0, atol=tolerance)


def test_bad_sine_labels():
    key = jax.random.key(0)
    for noise in (-1.0, np.nan, np.inf, jnp.ones(2)):
        with pytest.raises(ValueError, match=r"noise is .*; expected a standard deviation, a num"):
            sine_labels(key, jnp.ones((2, 3)), noise)
    with pytest.raises(ValueError, match=r"x has shape \(3,\); expected \(samples, features\)"):
        sine_labels(key, jnp.ones(3))
