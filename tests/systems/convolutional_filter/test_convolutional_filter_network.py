"""f(Z) and its gradient against NumPy and autodiff."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled, samples

from ntkflow.data.patches import image_patches
from ntkflow.layers import ball
from ntkflow.systems.convolutional_filter.arguments import filter_of, pair
from ntkflow.systems.convolutional_filter.network import (
    ConvolutionalFilter,
    loss,
    predict,
    sampled_gradient,
)
from ntkflow.training.descent import descend

W = [0.7, -1.2, 0.4]


def draw(dtype="float64", k=4):
    z = samples(0, 6, k, 3, dtype=dtype)
    return z, samples(1, 6, dtype=dtype)


@pytest.mark.quick
@pytest.mark.parametrize(("dtype", "k"), [("float32", 1), ("float64", 4)])
def test_the_network_is_its_formula(dtype, k):
    z, _ = draw(dtype, k)
    variables = {"params": {"filter": jnp.asarray(W, dtype)}}
    w = variables["params"]["filter"]
    outputs, *others = compiled(
        lambda: (ConvolutionalFilter().apply(variables, z), predict(variables, z), predict(w, z))
    )()
    assert outputs.dtype == dtype
    expected = [np.mean([max(np.dot(W, patch), 0) for patch in one]) for one in np.asarray(z)]
    np.testing.assert_allclose(outputs, expected, rtol=1e-5 if dtype == "float32" else 1e-14)
    for other in others:
        np.testing.assert_array_equal(other, outputs)


def test_images_are_cut_by_the_module():
    images = samples(2, 5, 4, 4)
    module = ConvolutionalFilter(functools.partial(image_patches, size=2), param_dtype="float32")

    @compiled
    def run(key):
        variables = module.init(key, images)
        w = variables["params"]["filter"]
        return w, module.apply(variables, images), predict(w, image_patches(images, 2))

    w, outputs, expected = run(jax.random.key(0))
    assert (w.shape, w.dtype) == ((4,), "float32")
    np.testing.assert_array_equal(outputs, expected)


def test_the_filter_is_drawn_uniformly_from_the_ball(dtype):
    """‖w‖³ is uniform in [0, 1] for p = 3, of mean ½ and variance 1/12; w has the mean 0."""
    n = 4000
    draw = compiled(jax.vmap(lambda key: ball()(key, (3,), dtype)))
    w = draw(jax.random.split(jax.random.key(1), n))
    assert w.dtype == dtype
    w = np.asarray(w)
    cubes = np.linalg.norm(w, axis=1) ** 3
    assert cubes.max() <= 1 + 1e-6
    assert abs(cubes.mean() - 0.5) < 3 / np.sqrt(12 * n)
    assert np.all(np.abs(w.mean(axis=0)) < 3 * np.std(w, axis=0) / np.sqrt(n))


def test_the_gradient_by_hand_is_that_of_autodiff(dtype):
    z, y = draw(dtype)
    z = np.array(z)
    z[0], z[1, 0] = 0, [1.2, 0.7, 0.0]  # at the kink, w·Z = 0
    w = jnp.asarray(W, dtype)
    by_hand, automatic = compiled(
        lambda w: (sampled_gradient(w, z, y), jax.grad(loss)({"params": {"filter": w}}, (z, y)))
    )(w)
    assert by_hand.dtype == dtype
    assert_close(by_hand, automatic["params"]["filter"])


def test_loss_is_half_the_mean_and_a_step_is_that_of_6_2():
    z, y = draw()
    w = jnp.asarray(W)
    run = descend(loss, optax.sgd(0.3), 1)
    trajectory, outputs, gradient = compiled(
        lambda w: (
            run({"params": {"filter": w}}, (z, y)),
            predict(w, z),
            sampled_gradient(w, z, y),
        )
    )(w)
    half_mean = 0.5 * np.mean((np.asarray(outputs) - np.asarray(y)) ** 2)
    np.testing.assert_allclose(trajectory.history["loss"][0], half_mean, rtol=1e-14)
    after = trajectory.params["params"]["filter"]
    np.testing.assert_allclose(after, np.asarray(w) - 0.3 * np.asarray(gradient), rtol=1e-14)


def test_errors_say_what_is_wrong():
    (z, y), w = map(np.array, draw()), np.array(W)
    with_nan = np.where(z == z[0, 0, 0], np.nan, z)
    with pytest.raises(ValueError, match=r"z has shape \(6, 3\); expected \(n, k, p\)"):
        predict(w, z[:, 0])
    with pytest.raises(ValueError, match=r"z has shape \(6, 4, 3\) and the filter \(2,\)"):
        predict(w[:2], z)
    with pytest.raises(ValueError, match=r"and the filter \(2,\)"):
        ConvolutionalFilter().apply({"params": {"filter": w[:2]}}, z)
    with pytest.raises(ValueError, match=r"y has shape \(5,\) and the outputs \(6,\)"):
        loss(w, (z, y[:5]))
    with pytest.raises(ValueError, match="z holds NaN"):
        sampled_gradient(w, with_nan, y)
    with pytest.raises(ValueError, match=r"w holds \['kernel'\]; expected the variables"):
        filter_of({"params": {"kernel": w}})
    with pytest.raises(ValueError, match=r"w has shape \(1, 3\); expected one filter"):
        filter_of(w[None])
    with pytest.raises(ValueError, match="filters of the same size"):
        pair(w, w[:2])
