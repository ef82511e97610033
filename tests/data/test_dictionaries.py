"""Dictionaries: incoherence by its definition, reached as asked, refused where impossible."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled

from ntkflow.data.dictionaries import incoherence, random_dictionary


def key(seed):
    return jax.random.key(seed)


@pytest.mark.quick
def test_incoherence_is_definition_1(dtype):
    a = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), dtype)
    columns = np.asarray(a).T
    largest = max(abs(u @ v) for u, v in itertools.combinations(columns, 2))
    assert_close(compiled(incoherence)(a), np.asarray(6**0.5 * largest, dtype))


def test_one_atom_is_incoherent():
    assert compiled(incoherence)(np.ones((3, 1))) == 0


CASES = [
    (5, 5, 0.4, "float32"),
    (5, 5, 0.0, "float64"),
    (6, 9, 0.9, "float64"),
    (2, 3, 0.72, "float32"),  # three lines at 60°, μ = √2/2 = 0.707, are the best there are
]


def drawn(k, cases):
    return [random_dictionary(k, n, m, incoherence=mu, dtype=dtype) for n, m, mu, dtype in cases]


def test_incoherence_is_bounded_as_asked():
    for a, (n, m, mu, dtype) in zip(
        compiled(lambda k: drawn(k, CASES))(key(0)), CASES, strict=True
    ):
        assert a.shape == (n, m)
        assert a.dtype == dtype
        a = np.asarray(a)
        assert_close(np.linalg.norm(a, axis=0), np.ones(m, dtype))
        gram = a.T @ a - np.eye(m, dtype=dtype)
        assert n**0.5 * np.abs(gram).max() <= mu + 50 * jnp.finfo(dtype).eps


def test_a_bound_that_the_draw_meets_changes_nothing():
    shapes = [(5, 5), (6, 9)]
    cases = [(n, m, mu, "float64") for n, m in shapes for mu in (None, n**0.5)]
    square, bounded_square, wide, bounded_wide = compiled(lambda k: drawn(k, cases))(key(0))
    assert_close(bounded_square, square)
    assert_close(bounded_wide, wide)


def test_columns_without_normalization():
    n, m = 20, 400
    plain, literal, unit = compiled(
        lambda k: [
            random_dictionary(k, n, m, normalize=False, dtype="float32"),
            random_dictionary(k, n, m, normalize=False, std=n**-0.25, dtype="float32"),
            random_dictionary(k, n, m, dtype="float32"),
        ]
    )(key(0))
    assert plain.dtype == "float32"
    plain = np.asarray(plain)
    assert abs(n * (plain**2).mean() - 1) < 4 * (2 / plain.size) ** 0.5
    assert_close(literal, (n**0.25 * plain).astype("float32"))
    assert_close(unit, plain / np.linalg.norm(plain, axis=0))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: random_dictionary(key(0), 0, 2), "n is 0; expected"),
        (lambda: random_dictionary(key(0), 2, 3, incoherence=0.7), "at least 0.7071, the Welch"),
        (lambda: random_dictionary(key(0), 3, 2, incoherence=-1.0), "at least 0, the Welch"),
        (lambda: random_dictionary(key(0), 3, 2, incoherence=[1, 2]), "known before tracing"),
        (
            lambda: jax.jit(lambda mu: random_dictionary(key(0), 3, 2, incoherence=mu))(1.0),
            "known before tracing",
        ),
        (lambda: random_dictionary(key(0), 2, 4, incoherence=0.9), "was not reached in"),
        (lambda: random_dictionary(key(0), 2, 3, incoherence=1.0, normalize=False), "normalize="),
        (lambda: random_dictionary(key(0), 2, 3, std=1.0), "columns are normalized"),
        (lambda: incoherence(np.ones(3)), "dictionary has shape"),
    ],
)
def test_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()
