import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkflow import checks


@pytest.mark.parametrize("value", [0, -1, 1.5, "3", None, True])
def test_positive_int_names_what_it_got(value):
    with pytest.raises(ValueError, match=r"steps is .* whole number greater than 0"):
        checks.positive_int("steps", value)


def test_positive_int_takes_numpy_integers():
    assert checks.positive_int("steps", np.int64(3)) == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_finite_names_the_place(bad):
    tree = {"a": jnp.ones(2), "b": [np.array([[1.0, bad]])]}
    with pytest.raises(
        ValueError, match=r"data\['b'\]\[0\] .* 1 of 2, the first at index \(0, 1\)"
    ):
        checks.finite("data", tree)


def test_finite_reads_no_values_under_a_trace_but_those_that_are_concrete():
    jax.jit(lambda x: checks.finite("x", x))(jnp.array([jnp.nan]))

    constant = jnp.array([jnp.nan])
    with pytest.raises(ValueError, match="x holds NaN"):
        jax.jit(lambda y: checks.finite("x", constant) or y)(1.0)


def test_same_length_lists_the_lengths():
    with pytest.raises(ValueError, match="x has 3, y has 2"):
        checks.same_length(x=np.ones((3, 1)), y=np.ones(2))
    with pytest.raises(ValueError, match="x hold no samples"):
        checks.same_length(x=np.ones((0, 1)))
    with pytest.raises(ValueError, match="y is a scalar"):
        checks.same_length(y=1.0)


def test_matrix_says_how_to_make_one():
    with pytest.raises(ValueError, match=r"x has shape \(3,\).* x\[None, :\]"):
        checks.matrix("x", np.ones(3))
    with pytest.raises(ValueError, match="at least one sample"):
        checks.matrix("x", np.ones((0, 3)))
    assert checks.matrix("x", np.ones((2, 3), int)).dtype == jnp.float64


@pytest.mark.parametrize("name", ["threefry2x32", "rbg"])
def test_keys_of_both_styles_pass(name):
    checks.prng_key(None)
    checks.prng_key(jax.random.key(0, impl=name))
    checks.prng_key(jax.random.PRNGKey(0, impl=name))
    jax.vmap(checks.prng_key)(jax.random.split(jax.random.key(0, impl=name), 3))


@pytest.mark.parametrize("key", [0, np.zeros(2), jax.random.split(jax.random.key(0), 2), {}])
def test_what_is_no_key_is_named(key):
    with pytest.raises(ValueError, match=r"key is of .*; expected one PRNG key"):
        checks.prng_key(key)


@pytest.mark.parametrize("function", [jax.nn.softmax, jnp.sort, jnp.cumsum, jax.nn.glu])
def test_what_runs_along_an_axis_is_not_elementwise(function):
    with pytest.raises(ValueError, match=r"phi .* expected an elementwise function"):
        checks.elementwise("phi", function)
    checks.elementwise("phi", jax.nn.selu)
