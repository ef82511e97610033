"""Equal values have equal fingerprints, and what holds other values has another one."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import MLP

from ntkflow.fingerprint import contents
from ntkflow.kernels.empirical import empirical_ntk


def closure(value):
    return jax.jit(lambda x: x + value)


@pytest.mark.quick
@pytest.mark.parametrize(
    "make",
    [
        lambda v: np.full(3, v),
        lambda v: {"a": jnp.full((2, 2), float(v), jnp.bfloat16)},
        lambda v: jax.random.key(v),
        lambda v: closure(v),
        lambda v: functools.partial(max, v),
        lambda v: MLP(v).apply,
        lambda v: empirical_ntk(MLP(v).apply),
        lambda v: (v, "text", None),
    ],
)
def test_equal_exactly_where_the_values_are(make):
    assert contents(make(1)) == contents(make(1)) != contents(make(2))


def test_shape_dtype_and_place_count():
    values = [np.zeros(2), np.zeros((1, 2)), np.zeros(2, "float32"), np.zeros(2, int)]
    trees = [*values, {"a": values[0]}, {"b": values[0]}, -values[0]]
    for one, other in itertools.combinations(trees, 2):
        assert contents(one) != contents(other)


def test_whatever_the_layout_in_memory():
    x = np.arange(6.0).reshape(2, 3)
    assert contents(x) == contents(np.asfortranarray(x)) == contents(x.T.copy().T)
    assert contents(np.float64(3)) == contents(np.array(3.0))
