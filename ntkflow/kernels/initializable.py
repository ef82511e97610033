"""The doors through which kernels of networks at initialization take a network."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from flax import nnx

Init = Callable[[jax.Array, jax.Array], Any]
Apply = Callable[..., jax.Array]


def initializable(module: Any) -> tuple[Init, Apply]:
    """Take a network as two functions, how it is drawn and what it computes.

    Args:
      module: a Flax Linen module, or a pair `(init(key, x) -> params, apply(params, x))`.

    Returns:
      `init(key, x)`, and `apply(params, x, key=None)`, where a Linen module that drops out draws
      its masks from the key.

    Raises:
      ValueError: anything else.

    Example:
      >>> import flax.linen as nn, jax.numpy as jnp
      >>> init, apply = initializable(nn.Dense(2))
      >>> apply(init(jax.random.key(0), jnp.ones((3, 4))), jnp.ones((3, 4))).shape
      (3, 2)
    """
    if isinstance(module, nn.Module):

        def init(key, x):
            params_key, dropout_key = jax.random.split(key)
            return module.init({"params": params_key, "dropout": dropout_key}, x)

        def apply(params, x, key=None):
            return module.apply(params, x, rngs=None if key is None else {"dropout": key})

        return init, apply
    if isinstance(module, tuple) and len(module) == 2 and all(map(callable, module)):
        own_init, own_apply = module
        return own_init, lambda params, x, key=None: own_apply(params, x)
    hint = ""
    if isinstance(module, nnx.Module):
        hint = (
            " An NNX model holds values, not how they were drawn: for a class Model pass "
            "(lambda key, x: ntkflow.from_nnx(Model(rngs=nnx.Rngs(key)))[1], apply) with the "
            "apply of ntkflow.from_nnx(model)."
        )
    raise ValueError(
        f"module is of type {type(module).__name__}; expected a Flax Linen module or a pair of "
        f"functions (init(key, x) -> params, apply(params, x)).{hint}"
    )
