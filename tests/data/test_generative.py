"""Generative models: samples against their definition, moments against enumeration and draws."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled

from ntkflow.data.generative import (
    mixture_of_gaussians,
    nonnegative_sparse_coding,
    sparse_coding,
)

N, M, K = 10_000, 5, 3
BUILDERS = {
    "mixture": lambda a: mixture_of_gaussians(a),
    "rademacher": lambda a: sparse_coding(a, K),
    "gaussian": lambda a: sparse_coding(a, K, codes="gaussian", smallest=0.6),
    "nonnegative": lambda a: nonnegative_sparse_coding(a, K, 0.5, 1.5),
}


def dictionary(n=4, m=M, dtype="float64"):
    columns = np.random.default_rng(0).normal(size=(n, m))
    return jnp.asarray(columns / np.linalg.norm(columns, axis=0), dtype)


@functools.cache
def draws():
    """One large sample of each kind, without noise; by one program, which costs less than four."""
    models = {kind: build(dictionary()) for kind, build in BUILDERS.items()}
    sample = lambda models: {kind: m.sample(key(7), N) for kind, m in models.items()}  # noqa: E731
    return models, jax.tree.map(np.asarray, compiled(sample)(models))


def drawn(kind):
    models, samples = draws()
    return models[kind], samples[kind]


def key(seed):
    return jax.random.key(seed)


def assert_mean(values, expected):
    """The mean over samples, within four of its standard errors."""
    error = values.std(axis=0) / len(values) ** 0.5
    assert np.all(np.abs(values.mean(axis=0) - expected) <= 4 * error + 1e-12)


@pytest.mark.quick
@pytest.mark.parametrize("kind", BUILDERS)
def test_samples_are_combinations_of_k_atoms(kind):
    model, (y, codes) = drawn(kind)
    assert y.shape == (N, 4)
    assert codes.shape == (N, M)
    assert_close(y, codes @ np.asarray(model.dictionary).T)
    assert set((codes != 0).sum(axis=1)) == {model.sparsity}
    sizes = np.abs(codes[codes != 0])
    assert sizes.min() >= model.moments.smallest
    assert sizes.max() <= model.moments.largest


@pytest.mark.parametrize("kind", BUILDERS)
def test_moments_are_those_of_the_draws(kind):
    model, (_, codes) = drawn(kind)
    moments, on = model.moments, codes != 0
    assert_mean(on, moments.single)
    assert_mean(on[:, 0] & on[:, 2], moments.pair)
    assert_mean(on[:, 1] & on[:, 2] & on[:, 4], moments.triple)
    values = codes[on]
    assert_mean(values, moments.kappa_1)
    assert_mean(values**2, moments.kappa_2)
    if model.sparsity > 1:  # independent entries: the mean of a product is κ_1²
        pairs = codes[on].reshape(N, model.sparsity)
        assert_mean(pairs[:, 0] * pairs[:, 1], moments.kappa_1**2)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_moments_count_subsets(k):
    subsets = [set(s) for s in itertools.combinations(range(5), k)]
    moments = sparse_coding(np.eye(5), k).moments
    for value, members in zip(moments[:3], ({0}, {0, 1}, {0, 1, 2}), strict=True):
        assert value == pytest.approx(np.mean([members <= s for s in subsets]), abs=1e-15)


def test_moments_of_one_and_two_atoms():
    assert sparse_coding(np.ones((1, 1)), 1).moments[:3] == (1, 0, 0)
    assert sparse_coding(np.eye(2), 2).moments[:3] == (1, 1, 0)


def test_supports_are_uniform_over_all_subsets():
    _, (_, codes) = drawn("rademacher")
    sets, counts = np.unique(codes != 0, axis=0, return_counts=True)
    p = 1 / math.comb(M, K)
    assert len(sets) == math.comb(M, K)
    assert np.all(np.abs(counts / N - p) < 4 * (p * (1 - p) / N) ** 0.5)


def test_gaussian_codes_have_the_stated_law():
    """x² = a_1² + (1 − a_1²) z², so that its variance is 2 (1 − a_1²)²; signs are symmetric."""
    _, (_, codes) = drawn("gaussian")
    values = codes[codes != 0]
    assert_mean((values**2 - 1) ** 2, 2 * (1 - 0.6**2) ** 2)
    assert_mean(np.sign(values), 0)
    _, (_, signs) = drawn("rademacher")  # a_1 = 1 of the same law
    assert set(np.unique(signs)) == {-1.0, 0.0, 1.0}


def test_mixtures_may_have_means_of_any_norm():
    assert mixture_of_gaussians(2 * dictionary(), unit=False).moments.single == 1 / M


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_single_precision_dictionaries_have_unit_columns_in_double_precision_too(dtype):
    rounded = dictionary().astype(dtype)
    assert mixture_of_gaussians(rounded).dictionary.dtype == dtype
    if dtype == "float32":
        assert mixture_of_gaussians(rounded.astype("float64")).sparsity == 1


def test_concrete_numbers_may_be_closed_over_in_a_trace():
    a, noise, smallest = dictionary(), jnp.asarray(0.1), jnp.asarray(0.5)

    def build(shift):
        models = (
            sparse_coding(a, 2, noise, codes="gaussian", smallest=smallest),
            nonnegative_sparse_coding(a, 2, smallest, smallest, noise),
        )
        return [model.noise + shift for model in models]

    assert jax.tree.leaves(jax.eval_shape(build, 0.0))


def test_noise_is_added_with_its_standard_deviation():
    model = mixture_of_gaussians(dictionary(), noise=0.3)
    y, codes = compiled(model.sample, static_argnums=1)(key(3), N)
    noise = np.asarray(y - codes @ model.dictionary.T)
    assert_mean(noise, 0)
    assert_mean(noise**2, 0.3**2)
    assert_mean(noise[:, 0] * noise[:, 1], 0)


def test_models_pass_through_transforms(dtype):
    a = dictionary(dtype=dtype)
    build = lambda noise: nonnegative_sparse_coding(a, 2, 0.5, 1.5, noise)  # noqa: E731
    sample = lambda model, key: model.sample(key, 6)  # noqa: E731
    model, keys = build(0.1), jnp.stack([key(0), key(1)])
    one = compiled(sample)(model, key(1))
    assert one.y.dtype == one.codes.dtype == dtype
    assert model.moments.kappa_2.dtype == dtype
    over_keys = compiled(jax.vmap(sample, (None, 0)))(model, keys)
    assert_close(over_keys.y[1], one.y)
    if dtype == "float64":  # the builder's values are traced here
        over_noise = compiled(jax.vmap(lambda noise: sample(build(noise), key(1))))
        assert_close(over_noise(np.array([0.0, 0.1])).y[1], one.y)


def test_gradient_with_respect_to_the_dictionary():
    """y is linear in A: the derivative of Σ y in every entry of column i is Σ x_i*."""
    model = mixture_of_gaussians(dictionary())

    def total(a):
        y, codes = model.replace(dictionary=a).sample(key(0), 8)
        return y.sum(), codes.sum(axis=0)

    gradient, codes = compiled(jax.grad(total, has_aux=True))(model.dictionary)
    assert_close(gradient, np.broadcast_to(np.asarray(codes)[None, :], (4, M)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mixture_of_gaussians(np.ones(3)), r"shape \(3,\); expected \(n, m\), each"),
        (lambda: mixture_of_gaussians(np.eye(2) * jnp.nan), "dictionary holds NaN"),
        (lambda: mixture_of_gaussians(2 * np.eye(2)), "2 columns whose norm is not 1.*divide by"),
        (lambda: mixture_of_gaussians(dictionary().T), "pass dictionary.T"),
        (lambda: mixture_of_gaussians(np.eye(2), -0.1), "noise is -0.1; expected a standard"),
        (lambda: mixture_of_gaussians(np.eye(2), np.ones(2)), "the same for all entries"),
        (lambda: mixture_of_gaussians(np.eye(2), math.inf), "noise is inf"),
        (lambda: mixture_of_gaussians(np.eye(2), "low"), "noise is low"),
        (
            lambda: jax.vmap(lambda s: mixture_of_gaussians(np.eye(2), s))(np.ones((2, 3))),
            "noise",
        ),
        (lambda: nonnegative_sparse_coding(np.eye(3), 1, np.ones(3), 2), "smallest is"),
        (lambda: sparse_coding(np.eye(3), 4), "sparsity is 4.*has 3 atoms.*pass dictionary.T"),
        (lambda: sparse_coding(np.eye(3), 0), "sparsity is 0; expected a whole number"),
        (lambda: sparse_coding(np.eye(3), 1, codes="gaussian", smallest=1.1), r"in \(0, 1\]"),
        (lambda: sparse_coding(np.eye(3), 1, smallest=0.5), "Rademacher codes are ±1"),
        (lambda: nonnegative_sparse_coding(np.eye(3), 1, 2, 1), "smallest is 2 and largest 1"),
        (lambda: nonnegative_sparse_coding(np.eye(3), 1, 0, 1), "expected 0 < a_1 ≤ a_2 < ∞"),
        (lambda: mixture_of_gaussians(np.eye(2)).sample(key(0), 0), "samples is 0; expected"),
    ],
)
def test_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()
