"""Code consistency: shares and margins measured, and what Theorem 3 and its proof say of them."""

import functools

import jax
import numpy as np
import pytest
from helpers import compiled

from ntkflow.data.dictionaries import incoherence
from ntkflow.systems import sparse_autoencoder as system
from ntkflow.systems.sparse_autoencoder.network import encode as _encode, threshold

encode = compiled(_encode, static_argnums=3)
margins = compiled(system.margins)
code_consistency = compiled(system.code_consistency, static_argnames="signs")


def unit(x):
    return x / np.linalg.norm(x, axis=0)


def at_distance(rng, dictionary, distance):
    """Unit columns with ‖W_i − A_i‖ = distance, in random directions."""
    error = rng.normal(size=dictionary.shape)
    error = unit(error - dictionary * np.sum(error * dictionary, axis=0))
    cosine = 1 - distance**2 / 2
    return cosine * dictionary + np.sqrt(1 - cosine**2) * error


def draw_codes(rng, count, m, k, draw):
    support = np.argsort(rng.random((count, m)), axis=1)[:, :k]
    codes = np.zeros((count, m))
    np.put_along_axis(codes, support, draw(size=(count, k)), axis=1)
    return codes


@functools.cache
def setting(m, distance):
    rng = np.random.default_rng(m)
    dictionary = unit(rng.normal(size=(784, m)))
    return dictionary, at_distance(rng, dictionary, distance)


def signs(size):
    return np.random.default_rng(5).choice([-1.0, 1.0], size=size)


def ones(size):
    return np.ones(size)


def between(size):
    return np.random.default_rng(5).uniform(1.0, 1.2, size=size)


RELU = jax.nn.relu
CASES = [  # m, k, codes, δ, σ, activation, b, share
    (10, 1, ones, 0.2, 0.0, RELU, -0.4, (1.0, 1.0)),
    (10, 1, ones, 0.2, 0.0, threshold(0.5), 0.0, (1.0, 1.0)),
    (10, 1, ones, 0.5, 0.03, threshold(0.5), 0.0, (1.0, 1.0)),
    (1000, 5, signs, 0.14, 0.01, threshold(0.5), 0.0, (1.0, 1.0)),
    (1000, 20, signs, 0.14, 0.01, threshold(0.5), 0.0, (0.05, 0.4)),
    (1000, 3, between, 0.14, 0.01, threshold(0.5), 0.0, (1.0, 1.0)),
    (1000, 3, between, 0.14, 0.01, RELU, -0.35, (0.99, 1.0)),
]


@pytest.mark.parametrize(("m", "k", "draw", "distance", "noise", "activation", "b", "share"), CASES)
def test_shares_of_consistent_codes(m, k, draw, distance, noise, activation, b, share):
    """n = 784, 300 samples. Theorem 3 asks μ ≤ 0.63, these atoms have 2.7 to 5.1."""
    dictionary, weights = setting(m, distance)
    rng = np.random.default_rng(7)
    codes = draw_codes(rng, 300, m, k, draw)
    y = codes @ dictionary.T + noise * rng.normal(size=(300, 784))
    found = encode(weights, np.full(m, b), y, activation)
    least, most = share
    assert least <= code_consistency(found, codes, signs=True) <= most
    seen = margins(weights, np.full(m, b), y, codes)
    level = 0.5
    if activation is RELU:
        consistent = (seen.on > 0) & (seen.off <= 0)
    else:
        consistent = (seen.on >= level) & (seen.off_size < level)
    assert np.mean(np.asarray(consistent)) == code_consistency(found, codes, signs=True)


@pytest.mark.quick
def test_shares_count_samples_supports_and_signs(dtype):
    true = np.array([[1.0, 0.0, -2.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]], dtype)
    found = np.array([[0.1, 0.0, 0.3], [0.0, 0.2, 1.0], [0.0, 0.0, 0.0]], dtype)
    shares = [code_consistency(found, true, signs=s) for s in (False, True)]
    np.testing.assert_allclose(shares, [2 / 3, 1 / 3], rtol=1e-6)
    assert shares[0].dtype == dtype
    seen = margins(np.eye(3, dtype=dtype), np.zeros(3, dtype), found, true)
    assert seen.on.dtype == dtype
    np.testing.assert_allclose(seen.on, [-0.3, 1.0, np.inf], rtol=1e-6)
    np.testing.assert_allclose(seen.off, [0.0, 0.2, 0.0], rtol=1e-6)
    np.testing.assert_allclose(seen.off_size, [0.0, 0.2, 0.0], rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_codes_that_diverged_are_not_consistent(bad):
    codes = np.array([[1.0, 0.0]] * 2)
    for place in range(2):
        spoiled = codes.copy()
        spoiled[0, place] = bad
        for signs in (False, True):
            assert code_consistency(spoiled, codes, signs=signs) == 0.5


# Claims 1 and 2, and the margins of appendix A.2.


def cases(count=300):
    """Small dictionaries, and weights moved in random directions or towards other atoms."""
    rng = np.random.default_rng(11)
    for case in range(count):
        n, m = 12, 6
        dictionary = unit(np.eye(n)[:, :m] + rng.choice([0.02, 0.2]) * rng.normal(size=(n, m)))
        distance = rng.choice([0.05, 0.2, 0.4])
        weights = at_distance(rng, dictionary, distance)
        if case % 2:
            weights = unit(dictionary + distance * np.roll(dictionary, 1, axis=1))
        delta = np.linalg.norm(weights - dictionary, axis=0).max()
        gram = np.abs(dictionary.T @ dictionary - np.eye(m)).max()
        yield rng, dictionary, weights, delta, gram * n**0.5


def test_claim_1_and_the_margins_hold():
    printed_exceeded = tight = 0
    for rng, dictionary, weights, delta, mu in cases():
        n, m = dictionary.shape
        inner = weights.T @ dictionary
        others = inner[~np.eye(m, dtype=bool)].reshape(m, m - 1)
        assert np.diag(inner).min() >= system.smallest_alignment(delta).value - 1e-12
        assert np.abs(others).max() <= system.largest_correlation(n, mu, delta).value + 1e-12
        k = 1 + rng.integers(3)
        worst = np.sort(others**2, axis=1)[:, -k:].sum(axis=1).max()
        bound = system.squared_correlations(n, k, mu, delta).value
        assert worst <= bound + 1e-12
        tight += worst > 0.8 * bound
        proof = 2 * mu**2 * k / n + 2 * (1 + (k - 1) * mu / n**0.5) * delta**2
        assert bound <= proof + 1e-12
        printed_exceeded += worst > system.squared_correlations(n, k, mu, delta, printed=True).value

        codes = draw_codes(rng, 64, m, k, functools.partial(rng.uniform, 0.5, 1.5))
        seen = margins(weights, np.full(m, -0.1), codes @ dictionary.T, codes)
        low = system.smallest_on_support(n, k, mu, delta, 0.5, 1.5, bias=-0.1).value
        high = system.largest_off_support(n, k, mu, delta, 1.5, bias=-0.1).value
        assert seen.on.min() >= low - 1e-12
        assert seen.off.max() <= high + 1e-12
    assert tight > 20
    assert printed_exceeded > 20


def test_the_printed_bias_interval_has_no_room_for_the_incoherence():
    """k = 1, μ = δ√n as Theorem 3 (ii) allows, b = −δ at the end of its interval."""
    n, delta = 100, 0.1
    dictionary = np.eye(n)[:, :2]
    dictionary[:2, 1] = delta, np.sqrt(1 - delta**2)
    turn = 2 * np.arcsin(delta / 2)
    weights = dictionary.copy()
    weights[:2, 0] = np.cos(turn), np.sin(turn)
    mu = float(incoherence(dictionary))
    allowed = system.largest_incoherence(n, 1, delta, "mixture_of_gaussians").value
    np.testing.assert_allclose(mu, allowed)
    y, codes = dictionary[:, 1:].T, np.array([[0.0, 1.0]])
    arguments = n, 1, mu, delta, 1.0, 1.0
    shares, off = {}, {}
    for printed in (True, False):
        lower, upper = system.bias_interval(*arguments, printed=printed)
        assert lower.value < upper.value
        bias = np.full(2, float(upper.value))
        shares[printed] = float(code_consistency(encode(weights, bias, y, RELU), codes))
        off[printed] = float(margins(weights, bias, y, codes).off[0])
    assert shares == {True: 0.0, False: 1.0}
    np.testing.assert_allclose(off[True], 0.0987, atol=1e-3)
    ends = system.mixture_bias_interval(delta)
    np.testing.assert_allclose([end.value for end in ends], [-0.9, -0.2])
    assert system.bias_interval(*arguments).upper.value >= -0.2 - 1e-12


def test_the_bias_interval_is_that_of_the_margins():
    arguments = 400, 3, 0.4, 0.05
    lower, upper = system.bias_interval(*arguments, 0.9, 1.3, noise=0.01)
    on = system.smallest_on_support(*arguments, 0.9, 1.3, noise=0.01, bias=lower.value)
    off = system.largest_off_support(*arguments, 1.3, noise=0.01, bias=upper.value)
    np.testing.assert_allclose([on.value, off.value], [0, 0], atol=1e-12)
    assert lower.value < upper.value < 0


def test_noise_stays_below_its_bound_but_for_its_failure():
    rng, n, m, noise = np.random.default_rng(12), 20, 8, 0.3
    weights = unit(rng.normal(size=(n, m)))
    largest = np.abs(noise * rng.normal(size=(40_000, n)) @ weights).max(axis=1)
    failures = np.mean(largest > system.largest_noise(n, noise).value)
    assert 0 < failures <= system.noise_failure(n, m).value < 0.1


def test_the_conditions_of_theorem_3_at_n_784():
    """1/ln n = .150, √n/ln²n = .63, n/ln n = 118, 1/√n = .0357."""
    numbers = [
        system.largest_closeness(784).value,
        system.largest_incoherence(784, 5, 0.1, "sparse_coding").value,
        system.largest_sparsity(784, 0.1, "sparse_coding").value,
        system.largest_noise_level(784).value,
        system.largest_incoherence(784, 2, 0.1, "nonnegative_sparse_coding").value,
        system.largest_sparsity(784, 0.1, "mixture_of_gaussians", constant=0.5).value,
        system.threshold_level(0.8).value,
    ]
    np.testing.assert_allclose(numbers, [0.150, 0.630, 117.6, 0.0357, 1.4, 50, 0.4], rtol=2e-3)
    steps = system.largest_sparsity(784, np.array([0.1, 0.0]), "mixture_of_gaussians").value
    np.testing.assert_allclose(steps, [100, np.inf])


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"codes have shape \(3,\)"):
        system.code_consistency(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match=r"true codes \(2, 2\); expected \(N, m\)"):
        system.code_consistency(np.ones((2, 3)), np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"codes have shape \(0, 3\).*at least one sample"):
        system.code_consistency(np.ones((0, 3)), np.ones((0, 3)))
    with pytest.raises(ValueError, match=r"\(3, 3\) and bias \(2,\); expected \(n, m\)"):
        system.margins(np.eye(3), np.zeros(2), np.ones((4, 3)), np.ones((4, 3)))
    with pytest.raises(ValueError, match=r"y has shape \(3, 4\).*samples are rows"):
        system.margins(np.eye(3), np.zeros(3), np.ones((3, 4)), np.ones((4, 3)))
    with pytest.raises(ValueError, match=r"closeness is -0\.1"):
        system.smallest_alignment(-0.1)
    with pytest.raises(ValueError, match="sparsity is 0; expected a whole number"):
        system.squared_correlations(100, 0, 0.5, 0.1)
    for bound in (
        lambda kind: system.largest_incoherence(100, 2, 0.1, kind),
        lambda kind: system.largest_sparsity(100, 0.1, kind),
        lambda kind: system.floor(100, 20, 2, kind),
    ):
        with pytest.raises(ValueError, match=r"kind is 'sparse'; expected one of \['mixture_of"):
            bound("sparse")
    with pytest.raises(ValueError, match="n is 0"):
        system.largest_closeness(0)
