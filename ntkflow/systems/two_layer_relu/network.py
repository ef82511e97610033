"""f(x) = (1/√m) Σ_r a_r σ(w_r·x), with the loss ½ Σ_i (f(x_i) − y_i)², without 1/n.

The network of Du (2019), chapter 2, its Gram matrices, and one step of descent taken apart.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.arccos import norms_and_products, orders_01
from ntkflow.kernels.spectrum import smallest_eigenvalue
from ntkflow.layers import rademacher

Output = Literal["fixed", "trained"]
Variables = Mapping[str, Any]


class TwoLayerReLU(nn.Module):
    """Two-layer ReLU network with signs ±1 in the output layer.

    f(x) = (1/√m) Σ_r a_r σ(w_r·x), w_r ~ N(0, I), a_r = ±1 with probability ½, no bias; σ'(0) = 1.

    With `output="fixed"`, the setting of every theorem of the chapter, `a` lives in the variable
    collection "fixed", which training and kernels leave alone.

    Attributes:
      width: m, the number of hidden neurons.
      output: "fixed" trains W alone, "trained" both layers.
      param_dtype: of the weights; float follows JAX.

    Raises:
      ValueError: the width is not positive, `output` is unknown, x is not of shape (n, d).

    Example:
      >>> module = TwoLayerReLU(width=64)
      >>> variables = module.init(jax.random.key(0), jnp.ones((1, 3)))
      >>> jax.tree.map(jnp.shape, variables)
      {'fixed': {'output': (64,)}, 'params': {'kernel': (3, 64)}}
      >>> module.apply(variables, jnp.ones((5, 3))).shape
      (5,)

    References:
      Du (2019), "Gradient Descent for Non-convex Problems in Modern Machine Learning", section
      2.1; Du, Zhai, Poczos and Singh (2019), "Gradient Descent Provably Optimizes
      Over-parameterized Neural Networks".
    """

    width: int
    output: Output = "fixed"
    param_dtype: Any = float

    @nn.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        width = checks.positive_int("width", self.width)
        _check_output(self.output)
        x = checks.matrix("x", x)
        dtype = jax.dtypes.canonicalize_dtype(self.param_dtype)
        kernel = self.param("kernel", nn.initializers.normal(1.0), (x.shape[1], width), dtype)
        if self.output == "trained":
            output = self.param("output", rademacher, (width,), dtype)
        else:
            output = self.variable(
                "fixed", "output", lambda: rademacher(self.make_rng("params"), (width,), dtype)
            ).value
        return _forward(kernel, output, x)


def relu(z: jax.Array) -> jax.Array:
    """σ(z) = z 1{z ≥ 0}, whose derivative at 0 is 1; that of `jax.nn.relu` is 0.

    Reference: Du (2019), equation (2.3) and its footnote.
    """
    return jnp.where(z >= 0, z, jnp.zeros_like(z))


def limit_gram(x1: ArrayLike, x2: ArrayLike | None = None, output: Output = "fixed") -> jax.Array:
    """Compute H^∞, the Gram matrix of infinite width.

    H^∞(x, x') = E_w[x·x' 1{w·x ≥ 0, w·x' ≥ 0}] = x·x' (π − θ) / 2π, with θ the angle between x
    and x', and ‖x‖²/2 on the diagonal. With both layers trained, E_w[σ(w·x) σ(w·x')] is added.

    Args:
      x1, x2: inputs, shapes (n1, d) and (n2, d), of any norms; x2=None means x1.
      output: as for `TwoLayerReLU`.

    Returns:
      Shape (n1, n2); exactly symmetric where x2 is None.

    Raises:
      ValueError: x1 or x2 is not of shape (n, d), holds NaN, or their d differ.

    Example:
      >>> limit_gram(jnp.array([[1.0, 0.0], [0.6, 0.8]])).round(4).tolist()
      [[0.5, 0.2114], [0.2114, 0.5]]

    References:
      Du (2019), Assumption 2.1; Cho and Saul (2009), arc-cosine kernels of order 0 and 1.
    """
    _check_output(output)
    x1, x2, symmetric = _inputs(x1, x2)
    norms1, norms2, inner = norms_and_products(x1, None if symmetric else x2)
    order_0, order_1 = orders_01(norms1, norms2, inner)
    total = inner * order_0 / 2
    if output == "trained":
        total += order_1 / 2
    return (total + total.T) / 2 if symmetric else total


def limit_smallest_eigenvalue(x: ArrayLike, output: Output = "fixed") -> jax.Array:
    """Compute λ_0 = λ_min(H^∞), which sets every rate of the chapter.

    It is positive where no two inputs are parallel or antiparallel (Theorem 2.1), and at most ½
    for unit inputs and a fixed output layer. In float32 no λ_0 below some 5e-7 λ_max is resolved:
    see `ntkflow.kernels.spectrum`.

    Example:
      >>> float(limit_smallest_eigenvalue(jnp.eye(3)))
      0.5

    Reference: Du (2019), Assumption 2.1 and Theorem 2.1.
    """
    return smallest_eigenvalue(limit_gram(x, output=output))


def predict(variables: Variables, x: ArrayLike) -> jax.Array:
    """Compute u = f(x), shape (n,), as `TwoLayerReLU.apply` does."""
    return _forward(*weights(variables), checks.matrix("x", x))


def patterns(variables: Variables, x: ArrayLike) -> jax.Array:
    """Compute the activation patterns 1{w_r·x_i ≥ 0}, boolean, shape (n, m).

    Example:
      >>> variables = {"params": {"kernel": jnp.eye(2)}, "fixed": {"output": jnp.ones(2)}}
      >>> patterns(variables, jnp.array([[1.0, -1.0]])).tolist()
      [[True, False]]
    """
    kernel, _ = weights(variables)
    return _product(checks.matrix("x", x), kernel) >= 0


def gram(variables: Variables, x1: ArrayLike, x2: ArrayLike | None = None) -> jax.Array:
    """Compute H at any weights, from the activation patterns.

    H(x, x') = (1/m) x·x' Σ_r a_r² 1{w_r·x ≥ 0, w_r·x' ≥ 0}, the empirical neural tangent kernel;
    where the output layer is a parameter, (1/m) Σ_r σ(w_r·x) σ(w_r·x') is added.

    Time O(n1 n2 m), memory O((n1 + n2) m): a few matrix products.

    Args:
      variables: of `TwoLayerReLU`.
      x1, x2: inputs, shapes (n1, d) and (n2, d); x2=None means x1.

    Returns:
      Shape (n1, n2); exactly symmetric where x2 is None.

    Raises:
      ValueError: as for `limit_gram`; or the variables are not those of a TwoLayerReLU.

    Example:
      >>> variables = {"params": {"kernel": jnp.eye(2)}, "fixed": {"output": jnp.ones(2)}}
      >>> gram(variables, jnp.array([[1.0, 1.0], [1.0, -1.0]])).tolist()
      [[2.0, 0.0], [0.0, 1.0]]

    Reference: Du (2019), equation (2.5).
    """
    kernel, output = weights(variables)
    x1, x2, symmetric = _inputs(x1, x2)

    def features(x):
        z = _product(x, kernel)
        return jnp.where(z >= 0, output[None, :], 0.0), relu(z)

    slopes1, hidden1 = features(x1)
    slopes2, hidden2 = (slopes1, hidden1) if symmetric else features(x2)
    total = _product(x1, x2.T) * _product(slopes1, slopes2.T)
    if "fixed" not in variables:
        total += _product(hidden1, hidden2.T)
    total /= kernel.shape[1]
    return (total + total.T) / 2 if symmetric else total


def weight_gradient(variables: Variables, x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Compute ∂L/∂w_r = (1/√m) Σ_i (f(x_i) − y_i) a_r x_i 1{w_r·x_i ≥ 0}, shape (d, m).

    Reference: Du (2019), equation (2.3); column r belongs to neuron r.
    """
    kernel, output = weights(variables)
    x = checks.matrix("x", x)
    residual = _forward(kernel, output, x) - jnp.asarray(y)
    slopes = jnp.where(_product(x, kernel) >= 0, output[None, :], 0.0)
    return _product(x.T, residual[:, None] * slopes) / math.sqrt(kernel.shape[1])


def unstable_patterns(initial: Variables, x: ArrayLike, radius: ArrayLike) -> jax.Array:
    """Compute the events A_ir: a weight within R of w_r(0) has another pattern on x_i.

    A_ir ⟺ −R‖x_i‖ ≤ w_r(0)·x_i < R‖x_i‖. The paper has |w_r(0)·x_i| < R, which leaves out an
    event of probability 0: σ' counts 0 as active, so that −R‖x_i‖ itself can change.
    S_i^⊥ = {r : A_ir}: its size is the sum over the last axis.

    Args:
      initial: variables at initialization.
      x: inputs, shape (n, d).
      radius: R ≥ 0.

    Returns:
      Boolean, shape (n, m).

    Example:
      >>> initial = {"params": {"kernel": jnp.array([[0.1, -0.1, 0.3]])},
      ...            "fixed": {"output": jnp.ones(3)}}
      >>> unstable_patterns(initial, jnp.array([[1.0]]), 0.1).tolist()
      [[False, True, False]]

    Reference: Du (2019), proof of Lemma 2.2.
    """
    kernel, _ = weights(initial)
    x = checks.matrix("x", x)
    reach = radius * jnp.linalg.norm(x, axis=1)[:, None]
    z = _product(x, kernel)
    return (z >= -reach) & (z < reach)


def unstable_gram(
    variables: Variables, initial: Variables, x: ArrayLike, radius: ArrayLike
) -> jax.Array:
    """Compute H^⊥, the part of H that the neurons in S_i^⊥ hold.

    H^⊥_ij = (1/m) Σ_{r ∈ S_i^⊥} x_i·x_j 1{w_r·x_i ≥ 0, w_r·x_j ≥ 0}, shape (n, n). It is not
    symmetric: S_i^⊥ belongs to the row.

    Reference: Du (2019), section 2.3.1.
    """
    x = checks.matrix("x", x)
    active = patterns(variables, x)
    unstable = active & unstable_patterns(initial, x, radius)
    together = _product(unstable.astype(x.dtype), active.T.astype(x.dtype))
    return _product(x, x.T) * together / active.shape[1]


class OneStep(NamedTuple):
    """One step of gradient descent in function space, u(k+1) − u(k) = stable + unstable.

    Attributes:
      stable: I_1, from the neurons in S_i, shape (n,).
      unstable: I_2, from the neurons in S_i^⊥, shape (n,).
      linear: −η (H − H^⊥)(u − y), shape (n,): equals I_1 where `changes` is 0.
      unstable_neurons: |S_i^⊥|, shape (n,).
      changes: how many patterns of neurons in S_i change in the step; 0 while w_r(k) and w_r(k+1)
        stay within R of w_r(0).
      unstable_gram: H^⊥, shape (n, n).
    """

    stable: jax.Array
    unstable: jax.Array
    linear: jax.Array
    unstable_neurons: jax.Array
    changes: jax.Array
    unstable_gram: jax.Array


def one_step(
    variables: Variables,
    initial: Variables,
    x: ArrayLike,
    y: ArrayLike,
    step_size: ArrayLike,
    radius: ArrayLike,
) -> OneStep:
    """Take the step of gradient descent that would follow apart, as the proof of Theorem 2.3 does.

    Args:
      variables, initial: variables now and at initialization, with a fixed output layer.
      x, y: data, shapes (n, d) and (n,).
      step_size: η, for the loss ½ Σ (f − y)².
      radius: R, which tells S_i from S_i^⊥.

    Raises:
      ValueError: the output layer is not fixed, or as for `gram`.

    Example:
      >>> module, x = TwoLayerReLU(64), jnp.eye(3)
      >>> initial = module.init(jax.random.key(0), x)
      >>> y, eta, radius = jnp.ones(3), 0.1, 0.05
      >>> step = jax.jit(one_step)(initial, initial, x, y, eta, radius)
      >>> gradient = jax.jit(weight_gradient)(initial, x, y)
      >>> after = initial | {"params": {"kernel": initial["params"]["kernel"] - eta * gradient}}
      >>> change = module.apply(after, x) - module.apply(initial, x)
      >>> bool(jnp.allclose(step.stable + step.unstable, change))
      True

    Reference: Du (2019), section 2.3.1.
    """
    if "fixed" not in variables:
        raise ValueError("one_step is about a fixed output layer; use TwoLayerReLU(m, 'fixed').")
    kernel, output = weights(variables)
    x = checks.matrix("x", x)
    scale = 1 / math.sqrt(kernel.shape[1])
    before = _product(x, kernel)
    after = before - step_size * _product(x, weight_gradient(variables, x, y))
    change = scale * output[None, :] * (relu(after) - relu(before))
    unstable = unstable_patterns(initial, x, radius)
    residual = _forward(kernel, output, x) - jnp.asarray(y)
    perpendicular = unstable_gram(variables, initial, x, radius)
    return OneStep(
        stable=jnp.sum(jnp.where(unstable, 0.0, change), axis=1),
        unstable=jnp.sum(jnp.where(unstable, change, 0.0), axis=1),
        linear=_product(perpendicular - gram(variables, x), residual) * step_size,
        unstable_neurons=jnp.sum(unstable, axis=1),
        changes=jnp.sum(((after >= 0) != (before >= 0)) & ~unstable),
        unstable_gram=perpendicular,
    )


def weights(variables: Variables) -> tuple[jax.Array, jax.Array]:
    """The first layer (d, m), column r being w_r, and the output layer (m,)."""
    try:
        params = variables["params"]
        return params["kernel"], variables.get("fixed", params)["output"]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            "Expected the variables of a TwoLayerReLU, as its init returns them: the collection "
            f"'params', and 'fixed' where the output layer is; missing: {error}."
        ) from error


def _forward(kernel: jax.Array, output: jax.Array, x: jax.Array) -> jax.Array:
    return (relu(x @ kernel) @ output) / math.sqrt(kernel.shape[1])


def _inputs(x1: ArrayLike, x2: ArrayLike | None) -> tuple[jax.Array, jax.Array, bool]:
    a = checks.matrix("x1", x1)
    b = a if x2 is None else checks.matrix("x2", x2)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"x1 has {a.shape[1]} features and x2 {b.shape[1]}; expected the same.")
    return a, b, x2 is None


def _check_output(output: str) -> None:
    if output not in get_args(Output):
        raise ValueError(f"output is {output!r}; expected one of {list(get_args(Output))}.")


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    # Patterns are decided at 0: accelerators would round float32 factors of a product to less.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
