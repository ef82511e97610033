"""Gram matrices of layers against Jacobians, closed forms, and the gradients of the thesis."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled

from ntkflow.kernels.empirical import empirical_ntk
from ntkflow.systems.deep.activations import normalization
from ntkflow.systems.deep.gram import last_layer_gram, layer_grams
from ntkflow.systems.deep.networks import ConvolutionalResNet, FullyConnected, ResNet, hidden
from ntkflow.training.losses import squared_loss

MODULES = {
    "fully connected": FullyConnected(7, 3),
    "resnet": ResNet(7, 3, residual=0.8),
    "convolutional": ConvolutionalResNet(5, 3, residual=0.8),
}
NAMES = list(MODULES)


def initialize(name, dtype="float64", n=4, **choices):
    module = MODULES[name].clone(param_dtype=dtype, **choices)
    generator = np.random.default_rng(0)
    shape = (n, 4, 2) if name == "convolutional" else (n, 3)
    x = jnp.asarray(generator.normal(size=shape), dtype)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    draw = lambda leaf: jnp.asarray(generator.normal(size=leaf.shape), leaf.dtype)  # noqa: E731
    return module, jax.tree.map(draw, shapes), x


def last_gram_of(module):
    return compiled(lambda variables, x: last_layer_gram(module, variables, x))


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, "float64") for name in NAMES), ("resnet", "float32")]
)
def test_grams_of_layers(name, dtype):
    """Each is J Jᵀ of its layer; G^(H+1) = ⟨x_i^(H), x_j^(H)⟩; G^(H) is its closed form."""
    module, variables, x = initialize(name, dtype)

    @compiled
    def all_(variables):
        total = empirical_ntk(module.apply, method="jacobian")(variables, x)
        jacobians = jax.jacrev(module.apply)(variables, x)["params"]
        closed = last_layer_gram(module, variables, x)
        last = hidden(module, variables, x)[-1]
        return layer_grams(module, variables, x), jacobians, last, closed, total

    grams, jacobians, last, closed, ntk = jax.device_get(all_(variables))
    assert list(grams) == ["layer_1", "layer_2", "layer_3", "output"]
    rows = {key: np.asarray(leaf).reshape(4, -1) for key, leaf in jacobians.items()}
    total = sum(row @ row.T for row in rows.values())
    for key, gram in grams.items():
        assert gram.dtype == dtype
        assert (gram == gram.T).all()
        assert_close(gram, rows[key] @ rows[key].T, scale=total.max())
    assert_close(sum(grams.values()), total)
    last = np.asarray(last).reshape(4, -1)
    assert_close(grams["output"], last @ last.T)
    assert closed.dtype == dtype
    assert (closed == closed.T).all()
    assert_close(closed, grams["layer_3"])
    assert_close(ntk, total)  # the grams are of method "auto"


@pytest.mark.quick
@pytest.mark.parametrize("name", NAMES)
def test_closed_form_of_one_layer(name):
    """For H = 1 the layer is scaled by c_σ, in residual networks too."""
    module, variables, x = initialize(name, depth=1)

    @compiled
    def two(variables):
        return layer_grams(module, variables, x), last_layer_gram(module, variables, x)

    grams, closed = two(variables)
    assert list(grams) == ["layer_1", "output"]
    assert_close(closed, grams["layer_1"])


def test_closed_forms_are_the_printed_sums():
    """(3.12), (3.13) and (3.14), entry by entry."""
    for name in NAMES:
        module, variables, x = initialize(name, depth=2)
        params = {key: np.asarray(leaf) for key, leaf in variables["params"].items()}

        @compiled
        def both(variables, module=module, x=x):
            return hidden(module, variables, x)[0], last_layer_gram(module, variables, x)

        before, gram = map(np.asarray, both(variables))
        m = module.width
        w, a = params["layer_2"], params["output"]
        slope = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
        square = 0.8**2 / 2**2
        if name == "fully connected":
            square = normalization(module.activation)
        expected = np.zeros((4, 4))
        for i in range(4):
            for j in range(4):
                if name != "convolutional":
                    u, v = before[i], before[j]
                    neurons = a**2 * slope(u @ w) * slope(v @ w)
                    expected[i, j] = square / m * (u @ v) * neurons.sum()
                    continue
                sides = []
                for sample in (before[i], before[j]):
                    padded = np.pad(sample, ((1, 1), (0, 0)))
                    patches = np.stack([padded[l : l + 3] for l in range(4)])  # (p, q, m)
                    slopes = slope(np.einsum("lqc,qcr->lr", patches, w))
                    sides.append(np.einsum("lr,lqc,lr->rqc", a, patches, slopes))
                expected[i, j] = square / m * np.sum(sides[0] * sides[1])
        assert_close(gram, expected)


@pytest.mark.parametrize("name", ["fully connected", "resnet"])
def test_gradients_of_the_thesis(name):
    """∂L/∂W^(h), with the factors in the order of the layers, and f_i − y_i in both networks."""
    module, variables, x = initialize(name)
    y = np.arange(4.0)

    @compiled
    def all_(variables):
        gradient = jax.grad(squared_loss(module.apply))(variables, (x, y))["params"]
        return gradient, module.apply(variables, x), hidden(module, variables, x)

    gradient, outputs, layers = jax.tree.map(np.asarray, all_(variables))
    residual = outputs - y
    weights = {key: np.asarray(leaf).T for key, leaf in variables["params"].items()}
    depth, m = 3, module.width
    scales = [(normalization(module.activation) / m) ** 0.5] * depth
    identity = np.zeros((m, m))
    if name == "resnet":
        scales[1:] = [0.8 / (depth * m**0.5)] * (depth - 1)
        identity = np.eye(m)
    for h in range(1, depth + 1):
        expected = 0
        for i in range(4):
            inputs = [np.asarray(x[i]), *layers[:, i]]  # x^(0), …, x^(H)

            def slopes(k):
                return np.diag(1 / (1 + np.exp(-weights[f"layer_{k}"] @ inputs[k - 1])))

            row = weights["output"]
            for k in range(depth, h, -1):
                row = row @ (identity + scales[k - 1] * slopes(k) @ weights[f"layer_{k}"])
            row = scales[h - 1] * row @ slopes(h)
            expected = expected + residual[i] * np.outer(inputs[h - 1], row)
        assert_close(gradient[f"layer_{h}"], expected)
    assert_close(gradient["output"], layers[-1].T @ residual)


def test_layers_are_in_the_order_of_the_network():
    """Which is not that of the names from the tenth on."""
    module, variables, x = initialize("resnet", depth=10, n=2)
    grams = layer_grams(module, variables, x)
    assert list(grams) == [*(f"layer_{h}" for h in range(1, 11)), "output"]
    assert_close(grams["layer_10"], last_gram_of(module)(variables, x))


def test_under_transforms():
    """As an observer would: inside a compiled loop, and for several seeds at once."""
    module, variables, x = initialize("fully connected", depth=2)
    twice = lambda leaf: np.stack([leaf, 2 * np.asarray(leaf)])  # noqa: E731
    both = jax.tree.map(twice, variables)

    @compiled
    @jax.vmap
    def observe(variables):
        block = layer_grams(module, variables, x)["layer_2"]
        return last_layer_gram(module, variables, x), block

    closed, block = jax.device_get(observe(both))
    assert_close(closed[0], last_gram_of(module)(variables, x))
    assert_close(closed, block)


def test_errors():
    module, variables, x = initialize("convolutional")
    for function in (layer_grams, last_layer_gram):
        with pytest.raises(ValueError, match="module is of type str; expected a FullyConnected"):
            function("module", variables, x)
        with pytest.raises(ValueError, match=r"x has shape \(4, 2\); expected \(samples, pixels"):
            function(module, variables, x[0])
        with pytest.raises(ValueError, match=r"layer_1 has shape \(3, 2, 5\).*swapaxes"):
            function(module, variables, x.swapaxes(1, 2))
        with pytest.raises(ValueError, match="the variables of a ConvolutionalResNet"):
            function(module, variables["params"], x)
