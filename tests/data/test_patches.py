"""Patches of images, and the laws of the drawn ones."""

import jax
import numpy as np
import pytest
from helpers import assert_close, compiled
from scipy.stats import truncnorm

from ntkflow.data import angle_mixture, close_patches, image_patches

N = 4000


def test_image_patches_are_windows(dtype):
    images = np.random.default_rng(0).normal(size=(2, 5, 7)).astype(dtype)
    windows = [(3, 2), (2, 1), (5, 3)]
    cut = compiled(lambda images: [image_patches(images, *window) for window in windows])(images)
    for (size, stride), z in zip(windows, cut, strict=True):
        view = np.lib.stride_tricks.sliding_window_view(images, (size, size), axis=(1, 2))
        expected = view[:, ::stride, ::stride].reshape(2, -1, size**2)
        assert z.dtype == dtype
        np.testing.assert_array_equal(z, expected)
    assert image_patches(np.arange(4).reshape(1, 2, 2), 2).tolist() == [[[0, 1, 2, 3]]]


@pytest.mark.quick
@pytest.mark.parametrize(("dtype", "p"), [("float32", 2), ("float64", 5)])
def test_angles_of_the_mixture_are_truncated_normal(dtype, p):
    target = np.random.default_rng(1).normal(size=p).astype(dtype)
    unit = target / np.linalg.norm(target)
    draw = compiled(jax.vmap(lambda sigma: angle_mixture(jax.random.key(2), N, target, sigma)))
    sigmas = [0.3, 1.0, 1e4]
    for sigma, z in zip(sigmas, np.asarray(draw(np.asarray(sigmas, dtype))), strict=True):
        assert z.dtype == dtype
        assert_close(np.linalg.norm(z, axis=1), np.ones(N, dtype))
        along = z @ unit
        assert abs(np.mean(along > 0) - 0.5) < 3 * 0.5 / np.sqrt(N)
        law = truncnorm(-np.pi / 2 / sigma, np.pi / 2 / sigma, scale=sigma)
        squares = np.arccos(np.minimum(np.abs(along), 1)) ** 2
        assert abs(squares.mean() - law.moment(2)) < 3 * squares.std() / np.sqrt(N)
        # The part orthogonal to w* has no direction of its own, and is symmetric.
        across = z - along[:, None] * unit[None, :]
        assert np.all(np.abs(across.mean(axis=0)) < 3.5 * across.std(axis=0) / np.sqrt(N))


def test_close_patches_turn_away_independently():
    """E cos α from the law; and E Z_1·Z_2 = (E cos α)² for α_1 and α_2 independent.

    Patches at distance 0 are equal; and w* may be so small that ‖w*‖² is 0.
    """
    target, sigma2, dtype = np.full(3, 1e-30, "float32"), 0.7, "float32"
    key = jax.random.key(4)
    draw = compiled(jax.vmap(lambda sigma2: close_patches(key, N, 3, target, 1.0, sigma2)))
    z, equal = np.asarray(draw(np.asarray([sigma2, 0.0], dtype)))
    assert z.shape == (N, 3, 3)
    assert z.dtype == dtype
    assert np.isfinite(equal).all()
    np.testing.assert_array_equal(equal, np.tile(equal[:, :1], (1, 3, 1)))
    np.testing.assert_allclose(np.linalg.norm(z, axis=2), 1, rtol=1e-6)
    nodes = np.linspace(-np.pi, np.pi, 2001)
    weights = truncnorm(-np.pi / sigma2, np.pi / sigma2, scale=sigma2).pdf(nodes)
    cosine = weights @ np.cos(nodes) / weights.sum()
    for i, j in [(0, 1), (0, 2), (1, 2)]:
        inner = np.sum(z[:, i] * z[:, j], axis=1)
        assert abs(inner.mean() - cosine**2) < 3 * inner.std() / np.sqrt(N)


def test_errors_say_what_is_wrong():
    images, key = np.ones((2, 4, 4)), jax.random.key(0)
    with pytest.raises(ValueError, match="size is 5 and the images are 4 × 4"):
        image_patches(images, 5)
    with pytest.raises(ValueError, match=r"images have shape \(4, 4\); expected \(n, h, w\)"):
        image_patches(images[0], 2)
    with pytest.raises(ValueError, match="stride is 0; expected a whole number"):
        image_patches(images, 2, 0)
    with pytest.raises(ValueError, match=r"target has shape \(1,\); expected \(p,\) with p ≥ 2"):
        angle_mixture(key, 3, np.ones(1), 1.0)
    with pytest.raises(ValueError, match="target is 0"):
        angle_mixture(key, 3, np.zeros(2), 1.0)
    with pytest.raises(ValueError, match=r"sigma is -1\.0; expected a standard deviation"):
        angle_mixture(key, 3, np.ones(2), -1.0)
    with pytest.raises(ValueError, match="sigma2 is nan"):
        close_patches(key, 3, 2, np.ones(2), 1.0, float("nan"))
    with pytest.raises(ValueError, match="k is 0"):
        close_patches(key, 3, 0, np.ones(2))
