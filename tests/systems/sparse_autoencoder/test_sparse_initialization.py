"""Initializations: their laws, what they find, and the projection against a slow reference."""

import functools

import jax
import numpy as np
import pytest
from helpers import assert_close, compiled

from ntkflow.systems.sparse_autoencoder.initialization import (
    perturbed,
    principal_components,
    project_near,
    random_weights,
    spectral,
)

components_of = compiled(
    lambda y, center: principal_components(y, 3, center=center), static_argnums=1
)


projected = compiled(project_near)


def key(seed):
    return jax.random.key(seed)


def normal(seed, *shape, dtype="float64"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def unit_columns(seed, n, m, dtype="float64"):
    columns = normal(seed, n, m)
    return (columns / np.linalg.norm(columns, axis=0)).astype(dtype)


@pytest.mark.quick
def test_perturbation_has_entries_of_variance_delta_squared_over_n(dtype):
    n, m, delta = 60, 20, 0.5
    a = unit_columns(0, n, m, dtype)
    draw = compiled(lambda k: [perturbed(k, a, delta), perturbed(k, a, delta, std=n**-0.25)])
    weights, literal = draw(key(0))
    assert weights.dtype == dtype
    entries = (np.asarray(weights) - a) * n**0.5 / delta
    assert abs(entries.mean()) < 4 * entries.size**-0.5
    assert abs(entries.var() - 1) < 4 * (2 / entries.size) ** 0.5
    assert_close(np.asarray(literal) - a, n**0.25 * (np.asarray(weights) - a), scale=2.0)


def test_random_weights_have_entries_of_variance_1_over_n():
    weights = np.asarray(compiled(lambda k: random_weights(k, 60, 20, dtype="float32"))(key(0)))
    assert weights.shape == (60, 20)
    assert weights.dtype == "float32"
    assert abs(60 * np.square(weights).mean() - 1) < 4 * (2 / weights.size) ** 0.5


@pytest.mark.quick
@pytest.mark.parametrize("center", [False, True])
def test_principal_components_are_right_singular_vectors(center, dtype):
    y = normal(0, 30, 6, dtype=dtype) * np.arange(1, 7, dtype=dtype) + np.asarray(2, dtype)
    components = components_of(y, center)
    assert components.dtype == dtype
    exact = np.linalg.svd(y - center * y.mean(axis=0), full_matrices=False)[2][:3].T
    exact *= np.sign(exact[np.abs(exact).argmax(axis=0), range(3)])
    assert_close(components, exact.astype(dtype), factor=1000)


def test_components_of_a_mixture_span_its_means_unless_centred():
    a = unit_columns(0, 6, 3)
    y = a.T[np.random.default_rng(0).integers(0, 3, 30)]
    missing = []
    for center in (False, True):
        basis = np.asarray(components_of(y, center))
        missing.append(np.linalg.norm(a - basis @ (basis.T @ a)))
    assert missing[0] < 1e-12
    assert missing[1] > 0.1


@functools.cache
def sparse_problem():
    """A sparse coding model of 16 atoms with 2000 samples, and the search for the atoms."""
    a = unit_columns(0, 16, 16)
    left, _, right = np.linalg.svd(a)
    a = left @ right + 0.02 * a
    a /= np.linalg.norm(a, axis=0)
    generator = np.random.default_rng(1)
    supports = generator.random((2000, 16)).argsort(axis=1) < 2
    y = (supports * generator.choice([-1, 1], supports.shape) @ a.T).astype("float32")
    y += 0.01 * normal(2, *y.shape, dtype="float32")
    return a, compiled(
        lambda attempts: spectral(key(2), y, 16, 2, attempts=attempts), static_argnums=0
    )


@pytest.mark.quick
def test_spectral_finds_all_atoms():
    a, search = sparse_problem()
    found = search(1000)
    assert found.weights.dtype == "float32"
    assert found.found == 16
    assert found.attempts < 1000
    assert_close(np.linalg.norm(found.weights, axis=0), np.ones(16, "float32"))
    # Theory asks for a start within O*(1/log n), 0.36, of each atom, up to sign.
    cosines = np.abs(np.asarray(found.weights).T @ a)
    assert sorted(cosines.argmax(axis=0)) == list(range(16))
    assert np.sqrt(2 - 2 * cosines.max(axis=0)).max() < 0.25


def test_spectral_returns_what_it_has_when_attempts_run_out():
    _, search = sparse_problem()
    found = search(12)
    count = int(found.found)
    assert found.attempts == 12
    assert 0 < count < 12
    weights = np.asarray(found.weights)
    assert not weights[:, count:].any()
    assert_close(np.linalg.norm(weights[:, :count], axis=0), np.ones(count, "float32"))


def feasible(w, a, delta, limit, room=1e-10):
    inside = np.all(np.linalg.norm(w - a, axis=0) <= delta + room)
    return inside and np.linalg.norm(w, 2) <= limit + room


@pytest.mark.parametrize("seed", range(3))
def test_projection_is_the_nearest_point(seed):
    """By the conditions of Karush, Kuhn and Tucker, which suffice as B is convex.

    W − P = (P − A) diag(μ) + U₁ H V₁ᵀ with μ ≥ 0 on the columns at distance δ, and H ⪰ 0 on the
    singular vectors U₁, V₁ of P at the largest singular value.
    """
    a, delta, factor = unit_columns(seed, 3, 4), 0.9, 1.1
    w = a + normal(seed + 10, 3, 4)
    point = np.asarray(projected(w, a, delta, factor))
    limit = factor * np.linalg.norm(a, 2)
    assert feasible(point, a, delta, limit)
    # Neither projection alone would do, or the test would not see the algorithm.
    left, singular, right = np.linalg.svd(w, full_matrices=False)
    assert not feasible(left * np.minimum(singular, limit) @ right, a, delta, limit)
    balls = a + (w - a) * np.minimum(1, delta / np.linalg.norm(w - a, axis=0))
    assert not feasible(balls, a, delta, limit)

    left, singular, right = np.linalg.svd(point, full_matrices=False)
    rank = int(np.sum(singular > limit - 1e-8))
    directions = []
    for column in np.flatnonzero(np.linalg.norm(point - a, axis=0) > delta - 1e-8):
        directions.append((point - a) * (np.arange(4) == column))
    columns = len(directions)
    assert columns > 0
    assert rank > 0
    for i in range(rank):
        for j in range(i, rank):
            h = np.zeros((rank, rank))
            h[i, j] = h[j, i] = 1
            directions.append(left[:, :rank] @ h @ right[:rank])
    basis = np.stack([direction.ravel() for direction in directions], axis=1)
    multipliers = np.linalg.lstsq(basis, (w - point).ravel(), rcond=None)[0]
    np.testing.assert_allclose(basis @ multipliers, (w - point).ravel(), atol=1e-7)
    assert np.all(multipliers[:columns] >= -1e-7)
    h = np.zeros((rank, rank))
    h[np.triu_indices(rank)] = multipliers[columns:]
    assert np.linalg.eigvalsh(h, UPLO="U").min() >= -1e-7


def test_projection_is_idempotent_and_leaves_b_alone(dtype):
    a = unit_columns(0, 3, 4, dtype)
    w = a + normal(10, 3, 4, dtype=dtype)
    point = projected(w, a, 0.9, 1.1)
    assert point.dtype == dtype
    assert_close(projected(point, a, 0.9, 1.1), point, factor=1000)
    inside = a + np.asarray(0.1, dtype) * unit_columns(1, 3, 4, dtype)
    assert np.array_equal(projected(inside, a, 0.9, 1.1), inside)


def test_projection_by_the_columns_alone_or_the_norm_alone():
    a = unit_columns(0, 3, 4)
    w = a + normal(10, 3, 4)
    shift = (w - a) / np.linalg.norm(w - a, axis=0)
    assert_close(projected(w, a, 0.3, 10.0), a + 0.3 * shift)
    left, singular, right = np.linalg.svd(5 * w, full_matrices=False)
    clipped = left * np.minimum(singular, 2 * np.linalg.norm(a, 2)) @ right
    assert_close(projected(5 * w, a, 100.0, 2.0), clipped)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: principal_components(np.ones((9, 3)), 4), r"m is 4.*expected m ≤ n and m ≤ N"),
        (lambda: principal_components(np.ones((2, 3)), 3), r"m is 3.*expected m ≤ n and m ≤ N"),
        (lambda: principal_components(np.ones((3, 5)), 3, center=True), "m ≤ N − 1"),
        (lambda: principal_components(np.ones(3), 1), "samples has shape"),
        (lambda: principal_components(np.ones((3, 3)), 0), "m is 0"),
        (lambda: perturbed(key(0), np.ones(3), 0.5), "dictionary has shape"),
        (lambda: random_weights(key(0), 3, 0), "m is 0"),
        (lambda: spectral(key(0), np.ones((1, 3)), 3, 1), "expected two samples or more"),
        (lambda: spectral(key(0), np.ones((4, 3)), 3, 4), "sparsity is 4; expected 1 ≤ k ≤ m = 3"),
        (lambda: spectral(key(0), np.ones((4, 3)), 3, 1, attempts=0), "attempts is 0"),
        (lambda: project_near(np.ones((3, 2)), np.ones((3, 3)), 0.1), r"expected both \(n, m\)"),
        (lambda: project_near(np.ones((3, 3)), np.ones((3, 3)), -0.1), "delta is -0.1"),
        (lambda: project_near(np.ones((3, 3)), np.ones((3, 3)), 0.1, 1.0), "greater than 1"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
