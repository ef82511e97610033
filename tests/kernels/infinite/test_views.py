import itertools

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from ntkflow.kernels.infinite import views
from ntkflow.kernels.infinite.views import View


def samples(seed, *shape):
    """Drawn by NumPy: no program is compiled for each shape."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


# Equal and all positions, of each sample with itself and of all pairs.
VIEWS = [View(0, 1, paired, full) for paired in (True, False) for full in (True, False)]
P, Q = (2, 3), (2, 3)


def outer(view, x, y):
    """x(i, p) y(j, q) in the axes of the view, entry by entry."""
    n = (len(x),) if view.paired else (len(x), len(y))
    shape = (*n, *P, *Q) if view.full else (*n, *P)
    result = np.zeros(shape)
    for index in np.ndindex(shape):
        s, rest = index[: view.samples], index[view.samples :]
        result[index] = x[(s[0], *rest[:2])] * y[(s[-1], *rest[-2:])]
    return result


@pytest.mark.parametrize("view", VIEWS)
def test_numbers_of_left_and_right_samples_multiply_to_moments(view):
    x, y = samples(0, 4, *P), samples(1, 4 if view.paired else 3, *Q)
    found = views.product([views.left(view, x, 2), views.right(view, y, 2)])
    helpers.assert_close(found, outer(view, np.asarray(x), np.asarray(y)))


def test_zeros_stand_as_none():
    view, x = VIEWS[0], samples(7, 2, 3)
    assert views.left(view, None, 1) is None
    assert views.right(view, None, 1) is None
    assert views.swap(view, None, 1, 1) is None
    assert views.diagonal(view, None, (2,), (2,)) is None
    assert views.total([]) is None
    assert views.total([None, None]) is None
    assert_array_equal(views.total([x, None, x]), 2 * np.asarray(x))
    assert views.product([x, None]) is None
    assert_array_equal(views.product([x, x]), np.asarray(x) ** 2)
    assert views.scaled(0.0, x) is None
    assert views.scaled(2.0, None) is None
    assert views.scaled(1.0, x) is x
    assert_array_equal(views.scaled(-2.0, x), -2 * np.asarray(x))


def test_variances_are_of_each_sample_with_itself():
    assert views.own(1) == View(1, 1, paired=True, full=False)
    assert [view.samples for view in VIEWS] == [1, 1, 2, 2]


@pytest.mark.parametrize("paired", [True, False])
def test_swap_exchanges_positions(paired):
    view = View(0, 0, paired, full=True)
    shape = (3,) if paired else (3, 4)
    x = samples(2, *shape, 2, 5, 6)  # positions (2,) and (5, 6)
    assert_array_equal(views.swap(view, x, 1, 2), np.moveaxis(x, len(shape), -1))


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(
    ("first", "second"),
    [((3,), (3,)), ((2, 3), (2, 3)), ((1, 3), (2, 3)), ((2, 3), (2, 1)), ((2, 1), (1, 3))],
)
def test_diagonal_takes_equal_positions(paired, first, second):
    view = View(0, 0, paired, full=True)
    shape = (2,) if paired else (2, 4)
    x = samples(3, *shape, *first, *second)
    common = np.broadcast_shapes(first, second)
    found, x = np.asarray(views.diagonal(view, x, first, second)), np.asarray(x)
    assert found.shape == (*shape, *common)
    for position in np.ndindex(common):
        left, right = (
            tuple(0 if n == 1 else p for p, n in zip(position, sizes, strict=True))
            for sizes in (first, second)
        )
        assert_array_equal(found[(..., *position)], x[(..., *left, *right)])


def test_diagonal_fills_up_what_is_constant_along_positions():
    x = samples(4, 2, 1, 3)  # constant along the first position, of size 3
    found = views.diagonal(View(0, 0, paired=True, full=True), x, (3,), (3,))
    assert_array_equal(found, np.asarray(x)[:, 0])


@pytest.mark.parametrize("view", VIEWS)
def test_equal_positions_and_samples_are_indicators(view):
    positions = np.asarray(views.equal_positions(view, P, "float64"))
    positions = np.broadcast_to(positions, (1,) * view.samples + (P + P if view.full else P))
    for index in np.ndindex(positions.shape):
        p = index[view.samples :]
        assert positions[index] == (not view.full or p[:2] == p[2:])
    equal = np.asarray(views.equal_samples(view, 3, (2, 2), "float64"))
    assert equal.ndim == view.samples + (4 if view.full else 2)
    expected = [1.0] if view.paired else np.eye(3)
    assert_array_equal(equal.reshape(equal.shape[: view.samples]), expected)


@pytest.mark.quick
@pytest.mark.parametrize("view", VIEWS)
def test_variances_replace_what_meets_itself(view):
    n = (3,) if view.paired else (3, 3)
    x = np.zeros((*n, 2, 2) if view.full else (*n, 2))
    found = np.asarray(views.exact_diagonal(view, jnp.asarray(x), jnp.asarray(x + 1), 1))
    for index in np.ndindex(x.shape):
        s, p = index[: view.samples], index[view.samples :]
        assert found[index] == (len(set(s)) == 1 and len(set(p)) == 1)


def test_variances_do_not_replace_pairs_of_two_data_sets():
    x = samples(8, 2, 3)
    assert views.exact_diagonal(View(0, 1, paired=False, full=False), x, x + 1, 0) is x


def test_stored_arrays_are_the_arrays():
    x, y = samples(5, 3), samples(6, 2, 2)
    for given, found in zip((x, y), jax.jit(views.stored)(False, x, y), strict=True):
        assert_array_equal(found, given)
    assert all(np.isnan(a).all() for a in views.stored(jnp.array(True), x, y))
    slope = jax.grad(lambda x: views.stored(jnp.array(False), x**2)[0].sum())(x)
    helpers.assert_close(slope, 2 * x)


def test_axes_that_do_not_fit_are_not_broadcast():
    combinations = itertools.combinations([jnp.ones(3), jnp.ones((3, 1)), jnp.ones((1, 3, 1))], 2)
    for pair in combinations:
        with pytest.raises(AssertionError):
            views.total(pair)
