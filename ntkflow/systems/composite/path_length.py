"""How far a run has gone along its path: Σ ‖w_{i+1} − w_i‖ of descent, ∫ ‖∇h‖ dt of the flow."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from ntkflow.systems.records import steps_of


class PathLength(NamedTuple):
    """The state of `accumulate_length`: Σ ‖w_{i+1} − w_i‖ so far, a scalar."""

    length: jax.Array


def accumulate_length() -> optax.GradientTransformation:
    """Add up the lengths of all steps, those between records too; updates pass as they are.

    Chain it last, after what makes an update of a gradient. It counts in the parameters' dtype.

    Example:
      >>> from ntkflow.training.descent import descend
      >>> optimizer = optax.chain(optax.sgd(0.5), accumulate_length())
      >>> run = descend(lambda w, data: jnp.sum(jnp.square(w)) / 2, optimizer, steps=2)
      >>> float(path_length(run(jnp.array([3.0, 4.0]), jnp.zeros(1)).state.optimizer))  # 2.5 + 1.25
      3.75

    Reference: Song et al. (2021), (30).
    """

    def init(params: Any) -> PathLength:
        dtype = jnp.result_type(*jax.tree.leaves(params), jnp.float32)
        return PathLength(jnp.zeros((), dtype))

    def update(updates: Any, state: PathLength, params: Any = None) -> tuple[Any, PathLength]:
        length = state.length + optax.tree.norm(updates).astype(state.length.dtype)
        return updates, PathLength(length)

    return optax.GradientTransformation(init, update)


def path_length(state: Any) -> jax.Array:
    """Σ ‖w_{i+1} − w_i‖ from the optimizer's state, `trajectory.state.optimizer`; seeds kept.

    Raises:
      ValueError: no `accumulate_length()`, or several, in the optimizer.
    """
    leaves = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, PathLength))
    found = [leaf for leaf in leaves if isinstance(leaf, PathLength)]
    if len(found) != 1:
        raise ValueError(
            f"The state holds {len(found)} path lengths; expected one: train with "
            "optax.chain(optax.sgd(η), accumulate_length()) and hand trajectory.state.optimizer on."
        )
    return found[0].length


def flow_path_length(times: ArrayLike, loss: ArrayLike) -> np.ndarray:
    """Bound the length of a gradient flow up to each record from above, by its losses alone.

    ∫ ‖∇h‖ dt ≤ √(Δt ∫ ‖∇h‖² dt) = √(Δt (h(t) − h(t + Δt))) between two records, by the inequality
    of Cauchy and Schwarz and (27), dh/dt = −‖∇h‖². It is the length where ‖∇h‖ is constant
    between records, and 4 % above it where ‖∇h‖ falls by a factor e.

    Args:
      times: of the records, from 0 on; `trajectory.steps`.
      loss: h at the records, shape (..., records).

    Returns:
      The bounds, 0 at the first record: shape (..., records).

    Example:
      >>> times = np.linspace(0, 2, 21)
      >>> loss = np.exp(-2 * times) / 2  # of h(w) = w²/2 from w = 1: the length is 1 − e⁻ᵗ
      >>> (flow_path_length(times, loss)[-1] / (1 - np.exp(-2.0))).round(4).item()
      1.0004

    Reference: Song et al. (2021), (27) and (28).
    """
    loss = np.asarray(loss, float)
    times = steps_of(times, loss)
    with np.errstate(invalid="ignore"):  # inf − inf of a flow that failed
        falls = np.maximum(-np.diff(loss, axis=-1), 0)  # rounding, and the solver's own error
    parts = np.sqrt(np.diff(times, axis=-1) * falls)
    return np.concatenate([np.zeros_like(loss[..., :1]), np.cumsum(parts, axis=-1)], axis=-1)
