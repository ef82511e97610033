"""The door for `flax.nnx` models: an object becomes a pure function of its parameters."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx


def from_nnx(model: nnx.Module) -> tuple[Callable[[Any, jax.Array], jax.Array], nnx.State]:
    """Split an NNX model into a pure `apply` and its parameters.

    Only variables of type `nnx.Param` are parameters; all others (batch statistics, random
    streams) stay as they are in the model now. What a forward pass would change in them is lost.

    Args:
      model: an `nnx.Module` that is called on inputs `x`, in evaluation mode if it has one.

    Returns:
      `(apply, params)` with `apply(params, x) == model(x)`; `params` is a pytree, with paths such
      as `("encoder", "kernel")`.

    Raises:
      ValueError: `model` is no `nnx.Module`, or has no parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
      >>> apply, params = from_nnx(model)
      >>> bool((apply(params, jnp.ones((4, 3))) == model(jnp.ones((4, 3)))).all())
      True
    """
    if not isinstance(model, nnx.Module):
        raise ValueError(
            f"model is of type {type(model).__name__}; expected an nnx.Module. A Linen module is "
            "used as it is: params = module.init(key, x), and apply = module.apply."
        )
    structure, params, *rest = nnx.split(model, nnx.Param, ...)
    if not jax.tree.leaves(params):
        raise ValueError(f"{type(model).__name__} has no variable of type nnx.Param.")

    def apply(params: nnx.State, x: jax.Array) -> jax.Array:
        return nnx.merge(structure, params, *rest)(x)

    return apply, params
