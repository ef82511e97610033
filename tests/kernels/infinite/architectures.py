"""Networks as Flax modules whose infinite-width kernels neural-tangents has computed.

`CASES` holds the modules, `reference` the kernels of the same name. The networks are defined a
second time, in the layers of neural-tangents, in reference/make_neural_tangents.py.
"""

import functools
import itertools
import math
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf

from ntkflow.layers import Dense

FILE = Path(__file__).parent / "reference" / "neural_tangents.npz"
WIDTH = 8  # of hidden layers: kernels do not depend on it, save in the standard parameterization
normal = nn.initializers.normal


class Case(NamedTuple):
    """A network, the name of the inputs to try it on, and whether both sides are closed forms."""

    module: nn.Module
    inputs: str = "vectors"
    closed: bool = True


class Reference(NamedTuple):
    """Inputs, kernels of x1 with x1 and with x2, and the relative tolerance that they merit."""

    x1: np.ndarray
    x2: np.ndarray
    nngp_11: np.ndarray
    ntk_11: np.ndarray
    nngp_12: np.ndarray
    ntk_12: np.ndarray
    tolerance: float


@functools.cache
def _file() -> dict[str, np.ndarray]:
    with np.load(FILE) as arrays:
        return dict(arrays)


def reference(name: str) -> Reference:
    """What neural-tangents says, in float64, of the case of this name.

    The tolerance is 1e-10 for closed forms and 1e-6 for quadrature, or ten times what rounding
    does to the kernels in neural-tangents if that is more: the square root of 1 − ρ² turns a
    rounding of 1e-16 into 1e-8 where ρ = 1.
    """
    arrays, case = _file(), CASES[name]
    x1, x2 = arrays[f"inputs/{case.inputs}/x1"], arrays[f"inputs/{case.inputs}/x2"]
    kernels = arrays[name]  # (NNGP and NTK, samples of x1, samples of x1 and then of x2)
    (nngp_11, ntk_11), (nngp_12, ntk_12) = kernels[..., : len(x1)], kernels[..., len(x1) :]
    rounding = dict(zip(arrays["names"].tolist(), arrays["rounding"].tolist(), strict=True))
    tolerance = max(1e-10 if case.closed else 1e-6, 10 * rounding[name])
    return Reference(x1, x2, nngp_11, ntk_11, nngp_12, ntk_12, tolerance)


def disagreement(kernel: Callable, name: str) -> float:
    """The largest difference of `kernel(x1, x2=None)` from the reference, by the largest entry."""
    x1, x2, nngp_11, ntk_11, nngp_12, ntk_12, _ = reference(name)
    expected = ((nngp_11, nngp_12), (ntk_11, ntk_12))
    ratios = []
    kernels = jax.device_get((kernel(x1), kernel(x1, x2)))
    for found, blocks in zip(zip(*kernels, strict=True), expected, strict=True):
        differences = [np.abs(k - block) for k, block in zip(found, blocks, strict=True)]
        # Not NaN-blind: np.maximum and np.max pass a NaN on, and max() would not.
        ratios.append(np.max(np.hstack(differences)) / np.max(np.abs(np.hstack(blocks))))
    return float(np.max(ratios))


# Layers in the NTK parameterization that `ntkflow.layers` lacks.


class Conv(nn.Module):
    """Convolution, or transposed convolution: w_std/√(filter size · channels) W∗x + b_std b."""

    features: int
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    padding: str = "SAME"
    w_std: float = 1.0
    b_std: float = 0.0
    layer: Callable = nn.Conv

    @nn.compact
    def __call__(self, x):
        strides = self.strides or (1,) * len(self.kernel_size)
        y = self.layer(
            self.features,
            self.kernel_size,
            strides=strides,
            padding=self.padding,
            use_bias=False,
            kernel_init=normal(1.0),
            param_dtype=float,
        )(x)
        y = self.w_std / math.sqrt(math.prod(self.kernel_size) * x.shape[-1]) * y
        if self.b_std:
            bias = self.param("bias", normal(1.0), (self.features,), float)
            y += self.b_std * bias.reshape((1,) * (y.ndim - 1) + (-1,))
        return y


class Attention(nn.Module):
    """Self-attention over positions, (n, positions, channels); scores without softmax: `weigh`.

    Scores are divided by √size, or, where queries equal keys (`tied`), by size, so that they have
    a limit that is not random. `positions` adds an embedding of the positions, "sum", or
    concatenates it, "concat"; to the values too if `values_too`.
    """

    features: int = WIDTH
    heads: int = 2
    size: int = WIDTH
    tied: bool = True
    weigh: Callable = jax.nn.softmax
    qk_std: float = 1.0
    ov_std: float = 1.0
    b_std: float = 0.0
    positions: str = ""
    position_std: float = 0.7
    values_too: bool = False

    @nn.compact
    def __call__(self, x):
        located = x
        if self.positions:
            embedding = self.param("positions", normal(1.0), (1, *x.shape[1:]), float)
            embedding = jnp.broadcast_to(self.position_std * embedding, x.shape)
            if self.positions == "sum":
                located = x + embedding
            else:
                located = jnp.concatenate([x, embedding], axis=-1)

        def project(name, x):
            shape = (self.heads, x.shape[-1], self.size)
            kernel = self.param(name, normal(1.0), shape, float)
            return jnp.einsum("ntc,hcd->nhtd", x, kernel) / math.sqrt(x.shape[-1])

        queries = None if self.tied else project("queries", located)
        keys = project("keys", located)
        values = project("values", located if self.values_too else x)
        if self.tied:
            scores = jnp.einsum("nhtd,nhsd->nhts", keys, keys) / self.size
        else:
            scores = jnp.einsum("nhtd,nhsd->nhts", queries, keys) / math.sqrt(self.size)
        attended = jnp.einsum("nhts,nhsd->nhtd", self.weigh(self.qk_std * scores), values)
        shape = (self.heads, self.size, self.features)
        kernel = self.param("out", normal(1.0), shape, float)
        y = jnp.einsum("nhtd,hdc->ntc", attended, kernel)
        y *= self.ov_std / math.sqrt(self.heads * self.size)
        if self.b_std:
            bias = self.param("bias", normal(1.0), (self.features,), float)
            y += self.b_std * bias.reshape(1, 1, -1)
        return y


# How networks are put together.


def chain(*layers: Callable) -> nn.Module:
    return nn.Sequential(layers)


class Branches(nn.Module):
    """What `join` makes of the outputs of several branches."""

    branches: tuple[Callable, ...]
    join: Callable[[list], Any]

    def __call__(self, x):
        return self.join([branch(x) for branch in self.branches])


def identity(x):
    return x


def concatenated(axis: int) -> Callable:
    return lambda parts: jnp.concatenate(parts, axis=axis)


def add(*branches: Callable) -> nn.Module:
    return Branches(branches, lambda parts: functools.reduce(operator.add, parts))


def concatenate(*branches: Callable, axis: int = -1) -> nn.Module:
    return Branches(branches, concatenated(axis))


def multiply(*branches: Callable) -> nn.Module:
    return Branches(branches, lambda parts: functools.reduce(operator.mul, parts))


def flatten(x):
    return x.reshape(x.shape[0], -1)


def spatial_axes(x):
    return tuple(range(1, x.ndim - 1))


def average(x):
    return jnp.mean(x, axis=spatial_axes(x))


def total(x):
    return x.sum(spatial_axes(x))


READOUTS = {"flatten": flatten, "average": average}


def average_pool(window, strides=None, padding="VALID", count_include_pad=True):
    return lambda x: nn.avg_pool(x, window, strides, padding, count_include_pad)


def sum_pool(window, strides, padding="VALID"):
    return lambda x: nn.pooling.pool(x, 0.0, jax.lax.add, window, strides, padding)


def circular_pool(window):
    """Average pooling of an image on a torus, with stride 1."""
    pads = [(0, 0), *(((k - 1) // 2, k // 2) for k in window), (0, 0)]
    return lambda x: nn.avg_pool(jnp.pad(x, pads, mode="wrap"), window)


def resize(method: str, *shape: int):
    return lambda x: jax.image.resize(x, (x.shape[0], *shape, x.shape[-1]), method)


def layer_norm(eps: float, axes: int | tuple[int, ...] = -1) -> nn.Module:
    return nn.LayerNorm(
        epsilon=eps, reduction_axes=axes, feature_axes=-1, use_scale=False, use_bias=False
    )


def layer_norm_by_hand(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt(jnp.mean(centred**2, -1, keepdims=True) + 0.1)


def dropout(rate: float) -> nn.Module:
    return nn.Dropout(rate, deterministic=False)


class WideResNet(nn.Module):
    """Zagoruyko and Komodakis (2016), without batch normalization, as their users write it."""

    blocks: int
    k: int = 1

    @nn.compact
    def __call__(self, x):
        x = Conv(4, (3, 3))(x)
        for group, channels in enumerate((4, 8, 16)):
            for block in range(self.blocks):
                strides = (2, 2) if group > 0 and block == 0 else (1, 1)
                y = Conv(channels * self.k, (3, 3), strides)(nn.relu(x))
                y = Conv(channels * self.k, (3, 3))(nn.relu(y))
                shortcut = Conv(channels * self.k, (3, 3), strides)(x) if block == 0 else x
                x = y + shortcut
        x = nn.avg_pool(x, x.shape[1:3])
        return Dense(1)(x.reshape((x.shape[0], -1)))


class Transformer(nn.Module):
    """Blocks of attention and of a perceptron, each after a LayerNorm and beside a skip."""

    blocks: int = 1

    @nn.compact
    def __call__(self, x):
        x = Dense(WIDTH, b_std=0.2)(x)
        for _ in range(self.blocks):
            x = x + Attention(qk_std=1.2)(layer_norm(1e-6)(x))
            hidden = nn.gelu(Dense(2 * WIDTH, b_std=0.1)(layer_norm(1e-6)(x)), approximate=False)
            x = x + Dense(WIDTH, w_std=1.1)(hidden)
        return Dense(1)(jnp.mean(x, axis=1))


class Standard(nn.Module):
    """Layers of Flax as they come: the standard parameterization, at finite width."""

    kernel_init: Callable = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
    bias_std: float | None = 0.0
    depth: int = 2

    @nn.compact
    def __call__(self, x):
        options = {
            "kernel_init": self.kernel_init,
            "use_bias": self.bias_std is not None,
            "bias_init": normal(self.bias_std) if self.bias_std else nn.initializers.zeros,
            "param_dtype": float,
        }
        for i in range(self.depth):
            x = nn.relu(nn.Dense(12 + 4 * i, **options)(x))
        return nn.Dense(1, **options)(x)


def standard_convolution(readout: Callable) -> nn.Module:
    options = {
        "kernel_init": nn.initializers.variance_scaling(2.0, "fan_in", "normal"),
        "bias_init": normal(0.2),
        "param_dtype": float,
    }
    return chain(
        nn.Conv(6, (3, 3), **options),
        nn.relu,
        nn.Conv(10, (3, 2), strides=(2, 1), **options),
        nn.relu,
        readout,
        nn.Dense(1, **options),
    )


# The cases.


class Activation(NamedTuple):
    """φ, standard deviations of weights and biases, and what a `Case` says besides."""

    phi: Callable
    stds: tuple[float, float] = (1.3, 0.4)
    depths: tuple[int, ...] = (1, 2, 3, 6)
    inputs: str = "vectors"
    closed: bool = True


gelu = functools.partial(nn.gelu, approximate=False)
logistic = lambda x: 0.5 * erf(x / 2.4020563531719796) + 0.5  # noqa: E731
quadrature = functools.partial(Activation, closed=False)
unit = functools.partial(Activation, inputs="unit")
ACTIVATIONS = {
    "linear": Activation(identity, depths=(1, 3)),
    "relu": Activation(nn.relu, (2**0.5, 0.3)),
    "leaky_relu": Activation(lambda x: nn.leaky_relu(x, 0.2)),
    "two_slopes": Activation(
        lambda x: -0.3 * jnp.minimum(x, 0) + 1.7 * jnp.maximum(x, 0), (0.8, 0.4)
    ),
    "abs": Activation(jnp.abs, (1.0, 0.4)),
    "erf": Activation(erf),
    "erf_affine": Activation(lambda x: 0.7 * erf(1.5 * x) + 0.2),
    "sigmoid_like": Activation(logistic),
    "gelu": Activation(gelu),
    "sin": Activation(jnp.sin),
    "cos": Activation(jnp.cos),
    "sin_affine": Activation(lambda x: 1.2 * jnp.sin(0.8 * x + 0.3)),
    "rbf": Activation(
        lambda x: jnp.sqrt(2.0) * jnp.sin(jnp.sqrt(1.4) * x + jnp.pi / 4), (1.0, 0.4)
    ),
    "gabor": quadrature(lambda x: jnp.exp(-(x**2)) * jnp.sin(x)),
    "exp": Activation(jnp.exp, (0.4, 0.1)),
    "exp_affine": Activation(lambda x: 1.1 * jnp.exp(-0.6 * x), (0.5, 0.1)),
    "gaussian": Activation(lambda x: jnp.exp(-(x**2))),
    "gaussian_affine": Activation(lambda x: 1.4 * jnp.exp(-0.3 * x * x)),
    "sign": Activation(jnp.sign),
    "step": Activation(lambda x: jnp.where(x >= 0, 1.0, 0.0)),
    "polynomial": Activation(lambda x: 0.3 + 0.5 * x + 0.2 * x**2 - 0.05 * x**3, (1.0, 0.2)),
    # Polynomials on inputs of length √5: at depth 6 others would overflow.
    "square": unit(jnp.square, (3**-0.5, 0.1), (1, 2, 3)),
    "cube": unit(lambda x: x**3, (0.5, 0.1), (1, 2, 3)),
    "power_4": unit(lambda x: x**4, (0.5, 0.1), (1, 2)),
    "power_5": unit(lambda x: x**5, (0.5, 0.1), (1, 2)),
    "hermite_2": unit(lambda x: (x**2 - 1) / 2**0.5, (1.0, 0.0)),
    "hermite_3": unit(lambda x: (x**3 - 3 * x) / 6**0.5, (1.0, 0.0)),
    "relu_squared": quadrature(lambda x: nn.relu(x) ** 2, (0.8, 0.2), (1, 2, 3), "unit"),
    "tanh": quadrature(jnp.tanh),
    "sigmoid": quadrature(nn.sigmoid),
    "softplus": quadrature(nn.softplus),
    "silu": quadrature(nn.silu),
    "mish": quadrature(lambda x: x * jnp.tanh(nn.softplus(x))),
    "gelu_tanh": quadrature(nn.gelu),
    "elu": quadrature(nn.elu),
    "selu": quadrature(nn.selu, (1.0, 0.4)),
}


def fully_connected() -> dict[str, Case]:
    cases = {}
    for name, activation in ACTIVATIONS.items():
        phi, (w_std, b), depths, inputs, closed = activation
        for depth, b_std in itertools.product(depths, sorted({0.0, b})):
            hidden = [(Dense(WIDTH, w_std, b_std), phi) for _ in range(depth)]
            network = chain(*itertools.chain(*hidden), Dense(1, w_std, b_std))
            suffix = "/bias" if b_std else ""
            cases[f"dense/{name}/{depth}{suffix}"] = Case(network, inputs, closed)
    return cases


def convolutional() -> dict[str, Case]:
    cases = {}

    def grid(inputs, kernels, padding, strides, layer=nn.Conv, first="convolution"):
        for readout, reduce in READOUTS.items():
            network = chain(
                Conv(WIDTH, kernels[0], strides, padding, 1.4, 0.2, layer=layer),
                nn.relu,
                Conv(WIDTH, kernels[1], None, padding, 1.3, 0.1),
                nn.relu,
                reduce,
                Dense(1, 1.1, 0.3),
            )
            steps = "x".join(map(str, strides))
            cases[f"{first}/{inputs}/{padding}/{steps}/{readout}"] = Case(network, inputs)

    for padding in ("SAME", "VALID", "CIRCULAR"):
        for strides in ((1,), (2,)):
            grid("series", ((3,), (2,)), padding, strides)
            grid("series", ((3,), (2,)), padding, strides, nn.ConvTranspose, "transposed")
        for strides in ((1, 1), (2, 2), (2, 1)):
            grid("images", ((3, 3), (2, 3)), padding, strides)
        grid("images", ((3, 2), (2, 3)), padding, (2, 1), nn.ConvTranspose, "transposed")
        grid("volumes", ((2, 3, 3), (3, 1, 2)), padding, (1, 1, 1))
    grid("volumes", ((2, 3, 3), (3, 1, 2)), "SAME", (2, 1, 2))

    c = functools.partial(Conv, WIDTH)
    start = (c((3, 3), w_std=1.4, b_std=0.2), nn.relu)
    between = {
        "average": average_pool((2, 2), (2, 2)),
        "average_same": average_pool((3, 3), (2, 2), "SAME"),
        "average_edges": average_pool((3, 3), (2, 2), "SAME", count_include_pad=False),
        "average_circular": circular_pool((2, 3)),
        "average_overlapping": average_pool((2, 3), (1, 2)),
        "sum": sum_pool((2, 2), (2, 2)),
        "sum_same": sum_pool((3, 2), (2, 1), "SAME"),
        "every_second": lambda x: x[:, ::2, 1::2],
        "crop": lambda x: x[:, 2:6, :4],
        "reverse": lambda x: x[:, ::-1],
        "resized_linear": chain(c((2, 2)), nn.relu, resize("linear", 12, 10)),
        "resized_nearest": chain(c((2, 2)), nn.relu, resize("nearest", 5, 10)),
    }
    for name, pool in between.items():
        for readout, reduce in READOUTS.items():
            network = chain(*start, pool, c((2, 2), b_std=0.1), nn.relu, reduce, Dense(1))
            cases[f"pooling/{name}/{readout}"] = Case(network, "images")
        if name.startswith("average"):
            network = chain(c((3, 3)), pool, nn.relu, flatten, Dense(1))
            cases[f"pooling/{name}/before_activation"] = Case(network, "images")
            cases[f"pooling/{name}/last"] = Case(chain(*start, pool, flatten, Dense(1)), "images")
    last = {
        "weighted_rows": (
            lambda x: jnp.einsum("nhwc,h->nwc", x, ROWS),
            *(c((2,), b_std=0.1), nn.relu, flatten, Dense(1)),
        ),
        "sum": (total, Dense(1)),
        "one_position": (lambda x: x[:, 3, 2], Dense(1)),
        "one_row": (lambda x: x[:, 3], average, Dense(1)),
        "no_dense": (Conv(1, (3, 3)), average),
        "perceptron_flatten": (flatten, Dense(WIDTH, 1.3, 0.1), nn.relu, Dense(1)),
        "perceptron_average": (average, Dense(WIDTH, 1.3, 0.1), erf, Dense(1)),
        "per_position": (Dense(WIDTH, 1.3, 0.1), nn.relu, average, Dense(1)),
        "scalar": (average, Dense(1), lambda x: x[:, 0]),
    }
    for name, layers in last.items():
        cases[f"readout/{name}"] = Case(chain(*start, *layers), "images")
    for name, phi in {"erf": erf, "gelu": gelu, "abs": jnp.abs, "sin": jnp.sin}.items():
        for readout, reduce in READOUTS.items():
            network = chain(c((3, 3)), phi, c((3, 3), None, "CIRCULAR"), phi, reduce, Dense(1))
            cases[f"convolution/{name}/{readout}"] = Case(network, "images")
    for readout, reduce in READOUTS.items():
        network = chain(c((3,)), jnp.tanh, c((3,)), nn.softplus, reduce, Dense(1))
        cases[f"convolution/tanh_softplus/{readout}"] = Case(network, "series", False)
        cases[f"standard/convolution/{readout}"] = Case(standard_convolution(reduce), "images")
    cases["dense/images"] = Case(
        chain(flatten, Dense(WIDTH, 1.2, 0.2), nn.relu, Dense(1)), "images"
    )
    return cases


ROWS = np.linspace(-1.0, 2.0, 9)  # weights of the nine rows of an image


def branching() -> dict[str, Case]:
    d = functools.partial(Dense, WIDTH)
    stem, head = d(1.2, 0.2), (nn.relu, Dense(1, 1.1, 0.1))
    skip = lambda *branch: add(chain(*branch), identity)  # noqa: E731
    c = functools.partial(Conv, WIDTH)
    vectors = {
        "residual/1": (stem, skip(nn.relu, d(1.3, 0.1)), *head),
        "residual/5": (stem, *[skip(nn.relu, d(1.3, 0.1)) for _ in range(5)], *head),
        "residual/erf": (stem, *[skip(erf, d(1.3, 0.1)) for _ in range(3)], erf, Dense(1)),
        "residual/two_layers": (stem, skip(nn.relu, d(1.3), gelu, d(0.7, 0.1)), *head),
        "residual/scaled": (
            stem,
            *[skip(nn.relu, d(1.4), lambda x: 0.5 * x) for _ in range(3)],
            *head,
        ),
        "residual/linear_head": (stem, skip(nn.relu, d(1.3, 0.1)), Dense(1)),
        "residual/from_inputs": (add(chain(d(), erf, d(1.3)), d(0.6, 0.1)), *head),
        "residual/nested": (
            stem,
            skip(nn.relu, d(1.3), skip(nn.relu, d(0.8)), nn.relu, d(0.9)),
            *head,
        ),
        "residual/three": (
            stem,
            add(
                chain(nn.relu, d(1.3)),
                chain(erf, d(1.1), nn.relu, d(0.8, 0.2)),
                chain(jnp.abs, d(0.9)),
            ),
            *head,
        ),
        "residual/outputs": (stem, add(chain(nn.relu, Dense(1)), chain(erf, Dense(1)))),
        "concatenation/equal": (
            stem,
            concatenate(chain(nn.relu, d(1.3), nn.relu), chain(erf, d(), erf)),
            *(d(1.2, 0.1), *head),
        ),
        "concatenation/uneven": (
            concatenate(chain(d(1.3, 0.2), nn.relu), chain(Dense(3 * WIDTH), jnp.sin)),
            *(d(1.2, 0.1), *head),
        ),
        "concatenation/output": (concatenate(d(1.3, 0.2), chain(d(), nn.relu)), Dense(1)),
        "product/bilinear": (multiply(d(1.3, 0.2), d()), Dense(1, 1.2, 0.1)),
        "product/gate": (
            stem,
            gelu,
            multiply(chain(d(1.4), logistic), d(1.1)),
            *(d(1.2, 0.1), *head),
        ),
        "product/activations": (
            stem,
            multiply(chain(nn.relu, d(), erf), chain(erf, d(1.3, 0.2), nn.relu)),
            *(d(1.2, 0.1), *head),
        ),
        "product/three": (
            stem,
            nn.relu,
            multiply(d(1.2), chain(d(1.1, 0.1), nn.relu), chain(d(), erf)),
            *(d(1.2, 0.1), *head),
        ),
        "product/in_residual": (
            stem,
            skip(nn.relu, multiply(d(1.3), chain(d(), erf)), d(1.2, 0.1)),
            *head,
        ),
        "norm/1": (stem, layer_norm(1e-6), *head),
        "norm/epsilon": (stem, layer_norm(0.3), nn.relu, d(1.3, 0.1), layer_norm(0.1), *head),
        "norm/by_hand": (stem, layer_norm_by_hand, gelu, Dense(1)),
        "norm/residual": (
            stem,
            *[skip(layer_norm(1e-6), nn.relu, d(1.3, 0.1)) for _ in range(3)],
            layer_norm(1e-6),
            *head,
        ),
        "norm/head": (stem, nn.relu, d(1.2), layer_norm(1e-5), Dense(1)),
        "dropout/1": (stem, nn.relu, dropout(0.2), Dense(1)),
        "dropout/2": (stem, erf, dropout(0.3), d(1.3, 0.1), nn.relu, dropout(0.5), Dense(1)),
        "dropout/before_dense": (stem, dropout(0.2), d(1.3, 0.1), *head),
        "dropout/residual": (stem, skip(nn.relu, dropout(0.3), d(1.3, 0.1)), *head),
    }
    series = {
        "concatenation/positions": (
            concatenate(c((3,), b_std=0.1), c((2,), None, "VALID", w_std=1.2), axis=1),
            *(nn.relu, flatten, Dense(1)),
        ),
    }
    for readout, reduce in READOUTS.items():
        series |= {
            f"attention/identity/{readout}": (
                d(1.2, 0.2),
                nn.relu,
                Attention(tied=False, weigh=identity, qk_std=1.1, ov_std=0.8),
                *(nn.relu, reduce, Dense(1)),
            ),
            f"attention/softmax/{readout}": (
                d(1.2, 0.2),
                nn.relu,
                Attention(qk_std=1.1, ov_std=0.8, b_std=0.3),
                *(nn.relu, reduce, Dense(1)),
            ),
        }
    finish = (nn.relu, average, Dense(1))
    series |= {
        "attention/identity/inputs": (Attention(tied=False, weigh=identity, b_std=0.3), *finish),
        "attention/identity/two": (
            d(1.2, 0.2),
            *[Attention(tied=False, weigh=identity, ov_std=0.6) for _ in range(2)],
            *finish,
        ),
        "attention/softmax/inputs": (Attention(qk_std=1.7, b_std=0.3), *finish),
        "attention/softmax/two": (d(1.2, 0.2), Attention(), erf, Attention(qk_std=1.5), *finish),
        "attention/softmax/relu": (d(1.2), nn.relu, Attention(weigh=nn.relu), *finish),
        "attention/softmax/abs": (d(1.2), nn.relu, Attention(weigh=jnp.abs), *finish),
        "attention/softmax/linear": (d(1.2), erf, Attention(weigh=identity), *finish),
    }
    for name in ("sum", "concat"):
        for suffix, values_too in {"": False, "_values": True}.items():
            attention = Attention(positions=name, values_too=values_too, qk_std=1.3)
            layers = (d(1.2), nn.relu, attention, *finish)
            series[f"attention/positions/{name}{suffix}"] = layers
    rows = lambda x: x.reshape(x.shape[0], -1, x.shape[-1])  # noqa: E731
    images = {
        "attention/image": (c((3, 3)), nn.relu, rows, Attention(), nn.relu, average, Dense(1)),
    }
    for readout, reduce in READOUTS.items():
        blocks = [skip(nn.relu, c((3, 3), w_std=1.3, b_std=0.1)) for _ in range(2)]
        over_all = layer_norm(1e-6, (1, 2, 3))
        images |= {
            f"residual/convolution/{readout}": (c((3, 3)), *blocks, nn.relu, reduce, Dense(1)),
            f"concatenation/convolution/{readout}": (
                concatenate(chain(c((3, 3)), nn.relu), chain(c((1, 2)), erf)),
                *(c((2, 2), b_std=0.1), nn.relu, reduce, Dense(1)),
            ),
            f"product/convolution/{readout}": (
                multiply(chain(c((3, 3)), nn.relu), chain(c((1, 2), b_std=0.2), erf)),
                *(c((2, 2), b_std=0.1), nn.relu, reduce, Dense(1)),
            ),
            f"norm/convolution/{readout}": (
                *(c((3, 3)), layer_norm(1e-6), nn.relu, c((3, 3), b_std=0.1), layer_norm(0.1)),
                *(nn.relu, reduce, Dense(1)),
            ),
            f"norm/positions/{readout}": (
                *(c((3, 3)), over_all, nn.relu, c((3, 2), (2, 1), b_std=0.1), over_all),
                *(nn.relu, reduce, Dense(1)),
            ),
            f"dropout/convolution/{readout}": (
                *(c((3, 3)), nn.relu, dropout(0.2), c((2, 2), b_std=0.1), nn.relu, dropout(0.4)),
                *(reduce, Dense(1)),
            ),
        }
    cases = {name: Case(chain(*layers)) for name, layers in vectors.items()}
    cases |= {name: Case(chain(*layers), "series") for name, layers in series.items()}
    cases |= {name: Case(chain(*layers), "images") for name, layers in images.items()}
    cases |= {f"wide_resnet/{n}": Case(WideResNet(n), "squares") for n in (1, 2)}
    cases |= {f"transformer/{n}": Case(Transformer(n), "series") for n in (1, 2)}
    he = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
    cases |= {
        "standard/1": Case(Standard(depth=1)),
        "standard/3": Case(Standard(depth=3)),
        "standard/no_bias": Case(Standard(he, None)),
        "standard/random_bias": Case(Standard(he, 0.3)),
        # Truncated normal weights: their variance alone counts, also where the fan-in is finite.
        "standard/lecun_normal": Case(Standard(nn.initializers.lecun_normal())),
    }
    return cases


CASES: dict[str, Case] = {**fully_connected(), **convolutional(), **branching()}
