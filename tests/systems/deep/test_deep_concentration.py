"""Theorem 3.4: its constants, and the errors of random networks that it is about."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled
from once import constants_once

from ntkflow.systems.deep import concentration
from ntkflow.systems.deep.activations import activation_constants
from ntkflow.systems.deep.concentration import (
    FrameworkConstants,
    concentration_width,
    covariance_lipschitz,
    error_constant,
    framework_constants,
    initial_deviation,
    initial_errors,
)
from ntkflow.systems.deep.limits import Limit, limit
from ntkflow.systems.deep.networks import ConvolutionalResNet, FullyConnected, ResNet

SEEDS = 24
ONE = FrameworkConstants(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)


@pytest.fixture(scope="module", autouse=True)
def once():
    with constants_once(concentration):
        yield


def steep(z):
    """A smooth ReLU with its bend at 1: E σ(αz)² grows much faster than α²."""
    return jax.nn.softplus(4 * (z - 1.0)) / 4


def inputs(n, *shape):
    x = np.random.default_rng(0).normal(size=(n, *shape))
    norms = np.sqrt((x**2).sum(axis=tuple(range(1, x.ndim)), keepdims=True))
    return jnp.asarray(x / norms)


def drawn(module, x, dtype="float64", seeds=SEEDS):
    """Variables of many seeds, with a leading axis."""
    window = (module.filter_size,) if isinstance(module, ConvolutionalResNet) else ()
    rng, m = np.random.default_rng(1), module.width
    shapes = {f"layer_{h}": (*window, m, m) for h in range(1, module.depth + 1)}
    shapes |= {"layer_1": (*window, x.shape[-1], m), "output": (*x.shape[1:-1], m)}
    draw = lambda shape: jnp.asarray(rng.normal(size=(seeds, *shape)), dtype)  # noqa: E731
    return {"params": {name: draw(shape) for name, shape in shapes.items()}}


def mean_errors(module, x, found):
    many = compiled(jax.vmap(lambda variables: initial_errors(module, variables, x, found)))
    return jax.tree.map(lambda errors: errors.mean(axis=0), jax.device_get(many(drawn(module, x))))


def nothing(module, x):
    """A limit of zeros: what is measured against it are the features' own moments."""
    pixels, layers, n = x.shape[1:-1], module.depth, len(x)
    shapes = (layers, n, n, *pixels, *pixels), (layers, n, *pixels), (n, n)
    return Limit(*(jnp.asarray(np.zeros(shape, x.dtype)) for shape in shapes))


@pytest.fixture(scope="module")
def measured():
    """Mean errors over seeds, of layers 1..5 of 6, by architecture and width; and two limits."""
    x, found, errors = inputs(3, 5), {}, {}
    for architecture, widths in ((FullyConnected, (256,)), (ResNet, (16, 256))):
        module = architecture(width=1, depth=6, activation=steep)
        found[architecture] = jax.device_get(compiled(lambda x: limit(module, x))(x))
        for width in widths:
            wide = architecture(width=width, depth=6, activation=steep)
            errors[architecture, width] = mean_errors(wide, x, found[architecture])
    return errors, found


def test_errors_fall_like_the_root_of_the_width_and_stay_below_the_bound(measured):
    errors, found = measured
    for coarse, fine in zip(errors[ResNet, 16], errors[ResNet, 256], strict=True):
        assert (np.asarray(coarse / fine) > 2.5).all()  # 4 in the limit
        assert (np.asarray(coarse / fine) < 6.4).all()
    module = ResNet(width=256, depth=6, activation=steep)
    constant = error_constant(framework_constants(module, found[ResNet]), 6).value
    allowed = initial_deviation(3, 256, 6, 0.1, constant).value
    assert max(errors[ResNet, 256].kernels.max(), errors[ResNet, 256].means.max()) < allowed


def test_errors_grow_with_depth_in_fully_connected_networks_alone(measured):
    growth = {
        architecture: errors.kernels[1:] / errors.kernels[:-1]
        for (architecture, width), errors in measured[0].items()
        if width == 256
    }
    assert (growth[FullyConnected] > 1.3).all()
    assert np.prod(growth[FullyConnected]) > 20
    assert (abs(growth[ResNet] - 1) < 0.05).all()


def test_measured_errors_are_what_their_names_say(dtype):
    x = jnp.asarray(np.asarray(inputs(2, 3, 2)), dtype)
    module = ConvolutionalResNet(width=8, depth=3)
    variables = jax.tree.map(lambda leaf: np.asarray(leaf)[0], drawn(module, x, dtype, seeds=1))
    measure = compiled(lambda *given: initial_errors(module, *given))
    found = jax.device_get(measure(variables, x, nothing(module, x)))
    assert {leaf.dtype for leaf in found} == {jnp.dtype(dtype)}

    def phi(h):  # (n, p, c) -> (n, p, q, c)
        padded = np.pad(h, ((0, 0), (1, 1), (0, 0)))
        return np.stack([padded[:, o : o + h.shape[1]] for o in range(3)], axis=2)

    params = {name: np.asarray(leaf, float) for name, leaf in variables["params"].items()}
    c_sigma = activation_constants(jax.nn.softplus).normalization
    softplus = lambda z: np.log1p(np.exp(z))  # noqa: E731
    act = lambda h, w: softplus(np.tensordot(phi(h), w, w.ndim - 1))  # noqa: E731
    first = np.sqrt(c_sigma / 8) * act(np.asarray(x, float), params["layer_1"])
    second = first + 0.5 / (3 * np.sqrt(8)) * act(first, params["layer_2"])
    for h, features in enumerate((first, second)):
        flat = features.reshape(-1, 8)
        assert_close(found.kernels[h], np.abs(flat @ flat.T).max().astype(dtype))
        assert_close(found.means[h], np.abs(flat.sum(1)).max().astype(dtype) / np.sqrt(8))


@pytest.mark.quick
def test_constants_have_the_orders_of_remark_3_7():
    def factor(constants):  # of one more layer, by the two sums that it parts
        one, two = (error_constant(constants, depth).value for depth in (2, 3))
        return float(two / one) - 1

    x, growth = inputs(2, 3), []
    for depth in (100, 1000):
        module = ResNet(width=4, depth=depth)
        constants = framework_constants(module, nothing(module, x))
        assert constants.skip == 1
        assert constants.weights == 2
        assert constants.activation * depth == pytest.approx(0.5 * (1 + np.log(2)))
        assert 0.0625 <= constants.covariance * depth < 0.3  # at least c_res β/2
        growth.append(factor(constants) - 1)
    assert growth[0] / growth[1] == pytest.approx(10, rel=0.1)

    module = FullyConnected(width=4, depth=100)
    unit = nothing(module, x)._replace(kernels=jnp.asarray(np.ones((100, 2, 2))))
    constants = framework_constants(module, unit)
    assert constants.skip == 0
    assert constants.weights == 2
    assert float(constants.kernel) == 101
    assert factor(constants) > 1.5

    # An image of four pixels, of which a patch has three; and one of two.
    image = ConvolutionalResNet(width=4, depth=100)
    for pixels, weights in ((4, 4), (2, 3)):
        constants = framework_constants(image, nothing(image, inputs(2, pixels, 1)))
        assert constants.weights == weights


def test_error_constant_adds_up_the_layers():
    constants = ONE._replace(activation=np.array([0.5, 0.25]), covariance=np.array([1.0, 3.0]))
    own = np.sqrt(2.0)
    factors = [1 + 1 + 2 * 0.5 * 2, 1 + 3 + 2 * 0.25 * 2]
    total = 1 + factors[1] + factors[1] * factors[0]
    assert error_constant(constants, 4).value == pytest.approx(own * total)
    printed = (2 + 1 + 0.5 * 2 * 2) * (2 + 3 + 0.25 * 2 * 2)
    assert error_constant(constants, 4, printed=True).value == pytest.approx(own * printed)
    assert error_constant(ONE, 1).value == pytest.approx(own)
    double = error_constant(constants, 4, constant=2.0)
    assert double.value == pytest.approx(2 * own * total)
    assert double.constant == 2
    assert error_constant(ONE, 2000).value == np.inf
    with pytest.raises(ValueError, match="depth is 0; expected a whole number"):
        error_constant(ONE, 0)


def test_the_width_makes_the_deviation_small_enough():
    n, lambda_0, depth, delta, error, pixels = 7, 0.03, 5, 0.2, 11.0, 3
    for printed, power in ((False, 1), (True, 2)):
        width = concentration_width(
            n, lambda_0, depth, delta, error, pixels=pixels, printed=printed
        ).value
        width = round(float(width))
        deviation = initial_deviation(n, width, depth, delta, error, pixels=pixels).value
        assert deviation == pytest.approx(lambda_0 / (n * pixels) ** power, rel=1e-6)
    with pytest.raises(ValueError, match="delta is 2"):
        initial_deviation(n, 10, depth, 2, error)
    with pytest.raises(ValueError, match="lambda_0 is 0"):
        concentration_width(n, 0, depth, delta, error)


def test_expectations_are_lipschitz_in_the_covariance():
    """Lemma 3.30 for softplus, by Gauss–Hermite quadrature, and how tight its constant is."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    weights = weights / np.sqrt(2 * np.pi)
    softplus = lambda z: np.log1p(np.exp(z))  # noqa: E731

    def expectations(a):
        root = np.linalg.cholesky(a)
        u = root[0, 0] * nodes
        v = root[1, 0] * nodes[:, None] + root[1, 1] * nodes[None, :]
        product = np.einsum("i,j,i,ij->", weights, weights, softplus(u), softplus(v))
        return np.array([product, weights @ softplus(u)])

    rng, shares = np.random.default_rng(2), []
    for _ in range(200):
        one, two = (f @ f.T + 0.01 * np.eye(2) for f in rng.normal(size=(2, 2, 2)))
        two = one + rng.uniform(1e-3, 1) * (two - one)
        variance = max(np.diag(one).max(), np.diag(two).max())
        bound = covariance_lipschitz(np.log(2), 1.0, 0.25, variance).value
        change = np.abs(expectations(one) - expectations(two)).max()
        shares.append(change / (bound * np.abs(one - two).max()))
    assert max(shares) <= 1
    assert max(shares) > 0.2
