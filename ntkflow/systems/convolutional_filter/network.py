"""f(Z) = (1/k) Σ_i σ(w·Z_i): one filter over all patches, ReLU, average pooling.

The network of Du (2019), (6.1), with the loss ½ E (f − y)², a mean over samples with a factor ½.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow.kernels.arccos import ratio, safe_sqrt
from ntkflow.layers import ball
from ntkflow.systems.convolutional_filter.arguments import filter_of, floating, patches_of

Extract = Callable[[jax.Array], jax.Array]


class ConvolutionalFilter(nn.Module):
    """Convolution with one filter, ReLU, average pooling.

    f(Z) = (1/k) Σ_{i=1}^{k} σ(w·Z_i), with σ(x) = max(x, 0), for patches Z_1, …, Z_k that may
    overlap. With k = 1 it is one neuron. The one parameter, w, is the leaf "filter".

    Attributes:
      patches: None where inputs are patches, of shape (n, k, p); else a function from inputs to
        them, e.g. `functools.partial(ntkflow.data.image_patches, size=5)`.
      filter_init: initializer of w; by default uniform in the unit ball. The theorems ask for a
        ball whose radius depends on the teacher's norm.
      param_dtype: of the filter; float follows JAX.

    Raises:
      ValueError: patches that are not of shape (n, k, p), or not of the p of the filter.

    Example:
      >>> module = ConvolutionalFilter()
      >>> z = jnp.ones((6, 3, 4))
      >>> variables = jax.jit(module.init)(jax.random.key(0), z)
      >>> jax.tree.map(jnp.shape, variables)
      {'params': {'filter': (4,)}}
      >>> jax.jit(module.apply)(variables, z).shape
      (6,)

    Reference: Du (2019), "Gradient Descent for Non-convex Problems in Modern Machine Learning",
    (6.1), where patches are columns.
    """

    patches: Extract | None = None
    filter_init: Callable[..., jax.Array] = ball()
    param_dtype: Any = float

    @nn.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        z = patches_of(x if self.patches is None else self.patches(jnp.asarray(x)))
        if self.has_variable("params", "filter"):
            patches_of(z, self.get_variable("params", "filter").size)
        dtype = jax.dtypes.canonicalize_dtype(self.param_dtype)
        w = self.param("filter", self.filter_init, (z.shape[-1],), dtype)
        return _forward(w, z)


def predict(w: Any, z: ArrayLike) -> jax.Array:
    """Compute f(Z), shape (n,), of a filter (p,) or of the variables that hold it.

    Args:
      w: the filter.
      z: patches, shape (n, k, p).

    Raises:
      ValueError: shapes that do not fit, NaN.

    Example:
      >>> z = jnp.array([[[1.0, 0.0], [-1.0, 2.0]]])  # one sample of two patches
      >>> predict(jnp.array([3.0, 1.0]), z).tolist()
      [1.5]

    Reference: Du (2019), (6.1).
    """
    w = filter_of(w)
    return _forward(w, patches_of(z, w.size))


def loss(variables: Any, data: tuple[ArrayLike, ArrayLike]) -> jax.Array:
    """Compute ½ mean (f(Z) − y)² over samples, for `descend`, also on batches.

    Args:
      variables: of `ConvolutionalFilter`, or the filter itself.
      data: patches (n, k, p), and labels (n,).

    Raises:
      ValueError: shapes that do not fit, NaN.

    Example:
      >>> z = jnp.array([[[1.0, 0.0], [-1.0, 2.0]]])
      >>> variables = {"params": {"filter": jnp.array([3.0, 1.0])}}
      >>> float(jax.jit(loss)(variables, (z, jnp.array([0.5]))))
      0.5

    Reference: Du (2019), section 6.1.
    """
    z, y = data
    return jnp.mean(jnp.square(_errors(filter_of(variables), z, y))) / 2


def sampled_gradient(w: Any, z: ArrayLike, y: ArrayLike) -> jax.Array:
    """Compute the mean of (f(Z) − y)·(1/k) Σ_i 1{w·Z_i > 0} Z_i, the gradient of `loss` in w.

    Args:
      w: the filter (p,), or the variables that hold it.
      z, y: patches (n, k, p), and labels (n,).

    Returns:
      Shape (p,). At w·Z_i = 0 the derivative of ReLU is taken as 0, as `jax.nn.relu` does.

    Raises:
      ValueError: shapes that do not fit, NaN.

    Example:
      >>> z = jnp.array([[[1.0, 0.0], [-1.0, 2.0]]])
      >>> jax.jit(sampled_gradient)(jnp.array([3.0, 1.0]), z, jnp.array([0.5])).tolist()
      [0.5, 0.0]

    Reference: Du (2019), (6.2).
    """
    w = filter_of(w)
    errors = _errors(w, z, y)
    z = patches_of(z, w.size)
    weights = jnp.where(product(z, w) > 0, errors[:, None], 0) / z.shape[1]
    return product(weights.reshape(-1), z.reshape(-1, w.size)) / len(z)


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """a b, in full: accelerators would round the factors."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def unit_vector(x: jax.Array) -> jax.Array:
    """x/‖x‖, also where ‖x‖² leaves the range of the dtype; 0 for x = 0, as is its derivative."""
    # The largest entry is a constant to autodiff: x/‖x‖ does not change with it.
    x = ratio(x, jax.lax.stop_gradient(jnp.max(jnp.abs(x))))
    return ratio(x, safe_sqrt(jnp.sum(jnp.square(x))))


def _forward(w: jax.Array, z: jax.Array) -> jax.Array:
    return jnp.mean(jax.nn.relu(product(z, w)), axis=1)


def _errors(w: jax.Array, z: ArrayLike, y: ArrayLike) -> jax.Array:
    outputs, y = predict(w, z), floating(y)
    if y.shape != outputs.shape:
        raise ValueError(
            f"y has shape {y.shape} and the outputs {outputs.shape}; expected the same."
        )
    return outputs - y
