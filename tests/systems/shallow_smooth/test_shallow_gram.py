"""The Gram matrices against the empirical kernel, Monte Carlo and the infinite-width transform."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled

from ntkflow.kernels.empirical import empirical_ntk
from ntkflow.kernels.hermite import hermite_coefficients
from ntkflow.kernels.infinite import infinite_width
from ntkflow.systems.shallow_smooth import (
    ShallowSmooth,
    expected_feature_gram,
    expected_gram,
    feature_gram,
    gelu,
    gram,
    he,
    power_gram,
)


def normal(seed, *shape, dtype="float64"):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def initialize(seed, d_0, d_1, d_2, omega1=1.0, omega2=1.0, dtype="float64"):
    hidden = normal(seed, d_0, d_1)
    output = normal(seed + 100, d_1, d_2)
    leaves = {"hidden": omega1 * hidden, "output": omega2 * output}
    return {"params": {name: leaf.astype(dtype) for name, leaf in leaves.items()}}


def sphere(seed, n, d):
    x = normal(seed, n, d)
    return x / jnp.linalg.norm(x, axis=1)[:, None]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("activation", "dtype"), [(gelu, "float64"), (gelu, "float32"), (jnp.tanh, "float64")]
)
def test_gram_is_the_empirical_kernel(activation, dtype):
    x1, x2 = 2 * normal(0, 5, 4, dtype=dtype), normal(1, 3, 4, dtype=dtype)
    variables = initialize(2, 4, 9, 3, 0.7, 0.4, dtype)
    kernel = empirical_ntk(ShallowSmooth(9, 3, activation=activation).apply)

    @compiled
    def both(v):
        found = [gram(v, x, other, activation=activation) for x, other in ((x1, None), (x1, x2))]
        return found, [kernel(v, x1), kernel(v, x1, x2)]

    found, expected = both(variables)
    assert found[0].dtype == dtype
    for actual, desired in zip(found, expected, strict=True):
        assert_close(actual, desired)
        if dtype == "float64":
            np.testing.assert_allclose(actual, desired, rtol=0, atol=1e-10)
    assert (found[0] == found[0].transpose(1, 0, 3, 2)).all()


def test_feature_gram_is_what_the_output_layer_gives():
    """The tangent kernel of V = 0 is M_0 for each output."""
    x, variables = normal(0, 5, 4), initialize(2, 4, 9, 3, omega2=0)
    found, rest = compiled(lambda v: [g(v, x, activation=gelu) for g in (feature_gram, gram)])(
        variables
    )
    assert (found == found.T).all()
    assert_close(rest, np.asarray(found)[:, :, None, None] * np.eye(3))


# Inputs of other norms than 1, a zero row, a pair of antiparallel ones.
X = jnp.concatenate([normal(3, 3, 3) * jnp.array([[0.3], [1.0], [1.6]]), jnp.zeros((1, 3))])
X = jnp.concatenate([X, -0.5 * X[:1]])


@pytest.mark.parametrize(("activation", "omega1"), [(gelu, 0.6), (jax.nn.elu, 1.5)])
def test_expected_feature_gram_is_the_mean_over_neurons(activation, omega1):
    """Five standard errors of a mean over 40 000 neurons, which are independent."""
    hidden = activation(np.asarray(X) @ np.asarray(omega1 * normal(4, 3, 40_000)))
    products = np.asarray(hidden)[:, None] * np.asarray(hidden)[None]
    error = products.std(axis=-1) / products.shape[-1] ** 0.5
    expected = compiled(
        lambda w: expected_feature_gram(X, width=10, omega1=w, activation=activation)
    )(omega1)
    assert (abs(np.asarray(expected) / 10 - products.mean(axis=-1)) <= 5 * error + 1e-15).all()
    assert (error[:3, :3] > 0).all()
    assert (expected == expected.T).all()


def test_series_meets_the_dual_activation(dtype):
    """For traced ω₁ and any norms: up to ω₁‖x‖ = 1.6 64 terms of GELU hold all but 4e-11."""
    x, other = X.astype(dtype), normal(5, 2, 3, dtype=dtype)

    @compiled
    @jax.vmap
    def both(omega1):
        given = {"width": 3, "omega1": omega1, "activation": gelu}
        return [
            [expected_feature_gram(x, x2, **given, terms=terms) for terms in (None, 64)]
            for x2 in ((None, other) if dtype == "float64" else (None,))
        ]

    for exact, series in both(jnp.array([0.3, 0.5], dtype)):
        assert exact.dtype == series.dtype == dtype
        np.testing.assert_allclose(exact, series, rtol=0, atol=1e-5 if dtype == "float32" else 1e-9)


def test_series_of_unit_inputs_is_equation_56():
    """Σ_i (c_i²/i!) (X^{*i})ᵀ X^{*i}; the printed X^{*0} has n times the first term, c_0² 11ᵀ."""
    x, terms = sphere(6, 4, 3), 5

    @compiled
    def both():
        c = hermite_coefficients(gelu, terms, 0.7)
        powers = [c[i] ** 2 / math.factorial(i) * power_gram(x, i) for i in range(terms)]
        given = {"width": 2, "omega1": 0.7, "activation": gelu}
        found = [expected_feature_gram(x, **given, terms=k) for k in (1, terms)]
        return found, [2 * powers[0], 2 * sum(powers)], power_gram(x, 0, printed=True), c[0]

    found, expected, printed, c_0 = both()
    jax.tree.map(assert_close, found, expected)
    assert_close(printed * c_0**2, 2 * found[0])  # n = 4 times 11ᵀ, where d_1 is 2


def test_feature_gram_over_width_converges():
    """The error of M_0/d_1 falls like 1/√d_1: 100 times the width, a tenth of it, to a factor 2."""
    x = sphere(7, 20, 10)
    limit = compiled(lambda: expected_feature_gram(x, width=1, omega1=1.0, activation=gelu))()
    measure = compiled(lambda v: feature_gram(v, x, activation=gelu))

    def error(seed, width):
        found = np.asarray(measure(initialize(seed, 10, width, 1))) / width
        return np.linalg.norm(found - limit) / np.linalg.norm(limit)

    errors = {width: np.mean([error(s, width) for s in (1, 2)]) for width in (100, 10_000)}
    assert 0.05 < errors[10_000] / errors[100] < 0.2
    assert errors[10_000] < 0.05


def test_infinite_width_transform_gives_the_expected_gram():
    """It follows the module's own initializers: width, ω₁ and ω₂ stand in the kernel."""
    x, other = normal(8, 3, 4), normal(9, 2, 4)
    given = {"omega1": 0.6, "omega2": 0.3, "activation": gelu}
    kernel = infinite_width(ShallowSmooth(50, 2, **given))
    limit, expected, hidden = compiled(
        lambda: (
            kernel(x, other),
            expected_gram(x, other, width=50, **given),
            expected_feature_gram(x, other, width=50, omega1=0.6, activation=gelu),
        )
    )()
    np.testing.assert_allclose(limit.ntk, expected, rtol=1e-10)
    np.testing.assert_allclose(limit.nngp, 0.3**2 * hidden, rtol=1e-10)


def test_expected_gram_is_the_mean_of_the_kernel():
    """He's scales; five standard errors of 400 networks; different outputs are independent."""
    x = normal(10, 3, 4)
    omega1, omega2 = he(4, 6)
    hidden, output = omega1 * normal(11, 400, 4, 6), omega2 * normal(12, 400, 6, 2)

    @compiled
    def both(hidden, output):
        variables = {"params": {"hidden": hidden, "output": output}}
        scales = {"omega1": omega1, "omega2": omega2}
        draws = jax.vmap(lambda v: gram(v, x, activation=gelu))(variables)
        return draws, expected_gram(x, width=6, activation=gelu, **scales)

    draws, expected = both(hidden, output)
    mean, error = np.mean(draws, axis=0), np.std(draws, axis=0) / 20
    expected = np.asarray(expected)[:, :, None, None] * np.eye(2)
    assert (abs(mean - expected) <= 5 * error).all()
    assert (error > 0).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"width": 0}, "width is 0; expected a whole number greater than 0"),
        ({"omega1": 0.0}, "omega1 is 0.0; expected a finite number greater than 0"),
        ({"activation": jnp.sum}, "activation turns an array of shape"),
        ({"terms": 0}, "terms is 0; expected a whole number"),
    ],
)
def test_expected_feature_gram_refuses(given, message):
    with pytest.raises(ValueError, match=message):
        expected_feature_gram(X, **{"width": 2, "omega1": 1.0, "activation": gelu, **given})


def test_inputs_of_other_features_are_refused():
    with pytest.raises(ValueError, match="x1 has 3 features and x2 2; expected the same"):
        gram(initialize(0, 3, 4, 1), jnp.ones((2, 3)), jnp.ones((2, 2)), activation=gelu)
