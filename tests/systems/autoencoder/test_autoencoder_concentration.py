"""Kernels and norms of random weights against their bounds: shares of failures, moments."""

import math

import numpy as np
import pytest
from helpers import compiled
from scipy import stats

from ntkflow.systems.autoencoder.concentration import (
    decoder_gram_tail,
    decoder_gram_width,
    encoder_gram_tail,
    encoder_gram_width,
    feature_gram_deviation,
    feature_gram_norm,
    feature_gram_variance,
    initial_decoder_norm,
    initial_features_norm,
    initial_weight_norm,
    initial_weight_norm_failure,
    limit_gram_norm,
    printed_decoder_gram_failure,
    squared_neuron_norm,
)


def norm(a):
    return np.linalg.norm(a, 2, axis=(-2, -1))


def sphere(seed, n, d):
    x = np.random.default_rng(seed).normal(size=(n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def limits(x):
    """g, h and λ_n; in NumPy, to compile nothing."""
    cos = np.clip(x @ x.T, -1, 1)
    angle = np.arccos(np.where(np.eye(len(x), dtype=bool), 1.0, cos))
    g = cos * (np.pi - angle) / (2 * np.pi)
    return g, g + np.sin(angle) / (2 * np.pi), norm(x) ** 2


@pytest.mark.quick
def test_the_tail_of_the_encoders_kernel():
    n, d, m, seeds = 3, 2, 400, 400
    x, generator = sphere(0, n, d), np.random.default_rng(1)
    g, _, lambda_n = limits(x)
    hidden = x @ generator.normal(size=(seeds, d, m)) > 0
    decoder = generator.choice([-1.0, 1.0], (seeds, d, m))
    flat = (hidden[:, :, None, :] * decoder[:, None]).reshape(seeds, n * d, m)
    kernels = flat @ flat.swapaxes(-1, -2) / m * np.kron(x @ x.T, np.ones((d, d)))
    errors = norm(kernels - np.kron(g, np.eye(d)))
    for epsilon in np.quantile(errors, [0.1, 0.5, 0.9, 0.99]):
        tail = encoder_gram_tail(n, d, m, lambda_n, epsilon).value
        assert np.mean(errors >= epsilon) <= min(tail, 1.0)
        np.testing.assert_allclose(
            tail, 2 * encoder_gram_tail(n, d, m, lambda_n, epsilon, printed=True).value
        )
    # Where the bound says something: the 400 draws are all within.
    epsilon = 2 * errors.max()
    assert encoder_gram_tail(n, d, m, lambda_n, epsilon).value < 0.5


def test_the_tail_of_the_decoders_kernel():
    n, d, m, seeds = 4, 3, 400, 400
    x, generator = sphere(2, n, d), np.random.default_rng(3)
    _, h, lambda_n = limits(x)
    hidden = np.maximum(x @ generator.normal(size=(seeds, d, m)), 0)
    errors = norm(hidden @ hidden.swapaxes(-1, -2) / m - h)
    for quantile in (0.1, 0.5, 0.9, 0.99):
        epsilon = np.quantile(errors, quantile)
        tight = decoder_gram_tail(n, d, m, lambda_n, epsilon, gram_norm=norm(h)).value
        assert np.mean(errors >= epsilon) <= min(tight, 1.0)
        assert tight <= decoder_gram_tail(n, d, m, lambda_n, epsilon).value
    assert decoder_gram_tail(n, d, m, lambda_n, 3 * errors.max()).value < 0.05
    # And the norm of the features, which needs no more than the kernel within λ_0/4.
    bound = initial_features_norm(n, m, 4 * np.median(errors), lambda_n, gram_norm=norm(h)).value
    assert (norm(hidden)[errors <= np.median(errors)] <= bound).all()


@pytest.mark.parametrize("delta", [0.5, 0.01])
def test_the_widths_solve_the_tails(delta):
    n, d, lambda_0, lambda_n = np.array([1.0, 10.0]), 5, 0.05, 2.0
    pairs = ((encoder_gram_width, encoder_gram_tail), (decoder_gram_width, decoder_gram_tail))
    for width, tail in pairs:
        m = width(n, d, lambda_0, lambda_n, delta).value
        found = tail(n, d, np.ceil(m), lambda_n, lambda_0 / 4).value
        np.testing.assert_allclose(found, delta, rtol=1e-3)
        assert (found <= delta).all()
    # Lemma 4.1 as it is printed, with a constant that suffices: λ_0 ≤ ½, λ_n ≥ 1.
    for lambda_0, lambda_n in ((0.5, 1.0), (0.01, 7.0)):
        args = (n, d, lambda_0, lambda_n, delta / 2)
        printed = encoder_gram_width(*args, constant=34.7, printed=True).value
        exact = encoder_gram_width(n, d, lambda_0, lambda_n, delta).value
        assert (exact <= printed).all()


@pytest.mark.parametrize(("n", "d"), [(1, 4), (6, 3), (8, 30), (40, 20)])
def test_the_norm_of_the_limit(n, d):
    for seed in range(5):
        _, h, lambda_n = limits(sphere(seed, n, d))
        assert norm(h) <= limit_gram_norm(n, lambda_n).value * (1 + 1e-12)
    _, h, _ = limits(np.eye(n))
    np.testing.assert_allclose(norm(h), limit_gram_norm(n, 1.0).value)
    _, h, _ = limits(np.tile(sphere(0, 1, d), (n, 1)))
    np.testing.assert_allclose(norm(h), limit_gram_norm(n, float(n)).value)


@pytest.mark.parametrize(("n", "d"), [(5, 2), (3, 6), (50, 50)])
def test_moments_of_a_neurons_gram_matrix(n, d):
    """‖E Z²‖, ‖E Z³‖ ≤ 3Rσ² and sup √E(bᵀZb)², Monte Carlo means of 60 000 neurons."""
    x = np.eye(n) if n == d else sphere(7, n, d)
    _, h, lambda_n = limits(x)
    w = np.random.default_rng(8).normal(size=(60_000, d))
    hidden = np.maximum(w @ x.T, 0)
    squares = np.sum(hidden**2, axis=1)
    np.testing.assert_array_less(
        squares, feature_gram_norm(lambda_n, np.linalg.norm(w, axis=1)).value * (1 + 1e-12)
    )
    second = norm((hidden * squares[:, None]).T @ hidden / len(w))
    tight = feature_gram_variance(n, d, lambda_n, gram_norm=norm(h)).value
    assert 0.1 * tight < second < tight <= feature_gram_variance(n, d, lambda_n).value * (1 + 1e-12)
    third = norm((hidden * squares[:, None] ** 2).T @ hidden / len(w))
    size = lambda_n * max(2.0, (min(n, d) + 4) / 3)
    assert third < 3 * size * tight
    b = np.linalg.eigh(h)[1][:, -1]
    found = math.sqrt(np.mean((hidden @ b) ** 4))
    exact = feature_gram_deviation(d, lambda_n).value
    assert found < exact <= feature_gram_deviation(d, lambda_n, printed=True).value
    # Claim C.2 is off: for 50 orthogonal samples by half, far beyond Monte Carlo's error.
    printed = feature_gram_variance(n, d, lambda_n, printed=True).value
    assert (second > 1.4 * printed) == (n == 50)


def test_the_norm_of_a_neuron():
    """Claim C.1 (ii) is a statement on χ², which scipy knows."""
    d, delta = np.array([1, 2, 10, 100])[:, None], np.array([0.9, 0.1, 1e-3, 1e-6, 1e-12])[None]
    failure = stats.chi2.sf(squared_neuron_norm(d, delta).value, d)
    assert (failure <= delta).all()
    printed = stats.chi2.sf(squared_neuron_norm(d, delta, printed=True).value, d)
    assert (printed[0, -2:] > 90 * delta[0, -2:]).all()
    for d, safe, failing in ((1, 9e-4, 8e-4), (2, 2 * math.exp(-16), 2 * math.exp(-18))):
        delta = np.array([safe, failing])
        printed = stats.chi2.sf(squared_neuron_norm(d, delta, printed=True).value, d)
        assert (printed <= delta).tolist() == [True, False]


def test_the_norm_of_random_weights():
    m = np.array([5, 20, 100, 200, 500])
    failure = stats.chi2.logsf(initial_weight_norm(1, m).value ** 2, m)  # d = 1: ‖W‖² is χ²
    assert (failure <= np.log(initial_weight_norm_failure(m).value)).all()
    printed = np.log(initial_weight_norm_failure(m, printed=True).value)
    assert failure[3] > printed[3] + 10
    generator, seeds = np.random.default_rng(9), 500
    signs = norm(generator.choice([-1.0, 1.0], (seeds, 4, 60)))
    for delta in (0.5, 0.05):
        assert np.mean(signs > initial_decoder_norm(4, 60, delta).value) <= delta
    assert initial_decoder_norm(1, 60, 0.1).value == 60**0.5


def test_the_printed_lemma_5_1():
    args = (10, 5, 0.05, 2.0, 0.1)
    printed = decoder_gram_width(*args, constant=3.0, printed=True)
    np.testing.assert_allclose(printed.value, 3 * 10 * 2 * math.log(500) ** 2 / 0.05**2)
    failure = printed_decoder_gram_failure(10, 5, np.array([100, 1000, 10_000]), 1e-4).value
    assert (np.diff(failure) > 0).all()  # no width helps
    np.testing.assert_allclose(failure, [0.01, 0.1, 1.0], rtol=1e-4)


def test_traces_and_errors():
    def of(lambda_0, gram_norm):
        """Traced, where the other arguments are numbers of Python."""
        width = decoder_gram_width(10, 5, lambda_0, 2.0, 0.1).value
        return width, decoder_gram_tail(10, 5, 10**6, 2.0, 0.05, gram_norm=gram_norm).value

    np.testing.assert_allclose(compiled(of)(0.05, 1.5), of(0.05, 1.5), rtol=1e-5)
    # λ_n² is beyond 32 bits
    whole, real = (encoder_gram_width(10, 5, 0.1, v, 0.1).value for v in (np.int32(10**5), 1e5))
    assert whole == real
    with pytest.raises(ValueError, match=r"lambda_n is 0\.0; expected greater than 0"):
        limit_gram_norm(3, 0.0)
    with pytest.raises(ValueError, match="m is 0; expected a whole number"):
        encoder_gram_tail(3, 2, 0, 1.0, 0.1)
    with pytest.raises(ValueError, match="gram_norm is -1"):
        feature_gram_variance(3, 2, 1.0, gram_norm=-1.0)
