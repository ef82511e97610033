"""Entries of one random array that meet each other: kernels by hand, and refusals."""

from collections.abc import Callable

import flax.linen as nn
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkflow.kernels import infinite_width
from ntkflow.layers import Dense

X = np.random.default_rng(0).normal(size=(3, 4))
TOKENS = np.array([0, 1, 1])


def drawn(*shape):
    return lambda key, x: jax.random.normal(key, shape)


# Functions of the rows e of a table, (n, 2, 2), and the variance of each.
ROWS = {
    "mirrored entries": (lambda e: e[:, 1, 0] - e[:, 0, 1], 2.0),
    "flattened": (lambda e: e.reshape(-1, 4)[:, 1] + 2 * e[:, 1, 0], 5.0),
    "transposed": (lambda e: e.mT[:, 0, 1] + 2 * e[:, 1, 0], 9.0),
    "split": (lambda e: e.reshape(-1, 4)[:, :2] + e[:, 0], 4.0),
}


@pytest.mark.parametrize("name", ROWS)
def test_entries_of_rows_know_which_they_are(name):
    function, variance = ROWS[name]
    found = infinite_width((drawn(5, 2, 2), lambda table, x: function(table[x])))(TOKENS)
    equal = TOKENS[:, None] == TOKENS
    helpers.assert_close(found.nngp, variance * equal)
    helpers.assert_close(found.ntk, variance * equal)


@pytest.mark.quick
def test_entries_of_parameters_know_which_they_are():
    inputs = np.outer(X[:, 0], X[:, 0])
    for function, variance in (
        (lambda w: w[1, 0] - w[0, 1], 2.0),
        (lambda w: w.reshape(4)[1] + w[0, 1], 4.0),
    ):
        network = (drawn(2, 2), lambda w, x: x[:, 0] * function(w))
        found = infinite_width(network)(X)
        helpers.assert_close(found.nngp, variance * inputs)
        helpers.assert_close(found.ntk, variance * inputs)


def mirrored(rows):
    return rows * rows.mT


def gate(x):
    return x[:, :1, None]


MEETINGS = {
    "rows": (drawn(5, 3, 3), lambda table, x: mirrored(table[x]), TOKENS),
    "a matrix": (drawn(3, 3), lambda w, x: (gate(x) * (w + w.T)[None]).reshape(len(x), -1), X),
    "a vector": (
        drawn(3),
        lambda w, x: (gate(x) * (w[:, None] + w[None])[None]).reshape(len(x), -1),
        X,
    ),
}


@pytest.mark.parametrize("name", MEETINGS)
def test_entries_that_meet_others_of_their_array_are_refused(name):
    init, apply, x = MEETINGS[name]
    with pytest.raises(ValueError, match="meet other channels of the same"):
        infinite_width((init, apply))(x)


class Masked(nn.Module):
    """Dropout written out from the bits: without the scale, and with bits as numbers."""

    keep: float = 0.75

    @nn.compact
    def __call__(self, x):
        h = Dense(8)(x)
        bits = jax.random.bits(self.make_rng("dropout"), h.shape, jnp.uint32)
        return Dense(1)(jnp.where(bits.astype(float) * 2.0**-32 < self.keep, h, 0))


def test_bits_that_are_read_as_numbers_are_followed():
    found = infinite_width(Masked())(X).nngp
    share = np.where(np.eye(3), 0.75, 0.75**2)
    helpers.assert_close(found, share * (X @ X.T) / 4)


def test_layers_of_dropout_keep_their_own_rates():
    rates = (0.5, 0.25)
    layers = [layer for r in rates for layer in (Dense(8), nn.Dropout(r, deterministic=False))]
    found = infinite_width(nn.Sequential([*layers, Dense(1)]))(X).nngp
    share = np.where(np.eye(3), 1 / 0.5 / 0.75, 1)
    helpers.assert_close(found, share * (X @ X.T) / 4)


class Score(nn.Module):
    """A sum of products over channels, Gaussian in the limit, and what is made of it."""

    function: Callable

    @nn.compact
    def __call__(self, x):
        queries, keys = Dense(64)(x), Dense(64)(x)
        return self.function((queries * keys).sum(1, keepdims=True) / 8)


def test_one_sum_over_channels_with_two_factors():
    plain = infinite_width(Score(lambda s: s))(X)
    helpers.assert_close(plain.nngp, (X @ X.T / 4) ** 2)
    both = infinite_width(Score(lambda s: s - 3 * s))(X)
    for found, expected in zip(both, plain, strict=True):
        helpers.assert_close(found, 4 * expected)
