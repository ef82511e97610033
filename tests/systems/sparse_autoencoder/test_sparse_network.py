"""The shared-weight autoencoder and its gradients, against loops, autodiff and Monte Carlo."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled

from ntkflow.data.generative import mixture_of_gaussians
from ntkflow.systems.sparse_autoencoder.network import (
    SparseAutoencoder,
    approximate_gradient,
    bias_gradient,
    encode,
    mean_loss,
    normalize,
    parameters,
    reconstruct,
    threshold,
    variables,
)
from ntkflow.training.descent import descend

encoded, reconstructed, by_weights, by_bias = (
    compiled(function, static_argnums=3)
    for function in (encode, reconstruct, approximate_gradient, bias_gradient)
)
ACTIVATIONS = {"relu": jax.nn.relu, "threshold": threshold(0.7)}


def normal(seed, *shape, dtype="float64"):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def problem(dtype="float64"):
    """Weights of any norms, biases that differ, and samples."""
    weights, bias = normal(0, 3, 4, dtype=dtype), normal(1, 4, dtype=dtype)
    return weights, bias, normal(2, 5, 3, dtype=dtype)


def in_numpy(name, z):
    return np.maximum(z, 0) if name == "relu" else np.where(np.abs(z) >= 0.7, z, 0)


@pytest.mark.quick
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_forward_is_equation_2(name, dtype):
    weights, bias, y = problem(dtype)
    module = SparseAutoencoder(4, ACTIVATIONS[name], param_dtype=dtype)
    codes = encoded(weights, bias, y, ACTIVATIONS[name])
    w, b = np.asarray(weights), np.asarray(bias)
    x = np.array([in_numpy(name, w.T @ sample + b) for sample in np.asarray(y)])
    assert_close(codes, x)
    assert_close(reconstructed(weights, bias, y, ACTIVATIONS[name]), np.array([w @ c for c in x]))
    applied = compiled(module.apply)(variables(weights, bias), y)
    assert applied.dtype == dtype
    assert_close(applied, x @ w.T)


def test_initialization_is_normal_of_variance_1_over_n():
    module = SparseAutoencoder(500, param_dtype="float32")
    weights, bias = parameters(compiled(module.init)(jax.random.key(0), np.ones((1, 40))))
    weights, bias = np.asarray(weights), np.asarray(bias)
    assert weights.shape == (40, 500)
    assert weights.dtype == bias.dtype == "float32"
    assert not bias.any()
    assert abs(weights.mean()) < 4 * (40 * weights.size) ** -0.5
    assert abs(40 * weights.var() - 1) < 4 * (2 / weights.size) ** 0.5


@pytest.mark.quick
def test_approximate_gradient_is_autodiff(dtype):
    weights, bias, y = problem(dtype)

    def both(name):
        activation = ACTIVATIONS[name]
        exact = jax.grad(mean_loss(activation))(variables(weights, bias), (y, y))["params"]
        arguments = weights, bias, y, activation
        mean = approximate_gradient(*arguments), bias_gradient(*arguments)
        total = approximate_gradient(*arguments, "sum"), bias_gradient(*arguments, "sum")
        return exact, mean, total, jnp.mean(encode(*arguments) != 0)

    for exact, mean, total, active in compiled(lambda: [both(name) for name in ACTIVATIONS])():
        assert 0.2 < active < 0.8
        for i, name in enumerate(("weights", "bias")):
            assert mean[i].dtype == dtype
            assert_close(mean[i], exact[name])
            assert_close(total[i], len(y) * exact[name])


def test_gradients_are_the_printed_formulas():
    weights, bias, y = problem()
    w, b = np.asarray(weights), np.asarray(bias)
    on_weights, on_bias = np.zeros((3, 4)), np.zeros(4)
    for sample in np.asarray(y):
        z = w.T @ sample + b
        x = np.maximum(z, 0)
        for i in np.flatnonzero(x):
            matrix = z[i] * np.eye(3) + np.outer(sample, w[:, i])
            on_weights[:, i] -= matrix @ (sample - w @ x) / 5
            on_bias[i] -= w[:, i] @ (sample - w @ x) / 5
    assert_close(by_weights(weights, bias, y), on_weights)
    assert_close(by_bias(weights, bias, y), on_bias)


def test_expected_bias_gradient_has_the_corrected_sign():
    """+p_i b_i, not the printed −p_i b_i, for unit columns and codes that are consistent."""
    model = mixture_of_gaussians(np.eye(6)[:, :3], noise=0.05)
    weights = compiled(normalize)(model.dictionary + 0.2 * np.asarray(normal(3, 6, 3)) / 6**0.5)
    bias = np.full(3, -0.4)
    y, codes = compiled(model.sample, static_argnums=1)(jax.random.key(0), 2000)
    each = lambda y: bias_gradient(weights, bias, y[None, :])  # noqa: E731
    gradients, found = compiled(lambda y: (jax.vmap(each)(y), encode(weights, bias, y)))(y)
    assert np.array_equal(found != 0, codes != 0)
    gradients = np.asarray(gradients)
    error = gradients.std(axis=0) / len(y) ** 0.5
    expected = model.moments.single * np.asarray(bias)
    mean = gradients.mean(axis=0)
    assert np.all(np.abs(mean - expected) < 4 * error)
    assert np.all(np.abs(mean + expected) > 5 * error)


def test_threshold_at_and_around_its_level():
    z = np.array([-1.0, -0.7, -0.69, 0.0, 0.69, 0.7, 1.0])
    assert threshold(0.7)(z).tolist() == [-1.0, -0.7, 0.0, 0.0, 0.0, 0.7, 1.0]
    slopes = jax.vmap(jax.grad(threshold(0.7)))(z)
    assert slopes.tolist() == [1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    assert hash(threshold(0.7)) == hash(threshold(np.array(0.7)))
    assert threshold(0.7) != threshold(0.5)


def test_equal_thresholds_compile_once():
    traces = []

    def f(activation, y):
        traces.append(activation)
        return activation(y)

    run = jax.jit(f, static_argnums=0)
    run(threshold(0.5), np.ones(2))
    run(threshold(0.5), np.ones(2))
    assert len(traces) == 1


def test_module_trains_with_the_engine():
    """One step of `descend` with the mean loss is W − ζ ∇̃L, b − ζ ∇̃_b L."""
    weights, bias, y = problem()
    run = descend(mean_loss(), optax.sgd(0.1), 1)
    trained = compiled(run)(variables(weights, bias), (y, y))
    after, after_bias = parameters(trained.params)
    assert_close(after, weights - 0.1 * by_weights(weights, bias, y))
    assert_close(after_bias, bias - 0.1 * by_bias(weights, bias, y))
    residual = np.asarray(y - reconstructed(weights, bias, y))
    assert_close(trained.history["loss"][0], np.asarray((residual**2).sum() / 2 / 5))


def test_normalize_makes_unit_columns_and_leaves_zero_alone(dtype):
    weights = np.array(normal(0, 3, 4, dtype=dtype))
    weights[:, 1] = 0
    both = compiled(lambda w: (normalize(w), jax.vjp(normalize, w)[1](normalize(w))))
    unit, (pulled,) = both(weights)
    norms = np.linalg.norm(weights, axis=0)
    assert unit.dtype == dtype
    assert_close(np.linalg.norm(unit, axis=0), np.array([1, 0, 1, 1], dtype))
    assert_close(np.asarray(unit) * norms, weights)
    assert np.all(np.isfinite(pulled))


def test_variables_broadcast_one_bias():
    _, bias = parameters(variables(np.ones((2, 3), "float32"), -0.5))
    assert bias.tolist() == [-0.5] * 3
    assert bias.dtype == "float32"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w, b, y: encode(w, b, y.T), r"expected \(N, n\) and \(n, m\): samples are rows"),
        (lambda w, b, y: encode(w.T, b, y), r"bias \(4,\); expected \(n, m\) and \(m,\)"),
        (lambda w, b, y: encode(w, b, y[0]), "y has shape"),
        (lambda w, b, y: encode(w, b, y * jnp.nan), "y holds NaN"),
        (lambda w, b, y: encode(w, b, y, jnp.sum), "expected an elementwise function"),
        (lambda w, b, y: mean_loss(jnp.sum), "expected an elementwise function"),
        (lambda w, b, y: mean_loss()(variables(w, b), (y, y[:, :2])), "expected the same"),
        (lambda w, b, y: parameters({"params": {}}), "variables of a SparseAutoencoder"),
        (lambda w, b, y: SparseAutoencoder(0).init(jax.random.key(0), y), "width is 0"),
        (lambda w, b, y: variables(w, b[:3]), r"bias has shape \(3,\).*one number for all"),
        (lambda w, b, y: variables(b, 0.0), r"weights \(4,\); expected \(m,\) beside \(n, m\)"),
        (lambda w, b, y: approximate_gradient(w, b, y, reduction="avg"), "reduction is 'avg'"),
        (lambda w, b, y: threshold(-0.5), "level is -0.5; expected a number, 0 or greater"),
        (lambda w, b, y: jax.jit(threshold)(0.5), "known before tracing"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(*problem())
