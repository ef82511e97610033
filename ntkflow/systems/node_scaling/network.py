"""f(x) = Σ_j √λ_j a_j σ(w_j·x/√d), whose nodes count differently, and its gradient.

The network of Caron et al. (2023), with the loss ½ Σ_i (f(x_i) − y_i)², without 1/n.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.quadrature import derivative
from ntkflow.layers import rademacher
from ntkflow.systems.node_scaling.arguments import check_scales, check_variance, vector

Activation = Callable[[jax.Array], jax.Array]
Output = Literal["fixed", "trained"]
Variables = Mapping[str, Any]


class NodeScaledNetwork(nn.Module):
    """Two-layer network with a scale for each hidden node.

    f(x) = Σ_j √λ_j a_j σ(w_j·x/√d), w_j ~ N(0, v I), a_j = ±1 with probability ½ each, no bias.

    What does not train lives in the variable collection "fixed", which training and kernels leave
    alone: λ always, and `a` with `output="fixed"`, the setting of every theorem. One key draws the
    same weights for every λ.

    λ may be traced, so that all settings are one program under `jax.vmap`. Map the data along with
    them, a copy for each: one x for all kernels is a product that XLA transposes at every step,
    which takes almost twice the time on a CPU.

    Attributes:
      scales: λ, shape (m,), of sum 1: see `node_scales`. The width is its length.
      outputs: None for one output, of shape (n,); K for K that share the hidden layer, (n, K).
      activation: σ, elementwise; σ'(0) = 0 for `jax.nn.relu`, as in the paper.
      output: "fixed" trains W alone, "trained" both layers.
      variance: v of the weights; the paper's is 1, its released code takes 2.
      param_dtype: of all leaves; float follows JAX.

    Raises:
      ValueError: λ is negative somewhere or does not sum to 1, `outputs` is not positive, `output`
        is unknown, v is not positive, x is not of shape (n, d), or not of the d that the weights
        were drawn for.

    Example:
      >>> module = NodeScaledNetwork(jnp.array([0.5, 0.25, 0.25]))
      >>> initialize = jax.jit(lambda key, x: module.init_with_output(key, x))
      >>> outputs, variables = initialize(jax.random.key(0), jnp.ones((5, 4)))
      >>> jax.tree.map(jnp.shape, variables)
      {'fixed': {'output': (3,), 'scales': (3,)}, 'params': {'kernel': (4, 3)}}
      >>> outputs.shape
      (5,)

      Settings as one program:

      >>> from ntkflow.systems.node_scaling.scales import node_scales, zipf
      >>> @jax.jit
      ... @jax.vmap
      ... def initialize(gamma, alpha):
      ...     module = NodeScaledNetwork(node_scales(zipf(3, alpha), gamma))
      ...     return module.init(jax.random.key(0), jnp.ones((1, 4)))
      >>> initialize(jnp.array([1.0, 0.0]), jnp.array([0.5, 0.5]))["fixed"]["scales"].shape
      (2, 3)

    Reference: Caron et al. (2023), "Over-parameterised Shallow Neural Networks with Asymmetrical
    Node Scaling: Global Convergence Guarantees and Feature Learning", section 2.
    """

    scales: Any
    outputs: int | None = None
    activation: Activation = jax.nn.relu
    output: Output = "fixed"
    variance: float = 1.0
    param_dtype: Any = float

    @nn.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        if self.output not in get_args(Output):
            raise ValueError(
                f"output is {self.output!r}; expected one of {list(get_args(Output))}."
            )
        check_variance(self.variance)
        if self.outputs is not None:
            checks.positive_int("outputs", self.outputs)
        x = checks.matrix("x", x)
        dtype = jax.dtypes.canonicalize_dtype(self.param_dtype)
        width = vector("scales", self.scales).size
        shape = (width,) if self.outputs is None else (width, self.outputs)

        def gaussian(key, shape, dtype):
            return jnp.asarray(self.variance, dtype) ** 0.5 * jax.random.normal(key, shape, dtype)

        if self.has_variable("params", "kernel"):
            _check_features(self.get_variable("params", "kernel"), x)
        kernel = self.param("kernel", gaussian, (x.shape[1], width), dtype)
        if self.output == "trained":
            output = self.param("output", rademacher, shape, dtype)
        else:
            output = self.variable(
                "fixed", "output", lambda: rademacher(self.make_rng("params"), shape, dtype)
            ).value
        scales = self.variable(
            "fixed", "scales", lambda: check_scales(self.scales).astype(dtype)
        ).value
        return _forward(kernel, output, scales, x, self.activation)


def weights(variables: Variables) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The weights W (d, m), column j being w_j, the output layer (m,) or (m, K), and λ (m,)."""
    try:
        leaves = {**variables["fixed"], **variables["params"]}
        return leaves["kernel"], leaves["output"], leaves["scales"]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            "Expected the variables of a NodeScaledNetwork, as its init returns them: 'kernel', "
            f"'output' and 'scales' in the collections 'params' and 'fixed'; missing: {error}."
        ) from error


def predict(variables: Variables, x: ArrayLike, activation: Activation) -> jax.Array:
    """Compute f(x), shape (n,) or (n, K), as `NodeScaledNetwork.apply` does."""
    return _forward(*weights(variables), checks.matrix("x", x), activation)


def hidden(variables: Variables, x: ArrayLike, activation: Activation) -> jax.Array:
    """Compute the features √λ_j σ(w_j·x/√d), shape (n, m), which f sums with the signs a_j.

    Example:
      >>> module = NodeScaledNetwork(jnp.array([0.5, 0.25, 0.25]))
      >>> x = jnp.ones((2, 4))
      >>> variables = module.init(jax.random.key(0), x)
      >>> features = hidden(variables, x, jax.nn.relu)
      >>> bool(jnp.allclose(features @ variables["fixed"]["output"], module.apply(variables, x)))
      True

    Reference: Caron et al. (2023), appendix J, transfer learning.
    """
    scales = weights(variables)[2]
    return jnp.sqrt(scales)[None, :] * activation(preactivations(variables, x))


def preactivations(variables: Variables, x: ArrayLike) -> jax.Array:
    """Compute Z_j(x) = w_j·x/√d, shape (n, m)."""
    kernel, _, _ = weights(variables)
    x = checks.matrix("x", x)
    _check_features(kernel, x)
    return product(x / math.sqrt(x.shape[1]), kernel)


def slopes(variables: Variables, x: ArrayLike, activation: Activation) -> jax.Array:
    """Compute σ'(Z_j(x)), shape (n, m)."""
    return derivative(activation)(preactivations(variables, x))


def weight_gradient(
    variables: Variables, x: ArrayLike, y: ArrayLike, activation: Activation
) -> jax.Array:
    """Compute ∂L/∂w_j = √(λ_j/d) Σ_i (f(x_i) − y_i)·a_j σ'(Z_j(x_i)) x_i, shape (d, m).

    Args:
      variables: of `NodeScaledNetwork`.
      x, y: data, shapes (n, d), and (n,) or (n, K) as the outputs.
      activation: σ, that of the network.

    Returns:
      The gradient of ½ Σ (f − y)²; column j belongs to node j. −1 times it is the flow of w_j.

    Raises:
      ValueError: x or y has another shape, or the variables are not those of the network.

    Reference: Caron et al. (2023), section 2, where the flow of w_j is printed with ∇f(x) for
    ∇f(x_i) under the sum.
    """
    _, output, scales = weights(variables)
    outputs, y = predict(variables, x, activation), jnp.asarray(y)
    if y.shape != outputs.shape:
        raise ValueError(
            f"y has shape {y.shape} and the outputs {outputs.shape}; expected the same."
        )
    x = checks.matrix("x", x)
    signs = output.reshape(output.shape[0], -1)
    errors = product((outputs - y).reshape(len(x), -1), (jnp.sqrt(scales)[:, None] * signs).T)
    return product(x.T, errors * slopes(variables, x, activation)) / math.sqrt(x.shape[1])


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """a b, in full: accelerators would round the factors."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _forward(
    kernel: jax.Array, output: jax.Array, scales: jax.Array, x: jax.Array, activation: Activation
) -> jax.Array:
    _check_features(kernel, x)
    # √λ a as one factor of m numbers: nothing of size (n, m) but σ itself.
    signs = jnp.sqrt(scales).reshape(-1, *[1] * (output.ndim - 1)) * output
    return activation((x / math.sqrt(x.shape[1])) @ kernel) @ signs


def _check_features(kernel: jax.Array, x: jax.Array) -> None:
    if jnp.ndim(kernel) != 2 or kernel.shape[0] != x.shape[1]:
        raise ValueError(
            f"x has shape {x.shape} and the kernel {jnp.shape(kernel)}; expected as many features "
            "as the kernel has rows. Samples are rows of x."
        )
