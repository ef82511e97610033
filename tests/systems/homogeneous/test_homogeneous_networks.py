"""Networks: activations, maps of shared weights, convolution as one of them, the loss."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled, samples

from ntkflow.systems.homogeneous import (
    HomogeneousNetwork,
    SharedDense,
    WeightSharing,
    average_loss,
    convolution,
    slopes,
)


def halved_below(x):
    return jnp.maximum(x, 0.5 * x)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (jax.nn.relu, (0, 1)),
        (jax.nn.leaky_relu, (0.01, 1)),
        (jax.nn.identity, (1, 1)),
        (jnp.abs, (-1, 1)),
        (halved_below, (0.5, 1)),
        (lambda x: -3 * x, (-3, -3)),
        (lambda x: 0 * x, (0, 0)),
    ],
)
def test_the_slopes_of_homogeneous_activations(activation, expected):
    assert slopes(activation) == expected


@pytest.mark.parametrize(
    ("activation", "words"),
    [
        (jnp.tanh, r"tanh is not homogeneous: σ\(1000\) is 1, and 1000 σ\(1\) is 761.6"),
        (jnp.square, "not homogeneous"),
        (jax.nn.softplus, "not homogeneous"),
        (jax.nn.relu6, r"not homogeneous: .* expected σ\(cx\) = c σ\(x\)"),
        (jnp.log, "not homogeneous"),
        (lambda x: jnp.maximum(x, 0) + 1e-3, "not homogeneous"),
        (lambda x: x - x.mean(), "not homogeneous"),
        (
            jnp.sum,
            r"activation turns an array of shape \(3, 2\) .* expected an elementwise",
        ),
    ],
)
def test_other_activations_are_refused(activation, words):
    with pytest.raises(ValueError, match=words):
        slopes(activation)


def test_a_traced_slope_cannot_be_checked():
    def traced(a):
        assert slopes(lambda x: jnp.where(x > 0, x, a * x)) is None
        return a

    jax.jit(traced)(0.1)


SHAPES = (5, 2), (4, 5), (3, 4)


def test_the_network_is_the_formula(dtype):
    network = HomogeneousNetwork((5, 4, 3), (nn.relu, jax.nn.identity), param_dtype=dtype)
    x = samples(0, 6, 2, dtype=dtype)
    w1, w2, w3 = (samples(h, *shape, dtype=dtype) for h, shape in enumerate(SHAPES))
    params = {f"layer_{h}": {"kernel": w.T} for h, w in enumerate((w1, w2, w3), start=1)}
    out = compiled(network.apply)({"params": params}, x)
    assert out.dtype == dtype
    w1, w2, w3, x = map(np.asarray, (w1, w2, w3, x))
    assert_close(out, (w3 @ (w2 @ np.maximum(w1 @ x.T, 0))).T)


def test_default_weights_have_variance_2_over_fan_in():
    sharing = convolution(20, 10, 100, 5, "SAME")
    network = HomogeneousNetwork((200, sharing), param_dtype="float32")
    params = compiled(network.init)(jax.random.key(3), jnp.ones((1, 30)))["params"]
    leaves = params["layer_1"]["kernel"], params["layer_2"]["shared"]
    for leaf, fan_in in zip(leaves, (30, 50), strict=True):
        assert leaf.dtype == jnp.float32
        error = 2 / fan_in * np.sqrt(2 / leaf.size)  # of the mean square
        np.testing.assert_allclose(np.mean(np.square(leaf)), 2 / fan_in, atol=4 * error)


@pytest.mark.quick
@pytest.mark.parametrize(("padding", "size"), [("VALID", 2), ("SAME", 2), ("SAME", 3)])
def test_convolution_is_a_map_of_shared_weights(padding, size):
    length, channels, filters = 7, 2, 3
    sharing = convolution(length, channels, filters, size, padding)
    assert sharing.parameters == size * channels * filters
    assert sharing.fan_in == size * channels
    x = samples(4, 5, length, channels)
    free = samples(5, sharing.parameters)
    layer = nn.Conv(filters, (size,), padding=padding, use_bias=False)

    @compiled
    def both(free, x):
        kernel = free.reshape(size, channels, filters)
        return (
            SharedDense(sharing).apply({"params": {"shared": free}}, x.reshape(5, -1)),
            layer.apply({"params": {"kernel": kernel}}, x).reshape(5, -1),
        )

    assert_close(*both(free, x))


def test_a_sparse_layer_has_zeros_and_repeats():
    sharing = WeightSharing(np.array([[2, 0, 1], [0, 0, 2]]))
    shared = {"params": {"shared": np.array([3.0, 5.0])}}
    out = compiled(SharedDense(sharing).apply)(shared, np.eye(3))
    assert out.T.tolist() == [[5, 0, 3], [0, 0, 5]]


def test_the_loss_is_an_average_of_any_pointwise_loss():
    x, w = samples(6, 4, 3), samples(7, 3, 2)
    apply = lambda params, x: x @ params  # noqa: E731
    y = samples(8, 4, 2)
    labels = jnp.array([0, 1, 1, 0])
    entropy = average_loss(apply, optax.softmax_cross_entropy_with_integer_labels)
    both = compiled(lambda w: (average_loss(apply)(w, (x, y)), entropy(w, (x, labels))))
    outputs = np.asarray(x) @ np.asarray(w)
    squares = np.mean(0.5 * np.sum(np.square(outputs - np.asarray(y)), axis=1))
    log_softmax = outputs - np.log(np.sum(np.exp(outputs), axis=1, keepdims=True))
    expected = squares, -np.mean(log_softmax[np.arange(4), np.asarray(labels)])
    np.testing.assert_allclose(both(w), expected, rtol=1e-12)


def test_what_is_refused():
    x, key = jnp.ones((2, 3)), jax.random.key(0)
    with pytest.raises(ValueError, match="The activation tanh is not homogeneous"):
        HomogeneousNetwork((4, 1), jnp.tanh).init(key, x)
    with pytest.raises(ValueError, match="activation holds 3 entries; expected 1, or one for all"):
        HomogeneousNetwork((4, 1), [nn.relu] * 3).init(key, x)
    with pytest.raises(ValueError, match="kernel_init holds 1 entries; expected 2"):
        HomogeneousNetwork((4, 1), kernel_init=[nn.initializers.normal()]).init(key, x)
    with pytest.raises(ValueError, match=r"layers\[0\] is 0; expected a whole number"):
        HomogeneousNetwork((0, 1)).init(key, x)
    with pytest.raises(ValueError, match="layers is empty"):
        HomogeneousNetwork(()).init(key, x)
    with pytest.raises(ValueError, match=r"x has shape \(3,\)"):
        HomogeneousNetwork((4, 1)).init(key, x[0])
    with pytest.raises(ValueError, match="x has 3 features; the map of the layer expects 5"):
        HomogeneousNetwork((convolution(5, 1, 1, 2),)).init(key, x)
    with pytest.raises(ValueError, match=r"indices has shape \(2,\) and dtype int"):
        WeightSharing(np.array([1, 2]))
    with pytest.raises(ValueError, match="dtype float64; expected whole numbers"):
        WeightSharing(np.ones((2, 2)))
    with pytest.raises(ValueError, match="negative numbers or no connection"):
        WeightSharing(np.zeros((2, 2), int))
    with pytest.raises(ValueError, match="size is 4, and the input has only 3 positions"):
        convolution(3, 1, 1, 4)
    with pytest.raises(ValueError, match=r"padding is 'CIRCULAR'; expected one of \['VALID'"):
        convolution(3, 1, 1, 2, "CIRCULAR")
    with pytest.raises(ValueError, match="filters is 0"):
        convolution(3, 1, 0, 2)
    with pytest.raises(ValueError, match=r"write\s+module.apply"):
        average_loss(HomogeneousNetwork((4, 1)))
    with pytest.raises(ValueError, match=r"The pointwise loss has shape \(2,\)"):
        average_loss(lambda w, x: x @ w, lambda f, y: f - y)(jnp.ones((3, 2)), (x, x[:, :2]))
    with pytest.raises(ValueError, match=r"has shape \(\(2,\), \(2,\)\); expected one number"):
        average_loss(lambda w, x: x @ w, lambda f, y: (f, y))(jnp.ones((3, 2)), (x, x[:, :2]))
    with pytest.raises(ValueError, match="x has 2, y has 1"):
        average_loss(lambda w, x: x @ w)(jnp.ones((3, 2)), (x, x[:1, :2]))
    with pytest.raises(ValueError, match="pointwise is None; expected a function"):
        average_loss(lambda w, x: x @ w, None)
    with pytest.raises(ValueError, match=r"expected a pair \(x, y\)"):
        average_loss(lambda w, x: x @ w)(jnp.ones((3, 2)), x)
    with pytest.raises(ValueError, match="layers is 5; expected a sequence of widths"):
        HomogeneousNetwork(5).init(key, x)
    for activation in (None, "relu"):
        with pytest.raises(ValueError, match=r"The activation is .*; expected an elementwise"):
            HomogeneousNetwork((4, 1), activation).init(key, x)


def test_labels_are_not_broadcast_against_outputs():
    x = jnp.ones((4, 3))
    loss = average_loss(lambda w, x: x @ w)
    for labels in (jnp.zeros(4), jnp.zeros((4, 1)), jnp.zeros((4, 5))):
        with pytest.raises(ValueError, match=r"the outputs have shape \(2,\) and y .* the same"):
            loss(jnp.ones((3, 2)), (x, labels))
    assert float(loss(jnp.ones((3, 1)), (x, jnp.zeros(4)))) == 4.5  # one output, one number
