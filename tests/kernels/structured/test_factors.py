"""Products of factors against `einsum`, in whatever order they are taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled, samples

from ntkflow.kernels.structured.factors import Factor, OneHot, multiply

LENGTHS = dict(zip("ijabstkfg", (3, 2, 2, 3, 4, 2, 5, 3, 2), strict=True))
PRODUCTS = {
    "dense": ("ik iaf jk jbf", "iajb"),
    "bias": ("iaf jbf", "iajb"),
    "positions": ("isk iasf jtk jbtf", "iajb"),
    "groups": ("isgk iasgf jtgk jbtgf", "iajb"),
    "tied": ("ik iaf jf jbk", "iajb"),
    "scale": ("isf iasf jtf jbtf", "iajb"),
    "trace": ("ik iaf jk jaf", "ij"),
    "diagonal": ("isk iasf jtk jatf", "aij"),
    "each sample": ("isk iasf itk ibtf", "iab"),
    "one for all samples": ("k iaf k jbf", "iajb"),
    "an axis of one factor alone": ("iks iaf jk jbf", "iajb"),
}


@pytest.mark.quick
@pytest.mark.parametrize("name", PRODUCTS)
def test_product_is_the_sum_over_all_other_axes(name):
    inputs, keep = PRODUCTS[name]
    words = inputs.split()
    arrays = [samples(n, *(LENGTHS[c] for c in word)) for n, word in enumerate(words)]
    expected = np.einsum(",".join(words) + "->" + keep, *arrays)
    orders = [frozenset({(0, 1), (2, 3)}), frozenset({(0, 2), (1, 3)})] if len(words) > 2 else []

    @compiled
    def compute(arrays):
        factors = _named(arrays, words)
        return [multiply(factors, tuple(keep), apart) for apart in (frozenset(), *orders)]

    for found in compute(arrays):
        assert_close(found, expected)


def _named(arrays, words):
    return [Factor(array, tuple(word)) for array, word in zip(arrays, words, strict=True)]


@pytest.mark.parametrize("other", ["jtv", "vtj", "iajbv", "jb"])
def test_one_hot_factors_are_compared_or_written_out(other):
    rng = np.random.default_rng(0)
    places = jnp.asarray(rng.integers(-1, 5, size=(3, 4)))  # -1 is no place
    rows = OneHot(Factor(places, ("i", "s")), "v", 5, jnp.float64)
    lengths = {**LENGTHS, "v": 5}
    right = Factor(samples(1, *(lengths[c] for c in other)), tuple(other))
    dense = jax.nn.one_hot(places, 5)
    keep = tuple(dict.fromkeys("i" + other.replace("v", "").replace("t", "")))
    expected = np.einsum(f"isv,{other}->{''.join(keep)}", dense, right.array)
    # The factors hold their arrays: they are constants of the programs.
    assert_close(compiled(lambda: multiply([rows, right], keep))(), expected)
    both = OneHot(Factor(places[:2], ("j", "t")), "v", 5, jnp.float64)
    equal = compiled(lambda: multiply([rows, both], ("i", "s", "j", "t")))()
    assert_close(equal, np.einsum("isv,jtv->isjt", dense, dense[:2]))
