"""What the tests share: small networks of every kind, and ways to draw, compile and compare."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


def assert_close(actual, desired, *, factor: float = 100.0, scale: float | None = None):
    """Equal up to `factor` roundings of the coarser dtype, relative to the largest entry."""
    actual, desired = np.asarray(actual), np.asarray(desired)
    assert actual.shape == desired.shape, (actual.shape, desired.shape)
    floats = [a.dtype for a in (actual, desired) if np.issubdtype(a.dtype, np.floating)]
    eps = max((np.finfo(d).eps for d in floats), default=0.0)
    scale = np.abs(desired).max(initial=0.0) if scale is None else scale
    np.testing.assert_allclose(actual, desired, rtol=0, atol=factor * eps * max(scale, 1e-300))


def samples(seed: int, *shape: int, dtype="float64"):
    """Standard normal: the first of one long draw, or every shape would compile a program."""
    size = math.prod(shape)
    length = max(4096, 1 << (size - 1).bit_length())
    with jax.ensure_compile_time_eval():  # also where a test calls it in a trace
        drawn = np.asarray(jax.random.normal(jax.random.key(seed), (length,), dtype))
    return jnp.asarray(drawn[:size].reshape(shape))


def reduce_outputs(theta, outputs, scalar):
    """A kernel (n1, n2, o, o) as `empirical_ntk` returns it."""
    if scalar:
        return theta[:, :, 0, 0]
    diagonal = np.einsum("ijaa->ija", theta)
    return {"full": theta, "diagonal": diagonal, "trace": diagonal.sum(-1)}[outputs]


def transpose_samples(theta):
    return theta.transpose({2: (1, 0), 3: (1, 0, 2), 4: (1, 0, 3, 2)}[theta.ndim])


def compiled(f, **options):
    """Jitted with few optimizations, since it runs once: up to a seventh of the time.

    For identities, which hold of the trace whatever XLA makes of it. Where rounding, memory or
    equal bits are what is claimed, and inside of another program, take `jax.jit`.
    """
    return jax.jit(f, compiler_options=_quick_options(), **options)


@functools.cache
def _quick_options():
    options = {"xla_backend_optimization_level": 0}
    more = {**options, "xla_cpu_use_fusion_emitters": False}  # newer XLA lacks this one
    try:
        jax.jit(lambda: 0, compiler_options=more)()
    except jax.errors.JaxRuntimeError:
        return options
    return more


class MLP(nn.Module):
    """Two hidden layers of `flax.linen.Dense`, with biases; outputs=None is a scalar network."""

    outputs: int | None = 2
    width: int = 7
    param_dtype: str = "float64"

    @nn.compact
    def __call__(self, x):
        dense = lambda features, name: nn.Dense(  # noqa: E731
            features,
            param_dtype=self.param_dtype,
            name=name,
            bias_init=nn.initializers.normal(0.5),
        )
        x = nn.tanh(dense(self.width, "encoder")(x))
        x = nn.relu(dense(self.width, "middle")(x))
        y = dense(self.outputs or 1, "decoder")(x)
        return y if self.outputs else y[:, 0]


class CNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Conv(3, (3, 3), param_dtype=jnp.float64)(x))
        x = nn.Conv(2, (2, 2), strides=2, param_dtype=jnp.float64)(x)
        return nn.Dense(3, param_dtype=jnp.float64)(nn.silu(x.reshape(len(x), -1)))


class NNXNetwork(nnx.Module):
    def __init__(self, rngs):
        dtype = jnp.float64
        self.encoder = nnx.Linear(4, 6, rngs=rngs, param_dtype=dtype)
        self.norm = nnx.LayerNorm(6, rngs=rngs, param_dtype=dtype)
        self.decoder = nnx.Linear(6, 3, rngs=rngs, param_dtype=dtype)

    def __call__(self, x):
        return self.decoder(nnx.gelu(self.norm(self.encoder(x))))
