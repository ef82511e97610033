"""K^(H) of the three architectures: definitions, wide networks, infinite_width, what is printed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from finite_networks import deviations, expectations, logistic, softplus
from helpers import assert_close, compiled, samples
from once import constants_once

from ntkflow.kernels.infinite import infinite_width
from ntkflow.systems.deep import limits as limits_of
from ntkflow.systems.deep.activations import normalization
from ntkflow.systems.deep.framework import Layer, last_gram
from ntkflow.systems.deep.gram import last_layer_gram
from ntkflow.systems.deep.limits import (
    convolutional_resnet_limit,
    fully_connected_limit,
    limit,
    limit_smallest_eigenvalue,
    resnet_limit,
)
from ntkflow.systems.deep.networks import ConvolutionalResNet, FullyConnected, ResNet, hidden
from ntkflow.systems.two_layer_relu import limit_gram

C_SIGMA = normalization(jax.nn.softplus)
RESIDUAL = 0.9
ARCHITECTURES = ["fully_connected", "resnet", "convolutional"]


@pytest.fixture(scope="module", autouse=True)
def once():
    with constants_once(limits_of):
        yield


def vectors(norms, angle):
    first, second = norms
    rows = [[first, 0.0], [second * np.cos(angle), second * np.sin(angle)]]
    return jnp.asarray(np.array(rows))


def case(name, width=8):
    """A module, inputs, the function for its limit, and what this is called with.

    The inputs tell what is printed from what is right: norms 0.2 and 6 the pairing of b and σ,
    opposite ones A^(H−1) from A^(H).
    """
    if name == "fully_connected":
        module = FullyConnected(width, 2)
        return module, vectors((2.0, 2.0), 2.9), fully_connected_limit, (2,)
    if name == "resnet":
        module, x, function = (
            ResNet(width, 3, residual=RESIDUAL),
            vectors((0.2, 6), 1),
            resnet_limit,
        )
    else:
        module = ConvolutionalResNet(width, 4, residual=RESIDUAL)
        x = np.random.default_rng(1).normal(size=(2, 5, 2)) * np.array([0.8, 1.5])[:, None, None]
        x, function = jnp.asarray(x), convolutional_resnet_limit
    return module, x, function, (module.depth, jax.nn.softplus, RESIDUAL)


@pytest.fixture(scope="module")
def limits():
    """The right one and the printed one, by architecture."""
    found = {}
    for name in ARCHITECTURES:
        _, x, function, arguments = case(name)
        both = lambda x: [function(x, *arguments, printed=p) for p in (False, True)]  # noqa: E731
        found[name] = jax.device_get(compiled(both)(x))
    return found


def windows(kernel):
    """tr K_{D_l, D_r} for all patches of three pixels, written out."""
    p = kernel.shape[-1]
    total = np.zeros_like(kernel)
    for l in range(p):
        for r in range(p):
            for o in (-1, 0, 1):
                if 0 <= l + o < p and 0 <= r + o < p:
                    total[..., l, r] += kernel[..., l + o, r + o]
    return total


def corrected(name, x, depth):
    """Definitions 3.1, 3.2 and 3.3 in their right form, entry by entry."""
    x = np.asarray(x)
    patches = windows if name == "convolutional" else lambda kernel: kernel
    x = x if x.ndim == 3 else x[:, None, :]
    kernel = np.einsum("ila,jra->ijlr", x, x)
    kernels, means = [kernel], [np.zeros(x.shape[:2])]
    for h in range(1, depth):
        first, second = expectations(softplus, patches(kernel))
        if h == 1 or name == "fully_connected":
            kernel, mean = C_SIGMA * second, C_SIGMA**0.5 * first
        else:
            c = RESIDUAL / depth
            kernel = kernel + c**2 * second
            for i in range(len(x)):
                for j in range(len(x)):
                    kernel[i, j] += c * np.outer(first[i], mean[j]) + c * np.outer(
                        mean[i], first[j]
                    )
            mean = mean + c * first
        kernels.append(kernel)
        means.append(mean)
    _, slopes = expectations(logistic, patches(kernel))
    scale = C_SIGMA if name == "fully_connected" else (RESIDUAL / depth) ** 2
    last = scale * np.einsum("ijll,ijll->ij", patches(kernel), slopes)
    if name == "convolutional":
        return np.stack(kernels), np.stack(means), last
    return np.stack(kernels)[..., 0, 0], np.stack(means)[..., 0], last


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_limits_are_the_definitions(limits, name):
    module, x, _, _ = case(name)
    found = limits[name][0]
    if name == "resnet":  # the expectations written out are no better beyond
        x = np.asarray(x) * np.array([[1.0], [0.4]])
        found = jax.device_get(compiled(lambda x: limit(module, x))(x))
    for actual, expected in zip(found, corrected(name, x, module.depth), strict=True):
        assert_close(actual, expected, factor=4e5)  # 1e-10
    assert (found.last == found.last.T).all()


@pytest.mark.parametrize(
    ("name", "networks"), [("fully_connected", 50), ("resnet", 50), ("convolutional", 24)]
)
def test_limits_are_those_of_wide_networks_and_printed_ones_are_not(limits, name, networks):
    width = 500
    module, x, _, _ = case(name, width)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)

    @compiled
    def statistics(variables, x):
        layers = hidden(module, variables, x)[:-1]
        pairs = "hila,hjra->hijlr" if x.ndim == 3 else "hia,hja->hij"
        last = last_layer_gram(module, variables, x)
        return jnp.einsum(pairs, layers, layers), layers.sum(axis=-1) / width**0.5, last

    def draw(seed):
        generator = np.random.default_rng((7, seed))
        return jax.tree.map(lambda s: generator.standard_normal(s.shape, np.float32), shapes)

    x = np.asarray(x, np.float32)
    draws = [statistics(draw(seed), x) for seed in range(networks)]
    kernels, means, last = (np.stack(part) for part in zip(*draws, strict=True))
    right, printed = limits[name]
    assert deviations(kernels, right.kernels[1:]) < 4.5
    assert deviations(means, right.means[1:]) < 4.5
    assert deviations(last, right.last) < 3
    assert deviations(last, printed.last) > 5
    if name == "resnet":
        assert deviations(kernels, printed.kernels[1:]) > 5
        assert_close(printed.kernels[:2], right.kernels[:2])
        assert_close(printed.means, right.means)
    if name == "convolutional":
        assert (printed.last > 1.6 * right.last).all()


def unrolled(name):
    """The network of ReLU as pure functions, layer after layer."""
    width, depth = 4, 3
    window = (3,) if name == "convolutional" else ()

    def init(key, x):
        keys = jax.random.split(key, depth + 1)
        shapes = [(*window, x.shape[-1], width)] + [(*window, width, width)] * (depth - 1)
        params = {f"layer_{h}": jax.random.normal(keys[h], shape) for h, shape in enumerate(shapes)}
        return params | {"output": jax.random.normal(keys[-1], (*x.shape[1:-1], width))}

    def apply(params, x):
        for h in range(depth):
            w = params[f"layer_{h}"]
            if window:
                axes = ("NWC", "WIO", "NWC")
                u = jax.lax.conv_general_dilated(x, w, (1,), "SAME", dimension_numbers=axes)
            else:
                u = x @ w
            if h == 0 or name == "fully_connected":
                x = (2 / width) ** 0.5 * jax.nn.relu(u)
            else:
                x = x + RESIDUAL / (depth * width**0.5) * jax.nn.relu(u)
        return jnp.tensordot(x, params["output"], x.ndim - 1)

    return init, apply


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_limits_are_those_of_infinite_width(name):
    _, x, function, arguments = case(name)
    kernel = infinite_width(unrolled(name), trainable=lambda path: "layer_2" in path)

    @compiled
    def both(x):
        return function(x, 3, jax.nn.relu, *arguments[2:]).last, kernel(x).ntk

    found, expected = both(x)
    assert_close(found, expected, factor=4e7)  # 1e-8


@pytest.mark.quick
def test_one_layer_of_relu_is_the_two_layer_network(dtype):
    x = samples(1, 6, 3, dtype=dtype)

    @compiled
    def all_three(x):
        one = fully_connected_limit(x, 1, jax.nn.relu)
        return one, resnet_limit(x, 1, jax.nn.relu).last, limit_gram(x)

    found, residual, gram = all_three(x)
    assert_close(found.last, 2 * gram, factor=500)
    assert found.kernels.shape == (1, 6, 6)
    assert {a.dtype for a in found} == {jnp.dtype(dtype)}
    assert_close(residual, found.last)


@pytest.fixture(scope="module")
def sphere():
    x = np.asarray(samples(5, 5, 8))
    return jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def test_fully_connected_networks_keep_norms_and_lose_the_smallest_eigenvalue(sphere):
    layer = Layer(jax.nn.softplus, C_SIGMA**0.5)

    @compiled
    def lasts(x):
        """Of the networks of depths 1 to 13."""
        found = fully_connected_limit(x, 13)
        return found, jax.lax.map(lambda k: last_gram(layer, k), found.kernels[..., None, None])

    found, last = jax.device_get(lasts(sphere))
    expected, _, _ = corrected("fully_connected", sphere, 3)
    assert_close(found.kernels[:3], expected, factor=4e5)
    assert_close(np.diagonal(found.kernels, axis1=1, axis2=2), np.ones((13, 5)), factor=1000)

    assert_close(last[-1], found.last)
    smallest = np.linalg.eigvalsh(last)[:, 0]
    np.testing.assert_allclose(smallest[4:] / smallest[3:-1], 0.318, rtol=0.02)


@pytest.fixture(scope="module")
def deep(sphere):
    """The limit of the ResNet of 100 layers, compiled as users do."""
    return resnet_limit(sphere, 100)


def test_resnets_keep_the_smallest_eigenvalue_at_depth_100(sphere, deep):
    smallest = []
    for found in (compiled(lambda x: resnet_limit(x, 4))(sphere), deep):
        smallest.append(np.linalg.eigvalsh(found.last)[0] * len(found.kernels) ** 2)
    assert 1 < smallest[1] / smallest[0] < 1.1

    # The identity in the proof of Lemma 3.25, and the lemma, on the network of depth 100.
    kernels, means = np.asarray(found.kernels), np.asarray(found.means)
    centered = kernels - means[:, :, None] * means[:, None, :]
    first, second = expectations(softplus, kernels[50][:, :, None, None])
    covariance = second[..., 0, 0] - first * first.T
    assert_close((centered[51] - centered[50]) * (100 / 0.5) ** 2, covariance, factor=1e8)

    def least(kernel):
        pairs = [(i, j) for i in range(5) for j in range(i)]
        return min(np.linalg.eigvalsh(kernel[np.ix_(pair, pair)])[0] for pair in pairs)

    assert min(np.diff([least(kernel) for kernel in centered[1:]])) >= 0
    assert min(least(kernel) for kernel in kernels[1:]) >= least(centered[1]) > 0
    # The lemma has K^(0) in this place, as if the first layer had a skip connection too.
    assert least(kernels[1]) < least(kernels[0])


def test_smallest_eigenvalue_of_a_module(sphere, deep):
    module = ResNet(8, 100)
    expected = np.linalg.eigvalsh(deep.last)[0]
    assert_close(limit_smallest_eigenvalue(module, sphere), expected, factor=1e4)
    traced = compiled(lambda x: limit_smallest_eigenvalue(module, x))
    assert_close(traced(sphere), expected, factor=1e4)
    rows = np.asarray(sphere)
    parallel = np.stack([*rows[:3], -2 * rows[1], rows[4]])
    with pytest.raises(ValueError, match=r"1 pair of parallel rows: \(1, 3\)"):
        limit_smallest_eigenvalue(module, parallel)
    with pytest.raises(ValueError, match="1 zero row: 2"):
        limit_smallest_eigenvalue(module, rows * (np.arange(5) != 2)[:, None])
    with pytest.raises(ValueError, match="activation is a polynomial"):
        limit_smallest_eigenvalue(ResNet(8, 100, activation=jnp.square), sphere)
    images = np.arange(1, 3)[:, None, None] * np.ones((1, 3, 2), int)
    with pytest.raises(ValueError, match=r"x has shape \(0, 8\); expected at least one sample"):
        limit_smallest_eigenvalue(module, rows[:0])
    with pytest.raises(ValueError, match=r"1 pair of parallel rows: \(0, 1\)"):
        limit_smallest_eigenvalue(ResNet(8, 2), jnp.ones((2, 3), jnp.bfloat16))
    with pytest.raises(ValueError, match=r"1 pair of parallel rows: \(0, 1\)"):
        limit_smallest_eigenvalue(ConvolutionalResNet(8, 2), images)


@pytest.mark.quick
def test_what_is_refused():
    x, images = jnp.ones((2, 3)), jnp.ones((2, 4, 3))
    for residual in (0.0, 1.0, jnp.nan):
        with pytest.raises(ValueError, match=r"residual is .*; expected c_res in \(0, 1\)"):
            resnet_limit(x, 3, residual=residual)
    with pytest.raises(ValueError, match=r"residual has shape \(2,\); expected one number"):
        convolutional_resnet_limit(images, 3, residual=jnp.array([0.5, 0.6]))
    for function in (fully_connected_limit, resnet_limit):
        with pytest.raises(ValueError, match="depth is 0; expected a whole number"):
            function(x, 0)
        with pytest.raises(ValueError, match=r"depth is 1; the printed last line uses A\^\(H−1\)"):
            function(x, 1, printed=True)
        with pytest.raises(ValueError, match=r"x has shape \(2, 4, 3\)"):
            function(images, 2)
    with pytest.raises(ValueError, match=r"\(2, 3\); expected \(samples, pixels, channels\)"):
        convolutional_resnet_limit(x, 2)
    with pytest.raises(ValueError, match="filter_size is 2 for 4 pixels; expected an odd number"):
        convolutional_resnet_limit(images, 2, filter_size=2)
    with pytest.raises(ValueError, match=r"filter_size is 9 for 4 pixels; .* at most 7"):
        convolutional_resnet_limit(images, 2, filter_size=9)
    with pytest.raises(ValueError, match="x holds NaN"):
        convolutional_resnet_limit(images * jnp.nan, 3, printed=True)
    with pytest.raises(ValueError, match="module is of type str; expected a FullyConnected"):
        limit("ResNet", x)
