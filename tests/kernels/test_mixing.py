"""Which networks mix samples: judged by traces of one function on batches of different length."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from ntkflow.kernels.jaxprs import trace
from ntkflow.kernels.mixing import refuse_mixing

KEY = jax.random.key(0)


def judge(function, shape, counts=(2, 3), dtype="float32"):
    batches = (jax.ShapeDtypeStruct((n, *shape), dtype) for n in counts)
    refuse_mixing(*(trace(function, batch) for batch in batches))


def initialized(module, shape, dtype="float32"):
    """A module's apply, whose parameters are numbers of the trace."""
    variables = jax.eval_shape(module.init, KEY, jax.ShapeDtypeStruct((1, *shape), dtype))
    variables = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), variables)
    return lambda x: module.apply(variables, x)


def convolve(x, width, stride=1):
    """Over the second-last axis of (length, features)."""
    kernel = jnp.ones((width, x.shape[-1], 2), x.dtype)
    numbers = ("NHC", "HIO", "NHC")
    return jax.lax.conv_general_dilated(
        x[None], kernel, (stride,), "VALID", dimension_numbers=numbers
    )[0]


MIXING = {
    "reduce_sum": lambda h: h - h.mean(0, keepdims=True),
    "reduce_max": lambda h: nn.softmax(h, axis=0),
    "reduce_or": lambda h: h * jnp.any(h > 0, axis=0)[None],
    "reduce": lambda h: h + jax.lax.reduce(h, h.dtype.type(0), lambda a, b: a * a + b, (0,))[None],
    "argmax": lambda h: h + h.argmax(0)[None],
    "argmin": lambda h: h + h.argmin(0)[None],
    "cumsum": lambda h: jnp.cumsum(h, axis=0),
    "cumprod": lambda h: jnp.cumprod(h, axis=0),
    "cummax": lambda h: jax.lax.cummax(h, axis=0),
    "cumlogsumexp": lambda h: jax.lax.cumlogsumexp(h, axis=0),
    "sort": lambda h: jnp.sort(h, axis=0),
    "top_k": lambda h: jax.lax.top_k(h.T, 1)[0].T,
    "fft": lambda h: jnp.fft.fft(h, axis=0).real,
    "dot_general": lambda h: h @ (h.T @ h),
    "reduce_window_sum": lambda h: nn.avg_pool(h.T[..., None], (2,), padding="SAME")[..., 0].T,
    "reduce_window_max": lambda h: nn.max_pool(h.T[..., None], (2,))[..., 0].T,
    "conv_general_dilated": lambda h: convolve(h, 2),
    "rev": lambda h: h[::-1],
    "slice": lambda h: h - h[0][None],
    "dynamic_slice": lambda h: h - jax.lax.dynamic_slice_in_dim(h, 0, 1),
}


@pytest.mark.quick
@pytest.mark.parametrize("name", MIXING)
def test_what_runs_over_the_batch_is_refused_by_name_and_place(name):
    place = rf"line \d+ of \S*{__name__}\.py"
    with pytest.raises(
        ValueError, match=rf"mixes samples: {name} at {place}.* runs over the batch"
    ):
        judge(MIXING[name], (4,))


@pytest.mark.parametrize(
    "function", [lambda h: jnp.roll(h, 1, axis=0), lambda h: h - h[-1:], lambda h: h + h[1][None]]
)
def test_samples_that_meet_chosen_ones_are_refused(function):
    with pytest.raises(ValueError, match="mixes samples: slice"):
        judge(function, (4,))


def test_one_and_two_samples_tell_most():
    for name, function in MIXING.items():
        if name != "slice":  # with one sample h[0] is all of h
            with pytest.raises(ValueError, match=f"mixes samples: {name}"):
                judge(function, (4,), (1, 2))


def test_batch_normalization_mixes_in_training_alone():
    def norm(frozen):
        module = nn.BatchNorm(use_running_average=frozen)
        return lambda x: module.apply(statistics, x, mutable=["batch_stats"])[0]

    statistics = {"params": {"scale": jnp.ones(4), "bias": jnp.ones(4)}}
    statistics["batch_stats"] = {"mean": jnp.ones(4), "var": jnp.ones(4)}

    judge(norm(True), (4,))
    with pytest.raises(ValueError, match="use_running_average=True"):
        judge(norm(False), (4,))


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.MultiHeadDotProductAttention(2, deterministic=True)(x, x)


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.RNN(nn.GRUCell(3), reverse=True, keep_order=True)(x)


def flattened_windows(x):
    """Windows that do not overlap, over samples behind each other."""
    n, length, features = x.shape
    rows = x.reshape(n * length, features)
    pooled = nn.max_pool(rows[None], (3,), (3,))[0]
    return jnp.concatenate([convolve(rows, 2, 2).reshape(n, -1), pooled.reshape(n, -1)], axis=1)


APART = {
    "dense": (nn.Dense(3), (4,)),
    "convolution": (nn.Conv(3, (3, 3)), (6, 6, 2)),
    "transposed convolution": (nn.ConvTranspose(3, (3, 3), (2, 2)), (6, 6, 2)),
    "grouped convolution": (nn.Conv(4, (3,), feature_group_count=2), (6, 2)),
    "average pooling": (lambda x: nn.avg_pool(x, (2, 2), (2, 2)), (6, 6, 2)),
    "maximum pooling": (lambda x: nn.max_pool(x, (3, 3), padding="SAME"), (6, 6, 2)),
    "layer norm": (nn.LayerNorm(), (6, 2)),
    "group norm": (nn.GroupNorm(2), (6, 4)),
    "attention": (Attention(), (6, 4)),
    "recurrence": (Recurrent(), (4, 2)),
    "embedding": (nn.Embed(5, 3), (6,), "int32"),
    "one-hot": (lambda x: jax.nn.one_hot(x, 5) @ jnp.ones((5, 3)), (6,), "int32"),
    "flattening": (lambda x: x.reshape(len(x), -1) @ jnp.ones((12, 3)), (6, 2)),
    "softmax": (nn.softmax, (4,)),
    "sorting": (lambda x: jnp.sort(x, axis=-1) + jnp.argsort(x), (4,)),
    "median": (lambda x: jnp.median(x, axis=-1), (4,)),
    "choices": (lambda x: jnp.take_along_axis(x, x.argmax(1, keepdims=True), axis=1), (4,)),
    "accumulation": (lambda x: jnp.cumsum(x[:, ::-1], axis=1)[:, 0], (4,)),
    "spectrum": (lambda x: jnp.fft.rfft(x).real, (4,)),
    "tokens as samples": (lambda x: nn.softmax(x.reshape(-1, 3)).reshape(x.shape), (6, 3)),
    "windows of samples": (flattened_windows, (6, 2)),
    "per sample": (jax.vmap(lambda x: convolve(jnp.sort(x, axis=0), 2) + x[0, 0]), (6, 2)),
    "kernels of samples": (
        jax.vmap(lambda x: jax.lax.conv(x[None, None], x[None, None, :2], (1,), "SAME")),
        (6,),
    ),
    "precision": (lambda x: jax.lax.reduce_precision(x, 5, 10), (4,)),
    "numbers": (lambda x: x + jnp.sum(jnp.ones(len(x))), (4,)),
    "keys": (lambda x: x * jax.random.uniform(jax.random.split(KEY, len(x) + 1)[0]), (4,)),
    "loops": (lambda x: jax.lax.while_loop(lambda y: y.sum() < 9, lambda y: y + 1, x), (4,)),
}


@pytest.mark.parametrize("counts", [(1, 2), (2, 3)])
@pytest.mark.parametrize("name", APART)
def test_networks_that_keep_samples_apart_pass(name, counts):
    network, shape, *dtype = APART[name]
    if isinstance(network, nn.Module):
        network = initialized(network, shape, *dtype)
    judge(network, shape, counts, *dtype)


def test_code_that_depends_on_the_number_of_samples_passes():
    judge(lambda x: x.sum(0) if len(x) == 2 else jnp.sin(x), (4,))
    judge(lambda x: x.sum(0) if len(x) == 2 else x.prod(0), (4,))
