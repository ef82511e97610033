"""The three networks in plain NumPy, with the gradient of every output, beside their bounds."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ntkflow.systems.deep import fully_connected_bounds as plain, residual_bounds as residual
from ntkflow.systems.deep.activations import ActivationConstants
from ntkflow.systems.deep.constants import InitialNorms, Patches


class Activation(NamedTuple):
    function: Callable
    slope: Callable
    constants: ActivationConstants


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


SOFTPLUS = Activation(
    lambda z: np.logaddexp(z, 0.0),
    _sigmoid,
    ActivationConstants(math.log(2.0), 1.0, 0.25, 1.0854865030),
)
TANH = Activation(
    np.tanh,
    lambda z: 1 / np.cosh(z) ** 2,
    ActivationConstants(0.0, 1.0, 4 / 27**0.5, 2.5361754332),
)


class Network(NamedTuple):
    """weights: (q d, m), (q m, m) …; output (p, m); residual None is fully connected."""

    weights: list
    output: np.ndarray
    activation: Activation
    residual: float | None = None
    filter_size: int = 1

    @property
    def m(self):
        return self.output.shape[1]

    @property
    def depth(self):
        return len(self.weights)

    @property
    def patches(self):
        p = self.output.shape[0]
        return None if p == 1 else Patches(p, self.filter_size)

    def scale(self, layer):
        if layer == 0 or self.residual is None:
            return (self.activation.constants.normalization / self.m) ** 0.5
        return self.residual / (self.depth * self.m**0.5)

    def spread(self, x):
        """(n, p, c) to (n, p, q c)."""
        q, p = self.filter_size, x.shape[1]
        padded = np.pad(x, ((0, 0), (q // 2, q // 2), (0, 0)))
        return np.concatenate([padded[:, o : o + p] for o in range(q)], axis=-1)

    def gather(self, g):
        """The adjoint of `spread`."""
        q, (n, p, _) = self.filter_size, g.shape
        total = np.zeros((n, p + q - 1, g.shape[2] // q))
        for o, part in enumerate(np.split(g, q, axis=-1)):
            total[:, o : o + p] += part
        return total[:, q // 2 : q // 2 + p]

    def forward(self, x):
        """x^(0..H), each (n, p, c), and the pre-activations."""
        features, inner = [x], []
        for layer, w in enumerate(self.weights):
            inner.append(self.spread(features[-1]) @ w)
            new = self.scale(layer) * self.activation.function(inner[-1])
            keep = self.residual is not None and layer > 0
            features.append(features[-1] + new if keep else new)
        return features, inner

    def predict(self, x):
        return np.einsum("npm,pm->n", self.forward(x)[0][-1], self.output)

    def jacobians(self, x):
        """∂u_i/∂W^(h) flattened, (n, ·), for h = 1..H, and ∂u_i/∂a."""
        features, inner = self.forward(x)
        back, result = np.broadcast_to(self.output, features[-1].shape), []
        for layer in reversed(range(self.depth)):
            dz = self.scale(layer) * back * self.activation.slope(inner[layer])
            result.append(np.einsum("npc,npm->ncm", self.spread(features[layer]), dz))
            if layer > 0:
                below = self.gather(dz @ self.weights[layer].T)
                back = back + below if self.residual is not None else below
        result = [*reversed(result), features[-1]]
        return [part.reshape(len(x), -1) for part in result]

    def last_gram(self, x):
        jacobian = self.jacobians(x)[-2]
        return jacobian @ jacobian.T

    def moved(self, changes):
        """All weights plus `changes`, one array each, the output last."""
        weights = [w + change for w, change in zip(self.weights, changes[:-1], strict=True)]
        return self._replace(weights=weights, output=self.output + changes[-1])

    def norms(self, x):
        root = self.m**0.5
        sizes = [np.linalg.norm(h.reshape(len(x), -1), axis=1).max() for h in self.forward(x)[0]]
        return InitialNorms(
            max(np.linalg.norm(w, 2) for w in self.weights) / root,
            max(1.0, *sizes),
            np.linalg.norm(self.output, axis=1).max() / root,
            np.mean(self.output**4, axis=1).max() ** 0.25,
        )


def draw(seed, m, depth, *, d=3, residual=None, pixels=1, filter_size=1, activation=SOFTPLUS):
    rng = np.random.default_rng(seed)
    rows = [filter_size * size for size in [d] + [m] * (depth - 1)]
    weights = [rng.normal(size=(row, m)) for row in rows]
    output = rng.normal(size=(pixels, m))
    return Network(weights, output, activation, residual, filter_size)


def inputs(seed, n, *, d=3, pixels=1):
    x = np.random.default_rng(seed).normal(size=(n, pixels, d))
    return x / np.linalg.norm(x, axis=(1, 2), keepdims=True)


class Case(NamedTuple):
    """One network with its inputs, and the bounds at it as functions of what varies."""

    network: Network
    x: np.ndarray
    feature: Callable  # (layer, R)
    gram: Callable  # (R, **printed)
    admissible: float
    gradient: Callable  # ‖y − u‖
    second: Callable  # (η, ‖y − u‖)
    squared: Callable


def case(seed, m, depth, c_res=None, pixels=1, filter_size=1, activation=SOFTPLUS, n=3):
    """A Gaussian network on random inputs."""
    network = draw(
        seed,
        m,
        depth,
        residual=c_res,
        pixels=pixels,
        filter_size=filter_size,
        activation=activation,
    )
    return held_against(network, inputs(seed + 1, n, pixels=pixels))


def held_against(network, x):
    n, m, depth, c_res = len(x), network.m, network.depth, network.residual
    end = (network.activation.constants, network.norms(x))
    if c_res is None:
        room, first, middle = plain, (), (depth,)
    else:
        room, first, middle, end = residual, (c_res,), (depth,), (*end, network.patches)

    def call(function, *arguments, **options):
        return float(function(*arguments, *first, *end, **options).value)

    def feature(layer, radius):
        if c_res is None:
            return call(plain.feature_change, layer, radius)
        return float(residual.feature_change(c_res, radius, *end).value)

    def gram(radius, **options):
        head = (n, *middle, *first, radius)
        return float(room.gram_change(*head, *end, **options).value)

    return Case(
        network,
        x,
        feature,
        gram,
        float(room.admissible_radius(*(first or middle), *end).value),
        lambda norm, **options: call(room.gradient_norm, n, depth, norm, **options),
        lambda step, norm: call(room.second_order_change, n, m, depth, step, norm),
        lambda step, norm: call(room.squared_change, n, depth, step, norm),
    )


CASES = {
    "plain": case(0, 40, 3),
    "plain tanh": case(1, 40, 2, activation=TANH),
    "one layer": case(2, 40, 1),
    "resnet": case(3, 40, 4, 0.5),
    "resnet tanh": case(4, 40, 6, 0.9, activation=TANH),
    "convolution": case(5, 24, 3, 0.5, 4, 3),
    "convolution tanh": case(6, 24, 2, 0.2, 3, 3, TANH),
}


def directions(network, x):
    """Changes of all weights, every layer of norm √m: random, along gradients, along features."""
    rng, root = np.random.default_rng(7), network.m**0.5
    arrays = [*network.weights, network.output]
    shapes = [array.shape for array in arrays]
    unit = lambda change: root * change / np.linalg.norm(change)  # noqa: E731
    yield [unit(rng.normal(size=shape)) for shape in shapes]
    for sign in (1, -1):
        gradients = [part.sum(0) for part in network.jacobians(x)]
        yield [
            sign * unit(part.reshape(shape)) for part, shape in zip(gradients, shapes, strict=True)
        ]
        stretched = [
            np.linalg.svd(network.spread(h).reshape(-1, len(w)))[2][0][:, None]
            * np.ones(network.m)[None, :]
            for h, w in zip(network.forward(x)[0][:-1], network.weights, strict=True)
        ]
        yield [sign * unit(part) for part in (*stretched, network.output)]
