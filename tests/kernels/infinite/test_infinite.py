import functools
import os

import architectures
import flax.linen as nn
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import compiled

import ntkflow
from ntkflow.kernels import fully_connected, in_blocks, infinite_width
from ntkflow.layers import Dense
from ntkflow.systems.two_layer_relu import TwoLayerReLU, limit_gram

X = np.random.default_rng(0).normal(size=(5, 4))
Y = np.random.default_rng(1).normal(size=(3, 4))
# One activation for each way to a kernel: test_dual.py has every family of closed forms.
SOME = """
dense/linear/1/bias dense/relu/2/bias dense/gelu/1/bias dense/erf_affine/1/bias
dense/sin_affine/1/bias dense/sign/1/bias
dense/polynomial/2/bias dense/elu/1
convolution/series/VALID/2/flatten convolution/series/CIRCULAR/1/average
convolution/volumes/SAME/2x1x2/flatten transposed/series/SAME/2/average
pooling/average_overlapping/last readout/scalar standard/convolution/flatten residual/1
residual/outputs concatenation/uneven product/bilinear norm/epsilon dropout/before_dense
attention/identity/flatten transformer/1
""".split()  # noqa: SIM905
NAMES = list(architectures.CASES) if os.environ.get("NTKFLOW_ALL_REFERENCES") else SOME


@pytest.mark.parametrize("name", NAMES)
def test_kernels_are_those_of_neural_tangents(name):
    kernel = compiled(infinite_width(architectures.CASES[name].module))
    tolerance = architectures.reference(name).tolerance
    assert architectures.disagreement(kernel, name) < tolerance


def deep(depth, phi, w_std=1.3, b_std=0.4, width=8):
    hidden = [(Dense(width, w_std, b_std), phi) for _ in range(depth)]
    return nn.Sequential([*(layer for pair in hidden for layer in pair), Dense(1, w_std, b_std)])


OF_RELU = infinite_width(deep(2, nn.relu))
# One program for many tests.
TANH, RELU = compiled(infinite_width(deep(1, jnp.tanh))), compiled(OF_RELU)


NETWORKS = {
    "linear": (compiled(infinite_width(deep(0, None))), (0, 1.3, 0.4, lambda x: x)),
    "tanh": (TANH, (1, 1.3, 0.4, jnp.tanh)),
    "relu": (RELU, (2, 1.3, 0.4)),
    "relu/3": (compiled(infinite_width(deep(3, nn.relu, 2**0.5, 0.0))), (3, 2**0.5, 0.0)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_deep_networks_follow_the_recursion(name):
    kernel, arguments = NETWORKS[name]
    recursion = compiled(lambda x, x2=None: fully_connected(x, x2, *arguments))
    for x2 in (None, Y):
        for found, expected in zip(kernel(X, x2), recursion(X, x2), strict=True):
            helpers.assert_close(found, expected)


@pytest.mark.quick
def test_kernels_of_a_data_set_with_itself_are_symmetric():
    alone, pair = RELU(X), RELU(X, X)
    for kernel, other in zip(alone, pair, strict=True):
        np.testing.assert_array_equal(kernel, kernel.T)
        assert np.linalg.eigvalsh(kernel).min() > 0
        # On the diagonal, where ReLU's angle is 0, two data sets are known to rounding's root.
        helpers.assert_close(other, kernel, factor=1e9)
        away = ~np.eye(5, dtype=bool)
        helpers.assert_close(np.asarray(other)[away], np.asarray(kernel)[away])


def test_entries_depend_on_their_samples_alone():
    whole = RELU(X, Y)
    for some, all_ in zip(RELU(X[1:2], Y[[2, 0]]), whole, strict=True):
        helpers.assert_close(some, np.asarray(all_)[1:2, [2, 0]])
    for found, all_ in zip(RELU(Y, X), whole, strict=True):
        helpers.assert_close(found, np.asarray(all_).T)
    for found, all_ in zip(RELU(X[:1]), RELU(X), strict=True):
        assert found.shape == (1, 1)
        helpers.assert_close(found, np.asarray(all_)[:1, :1])


def test_a_partition_of_the_parameters_adds_up():
    module = nn.Sequential(
        [
            Dense(8, b_std=0.3),
            nn.relu,
            Dense(8),
            nn.LayerNorm(param_dtype=float),
            nn.relu,
            Dense(1),
        ]
    )
    names = {"/".join(path) for path in flat_names(module)}
    assert len(names) == 6
    groups = [lambda p: "bias" in p, lambda p: "kernel" in p, lambda p: "scale" in p]
    kernels = [infinite_width(module, trainable=group) for group in (None, *groups)]
    whole, *parts = compiled(lambda x: [kernel(x) for kernel in kernels])(X)
    helpers.assert_close(sum(np.asarray(part.ntk) for part in parts), whole.ntk)
    for part in parts:
        helpers.assert_close(part.nngp, whole.nngp)
        assert np.asarray(part.ntk).diagonal().min() > 0.01


def flat_names(module):
    params = jax.eval_shape(module.init, jax.random.key(0), X[:1])["params"]
    return [tuple(k.key for k in path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def test_a_fixed_output_layer_gives_the_gram_matrix_of_the_thesis():
    for output in ("fixed", "trained"):
        kernel = infinite_width(TwoLayerReLU(16, output=output))
        both = compiled(lambda x, y: (kernel(x, y).ntk, limit_gram(x, y, output)))
        helpers.assert_close(*both(X, Y))
    hidden = infinite_width(
        nn.Sequential([Dense(8, 2.0), nn.relu, Dense(1)]), trainable=lambda path: "layers_0" in path
    )
    both = compiled(lambda x, y: (hidden(x, y).ntk, limit_gram(x, y)))  # 2²/d with d = 4
    helpers.assert_close(*both(X, Y))


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = Dense(8, 1.3, 0.4)(x)

        def block(layer, x, _):
            return layer(nn.relu(x)), None

        stack = nn.scan(block, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
        return Dense(1, 1.3, 0.4)(nn.relu(stack(Dense(8, 1.3, 0.4), x, None)[0]))


def by_hand(x):
    return jnp.where(x > 0, x, jnp.zeros_like(x))


@jax.custom_jvp
def with_own_derivative(x):
    return (x + jnp.abs(x)) / 2


with_own_derivative.defjvp(lambda x, t: (with_own_derivative(x[0]), (x[0] > 0) * t[0]))
SAME_NETWORKS = {
    "by_hand": (2, deep(2, by_hand)),
    "custom_jvp": (2, deep(2, with_own_derivative)),
    "jit": (2, deep(2, jax.jit(lambda x: jax.jit(nn.relu)(x)))),
    "scaled": (2, deep(2, lambda x: -3 * nn.relu(x / 3))),
    "remat": (
        2,
        nn.Sequential(
            [
                *(layer for _ in range(2) for layer in (nn.remat(Dense)(8, 1.3, 0.4), nn.relu)),
                Dense(1, 1.3, 0.4),
            ]
        ),
    ),
    "scan": (3, Scanned()),
    "wide": (2, deep(2, nn.relu, width=512)),
    "transposed": (2, nn.Sequential([jnp.transpose, jnp.transpose, *deep(2, nn.relu).layers])),
    "scalar": (2, nn.Sequential([*deep(2, nn.relu).layers, lambda x: x[:, 0]])),
    "two_outputs": (2, nn.Sequential([*deep(2, nn.relu).layers[:-1], Dense(2, 1.3, 0.4)])),
}


@functools.cache
def recursion_of_relu(depth):
    return compiled(lambda x, y: fully_connected(x, y, depth, 1.3, 0.4))(X, Y)


@pytest.mark.parametrize("name", SAME_NETWORKS)
def test_however_it_is_written_a_network_has_the_same_kernels(name):
    depth, module = SAME_NETWORKS[name]
    expected = recursion_of_relu(depth)
    for found, correct in zip(compiled(infinite_width(module))(X, Y), expected, strict=True):
        helpers.assert_close(found, correct)


def test_pairs_of_functions_and_nnx_models_are_networks():
    class Model(nnx.Module):
        def __init__(self, rngs):
            options = {
                "rngs": rngs,
                "param_dtype": float,
                "kernel_init": nnx.initializers.normal(0.5),
            }
            self.first = nnx.Linear(4, 8, **options)
            self.last = nnx.Linear(8, 1, **options)

        def __call__(self, x):
            return self.last(nnx.relu(self.first(x)))

    apply, _ = ntkflow.from_nnx(Model(nnx.Rngs(0)))

    def init(key, x):
        return ntkflow.from_nnx(Model(nnx.Rngs(key)))[1]

    def pair_init(key, x):
        keys = jax.random.split(key)
        return {
            "v": 0.5 * jax.random.normal(keys[0], (4, 8)),
            "w": 0.5 * jax.random.normal(keys[1], (8,)),
        }

    def pair_apply(params, x):
        return nn.relu(x @ params["v"]) @ params["w"]

    no_bias = [lambda path: "kernel" in path, None]
    pairs = [(init, apply), (pair_init, pair_apply)]
    # v and w have variance ¼, unlike a factor ½ before them: gradients are four times as large.
    nngp, ntk = fully_connected(X, Y, 1, 1.0, 0.0)
    for pair, trainable in zip(pairs, no_bias, strict=True):
        found = compiled(infinite_width(pair, trainable=trainable))(X, Y)
        helpers.assert_close(found.nngp, 2 * nngp)
        helpers.assert_close(found.ntk, 8 * ntk)


def test_precision_is_that_of_the_inputs(dtype):
    found = TANH(X.astype(dtype), Y.astype(dtype))
    for kernel, exact in zip(found, TANH(X, Y), strict=True):
        assert kernel.dtype == dtype
        helpers.assert_close(kernel, exact)
    assert RELU(X.astype(dtype)).ntk.dtype == dtype
    helpers.assert_close(RELU(X.astype(dtype)).ntk, RELU(X).ntk)


@pytest.mark.parametrize("phi", [jax.scipy.special.erf, nn.relu], ids=["erf", "relu"])
def test_gradients_are_right_off_the_diagonal_and_finite_on_it(phi):
    kernel = infinite_width(deep(2 if phi is nn.relu else 1, phi))

    def one(x, y):
        nngp, ntk = kernel(x[None], y[None])
        return nngp[0, 0] + ntk[0, 0]

    slope = compiled(jax.vmap(jax.grad(one), in_axes=(0, None)))(X, Y[0])
    direction, step = np.array([0.3, -0.5, 0.2, 0.7]), 1e-6
    values = compiled(lambda x, y: sum(kernel(x, y)))
    above, below = (values(X + sign * step * direction, Y[:1]) for sign in (1, -1))
    difference = np.asarray(above - below)[:, 0] / (2 * step)
    np.testing.assert_allclose(slope @ direction, difference, rtol=1e-7, atol=1e-7)

    def total(x, copy):
        return sum(kernel(x, x if copy else None)).sum()

    gradients = compiled(lambda x: [jax.grad(total)(x, copy) for copy in (False, True)])
    alone, copied = gradients(X)
    assert np.isfinite(alone).all()
    assert np.isfinite(copied).all()
    assert np.abs(alone).max() > 0.1


def test_kernels_go_through_jit_and_blocks():
    expected = RELU(X)
    for found, correct in zip(jax.jit(OF_RELU)(X), expected, strict=True):
        helpers.assert_close(found, correct)
    tiles = in_blocks(OF_RELU, max_bytes=20_000, devices=1)(np.tile(X, (5, 1)))
    for found, correct in zip(tiles, expected, strict=True):
        helpers.assert_close(found, np.tile(correct, (5, 5)), factor=1e9)


def test_equal_positions_suffice_where_they_are_flattened():
    """Memory for n² (h w)² numbers is needed by a global average alone."""
    c = lambda: architectures.Conv(8, (3, 3), w_std=1.4)  # noqa: E731
    images = jax.ShapeDtypeStruct((6, 12, 12, 2), "float64")
    bytes_of_all = 8 * 6**2 * (12 * 12) ** 2

    def memory(readout):
        kernel = infinite_width(nn.Sequential([c(), nn.relu, c(), nn.relu, readout, Dense(1)]))
        compiled = jax.jit(kernel).lower(images).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(architectures.flatten) < bytes_of_all / 6
    assert memory(architectures.average) > bytes_of_all / 2
