"""The Gram matrices against the empirical kernel, Monte Carlo and the infinite-width transform."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled
from scipy import special

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
    power_gram,
)


def normal(seed, *shape, dtype="float64"):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def initialize(seed, d_0, d_1, d_2, omega1=1.0, omega2=1.0, dtype="float64"):
    hidden = np.random.default_rng(seed).normal(size=(d_0, d_1))
    output = np.random.default_rng(seed + 100).normal(size=(d_1, d_2))
    leaves = {"hidden": omega1 * hidden, "output": omega2 * output}
    return {"params": {name: jnp.asarray(leaf, dtype) for name, leaf in leaves.items()}}


def sphere(seed, n, d):
    x = np.random.default_rng(seed).normal(size=(n, d))
    return jnp.asarray(x / np.linalg.norm(x, axis=1)[:, None])


@pytest.mark.quick
def test_gram_is_the_empirical_kernel():
    """And of V = 0 it is M_0 for each output."""
    x1, x2 = 2 * normal(0, 5, 4), normal(1, 3, 4)
    variables = initialize(2, 4, 9, 3, 0.7, 0.4)
    kernel = empirical_ntk(ShallowSmooth(9, 3).apply)

    @compiled
    def both(v):
        found = [gram(v, x1, other, activation=gelu) for other in (None, x2)]
        fixed = {"params": {**v["params"], "output": jnp.zeros((9, 3))}}
        rest = feature_gram(fixed, x1, activation=gelu), gram(fixed, x1, activation=gelu)
        return found, [kernel(v, x1), kernel(v, x1, x2)], rest

    found, expected, (features, rest) = both(variables)
    for actual, desired in zip(found, expected, strict=True):
        assert_close(actual, desired)
        np.testing.assert_allclose(actual, desired, rtol=0, atol=1e-10)
    assert (found[0] == found[0].transpose(1, 0, 3, 2)).all()
    assert (features == features.T).all()
    assert_close(rest, np.asarray(features)[:, :, None, None] * np.eye(3))


def test_results_have_the_dtype_of_the_inputs(dtype):
    """Whatever that of the scales: those of a sweep are NumPy's, in float64."""
    x, variables = normal(0, 5, 4, dtype=dtype), initialize(2, 4, 9, 3, dtype=dtype)
    number = np.float64(0.5)
    given = {"width": np.int64(3), "omega1": number, "activation": gelu}
    found = jax.eval_shape(
        lambda: (
            gram(variables, x, activation=gelu),
            feature_gram(variables, x, activation=gelu),
            expected_gram(x, **given, omega2=number),
            expected_feature_gram(x, **{**given, "width": np.float64(3)}),
            expected_feature_gram(x, **given, terms=4),
        )
    )
    assert {leaf.dtype.name for leaf in found} == {dtype}


# Inputs of other norms than 1, a zero row, a pair of antiparallel ones.
X = np.asarray(normal(3, 3, 3)) * np.array([[0.3], [1.0], [1.6]])
X = jnp.asarray(np.concatenate([X, np.zeros((1, 3)), -0.5 * X[:1]]))
OTHER = normal(9, 2, 3)
SCALES = {"omega1": 0.6, "omega2": 0.3}
GIVEN = {"width": 10, "omega1": 0.6, "activation": gelu}


@functools.cache
def expectations():
    """Exact and by 64 terms of the series, of one set of inputs and of two; the whole kernel."""
    limit = infinite_width(ShallowSmooth(10, 2, **SCALES))

    @compiled
    def found(omega1):  # traced
        given = {**GIVEN, "omega1": omega1}
        return (
            [expected_feature_gram(X, x2, **given) for x2 in (None, OTHER)],
            [expected_feature_gram(X, x2, **given, terms=64) for x2 in (None, OTHER)],
            [expected_gram(X, x2, **given, omega2=0.3) for x2 in (None, OTHER)],
            limit(X, OTHER),
        )

    return found(0.6)


def by_hand(z):
    return z * special.ndtr(z), special.ndtr(z) + z * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)


def test_expectations_are_means_over_neurons():
    """Five standard errors of a mean over 40 000 neurons, which are independent."""
    (features, _), _, (whole, _), _ = expectations()
    hidden, slopes = by_hand(np.asarray(X) @ (0.6 * np.asarray(normal(4, 3, 40_000))))
    output = 0.3 * np.asarray(normal(12, 40_000))
    inner = (np.asarray(X) @ np.asarray(X).T)[:, :, None]
    products = hidden[:, None] * hidden[None]
    tangent = products + inner * output**2 * slopes[:, None] * slopes[None]
    for expected, drawn in ((features, products), (whole, tangent)):
        error = drawn.std(axis=-1) / drawn.shape[-1] ** 0.5
        assert (abs(np.asarray(expected) / 10 - drawn.mean(axis=-1)) <= 5 * error + 1e-15).all()
        assert (error[:3, :3] > 0).all()
        assert (expected == expected.T).all()


def test_series_meets_the_dual_activation():
    """For any norms; 64 terms of GELU at ω₁‖x‖ = 2.9, the largest, leave 3e-7 on the diagonal."""
    exact, series, *_ = expectations()
    for a, b in zip(exact, series, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=5e-7)
        assert (abs(np.asarray(a - b)) < 1e-9).sum() >= a.size - 1


def test_infinite_width_transform_gives_the_expected_gram():
    """It follows the module's own initializers: width, ω₁ and ω₂ stand in the kernel."""
    (_, hidden), _, (_, whole), limit = expectations()
    np.testing.assert_allclose(limit.ntk, whole, rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(limit.nngp, 0.3**2 * np.asarray(hidden), rtol=1e-10, atol=1e-15)


def test_symmetry_is_exact_in_an_optimized_program():
    """Mirroring alone was not enough: of 17 rows the compiler's loops round the last ones apart."""
    x = normal(13, 17, 5)
    given = {"width": 3, "omega1": 1.0, "activation": gelu}
    found = jax.jit(lambda x: expected_gram(x, **given, omega2=0.5))(x)
    assert (found == found.T).all()


def test_a_second_call_compiles_nothing():
    """With arrays of the same shapes: the loop of the series is one program."""
    names = []

    def listen(name, *_, **__):
        names.append(name)

    x, y = normal(14, 3, 2), normal(15, 3, 2)
    expected_feature_gram(x, **GIVEN, terms=3).block_until_ready()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        expected_feature_gram(y, **GIVEN, terms=3).block_until_ready()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not [name for name in names if "backend_compile" in name]


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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"width": 0}, "width is 0; expected a whole number greater than 0"),
        ({"omega1": 0.0}, "omega1 is 0.0; expected a finite number greater than 0"),
        ({"activation": jnp.sum}, "activation turns an array of shape"),
        ({"terms": 0}, "terms is 0; expected a whole number"),
        ({"omega1": np.ones(5)}, r"omega1 has shape \(5,\); expected one number"),
    ],
)
def test_expected_feature_gram_refuses(given, message):
    with pytest.raises(ValueError, match=message):
        expected_feature_gram(X, **{"width": 2, "omega1": 1.0, "activation": gelu, **given})


def test_inputs_of_other_features_are_refused():
    with pytest.raises(ValueError, match="x1 has 3 features and x2 2; expected the same"):
        gram(initialize(0, 3, 4, 1), jnp.ones((2, 3)), jnp.ones((2, 2)), activation=gelu)
