"""The activations and the three networks, against formulas unrolled by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled
from scipy.integrate import quad
from scipy.special import erf, erfc, expit
from scipy.stats import norm

import ntkflow
from ntkflow.systems.deep.activations import (
    activation_constants,
    check_activation,
    normalization,
)
from ntkflow.systems.deep.networks import (
    ConvolutionalResNet,
    FullyConnected,
    ResNet,
    hidden,
    patches,
)

MODULES = {
    "fully connected": FullyConnected(6, 3),
    "resnet": ResNet(6, 3),
    "convolutional": ConvolutionalResNet(6, 3),
}
NAMES = list(MODULES)
# In JAX and in NumPy, and c_σ.
ACTIVATIONS = {
    "softplus": (jax.nn.softplus, lambda z: np.logaddexp(0, z), 1.0854865030),
    "sigmoid": (jax.nn.sigmoid, expit, 3.4085598416),
    "tanh": (jnp.tanh, np.tanh, 2.5361754332),
    "erf": (jax.lax.erf, erf, 2.1525788606),
    "swish": (jax.nn.swish, lambda z: z * expit(z), 2.8107611241),
    "relu": (jax.nn.relu, lambda z: np.maximum(z, 0), 2.0),
}


def inputs(name, dtype="float64", n=3):
    shape = (n, 4, 2) if name == "convolutional" else (n, 4)
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)


def initialize(name, dtype="float64", **choices):
    """Module, variables and inputs, without compiling an init."""
    x = inputs(name, dtype)
    module = MODULES[name].clone(param_dtype=dtype, **choices)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    generator = np.random.default_rng(1)
    draw = lambda leaf: jnp.asarray(generator.normal(size=leaf.shape), leaf.dtype)  # noqa: E731
    return module, jax.tree.map(draw, shapes), x


def unrolled(name, params, x, residual=0.5):
    """x^(1), …, x^(H) and f, sample by sample and layer by layer in NumPy, columns first."""
    params = {key: np.asarray(value) for key, value in params.items()}
    depth, c_sigma, layers, outputs = len(params) - 1, 1.0854865029883, [], []
    for sample in np.asarray(x):
        h, kept = sample.T, []  # (d,), or (channels, pixels)
        for layer in range(1, depth + 1):
            w = params[f"layer_{layer}"]
            m, phi = w.shape[-1], h
            if name == "convolutional":
                zeros = np.zeros((len(h), w.shape[0] // 2))
                padded = np.concatenate([zeros, h, zeros], axis=1)
                p = h.shape[1]
                phi = np.concatenate([padded[:, o : o + p] for o in range(w.shape[0])])
                w = w.reshape(-1, m)
            z = np.logaddexp(0, w.T @ phi)
            if layer == 1 or name == "fully connected":
                h = (c_sigma / m) ** 0.5 * z
            else:
                h = h + residual / (depth * m**0.5) * z
            kept.append(h.T)
        layers.append(kept)
        outputs.append(np.sum(params["output"] * h.T))
    return np.stack(layers, axis=1), np.array(outputs)


def both(module):
    """f and x^(1), …, x^(H), in one program."""
    return compiled(lambda variables, x: (module.apply(variables, x), hidden(module, variables, x)))


@pytest.mark.quick
@pytest.mark.parametrize("name", NAMES)
def test_forward_is_the_formula(name, dtype):
    module, variables, x = initialize(name, dtype)
    f, layers = both(module)(variables, x)
    assert f.dtype == layers.dtype == dtype
    expected, outputs = unrolled(name, variables["params"], x)
    assert_close(layers, expected.astype(dtype))
    assert_close(f, outputs.astype(dtype), scale=np.abs(outputs).max() + 1)


def test_residual_scales_all_layers_but_the_first():
    module, variables, x = initialize("resnet", residual=0.9)
    assert_close(both(module)(variables, x)[1], unrolled("resnet", variables["params"], x, 0.9)[0])


@pytest.mark.parametrize("name", NAMES)
def test_one_layer(name):
    """Without a second layer there is no residual."""
    module, variables, x = initialize(name)
    module = module.clone(depth=1)
    first = {key: variables["params"][key] for key in ("layer_1", "output")}
    f, layers = both(module)({"params": first}, x)
    assert_close(layers, both(MODULES[name])(variables, x)[1][:1])
    layers, output = jax.device_get((layers, first["output"]))
    expected = np.sum(layers[0] * output[None], axis=tuple(range(1, layers[0].ndim)))
    assert_close(f, expected)


def test_seeds_at_once_draw_standard_normal_weights_and_are_seeds_apart():
    module, x = ResNet(4, 2), inputs("resnet")  # of equal shapes: fewer compilations

    def experiment(key):
        variables = module.init(key, x)
        return module.apply(variables, x), variables["params"]

    keys = jax.random.split(jax.random.key(0), 60)
    outputs, params = jax.device_get(compiled(ntkflow.over_seeds(experiment))(keys))
    single, single_params = compiled(experiment)(keys[1])
    assert_close(outputs[1], single)
    jax.tree.map(lambda all_, own: assert_close(all_[1], own), params, single_params)
    entries = np.concatenate([np.ravel(w) for w in params.values()])
    assert len(np.unique(entries)) == entries.size == 60 * (16 + 16 + 4)
    for w in params.values():
        assert abs(w.mean()) < 4 / w.size**0.5
        assert abs(w.var() - 1) < 4 * (2 / w.size) ** 0.5


def test_depth_50():
    module, variables, x = initialize("resnet", width=8, depth=50)
    f, layers = both(module)(variables, x)
    assert layers.shape == (50, 3, 8)
    expected, outputs = unrolled("resnet", variables["params"], x)
    assert_close(layers, expected)
    assert_close(f, outputs)


def test_residual_may_be_traced():
    module, variables, x = initialize("resnet", activation=jax.nn.relu)
    total = lambda c: module.clone(residual=c).apply(variables, x).sum()  # noqa: E731
    points = np.array([0.5 - 1e-6, 0.5, 0.5 + 1e-6])
    values, slopes = jax.device_get(compiled(jax.vmap(jax.value_and_grad(total)))(points))
    assert_close(slopes[1], (values[2] - values[0]) / 2e-6, factor=1e8)


def norms(name, **choices):
    """|x^(h)| for inputs of norm 1, shape (H, n)."""
    module, variables, x = initialize(name, **choices)
    x = np.asarray(x) / np.linalg.norm(x, axis=1, keepdims=True)
    return np.linalg.norm(compiled(lambda v: hidden(module, v, x))(variables), axis=2)


def test_norms_of_fully_connected_layers_are_one_at_large_width():
    """Lemma 3.1. Var |x^(1)|² = (c_σ² E σ⁴ − 1)/m = 1.75/m for softplus, so that |x^(1)| varies
    by 0.66/√m; later layers add to it."""
    width = 1024
    found = norms("fully connected", width=width, depth=4)
    assert np.abs(found[0] - 1).max() < 4 * 0.66 / width**0.5
    assert np.abs(found - 1).max() < 4 * 4 * 0.66 / width**0.5


@pytest.mark.parametrize("depth", [2, 8, 32])
def test_norms_of_residual_layers_are_bounded_in_depth(depth):
    """Lemma 3.8: ½ exp(−c_res c_w0 L) ≤ |x^(h)| ≤ 2 exp(c_res c_w0 L), c_w0 = 2.01, L = 1."""
    found, reach = norms("resnet", width=128, depth=depth), 2 * np.exp(0.5 * 2.01)
    assert found.shape == (depth, 3)
    assert ((found > 1 / reach) & (found < reach)).all()
    assert found[-1].min() > found[0].max()  # softplus is positive: the residuals add up


@pytest.mark.parametrize("filter_size", [1, 3, 7])
def test_patches(filter_size):
    x = np.random.default_rng(0).normal(size=(2, 4, 3))
    found = patches(x, filter_size)
    assert found.shape == (2, 4, filter_size, 3)
    for l in range(4):
        for o in range(filter_size):
            pixel = l + o - filter_size // 2
            expected = x[:, pixel] if 0 <= pixel < 4 else np.zeros((2, 3))
            assert_close(found[:, l, o], expected)
    norm, lifted = np.linalg.norm(x), np.linalg.norm(found)
    assert norm <= lifted * (1 + 1e-15)
    assert lifted <= filter_size**0.5 * norm


def second_moment(activation, breaks=(0.0,)):
    """E[σ(z)²], between the breaks."""
    ends = np.concatenate([[-13.0], breaks, [13.0]])
    integrand = lambda z: norm.pdf(z) * activation(z) ** 2  # noqa: E731
    return sum(quad(integrand, *cell, epsabs=1e-15)[0] for cell in itertools.pairwise(ends))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_normalization(name):
    activation, in_numpy, c_sigma = ACTIVATIONS[name]
    found = normalization(activation)
    assert abs(found - c_sigma) < 1e-9
    assert abs(found * second_moment(in_numpy) - 1) < 1e-12


def test_normalization_of_kinks_and_jumps():
    step = normalization(lambda z: jnp.where(z > 0.3, 1.0, 0.0))
    assert abs(step * erfc(0.3 / 2**0.5) / 2 - 1) < 1e-12  # P(z > 0.3)
    expected = second_moment(lambda z: np.clip(z, -1, 1), (-1.0, 1.0))
    assert abs(normalization(jax.nn.hard_tanh) * expected - 1) < 1e-12


def test_normalization_under_transforms():
    plain = normalization(jnp.tanh)
    found = []

    def traced(x):
        found.append(normalization(jnp.tanh))
        return x * found[-1]

    jax.vmap(jax.jit(jax.grad(traced)))(np.ones(3))
    assert found == [plain] * len(found)
    assert isinstance(plain, float)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (jax.nn.softplus, (np.log(2), 1, 0.25)),
        (jnp.tanh, (0, 1, 0.7698003589195)),  # 4/(3√3)
        (jax.nn.swish, (0, 1.0998393201, 0.5)),
        (jax.nn.relu, (0, 1, np.inf)),
        (jax.nn.elu, (0, 1, 1)),  # σ'' jumps at 0, σ' does not
        (jnp.square, (0, np.inf, 2)),
        (lambda z: jnp.where(z > 0, 1.0, 0.0), (0, np.inf, np.inf)),
    ],
)
def test_activation_constants(activation, expected):
    found = activation_constants(activation)
    np.testing.assert_allclose(found[:3], expected, rtol=1e-10, atol=1e-15)
    assert found.normalization == normalization(activation)


def test_polynomials_are_refused():
    for activation in (
        lambda z: z,
        jnp.square,
        lambda z: 1 + z - z**3,
        lambda z: 0.5 * z,
        lambda z: z**9,
    ):
        with pytest.raises(ValueError, match=r"a polynomial; expected none \(Condition 3\.2"):
            check_activation(activation)
    for activation in (jax.nn.softplus, jax.nn.relu, jnp.tanh):
        check_activation(activation)


def test_activations_are_checked_at_the_door():
    with pytest.raises(ValueError, match="activation is 'relu'; expected an elementwise function"):
        normalization("relu")
    with pytest.raises(ValueError, match="which keeps the shape"):
        normalization(jnp.sum)
    for activation in (np.tanh, jnp.maximum):
        with pytest.raises(ValueError, match="does not take an array of JAX alone"):
            normalization(activation)
    with pytest.raises(ValueError, match="activation is NaN at -13"):
        normalization(jnp.log)
    with pytest.raises(ValueError, match=r"E\[σ\(z\)²\] of the activation is 0\.0"):
        normalization(jnp.zeros_like)
    with pytest.raises(ValueError, match="closes over values that are traced"):
        jax.jit(lambda slope: normalization(lambda z: jnp.tanh(slope * z)))(2.0)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (FullyConnected(0, 2), "width is 0; expected a whole number greater than 0"),
        (FullyConnected(8, -2), "depth is -2; expected a whole number"),
        (FullyConnected(8, True), "depth is True; expected a whole number"),
        (FullyConnected(8, 2, jnp.sum), "expected an elementwise function, which keeps the shape"),
        (ResNet(8, 2, residual=1.0), r"residual is 1\.0; expected c_res in \(0, 1\)"),
        (ResNet(8, 2, residual=0.0), r"residual is 0\.0; expected c_res in \(0, 1\)"),
        (ResNet(8, 2, residual="0.5"), r"residual is '0\.5'; expected c_res in \(0, 1\)"),
        (ResNet(8, 2, residual=np.nan), r"residual is nan; expected c_res in \(0, 1\)"),
        (ResNet(8, 2, residual=np.array([0.5, 0.6])), r"residual has shape \(2,\); .* one number"),
    ],
)
def test_choices_are_checked(module, message):
    with pytest.raises(ValueError, match=message):
        module.init(jax.random.key(0), jnp.ones((1, 3)))


@pytest.mark.parametrize(
    ("filter_size", "message"),
    [
        (2, "filter_size is 2 for 4 pixels; expected an odd number, at most 7"),
        (9, "filter_size is 9 for 4 pixels"),
        (-1, "filter_size is -1; expected a whole number"),
    ],
)
def test_filters_are_checked(filter_size, message):
    with pytest.raises(ValueError, match=message):
        patches(jnp.ones((1, 4, 2)), filter_size)
    module = ConvolutionalResNet(8, 2, filter_size=filter_size)
    with pytest.raises(ValueError, match=message):
        module.init(jax.random.key(0), jnp.ones((1, 4, 2)))


def test_inputs_are_checked():
    with pytest.raises(ValueError, match=r"x has shape \(3,\); expected \(samples, features\)"):
        FullyConnected(8, 2).init(jax.random.key(0), jnp.ones(3))
    with pytest.raises(ValueError, match="x holds NaN or infinite values"):
        ResNet(8, 2).init(jax.random.key(0), jnp.full((1, 3), jnp.nan))
    module, variables, x = initialize("convolutional")
    with pytest.raises(ValueError, match=r"expected \(samples, pixels, channels\)"):
        module.apply(variables, x[0])
    with pytest.raises(ValueError, match="x holds NaN or infinite values"):
        module.apply(variables, np.where(np.arange(x.size).reshape(x.shape) == 0, np.nan, x))
    with pytest.raises(ValueError, match=r"layer_1 has shape \(3, 2, 6\).*x\.swapaxes\(1, 2\)"):
        module.apply(variables, x.swapaxes(1, 2))
    with pytest.raises(ValueError, match=r"output has shape \(4, 6\).*should have \(5, 6\)"):
        hidden(module, variables, jnp.ones((1, 5, 2)))


def test_variables_are_checked():
    module, variables, x = initialize("resnet")
    with pytest.raises(ValueError, match=r"layer_1 has shape \(4, 6\).*should have \(3, 6\)"):
        module.apply(variables, x[:, :3])
    with pytest.raises(ValueError, match="as the init of this ResNet of depth 4 returns"):
        module.clone(depth=4).apply(variables, x)
    with pytest.raises(ValueError, match="the variables of a ResNet, as its init returns them"):
        hidden(module, variables["params"], x)
    with pytest.raises(ValueError, match="the variables of a ResNet, as its init returns them"):
        hidden(module, {"params": list(variables["params"].values())}, x)
    with pytest.raises(ValueError, match="module is of type function; expected a FullyConnected"):
        hidden(module.apply.__func__, variables, x)
