"""What the tests share: small networks of every kind, and one way to compare numbers."""

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
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def reduce_outputs(theta, outputs, scalar):
    """A kernel (n1, n2, o, o) as `empirical_ntk` returns it."""
    if scalar:
        return theta[:, :, 0, 0]
    diagonal = np.einsum("ijaa->ija", theta)
    return {"full": theta, "diagonal": diagonal, "trace": diagonal.sum(-1)}[outputs]


def transpose_samples(theta):
    return theta.transpose({2: (1, 0), 3: (1, 0, 2), 4: (1, 0, 3, 2)}[theta.ndim])


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
