"""f(x) = W_H σ(W_{H−1} ⋯ σ(W_1 x)), without biases, with homogeneous activations.

The networks and the loss of Du (2019), chapter 4.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.activations import sample
from ntkflow.layers import Initializer
from ntkflow.systems.homogeneous.sharing import WeightSharing
from ntkflow.training.observe import Loss

Activation = Callable[[jax.Array], jax.Array]

_SCALES = np.append(1.0, np.geomspace(1e-3, 1e3, 60))


class Slopes(NamedTuple):
    """σ(x) = positive · x for x ≥ 0, and negative · x for x ≤ 0."""

    negative: float
    positive: float


def slopes(activation: Activation) -> Slopes | None:
    """Read off the slopes of a homogeneous activation, σ(x) = σ'(x) x, and refuse any other.

    An elementwise function with σ(cx) = c σ(x) for all c > 0 is linear on either side of 0: ReLU,
    leaky ReLU, the identity and the absolute value are the well-known ones.

    Args:
      activation: an elementwise function.

    Returns:
      The two slopes; None where the function closes over traced values, so that nothing can be
      checked.

    Raises:
      ValueError: not elementwise, or not homogeneous: values between ±1e-3 and ±1e3 tell.

    Example:
      >>> slopes(jax.nn.relu)
      Slopes(negative=0.0, positive=1.0)
      >>> slopes(jnp.tanh)
      Traceback (most recent call last):
      ...
      ValueError: The activation tanh is not homogeneous: σ(1000) is 1, and 1000 σ(1) is 761.6; ...

    Reference: Du (2019), section 4.2.1.
    """
    name = getattr(activation, "__name__", type(activation).__name__)
    checks.elementwise("The activation", activation)
    x = np.append(_SCALES, -_SCALES)
    values = sample(jax.jit(activation), x)
    if values is None:
        return None
    above, below = values[[0, _SCALES.size]].tolist()  # at 1 and −1
    found = Slopes(negative=0.0 - below, positive=above)  # 0 − 0 has no sign
    linear = x * np.where(x < 0, found.negative, found.positive)
    rounding = 64 * float(jnp.finfo(jnp.result_type(float)).eps)
    gap = np.abs(values - linear) / np.abs(x)
    if not (gap <= rounding * max(map(abs, found))).all():  # NaN is refused, too
        worst = int(np.argmax(np.nan_to_num(gap * np.abs(x), nan=np.inf)))
        raise ValueError(
            f"The activation {name} is not homogeneous: σ({x[worst]:.4g}) is {values[worst]:.4g}, "
            f"and {abs(x[worst]):.4g} σ({np.sign(x[worst]):.0f}) is {linear[worst]:.4g}; expected "
            "σ(cx) = c σ(x) for all c > 0, as of jax.nn.relu, jax.nn.leaky_relu, jax.nn.identity."
        )
    return found


class SharedDense(nn.Module):
    """A layer without bias whose weights are missing or shared, W[i, j] = v[g(i, j)].

    Inputs (n, n_in), outputs (n, n_out). The matrix W is formed: n_out · n_in numbers.

    Attributes:
      sharing: g.
      kernel_init: initializer of v, called with the shape (d,); None is N(0, 2 / connections of
        one output).
      param_dtype: of v; float follows JAX.

    Raises:
      ValueError: x is not of shape (n, n_in).

    Example:
      >>> layer = SharedDense(WeightSharing(np.array([[1, 2, 0], [0, 1, 2]])))
      >>> layer.apply({"params": {"shared": jnp.array([1.0, 10.0])}}, jnp.ones((1, 3))).tolist()
      [[11.0, 11.0]]

    Reference: Du (2019), section 4.2.2.
    """

    sharing: WeightSharing
    kernel_init: Initializer | None = None
    param_dtype: Any = float

    @nn.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        x = checks.matrix("x", x)
        indices = self.sharing.indices
        if x.shape[1] != indices.shape[1]:
            raise ValueError(
                f"x has {x.shape[1]} features; the map of the layer expects {indices.shape[1]}."
            )
        init = self.kernel_init or _normal(self.sharing.fan_in)
        dtype = jax.dtypes.canonicalize_dtype(self.param_dtype)
        free = self.param("shared", init, (self.sharing.parameters,), dtype)
        weights = jnp.concatenate([jnp.zeros((1,), free.dtype), free])[indices]
        return x @ weights.T


class HomogeneousNetwork(nn.Module):
    """Deep network without biases, f^(1) = W_1 x, f^(h) = W_h σ_{h−1}(f^(h−1)), no other factors.

    Flax keeps W_hᵀ, as params["layer_h"]["kernel"] of shape (n_{h−1}, n_h); the free parameters of
    a layer with shared weights are params["layer_h"]["shared"], of shape (d_h,).

    Attributes:
      layers: of each layer n_h, the number of its outputs, or a `WeightSharing`.
      activation: σ, or H − 1 of them, one after each layer but the last; homogeneous.
      kernel_init: initializer, or one per layer; None is N(0, 2 / fan_in), which keeps the scale
        through ReLU.
      param_dtype: of the weights; float follows JAX.

    Raises:
      ValueError: no layers, a width that is not positive, an activation that is not homogeneous,
        activations or initializers of another number, x not of shape (n, d).

    Example:
      >>> from ntkflow.systems.homogeneous import convolution
      >>> network = HomogeneousNetwork((16, convolution(16, 1, filters=2, size=3), 10))
      >>> key, x = jax.random.key(0), jnp.ones((5, 8))
      >>> outputs, variables = jax.jit(network.init_with_output)(key, x)
      >>> jax.tree.map(jnp.shape, variables["params"])
      {'layer_1': {'kernel': (8, 16)}, 'layer_2': {'shared': (6,)},
       'layer_3': {'kernel': (28, 10)}}
      >>> outputs.shape
      (5, 10)

    Reference: Du (2019), sections 4.2.1 and 4.2.2.
    """

    layers: Sequence[int | WeightSharing]
    activation: Activation | Sequence[Activation] = nn.relu
    kernel_init: Initializer | Sequence[Initializer] | None = None
    param_dtype: Any = float

    @nn.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        values = checks.matrix("x", x)
        if not isinstance(self.layers, Sequence):
            raise ValueError(
                f"layers is {self.layers!r}; expected a sequence of widths, e.g. (100, 10)."
            )
        depth = len(self.layers)
        if not depth:
            raise ValueError("layers is empty; expected the widths n_1, …, n_H.")
        activations = _each("activation", self.activation, depth - 1)
        initializers = _each("kernel_init", self.kernel_init, depth)
        for activation in dict.fromkeys(activations):
            slopes(activation)
        for h, (layer, init) in enumerate(zip(self.layers, initializers, strict=True), start=1):
            if h > 1:
                values = activations[h - 2](values)
            values = self._layer(h, layer, init, values.shape[1])(values)
        return values

    def _layer(self, h, layer, init, fan_in):
        name = f"layer_{h}"
        if isinstance(layer, WeightSharing):
            return SharedDense(layer, init, self.param_dtype, name=name)
        return nn.Dense(
            checks.positive_int(f"layers[{h - 1}]", layer),
            use_bias=False,
            kernel_init=init or _normal(fan_in),
            param_dtype=jax.dtypes.canonicalize_dtype(self.param_dtype),
            name=name,
        )


def half_squared_error(f: jax.Array, y: jax.Array) -> jax.Array:
    """ℓ(f, y) = ½ ‖f − y‖², of one sample; a single output's y may be a number.

    Raises:
      ValueError: f and y are not of the same size.
    """
    if jnp.size(f) != jnp.size(y):
        raise ValueError(
            f"Per sample, the outputs have shape {jnp.shape(f)} and y {jnp.shape(y)}; expected the "
            "same: for labels that are class numbers give another pointwise loss."
        )
    return jnp.sum(jnp.square(f - y)) / 2


def average_loss(
    apply: Callable[[Any, Any], jax.Array],
    pointwise: Callable[[jax.Array, jax.Array], jax.Array] = half_squared_error,
) -> Loss:
    """Build the loss of the chapter, L(θ) = (1/n) Σ_i ℓ(f(θ, x_i), y_i), with any differentiable ℓ.

    Args:
      apply: the network, `apply(params, x)` of shape (n, o).
      pointwise: ℓ of one sample, `pointwise(f, y) -> scalar`, for f of shape (o,) and a row of y;
        `optax.softmax_cross_entropy_with_integer_labels`, say.

    Returns:
      `loss(params, (x, y)) -> scalar`.

    Raises:
      ValueError: a Flax module in place of its apply; and from the loss: no samples, x and y of
        different lengths, an ℓ that is not one number.

    Example:
      >>> loss = average_loss(lambda params, x: x * params)
      >>> float(loss(2.0, (jnp.ones((2, 3)), jnp.zeros((2, 3)))))
      6.0

    Reference: Du (2019), equation (4.4), where m is the number of samples.
    """
    checks.network(apply)
    if not callable(pointwise):
        raise ValueError(f"pointwise is {pointwise!r}; expected a function pointwise(f, y).")

    def loss(params: Any, data: tuple[Any, Any]) -> jax.Array:
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise ValueError(f"data is of type {type(data).__name__}; expected a pair (x, y).")
        x, y = data
        checks.same_length(x=x, y=y)
        values = jax.vmap(pointwise)(apply(params, x), jnp.asarray(y))
        shapes = jax.tree.map(lambda leaf: leaf.shape[1:], values)
        if shapes != ():
            raise ValueError(
                f"The pointwise loss has shape {shapes}; expected one number per sample."
            )
        return jnp.mean(values)

    return loss


def _normal(fan_in: int) -> Initializer:
    return nn.initializers.normal(math.sqrt(2 / fan_in))


def _each(name: str, value: Any, count: int) -> Sequence[Any]:
    """One entry per layer, of one for all or of a sequence."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name} holds {len(value)} entries; expected {count}, or one for all.")
    return value
