"""Theorems 4.3 and 4.4 against Monte Carlo, and their expectations against other quadratures."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled, samples

from ntkflow.systems.node_scaling.drift import (
    expected_gram_drift,
    expected_weight_drift,
    g_1,
    g_2,
)
from ntkflow.systems.node_scaling.gram import gram
from ntkflow.systems.node_scaling.network import NodeScaledNetwork, weight_gradient

SCALES = jnp.array([0.6, 0.3, 0.1])
DRAWS = 1 << 12


def inputs(dtype="float64"):
    """Three in three dimensions, of norms 1, 0.8 and 1.2."""
    x = np.asarray(samples(3, 3, 3))
    x = x * np.array([1.0, 0.8, 1.2])[:, None] / np.linalg.norm(x, axis=1, keepdims=True)
    return jnp.asarray(x, dtype)


def velocities(activation, variance=1.0, smooth=True):
    """Means and standard errors of dw/dt and dΘ/dt over initializations."""
    x, y = inputs(), jnp.array([0.2, -0.1, 0.3])
    module = NodeScaledNetwork(SCALES, activation=activation, variance=variance)

    def draw(key):
        variables = module.init(key, x)
        velocity = -weight_gradient(variables, x, y, activation)
        if not smooth:
            return (velocity,)

        def theta(kernel):
            moved = {**variables, "params": {"kernel": kernel}}
            return gram(moved, x, activation=activation)

        _, change = jax.jvp(theta, (variables["params"]["kernel"],), (velocity,))
        return velocity, change

    def moments(keys):
        drawn = jax.vmap(draw)(keys)
        return [(jnp.mean(a, axis=0), jnp.std(a, axis=0) / math.sqrt(DRAWS)) for a in drawn]

    return compiled(moments)(jax.random.split(jax.random.key(100), DRAWS))


def errors(expected, measured):
    mean, error = (np.asarray(a) for a in measured)
    return np.abs(np.asarray(expected) - mean) / error


def test_both_velocities_against_monte_carlo():
    """The labels drop out, and the paper's d^(3/2) is rejected."""
    activation = jax.nn.swish
    weights, kernels = velocities(activation)

    def expected(x):
        kernel = [
            expected_gram_drift(x, None, x, SCALES, activation, printed=p) for p in (False, True)
        ]
        return expected_weight_drift(x, SCALES, activation), *kernel

    velocity, right, printed = compiled(expected)(inputs())
    assert errors(velocity, weights).max() < 3
    assert errors(right, kernels).max() < 3
    assert errors(printed, kernels).max() > 5
    assert_close(printed, right * math.sqrt(3))


def test_relu_and_the_weights_of_the_released_code():
    expected = compiled(lambda x: expected_weight_drift(x, SCALES, jax.nn.relu, variance=2.0))(
        inputs()
    )
    (weights,) = velocities(jax.nn.relu, variance=2.0, smooth=False)
    assert errors(expected, weights).max() < 3


@pytest.mark.quick
def test_g_1_of_relu_is_a_norm(dtype):
    x = inputs(dtype)
    for variance in (1.0, 2.0):
        expected = jnp.linalg.norm(x, axis=1) * math.sqrt(variance / (2 * math.pi * 3))
        value = compiled(lambda x: g_1(x, activation=jax.nn.relu, variance=variance))(x)
        assert value.dtype == dtype
        assert_close(value, expected)


def swish_slopes(z):
    p = 1 / (1 + np.exp(-z))
    slope = p * (1 - p)
    return z * p, p + z * slope, 2 * slope + z * slope * (1 - 2 * p)


def tanh_slopes(z):
    t = np.tanh(z)
    return t, 1 - t**2, -2 * t * (1 - t**2)


def by_plane(x, slopes):
    """g_2 of all triples of points of the plane, by a fine lattice for w itself."""
    line = np.linspace(-8.5, 8.5, 201)
    plane = np.stack(np.meshgrid(line, line)).reshape(2, -1)
    weights = np.exp(-np.sum(plane**2, axis=0) / 2)
    value, slope, curvature = slopes(x @ plane / math.sqrt(2))
    return np.einsum("ap,bp,cp->abc", curvature, slope * weights / weights.sum(), slope * value)


CASES = [(jax.nn.swish, swish_slopes, 2e-9), (jnp.tanh, tanh_slopes, 1e-7)]


@pytest.mark.parametrize(("activation", "slopes", "bound"), CASES)
def test_expectations_are_as_accurate_as_documented(activation, slopes, bound):
    """Unit inputs, equal, almost equal, opposite and zero ones: covariances of rank 0, 1 and 2."""
    angles = np.array([0.3, 0.3 + 1e-7, 1.4, 0.3 + math.pi])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    x = np.concatenate([x, x[:1], np.zeros((1, 2))])
    values = lambda x: (g_2(x, x, x, activation=activation), g_1(x, activation=activation))  # noqa: E731
    value, first = compiled(values)(jnp.asarray(x))
    assert np.abs(np.asarray(value) - by_plane(x, slopes)).max() < bound
    # g_1 is an integral of the same kind, over a line.
    z = np.linspace(-9, 9, 2001)
    density = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    sigma, slope, _ = slopes(z / math.sqrt(2))
    expected = (sigma * slope) @ density
    assert_close(first[0], expected, scale=1.0)


def test_float32_and_derivatives_at_equal_inputs():
    drift = compiled(jax.value_and_grad(lambda x: jnp.sum(g_2(x, x, x, activation=jnp.sin))))
    x = jnp.array([[0.6, 0.8], [0.6, 0.8]])
    value, gradient = drift(x.astype("float32"))
    assert value.dtype == gradient.dtype == jnp.float32
    # −E sin² cos² of one variable of variance q = ½‖x‖², for all eight triples: (e^(−8q) − 1)/8.
    decay = math.exp(-4)
    assert_close(value, decay - 1, factor=400)
    assert_close(jnp.sum(gradient * x), np.float32(-8 * decay), factor=400, scale=1.0)


def test_errors_say_what_is_wrong():
    x = inputs()
    with pytest.raises(ValueError, match=r"breaks at \(0.0,\); expected a smooth one"):
        g_2(x, x, x, activation=jax.nn.relu)
    with pytest.raises(ValueError, match=r"x2 has shape \(3, 2\).*same number of features"):
        expected_gram_drift(x, x[:, :2], x, SCALES, jnp.tanh)
    with pytest.raises(ValueError, match="expected 1, as in"):
        expected_weight_drift(x, 2 * SCALES, jnp.tanh)
