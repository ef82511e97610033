"""Random filters and Gabor's, as pictures and as what the network convolves with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from helpers import assert_close, compiled, samples

from ntkflow.data.patches import image_patches
from ntkflow.systems.convolutional_filter.filters import gabor_filter, random_filter
from ntkflow.systems.convolutional_filter.network import predict

gabor = compiled(gabor_filter, static_argnums=0, static_argnames="dtype")


def test_random_entries_are_standard_normal(dtype):
    drawn = np.asarray(random_filter(jax.random.key(1), 100, dtype))
    assert drawn.shape == (10_000,)
    assert drawn.dtype == dtype
    assert abs(drawn.mean()) < 4 / 100
    assert abs(np.square(drawn).mean() - 1) < 4 * np.sqrt(2) / 100
    assert abs((np.abs(drawn) < 0.6744898).mean() - 0.5) < 4 * 0.5 / 100  # the quartiles


@pytest.mark.quick
def test_a_gabor_filter_is_its_formula_pixel_by_pixel(dtype):
    size, wavelength, orientation, phase, sigma, aspect = 4, 3.1, 0.4, 0.7, 1.3, 0.6
    expected = np.empty((size, size))
    for row in range(size):
        for column in range(size):
            at = complex(column - 1.5, row - 1.5) * np.exp(-1j * orientation)
            distance = at.real**2 + (aspect * at.imag) ** 2
            wave = np.cos(2 * np.pi * at.real / wavelength + phase)
            expected[row, column] = np.exp(-distance / (2 * sigma**2)) * wave
    drawn = gabor(size, wavelength, orientation, phase, sigma, aspect, dtype=dtype)
    assert drawn.dtype == dtype
    drawn = np.asarray(drawn)
    assert_close(drawn.reshape(size, size), expected.astype(dtype))


def test_stripes_are_turned_by_the_orientation_and_mirrored_by_the_phase():
    def picture(orientation, phase):
        return np.asarray(gabor(5, 3.0, orientation, phase)).reshape(5, 5)

    upright = picture(0.0, 0.0)
    assert_close(upright, upright[::-1])  # stripes run down
    assert abs(upright[2, 2] - 1) < 1e-15
    assert upright[2, 1] < 0 < upright[1, 2]
    assert_close(picture(np.pi / 2, 0.0), upright.T)
    assert_close(picture(0.3, 0.0), picture(np.pi / 2 - 0.3, 0.0).T)
    even, odd = picture(0.3, 0.0), picture(0.3, np.pi / 2)
    assert_close(even, even[::-1, ::-1])
    assert_close(odd, -odd[::-1, ::-1])
    assert np.abs(odd).max() > 0.1


def test_the_default_width_answers_by_half_an_octave_apart():
    wavelength = 12.0
    profile = np.asarray(gabor(121, wavelength).reshape(121, 121))[60]
    pixel = np.arange(121) - 60

    def response(frequency):
        return abs(np.sum(profile * np.exp(-2j * np.pi * frequency * pixel)))

    peak = response(1 / wavelength)
    for part in (2 / 3, 4 / 3):
        # The cosine's other half, the wave of −1/λ, adds e⁻¹⁷ at the lower one.
        assert abs(response(part / wavelength) / peak - 0.5) < 1e-6


def test_the_network_averages_the_rectified_correlation_with_the_picture():
    images = np.asarray(samples(3, 2, 7, 6))
    w = np.asarray(gabor(3, 2.5, 0.5, 0.4))  # no symmetry that would hide a flip
    found = compiled(lambda w: predict(w, image_patches(images, 3)))(w)
    picture = w.reshape(3, 3)
    for image, output in zip(images, found, strict=True):
        response = scipy.signal.correlate2d(image, picture, mode="valid")
        assert_close(output, np.maximum(response, 0).mean())


def test_parameters_may_be_traced():
    turns = jnp.array([0.0, 0.5, 1.0])
    together = compiled(jax.vmap(lambda turn: gabor_filter(3, 2.5, turn, sigma=1 + turn)))(turns)
    for turn, one in zip(turns, together, strict=True):
        assert_close(one, gabor(3, 2.5, turn, sigma=1 + turn))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: random_filter(jax.random.key(0), 0), "size is 0; expected a whole number"),
        (lambda: random_filter(jnp.ones(3), 5), r"key is of shape \(3,\) and dtype float64"),
        (lambda: gabor_filter(-5, 3.0), "size is -5; expected a whole number"),
        (lambda: gabor_filter(5, 0.0), "wavelength is 0.0; expected a finite number greater"),
        (lambda: gabor_filter(5, 3.0, sigma=-1.0), "sigma is -1.0; expected a finite number"),
        (lambda: gabor_filter(5, 3.0, aspect=np.inf), "aspect is inf; expected a finite number"),
        (lambda: gabor_filter(5, 3.0, phase=np.nan), "phase holds NaN"),
        (lambda: gabor_filter(5, jnp.ones(2)), r"wavelength has shape \(2,\); expected one"),
    ],
)
def test_what_is_no_filter_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
