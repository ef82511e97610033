"""Networks that neural-tangents lacks: against the formulas by hand, and against finite width."""

import architectures
import flax.linen as nn
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from architectures import Conv, chain
from helpers import compiled
from jax.scipy.special import erf

from ntkflow.kernels import infinite_width, monte_carlo_kernel
from ntkflow.kernels.dual import dual_activation, mean
from ntkflow.layers import Dense

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(4, 3)) * np.array([[0.2], [0.7], [1.0], [2.0]])  # of different lengths
SERIES = RANDOM.normal(size=(2, 5, 3))
TOKENS = np.array([[0, 1, 2, 3], [0, 1, 1, 1], [4, 1, 2, 3]])
WIDTH = 8

# By hand: matrices over all samples, or all pairs of a sample and a position.


def duals(phi, q):
    """E[φφ] and E[φ'φ'] for all entries of a covariance matrix."""
    own = jnp.diagonal(q)
    return tuple(k(own[:, None], q, own[None, :]) for k in dual_activation(phi))


def gram(x, b_std=0.0):
    x = x.reshape(-1, x.shape[-1])
    return x @ x.T / x.shape[-1] + b_std**2


def over_windows(size, length, *matrices):
    """Means over the offsets of a window of SAME padding, for both positions alike."""
    low = (size - 1) // 2
    results = []
    for matrix in matrices:
        n = len(matrix) // length
        pads = [(0, 0), (low, size - 1 - low)] * 2
        padded = jnp.pad(matrix.reshape(n, length, n, length), pads)
        moved = [padded[:, o : o + length, :, o : o + length] for o in range(size)]
        results.append(sum(moved).reshape(n * length, n * length) / size)
    return results


def flattened(length, matrix):
    """The readout of all positions: equal positions count."""
    n = len(matrix) // length
    return jnp.einsum("npmp->nm", matrix.reshape(n, length, n, length)) / length


def averaged(length, matrix):
    n = len(matrix) // length
    return matrix.reshape(n, length, n, length).mean((1, 3))


class ThesisResNet(nn.Module):
    """Section 3.2: the output of an activation is added to the stream, without a Dense between."""

    depth: int = 3
    c_res: float = 1.5

    @nn.compact
    def __call__(self, x):
        x = 0.9 * nn.relu(Dense(WIDTH, 3**0.5, name="layer_1")(x))
        for h in range(2, self.depth + 1):
            y = Dense(WIDTH, name=f"layer_{h}")(x)
            x = x + self.c_res / self.depth * nn.relu(y)
        return Dense(1)(x)


def thesis_resnet(x, depth=3, c_res=1.5):
    """(3.8) with √c_σ = 0.9: the NNGP, and the NTK of the last hidden layer alone, K^(H)."""
    first_mean = mean(nn.relu)
    k = x @ x.T
    b = 0.9 * first_mean(jnp.diagonal(k))
    k = 0.81 * duals(nn.relu, k)[0]
    c = c_res / depth
    for _ in range(2, depth + 1):
        value, slope = duals(nn.relu, k)
        gram_h = c**2 * k * slope
        m = first_mean(jnp.diagonal(k))
        cross = b[None, :] * m[:, None] + b[:, None] * m[None, :]
        k, b = k + c * cross + c**2 * value, b + c * m
    return k, gram_h


class Gated(nn.Module):
    @nn.compact
    def __call__(self, x):
        a, b = jnp.split(Dense(2 * WIDTH, b_std=0.2)(x), 2, axis=-1)
        return Dense(1)(a * erf(b))


def gated(x):
    q = gram(x, 0.2)
    value, slope = duals(erf, q)
    return q * value, 2 * q * value + q * slope * q


def normalized(phi):
    layers = (Dense(WIDTH, b_std=0.3), nn.LayerNorm(epsilon=0.1, param_dtype=float), phi)
    return chain(*layers, Dense(1))


def normalized_by_hand(phi):
    slope_times_identity = lambda x: x * jax.jvp(phi, (x,), (jnp.ones_like(x),))[1]  # noqa: E731

    def kernels(x):
        q = gram(x, 0.3)
        scale = jnp.sqrt(jnp.diagonal(q) + 0.1)
        z = q / (scale[:, None] * scale[None, :])
        value, slope = duals(phi, z)
        own_scale = duals(slope_times_identity, z)[0]  # E[n φ'(n) n' φ'(n')]: not a product
        return value, value + slope * (z + 1) + own_scale

    return kernels


class Nodes(nn.Module):
    """Fixed scales of the nodes, and a random one that is trained."""

    trained: bool

    @nn.compact
    def __call__(self, x):
        h = nn.relu(Dense(WIDTH)(x))
        if self.trained:
            return Dense(1)(h * self.param("s", nn.initializers.normal(0.7), (1, WIDTH), float))
        return Dense(1)(h * jnp.sqrt(jnp.linspace(0.1, 2.0, WIDTH))[None])


def nodes(trained):
    def kernels(x):
        q = gram(x)
        value, slope = duals(nn.relu, q)
        factor = 0.49 if trained else 1.05  # the mean of the squares
        return factor * value, factor * (value + slope * q) + trained * value

    return kernels


class Merged(nn.Module):
    """Two functions of one field, and a field that a third one makes."""

    @nn.compact
    def __call__(self, x):
        u = Dense(WIDTH)(x)
        return Dense(1)(nn.relu(u) + u + Dense(WIDTH)(erf(u)))


def merged(x):
    q = gram(x)
    value, slope = duals(lambda u: nn.relu(u) + u, q)
    inner, inner_slope = duals(erf, q)
    nngp = value + inner
    return nngp, nngp + slope * q + inner + inner_slope * q


class Repeated(nn.Module):
    """Concatenation of functions of one field."""

    @nn.compact
    def __call__(self, x):
        g = nn.relu(Dense(WIDTH)(x))
        return Dense(1)(jnp.concatenate([g, 2 * g + 1, erf(g - g)], axis=-1))


def repeated(x):
    q = gram(x)
    value, slope = duals(nn.relu, q)
    m = jnp.sqrt(jnp.diagonal(q) / (2 * jnp.pi))
    nngp = (5 * value + 2 * (m[:, None] + m[None, :]) + 1) / 3
    return nngp, nngp + 5 / 3 * slope * q


class BesideInputs(nn.Module):
    """Concatenation with the inputs: the parts count by their numbers of channels."""

    @nn.compact
    def __call__(self, x):
        return Dense(1)(jnp.concatenate([nn.relu(Dense(WIDTH)(x)), x], axis=-1))


def beside_inputs(x):
    q = gram(x)
    value, slope = duals(nn.relu, q)
    nngp = (WIDTH * value + 3 * q) / (WIDTH + 3)
    return nngp, nngp + WIDTH / (WIDTH + 3) * slope * q


class Positions(nn.Module):
    """Learned embeddings of positions, one for each channel."""

    @nn.compact
    def __call__(self, x):
        h = Dense(WIDTH)(x)
        h += self.param("positions", nn.initializers.normal(0.5), (1, 5, WIDTH), float)
        return Dense(1)(erf(Dense(WIDTH)(nn.relu(h).mean(1))))


def positions(x):
    plain = gram(x)
    same = jnp.tile(jnp.eye(5), (2, 2))
    value, slope = duals(nn.relu, plain + 0.25 * same)
    q = averaged(5, value)
    ntk = q + averaged(5, slope * (plain + same))
    value, slope = duals(erf, q)
    return value, value + slope * ntk


class Embedded(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        h = nn.Embed(7, WIDTH, embedding_init=nn.initializers.normal(1.0), param_dtype=float)(
            tokens
        )
        return Dense(1)(nn.relu(Conv(WIDTH, (2,))(h)).mean(1))


def embedded(tokens):
    tokens = tokens.reshape(-1)
    (q,) = over_windows(2, 4, (tokens[:, None] == tokens[None, :]).astype(float))
    value, slope = duals(nn.relu, q)
    nngp = averaged(4, value)
    return nngp, nngp + averaged(4, 2 * slope * q)


class Grouped(nn.Module):
    """A convolution in groups: 2, with a GroupNorm before, or one for each channel."""

    groups: int

    @nn.compact
    def __call__(self, x):
        h = Conv(WIDTH, (3,))(x)
        if self.groups == 2:
            h = nn.GroupNorm(num_groups=2, param_dtype=float)(h)
        options = {"use_bias": False, "kernel_init": nn.initializers.normal(1.0)}
        h = nn.Conv(WIDTH, (3,), feature_group_count=self.groups, param_dtype=float, **options)(
            nn.relu(h)
        )
        h = h / (3 * WIDTH / self.groups) ** 0.5
        if self.groups == WIDTH:
            h = Dense(WIDTH)(h)
        return Dense(1)(architectures.flatten(nn.relu(h)))


def grouped(groups):
    def kernels(x):
        (q,) = over_windows(3, 5, gram(x))
        ntk = q
        if groups == 2:  # normalized over positions too; a trained scale and bias of each channel
            variance = jnp.repeat(jnp.diagonal(q).reshape(2, 5).mean(1), 5) + 1e-6
            q = q / jnp.sqrt(variance[:, None] * variance[None, :])
            ntk = q + 1
        value, slope = duals(nn.relu, q)
        ntk = slope * ntk
        if groups == 2:
            ntk += value  # of the scale: relu'(n) n = relu(n)
        q, ntk = over_windows(3, 5, value, ntk)
        ntk += q
        if groups == WIDTH:
            ntk += q
        value, slope = duals(nn.relu, q)
        return flattened(5, value), flattened(5, value + slope * ntk)

    return kernels


class Statistics(nn.Module):
    """BatchNorm with frozen statistics: a scale and a bias, which are trained."""

    @nn.compact
    def __call__(self, x):
        norm = nn.BatchNorm(use_running_average=True, epsilon=0.5, param_dtype=float)
        return Dense(1)(nn.relu(norm(Conv(WIDTH, (3,))(x))).mean(1))


def statistics(x):
    (q,) = over_windows(3, 5, gram(x) / 1.5)
    value, slope = duals(nn.relu, q)
    nngp = averaged(5, value)
    return nngp, nngp + averaged(5, slope * (q + 1) + value)


BY_HAND = {
    "gated linear unit": (Gated(), gated, X),
    "trained LayerNorm, sin": (normalized(jnp.sin), normalized_by_hand(jnp.sin), X),
    "scales of nodes": (Nodes(False), nodes(False), X),
    "trained random scale": (Nodes(True), nodes(True), X),
    "merged terms": (Merged(), merged, X),
    "repeated field": (Repeated(), repeated, X),
    "beside inputs": (BesideInputs(), beside_inputs, X),
    "learned positions": (Positions(), positions, SERIES),
    "embedding": (Embedded(), embedded, TOKENS),
    "GroupNorm, grouped": (Grouped(2), grouped(2), SERIES),
    "depthwise": (Grouped(WIDTH), grouped(WIDTH), SERIES),
    "frozen statistics": (Statistics(), statistics, SERIES),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_kernels_are_those_by_hand(name):
    module, by_hand, x = BY_HAND[name]
    found, expected = compiled(lambda x: (infinite_width(module)(x), by_hand(x)))(x)
    for kernel, correct in zip(found, expected, strict=True):
        helpers.assert_close(kernel, correct, factor=1e4)


def test_the_residual_network_of_the_thesis_carries_its_means():
    kernel = infinite_width(ThesisResNet(), trainable=lambda path: "layer_3" in path)
    both = compiled(lambda x: (kernel(x), thesis_resnet(x)))(X)
    for found, expected in zip(*both, strict=True):
        helpers.assert_close(found, expected, factor=1e4)


def test_kernels_of_tokens_are_those_of_two_data_sets():
    kernel = compiled(infinite_width(Embedded()))
    for alone, pair in zip(kernel(TOKENS), kernel(TOKENS[:2], TOKENS[1:]), strict=True):
        assert alone.dtype == jnp.result_type(float)
        helpers.assert_close(pair, np.asarray(alone)[:2, 1:])


# At finite width: up to four standard errors, and a bias that falls as 1/width.


class PreNormTransformer(nn.Module):
    """Trained LayerNorms inside and behind residual blocks of two layers."""

    width: int

    @nn.compact
    def __call__(self, x):
        h = Dense(self.width)(x)
        for _ in range(2):
            y = nn.relu(Dense(self.width)(nn.LayerNorm(param_dtype=float)(h)))
            h = h + 0.7 * Dense(self.width)(y)
        return Dense(4)(nn.LayerNorm(param_dtype=float)(h))


class Correlated(nn.Module):
    """A sum of different functions of two fields that depend on each other."""

    width: int

    @nn.compact
    def __call__(self, x):
        u = Dense(self.width)(x)
        v = u + Dense(self.width)(nn.relu(u))
        return Dense(4)(erf(u) + jnp.sin(v) + v)


@pytest.mark.parametrize("network", [PreNormTransformer, Correlated])
def test_kernels_are_those_of_wide_networks(network):
    module, width = network(64), 64
    limit = compiled(infinite_width(module))(X)
    average, error = compiled(monte_carlo_kernel(module, 200))(jax.random.key(0), X)
    for kernel, found, deviation in zip(limit, average, error, strict=True):
        scale = np.sqrt(np.diagonal(kernel))
        allowed = 4 * np.asarray(deviation) + 2 / width * np.outer(scale, scale)
        assert (np.abs(np.asarray(kernel) - found) < allowed).all()
    # Trained scales make a quarter of the first's diagonal: without them it would fail.
    assert (allowed < 0.12 * np.outer(scale, scale)).all()


def few(reduce):
    """Four experts, whose average is no law of large numbers."""

    def init(key, x):
        shapes = {"first": (x.shape[1], 32), "experts": (4, 32, 16), "last": (16,)}
        keys = jax.random.split(key, 3)
        return {n: jax.random.normal(k, s) for k, (n, s) in zip(keys, shapes.items(), strict=True)}

    def apply(params, x):
        h = nn.relu(x @ params["first"]) / 32**0.5
        return reduce(jnp.einsum("bd,edf->bef", h, params["experts"])) @ params["last"] / 4

    return infinite_width((init, apply))


def test_an_average_over_few_experts_keeps_its_variance():
    x = helpers.samples(0, 3, 5)
    average, one = compiled(lambda x: (few(lambda h: h.mean(1))(x), few(lambda h: h[:, 0])(x)))(x)
    np.testing.assert_allclose(average.nngp, one.nngp / 4, rtol=1e-12)
    np.testing.assert_allclose(average.ntk, one.ntk / 4, rtol=1e-12)
