"""Hermite coefficients: a table of reference values, identities, and any scale."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled
from scipy import special

from ntkflow.kernels.hermite import hermite_coefficients, hermite_norm, hermite_tail

gelu = functools.partial(jax.nn.gelu, approximate=False)


# c_0 to c_6, c_8, c_∞² and E[φ²], computed with 40 digits by mpmath; ELU's to 4 digits at the end.
TABLE = {
    "gelu": (
        gelu,
        (0.2820948, 0.5, 0.4231422, 0, -0.3526185, 0, 0.7404988, -2.380175),
        (0.0956440, 0.4252215),
    ),
    "tanh": (
        jnp.tanh,
        (0, 0.6057055, 0, -0.3635954, 0, 0.6851738, 0, 0),
        (0.0274153, 0.3942945),
    ),
    "elu": (
        jax.nn.elu,
        (0.1605206, 0.7615783, 0.2615783, -0.137364, -0.137364, 0.2615783, 0.2615783, -0.9352485),
        (),
    ),
}


@functools.cache
def measured(name, dtype):
    """c_0 to c_8, c_∞² and E[φ²]."""
    phi = TABLE[name][0]
    coefficients, tail, norm = compiled(
        lambda s: (hermite_coefficients(phi, 9, s), hermite_tail(phi, 2, s), hermite_norm(phi, s))
    )(jnp.ones((), dtype))
    assert coefficients.dtype == tail.dtype == norm.dtype == dtype
    return np.asarray(coefficients), float(tail), float(norm) ** 2


@pytest.mark.quick
@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, "float64") for name in TABLE), ("gelu", "float32")],
)
def test_reference_table(name, dtype):
    _, expected, sums = TABLE[name]
    coefficients, *found = measured(name, dtype)
    tolerance = 6e-7 if dtype == "float64" else 3e-6  # the table has six or seven digits
    np.testing.assert_allclose(
        coefficients[[*range(7), 8][: len(expected)]], expected, 0, tolerance
    )
    np.testing.assert_allclose(found[: len(sums)], sums, rtol=0, atol=1e-7)


def test_closed_forms():
    """To rounding: GELU's c_0 and c_2; ELU's c_1 = E[φ'], and c_i of eᶻ 1{z < 0} by parts."""
    coefficients, *_ = measured("gelu", "float64")
    root = math.sqrt(math.pi)
    assert_close(coefficients[:3], np.array([1 / (2 * root), 0.5, 3 / (4 * root)]), factor=8)
    coefficients, tail, norm = measured("elu", "float64")
    below = math.exp(0.5) * special.ndtr(-1)  # E[eᶻ 1{z < 0}]
    density = 1 / math.sqrt(2 * math.pi)
    assert_close(coefficients[0], density + below - 0.5, factor=8)
    assert_close(coefficients[1], 0.5 + below, factor=8)
    # E[φ' He_i] is the next one: of eᶻ 1{z < 0} + 1{z > 0}, by parts.
    assert_close(coefficients[2], below, factor=8)
    assert_close(norm, 0.5 + math.exp(2) * special.ndtr(-2) - 2 * below + 0.5, factor=8)
    assert_close(tail, norm - coefficients[0] ** 2 - coefficients[1] ** 2, factor=32, scale=norm)


BROKEN = {
    "relu(z − 1)": (lambda z: jax.nn.relu(z - 1), lambda z: np.maximum(z - 1, 0), (1.0,)),
    "tanh": (jnp.tanh, np.tanh, (0.0,)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_any_scale_against_a_dense_rule(name):
    """Geometric panels around each break, some 20 times as many nodes; i up to 64."""
    phi, by_numpy, breaks = BROKEN[name]
    scales, terms = np.array([0.3, 1.0, 10.0, 100.0]), 65
    found = compiled(lambda s: hermite_coefficients(phi, terms, s, normalized=True))(scales)
    assert found.shape == (terms, 4)
    nodes, weights = np.polynomial.legendre.leggauss(24)
    steps = np.geomspace(1e-7, 20, 300)
    for scale, column in zip(scales, np.asarray(found).T, strict=True):
        cuts = [b / scale + s * steps for b in breaks for s in (-1, 1)]
        cuts = np.unique(np.clip(np.concatenate([[0.0], np.array(breaks) / scale, *cuts]), -13, 13))
        half = np.diff(cuts)[:, None] / 2
        z = (cuts[:-1, None] + half * (1 + nodes)).ravel()
        weighted = (half * weights).ravel() * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
        weighted = weighted * by_numpy(scale * z)
        before, current, expected = 0 * z, 1 + 0 * z, []
        for i in range(terms):
            expected.append(weighted @ current)
            before, current = current, (z * current - i**0.5 * before) / (i + 1) ** 0.5
        size = np.sqrt(np.sum(weighted * by_numpy(scale * z)))
        np.testing.assert_allclose(column, expected, rtol=0, atol=1e-14 * size)


def test_derivative_by_the_scale():
    """s dc_i/ds = c_{i+2} + i c_i, as z He_i = He_{i+1} + i He_{i−1}; the kink's place moves."""
    phi, terms, scale = BROKEN["relu(z − 1)"][0], 6, jnp.array(1.7)
    coefficients, slopes = compiled(
        lambda s: jax.jvp(lambda s: hermite_coefficients(phi, terms + 2, s), (s,), (s,))
    )(scale)
    i = np.arange(terms)
    assert_close(slopes[:terms], coefficients[2:] + i * coefficients[:terms], factor=1000)


def test_printed_norm_diverges_and_the_corrected_one_is_the_second_moment():
    """Σ c_i² to i = 12 is 3.0e3 for GELU and grows; Σ c_i²/i! meets E[φ²] from below."""
    printed, terms = (
        np.asarray(found) ** 2
        for found in compiled(
            lambda: (
                hermite_norm(gelu, printed=True, terms=31),
                hermite_coefficients(gelu, 31, normalized=True),
            )
        )()
    )
    assert round(printed[12], -2) == 3000
    assert (printed[14::4] > 20 * printed[10:-4:4]).all()
    _, tail, norm = measured("gelu", "float64")
    sums = np.cumsum(terms)
    assert (sums <= norm + 1e-15).all()
    assert norm - sums[-1] < 1e-4
    assert sums[1] + tail == pytest.approx(norm, rel=1e-14)


class Line:
    """2z + ½, a function without a hash."""

    __hash__ = None

    def __call__(self, z):
        return 2 * z + 0.5


def test_a_scale_of_zero_leaves_the_constant():
    """And the slope of the norm, a root, is finite there; no scales have no coefficients."""

    @compiled
    def found(scales):
        slope = jax.grad(lambda s: hermite_norm(jnp.tanh, s))(scales[0])
        return hermite_coefficients(Line(), 3, scales), slope

    coefficients, slope = found(jnp.arange(2.0))
    assert_close(coefficients, np.array([[0.5, 0, 0], [0.5, 2, 0]]).T)
    assert np.isfinite(slope)
    empty = jax.eval_shape(lambda s: hermite_coefficients(jnp.tanh, 4, s), jnp.zeros((0, 2)))
    assert empty.shape == (4, 0, 2)


def test_half_precision_is_summed_in_single():
    """In bfloat16 the sums of an odd function were 1e-4, those of high orders wrong by 2e-3."""
    scale = jnp.bfloat16(1)
    found, tail = compiled(
        lambda s: (
            hermite_coefficients(jnp.tanh, 20, s, normalized=True),
            hermite_tail(jnp.tanh, 2, s),
        )
    )(scale)
    assert found.dtype == tail.dtype == scale.dtype
    assert (abs(np.asarray(found[::2], float)) < 1e-6).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((jnp.sum, 3), "phi turns an array of shape"),
        ((jnp.tanh, 0), "terms is 0; expected a whole number greater than 0"),
        ((jnp.tanh, 3, -1.0), "scale is -1.0; expected a standard deviation, 0 or greater"),
        ((jnp.tanh, 3, jnp.nan), "scale holds NaN"),
        ((jnp.tanh, 3, 1j), "scale is 1j; expected a real standard deviation"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        hermite_coefficients(*arguments)


def test_start_of_the_tail_is_checked():
    with pytest.raises(ValueError, match="start is -1"):
        hermite_tail(jnp.tanh, -1)
