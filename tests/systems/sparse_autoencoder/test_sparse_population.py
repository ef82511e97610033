"""Expected gradients: against all supports one by one, autodiff, samples, and the printed forms."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled, samples

from ntkflow.data.generative import (
    mixture_of_gaussians,
    nonnegative_sparse_coding,
    sparse_coding,
)
from ntkflow.systems.sparse_autoencoder.codes import code_consistency
from ntkflow.systems.sparse_autoencoder.network import (
    approximate_gradient,
    bias_gradient,
    encode,
    threshold,
)
from ntkflow.systems.sparse_autoencoder.population import (
    coefficients,
    leading_gradient,
    population_bias_gradient,
    population_gradient,
)

gradient, by_bias, alpha_beta, leading = (
    compiled(function, static_argnames="printed")
    for function in (population_gradient, population_bias_gradient, coefficients, leading_gradient)
)


def unit_columns(weights):
    weights = np.asarray(weights)
    return jnp.asarray(weights / np.linalg.norm(weights, axis=0))


def unit(seed, n, m):
    x = np.random.default_rng(seed).normal(size=(n, m))
    return jnp.asarray(x / np.linalg.norm(x, axis=0))


def near(dictionary, distance, seed=1):
    """Unit columns at about this distance of the dictionary's."""
    n = dictionary.shape[0]
    noise = np.random.default_rng(100 + seed).normal(size=dictionary.shape)
    return unit_columns(np.asarray(dictionary) + distance / n**0.5 * noise)


def expected_loss(weights, bias, model):
    """E ½ ‖y − W(Wᵀy + b)_S‖² over all supports, one by one, from the moments of y alone."""
    a, moments = model.dictionary, model.moments
    (n, m), k = a.shape, model.sparsity
    masks = np.zeros((0, m))
    for support in itertools.combinations(range(m), k):
        masks = np.vstack([masks, np.isin(np.arange(m), support)])

    def given(mask):
        w, codes = weights * mask[None, :], jnp.outer(mask, mask) * moments.kappa_1**2
        codes += (moments.kappa_2 - moments.kappa_1**2) * jnp.diag(mask)
        second = a @ codes @ a.T + model.noise**2 * np.eye(n)
        rest, shift = np.eye(n) - w @ w.T, w @ bias
        mean = moments.kappa_1 * a @ mask
        return jnp.trace(rest @ second @ rest) - 2 * mean @ rest @ shift + shift @ shift

    return jnp.mean(jax.vmap(given)(jnp.asarray(masks))) / 2


def non_unit(seed, n, m):
    return jnp.asarray(np.asarray(samples(seed, n, m)) * (0.5 + np.arange(m) / m))


MODELS = {
    "mixture": lambda: mixture_of_gaussians(unit(0, 6, 4), 0.3),
    "sparse": lambda: sparse_coding(unit(1, 5, 6), 3, 0.2),
    "non-negative": lambda: nonnegative_sparse_coding(unit(2, 5, 6), 5, 0.5, 1.5, 0.2),
    "one atom": lambda: nonnegative_sparse_coding(unit(3, 3, 1), 1, 0.5, 0.5, 0.1),
}


@pytest.mark.quick
@pytest.mark.parametrize("name", MODELS)
def test_the_closed_form_is_the_gradient_of_the_expected_loss(name):
    """All supports one by one, by autodiff; noise, unequal biases and columns of any norm."""
    model = MODELS[name]()
    n, m = model.dictionary.shape
    weights, bias = non_unit(4, n, m), samples(5, m)
    by_w, by_b = compiled(jax.grad(expected_loss, argnums=(0, 1)))(weights, bias, model)
    assert_close(gradient(weights, bias, model), by_w)
    assert_close(by_bias(weights, bias, model), by_b)


SETTINGS = [
    ("mixture", None),
    ("sparse", 0.5),
    ("non-negative", None),
]


@pytest.mark.parametrize(("name", "level"), SETTINGS)
def test_samples_with_consistent_codes_have_the_exact_gradient_in_expectation(name, level):
    n, m, batches = 12, 6, 64
    dictionary = np.linalg.qr(np.asarray(samples(0, n, n)))[0][:, :m] + 0.02
    dictionary = jnp.asarray(dictionary / np.linalg.norm(dictionary, axis=0))
    model = {
        "mixture": mixture_of_gaussians(dictionary, 0.03),
        "sparse": sparse_coding(dictionary, 3, 0.03),
        "non-negative": nonnegative_sparse_coding(dictionary, 3, 0.8, 1.2, 0.03),
    }[name]
    activation = jax.nn.relu if level is None else threshold(level)
    weights = near(dictionary, 0.12)
    bias = jnp.asarray(np.linspace(-0.45, -0.35, m) if level is None else np.zeros(m))

    def draw(key):
        y, codes = model.sample(key, 1024)
        consistent = code_consistency(encode(weights, bias, y, activation), codes, signs=True)
        arguments = weights, bias, y, activation
        return consistent, approximate_gradient(*arguments), bias_gradient(*arguments)

    keys = jax.random.split(jax.random.key(1), batches)
    consistent, by_w, by_b = compiled(lambda keys: jax.lax.map(draw, keys))(keys)
    assert (consistent == 1).all()

    def deviation(sampled, expected):
        sampled = np.asarray(sampled)
        error = sampled.std(axis=0, ddof=1) / batches**0.5 + 1e-15
        return np.abs(sampled.mean(axis=0) - np.asarray(expected)) / error

    assert deviation(by_w, gradient(weights, bias, model)).max() < 4
    assert deviation(by_b, by_bias(weights, bias, model)).max() < 4
    if name == "mixture":
        assert_close(by_bias(weights, bias, model), bias / m, scale=0.1)
    if name == "mixture" and level is None:
        assert deviation(by_b, by_bias(weights, bias, model, printed=True)).min() > 5
    elif name == "sparse":
        assert deviation(by_w, gradient(weights, bias, model, printed=True)).max() > 5


def test_the_printed_gradient_of_the_mixture_is_exact_for_unit_columns():
    """With noise, which adds nothing there: (6), (7), (8) and p_i b_i² W_i."""
    dictionary = unit(6, 8, 5)
    model, weights, bias = mixture_of_gaussians(dictionary, 0.4), unit(7, 8, 5), samples(8, 5)
    exact = gradient(weights, bias, model)
    a, w, b = (np.asarray(array) for array in (dictionary, weights, bias))
    aligned, p = np.sum(w * a, axis=0), 1 / 5
    first = -p * aligned * a + p * aligned**2 * w
    second = p * b * aligned * w + p * b * a
    third = -p * b * a + p * b * aligned * w
    assert_close(first + second + third + p * b**2 * w, exact)
    assert_close(gradient(weights, bias, model, printed=True), exact)
    assert_close(leading(weights, bias, model), exact)
    alike = nonnegative_sparse_coding(dictionary, 1, 1.0, 1.0, 0.4)
    assert_close(gradient(weights, bias, alike), exact)
    alpha, beta = alpha_beta(weights, bias, alike)
    assert_close(alpha, p * (aligned + b) ** 2)
    assert_close(beta, p * aligned)
    spurious = leading(weights, bias, model, printed=True)
    assert np.linalg.norm(spurious - exact) > 0.2 * np.linalg.norm(exact)


def test_noise_adds_what_its_docstring_says():
    dictionary, weights, bias = unit(9, 5, 6), non_unit(10, 5, 6), samples(11, 6)
    k, noise = 3, 0.7
    quiet, loud = (sparse_coding(dictionary, k, s) for s in (0.0, noise))
    p, pair = k / 6, k * (k - 1) / 30
    w, after, before = (
        np.asarray(x)
        for x in (weights, gradient(weights, bias, loud), gradient(weights, bias, quiet))
    )
    together = pair + (p - pair) * np.eye(6)
    added = 2 * noise**2 * (w @ (together * (w.T @ w)) - p * w)
    assert_close(after - before, added, scale=np.abs(after).max())


def test_equation_15_misses_a_third_of_the_gradient():
    dictionary = unit(12, 60, 90)
    model, bias = sparse_coding(dictionary, 3), np.zeros(90)
    weights = near(dictionary, 0.2)
    exact, printed = (gradient(weights, bias, model, printed=p) for p in (False, True))
    assert 0.29 < np.linalg.norm(printed - exact) / np.linalg.norm(exact) < 0.33
    # What is kept: the terms of E[x_j x_l] = 1 with j = l = i.
    weights, dictionary, printed = (np.asarray(x) for x in (weights, dictionary, printed))
    c, gram, p = weights.T @ dictionary, weights.T @ weights, 3 / 90
    pair, i = p * 2 / 89, 7
    others = np.delete(np.arange(90), i)
    w, a, rest = weights[:, i], dictionary[:, i], weights[:, others]
    column = p * c[i, i] * (c[i, i] * w - a) + pair * c[i, i] * rest @ c[others, i]
    column += pair * (gram[i, others] @ c[others, i]) * a
    assert_close(printed[:, i], column)


@pytest.fixture(scope="module")
def nonnegative():
    dictionary = unit(13, 40, 8)
    return nonnegative_sparse_coding(dictionary, 3, 0.5, 1.5), near(dictionary, 0.2)


def test_alpha_and_beta_are_the_coefficients(nonnegative):
    model, weights = nonnegative
    equal, unequal = np.full(8, -0.1), -0.1 * np.arange(8) / 8
    for bias in (equal, unequal):
        exact = gradient(weights, bias, model)
        basis = np.hstack([weights, model.dictionary])
        solved = np.linalg.lstsq(basis, exact, rcond=None)[0]
        alpha, beta = alpha_beta(weights, bias, model)
        np.testing.assert_allclose(alpha, np.diag(solved[:8]), atol=1e-12)
        np.testing.assert_allclose(beta, -np.diag(solved[8:]), atol=1e-12)
        _, printed = alpha_beta(weights, bias, model, printed=True)
        off = np.abs(np.asarray(printed) - beta).max()
        assert off < 1e-15 if bias is equal else off > 1e-4  # b_i for b_j
        remainder = np.asarray(gradient(weights, bias, model, printed=True)) - exact
        assert np.linalg.norm(basis @ solved - exact) < 1e-12
        assert np.linalg.norm(remainder) > 0.01 * np.linalg.norm(exact)


def test_the_remainder_grows_with_a_shift_that_columns_share(nonnegative):
    """e_i holds κ_1² p_ij λ_i Σ (W_j − A_j), of size (k − 1) p_i δ: no bound of order p_i k/m."""
    (n, m), k = nonnegative[0].dictionary.shape, 3
    dictionary = np.linalg.qr(samples(14, n, n))[0]
    model = nonnegative[0].replace(
        dictionary=jnp.asarray(dictionary[:, :m]), smallest=1.0, largest=1.0
    )
    bias, zeta, sizes = np.zeros(m), m / k, []
    for delta in (0.0, 0.02, 0.04):
        weights = unit_columns(dictionary[:, :m] + delta * dictionary[:, -1:])
        alpha, beta = alpha_beta(weights, bias, model)
        left = np.asarray(gradient(weights, bias, model)) - np.asarray(alpha) * np.asarray(weights)
        left += np.asarray(beta) * dictionary[:, :m]
        sizes.append(zeta * np.linalg.norm(left, axis=0))
    np.testing.assert_allclose(sizes[0], 0, atol=1e-14)
    np.testing.assert_allclose(sizes[1], 0.02 * (k - 1), rtol=0.1)
    np.testing.assert_allclose(sizes[2], 0.04 * (k - 1), rtol=0.1)


def test_precision_follows_the_weights(nonnegative, dtype):
    model, weights = nonnegative
    model = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), model)
    bias = np.full(8, -0.1)
    for function in (gradient, by_bias):
        exact = function(weights, bias, nonnegative[0])
        found = function(weights.astype(dtype), bias.astype(dtype), model)
        assert found.dtype == dtype
        assert_close(found, exact.astype(dtype))


def test_what_is_refused():
    model = sparse_coding(np.eye(3), 2)
    with pytest.raises(
        ValueError, match=r"weights have shape \(3, 2\), bias \(2,\) and .*\(3, 3\)"
    ):
        population_gradient(np.ones((3, 2)), np.zeros(2), model)
    with pytest.raises(ValueError, match="bias holds NaN"):
        population_gradient(np.eye(3), np.array([0.0, jnp.nan, 0.0]), model)
    with pytest.raises(ValueError, match=r"bias is not 0; equation \(15\)"):
        population_gradient(np.eye(3), np.ones(3), model, printed=True)
    with pytest.raises(ValueError, match="of kind 'sparse_coding'; the paper prints"):
        population_bias_gradient(np.eye(3), np.zeros(3), model, printed=True)
    with pytest.raises(ValueError, match="model is of type ndarray; expected a model of the data"):
        population_gradient(np.eye(3), np.zeros(3), np.eye(3))


def test_concrete_biases_may_be_closed_over_in_a_trace():
    model, weights, bias = sparse_coding(np.eye(3), 2), np.eye(3), np.zeros(3)
    run = lambda s, b: s + population_gradient(weights, b, model, printed=True)  # noqa: E731
    assert jax.eval_shape(lambda s: run(s, bias), 0.0).shape == (3, 3)
    bias = np.ones(3)
    with pytest.raises(ValueError, match="bias is not 0"):
        jax.eval_shape(lambda s: run(s, bias), 0.0)
