"""Networks of Flax, Linen and NNX."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from helpers import MLP
from networks import (
    IMAGE,
    SERIES,
    Network,
    chain,
    draw,
    flatten,
    inputs,
    linen,
    network,
    spatial_mean,
    tokens,
)

from ntkflow import from_nnx, layers


@network
def ten_outputs():
    return linen(MLP(10))


@network
def scalar():
    return linen(MLP(None))


@network
def ntk_parameterization():
    return linen(chain(layers.Dense(9, 2**0.5, 0.3), nn.relu, layers.Dense(1, b_std=0.1)))


@network
def several_axes():
    module = chain(
        nn.DenseGeneral((3, 2), axis=(-2, -1)),
        nn.gelu,
        nn.DenseGeneral(4, axis=(1, 2)),
    )
    return linen(module, SERIES)


@network
def tokens_mixed():
    """MLP-mixer: a layer across positions and one across channels, a skip around each."""

    class Mixer(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = x + jnp.swapaxes(nn.Dense(5)(jnp.swapaxes(nn.LayerNorm()(x), 1, 2)), 1, 2)
            x = x + nn.Dense(3)(nn.silu(nn.Dense(4)(nn.LayerNorm()(x))))
            return nn.Dense(2)(x.mean(1))

    return linen(Mixer(), SERIES)


@network
def ntk_convolution():
    conv = functools.partial(layers.Conv, kernel_size=(3, 3), w_std=2**0.5, b_std=0.1)
    return linen(chain(conv(4), nn.relu, conv(3), nn.relu, spatial_mean, layers.Dense(2)), IMAGE)


@network
def lenet():
    module = chain(
        nn.Conv(3, (3, 3)),
        nn.tanh,
        lambda x: nn.avg_pool(x, (2, 2), (2, 2)),
        nn.Conv(4, (2, 2), padding="VALID"),
        nn.relu,
        lambda x: nn.max_pool(x, (2, 2), (1, 1)),
        flatten,
        nn.Dense(5),
        nn.tanh,
        nn.Dense(4),
    )
    return linen(module, (8, 8, 1))


@network
def resnet():
    class ResNet(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.GroupNorm(2)(nn.Conv(4, (3, 3), use_bias=False)(x)))
            y = nn.relu(nn.GroupNorm(2)(nn.Conv(6, (3, 3), 2)(x)))
            y = nn.Conv(6, (3, 3))(y)
            x = nn.relu(y + nn.Conv(6, (1, 1), 2)(x))
            return nn.Dense(3)(spatial_mean(x))

    return linen(ResNet(), IMAGE)


@network
def depthwise():
    module = chain(
        nn.Conv(4, (3, 3), feature_group_count=2),
        nn.relu,
        nn.Conv(3, (1, 1)),
        nn.relu,
        nn.Conv(3, (3, 3), strides=2, feature_group_count=3),
        flatten,
        nn.Dense(2),
    )
    return linen(module, IMAGE)


@network
def grouped_and_dilated():
    module = chain(
        nn.Conv(4, (2, 3), kernel_dilation=2),
        nn.tanh,
        nn.Conv(6, (3, 2), feature_group_count=2, strides=(2, 1)),
        nn.tanh,
        nn.Conv(2, (2, 2), input_dilation=(2, 1), kernel_dilation=(1, 2), padding=((1, 2), (0, 1))),
        spatial_mean,
    )
    return linen(module, IMAGE)


@network
def transposed_convolution():
    module = chain(
        nn.Conv(3, (3, 3), strides=2),
        nn.tanh,
        nn.ConvTranspose(2, (3, 3), strides=(2, 2)),
        nn.tanh,
        nn.ConvTranspose(2, (2, 2), padding="VALID", transpose_kernel=True),
        lambda x: x[:, ::3, ::3].reshape(x.shape[0], -1),
    )
    return linen(module, IMAGE)


@network
def series():
    module = chain(
        nn.Conv(3, 3, padding="CAUSAL"),
        nn.tanh,
        nn.Conv(4, 3, padding="CIRCULAR"),
        nn.tanh,
        nn.Conv(2, 2, strides=2, padding="VALID"),
        flatten,
    )
    return linen(module, (7, 2))


@network
def transformer():
    class Transformer(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(4)(x)
            x = x + self.param("positions", nn.initializers.normal(), (1, *x.shape[1:]))
            x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x))
            x = x + nn.Dense(4)(nn.gelu(nn.Dense(8)(nn.LayerNorm()(x))))
            return nn.Dense(3)(nn.LayerNorm()(x).mean(1))

    return linen(Transformer(), SERIES)


@network
def causal_language_model():
    """Tokens that repeat, a causal mask, and an embedding that is tied to the outputs."""

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            embed = nn.Embed(7, 4)
            h = embed(x) + nn.Embed(5, 4, name="positions")(jnp.arange(5))[None]
            attention = nn.MultiHeadDotProductAttention(2)
            h = h + attention(nn.RMSNorm()(h), mask=nn.make_causal_mask(x))
            h = h + nn.Dense(4)(nn.relu(nn.Dense(6)(nn.RMSNorm()(h))))
            return embed.attend(h[:, -1])

    return linen(Model(), tokens(5, 7))


@network
def normalizations():
    module = chain(
        nn.Conv(4, (3, 3)),
        nn.GroupNorm(2),
        nn.tanh,
        nn.Conv(4, (2, 2)),
        nn.InstanceNorm(),
        nn.tanh,
        spatial_mean,
        nn.Dense(5),
        nn.LayerNorm(),
        nn.Dense(4),
        nn.RMSNorm(),
    )
    return linen(module, IMAGE)


@network
def frozen_batch_norm():
    norm = functools.partial(nn.BatchNorm, use_running_average=True)
    module = chain(nn.Conv(3, (3, 3)), norm(), nn.relu, spatial_mean, nn.Dense(3), norm())
    return linen(module, IMAGE)


@network
def weight_norm():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.tanh(nn.WeightNorm(nn.Dense(5))(x))
            return nn.WeightNorm(nn.Dense(2), use_scale=False)(x)

    return linen(Model())


@network
def gru():
    module = chain(nn.RNN(nn.GRUCell(2, param_dtype=float), reverse=True), lambda x: x[:, -1])
    return linen(module, (4, 2))


@network
def shared_layers():
    """One layer on two views of the sample, one bias in two places, a layer applied twice."""

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            layer, block = nn.Dense(5), nn.Dense(5)
            bias = self.param("bias", nn.initializers.normal(), (5,))
            h = nn.tanh(layer(x) - layer(x[:, ::-1]) + bias[None])
            h = nn.tanh(block(nn.tanh(block(h))) + bias[None])
            return nn.Dense(2)(h)

    return linen(Model())


@network
def scanned_layers():
    """`nn.scan` over layers whose parameters are stacked, with `nn.remat` around each."""

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return x + nn.tanh(nn.Dense(4)(nn.LayerNorm()(x))), None

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            stack = nn.scan(
                nn.remat(Block), variable_axes={"params": 0}, split_rngs={"params": True}, length=3
            )
            return nn.Dense(2)(stack()(x, None)[0])

    return linen(Model())


@network
def rematerialized():
    return linen(
        chain(nn.remat(nn.Dense)(5), nn.tanh, nn.remat(nn.LayerNorm)(), nn.remat(nn.Dense)(2))
    )


@network
def trainable_activations():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.PReLU()(nn.Dense(5)(x))
            beta = self.param("beta", nn.initializers.ones, ())
            x = nn.Dense(5)(x)
            x = x * nn.sigmoid(beta * x)
            return self.param("scale", nn.initializers.ones, ()) * nn.Dense(2)(x)

    return linen(Model())


@network
def dropout():
    """A mask from a fixed key, one for all samples."""
    module = chain(
        nn.Dense(6), nn.tanh, nn.Dropout(0.4, broadcast_dims=(0,), deterministic=False), nn.Dense(2)
    )
    return linen(module, rngs={"dropout": jax.random.key(3)})


@network
def bfloat16():
    """Computed in bfloat16, with 8 bits, from parameters in float64."""
    dense = functools.partial(nn.Dense, dtype=jnp.bfloat16)
    return linen(chain(dense(6), nn.tanh, dense(2)), tolerance=0.03)


class NNXConvolution(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 3, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(3, use_running_average=True, rngs=rngs)
        self.linear = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x):
        return self.linear(spatial_mean(nnx.relu(self.norm(self.conv(x)))))


class NNXEmbedding(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(6, 4, rngs=rngs, param_dtype=float)
        self.blocks = nnx.List([nnx.Linear(4, 4, rngs=rngs) for _ in range(2)])
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.mix = nnx.Einsum("ntc,tcd->nd", (5, 4, 3), (3,), rngs=rngs)

    def __call__(self, x):
        h = self.embed(x)
        for block in self.blocks:
            h = h + nnx.tanh(block(self.norm(h)))
        return self.mix(h)


def from_model(model, x1, x2):
    structure, state = nnx.split(nnx.eval_shape(lambda: model(nnx.Rngs(0))))
    apply, params = from_nnx(nnx.merge(structure, draw(state)))
    return Network(apply, params, x1, x2)


@network
def nnx_convolution():
    return from_model(NNXConvolution, *inputs(*IMAGE))


@network
def nnx_embedding():
    return from_model(NNXEmbedding, *tokens(5, 6))
