"""Recovery up to permutation and sign, against brute force and SciPy's assignment."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from helpers import assert_close, compiled

from ntkflow.systems.sparse_autoencoder.recovery import align, closeness, is_close, is_near

N, M = 5, 4
# Mapped over problems: one program for each, which the tests share.
CLOSENESS = {
    signs: compiled(jax.vmap(lambda w, a, signs=signs: closeness(w, a, signs=signs)))
    for signs in (False, True)
}
BATCH = 40
aligned = compiled(align, static_argnames="signs")
near = compiled(jax.vmap(is_near, (None, None, 0, 0)))


def smallest_delta(w, a, signs=False):
    """`closeness` by the program of a whole batch, which is compiled already."""
    w, a = (np.broadcast_to(x, (BATCH, *x.shape)) for x in (w, a))
    return CLOSENESS[signs](w, a)[0]


def dictionary(seed, n=N, m=M, dtype="float64"):
    columns = np.random.default_rng(seed).normal(size=(n, m))
    return (columns / np.linalg.norm(columns, axis=0)).astype(dtype)


def all_distances(w, a, signs):
    """‖±W_π(j) − A_j‖ for all permutations π, shape (m!, m)."""
    rows = []
    for order in itertools.permutations(range(a.shape[1])):
        taken = w[:, order]
        distances = np.linalg.norm(taken - a, axis=0)
        if signs:
            distances = np.minimum(distances, np.linalg.norm(taken + a, axis=0))
        rows.append(distances)
    return np.array(rows)


@pytest.mark.quick
@pytest.mark.parametrize("signs", [False, True])
def test_align_is_optimal_among_all_permutations(signs):
    generator = np.random.default_rng(0)
    for seed in range(10):
        a, w = dictionary(seed), generator.normal(size=(N, M))  # columns of W of any norm
        found = aligned(w, a, signs=signs)
        best = np.sqrt((all_distances(w, a, signs) ** 2).sum(axis=1).min())
        assert_close(found.error, best)
        assert_close(found.weights, np.asarray(found.signs) * w[:, np.asarray(found.permutation)])
        assert_close(found.distances, np.linalg.norm(found.weights - a, axis=0))
        assert_close(np.linalg.norm(found.distances), np.asarray(found.error))
        assert signs or set(found.signs.tolist()) == {1.0}


def test_align_is_the_assignment_of_scipy():
    generator = np.random.default_rng(1)
    a, w = generator.normal(size=(30, 25)), generator.normal(size=(30, 25))
    rows, columns = scipy.optimize.linear_sum_assignment(-np.abs(w.T @ a))
    found = aligned(w, a, signs=True)
    assert np.array_equal(np.asarray(found.permutation)[columns], rows)


@pytest.mark.parametrize(("signs", "dtype"), [(False, "float64"), (True, "float32")])
def test_shuffled_columns_are_found(signs, dtype):
    a = dictionary(2, dtype=dtype)
    order, flips = np.array([2, 0, 3, 1]), np.array([-1, 1, -1, 1], dtype)
    w = a + np.asarray(0.1, dtype) * dictionary(3, dtype=dtype)
    shuffled = (flips * w if signs else w)[:, order]
    found, plain = aligned(shuffled, a, signs=signs), aligned(w, a, signs=signs)
    assert found.weights.dtype == found.error.dtype == dtype
    assert found.permutation.tolist() == np.argsort(order).tolist()
    assert found.signs.tolist() == (flips.tolist() if signs else [1.0] * M)
    assert plain.permutation.tolist() == list(range(M))
    assert_close(found.error, plain.error)
    assert_close(found.weights, w)


def test_align_maps_over_problems():
    w, a = jnp.stack([dictionary(0), dictionary(1)]), jnp.stack([dictionary(4), dictionary(5)])
    mapped = compiled(jax.vmap(align))(w, a)
    for i in range(2):
        one = aligned(w[i], a[i])
        assert_close(mapped.error[i], one.error)
        assert np.array_equal(mapped.permutation[i], one.permutation)


def test_error_is_differentiated_with_the_permutation_held_fixed():
    w, a = dictionary(0), dictionary(4)
    slope = compiled(jax.grad(lambda w: align(w, a).error))
    found = aligned(w, a)
    direction = (found.weights - a) / found.error
    assert_close(slope(w)[:, found.permutation], direction)
    assert (slope(a) == 0).all()  # where there is none, and a run ends


@pytest.mark.quick
@pytest.mark.parametrize("signs", [False, True])
def test_closeness_is_the_bottleneck_among_all_permutations(signs):
    generator = np.random.default_rng(3)
    a = np.stack([dictionary(seed) for seed in range(BATCH)])
    w = generator.normal(size=(BATCH, N, M))
    distances = [all_distances(*pair, signs) for pair in zip(w, a, strict=True)]
    expected = np.array([d.max(axis=1).min() for d in distances])
    assert_close(CLOSENESS[signs](w, a), expected)
    # The search matters: neither of its two bounds is the answer always.
    by_sum = np.array([d[(d**2).sum(axis=1).argmin()].max() for d in distances])
    nearest = np.array([d.min(axis=0).max() for d in distances])
    assert np.any(by_sum > expected + 1e-3)
    assert np.any(nearest < expected - 1e-3)


def test_small_distances_are_resolved():
    """Below √eps, where ‖W‖² + ‖A‖² − 2⟨W, A⟩ would hold rounding alone."""
    a = dictionary(0)
    w = a[:, ::-1] + 1e-12 * dictionary(1)
    assert 0.99e-12 < smallest_delta(w, a) < 1.01e-12
    assert smallest_delta(a, a) == 0


def test_definition_2():
    a = dictionary(0)
    w = a[:, ::-1] + 0.2 * dictionary(1)
    close = compiled(is_close)(w, a, 0.2 + np.array([1e-12, -1e-12]))
    assert close.tolist() == [True, False]
    assert_close(smallest_delta(-w, a, signs=True), np.asarray(0.2))
    ratio = np.linalg.norm(w[:, ::-1] - a, 2) / np.linalg.norm(a, 2)
    deltas = 0.2 + np.array([1e-12, 1e-12, -1e-12])
    answers = near(w, a, deltas, ratio * np.array([1 - 1e-9, 1 + 1e-9, 10.0]))
    assert answers.tolist() == [False, True, False]
    assert near(a[:, ::-1], a, np.zeros(3), np.zeros(3)).all()


def test_nearness_takes_a_permutation_that_is_close():
    """Squares 0 + 4 are less than 2.25 + 2.25, but 2 is farther than 1.5."""
    angle = 2 * np.arcsin(2 / 3)
    a = np.pad([[0.0, 1.5], [0.0, 0.0]], ((0, N - 2), (0, M - 2)))
    w = np.pad([[0.0, 1.5 * np.cos(angle)], [0.0, 1.5 * np.sin(angle)]], ((0, N - 2), (0, M - 2)))
    a[2:4, 2:] = w[2:4, 2:] = 9 * np.eye(2)
    assert_close(aligned(w, a).distances.max(), np.asarray(2.0))
    assert_close(smallest_delta(w, a), np.asarray(1.5))
    deltas = 1.5 + np.array([-1e-12, 1e-12, 0.6])
    assert near(w, a, deltas, np.full(3, 10.0)).tolist() == [False, True, True]


def test_diverged_weights_are_data():
    a = dictionary(0)
    for bad in (np.nan, np.inf):
        w = a.copy()
        w[1, 2] = bad
        assert not np.isfinite(aligned(w, a).error)
        assert np.isnan(smallest_delta(w, a))
    huge = aligned(1e200 * a, a)
    assert not huge.error < 1e199


@pytest.mark.parametrize("function", [align, closeness, lambda w, a: is_near(w, a, 0.1)])
def test_errors(function):
    with pytest.raises(ValueError, match=r"expected both \(n, m\), as many hidden units as atoms"):
        function(np.ones((5, 3)), np.ones((5, 4)))
    with pytest.raises(ValueError, match=r"dictionary has shape \(5,\); expected \(n, m\)"):
        function(np.ones((5, 3)), np.ones(5))
    with pytest.raises(ValueError, match="dictionary holds NaN"):
        function(np.ones((5, 3)), np.full((5, 3), jnp.nan))
