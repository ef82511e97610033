"""Random networks against what Lemmas 3.1, 3.8, 3.15 and 3.22 promise of them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import compiled
from plain_networks import SOFTPLUS, TANH, Activation, draw, inputs

from ntkflow.systems.deep import (
    initialization_bounds as initial,
    last_gram_bounds as last,
)
from ntkflow.systems.deep.activations import ActivationConstants
from ntkflow.systems.deep.constants import InitialNorms, Patches, geometric_series, measured_norms

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(120)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def expectation(values):
    return WEIGHTS @ values


def nearly_linear():
    function = lambda z: z + 0.01 * np.sin(z)  # noqa: E731
    normalization = 1 / expectation(function(NODES) ** 2)
    return Activation(
        function,
        lambda z: 1 + 0.01 * np.cos(z),
        ActivationConstants(0.0, 1.01, 0.01, normalization),
    )


def small_tanh():
    constants = TANH.constants
    constants = ActivationConstants(0.0, 0.1, constants.smoothness / 10, 253.61754332)
    return Activation(lambda z: np.tanh(z) / 10, None, constants)


# Lemma 3.1.


@pytest.mark.quick
@pytest.mark.parametrize("activation", [SOFTPLUS, TANH, nearly_linear()])
def test_norms_grow_by_c_at_most(activation):
    bound = initial.norm_growth(activation.constants).value
    for alpha in (0.5, 0.9, 1.1, 1.5):
        square = activation.constants.normalization * expectation(
            activation.function(alpha * NODES) ** 2
        )
        assert abs(square - 1) <= bound * abs(alpha - 1)


def test_the_printed_growth_fails_for_a_nearly_linear_activation():
    function, _, constants = nearly_linear()
    square = constants.normalization * expectation(function(1.5 * NODES) ** 2)
    printed, proof = (initial.norm_growth(constants, printed=p).value for p in (True, False))
    assert printed * 0.5 < square - 1 < proof * 0.5


@pytest.mark.parametrize("activation", [SOFTPLUS, TANH, nearly_linear(), small_tanh()])
@pytest.mark.parametrize("norm", [1.0, 2.0])
def test_variances_of_norms(activation, norm):
    square = activation.function(norm * NODES) ** 2
    variance = expectation(square**2) - expectation(square) ** 2
    variance *= activation.constants.normalization**2
    bound = initial.feature_variance(1, activation.constants, norm=norm).value
    assert 0.002 * bound < variance < bound


def test_the_printed_variance_fails_for_a_scaled_activation():
    constants = small_tanh().constants
    square = np.tanh(NODES) ** 2
    variance = (expectation(square**2) / expectation(square) ** 2 - 1) / 50
    assert variance > 3 * initial.feature_variance(50, constants, printed=True).value
    assert variance < initial.feature_variance(50, constants, norm=1.0).value
    # The bound of x^(1) does not depend on the scale of σ, as x^(1) does not.
    same = initial.feature_variance(50, TANH.constants).value
    np.testing.assert_allclose(initial.feature_variance(50, constants).value, same, rtol=1e-9)


def test_printed_moments_are_32_for_3():
    constants = SOFTPLUS.constants._replace(normalization=1.0)
    for norm, printed in ((1.0, 32), (2.0, 512)):
        a, b = (
            initial.feature_variance(1, constants, norm=norm, printed=p).value
            for p in (True, False)
        )
        np.testing.assert_allclose(a - b, printed - 3 * norm**4)


def test_the_width_of_lemma_3_1_is_that_of_chebyshev():
    """P(| ‖x‖² − E ‖x‖² | > 1/(2g_C(H))) ≤ Var · 4 g_C(H)² = δ/(nH), and the layers add up."""
    n, depth, delta, constants = 7, 4, 0.2, SOFTPLUS.constants
    growth = initial.norm_growth(constants).value
    tolerance = 0.5 / geometric_series(growth, depth)
    m = initial.fully_connected_norm_width(n, depth, delta, constants).value
    variance = initial.feature_variance(1, constants).value / m
    np.testing.assert_allclose(variance / tolerance**2, delta / (n * depth))
    deviation = [
        initial.fully_connected_norm_deviation(h, depth, constants).value for h in (1, 2, 3, 4)
    ]
    np.testing.assert_allclose(deviation[0], tolerance)
    np.testing.assert_allclose(deviation[1:], growth * np.array(deviation[:-1]) + tolerance)
    np.testing.assert_allclose(deviation[-1], 0.5)
    assert initial.fully_connected_norm_width(n, depth, delta, constants, printed=True).value > m


def test_features_are_normalized_far_below_the_width_of_lemma_3_1():
    x = inputs(0, 5)
    for seed in range(5):
        features, _ = draw(seed, 300, 4).forward(x)
        sizes = [np.linalg.norm(h, axis=-1) for h in features[1:]]
        assert np.min(sizes) > 0.5
        assert np.max(sizes) < 2


# Lemmas 3.8 and 3.15.


@pytest.mark.parametrize("activation", [SOFTPLUS, TANH])
@pytest.mark.parametrize(("pixels", "filter_size"), [(1, 1), (4, 3)])
def test_residual_features_stay_in_their_range(activation, pixels, filter_size):
    x, depth, c_res = inputs(1, 5, pixels=pixels), 10, 0.6
    patches, square = None, None
    if pixels > 1:
        library = {"log": jax.nn.softplus, "tan": jnp.tanh}[
            "log" if activation is SOFTPLUS else "tan"
        ]
        patches, square = Patches(pixels, filter_size), initial.patch_normalization(library, pixels)
    for seed in range(3):
        network = draw(
            seed,
            100,
            depth,
            residual=c_res,
            pixels=pixels,
            filter_size=filter_size,
            activation=activation,
        )
        weight = network.norms(x).weight
        sizes = np.array(
            [np.linalg.norm(h.reshape(5, -1), axis=1) for h in network.forward(x)[0][1:]]
        )
        end = (c_res, activation.constants, weight)
        largest = initial.largest_residual_feature(*end, patches=patches).value
        smallest = initial.smallest_residual_feature(
            depth, *end, patches=patches, smallest_square=square
        ).value
        assert smallest < sizes.min()
        assert sizes.max() < largest < 200 * sizes.max()


def test_the_printed_upper_norm_wants_activations_that_are_0_at_0():
    """With W^(h) = 0 softplus still adds log 2 c_res/H in each layer."""
    depth, c_res, m = 50, 0.9, 30
    network = draw(2, m, depth, residual=c_res)
    x = inputs(3, 1)
    scale = 2 / np.linalg.norm(network.forward(x)[0][1])
    start = network.forward(x)[0][1] * scale  # ‖x^(1)‖ = 2, as large as the lemma lets it be
    end = start + c_res * (depth - 1) / depth * math.log(2) / m**0.5
    size, weight = np.linalg.norm(end), 1e-3
    printed, proof = (
        initial.largest_residual_feature(c_res, SOFTPLUS.constants, weight, printed=p).value
        for p in (True, False)
    )
    assert printed < size <= proof


@pytest.mark.parametrize(("depth", "fails"), [(2, True), (12, False)])
def test_the_printed_lower_norm_fails_for_shallow_networks(depth, fails):
    """W^(h) = −c_{w,0} √m I shrinks x by 1 − a/H a layer; (1 − a/H)^(H−1) < e^(−a) for a = 1.8."""
    c_res, weight, m = 0.9, 2.0, 20
    line = ActivationConstants(0.0, 1.0, 0.0, 1.0)
    x = np.full(m, 0.5 / m**0.5)
    for _ in range(depth - 1):
        x = x + c_res / (depth * m**0.5) * (-weight * m**0.5 * x)
    printed, proof = (
        initial.smallest_residual_feature(depth, c_res, line, weight, printed=p).value
        for p in (True, False)
    )
    np.testing.assert_allclose(np.linalg.norm(x), proof)
    assert (np.linalg.norm(x) < printed) == fails


def test_patch_normalization_is_the_least_second_moment():
    for p in (1, 2, 9):
        square = expectation(np.logaddexp(0, NODES / p**0.5) ** 2)  # it grows with α for softplus
        np.testing.assert_allclose(initial.patch_normalization(jax.nn.softplus, p), 1 / square)
    assert initial.patch_normalization(jax.nn.softplus, 10**6) < 1 / math.log(2) ** 2
    # Not monotone: sin² has its mean (1 − exp(−2α²))/2 for frequency 1, and a hump here.
    hump = lambda z: jnp.exp(-(z**2))  # noqa: E731
    np.testing.assert_allclose(initial.patch_normalization(hump, 9), 5**0.5)  # E at α = 1: 1/√5


def test_residual_norm_widths_are_those_of_chebyshev():
    n, delta, p, constants = 6, 0.1, 5, SOFTPLUS.constants
    m = initial.residual_norm_width(n, delta, constants).value
    variance = initial.feature_variance(1, constants, norm=1.0).value / m
    np.testing.assert_allclose(variance / 0.75**2, delta / n)  # ‖x‖² in [1/4, 4] from 1
    square = initial.patch_normalization(jax.nn.softplus, p)
    m = initial.residual_norm_width(n, delta, constants, pixels=p, smallest_square=square).value
    variance = initial.feature_variance(1, constants, norm=1.0, pixels=p).value / m
    half = constants.normalization / (2 * square)
    np.testing.assert_allclose(variance / half**2, delta / n)
    # Printed, a larger c_{σ,1/√p}, a smaller least norm, asks for less.
    a, b = (
        initial.residual_norm_width(
            n, delta, constants, pixels=p, smallest_square=s, printed=True
        ).value
        for s in (square, 2 * square)
    )
    np.testing.assert_allclose(a / b, 4)
    with pytest.raises(ValueError, match="smallest_square is None; with a convolution"):
        initial.residual_norm_width(n, delta, constants, pixels=p)


# Gaussian weights.


def test_initial_norms_hold_and_are_near_the_measured_ones():
    x, m, depth = inputs(5, 4, pixels=4), 60, 3
    patches, measure = Patches(4, 3), compiled(measured_norms)
    for seed in range(2):
        network = draw(seed, m, depth, residual=0.2, pixels=4, filter_size=3)
        params = {f"layer_{h + 1}": jnp.asarray(w) for h, w in enumerate(network.weights)}
        params["output"] = jnp.asarray(network.output)
        features = np.stack(network.forward(x)[0][1:])
        measured = jax.device_get(measure(params, features))
        np.testing.assert_allclose(measured, network.norms(x), rtol=1e-6)
        bound = initial.initial_norms(m, depth, 0.1, SOFTPLUS.constants, 0.2, patches)
        ratio = np.array(measured) / np.array(bound)
        assert (ratio <= 1).all()
        assert ratio[0] > 0.8
        assert (ratio[2:] > 0.5).all()
    assert initial.initial_norms(m, depth, 0.1, SOFTPLUS.constants).feature == 2.0


def test_initial_residuals():
    x, n, delta = inputs(6, 4), 4, 0.1
    y = np.array([1.0, -1.0, 1.0, -1.0])
    errors, norms = [], []
    for seed in range(200):
        network = draw(seed, 20, 2)
        errors.append(np.linalg.norm(network.predict(x) - y))
        norms.append(np.linalg.norm(network.forward(x)[0][-1], axis=-1).max())
    bounds = initial.initial_residual_norm(n, delta, 1.0, np.array(norms)).value
    share = np.array(errors) / bounds
    assert (share > 1).mean() < delta
    assert np.quantile(share, 1 - delta) > 0.4


# Lemma 3.22.


@pytest.mark.parametrize(
    ("c_res", "pixels", "filter_size"), [(None, 1, 1), (0.5, 1, 1), (0.5, 3, 3)]
)
def test_the_last_gram_matrix_is_near_its_expectation(c_res, pixels, filter_size):
    n, m, delta, depth = 2, 80, 0.1, 2
    x = inputs(7, n, pixels=pixels)
    network = draw(
        8, m, depth, residual=c_res, pixels=pixels, filter_size=filter_size, activation=TANH
    )
    feature = np.linalg.norm(network.forward(x)[0][-2].reshape(n, -1), axis=1).max()
    rng, grams = np.random.default_rng(9), []
    for _ in range(400):
        last_two = rng.normal(size=network.weights[-1].shape), rng.normal(size=(pixels, m))
        new = network._replace(weights=[network.weights[0], last_two[0]], output=last_two[1])
        grams.append(new.last_gram(x))
    deviations = np.linalg.norm(np.array(grams) - np.mean(grams, axis=0), 2, axis=(1, 2))
    scale = last.last_gram_scale(
        TANH.constants, feature, depth=depth, residual=c_res, patches=network.patches
    ).value
    bound = last.last_gram_deviation(n, m, delta, scale, pixels=pixels).value
    assert (deviations > bound).mean() < delta
    assert np.quantile(deviations, 1 - delta) > bound / 100
    mean_square = (network.output**2).sum() / m
    assert (np.abs(network.last_gram(x)) <= scale * mean_square).all()
    assert np.abs(network.last_gram(x)).max() > 0.05 * scale * mean_square


@pytest.mark.parametrize("lambda_0", [1e-4, 0.3, 50.0])
def test_the_width_of_lemma_3_22_is_where_the_deviation_is_an_eighth(lambda_0):
    n, delta, scale, pixels = 3, 0.1, 1.7, 4
    m = np.ceil(last.last_gram_width(n, lambda_0, delta, scale, pixels=pixels).value)
    assert last.last_gram_deviation(n, m, delta, scale, pixels=pixels).value <= lambda_0 / 8
    less = np.floor(m * 0.99) if m > 100 else m - 1
    assert last.last_gram_deviation(n, less, delta, scale, pixels=pixels).value > lambda_0 / 8


def covariance_expectation(slope, a):
    """K ↦ K_12 E[σ'(u)σ'(v)], and K_ii E[σ'(u)²], of a 2 × 2 covariance."""
    root = np.linalg.cholesky(a)
    u = root[0, 0] * NODES[:, None] + 0 * NODES[None, :]
    v = root[1, 0] * NODES[:, None] + root[1, 1] * NODES[None, :]
    value = lambda f, g: WEIGHTS @ (f * g) @ WEIGHTS  # noqa: E731
    f, g = slope(u), slope(v)
    return a * np.array([[value(f, f), value(f, g)], [value(f, g), value(g, g)]])


@pytest.mark.parametrize("activation", [SOFTPLUS, TANH])
def test_the_expected_gram_matrix_is_lipschitz_in_the_kernel(activation):
    rng, used = np.random.default_rng(10), []
    for _ in range(40):
        deviation = rng.uniform(0.6, 1.9, size=2)
        rho = rng.uniform(-0.99, 0.99)
        a = np.array([[1, rho], [rho, 1]]) * deviation[:, None] * deviation[None, :]
        change = rng.uniform(-1, 1, size=3) * 1e-3
        b = a + np.array([[change[0], change[1]], [change[1], change[2]]])
        if np.linalg.eigvalsh(b)[0] <= 0:
            continue
        difference = covariance_expectation(activation.slope, a) - covariance_expectation(
            activation.slope, b
        )
        bound = last.limit_gram_change(2, np.abs(change).max(), activation.constants).value
        used.append(np.linalg.norm(difference, 2) / bound)
    assert max(used) <= 1
    assert max(used) > 0.02


def test_values_at_hand_computed_points():
    unit = ActivationConstants(1.0, 1.0, 2.0, 3.0)  # σ(0), L, β, c_σ
    moment = math.sqrt(2 / math.pi)
    assert initial.norm_growth(unit).value == pytest.approx(3 * (2 * moment + 2.5))
    variance = initial.feature_variance(10, unit, norm=1.0, pixels=2).value
    assert variance == pytest.approx(0.4 * 9 * (1 + 4 * moment + 6 + 8 * moment + 3))
    root = math.sqrt(2 * math.log(10))
    assert initial.initial_residual_norm(4, 0.1, 1.5, 2.0).value == pytest.approx(7 + 4 * root)
    # a = √4 · ½ · 1 · 1 = 1, b/a = 1 · √(16/4) = 2, s = √3 (2 + 4).
    shape = Patches(16, 4)
    largest = initial.largest_residual_feature(0.5, unit, 1.0, patches=shape).value
    assert largest == pytest.approx(3**0.5 * 6 * math.e + 2 * (math.e - 1))
    assert last.last_gram_scale(unit, 2.0).value == 12
    assert last.last_gram_scale(
        unit, 2.0, depth=2, residual=0.5, patches=shape
    ).value == pytest.approx(1.0)
    # n ε (L² + l² (β² (1 + l/s) + βL √(2/π) / s)) with s = ½ and l = 2.
    change = last.limit_gram_change(3, 0.1, unit).value
    assert change == pytest.approx(0.3 * (1 + 4 * (4 * 5 + 4 * moment)))


# Doors.


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (
            initial.fully_connected_norm_width,
            (3, 2, 1.0, TANH.constants),
            r"delta is 1.0; .*\(0, 1\)",
        ),
        (initial.output_norms, (0, 0.1), "m is 0"),
        (initial.patch_normalization, (jnp.tanh, 0), "pixels is 0"),
        (initial.patch_normalization, ("tanh", 4), "expected an elementwise function"),
        (initial.patch_normalization, (jnp.log, 4), "activation is NaN"),
        (initial.patch_normalization, (jnp.zeros_like, 4), "of the activation is 0.0"),
        (initial.norm_growth, (TANH.constants._replace(lipschitz=np.inf),), "lipschitz is inf"),
        (initial.feature_variance, (9, TANH.constants._replace(lipschitz=np.inf)), "Lipschitz"),
        (initial.largest_residual_feature, (1.0, TANH.constants, 2.0), "residual is 1.0"),
        (last.last_gram_width, (3, -1.0, 0.1, 1.0), "lambda_0 is -1.0"),
        (
            last.limit_gram_change,
            (3, 0.1, ActivationConstants(0.0, 1.0, np.inf, 2.0)),
            "the activation has a kink",
        ),
    ],
)
def test_bad_arguments_are_refused(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)


def test_bounds_under_jit():
    def bounds(n, delta, weight):
        constants = TANH.constants
        norms = initial.initial_norms(100, 3, delta, constants, 0.5, Patches(4, 3))
        return (
            *norms,
            initial.fully_connected_norm_width(n, 3, delta, constants).value,
            initial.smallest_residual_feature(3, 0.1, constants, weight).value,
            last.last_gram_width(n, 0.1, delta, weight).value,
        )

    arguments = (3.0, 0.1, 2.0)
    np.testing.assert_allclose(jax.jit(bounds)(*arguments), bounds(*arguments), rtol=1e-10)
    assert isinstance(initial.initial_norms(9, 2, 0.1, TANH.constants), InitialNorms)
