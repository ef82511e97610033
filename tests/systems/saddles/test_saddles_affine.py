"""The affine transform of Corollary 7.2: the same run, moved and stretched; smoothness; mass."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled

from ntkflow.stationarity import Smoothness
from ntkflow.systems.saddles.affine import (
    gaussian_mass,
    transform,
    transform_smoothness,
    transform_step,
)
from ntkflow.systems.saddles.octopus import octopus

CENTER, SCALE = np.array([3.0, -1.0, 0.5]), 2.5


@pytest.mark.quick
def test_descent_on_the_transformed_function_is_the_transformed_descent(dtype):
    center = np.asarray(CENTER, dtype)
    g = transform(octopus, center, SCALE)
    eta = 0.05 * SCALE**2
    slope = lambda f: lambda x, eta: (x - eta * jax.grad(f)(x), x)  # noqa: E731

    def run(f, x, eta):
        return jax.lax.scan(lambda x, _: slope(f)(x, jnp.asarray(eta, dtype)), x, length=60)[1]

    x = np.asarray([0.9, -0.8, 0.5], dtype)
    small, large = jax.device_get(
        compiled(
            lambda x: (
                run(octopus, x, transform_step(eta, SCALE)),
                run(g, center + SCALE * x, eta),
            )
        )(x)
    )
    assert large.dtype == dtype
    assert_close((large - center[None, :]) / SCALE, small, factor=3000)
    assert np.abs(small[-1, 0]) > 10  # it has left the first saddle point


def test_the_smoothness_scales_as_the_derivatives_do():
    f = lambda x: jnp.sum(jnp.sin(x)) + x[0] * x[1] * x[2]  # noqa: E731
    y = np.random.default_rng(0).normal(size=(16, 3))

    @compiled
    @jax.vmap
    def derivatives(center, scale):
        g = transform(f, center, scale)
        parts = lambda x: (g(x), jax.hessian(g)(x), jax.jacfwd(jax.hessian(g))(x))  # noqa: E731
        return jax.vmap(parts)(center[None, :] + scale * y)

    parts = jax.device_get(derivatives(np.array([0 * CENTER, CENTER]), np.array([1.0, SCALE])))
    before, after = (Smoothness(*(np.abs(part[i]).max() for part in parts)) for i in range(2))
    for a, b in zip(transform_smoothness(before, SCALE), after, strict=True):
        assert_close(a, b, factor=1e4)


def test_the_mass_of_a_cube_is_that_of_samples():
    d, radius, sigma = 5, 1.4, 0.8
    gaussian_mass_of_5 = lambda radius: gaussian_mass(5, radius, np.float64(sigma))  # noqa: E731
    mass = float(gaussian_mass(d, radius, sigma))
    x = sigma * np.random.default_rng(0).normal(size=(20000, d))
    share = np.mean(np.all(np.abs(x) <= radius, axis=1))
    assert abs(share - mass) < 4 * math.sqrt(mass * (1 - mass) / 20000)
    assert jax.eval_shape(gaussian_mass_of_5, np.float32(radius)).dtype == "float32"
    # At R = σ log d the part outside falls faster than any power of d: here than 1/d².
    for d in (10**3, 10**4):
        assert 1 - float(gaussian_mass(d, 2.0 * math.log(d), 2.0)) < d**-2.0


def test_what_cannot_be_transformed_is_refused():
    with pytest.raises(ValueError, match="scale is 0; expected a finite number greater than 0"):
        transform(octopus, 0.0, 0)
    with pytest.raises(ValueError, match=r"scale has shape \(2,\); expected one number"):
        transform(octopus, 0.0, np.ones(2))
    with pytest.raises(ValueError, match="step_size is nan; expected a finite number"):
        transform_step(math.nan, 1.0)
    with pytest.raises(ValueError, match="f is of type float"):
        transform(1.0, 0.0, 1.0)
    with pytest.raises(ValueError, match=r"center has shape \(2, 2\)"):
        transform(octopus, jnp.zeros((2, 2)), 1.0)
    with pytest.raises(ValueError, match=r"x has shape \(2,\) and center \(3,\)"):
        transform(octopus, CENTER, 1.0)(jnp.zeros(2))
    with pytest.raises(ValueError, match=r"coordinate 1 of the point .* is 20\.0"):
        transform(octopus, 0.0, 0.5)(jnp.array([10.0, 0.0]))
    with pytest.raises(ValueError, match="radius is -1"):
        gaussian_mass(3, -1)
    with pytest.raises(ValueError, match="d is 0"):
        gaussian_mass(0, 1.0)
    with pytest.raises(ValueError, match="scale is inf"):
        transform_smoothness(Smoothness(1.0, 1.0, 1.0), math.inf)
