"""Deep networks whose weights are all N(0, 1) and trained, with the loss ½ Σ_i (f(x_i) − y_i)².

The three architectures of Du (2019), chapter 3. Layers are written out one after another: a loop
over stacked weights is slower to compile and to run, by 20 to 70 % at depths 10 to 200 on a CPU
(`benchmarks/deep.py`).
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.deep.activations import Activation, normalization
from ntkflow.systems.deep.constants import one_residual

Variables = Mapping[str, Any]
Shape = tuple[int, ...]


class _Deep(nn.Module):
    width: int
    depth: int
    activation: Activation = jax.nn.softplus

    @nn.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        form = form_of(self)
        x = form.inputs(x)
        if self.is_initializing():
            draw = nn.initializers.normal(1.0)
            dtype = jax.dtypes.canonicalize_dtype(self.param_dtype)
            shapes = form.shapes(x).items()
            params = {name: self.param(name, draw, shape, dtype) for name, shape in shapes}
        else:
            params = weights(form, {"params": self.variables.get("params", {})}, x)
        *_, last = _layers(form, params, x)
        return jnp.tensordot(last, params["output"], last.ndim - 1)


class FullyConnected(_Deep):
    """Fully connected network of H layers of equal width.

    x^(h) = √(c_σ/m) σ(W^(h) x^(h−1)) for 1 ≤ h ≤ H, x^(0) = x; f(x) = a·x^(H).

    No biases; every entry of W^(h) and a is N(0, 1); c_σ = 1/E[σ(z)²] is that of `normalization`.
    Parameters are `layer_h`, the transpose of W^(h), and `output`, which is a. Called as it is,
    `init` draws all layers of equal shape by one small program: at width 256 and depth 50 in one to
    two seconds, where `jax.jit(init)` takes 3 to 5 s to compile.

    Attributes:
      width: m, of each layer.
      depth: H, the number of layers but the output.
      activation: σ, an elementwise function.
      param_dtype: of the weights; float follows JAX.

    Raises:
      ValueError: width or depth is not a positive whole number, the activation is no elementwise
        function, x is not of shape (n, d) or holds NaN, the parameters are those of another shape.

    Example:
      >>> module = FullyConnected(width=16, depth=3)
      >>> variables = module.init(jax.random.key(0), jnp.ones((1, 5)))
      >>> jax.tree.map(jnp.shape, variables["params"])
      {'layer_1': (5, 16), 'layer_2': (16, 16), 'layer_3': (16, 16), 'output': (16,)}
      >>> module.apply(variables, jnp.ones((4, 5))).shape
      (4,)

    References:
      Du (2019), "Gradient Descent for Non-convex Problems in Modern Machine Learning", equation
      (3.2); Du, Lee, Li, Wang and Zhai (2019), "Gradient Descent Finds Global Minima of Deep
      Neural Networks".
    """

    param_dtype: Any = float


class ResNet(_Deep):
    """Residual network of H layers of equal width, with a skip connection at every layer.

    x^(1) = √(c_σ/m) σ(W^(1) x), x^(h) = x^(h−1) + c_res/(H√m) σ(W^(h) x^(h−1)) for 2 ≤ h ≤ H;
    f(x) = a·x^(H).

    No biases; every entry of W^(h) and a is N(0, 1). Parameters as those of `FullyConnected`.

    Attributes:
      width: m, of each layer.
      depth: H, the number of layers but the output.
      activation: σ, an elementwise function.
      residual: c_res, between 0 and 1.
      param_dtype: of the weights; float follows JAX.

    Raises:
      ValueError: as for `FullyConnected`; or c_res is not in (0, 1).

    Example:
      >>> module = ResNet(width=16, depth=50)
      >>> variables = module.init(jax.random.key(0), jnp.ones((1, 5)))
      >>> module.apply(variables, jnp.ones((4, 5))).shape
      (4,)

    Reference: Du (2019), equation (3.3).
    """

    residual: float = 0.5
    param_dtype: Any = float


class ConvolutionalResNet(_Deep):
    """Convolutional residual network of H layers of m channels, over p pixels in a row.

    x^(1) = √(c_σ/m) σ(W^(1) φ(x)), x^(h) = x^(h−1) + c_res/(H√m) σ(W^(h) φ(x^(h−1))) for
    2 ≤ h ≤ H; f(x) = ⟨a, x^(H)⟩, with φ the `patches` of q pixels.

    No biases; every entry of W^(h) and a is N(0, 1). Channels come last. Parameters are `layer_1`
    of shape (q, d_0, m), `layer_h` of shape (q, m, m) and `output` of shape (p, m).

    Attributes:
      width: m, the channels of each layer.
      depth: H, the number of layers but the output.
      activation: σ, an elementwise function.
      residual: c_res, between 0 and 1.
      filter_size: q, odd and at most 2p − 1: beyond it a filter sees nothing but padding.
      param_dtype: of the weights; float follows JAX.

    Raises:
      ValueError: as for `ResNet`; x is not of shape (n, p, d_0); q is even or greater than 2p − 1.

    Example:
      >>> module = ConvolutionalResNet(width=16, depth=3)
      >>> variables = jax.jit(module.init)(jax.random.key(0), jnp.ones((1, 8, 2)))
      >>> jax.tree.map(jnp.shape, variables["params"])
      {'layer_1': (3, 2, 16), 'layer_2': (3, 16, 16), 'layer_3': (3, 16, 16), 'output': (8, 16)}
      >>> jax.jit(module.apply)(variables, jnp.ones((4, 8, 2))).shape
      (4,)

    Reference: Du (2019), section 3.2.2.
    """

    residual: float = 0.5
    filter_size: int = 3
    param_dtype: Any = float


def hidden(module: Any, variables: Variables, x: ArrayLike) -> jax.Array:
    """Compute x^(1), …, x^(H), the outputs of the layers.

    Args:
      module: one of the three networks.
      variables: as its `init` returns them.
      x: inputs, shape (n, d), or (n, p, d_0) of a `ConvolutionalResNet`.

    Returns:
      Shape (H, n, m), or (H, n, p, m).

    Raises:
      ValueError: as for the module.

    Example:
      >>> module, x = ResNet(width=16, depth=3), jnp.ones((4, 5))
      >>> variables = module.init(jax.random.key(0), x)
      >>> layers = hidden(module, variables, x)
      >>> layers.shape
      (3, 4, 16)
      >>> bool(jnp.allclose(layers[-1] @ variables["params"]["output"], module.apply(variables, x)))
      True
    """
    form = form_of(module)
    x = form.inputs(x)
    params = weights(form, variables, x)
    return jnp.stack(list(_layers(form, params, x)))


def patches(x: ArrayLike, filter_size: int) -> jax.Array:
    """Compute φ(x), the windows of q pixels around each pixel: stride 1, zeros beyond the ends.

    φ(x)_{l,o} = x_{l+o−(q−1)/2} for 0 ≤ o < q, so that ‖x‖_F ≤ ‖φ(x)‖_F ≤ √q ‖x‖_F.

    Args:
      x: shape (n, p, c), channels last.
      filter_size: q, odd.

    Returns:
      Shape (n, p, q, c).

    Raises:
      ValueError: x is not of shape (n, p, c), or q is even or greater than 2p − 1.

    Example:
      >>> patches(jnp.array([[[1.0], [2.0], [3.0]]]), 3)[0, :, :, 0].tolist()
      [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 0.0]]

    Reference: Du (2019), section 3.2.2.
    """
    return _patches(rows_of_pixels(x, filter_size), filter_size)


class Form(NamedTuple):
    """What a network computes, x^(h) = [x^(h−1)] + scale σ(W^(h) · lift(x^(h−1))), and on what.

    Attributes:
      name: of the class of the network.
      width, depth, activation: m, H and σ.
      first, later: the scales of layer 1 and of the others.
      skip: whether x^(h−1) is added from layer 2 on.
      filter_size: q; None without pixels.
    """

    name: str
    width: int
    depth: int
    activation: Activation
    first: float
    later: float
    skip: bool
    filter_size: int | None

    def inputs(self, x: ArrayLike) -> jax.Array:
        """x at the door, of shape (n, d) or (n, p, d_0)."""
        if self.filter_size is None:
            return checks.matrix("x", x)
        return rows_of_pixels(x, self.filter_size)

    def shapes(self, x: jax.Array) -> dict[str, Shape]:
        """Those of the parameters for x, by name, in the order of the layers."""
        window = () if self.filter_size is None else (self.filter_size,)
        square = (*window, self.width, self.width)
        found = {f"layer_{h}": square for h in range(1, self.depth + 1)}
        found["layer_1"] = (*window, x.shape[-1], self.width)
        return found | {"output": (*x.shape[1:-1], self.width)}

    def lift(self, x: jax.Array) -> jax.Array:
        """What W acts on, along all axes behind those that count samples and pixels."""
        return x if self.filter_size is None else _patches(x, self.filter_size)

    def preactivation(self, x: jax.Array, w: jax.Array) -> jax.Array:
        """W φ(x), shape (n, m) or (n, p, m)."""
        return jnp.tensordot(self.lift(x), w, w.ndim - 1)

    def sigma(self, z: jax.Array) -> jax.Array:
        """σ, which keeps the dtype."""
        return jnp.asarray(self.activation(z), z.dtype)


def form_of(module: Any) -> Form:
    """The form of one of the three networks, after the checks of its attributes."""
    if not isinstance(module, _Deep):
        raise ValueError(
            f"module is of type {type(module).__name__}; expected a FullyConnected, a ResNet or a "
            "ConvolutionalResNet."
        )
    width = checks.positive_int("width", module.width)
    depth = checks.positive_int("depth", module.depth)
    first = later = math.sqrt(normalization(module.activation) / width)
    filter_size = None
    if skip := not isinstance(module, FullyConnected):
        later = one_residual(module.residual) / (depth * math.sqrt(width))
    if isinstance(module, ConvolutionalResNet):
        filter_size = checks.positive_int("filter_size", module.filter_size)
    name = type(module).__name__
    return Form(name, width, depth, module.activation, first, later, skip, filter_size)


def weights(form: Form, variables: Variables, x: jax.Array) -> dict[str, jax.Array]:
    """The parameters by name, in the order of the layers, after a check of their shapes for x."""
    params = variables.get("params") if isinstance(variables, Mapping) else None
    if not isinstance(params, Mapping):
        raise ValueError(
            f"Expected the variables of a {form.name}, as its init returns them: "
            '{"params": {"layer_1": ...}}. Of parameters alone write {"params": params}.'
        )
    shapes = form.shapes(x)
    found = {name: jnp.shape(array) for name, array in params.items()}
    if shapes.keys() != found.keys():
        raise ValueError(
            f"The parameters are {sorted(found)}; expected {list(shapes)}, as the init of this "
            f"{form.name} of depth {form.depth} returns them."
        )
    wrong = [name for name in shapes if found[name] != shapes[name]]
    if wrong:
        hint = ""
        if form.filter_size is not None:
            hint = " x is (samples, pixels, channels): for channels first write x.swapaxes(1, 2)."
        name = wrong[0]
        raise ValueError(
            f"{name} has shape {found[name]}; for this x it should have {shapes[name]}: expected "
            f"inputs like those that the network was initialized with.{hint}"
        )
    return {name: params[name] for name in shapes}


def before_last(form: Form, params: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    """x^(H−1), of which layer H is a function; x itself where H = 1."""
    *_, before = x, *itertools.islice(_layers(form, params, x), form.depth - 1)
    return before


def rows_of_pixels(x: ArrayLike, filter_size: Any) -> jax.Array:
    """`x` as a floating-point array of shape (n, p, d_0), for filters of q pixels."""
    array = jnp.asarray(x)
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(
            f"x has shape {array.shape}; expected (samples, pixels, channels), none of them 0. For "
            "channels first write x.swapaxes(1, 2), for images x.reshape(len(x), -1, channels)."
        )
    size, most = checks.positive_int("filter_size", filter_size), 2 * array.shape[1] - 1
    if size % 2 == 0 or size > most:
        raise ValueError(
            f"filter_size is {size} for {array.shape[1]} pixels; expected an odd number, at most "
            f"{most}: a window has a pixel in its middle, and ends that can lie on others."
        )
    array = checks.floating(array)
    checks.finite("x", array)
    return array


def _layers(form: Form, params: Mapping[str, jax.Array], x: jax.Array) -> Iterator[jax.Array]:
    """x^(1), …, x^(H)."""
    x = x.astype(jnp.result_type(x, *params.values()))
    x = form.first * form.sigma(form.preactivation(x, params["layer_1"]))
    yield x
    for h in range(2, form.depth + 1):
        y = form.later * form.sigma(form.preactivation(x, params[f"layer_{h}"]))
        x = x + y if form.skip else y
        yield x


def _patches(x: jax.Array, filter_size: int) -> jax.Array:
    padded = jnp.pad(x, ((0, 0), (filter_size // 2, filter_size // 2), (0, 0)))
    return jnp.stack([padded[:, o : o + x.shape[1]] for o in range(filter_size)], axis=2)
