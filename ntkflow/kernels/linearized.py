"""A function of parameters as the linear map that it is nearby, both ways."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Linearized(NamedTuple):
    """A function f at some parameters, with its Jacobian J.

    Attributes:
      value: f.
      pull: u ↦ Jᵀ u, from what f returns to parameters.
      push: v ↦ J v, from parameters to what f returns.
    """

    value: jax.Array
    pull: Callable[[jax.Array], Any]
    push: Callable[[Any], jax.Array]


def linearized(function: Callable[[Any], jax.Array], parameters: Any) -> Linearized:
    """Linearize a function, in both directions by its rules for going back.

    What pulls back, transposed, pushes forward. `jax.jvp` knows no rules of `jax.custom_vjp`.

    Example:
      >>> import jax.numpy as jnp
      >>> f = linearized(jnp.square, jnp.array([1.0, 2.0]))
      >>> f.pull(jnp.ones(2)).tolist(), f.push(jnp.ones(2)).tolist()
      ([2.0, 4.0], [2.0, 4.0])
    """
    value, pullback = jax.vjp(function, parameters)

    def pull(cotangent):
        return pullback(cotangent)[0]

    def push(tangent):
        return jax.linear_transpose(pull, value)(tangent)[0]

    return Linearized(value, pull, push)
