"""Weights that a network lays side by side, for a loop that takes them apart again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import compiled

from ntkflow.kernels import empirical_ntk
from ntkflow.kernels.structured.entrances import entrances, traced

WIDTH = 5


def scanned(params, x):
    stacked = jnp.stack([params["b"], params["a"]])
    h, _ = jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, stacked)
    return h.sum(axis=1)


def cut(params, x):
    """Side by side along an axis that they have, and cut elsewhere than they were joined."""
    joined = jnp.concatenate([params["a"], jnp.ones((1, WIDTH)), params["b"]])
    first, second = joined[: WIDTH - 1], joined[WIDTH + 1 :: 2]
    return jnp.tanh(jnp.tanh(x @ first.T) @ second[:, :-1].T).sum(axis=1)


def summed(params, x):
    """Used as one array."""
    return jnp.tanh(jnp.einsum("nd,kde->nke", x, jnp.stack([params["a"], params["b"]]))).sum((1, 2))


def across(params, x):
    """A slice that two of them share."""
    joined = jnp.concatenate([params["a"], params["b"]])
    return jnp.tanh(x @ joined[2 : 2 + WIDTH]).sum(axis=1)


@pytest.fixture(scope="module")
def params():
    keys = jax.random.split(jax.random.key(0))
    return {
        name: jax.random.normal(key, (WIDTH, WIDTH)) for name, key in zip("ab", keys, strict=True)
    }


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(1), (3, WIDTH))


@pytest.mark.parametrize("apply", [scanned, cut, summed, across])
def test_agrees_with_jacobians(apply, params, x):
    for trainable in (None, lambda path: path == ("a",)):
        kernels = [
            empirical_ntk(apply, trainable=trainable, method=method)
            for method in ("auto", "jacobian")
        ]
        own, reference = compiled(lambda *of: [kernel(*of) for kernel in kernels])(params, x)
        np.testing.assert_allclose(own, reference, rtol=1e-12)


@pytest.mark.parametrize(
    ("apply", "followed"), [(scanned, True), (cut, True), (summed, False), (across, False)]
)
def test_parts_are_followed_and_the_whole_is_not(apply, followed, params, x):
    names = sorted(params)

    def function(leaves, x):
        return apply(dict(zip(names, leaves, strict=True)), x)

    program = traced(function, [params[name] for name in names], x[:1])
    assert [own is not None for own in entrances(program).places] == [followed] * 2
