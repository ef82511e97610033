"""How a kernel moves with its parameters: derivatives by `jvp`, and the third-order kernel."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.parameters import Predicate, partition

Kernel = Callable[..., jax.Array]


def ntk_derivative(kernel: Kernel, *, trainable: Predicate | None = None) -> Kernel:
    """Build the derivative of a kernel in a direction of its parameters.

    DΘ(x1, x2)[v] = d/ds Θ(x1, x2; θ + s v) at s = 0: one `jvp` of the kernel.

    Args:
      kernel: any differentiable `kernel(params, x1, x2=None)`, from `empirical_ntk(apply)` say.
      trainable: a predicate on a parameter's path, as for `empirical_ntk`: the others stay as
        they are, whatever the direction says of them. None moves the whole `params` collection.

    Returns:
      `derivative(params, direction, x1, x2=None)`, of the kernel's shape; `direction` is a tree
      like `params`, in which the entries of what does not move (integers too) are ignored.

    Raises:
      ValueError: from the derivative: a direction of another structure or other shapes, and
        whatever the kernel refuses.

    Example:
      >>> from ntkflow.kernels.empirical import empirical_ntk
      >>> kernel = empirical_ntk(lambda w, x: jnp.exp(x @ w))  # Θ = f(x1) f(x2) x1·x2
      >>> derivative = ntk_derivative(kernel)
      >>> derivative(jnp.zeros(2), jnp.array([1.0, 0.0]), jnp.eye(2)).tolist()
      [[2.0, 0.0], [0.0, 0.0]]
    """
    _check_kernel(kernel)

    def derivative(
        params: Any, direction: Any, x1: ArrayLike, x2: ArrayLike | None = None
    ) -> jax.Array:
        selected, merge = partition(params, trainable)
        tangent = _tangent(selected, direction)
        return jax.jvp(lambda part: kernel(merge(part), x1, x2), (selected,), (tangent,))[1]

    return derivative


def ntk_time_derivative(
    kernel: Kernel,
    loss: Callable[[Any, Any], jax.Array],
    *,
    trainable: Predicate | None = None,
) -> Kernel:
    """Build the time derivative of a kernel along gradient flow.

    dΘ(x1, x2)/dt = DΘ(x1, x2)[−∇L] = −Σ_k O₃(x1, x2, x_k) ∂L/∂f(x_k), as θ' = −∇L(θ) moves θ.

    The sum over the data x_k is never formed: one gradient of the loss, and one `jvp` of the
    kernel. A step of gradient descent of size η moves the kernel by η times this, to first order.

    Args:
      kernel: any differentiable `kernel(params, x1, x2=None)`, from `empirical_ntk(apply)` say.
      loss: `loss(params, data) -> scalar`, as for `gradient_flow`; its scale is that of time.
      trainable: what the flow trains, as for `gradient_flow`. Give `empirical_ntk` the same.

    Returns:
      `derivative(params, data, x1, x2=None)`, of the kernel's shape, in units of 1/time.

    Raises:
      ValueError: as for `ntk_derivative`.

    Example:
      >>> from ntkflow.kernels.empirical import empirical_ntk
      >>> apply = lambda w, x: jnp.exp(x @ w)
      >>> loss = lambda w, data: 0.5 * jnp.sum((apply(w, data[0]) - data[1]) ** 2)
      >>> x, y = jnp.ones((1, 1)), jnp.array([3.0])
      >>> derivative = ntk_time_derivative(empirical_ntk(apply), loss)
      >>> derivative(jnp.zeros(1), (x, y), x).tolist()  # O₃ = 2 f³ = 2, and f − y = −2
      [[4.0]]

    References:
      Huang and Yau (2020), "Dynamics of deep neural networks and neural tangent hierarchy": the
      hierarchy at r = 2, there with the loss 1/2n Σ (f − y)².
    """
    derivative = ntk_derivative(kernel, trainable=trainable)
    if not callable(loss):
        raise ValueError(
            f"loss is of type {type(loss).__name__}; expected a function loss(params, data) -> "
            "scalar, e.g. ntkflow.squared_loss(apply)."
        )

    def time_derivative(
        params: Any, data: Any, x1: ArrayLike, x2: ArrayLike | None = None
    ) -> jax.Array:
        selected, merge = partition(params, trainable)
        gradient = jax.grad(lambda part: loss(merge(part), data))(selected)
        return derivative(params, jax.tree.map(jnp.negative, gradient), x1, x2)

    return time_derivative


def third_order_kernel(
    kernel: Kernel, apply: Callable[[Any, Any], jax.Array], *, trainable: Predicate | None = None
) -> Kernel:
    """Build the third-order kernel of the tangent hierarchy.

    O₃(x1, x2, x3)[i, j, ..., k, c] = Σ_p ∂Θ(x1_i, x2_j)/∂θ_p · ∂f_c(x3_k)/∂θ_p

    One derivative of the kernel per output at each x3, one after another: n3·o times the time of
    `ntk_derivative`, and its memory beside the result and the Jacobian at x3, n3·o·p numbers. For
    the sum that a run needs, `ntk_time_derivative` takes one.

    Args:
      kernel: `empirical_ntk(apply)`, with any of its `outputs`.
      apply: the network, `apply(params, x)` of shape (n, o) or (n,).
      trainable: as for `ntk_derivative`; give `empirical_ntk` the same.

    Returns:
      `kernel3(params, x1, x2, x3)`: the shape of `kernel(params, x1, x2)`, then (n3,) for a scalar
      network and (n3, o) for others. x2=None means x1.

    Raises:
      ValueError: as for `ntk_derivative`.

    Example:
      >>> from ntkflow.kernels.empirical import empirical_ntk
      >>> apply = lambda w, x: jnp.exp(x @ w)
      >>> x = jnp.eye(2)
      >>> third_order_kernel(empirical_ntk(apply), apply)(jnp.zeros(2), x, None, x).shape
      (2, 2, 2)

    References:
      Huang and Yau (2020), "Dynamics of deep neural networks and neural tangent hierarchy".
    """
    checks.network(apply)
    derivative = ntk_derivative(kernel, trainable=trainable)

    def kernel3(params: Any, x1: ArrayLike, x2: ArrayLike | None, x3: ArrayLike) -> jax.Array:
        selected, merge = partition(params, trainable)
        outputs = jax.eval_shape(apply, params, x3).shape
        jacobian = jax.jacrev(lambda part: apply(merge(part), x3).reshape(-1))(selected)
        rows = jax.lax.map(lambda row: derivative(params, row, x1, x2), jacobian)
        return jnp.moveaxis(rows, 0, -1).reshape(*rows.shape[1:], *outputs)

    return kernel3


def _check_kernel(kernel: Any) -> None:
    if not callable(kernel):
        raise ValueError(
            f"kernel is of type {type(kernel).__name__}; expected a function kernel(params, x1, "
            "x2=None), e.g. ntkflow.empirical_ntk(apply)."
        )


def _tangent(selected: Any, direction: Any) -> Any:
    """The direction's entries at the selected parameters, None elsewhere."""

    def entry(parameter, along):
        if parameter is None:
            return None
        shape, found = jnp.shape(parameter), getattr(along, "shape", ())  # of a Python number: ()
        if found != shape:
            raise ValueError(f"an entry of shape {found}, a parameter of shape {shape}")
        return jnp.asarray(along, jnp.result_type(parameter))

    try:
        return jax.tree.map(entry, selected, direction, is_leaf=lambda node: node is None)
    except (ValueError, TypeError) as error:
        raise ValueError(
            "direction does not fit params; expected a tree of the same structure and shapes. The "
            f"order is (params, direction, x1, x2). Found: {error}"
        ) from error
