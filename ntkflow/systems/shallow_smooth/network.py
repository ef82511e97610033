"""V φ(W x), both layers trained, with the loss Σ_i ‖V φ(W x_i) − y_i‖²: neither ½ nor 1/n.

The network of Song et al. (2021), section 5.1: no bias, no factor of the width in the forward pass;
all scale sits in the deviations ω₁ and ω₂ of the initial weights.
"""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.quadrature import derivative
from ntkflow.layers import Initializer
from ntkflow.systems.shallow_smooth.arguments import Activation, check_activation, check_number

Variables = Mapping[str, Any]


def gelu(z: ArrayLike) -> jax.Array:
    """φ(z) = z P(Z ≤ z), Z standard normal: the exact GELU; `jax.nn.gelu` by default is not.

    Example:
      >>> round(float(gelu(1.0)), 7)
      0.8413447
    """
    return jax.nn.gelu(z, approximate=False)


class ShallowSmooth(nn.Module):
    """Two-layer network with a smooth activation, both layers trained, nothing scaled by the width.

    f(x) = V φ(W x), W of d_1 rows w_k ~ N(0, ω₁² I), V of entries N(0, ω₂²), no bias. Both layers
    are parameters: "hidden", of shape (d_0, d_1), whose column k is w_k, and "output", of shape
    (d_1, d_2): the transposes of the paper's W and V, as samples are rows here.

    The paper's loss is `squared_loss(module.apply, "sum")`.

    Attributes:
      width: d_1, the number of hidden neurons.
      outputs: d_2.
      omega1, omega2: standard deviations of the initial weights; None is He's, √(2/d_0) and
        √(2/d_1). They may be traced, so that one program sweeps them; `jax.jit(module.apply)`
        needs Python numbers, `jax.jit(lambda *of: module.apply(*of))` does not.
      activation: φ, an elementwise function; by default the exact GELU.
      param_dtype: of the weights; float follows JAX.

    Raises:
      ValueError: the width or the number of outputs is not positive, an ω is not a number greater
        than 0, the activation is no elementwise function, x is not of shape (n, d_0).

    Example:
      >>> module = ShallowSmooth(width=64, outputs=2, omega1=1.0, omega2=0.1)
      >>> key, x = jax.random.key(0), jnp.ones((5, 3))
      >>> outputs, variables = jax.jit(module.init_with_output)(key, x)
      >>> jax.tree.map(jnp.shape, variables)
      {'params': {'hidden': (3, 64), 'output': (64, 2)}}
      >>> outputs.shape
      (5, 2)

    Reference: Song, Ramezani-Kebrya, Pethick, Eftekhari and Cevher (2021), "Subquadratic
    Overparameterization for Shallow Neural Networks", section 5.1, equations (15) to (17).
    """

    width: int
    outputs: int = 1
    omega1: Any = None
    omega2: Any = None
    activation: Activation = gelu
    param_dtype: Any = float

    @nn.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        width = checks.positive_int("width", self.width)
        outputs = checks.positive_int("outputs", self.outputs)
        check_activation(self.activation)
        x = checks.matrix("x", x)
        dtype = jax.dtypes.canonicalize_dtype(self.param_dtype)

        def leaf(name, omega, shape):
            deviation = math.sqrt(2 / shape[0]) if omega is None else omega
            return self.param(name, _normal(deviation), shape, dtype)

        omegas = {"omega1": self.omega1, "omega2": self.omega2}
        check_number(**{name: omega for name, omega in omegas.items() if omega is not None})
        if self.has_variable("params", "hidden"):
            _check_features(self.get_variable("params", "hidden"), x)
        hidden = leaf("hidden", self.omega1, (x.shape[1], width))
        output = leaf("output", self.omega2, (width, outputs))
        return self.activation(x @ hidden) @ output


def weights(variables: Variables) -> tuple[jax.Array, jax.Array]:
    """The hidden layer (d_0, d_1), column k being w_k, and the output layer (d_1, d_2)."""
    try:
        params = variables["params"]
        hidden, output = params["hidden"], params["output"]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            "Expected the variables of a ShallowSmooth, as its init returns them: 'hidden' and "
            f"'output' in the collection 'params'; missing: {error}."
        ) from error
    if jnp.ndim(hidden) != 2 or jnp.ndim(output) != 2 or hidden.shape[1] != output.shape[0]:
        raise ValueError(
            f"'hidden' has shape {jnp.shape(hidden)} and 'output' {jnp.shape(output)}; expected "
            "(d_0, d_1) and (d_1, d_2). For several seeds use jax.vmap."
        )
    return hidden, output


def preactivations(variables: Variables, x: ArrayLike) -> jax.Array:
    """Compute w_k·x_i, shape (n, d_1)."""
    hidden, _ = weights(variables)
    x = checks.matrix("x", x)
    _check_features(hidden, x)
    return product(x, hidden)


def features(variables: Variables, x: ArrayLike, activation: Activation) -> jax.Array:
    """Compute φ(w_k·x_i), shape (n, d_1): the transpose of the paper's φ(WX).

    Example:
      >>> variables = {"params": {"hidden": jnp.eye(2), "output": jnp.ones((2, 1))}}
      >>> features(variables, jnp.array([[1.0, -1.0]]), jax.nn.relu).tolist()
      [[1.0, 0.0]]
    """
    check_activation(activation)
    return activation(preactivations(variables, x))


def slopes(variables: Variables, x: ArrayLike, activation: Activation) -> jax.Array:
    """Compute φ'(w_k·x_i), shape (n, d_1)."""
    check_activation(activation)
    return derivative(activation)(preactivations(variables, x))


def predict(variables: Variables, x: ArrayLike, activation: Activation) -> jax.Array:
    """Compute f(x) = V φ(W x), shape (n, d_2), as `ShallowSmooth.apply` does."""
    return product(features(variables, x, activation), weights(variables)[1])


def residual(variables: Variables, x: ArrayLike, y: ArrayLike, activation: Activation) -> jax.Array:
    """Compute f(x) − y, shape (n, d_2)."""
    outputs, y = predict(variables, x, activation), jnp.asarray(y)
    if y.shape != outputs.shape:
        raise ValueError(
            f"y has shape {y.shape} and the outputs {outputs.shape}; expected the same: samples "
            "are rows. For one output, write y[:, None]."
        )
    return outputs - y


def gradients(
    variables: Variables, x: ArrayLike, y: ArrayLike, activation: Activation
) -> dict[str, dict[str, jax.Array]]:
    """Compute the gradients of h = Σ_i ‖f(x_i) − y_i‖² by both layers.

    With R = f(X) − Y, samples as rows: ∇_W h = 2 Xᵀ ((R Vᵀ) ⊙ φ'(X W)) and ∇_V h = 2 φ(X W)ᵀ R.

    Args:
      variables: of `ShallowSmooth`.
      x, y: data, shapes (n, d_0) and (n, d_2).
      activation: φ.

    Returns:
      {"params": {"hidden": (d_0, d_1), "output": (d_1, d_2)}}, as `jax.grad` of the loss does.

    Raises:
      ValueError: x is not of shape (n, d_0), or y not of that of the outputs.

    Example:
      >>> variables = {"params": {"hidden": jnp.ones((1, 1)), "output": jnp.ones((1, 1))}}
      >>> one = jnp.ones((1, 1))
      >>> jax.tree.map(jnp.ravel, gradients(variables, one, 0 * one, lambda z: z))
      {'params': {'hidden': Array([2.], dtype=float64), 'output': Array([2.], dtype=float64)}}

    Reference: Song et al. (2021), appendix D, equations (37) to (39).
    """
    _, output = weights(variables)
    x, errors = checks.matrix("x", x), residual(variables, x, y, activation)
    back = product(errors, output.T) * slopes(variables, x, activation)
    hidden = features(variables, x, activation)
    return {"params": {"hidden": 2 * product(x.T, back), "output": 2 * product(hidden.T, errors)}}


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """a b, in full: smallest singular values do not survive an accelerator's rounding."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _normal(deviation: ArrayLike) -> Initializer:
    def init(key, shape, dtype):
        return jnp.asarray(deviation, dtype) * jax.random.normal(key, shape, dtype)

    return init


def _check_features(hidden: jax.Array, x: jax.Array) -> None:
    if hidden.shape[0] != x.shape[1]:
        raise ValueError(
            f"x has shape {x.shape} and 'hidden' {hidden.shape}; expected as many features of x as "
            "rows of 'hidden': samples are rows of x."
        )
