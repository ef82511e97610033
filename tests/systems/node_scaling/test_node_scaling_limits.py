"""The kernel at initialization: mean, variance and random limit, against Monte Carlo."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled, samples

import ntkflow
from ntkflow.kernels.arccos import arccos_kernel
from ntkflow.kernels.quadrature import derivative
from ntkflow.systems.node_scaling import (
    NodeScaledNetwork,
    block,
    expected_squared_deviation,
    gram,
    gram_variance,
    kernel_departure,
    largest_second_moment,
    largest_second_moment_upper,
    limit_distance,
    limit_gram,
    limit_predictor,
    limit_smallest_eigenvalue,
    mean_gram,
    node_scales,
    power_sum,
    sample_limit,
    third_order_kernel,
    zipf,
)

D, N = 3, 4
X = samples(0, N, D)


def normal(seed, *shape):
    """Of any size, without a program for it."""
    return np.random.default_rng(seed).normal(size=shape)


def variables_of(kernel, scales):
    fixed = {"output": jnp.ones(len(scales)), "scales": scales}
    return {"params": {"kernel": kernel}, "fixed": fixed}


@pytest.mark.quick
def test_of_relu_it_is_the_kernel_of_order_0(dtype):
    x = X.astype(dtype)

    @compiled
    def kernels(x):
        norms, inner = jnp.linalg.norm(x, axis=1), x @ x.T
        return (
            inner / (2 * D) * arccos_kernel(0, norms[:, None], norms[None, :], inner),
            mean_gram(x, activation=jax.nn.relu),
            mean_gram(x, activation=jax.nn.relu, variance=2.0),
            mean_gram(x, 2 * x[:2], activation=jax.nn.relu),
        )

    order_0, theta, wide, scaled = kernels(x)
    assert theta.dtype == dtype
    assert_close(theta, order_0, factor=1 / np.finfo(dtype).eps ** 0.5)
    assert_close(np.diag(theta), np.sum(np.square(x), axis=1) / (2 * D))
    # The slope does not depend on the norms: of no influence are the variance and a factor.
    assert_close(wide, theta, factor=1 / np.finfo(dtype).eps ** 0.5)
    assert_close(scaled, 2 * theta[:, :2], factor=1 / np.finfo(dtype).eps ** 0.5)


def test_it_is_the_mean_over_weights():
    m, activation = 40_000, jax.nn.swish
    z = np.asarray(X) @ (math.sqrt(2.0) * normal(1, D, m)) / D**0.5
    steps = np.asarray(compiled(derivative(activation))(z))
    products = (
        steps[:, None, :] * steps[None, :, :] * (np.asarray(X) @ np.asarray(X).T)[:, :, None] / D
    )
    standard_error = products.std(axis=-1) / m**0.5
    theta = compiled(lambda x: mean_gram(x, activation=activation, variance=2.0))(X)
    assert (np.abs(products.mean(axis=-1) - theta) < 4 * standard_error).all()
    assert standard_error.max() < 0.02 * np.abs(theta).max()


def test_the_transform_of_infinite_width_agrees_at_gamma_1():
    scales = np.full(64, 1 / 64)  # γ = 1

    @compiled
    def kernels(x):
        choices = {"activation": jax.lax.erf, "variance": 2.0}
        module = NodeScaledNetwork(scales, output="trained", **choices)
        means = [mean_gram(x, output=output, **choices) for output in ("fixed", "trained")]
        return ntkflow.infinite_width(module)(x), means

    limit, (fixed, both) = kernels(X)
    assert_close(limit.ntk, both)
    assert_close(limit.nngp, both - fixed)  # what the output layer adds
    with pytest.raises(ValueError, match="different constants"):
        ntkflow.infinite_width(NodeScaledNetwork(node_scales(zipf(64, 0.5), 0.5)))(X)


def test_the_smallest_eigenvalue_of_the_experiments():
    x = normal(2, 100, 50)
    x = x / np.linalg.norm(x, axis=1)[:, None]
    parallel = np.concatenate([X[:3], 0.5 * np.asarray(X)[:1]])
    of_relu, of_swish, of_parallel = compiled(
        lambda *inputs: [
            limit_smallest_eigenvalue(x, activation=activation)
            for x, activation in zip(inputs, (jax.nn.relu, jax.nn.swish, jax.nn.relu), strict=True)
        ]
    )(x, x, parallel)
    assert 0.0035 < of_relu < 0.0040
    assert 5.5e-5 < of_swish < 6.7e-5
    assert of_parallel == 0


def test_of_relu_the_variance_is_that_of_a_coin():
    x = np.asarray(X)
    norms = np.linalg.norm(x, axis=1)
    rho = np.clip(x @ x.T / np.outer(norms, norms), -1, 1)
    p = (np.pi - np.arccos(rho)) / (2 * np.pi)
    expected = np.sum((x @ x.T / D) ** 2 * p * (1 - p))
    np.testing.assert_allclose(gram_variance(X, activation=jax.nn.relu), expected, rtol=1e-6)


def test_the_mean_squared_deviation_is_equation_7_at_every_width():
    activation, draws, m = jnp.tanh, 2000, 12

    @compiled
    def deviations(kernels):
        all_scales = jnp.stack([node_scales(zipf(m, 0.5), gamma) for gamma in (0.0, 0.5, 1.0)])
        theta = mean_gram(X, activation=activation)
        c_0 = gram_variance(X, activation=activation)
        draw = lambda scales, kernel: gram(  # noqa: E731
            variables_of(kernel, scales), X, activation=activation
        )
        thetas = jax.vmap(lambda scales: jax.vmap(functools.partial(draw, scales))(kernels))
        bound = expected_squared_deviation(X, all_scales[0], activation=activation)
        squares = jnp.sum(jnp.square(thetas(all_scales) - theta[None, None]), axis=(2, 3))
        return all_scales, c_0, squares, bound.value

    results = jax.device_get(deviations(normal(3, draws, D, m)))
    all_scales, c_0, squares, bound = results
    for scales, found in zip(all_scales, squares, strict=True):
        standard_error = found.std() / draws**0.5
        assert standard_error < 0.05 * found.mean()
        assert abs(found.mean() - c_0 * power_sum(scales, 2)) < 4 * standard_error
    assert_close(bound, c_0 * power_sum(all_scales[0], 2))


def test_the_random_limit_has_the_mean_and_the_variance_of_proposition_3_1():
    weights, gamma, draws = zipf(60, 0.5), 0.4, 1000
    draw = functools.partial(
        sample_limit, x=X, weights=weights, gamma=gamma, activation=jax.nn.relu
    )

    @compiled
    def everything(key):
        kernels = jax.vmap(draw)(jax.random.split(key, draws))
        theta = mean_gram(X, activation=jax.nn.relu)
        lazy = sample_limit(key, X, weights, 1.0, activation=jax.nn.relu)
        return kernels, theta, gram_variance(X, activation=jax.nn.relu), lazy

    thetas, theta, c_0, lazy = (np.asarray(part) for part in everything(jax.random.key(0)))
    standard_error = thetas.std(axis=0) / draws**0.5
    assert (np.abs(thetas.mean(axis=0) - theta) <= 4 * standard_error + 1e-12).all()
    squares = np.sum(np.square(thetas - theta[None]), axis=(1, 2))
    # γ Θ* does not vary: what is left is λ⁽²⁾, whose sum over 60 nodes is divided by it.
    expected = c_0 * 0.36 * power_sum(node_scales(weights, 0.0), 2)
    assert abs(squares.mean() - expected) < 4 * squares.std() / draws**0.5
    assert abs(expected / (c_0 * kernel_departure(gamma, 0.5)) - 1) < 0.03  # cut at 60
    assert_close(lazy, theta)
    single = jax.eval_shape(functools.partial(draw, x=X.astype("float32")), jax.random.key(0))
    assert single.dtype == "float32"


def test_on_shared_weights_the_kernel_converges_to_the_limit():
    most, gamma, alpha, widths = 2**13, 0.5, 0.5, (2**2, 2**6, 2**10)
    arguments = {"activation": jax.nn.relu}

    def distances(kernel):  # its columns are what a sequence of nodes draws
        limit = limit_gram(kernel, X, zipf(most, alpha), gamma, **arguments)
        tail = limit_distance(kernel, X, zipf(most, alpha), 0.0, **arguments).value
        pairs = []
        for m in widths:
            weights, first = zipf(m, alpha), kernel[:, :m]
            theta = gram(variables_of(first, node_scales(weights, gamma)), X, **arguments)
            bound = limit_distance(first, X, weights, gamma, **arguments).value
            pairs.append((jnp.abs(theta - limit), bound + (1 - gamma) * tail))
        return pairs, jnp.abs(limit - mean_gram(X, **arguments))

    pairs, departure = compiled(jax.vmap(distances))(normal(4, 8, D, most))
    assert all((gap <= bound).all() for gap, bound in pairs)
    errors = [float(jnp.mean(gap)) for gap, _ in pairs]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    # While Θ* stays as far away as (7) says it is in the mean.
    assert departure.mean() > 10 * errors[2]


def test_called_eagerly_nothing_compiles_anew():
    compilations = []

    def listen(event, seconds, **_):
        if event.endswith("backend_compile_duration"):
            compilations.append(event)

    def call(x):
        mean_gram(x, activation=jax.nn.relu)
        variables = variables_of(jnp.ones((1, 2)), jnp.array([0.5, 0.5]))
        third_order_kernel(variables, x, None, x, activation=jnp.tanh)

    inputs = [jnp.array([[c], [2.0]]) for c in (1.0, 3.0)]
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        call(inputs[0])
        assert compilations  # the name of the event is still that
        compilations.clear()
        call(inputs[1])
        assert not compilations
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_single_precision_stays():
    x, kernel = X.astype("float32"), jnp.ones((D, 2), jnp.float32)
    bound = jax.eval_shape(
        lambda x: limit_distance(kernel, x, zipf(2, 0.5), 0.5, activation=jax.nn.relu).value, x
    )
    assert bound.dtype == jnp.float32


def test_the_second_moment_is_at_most_c_1():
    square = compiled(lambda: largest_second_moment(8, activation=lambda z: z, variance=2.0).value)
    assert_close(square(), 2 / 8, factor=1e4)
    # Where the supremum is not at c = 1: E[cos²] = (1 + e^{−2c²/d})/2 falls from 1.
    cosine = compiled(lambda: largest_second_moment(2, activation=jnp.cos).value)()
    assert_close(cosine, 1.0, factor=1e4)
    assert cosine <= largest_second_moment_upper(2, activation=jnp.cos).value


def test_wide_networks_of_gamma_1_learn_as_kernel_regression_does():
    x, x_test = np.asarray(samples(5, 2, 3)), samples(6, 3, 3)
    x = x * (math.sqrt(3) / np.linalg.norm(x, axis=1))[:, None]
    y, m, seeds = jnp.array([1.0, -0.5]), 2**10, 3

    def experiment(scales, seed):
        predict = limit_predictor(x, y, activation=jax.nn.relu)
        module = NodeScaledNetwork(scales)
        run = ntkflow.descend(ntkflow.squared_loss(module.apply), optax.sgd(1.0), 60, every=60)
        variables = module.init(jax.random.key(seed), x)
        end = run(variables, (x, y))
        expected = predict(x_test, module.apply(variables, x), module.apply(variables, x_test))
        return module.apply(end.params, x_test) - expected.test, end.history["loss"][-1]

    @compiled
    def study(seeds):
        # Without an equal part, a block is a network of that width under NTK scaling.
        settings = [node_scales(block(m, k), 0.0) for k in (2**2, 2**6, 2**10)]
        settings = jnp.stack([*settings, node_scales(zipf(m, 0.5), 0.0)])
        return settings, jax.vmap(jax.vmap(experiment, (None, 0)), (0, None))(settings, seeds)

    settings, (gaps, losses) = jax.device_get(study(np.arange(seeds)))
    assert_close(settings[2], np.full(m, 1 / m))  # γ = 1
    assert losses[1:3].max() < 1e-6
    errors = np.sqrt(np.mean(np.square(gaps), axis=(1, 2)))
    # The distance is of order 1/√m: a quarter for 16 times the width.
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.05
    assert errors[3] > 4 * errors[2]


def test_predictions_of_the_limit_are_the_closed_form():
    y, f_0 = samples(7, N), samples(8, N)
    x_test = 0.5 + X[:2]

    @compiled
    def everything(x):
        predict = limit_predictor(x, y, activation=jax.nn.relu)
        kernels = [mean_gram(z, x, activation=jax.nn.relu) for z in (x, x_test)]
        return kernels, predict(x_test, f_0, times=3.0), predict(x_test, f_0)

    (theta, cross), at_3, at_end = everything(X)
    values, vectors = np.linalg.eigh(theta)
    decay = vectors @ np.diag(np.exp(-3.0 * values)) @ vectors.T
    assert_close(at_3.train, y + decay @ (f_0 - y), factor=1e4)
    assert_close(at_end.train, y, factor=1e6)
    assert_close(at_end.test, cross @ np.linalg.solve(theta, y - f_0), factor=1e6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_gram(X, jnp.ones((1, 2)), activation=jnp.tanh), "x1 has 3 features and x2 2"),
        (lambda: mean_gram(X, activation=jnp.tanh, variance=0.0), "variance is 0.0; expected"),
        (
            lambda: mean_gram(X, activation=jnp.tanh, output="both"),
            "output is 'both'; expected one",
        ),
        (lambda: mean_gram(X, activation=jnp.tanh, variance=jnp.ones(4)), "variance has shape"),
        (
            lambda: limit_gram(jnp.ones((D, 2)), X, jnp.ones(3), 0.5, activation=jnp.tanh),
            "kernel has shape \\(3, 2\\); expected \\(3, 3\\)",
        ),
        (
            lambda: largest_second_moment(2, activation=jnp.tanh, variance=float("nan")),
            "variance is nan; expected",
        ),
        (lambda: mean_gram(X, activation=jnp.sum), "phi turns an array"),
        (
            lambda: expected_squared_deviation(X, zipf(9, 0.5), activation=jax.nn.relu),
            "scales have the sum 0.9",
        ),
        (
            lambda: limit_distance(jnp.ones((D, 2)), X, jnp.ones(2), 0.5, activation=jnp.tanh),
            "weights have the sum 2; expected at most 1",
        ),
        (lambda: largest_second_moment(0, activation=jnp.tanh), "d is 0; expected a whole number"),
    ],
)
def test_mistakes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
