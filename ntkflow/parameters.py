"""Which of a model's parameters are differentiated and trained: a partition of the tree."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Predicate = Callable[[tuple[str, ...]], bool]
Merge = Callable[[Any], Any]


def path_names(path: tuple[Any, ...]) -> tuple[str, ...]:
    """A key path of `jax.tree_util` as strings; `.value` of an NNX variable is left out."""
    keys = jax.tree_util
    names = []
    for entry in path:
        if isinstance(entry, keys.GetAttrKey):
            if entry.name != "value":
                names.append(entry.name)
        elif isinstance(entry, keys.DictKey | keys.FlattenedIndexKey):
            names.append(str(entry.key))
        elif isinstance(entry, keys.SequenceKey):
            names.append(str(entry.idx))
        else:
            names.append(str(entry))
    return tuple(names)


def partition(params: Any, trainable: Predicate | None = None) -> tuple[Any, Merge]:
    """Split `params` into the part that is differentiated, and a function that puts it back.

    Flax variables `{"params": ..., "batch_stats": ...}` are differentiated in the collection
    `params` alone, and the paths that `trainable` sees start below it. Leaves that are not
    floating point (integers, PRNG keys) are constants. The selected tree has the structure of
    `params` with None, the empty tree, in place of each constant, so that optimizers which
    label parameters by name work on it.

    Args:
      params: any pytree of arrays.
      trainable: a predicate on a parameter's path, a tuple of strings; None selects all.

    Returns:
      `(selected, merge)` with `merge(selected) == params`.

    Raises:
      ValueError: nothing is selected.

    Example:
      >>> params = {"params": {"encoder": jnp.ones(2), "decoder": jnp.ones(3)}}
      >>> selected, merge = partition(params, lambda path: "encoder" in path)
      >>> selected["params"]["decoder"] is None
      True
      >>> merge(jax.tree.map(lambda p: 0 * p, selected))["params"]["decoder"].tolist()
      [1.0, 1.0, 1.0]
    """
    if trainable is not None and not callable(trainable):
        raise ValueError(
            f"trainable is {trainable!r}; expected a predicate on a parameter's path, "
            'e.g. lambda path: "encoder" in path.'
        )
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    collections = _has_collections(params)

    def selects(path, leaf):
        names = path_names(path)
        if collections:
            collection, *rest = names
            if collection != "params":
                return False
            names = tuple(rest)
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            return False
        return trainable is None or bool(trainable(names))

    chosen = [selects(path, leaf) for path, leaf in leaves]
    if not any(chosen):
        available = sorted("/".join(path_names(path)) for path, _ in leaves)
        asked = (
            "no parameter is floating point" if trainable is None else "`trainable` matches none"
        )
        raise ValueError(
            f"Nothing to differentiate: {asked} of the parameters {available}. "
            "`trainable` gets each parameter's path as a tuple of strings, without Flax's "
            'leading collection name, e.g. lambda path: "encoder" in path.'
        )
    constants = [leaf for _, leaf in leaves]
    holes = [leaf if choice else None for leaf, choice in zip(constants, chosen, strict=True)]
    selected = jax.tree.unflatten(structure, holes)

    def merge(part):
        own = iter(jax.tree.leaves(part))
        whole = [
            next(own) if choice else leaf for leaf, choice in zip(constants, chosen, strict=True)
        ]
        return jax.tree.unflatten(structure, whole)

    return selected, merge


def selected_paths(selected: Any) -> list[tuple[str, ...]]:
    """The paths of what `partition` selected, as `trainable` sees them.

    Example:
      >>> selected, _ = partition({"params": {"encoder": jnp.ones(2), "steps": jnp.ones(2, int)}})
      >>> selected_paths(selected)
      [('encoder',)]
    """
    start = 1 if _has_collections(selected) else 0
    leaves = jax.tree_util.tree_leaves_with_path(selected)
    return [path_names(path)[start:] for path, _ in leaves]


def _has_collections(params: Any) -> bool:
    """Whether this is a Flax tree of variables, {"params": …, "batch_stats": …}."""
    return isinstance(params, Mapping) and isinstance(params.get("params"), Mapping)
