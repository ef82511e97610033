"""Appendix A against Monte Carlo means, within their standard errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled

from ntkflow.systems.autoencoder.gaussian import (
    activation_norm_moment,
    activation_probability,
    activation_second_moment,
    feature_product,
    half_moment,
    stein_sides,
)

X, Y = np.array([1.0, -0.5, 2.0]), np.array([-0.3, 1.0, 0.4])


@pytest.fixture(scope="module")
def w():
    return np.random.default_rng(0).normal(size=(200_000, 3))


def errors(samples, value):
    """(mean − value) in standard errors."""
    scale = samples.std(axis=0, ddof=1) / len(samples) ** 0.5
    return (samples.mean(axis=0) - np.asarray(value)) / scale


@compiled
def all_moments(x, y):
    return {
        "probability": activation_probability(x, y),
        "second": activation_second_moment(x, y),
        "second as printed": activation_second_moment(x, y, printed=True),
        "norm": activation_norm_moment(x, y),
        "product": feature_product(x, y),
        "product as printed": feature_product(x, y, printed=True),
    }


@pytest.mark.quick
def test_moments_of_active_weights(w):
    """A.2 with the boundary term, A.3, and E φφ; A.2 and H^∞ as printed are off."""
    active = ((w @ X >= 0) & (w @ Y >= 0)) * 1.0
    moments = all_moments(X, Y)
    assert abs(errors(active, moments["probability"])) < 4
    outer = active[:, None, None] * w[:, :, None] * w[:, None, :]
    assert np.abs(errors(outer, moments["second"])).max() < 4
    assert np.abs(errors(outer, moments["second as printed"])).max() > 20
    squares = active * np.sum(w**2, axis=1)
    assert abs(errors(squares, moments["norm"])) < 4
    products = np.maximum(w @ X, 0) * np.maximum(w @ Y, 0)
    assert abs(errors(products, moments["product"])) < 4
    assert abs(errors(products, moments["product as printed"])) > 20
    # A.2 is what E φφ is made of.
    assert_close(X @ moments["second"] @ Y, moments["product"])


def test_half_moments(w):
    first = w[:, 0]
    for order in range(5):
        assert abs(errors(first**order * (first >= 0), half_moment(order))) < 4
    np.testing.assert_allclose([half_moment(q) for q in (1, 2, 4)], [(2 * np.pi) ** -0.5, 0.5, 1.5])


def test_steins_identity_and_what_it_misses(w):
    x, y = jnp.asarray(X), jnp.asarray(Y)
    features = lambda v: jax.nn.relu(v @ y)[None]  # noqa: E731
    products = lambda v: (v @ x > 0) * features(v)  # noqa: E731
    both = compiled(lambda w: (stein_sides(features, w), stein_sides(products, w)))
    smooth, jump = both(jnp.asarray(w))
    assert (jnp.abs(smooth.left - smooth.right) < 4 * smooth.standard_error).all()
    missed = X @ np.asarray(jump.left - jump.right)[:, 0]
    moments = all_moments(X, Y)
    size = float(moments["product"] - moments["product as printed"])
    error = np.linalg.norm(X) * np.linalg.norm(jump.standard_error)
    assert abs(missed - size) < 4 * error < size / 5


def test_the_second_moment_at_every_angle(dtype):
    """Symmetric, of trace d (π − θ)/2π, I/2 and 0 at parallel and antiparallel vectors."""
    x, y = (jnp.asarray(v, dtype) for v in ([0.6, 0.8], [-0.2, 0.9]))
    parallel, opposite, other = (all_moments(x, v)["second"] for v in (3 * x, -x, y))
    assert_close(parallel, 0.5 * np.eye(2, dtype=dtype))
    assert_close(opposite, np.zeros((2, 2), dtype), scale=1.0)
    assert other.dtype == dtype
    assert_close(other, other.T)
    assert_close(np.trace(other), all_moments(x, y)["norm"])
    a, b = np.array([0.6, 0.8]), np.array([-0.2, 0.9]) / np.hypot(0.2, 0.9)
    cos = a @ b
    boundary = np.outer(a, b) + np.outer(b, a) - cos * (np.outer(a, a) + np.outer(b, b))
    expected = (np.pi - np.arccos(cos)) * np.eye(2) + boundary / np.sqrt(1 - cos**2)
    assert_close(other, (expected / (2 * np.pi)).astype(dtype))


def test_vectors_of_every_size(dtype):
    """Squares and products of the norms are out of the type's range, the moments are not."""
    large = float(jnp.finfo(dtype).max) ** 0.75
    x, y = (jnp.asarray(v, dtype) for v in ([0.6, 0.8], [-0.2, 0.9]))
    expected = all_moments(x, y)
    for size in (large, 1 / large):
        found = all_moments(size * x, size * y)
        for name in ("probability", "second", "norm"):
            assert_close(found[name], expected[name])
    found = all_moments(large * x, y / large)
    assert_close(found["product"], expected["product"])


def test_pairs_by_vmap_and_errors():
    xs = jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)))
    pairs = compiled(jax.vmap(jax.vmap(feature_product, (None, 0)), (0, None)))(xs, xs)
    assert_close(pairs[1, 2], all_moments(xs[1], xs[2])["product"])
    for moment in (activation_probability, activation_norm_moment):
        for bad in (xs, 1.0, np.zeros(0)):
            with pytest.raises(ValueError, match=r"expected \(d,\) for both"):
                moment(bad, bad)
    for bad in (np.zeros(3), np.array([1.0, np.inf, 0.0]), np.full(3, np.nan)):
        with pytest.raises(ValueError, match="largest entry of y is"):
            feature_product(xs[0], bad)
    with pytest.raises(ValueError, match="order is -1"):
        half_moment(-1)
    with pytest.raises(ValueError, match="expected at least two samples"):
        stein_sides(lambda v: v, xs[:1])
    with pytest.raises(ValueError, match=r"h gives shape \(\) for one w .* write h\(w\)\[None\]"):
        stein_sides(jnp.sum, xs)
