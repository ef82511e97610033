"""The identity behind all invariants, at any point, on every kind of chain; and finding chains."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import assert_close, compiled, samples

import ntkflow
from ntkflow.systems.homogeneous import (
    HomogeneousNetwork,
    WeightSharing,
    average_loss,
    convolution,
    imbalance,
    layer_names,
    products,
    squared_norms,
)

X, LABELS = samples(0, 7, 6), jnp.array([0, 1, 1, 0, 1, 0, 0])
Y = samples(1, 7, 2)


def logistic(f, y):
    return optax.softmax_cross_entropy_with_integer_labels(f, y)


def quartic(f, y):
    return jnp.sum((f - y) ** 4)


def weights(network, x, seed, scale=0.7):
    """Random parameters without a trace of `init`, whose random numbers take long to compile."""
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    return jax.tree.map(
        lambda leaf: jnp.asarray(scale * random.normal(size=leaf.shape), leaf.dtype), shapes
    )


def sides_at(network, params, data, pointwise, linear=()):
    """Both sides; ⟨∂L/∂f, f⟩, to which all of them are equal by (4.11); and ∇L."""

    @compiled
    def compute(params):
        def loss(params, factor):
            return average_loss(lambda p, x: factor * network.apply(p, x), pointwise)(params, data)

        gradient, euler = jax.grad(loss, argnums=(0, 1))(params, 1.0)
        return products(params, gradient, linear=linear), euler, gradient

    return jax.device_get(compute(params))


def assert_equal_sides(sides):
    for left, right in zip(*map(jax.tree.leaves, sides), strict=True):
        assert np.max(np.abs(left)) > 1e-3  # of which 1e-10 is rounding
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-10)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("activation", "pointwise", "y", "linear"),
    [
        (nn.relu, logistic, LABELS, []),
        ((lambda x: jnp.maximum(x, 0.5 * x), jax.nn.identity, jnp.abs), quartic, Y, [2]),
    ],
)
def test_every_layer_has_the_same_product_with_its_gradient(activation, pointwise, y, linear):
    network = HomogeneousNetwork((5, 4, 6, 2), activation)
    params = weights(network, X, 2)
    # A neuron at 0 for all samples: any element of the sub-differential would do there.
    first = params["params"]["layer_1"]["kernel"]
    params["params"]["layer_1"]["kernel"] = first.at[:, 2].set(0.0)
    sides, euler, gradient = sides_at(network, params, (X, y), pointwise, linear)
    assert_equal_sides(sides)
    for side in sides:
        np.testing.assert_allclose(side.layer, np.full(3, euler), rtol=0, atol=1e-10)
        for layer, neuron in zip(side.layer, side.neuron, strict=True):
            np.testing.assert_allclose(layer, np.sum(neuron), atol=1e-12)
    # Theorem 4.2 asks for a linear activation: not so of the first.
    both = compiled(lambda params, gradient: products(params, gradient, linear=[1]))
    incoming, outgoing = jax.device_get(both(params, gradient))
    assert np.max(np.abs(incoming.matrix[0] - outgoing.matrix[0])) > 1e-3


def test_shared_weights_balance_by_layer():
    rows = np.random.default_rng(4).integers(0, 5, (4, 12))  # any sparsity, any sharing
    network = HomogeneousNetwork((convolution(6, 1, 3, 3), WeightSharing(rows), 5, 2))
    params = weights(network, X, 5)
    sides, euler, _ = sides_at(network, params, (X, LABELS), logistic)
    assert_equal_sides(sides)
    np.testing.assert_allclose(sides.incoming.layer, np.full(3, euler), atol=1e-10)
    assert [neuron is None for neuron in sides.incoming.neuron] == [True, True, False]
    free = [np.asarray(params["params"][f"layer_{h}"]["shared"]) for h in (1, 2)]
    expected = np.sum(free[0] ** 2) - np.sum(free[1] ** 2)
    np.testing.assert_allclose(imbalance(params).layer[0], expected)


class ConvolutionalNetwork(nn.Module):
    """Convolutions with biases, pooling, channels flattened into a dense layer; NTK scaling."""

    @nn.compact
    def __call__(self, x):
        layers = ntkflow.layers
        x = layers.Conv(3, (2, 2), b_std=0.3, name="layer_1")(x[..., None])
        x = nn.avg_pool(x, (2, 1), (2, 1))
        x = nn.relu(layers.Conv(4, (2, 2), w_std=1.5, b_std=0.5, name="layer_2")(x))
        return layers.Dense(2, b_std=1.0, name="layer_10")(x.reshape(len(x), -1))


def test_channels_of_convolutions_are_neurons_and_biases_count_as_incoming():
    """No activation after the first layer; constant factors in the forward pass change nothing."""
    network, images = ConvolutionalNetwork(), samples(6, 7, 4, 3)
    params = weights(network, images, 7)
    sides, _, gradient = sides_at(network, params, (images, LABELS), logistic, [1])
    assert_equal_sides(sides)
    assert [neuron.shape for neuron in sides.incoming.neuron] == [(3,), (4,)]
    # The norms of the kernels alone, as in the theorems, are not preserved where there are biases.
    kernels = [
        np.sum(np.asarray(params["params"][name]["kernel"]) * gradient["params"][name]["kernel"])
        for name in ("layer_1", "layer_2", "layer_10")
    ]
    assert np.min(np.abs(np.diff(np.stack(kernels)))) > 1e-3


def test_another_activation_breaks_the_identity():
    network = nn.Sequential([nn.Dense(5, use_bias=False), nn.tanh, nn.Dense(2, use_bias=False)])
    sides, *_ = sides_at(network, weights(network, X, 9), (X, Y), quartic)
    assert np.abs(sides.incoming.layer - sides.outgoing.layer)[0] > 1e-2


def test_invariants_are_what_the_theorems_say(dtype):
    w1, w2, w3 = samples(10, 4, 3), samples(11, 5, 4), samples(12, 2, 5)
    w1, w2, w3 = (w.astype(dtype) for w in (w1, w2, w3))  # (outputs, inputs), as in the thesis
    params = {f"layer_{h}": {"kernel": w.T} for h, w in enumerate((w1, w2, w3), start=1)}
    balance = compiled(lambda params: imbalance({"params": params}, linear=[2]))(params)
    square = lambda w: np.square(np.asarray(w))  # noqa: E731
    assert_close(squared_norms(params), np.array([square(w).sum() for w in (w1, w2, w3)]))
    assert_close(balance.layer, -np.diff(np.asarray(squared_norms(params))))
    assert_close(balance.neuron[0], square(w1).sum(1) - square(w2).sum(0))
    assert_close(balance.neuron[1], square(w2).sum(1) - square(w3).sum(0))
    (matrix,) = balance.matrix
    assert_close(matrix, np.asarray(w2 @ w2.T - w3.T @ w3))
    assert matrix.dtype == balance.neuron[0].dtype == dtype


def test_layers_are_found_in_natural_order():
    kernels = {f"layers_{2 * h}": {"kernel": jnp.ones((3, 3))} for h in reversed(range(6))}
    params = {"params": kernels}
    expected = tuple(f"layers_{2 * h}/kernel" for h in range(6))
    assert layer_names(params) == layer_names(params["params"]) == expected
    assert squared_norms(params, expected[1:3]).shape == (2,)
    ones = nnx.initializers.ones
    model = nnx.Sequential(
        nnx.Linear(2, 3, kernel_init=ones, rngs=nnx.Rngs(0)),
        nnx.relu,
        nnx.Linear(3, 1, kernel_init=ones, rngs=nnx.Rngs(0)),
    )
    _, params = ntkflow.from_nnx(model)
    assert layer_names(params) == ("layers/0/kernel", "layers/2/kernel")
    assert squared_norms(params).tolist() == [6.0, 3.0]


def test_other_names_are_given_in_order():
    shape = {"kernel": (3, 3), "bias": (3,)}
    params = {
        "params": {
            name: {leaf: jnp.full(shape[leaf], size) for leaf in shape}
            for name, size in (("decoder", 1.0), ("encoder", 2.0), ("middle", 3.0))
        }
    }
    with pytest.raises(ValueError, match=r"The order of the layers is not clear .*'decoder/bias'"):
        layer_names(params)
    by_module = imbalance(params, ["encoder", "middle", "decoder"])
    by_kernel = imbalance(params["params"], [f"{n}/kernel" for n in ("encoder", "middle")])
    assert by_module.layer.shape == (2,)
    assert by_module.layer.tolist() == [12 * 4.0 - 9 * 9.0, 12 * 9.0 - 9 * 1.0]
    assert by_kernel.layer.tolist() == [12 * 4.0 - 9 * 9.0]
    # An output layer that is a vector, as in ntkflow.systems.two_layer_relu.
    vector = {"kernel": jnp.ones((3, 4)), "output": jnp.array([1.0, 2.0, 3.0, 4.0])}
    assert imbalance(vector, ["kernel", "output"]).neuron[0].tolist() == [2, -1, -6, -13]


def test_what_is_refused():
    w = jnp.ones((3, 4))
    with pytest.raises(ValueError, match=r"not clear from the parameters .*'norm/scale'"):
        layer_names({"a_1": {"kernel": w}, "a_2": {"kernel": w}, "norm": {"scale": w}})
    params = {"layer_1": {"kernel": w}, "layer_2": {"kernel": w}}
    with pytest.raises(ValueError, match=r"layer_1/kernel has 4 outputs and layer_2/kernel, .* 3"):
        imbalance(params)
    with pytest.raises(ValueError, match="There is no layer 'layer_3'; the parameters are"):
        imbalance(params, ["layer_1", "layer_3"])
    with pytest.raises(ValueError, match="layers is 'layer_1'; expected two or more"):
        imbalance(params, "layer_1")
    with pytest.raises(ValueError, match="expected two or more different layers"):
        imbalance(params, ["layer_1", "layer_1"])
    with pytest.raises(ValueError, match="expected two or more different layers"):
        imbalance({"layer_1": {"kernel": w}})
    fitting = {"layer_1": {"kernel": w}, "layer_2": {"kernel": w.T}}
    for linear in (2, 1.0):
        with pytest.raises(ValueError, match=f"linear holds {linear}; expected .*, 1 to 1"):
            imbalance(fitting, linear=[linear])
    with pytest.raises(ValueError, match="linear is 1; expected a sequence of hidden layers"):
        imbalance(fitting, linear=1)
    with pytest.raises(ValueError, match="layers is 1; expected two or more"):
        imbalance(fitting, 1)
    with pytest.raises(ValueError, match="layer_2/kernel is a scalar"):
        imbalance({"layer_1": {"kernel": w}, "layer_2": {"kernel": jnp.array(1.0)}})
    other = {"layer_1": {"kernel": w[:, :2]}, "layer_2": {"kernel": w.T[:2]}}
    with pytest.raises(ValueError, match=r"have shapes \[\(3, 4\), .* of other \[\(3, 2\), "):
        products(fitting, other)
    shared = {"layer_1": {"shared": jnp.ones(5)}, "layer_2": {"kernel": w}}
    with pytest.raises(ValueError, match=r"linear holds 1; the matrix .* beside shared weights"):
        imbalance(shared, linear=[1])
    with pytest.raises(ValueError, match=r"output has shape \(3,\); expected \(inputs, outputs\)"):
        imbalance({"output": jnp.ones(3), "kernel": w}, ["output", "kernel"])
