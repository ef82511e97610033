"""Networks written as functions of their parameters, used in every way."""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from networks import IMAGE, SERIES, VECTOR, Network, inputs, network, shapes, spatial_mean, tokens


@network
def bare_matrix():
    return Network(lambda w, x: jnp.sin(x @ w), shapes(w=(4, 2))["w"], *inputs(*VECTOR))


@network
def transposed_weights():
    """W x for samples in columns: the weight stands on the left."""

    def apply(w, x):
        return (w["top"] @ jnp.tanh(w["bottom"] @ x.T)).T

    return Network(apply, shapes(bottom=(5, 4), top=(3, 5)), *inputs(*VECTOR))


@network
def containers():
    """A list, a tuple with a name, a scalar, and an integer that is no parameter."""

    class Layer(NamedTuple):
        w: jax.Array
        b: jax.Array

    bottom, top = shapes(w=(4, 5), b=(5,)), shapes(w=(5, 2), b=(2,))
    params = [Layer(**bottom), Layer(**top), {"temperature": jnp.asarray(0.7)}, jnp.array([2, 3])]

    def apply(params, x):
        first, second, scale, whole = params
        h = jnp.tanh(x @ first.w + first.b[None])
        return scale["temperature"] * (h @ second.w + second.b[None]) * whole[None]

    return Network(apply, params, *inputs(*VECTOR))


@network
def einsum_layers():
    def apply(p, x):
        h = jnp.tanh(jnp.einsum("ntc,hcd->nhtd", x, p["heads"]))
        h = jnp.einsum("nhtd,ts,hde->nse", h, p["positions"], p["mix"])
        return jnp.einsum("nse,seo->no", h, p["out"])

    params = shapes(heads=(2, 3, 4), positions=(5, 3), mix=(2, 4, 3), out=(3, 3, 2))
    return Network(apply, params, *inputs(*SERIES))


@network
def bilinear():
    def apply(p, x):
        return (
            jnp.einsum("ni,oij,nj->no", x, p["w"], x)
            + jnp.einsum("ni,ij,nj->n", x, p["m"], x)[:, None]
        )

    return Network(apply, shapes(w=(2, 4, 4), m=(4, 4)), *inputs(*VECTOR))


@network
def channels_first():
    """Images and kernels with other orders of axes, written in lax; padding that cuts."""

    def apply(p, x):
        layout = ("NCHW", "OIHW", "NCHW")
        conv = functools.partial(jax.lax.conv_general_dilated, dimension_numbers=layout)
        x = jnp.tanh(
            conv(x, p["first"], (1, 1), [(2, -1), (0, 1)]) + p["bias"][None, :, None, None]
        )
        x = conv(x, p["second"], (2, 1), "SAME", rhs_dilation=(1, 2))
        return x.sum((2, 3))

    return Network(
        apply, shapes(first=(3, 2, 2, 3), bias=(3,), second=(2, 3, 3, 2)), *inputs(2, 6, 6)
    )


@network
def batch_in_the_middle():
    """A convolution whose sample axis is the second; and one without shared weights."""

    def apply(p, x):
        layout = ("HNWC", "HWIO", "NHCW")
        y = jax.lax.conv_general_dilated(
            x.transpose(1, 0, 2, 3), p["w"], (2, 2), "SAME", dimension_numbers=layout
        )
        y = jnp.tanh(y).transpose(0, 1, 3, 2)
        y = jax.lax.conv_general_dilated_local(
            y, p["local"], (1, 1), "VALID", (2, 2), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y.reshape(x.shape[0], -1)

    return Network(apply, shapes(w=(3, 3, 2, 3), local=(2, 2, 12, 2)), *inputs(*IMAGE))


@network
def made_weights():
    """Weights made of parameters before use: standardized, padded, masked, flipped, tiled."""

    def apply(p, x):
        mean, var = (f(p["w"], (0, 1, 2), keepdims=True) for f in (jnp.mean, jnp.var))
        w = (p["w"] - mean) / jnp.sqrt(var + 0.1)
        x = nn.tanh(jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=NHWC))
        y = jnp.pad(p["v"], ((1, 1), (0, 1), (0, 0), (0, 0)))[::-1] * p["mask"]
        x = jax.lax.conv_general_dilated(x, y, (2, 2), "SAME", dimension_numbers=NHWC)
        return spatial_mean(x) @ jnp.tile(p["top"], (1, 2)).reshape(3, 4)

    NHWC = ("NHWC", "HWIO", "NHWC")
    params = shapes(w=(3, 3, 2, 3), v=(1, 2, 3, 3), mask=(3, 3, 1, 1), top=(3, 2))
    return Network(apply, params, *inputs(*IMAGE))


@network
def lookups():
    """Tokens out of range: clipped, wrapped, filled with zeros; a matrix looked up by sample."""

    def apply(p, x):
        rows = p["clipped"].at[x].get(mode="clip") + p["wrapped"][x % 5 - 5]
        rows = rows + p["filled"].at[x].get(mode="fill", fill_value=0.0)
        matrices = p["matrices"][x[:, 0] % 2]  # (n, 3, 2)
        return jnp.einsum("nc,nco->no", jnp.tanh(rows).sum(1), matrices)

    x1, x2 = tokens(4, 9)
    params = shapes(clipped=(5, 3), wrapped=(5, 3), filled=(6, 3), matrices=(2, 3, 2))
    return Network(apply, params, x1, x2)


@network
def one_hot():
    def apply(p, x):
        return jnp.tanh(jax.nn.one_hot(x, 6, dtype=float) @ p["table"]).mean(1) @ p["top"]

    return Network(apply, shapes(table=(6, 3), top=(3, 2)), *tokens(4, 6))


@network
def tied_autoencoder():
    def apply(p, x):
        return jnp.tanh(x @ p["w"] + p["b"][None]) @ p["w"].T + p["c"][None]

    return Network(apply, shapes(w=(4, 3), b=(3,), c=(4,)), *inputs(*VECTOR))


@network
def nonlinear_parameters():
    def apply(p, x):
        h = jnp.sin(p["frequency"][None] * (x @ jnp.exp(p["log_w"])))
        h = h / (1 + p["scale"] ** 2)[None] + jnp.where(h > 0, h, p["slope"] * h)
        return h @ jax.nn.softmax(p["logits"], axis=0) / p["temperature_scale"]

    params = shapes(
        frequency=(5,), log_w=(4, 5), scale=(5,), slope=(), logits=(5, 2), temperature_scale=()
    )
    return Network(apply, params, *inputs(*VECTOR))


@network
def products_of_parameters():
    """W2 W1 before x, A + A.T, and a low-rank update: h (W0 + A B)."""

    def apply(p, x):
        h = jnp.tanh(x @ (p["w2"] @ p["w1"]).T)
        h = jnp.tanh(h @ (p["s"] + p["s"].T))
        return h @ (p["w0"] + 0.5 * p["a"] @ p["b"])

    params = shapes(w1=(3, 4), w2=(4, 3), s=(4, 4), w0=(4, 3), a=(4, 2), b=(2, 3))
    return Network(apply, params, *inputs(*VECTOR))


@network
def parts_of_parameters():
    """Queries, keys and values as slices of one matrix; a matrix put together of two."""

    def apply(p, x):
        q, k, v = jnp.split(x @ p["qkv"] + p["bias"][None, None], 3, -1)
        weights = jax.nn.softmax(jnp.einsum("ntd,nsd->nts", q, k))
        h = jnp.einsum("nts,nsd->ntd", weights, v) @ p["qkv"][:, :2]
        top = jnp.concatenate([p["left"], p["right"]], axis=1)
        return h[:, -1] @ top[:, ::-1]

    params = shapes(qkv=(3, 9), bias=(9,), left=(2, 1), right=(2, 2))
    return Network(apply, params, *inputs(*SERIES))


@network
def solved_parameters():
    """An orthogonal matrix by Cayley's transform, (I − A)⁻¹ (I + A), A = W − W.T."""

    def apply(p, x):
        a, identity = p["w"] - p["w"].T, jnp.eye(4)
        return jnp.tanh(x @ jnp.linalg.solve(identity - a, identity + a)) @ p["out"]

    return Network(apply, shapes(w=(4, 4), out=(4, 2)), *inputs(*VECTOR))


@network
def stopped_gradients():
    """A weight that is stopped in one of two places, one that is stopped, one that is unused."""

    def apply(p, x):
        h = jnp.tanh(x @ p["w"]) * jnp.tanh(x @ jax.lax.stop_gradient(p["w"]))
        h = h * jax.lax.stop_gradient(p["gate"])[None]
        return h @ p["out"]

    return Network(apply, shapes(w=(4, 3), gate=(3,), out=(3, 2), unused=(2, 2)), *inputs(*VECTOR))


@network
def outputs_without_inputs():
    """Parameters that no input touches; one output is a constant of them."""

    def apply(p, x):
        own = jnp.sum(p["w"] ** 2) * p["constant"]
        first = jnp.tanh(x @ p["w"]) + p["bias"][None]
        return jnp.concatenate([first, jnp.broadcast_to(own, (x.shape[0], 1))], 1) * p["all"]

    return Network(apply, shapes(w=(4, 2), bias=(2,), constant=(), all=()), *inputs(*VECTOR))


@network
def mixture_of_experts():
    """A softmax gate over experts, and a gate that picks one by each sample's largest score."""

    def apply(p, x):
        gate = jax.nn.softmax(x @ p["gate"])
        soft = jnp.einsum("ne,neo->no", gate, jnp.tanh(jnp.einsum("ni,eio->neo", x, p["experts"])))
        picked = p["picked"][jnp.argmax(gate, -1)]  # (n, i, o)
        return soft + jnp.einsum("ni,nio->no", x, picked)

    params = shapes(gate=(4, 3), experts=(3, 4, 2), picked=(3, 4, 2))
    return Network(apply, params, *inputs(*VECTOR))


@network
def hypernetwork():
    """Weights of one network are outputs of another: a matrix and a filter per sample."""

    def apply(p, x):
        kernel = (x[:, 0] @ p["w"] + p["b"][None]).reshape(-1, 3, 2)
        h = jnp.tanh(jnp.einsum("ntc,nco->nto", x, kernel))
        return jnp.einsum("nto,nt->no", h, x @ p["v"])

    return Network(apply, shapes(w=(3, 6), b=(6,), v=(3,)), *inputs(*SERIES))


@network
def message_passing():
    """A graph network: gather along edges, scatter-add to nodes; parameters on the edges."""

    def apply(p, x):
        senders, receivers = np.array([0, 1, 2, 3, 4, 0]), np.array([1, 2, 3, 4, 0, 2])
        messages = jnp.tanh(x[:, senders] @ p["w"]) * p["edges"][None, :, None]
        h = jnp.zeros((x.shape[0], 5, 4)).at[:, receivers].add(messages)
        table = jnp.zeros((5, 4)).at[receivers].add(p["scattered"])
        h = (h + table[None]).at[:, 0].set(p["first"][None])
        return jax.ops.segment_sum(h.swapaxes(0, 1), np.array([0, 0, 1, 1, 1]), 2)[0] @ p["out"]

    params = shapes(w=(3, 4), edges=(6,), scattered=(6, 4), first=(4,), out=(4, 2))
    return Network(apply, params, *inputs(*SERIES))


@network
def orders():
    """Sorting, running sums, largest values: what picks entries by value."""

    def apply(p, x):
        h = jnp.sort(x @ p["w"], axis=1)
        h = jnp.cumsum(h * p["scale"][None, :, None], axis=1)
        top = jax.lax.top_k(jnp.swapaxes(h, 1, 2), 2)[0]
        h = jnp.concatenate([h.max(1), h.min(1), top[..., 1], jax.nn.logsumexp(h, axis=1)], axis=1)
        return jnp.clip(h @ p["out"], -2, 2)

    return Network(apply, shapes(w=(3, 3), scale=(5,), out=(12, 2)), *inputs(*SERIES))


@network
def fourier_filter():
    """A real parameter that multiplies complex numbers."""

    def apply(p, x):
        return jnp.tanh(jnp.fft.irfft(jnp.fft.rfft(x) * p["filter"][None], 4)) @ p["out"]

    return Network(apply, shapes(filter=(3,), out=(4, 2)), *inputs(*VECTOR))
