"""Flax layers in the NTK parameterization, and the initializers of the papers that Flax lacks."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks

Initializer = Callable[..., jax.Array]


def rademacher(key: jax.Array, shape: Sequence[int], dtype: Any = float) -> jax.Array:
    """Draw independent signs, ±1 with probability ½ each, as floating point.

    `jax.random.rademacher` returns integers, which cannot be differentiated as parameters.

    Example:
      >>> sorted(set(rademacher(jax.random.key(0), (100,)).tolist()))
      [-1.0, 1.0]
    """
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    return jax.random.rademacher(key, tuple(shape)).astype(dtype)


def sphere(radius: float = 1.0, axis: int = 0) -> Initializer:
    """Build an initializer whose vectors along `axis` are uniform on the sphere of `radius`.

    A Flax kernel has shape (fan_in, features): with `axis=0` the incoming weights of each neuron
    lie on the sphere.

    Raises:
      ValueError: the radius is not positive.

    Example:
      >>> kernel = sphere()(jax.random.key(0), (5, 3))
      >>> jnp.linalg.norm(kernel, axis=0).round(6).tolist()
      [1.0, 1.0, 1.0]
    """
    if not radius > 0:
        raise ValueError(f"radius is {radius!r}; expected a number greater than 0.")

    def init(key: jax.Array, shape: Sequence[int], dtype: Any = float) -> jax.Array:
        direction = jax.random.normal(key, tuple(shape), jax.dtypes.canonicalize_dtype(dtype))
        return radius * direction / jnp.linalg.norm(direction, axis=axis, keepdims=True)

    return init


def ball(radius: ArrayLike = 1.0) -> Initializer:
    """Build an initializer that is uniform in the ball of `radius` around 0, which may be traced.

    A uniform direction times radius · U^{1/d}, d being the number of entries, U uniform in [0, 1].

    Raises:
      ValueError: the radius is negative, not finite, or not one number.

    Example:
      >>> bool(jnp.linalg.norm(ball(2.0)(jax.random.key(0), (3,))) <= 2)
      True
    """
    if np.ndim(radius):
        raise ValueError(f"radius has shape {np.shape(radius)}; expected one number.")
    if checks.is_concrete(radius) and not 0 <= np.asarray(radius) < np.inf:
        raise ValueError(f"radius is {radius}; expected a finite number, 0 or greater.")

    def init(key: jax.Array, shape: Sequence[int], dtype: Any = float) -> jax.Array:
        dtype = jax.dtypes.canonicalize_dtype(dtype)
        for_direction, for_radius = jax.random.split(key)
        unit = jax.random.normal(for_direction, tuple(shape), dtype)
        unit = unit / jnp.linalg.norm(unit.ravel())
        share = jax.random.uniform(for_radius, (), dtype) ** (1 / unit.size)
        return jnp.asarray(radius, dtype) * share * unit

    return init


class Dense(nn.Module):
    """Fully connected layer in the NTK parameterization.

    y = (w_std / √fan_in) x W + b_std b, with W and b drawn from N(0, 1): the scale stands in the
    forward pass, so that gradient steps and kernels have a limit as the width grows.
    `flax.linen.Dense` is the standard parameterization, where the scale stands in the variance.

    Attributes:
      features: number of outputs.
      w_std: σ_w; √2 keeps the variance through ReLU layers.
      b_std: σ_b; 0 means no bias, and no bias parameter.
      kernel_init, bias_init: of unit variance in this parameterization.
      dtype, param_dtype: of the computation and of the parameters; None and float follow JAX.

    Raises:
      ValueError: `features` is not a positive whole number.

    Example:
      >>> layer = Dense(4, w_std=2.0, b_std=0.1)
      >>> variables = layer.init(jax.random.key(0), jnp.ones((2, 3)))
      >>> jax.tree.map(jnp.shape, variables["params"])
      {'bias': (4,), 'kernel': (3, 4)}

    References:
      Jacot, Gabriel and Hongler (2018), "Neural Tangent Kernel", section 2.
    """

    features: int
    w_std: float = 1.0
    b_std: float = 0.0
    kernel_init: Initializer = nn.initializers.normal(1.0)
    bias_init: Initializer = nn.initializers.normal(1.0)
    dtype: Any = None
    param_dtype: Any = float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        checks.positive_int("features", self.features)
        fan_in = jnp.shape(x)[-1]
        param_dtype = jax.dtypes.canonicalize_dtype(self.param_dtype)
        kernel = self.param("kernel", self.kernel_init, (fan_in, self.features), param_dtype)
        bias = None
        if self.b_std:
            bias = self.param("bias", self.bias_init, (self.features,), param_dtype)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = (self.w_std / math.sqrt(fan_in)) * (x @ kernel)
        if bias is not None:
            y += self.b_std * jnp.reshape(bias, (1,) * (y.ndim - 1) + (-1,))
        return y


class Conv(nn.Conv):
    """Convolution in the NTK parameterization.

    y = (w_std / √(filter entries · channels)) W ∗ x + b_std b, with W and b drawn from N(0, 1); the
    channels are those that one filter sees. Everything else (strides, padding, dilation, groups) is
    `flax.linen.Conv`.

    Attributes:
      features, kernel_size, strides, ...: those of `flax.linen.Conv`.
      w_std: σ_w; √2 keeps the variance through ReLU layers.
      b_std: σ_b; 0 means no bias, and no bias parameter. It stands in place of `use_bias`.
      kernel_init, bias_init: of unit variance in this parameterization.

    Raises:
      ValueError: `use_bias=True`, or `features` is not a positive whole number.

    Example:
      >>> layer = Conv(4, (3, 3), padding="CIRCULAR", b_std=0.1)
      >>> variables = layer.init(jax.random.key(0), jnp.ones((2, 8, 8, 3)))
      >>> jax.tree.map(jnp.shape, variables["params"])
      {'bias': (4,), 'kernel': (3, 3, 3, 4)}

    References:
      Arora et al. (2019), On exact computation with an infinitely wide neural net, section 4.
    """

    w_std: float = 1.0
    b_std: float = 0.0
    use_bias: bool = False
    kernel_init: Initializer = nn.initializers.normal(1.0)
    bias_init: Initializer = nn.initializers.normal(1.0)
    param_dtype: Any = float

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        checks.positive_int("features", self.features)
        if self.use_bias:
            raise ValueError("use_bias is True; expected b_std > 0 instead: b_std scales the bias.")
        size = (self.kernel_size,) if isinstance(self.kernel_size, int) else self.kernel_size
        fan_in = math.prod(size) * (jnp.shape(inputs)[-1] // self.feature_group_count)
        y = (self.w_std / math.sqrt(fan_in)) * super().__call__(inputs)
        if not self.b_std:
            return y
        param_dtype = jax.dtypes.canonicalize_dtype(self.param_dtype)
        bias = self.param("bias", self.bias_init, (self.features,), param_dtype)
        y, bias = nn.dtypes.promote_dtype(y, bias, dtype=self.dtype)
        return y + self.b_std * jnp.reshape(bias, (1,) * (y.ndim - 1) + (-1,))
