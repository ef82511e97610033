"""Pruning without retraining: what a network is worth with its least important nodes removed."""

import operator
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow.features.nodes import (
    check_predicate,
    outgoing_axis,
    outgoing_leaves,
    own_path,
    ranking,
)
from ntkflow.parameters import Predicate

Evaluate = Callable[[Any, Any], Any]
Curve = Callable[[Any, ArrayLike, Any], Any]


def pruning_curve(
    evaluate: Evaluate,
    outgoing: Predicate,
    removed: Iterable[int],
    *,
    positions: int = 1,
    axis: int = -2,
) -> Curve:
    """Build a pruning curve: the network evaluated after removing more and more nodes.

    Nodes go in the order of increasing importance, by zeroing the weights that leave them; nothing
    is retrained. It costs one evaluation for each entry of `removed`, one after another, and the
    memory of one. With all nodes removed, a network without a bias in its output layer is 0:
    cross-entropy ln K of K classes, mean squared error 1/K on one-hot labels, 1 on standardized
    ones.

    Args:
      evaluate: `evaluate(variables, data)`, any pytree of metrics: a loss itself, or
        `{"loss": ..., "accuracy": ...}`.
      outgoing: predicate on the paths of the leaves that leave the nodes, without Flax's
        collection name; leaves called "bias" belong to the next layer and stay.
      removed: how many nodes to remove, static, e.g. `range(0, m + 1, m // 20)`.
      positions, axis: as for `importance`.

    Returns:
      `curve(variables, importance, data)`: what `evaluate` returns, with a leading axis of length
      `len(removed)`. Of equally important nodes, that of the highest number goes first. Build it
      once: it compiles once for each shape, also outside of `jit`.

    Raises:
      ValueError: `removed` is empty or holds what is no number ≥ 0; and from the curve: more
        nodes removed than there are, an importance of another shape, a predicate that matches
        nothing or leaves with other numbers of nodes.

    Example:
      >>> variables = {"params": {"kernel": jnp.eye(3), "output": jnp.array([1.0, 4.0, 2.0])}}
      >>> evaluate = lambda variables, x: x @ variables["params"]["kernel"] @ (
      ...     variables["params"]["output"])
      >>> curve = pruning_curve(evaluate, lambda path: "output" in path, removed=[0, 1, 2, 3])
      >>> curve(variables, jnp.array([1.0, 4.0, 2.0]), jnp.ones(3)).tolist()
      [7.0, 6.0, 4.0, 0.0]

    Reference: Caron et al. (2023), appendix J, Figures 4, 5, 10 to 12 and 17 to 19: every 5 % of
    the nodes.
    """
    if not callable(evaluate):
        raise ValueError(
            f"evaluate is of type {type(evaluate).__name__}; expected a function "
            'evaluate(variables, data), e.g. ntkflow.squared_loss(apply, "mean").'
        )
    check_predicate("outgoing", outgoing)
    counts = _counts(removed)

    # Outside of jit, each call of a lax.map compiles anew.
    @jax.jit
    def curve(variables: Any, importance: ArrayLike, data: Any) -> Any:
        rank = _rank(importance)
        _check_removed(max(counts), len(rank))
        masked = _mask(variables, outgoing, len(rank), positions, axis)

        def at(count):
            return evaluate(masked(rank < len(rank) - count), data)

        return jax.lax.map(at, jnp.asarray(counts, rank.dtype))

    return curve


def prune(
    variables: Any,
    outgoing: Predicate,
    importance: ArrayLike,
    removed: int,
    *,
    positions: int = 1,
    axis: int = -2,
) -> Any:
    """Remove the `removed` least important nodes, by zeroing the weights that leave them.

    Args:
      variables: a network's variables.
      outgoing: predicate on the paths of the leaves that leave the nodes.
      importance: shape (m,).
      removed: how many, static.
      positions, axis: as for `importance`.

    Returns:
      Variables of the same structure and shapes.

    Raises:
      ValueError: as for `pruning_curve`.

    Example:
      >>> variables = {"output": jnp.array([1.0, 4.0, 2.0])}
      >>> prune(variables, lambda path: True, jnp.array([1.0, 4.0, 2.0]), 2)["output"].tolist()
      [0.0, 4.0, 0.0]
    """
    check_predicate("outgoing", outgoing)
    (count,) = _counts([removed])
    rank = _rank(importance)
    _check_removed(count, len(rank))
    return _mask(variables, outgoing, len(rank), positions, axis)(rank < len(rank) - count)


def _counts(removed: Any) -> tuple[int, ...]:
    try:
        counts = tuple(operator.index(count) for count in removed)
    except (TypeError, jax.errors.TracerIntegerConversionError) as error:
        raise ValueError(
            f"removed is {removed!r}; expected whole numbers that are known before tracing, e.g. "
            "range(0, width + 1, width // 20)."
        ) from error
    if not counts or min(counts) < 0:
        raise ValueError(f"removed is {removed!r}; expected at least one number, none negative.")
    return counts


def _check_removed(count: int, nodes: int) -> None:
    if count > nodes:
        raise ValueError(
            f"{count} nodes are to be removed, and there are {nodes}; expected at most {nodes}."
        )


def _rank(importance: ArrayLike) -> jax.Array:
    """Each node's place in the order of decreasing importance, from 0."""
    return jnp.argsort(ranking(importance))


def _mask(
    variables: Any, outgoing: Predicate, nodes: int, positions: int, axis: int
) -> Callable[[jax.Array], Any]:
    """`masked(keep)`: variables with zeros where they leave nodes that are not kept, (m,)."""
    chosen = {path for path, _ in outgoing_leaves(variables, outgoing, nodes, positions, axis)}

    def masked(keep: jax.Array) -> Any:
        # Flattened (h, w, m): the channel is what runs fastest.
        keep = jnp.tile(keep, positions)

        def mask(path, leaf):
            if own_path(variables, path) not in chosen:
                return leaf
            leaf = jnp.asarray(leaf)
            shape = [1] * leaf.ndim
            shape[outgoing_axis(leaf, axis)] = len(keep)
            return jnp.where(keep.reshape(shape), leaf, jnp.zeros_like(leaf))

        return jax.tree_util.tree_map_with_path(mask, variables)

    return masked
