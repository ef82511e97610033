"""Nodes of any network, found by the leaves that enter and leave them: how far they moved, what
they weigh.

A node is an index along the last axis of its incoming leaves (kernels of `Dense` and `Conv`,
biases), and along the axis −2, or the only axis, of its outgoing ones: of a convolution it is a
channel. A decoder of shape (d, m) has its nodes on `axis=-1`. Leaves are chosen by predicates on
their paths, without Flax's collection names.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.parameters import Predicate, path_names
from ntkflow.training.observe import Snapshot

Leaf = tuple[tuple[str, ...], jax.Array]


def displacement(incoming: Predicate) -> Callable[[Snapshot], jax.Array]:
    """Build an observer of how far each node has moved: ‖w_j(t) − w_j(0)‖.

    w_j is all that enters node j: of a convolution the filter of channel j, with the bias too
    where the predicate takes it in. A whole history of m nodes holds (records, m) numbers;
    `largest_displacement` turns it into what the paper plots.

    Args:
      incoming: predicate on a leaf's path, e.g. `lambda path: path == ("layers_0", "kernel")`.

    Returns:
      `observer(snapshot) -> (m,)`, for `observe=` of `descend` and `gradient_flow`; in the
      leaves' dtype, at least float32.

    Raises:
      ValueError: `incoming` is no predicate; and from the observer: it matches nothing, or leaves
        with different numbers of nodes.

    Example:
      >>> start = {"params": {"kernel": jnp.zeros((2, 3)), "output": jnp.ones(3)}}
      >>> now = {"params": {"kernel": jnp.array([[3.0, 0, 0], [4, 0, 1]]), "output": jnp.ones(3)}}
      >>> displacement(lambda path: "kernel" in path)(Snapshot(1, now, start, None)).tolist()
      [5.0, 0.0, 1.0]

    Reference: Caron et al. (2023), Theorem 4.1 (c) and appendix J.
    """
    check_predicate("incoming", incoming)

    def observer(snapshot: Snapshot) -> jax.Array:
        now = incoming_leaves(snapshot.params, incoming)
        start = incoming_leaves(snapshot.initial_params, incoming)
        moved = [
            (path, _at_least_float32(leaf) - _at_least_float32(before))
            for (path, leaf), (_, before) in zip(now, start, strict=True)
        ]
        return jnp.sqrt(_squared_norms(moved))

    return observer


def largest_displacement(history: ArrayLike) -> jax.Array:
    """Follow the ONE node that is farthest from its start at the end of the run.

    ‖w_J(t) − w_J(0)‖ with J = argmax_j ‖w_j(T) − w_j(0)‖, chosen per run: at earlier times another
    node may be farther.

    Args:
      history: records of `displacement`, shape (records, m); any leading axes (seeds, settings)
        are runs of their own.

    Returns:
      Shape (records,), with the leading axes of `history`.

    Raises:
      ValueError: fewer than two axes, or one of length 0.

    Example:
      >>> largest_displacement(jnp.array([[0.0, 0.0], [3.0, 1.0], [3.0, 4.0]])).tolist()
      [0.0, 1.0, 4.0]

    Reference: Caron et al. (2023), appendix J, the weight differences of Figures 2 to 19.
    """
    history = jnp.asarray(history)
    if history.ndim < 2 or 0 in history.shape[-2:]:
        raise ValueError(
            f"history has shape {history.shape}; expected (records, nodes) or (..., records, "
            "nodes), as recorded by observe={'displacement': displacement(incoming)}."
        )
    farthest = jnp.argmax(history[..., -1, :], axis=-1, keepdims=True)
    return jnp.take_along_axis(history, farthest[..., None, :], axis=-1)[..., 0]


def node_norms(variables: Any, incoming: Predicate) -> jax.Array:
    """Compute ‖w_j‖ of everything that enters each node.

    Args:
      variables: a network's variables, or any pytree of arrays.
      incoming: predicate on a leaf's path, without Flax's collection name.

    Returns:
      Shape (m,), in the leaves' dtype, at least float32.

    Raises:
      ValueError: as from the observer of `displacement`.

    Example:
      >>> node_norms({"kernel": jnp.array([[3.0, 0.0], [4.0, 1.0]])}, lambda path: True).tolist()
      [5.0, 1.0]
    """
    check_predicate("incoming", incoming)
    return jnp.sqrt(_squared_norms(incoming_leaves(variables, incoming)))


def importance(
    variables: Any,
    incoming: Predicate,
    outgoing: Predicate | None = None,
    scales: ArrayLike | None = None,
    *,
    released: bool = False,
    positions: int = 1,
    axis: int = -2,
) -> jax.Array:
    """Compute how much each node matters, for `pruning_curve` and `transfer`.

    - With `scales` λ: λ_j ‖w_j‖², the paper's measure; `outgoing` is not read.
    - Without: ‖w_j‖² ‖a_j‖², where a_j is what leaves the node. It does not change when a factor
      moves from the weights before a ReLU to those behind it. Where √λ_j is multiplied
      into a_j and the signs are ±1, it is the paper's.
    - `released=True`: λ_j ‖a_j‖², by which the paper's released code sorts; λ_j alone where
      `outgoing` is None, and up to a factor where all signs are ±1. Under equal scales (γ = 1)
      this orders nothing: nodes then count in the order of their numbers.

    Args:
      variables: a network's variables, or any pytree of arrays.
      incoming: predicate on the paths of the leaves that enter the nodes, without Flax's
        collection name.
      outgoing: predicate on the paths of those that leave them; leaves called "bias" belong to
        the next layer and are left out.
      scales: λ, shape (m,), not negative (checked where its values can be read).
      released: take the released code's measure for the paper's.
      positions: pixels of a channel, where a convolution's output (n, h, w, m) is flattened
        before a dense layer: h·w; static.
      axis: of the outgoing leaves, which numbers the nodes, from the end; −1 of an autoencoder's
        decoder (d, m), of tied weights, and of a factor (outputs, rank).

    Returns:
      Shape (m,), not negative.

    Raises:
      ValueError: a predicate matches nothing or leaves with other numbers of nodes, scales of
        another length or negative, or the argument is missing that the measure asks for.

    Example:
      >>> variables = {"params": {"kernel": jnp.array([[1.0, 2.0, 3.0]])},
      ...              "fixed": {"output": jnp.array([1.0, -1.0, 2.0])}}
      >>> kernel, output = lambda path: "kernel" in path, lambda path: "output" in path
      >>> importance(variables, kernel, output).tolist()
      [1.0, 4.0, 36.0]
      >>> scales = jnp.array([0.5, 0.25, 0.25])
      >>> importance(variables, kernel, scales=scales).tolist()
      [0.5, 1.0, 2.25]
      >>> importance(variables, kernel, output, scales, released=True).tolist()
      [0.5, 0.25, 1.0]

    Reference: Caron et al. (2023), appendix J: "feature importance measured as λ_mj ‖w_tj‖²".
    """
    check_predicate("incoming", incoming)
    entering = incoming_leaves(variables, incoming)
    nodes = entering[0][1].shape[-1]
    if scales is None:
        if outgoing is None or released:
            missing = "scales" if released else "outgoing"
            raise ValueError(
                f"{missing} is None; expected the scales λ of shape ({nodes},), or `outgoing`, a "
                "predicate on the paths of the weights that leave the nodes (and no released=True)."
            )
        leaving = _outgoing_norms(variables, outgoing, nodes, positions, axis)
        return _squared_norms(entering) * leaving
    scales = jnp.asarray(scales)
    if scales.shape != (nodes,):
        raise ValueError(
            f"scales has shape {scales.shape}; expected ({nodes},), one for each node of "
            f"{_listed(entering)}."
        )
    if checks.is_concrete(scales) and not (np.asarray(scales) >= 0).all():
        raise ValueError(
            "scales holds negative values or NaN; expected λ_j ≥ 0, not signs or √λ_j a_j."
        )
    if not released:
        return scales * _squared_norms(entering)
    if outgoing is None:
        return scales
    return scales * _outgoing_norms(variables, outgoing, nodes, positions, axis)


def ranking(importance: ArrayLike) -> jax.Array:
    """Order the nodes by decreasing importance; of equal ones, that of lower number comes first.

    The first k are those that remain when all but k are pruned. NaN comes first, so that a network
    that has diverged shows it to the end.

    Args:
      importance: shape (m,).

    Returns:
      Numbers of nodes, integers of shape (m,).

    Raises:
      ValueError: another shape.

    Example:
      >>> ranking(jnp.array([1.0, 3.0, 1.0, 2.0])).tolist()
      [1, 3, 0, 2]
    """
    importance = jnp.asarray(importance)
    if importance.ndim != 1 or not importance.size:
        raise ValueError(
            f"importance has shape {importance.shape}; expected (nodes,), as from "
            "ntkflow.features.importance. Over several seeds, map with jax.vmap."
        )
    return jnp.argsort(importance, descending=True, stable=True)


# What the package shares: which leaves a predicate chooses, and what must fit.


def check_predicate(name: str, predicate: Any) -> None:
    """Refuse what is no function of a path."""
    if not callable(predicate):
        raise ValueError(
            f"{name} is {predicate!r}; expected a predicate on a leaf's path, a tuple of strings, "
            'e.g. lambda path: path == ("layers_0", "kernel").'
        )


def incoming_leaves(variables: Any, incoming: Predicate) -> list[Leaf]:
    """The leaves that enter the nodes, all with the same last axis."""
    leaves = _chosen("incoming", variables, incoming)
    if any(leaf.ndim == 0 for _, leaf in leaves) or len({leaf.shape[-1] for _, leaf in leaves}) > 1:
        raise ValueError(
            f"incoming matches {_listed(leaves)}; expected leaves of one layer, whose last axes "
            "number its nodes: choose by the whole path."
        )
    return leaves


def outgoing_leaves(
    variables: Any, outgoing: Predicate, nodes: int, positions: int, axis: int
) -> list[Leaf]:
    """The leaves that leave `nodes` nodes; a bias belongs to the layer that comes next."""
    checks.positive_int("positions", positions)
    if axis not in (-1, -2):
        raise ValueError(
            f"axis is {axis!r}; expected −2, or −1 where outgoing leaves number the nodes there."
        )
    leaves = _chosen("outgoing", variables, lambda path: path[-1:] != ("bias",) and outgoing(path))
    for _, leaf in leaves:
        if not leaf.ndim or leaf.shape[outgoing_axis(leaf, axis)] != nodes * positions:
            flat = f" ({nodes} channels at {positions} positions)" if positions > 1 else ""
            hint = "choose by the whole path"
            if leaf.ndim and leaf.shape[outgoing_axis(leaf, axis)] % nodes == 0:
                hint += ", or, behind a flattened convolution, give its pixels as positions="
            elif leaf.ndim > 1 and leaf.shape[outgoing_axis(leaf, -3 - axis)] == nodes:
                hint += f", or give axis={-3 - axis}"
            raise ValueError(
                f"outgoing matches {_listed(leaves)}; expected leaves whose axis {axis}, or only "
                f"axis, has length {nodes * positions}{flat}, for as many nodes: {hint}."
            )
    return leaves


def outgoing_axis(leaf: jax.Array, axis: int) -> int:
    """The axis, from the start, that numbers the nodes which a leaf leaves."""
    return max(leaf.ndim + axis, 0)


def own_path(variables: Any, path: tuple[Any, ...]) -> tuple[str, ...]:
    """A key path as predicates see it: strings, without the name of Flax's collection."""
    flax_variables = isinstance(variables, Mapping) and isinstance(variables.get("params"), Mapping)
    return path_names(path)[1 if flax_variables else 0 :]


def _chosen(name: str, variables: Any, predicate: Predicate) -> list[Leaf]:
    leaves = [
        (own_path(variables, path), jnp.asarray(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
        if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
    ]
    chosen = [(path, leaf) for path, leaf in leaves if predicate(path)]
    if not chosen:
        raise ValueError(
            f"{name} matches none of {_listed(leaves)}; expected a predicate that holds for the "
            "path of at least one, a tuple of strings without Flax's collection name."
        )
    return chosen


def _listed(leaves: list[Leaf]) -> str:
    return ", ".join(f"{'/'.join(path)} {leaf.shape}" for path, leaf in leaves) or "no leaves"


def _squared_norms(leaves: list[Leaf]) -> jax.Array:
    """Σ w² over all but the last axis, and over the leaves, shape (m,)."""
    squares = (jnp.square(_at_least_float32(leaf)) for _, leaf in leaves)
    return sum(
        (jnp.sum(square.reshape(-1, square.shape[-1]), axis=0) for square in squares),
        start=jnp.zeros((), jnp.float32),
    )


def _outgoing_norms(
    variables: Any, outgoing: Predicate, nodes: int, positions: int, axis: int
) -> jax.Array:
    """Σ a² over all that leaves a node, shape (m,)."""
    check_predicate("outgoing", outgoing)
    by_node = [
        (path, jnp.moveaxis(leaf, outgoing_axis(leaf, axis), -1).reshape(-1, nodes))
        for path, leaf in outgoing_leaves(variables, outgoing, nodes, positions, axis)
    ]
    return _squared_norms(by_node)


def _at_least_float32(array: Any) -> jax.Array:
    array = jnp.asarray(array)
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))
