"""Numbers with an exponent of their own: exact where floating point underflows."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled

from ntkflow.systems.saddles.scaled import (
    Scaled,
    from_scaled,
    log_magnitude,
    multiply,
    to_scaled,
)

N = 20000


@compiled
def everything(x):
    """What is tested, as one program for each precision."""
    number = to_scaled(x)
    power = lambda factor: jax.lax.fori_loop(  # noqa: E731
        0, N, lambda _, y: multiply(y, factor), number
    )
    powers = [power(0.7), power(-0.5)]
    return {
        "number": number,
        "back": from_scaled(number),
        "log": log_magnitude(number),
        "powers": powers,
        "underflow": [from_scaled(p) for p in powers],
        "logs": [log_magnitude(p) for p in powers],
        "by zero": multiply(number, 0.0),
        "by nan": from_scaled(multiply(number, jnp.nan)),
        "smallest": multiply(
            Scaled(number.mantissa, jnp.full_like(number.exponent, -(2**31))), 0.1
        ),
    }


@pytest.fixture
def computed(dtype):
    x = np.concatenate([np.random.default_rng(0).normal(size=20), [0.0, -1.0, 1e-30, 3e30]]).astype(
        dtype
    )
    return x, jax.device_get(everything(x))


@pytest.mark.quick
def test_there_and_back_is_exact(computed, dtype):
    x, of = computed
    assert of["number"].mantissa.dtype == dtype
    assert of["number"].exponent.dtype == np.int32
    size = np.abs(of["number"].mantissa)
    assert (((size >= 0.5) & (size < 1)) | (x == 0)).all()
    np.testing.assert_array_equal(of["back"], x)


def test_products_do_not_underflow_and_round_like_floats(computed, dtype):
    """0.7ⁿ for n = 20000 is 2^−10291: the mantissa's error is that of n roundings at most."""
    x, of = computed
    assert (np.concatenate(of["underflow"]) == 0).all()
    rows, number = x != 0, of["number"]
    by_seven, by_half = of["powers"]
    np.testing.assert_array_equal(np.sign(by_seven.mantissa), np.sign(x))
    factor = float(np.asarray(0.7, dtype))  # as it is stored
    change = np.log2(by_seven.mantissa[rows].astype(float) / number.mantissa[rows])
    change += (by_seven.exponent - number.exponent)[rows]
    assert abs(change - N * math.log2(factor)).max() < 2 * N * np.finfo(dtype).eps
    np.testing.assert_array_equal(by_half.mantissa, number.mantissa)
    np.testing.assert_array_equal(by_half.exponent, np.where(rows, number.exponent - N, 0))


def test_zero_stays_zero_and_divergence_stays_divergence(computed):
    x, of = computed
    assert of["powers"][0].exponent[x == 0].tolist() == [0]
    assert of["log"][x == 0].tolist() == [-math.inf]
    assert (of["by zero"].mantissa == 0).all()
    assert (of["by zero"].exponent == 0).all()
    assert np.isnan(of["by nan"]).all()
    # Exponents end at −2³¹ and do not wrap around to the largest numbers.
    assert (of["smallest"].mantissa == 0).all()
    assert (of["smallest"].exponent == 0).all()


def test_the_logarithm_is_that_of_the_magnitude(computed):
    x, of = computed
    rows = x != 0
    assert_close(of["log"][rows], np.log(np.abs(x[rows])))
    assert_close(of["logs"][1][rows], np.log(np.abs(x[rows])) - N * np.log(x.dtype.type(2)))


def test_it_refuses_what_is_not_finite():
    with pytest.raises(ValueError, match="x holds NaN or infinite values"):
        to_scaled(jnp.array([1.0, jnp.nan]))
    assert Scaled._fields == ("mantissa", "exponent")
