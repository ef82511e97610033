"""The engine of Definition 3.4 against its formulas, finite networks and a new architecture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from finite_networks import Block, deviations, draw, expectations, logistic, shifts, softplus
from helpers import assert_close, compiled, samples

from ntkflow.kernels.arccos import arccos_kernel
from ntkflow.systems.deep.framework import Layer, convolution, population

POOL = np.array([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
STRIDED = np.array([[[1.0, 0, 0, 0], [0, 0, 1, 0]], [[0, 1, 0, 0], [0, 0, 0, 1]]])
SIZES = np.array([0.7, 1.6])[:, None, None]  # norms of different size tell the terms apart


def strided(kernel):
    """𝒲 of a convolution of size 2 and stride 2."""
    return sum(jnp.einsum("ab,...bc,dc->...ad", e, kernel, e) for e in STRIDED)


def circular(kernel):
    return sum(jnp.roll(kernel, (o, o), axis=(-1, -2)) for o in (-1, 0, 1)) / 3


# A ResNet on a ring of pixels, with weights N(0, ⅓) and in one layer half a skip connection, then
# average pooling in the skip connection over a convolution of stride 2.
BLOCKS = [
    Block(shifts(3, 4, circular=True) / 3**0.5, 1.1),
    Block(shifts(3, 4, circular=True) / 3**0.5, 0.5, np.eye(4)),
    Block(shifts(3, 4, circular=True) / 3**0.5, 0.7, np.eye(4) / 2),
    Block(STRIDED, 0.8, POOL),
    Block(np.eye(2)[None], 0.6, np.eye(2)),
]
LAYERS = [
    Layer(jax.nn.softplus, np.array([1.1, 0.5, 0.7]), np.array([0, 1, 0.5]), circular, repeats=3),
    Layer(jax.nn.softplus, 0.8, POOL, strided),
    Layer(jax.nn.softplus, 0.6, 1.0),
]


@pytest.fixture(scope="module")
def inputs():
    x = np.random.default_rng(0).normal(size=(2, 4, 2))
    return jnp.asarray(SIZES * x / np.linalg.norm(x, axis=(1, 2), keepdims=True))


@pytest.fixture(scope="module")
def found(inputs):
    """K^(1), …, K^(H−1), the same of b, and K^(H)."""
    kernels, means, last = jax.device_get(compiled(lambda x: population(x, LAYERS))(inputs))
    assert [len(k) for k in kernels] == [len(b) for b in means] == [1, 3, 1, 0]
    return [k for layer in kernels for k in layer], [b for layer in means for b in layer], last


def test_recursion_is_definition_3_4(inputs, found):
    x = np.asarray(inputs)
    kernel, mean = np.einsum("ila,jra->ijlr", x, x), np.zeros(x.shape[:2])
    for h, block in enumerate(BLOCKS):
        assert_close(found[0][h], kernel, factor=1e6)  # 2e-10
        assert_close(found[1][h], mean, factor=1e6)
        covariance = sum(np.einsum("ab,ijbc,dc->ijad", e, kernel, e) for e in block.bases)
        if h == len(BLOCKS) - 1:
            break
        first, second = expectations(lambda z: block.factor * softplus(z), covariance)
        if block.skip is None:
            kernel, mean = second, first
            continue
        kept = np.einsum("ab,ib->ia", block.skip, mean)
        kernel = np.einsum("ab,ijbc,dc->ijad", block.skip, kernel, block.skip) + second
        kernel += np.einsum("il,jr->ijlr", first, kept) + np.einsum("il,jr->ijlr", kept, first)
        mean = kept + first
    _, slopes = expectations(lambda z: block.factor * logistic(z), covariance)
    assert_close(found[2], np.einsum("ijll,ijll->ij", covariance, slopes), factor=1e6)


def test_a_new_architecture_has_the_limits_of_wide_networks(inputs, found):
    draws = draw(inputs, BLOCKS, width=300, networks=30)
    assert len(draws.kernels) == len(found[0]) - 1
    for h in range(len(draws.kernels)):
        assert deviations(draws.kernels[h], found[0][h + 1]) < 4
        assert deviations(draws.means[h], found[1][h + 1]) < 4
    assert deviations(draws.last, found[2]) < 4
    assert (draws.last.std(axis=0) < 0.25 * draws.last.mean(axis=0)).all()


def test_last_gram_is_that_of_the_gradients(inputs):
    """What `draw` takes for G^(H), from which the form of K^(H) for any 𝒲 comes."""
    width, block = 5, BLOCKS[1]
    generator = np.random.default_rng((3, 0))
    weights = generator.standard_normal((3 * 2, width), np.float32).reshape(3, 2, width)
    output = generator.standard_normal((4, width), np.float32)

    def network(weights, x):
        u = jnp.einsum("kab,bc,kcd->ad", block.bases, x, weights)
        return jnp.sum(output * 0.5 * jax.nn.softplus(u)) / width**0.5

    gradients = compiled(jax.vmap(jax.grad(network), in_axes=(None, 0)))(weights, inputs)
    rows = gradients.reshape(len(inputs), -1)
    draws = draw(inputs, [block], width, networks=1, seed=3)
    np.testing.assert_allclose(draws.last[0], rows @ rows.T, rtol=1e-5)


@pytest.mark.quick
def test_convolution_is_a_sum_over_shifts():
    kernel = samples(1, 2, 4, 4)
    for size in (1, 3, 7):
        expected = sum(np.einsum("ab,ibc,dc->iad", e, kernel, e) for e in shifts(size, 4))
        assert_close(convolution(size)(kernel), expected)
    assert convolution(3) is convolution(3)


def test_relu_in_closed_form_at_parallel_and_zero_inputs_too(dtype):
    x = np.asarray(samples(2, 2, 4, dtype=dtype))
    x = jnp.asarray(np.concatenate([x, 0 * x[:1], 3 * x[:1], -2 * x[:1]]))

    @compiled
    def with_jacobian(x):
        def last(x):
            found = population(x[:, None, :], [Layer(jax.nn.relu, 2**0.5, repeats=2)])
            return found.last, found

        gram = jnp.matmul(x, x.T, precision="highest")
        norms = jnp.linalg.norm(x, axis=1)
        first = arccos_kernel(1, norms[:, None], norms[None, :], gram)
        slopes = arccos_kernel(0, norms[:, None], norms[None, :], first)
        return *jax.jacrev(last, has_aux=True)(x), (gram, norms, first, slopes)

    found = jax.device_get(with_jacobian(x))
    jacobian, (kernels, means, last), (gram, norms, first, slopes) = found
    x = np.asarray(x)
    assert {a.dtype for a in jax.tree.leaves((kernels, means, last))} == {jnp.dtype(dtype)}
    for kernel in (kernels[0][0], kernels[1][0]):
        assert (kernel == kernel.transpose(1, 0, 3, 2)).all()
    assert (last == last.T).all()

    assert_close(kernels[1][0, :, :, 0, 0], first)
    assert_close(means[1][0, :, 0], norms / np.asarray(np.pi**0.5, dtype))
    # Of parallel inputs an angle below √eps is 0.
    scale = float(last.max())
    assert_close(last, first * slopes, scale=scale * (1e4 if dtype == "float64" else 10))
    same = (0, 3), (3, 3), (4, 4), (2, 2), (0, 4)
    expected = np.stack([gram[i, j] * (i != 0 or j != 4) for i, j in same])
    assert_close(np.stack([last[i, j] for i, j in same]), expected)

    # K^(H)(tx) = t² K^(H)(x), by Euler's identity, and K^(H)_ii = ‖x_i‖².
    assert np.isfinite(jacobian).all()
    assert_close(np.tensordot(jacobian, x, 2), 2 * last)
    gradients = np.einsum("iikd->ikd", jacobian)
    assert_close(gradients, 2 * np.eye(5, dtype=dtype)[:, :, None] * x[None])


def test_neither_depth_nor_further_calls_compile_more():
    calls = []

    def activation(z):
        calls.append(1)
        return jnp.maximum(z, 0)

    def network(depth):
        return [Layer(activation, 1.5), Layer(activation, 0.5 / depth, 1.0, repeats=depth - 1)]

    def size(depth):
        lowered = jax.jit(lambda x: population(x, network(depth))).lower(samples(5, 2, 1, 3))
        return len(lowered.as_text())

    assert abs(size(1000) - size(5)) < 0.01 * size(5)
    population(samples(5, 2, 1, 3), network(5))
    before = len(calls)
    population(samples(6, 2, 1, 3), [Layer(activation, 1.4), *network(5)[1:]])
    assert before == len(calls)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "layers is empty"),
        (Layer(jnp.tanh), r"expected several Layers: of one alone write \[layer\]"),
        ([jnp.tanh], "expected several Layers"),
        ([Layer(jnp.tanh, skip=1.0)], "The first layer has a skip connection"),
        ([Layer(jnp.tanh, skip=np.ones(2), repeats=2)], "The first layer has a skip connection"),
        ([Layer(jnp.tanh, factor=np.ones(3), repeats=2)], r"factor has shape \(3,\); .* 2 repeats"),
        ([Layer(jnp.tanh, repeats=0)], r"layers\[0\].repeats is 0"),
        ([Layer(jnp.tanh, jnp.nan)], r"layers\[0\].*NaN"),
        ([Layer(jnp.tanh, shared=lambda k: k[..., 0])], "turns a kernel of shape .* on the last"),
        ([Layer(jnp.tanh, shared=strided, repeats=2)], "turns 4 positions into 2, and repeats 2"),
        ([Layer(jnp.tanh), Layer(jnp.tanh, skip=POOL)], r"skip has shape \(2, 4\); expected \(4"),
        ([Layer(jnp.tanh), Layer(jnp.tanh, 1.0, 1.0, strided)], r"expected \(2, 4\), a matrix"),
    ],
)
def test_what_layers_are_refused(inputs, layers, message):
    with pytest.raises(ValueError, match=message):
        population(inputs, layers)


def test_what_inputs_are_refused():
    with pytest.raises(ValueError, match=r"x has shape \(2, 3\); expected \(samples, positions"):
        population(jnp.ones((2, 3)), LAYERS)
    with pytest.raises(ValueError, match="x holds NaN"):
        population(jnp.full((1, 1, 1), jnp.nan), [Layer(jnp.tanh)])
    with pytest.raises(ValueError, match="filter_size is 4; expected an odd number"):
        convolution(4)
