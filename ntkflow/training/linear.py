"""A network expanded in its parameters: the linear model of the lazy regime, and beyond."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ntkflow import checks
from ntkflow.parameters import partition

Apply = Callable[[Any, Any], jax.Array]


def linearize(apply: Apply, params: Any) -> Apply:
    """Build the linear model of a network around `params`.

    f_lin(θ, x) = f(θ₀, x) + ∇f(θ₀, x) · (θ − θ₀)

    Args:
      apply: the network, `apply(params, x)`.
      params: θ₀. Collections other than Flax's `params`, and integers, stay as they are here.

    Returns:
      `apply_lin(params, x)`, an `apply` of the same shapes.

    Example:
      >>> quadratic = linearize(lambda w, x: x * w**2, jnp.array(3.0))
      >>> float(quadratic(jnp.array(4.0), jnp.array(1.0)))  # 9 + 6 · (4 − 3)
      15.0

    References:
      Lee et al. (2019), "Wide neural networks of any depth evolve as linear models", eq. 5.
    """
    return taylor_expand(apply, params, 1)


def taylor_expand(apply: Apply, params: Any, degree: int) -> Apply:
    """Build the Taylor polynomial of a network in its parameters.

    f_d(θ, x) = Σ_{k ≤ d} (1/k!) (δ · ∇)ᵏ f(θ₀, x) with δ = θ − θ₀

    The cost grows as 2^degree forward passes.

    Args:
      apply: the network, `apply(params, x)`.
      params: θ₀, the point of expansion.
      degree: d ≥ 0; 1 is `linearize`.

    Returns:
      `apply_taylor(params, x)`, an `apply` of the same shapes.

    Raises:
      ValueError: `degree` is negative or no whole number.

    Example:
      >>> cubic = taylor_expand(lambda w, x: x * w**3, jnp.array(1.0), 2)
      >>> float(cubic(jnp.array(2.0), jnp.array(1.0)))  # 1 + 3 + 3
      7.0
    """
    checks.network(apply)
    if isinstance(degree, bool) or not isinstance(degree, int) or degree < 0:
        raise ValueError(f"degree is {degree!r}; expected a whole number, 0 or more.")
    initial, merge = partition(params)

    def expanded(params: Any, x: Any) -> jax.Array:
        selected, _ = partition(params)
        direction = jax.tree.map(jnp.subtract, selected, initial)

        def derivative(function):
            return lambda part: jax.jvp(function, (part,), (direction,))[1]

        term = lambda part: apply(merge(part), x)  # noqa: E731
        total = term(initial)
        scale = 1.0
        for k in range(1, degree + 1):
            term = derivative(term)
            scale /= k
            total = jax.tree.map(lambda t, d: t + scale * d, total, term(initial))
        return total

    return expanded
