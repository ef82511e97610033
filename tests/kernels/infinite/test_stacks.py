"""Weights stacked for a loop over layers give the kernels of the same layers written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import compiled

from ntkflow import infinite_width

WIDTH, DEPTH = 8, 3


def init(key, x):
    keys = jax.random.split(key, DEPTH + 2)
    shapes = [(x.shape[1], WIDTH), *[(WIDTH, WIDTH)] * DEPTH, (WIDTH, 1)]
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


def layer(h, w):
    return h + jnp.tanh(h @ w) / WIDTH**0.5


def written_out(params, x):
    first, *hidden, last = params
    h = x @ first
    for w in hidden:
        h = layer(h, 0.5 * w)
    return h @ last


def scanned(params, x):
    first, *hidden, last = params
    scaled = 0.5 * jnp.stack(hidden)
    h, _ = jax.lax.scan(lambda h, w: (layer(h, w), None), x @ first, scaled)
    return h @ last


def taken_apart(params, x):
    first, *hidden, last = params
    h = x @ first
    for w in jnp.concatenate([w[None] for w in hidden]):
        h = layer(h, 0.5 * w)
    return h @ last


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(0), (3, 4))


@pytest.fixture(scope="module")
def expected(x):
    return compiled(infinite_width((init, written_out)))(x)


@pytest.mark.parametrize("apply", [scanned, taken_apart])
def test_stacked_weights_are_those_of_the_layers(apply, x, expected):
    kernels = compiled(infinite_width((init, apply)))(x)
    for own, other in zip(kernels, expected, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-12)


def test_a_layer_of_a_stack_is_trained_alone(x):
    applies = scanned, written_out
    kernels = [infinite_width((init, f), trainable=lambda p: p == ("3",)) for f in applies]
    own, other = compiled(lambda x: [kernel(x).ntk for kernel in kernels])(x)
    np.testing.assert_allclose(own, other, rtol=1e-12)


def test_a_stack_that_is_used_as_one_array_stays_one(x):
    """An embedding for each position: one parameter each, stacked, or one array for all."""

    def init_rows(key, x):
        keys = jax.random.split(key, 3 + x.shape[1])
        rows = [jax.random.normal(k, (WIDTH,)) for k in keys[3:]]
        return jax.random.normal(keys[0], (1, WIDTH)), rows, jax.random.normal(keys[1], (WIDTH, 1))

    def init_table(key, x):
        first, rows, last = init_rows(key, x)
        return first, jax.random.normal(key, (len(rows), WIDTH)), last

    def apply(params, x):
        first, table, last = params
        table = jnp.stack(table) if isinstance(table, list) else table
        h = jnp.tanh(x[:, :, None] @ first + table[None])
        return h.mean(axis=1) @ last

    kernels = [infinite_width((f, apply)) for f in (init_rows, init_table)]
    rows, table = compiled(lambda x: [kernel(x) for kernel in kernels])(x)
    for own, other in zip(rows, table, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-12)


def test_the_same_stack_cannot_serve_two_loops(x):
    def apply(params, x):
        first, *hidden, last = params
        h = x @ first
        for _ in range(2):
            h, _ = jax.lax.scan(lambda h, w: (layer(h, w), None), h, jnp.stack(hidden))
        return h @ last

    with pytest.raises(ValueError, match="tied or recurrent weights"):
        infinite_width((init, apply))(x)
