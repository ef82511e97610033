import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled, samples

from ntkflow.data import Dataset, split, standardize


def numbered(n):
    return Dataset(jnp.asarray(np.arange(2.0 * n).reshape(n, 2)), jnp.asarray(np.arange(n)))


@pytest.mark.quick
@pytest.mark.parametrize(
    ("n", "fractions", "sizes"),
    [
        (1503, (0.4, 0.2, 0.4), [601, 301, 601]),
        (3, (1 / 3, 1 / 3, 1 / 3), [1, 1, 1]),
        (10, (0.5, 0.2), [5, 2]),
        (10, (1,), [10]),
    ],
)
def test_parts_have_nothing_in_common(n, fractions, sizes):
    parts = compiled(lambda data: split(7, data, fractions))(numbered(n))
    assert [len(part.y) for part in parts] == sizes
    rows = np.concatenate([part.y for part in parts])
    assert len(set(rows.tolist())) == len(rows) == sum(sizes)
    for x, y in parts:
        assert np.array_equal(np.asarray(x)[:, 0], 2 * np.asarray(y))
    assert n < 10 or (np.diff(rows) < 0).any()


def test_a_seed_is_a_key_and_keys_map():
    data = numbered(9)

    def both(key):
        return [split(key, data, (0.5, 0.3))[1].y for key in (key, np.int64(3))]

    keys = jnp.stack([jax.random.key(seed) for seed in (2, 3, 4)])
    of_keys, of_seed = compiled(jax.vmap(both))(keys)
    assert of_keys.shape == (3, 3)
    assert of_keys[1].tolist() == of_seed[0].tolist()
    assert len({tuple(rows.tolist()) for rows in of_keys}) == 3


@pytest.mark.parametrize(
    ("key", "data", "fractions", "message"),
    [
        (0, jnp.ones(3), (0.5,), r"dataset is of type .*; expected a pair \(x, y\)"),
        (0, (jnp.ones((3, 1)), jnp.ones(2)), (0.5,), "Leading axes differ"),
        (0, numbered(9), (), r"fractions is \(\); expected positive"),
        (0, numbered(9), (0.6, 0.5), "sum is at most 1"),
        (0, numbered(9), (0.5, -0.1), "expected positive numbers"),
        (0, numbered(9), 0.5, "fractions is 0.5; expected positive numbers"),
        (0, numbered(9), (0.5, float("nan")), "expected positive numbers"),
        (0, numbered(9), (0.9, 0.01), "The fraction 0.01 of 9 rows holds none"),
        (None, numbered(9), (0.5,), "key is None; expected a PRNG key, or a seed"),
        (1.5, numbered(9), (0.5,), "key is of float; expected one PRNG key"),
        (jax.random.split(jax.random.key(0)), numbered(9), (0.5,), "expected one PRNG key"),
    ],
)
def test_bad_splits(key, data, fractions, message):
    with pytest.raises(ValueError, match=message):
        split(key, data, fractions)


@pytest.mark.quick
def test_the_training_set_standardizes_all(dtype):
    x = np.asarray(samples(0, 20, 3, dtype=dtype)) * 7 + 1000
    y = np.asarray(samples(1, 20, dtype=dtype)) * 5 - 3
    sets = ((x[:12], y[:12]), (x[12:], y[12:]))
    train, test = compiled(standardize)(*sets)
    assert train.x.dtype == test.y.dtype == dtype
    tolerance = 20 * float(jnp.finfo(dtype).eps)  # though the mean is 140 standard deviations
    for scaled in map(np.asarray, (train.x, train.y)):
        np.testing.assert_allclose(np.mean(scaled, axis=0), 0, atol=tolerance)
        np.testing.assert_allclose(np.std(scaled, axis=0), 1, rtol=tolerance)
    # The null predictor's mean squared error.
    np.testing.assert_allclose(np.mean(np.asarray(train.y) ** 2), 1, rtol=tolerance)
    x, y = (np.asarray(a, float) for a in sets[0])
    expected = (np.asarray(sets[1][0], float) - x.mean(axis=0)) / x.std(axis=0)
    np.testing.assert_allclose(test.x, expected, atol=tolerance)
    expected = (np.asarray(sets[1][1], float) - y.mean()) / y.std()
    np.testing.assert_allclose(test.y, expected, atol=tolerance)


def test_constant_columns_and_class_numbers():
    # The mean of 0.1 over seven rows is not 0.1.
    x = np.stack([np.full(7, 0.1), np.arange(7)], axis=1)
    classes = np.array([0, 1, 2, 0, 1, 2, 0])
    sets = (x, classes), (x + 1, classes)
    train, test = compiled(functools.partial(standardize, labels=False))(*sets)
    assert not train.x[:, 0].any()
    assert_close(test.x[:, 0], np.ones(7))
    assert train.y.tolist() == classes.tolist()
    (whole,) = compiled(standardize)((classes[:, None], 1.0 * classes))
    assert_close(whole.x[:, 0], whole.y)


def test_columns_of_any_size(dtype):
    # Their squares are out of range, or the offset is a million times their spread.
    column = np.array([1.0, 3.0, 2.0, 2.0])
    tiny = float(jnp.finfo(dtype).tiny)
    x = np.stack([10 * tiny * column, column / (10 * tiny), 2.0**20 + column], 1).astype(dtype)
    (train,) = compiled(standardize)((x, column.astype(dtype)))
    expected = np.sqrt(2) * (column - 2)
    assert_close(train.x, np.repeat(expected[:, None], 3, axis=1))


def test_what_is_traced_is_no_fraction():
    with pytest.raises(ValueError, match="known before tracing"):
        jax.jit(lambda fraction: split(0, numbered(4), (fraction,)))(0.5)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ((jnp.ones(3),), r"data set 1 is of type .*; expected a pair"),
        ((numbered(3),), r"labels are whole numbers; .* labels=False"),
        ((numbered(3), (jnp.ones((2, 3)), jnp.ones(2))), r"x of shape \(2, 3\) .* same but for"),
        (((jnp.ones((3, 1)), jnp.ones(2)),), "Leading axes differ"),
        (((jnp.full((3, 1), jnp.nan), jnp.ones(3)),), "NaN or infinite"),
    ],
)
def test_bad_sets(sets, message):
    with pytest.raises(ValueError, match=message):
        standardize(*sets)
