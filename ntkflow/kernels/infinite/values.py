"""The arrays of a traced network as nodes with axes, and how operations on axes act on these.

An axis of an array is a row of factors, the last varying fastest, each of one kind:

    "position"  the node depends on it; its positions are these factors, in order
    "channel"   entries along it are independent and of one law
    "any"       entries of a parameter or of noise: a channel or a position, once it meets one
    "constant"  the node is the same along it: what a broadcast leaves

Axes of size 1 have no factors, so that inserting and removing them costs nothing.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from ntkflow.kernels.infinite.fields import (
    Channels,
    Function,
    Known,
    Leaf,
    Mapped,
    Node,
    Noise,
    Parameter,
    PositionMap,
    Probe,
    Product,
    Scale,
    Sum,
    Unfollowed,
    number,
)

Kind = Literal["position", "channel", "any", "constant"]


class Factor(NamedTuple):
    """A part of an axis; `stride` tells how far apart neighbours are among a field's channels."""

    size: int
    kind: Kind
    stride: int = 1


Axis = tuple[Factor, ...]


class Value(NamedTuple):
    """An array of the network: a node, and what each axis of the array is made of."""

    node: Node
    axes: tuple[Axis, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(math.prod(f.size for f in axis) for axis in self.axes)

    @property
    def known(self) -> bool:
        return isinstance(self.node, Known)

    @property
    def undecided(self) -> bool:
        """Whether it is made of parameters or noise that no field has met yet."""
        return any(f.kind == "any" for f in self.factors)

    @property
    def factors(self) -> list[Factor]:
        return [factor for axis in self.axes for factor in axis]


def positions(axes: Sequence[Axis]) -> tuple[int, ...]:
    """Sizes of the positions of a node with these axes."""
    return tuple(f.size for axis in axes for f in axis if f.kind == "position")


def known_value(arrays: Sequence[Any]) -> Value:
    """Numbers, one array per data set: (n, *shape), or (1, *shape) shared by all samples."""
    shape = arrays[0].shape[1:]
    axes = tuple((Factor(size, "position"),) if size > 1 else () for size in shape)
    kept = positions(axes)
    return Value(Known(tuple(a.reshape(len(a), *kept) for a in arrays)), axes)


def map_positions(
    function: Callable, node: Node, shape: Sequence[int], *, aligned=False, relabels=False
) -> Node:
    """A linear map of the last axes of arrays, the positions; see `PositionMap`."""
    if isinstance(node, Known):
        whole = (jnp.broadcast_to(v, (len(v), *node.shape)) for v in node.values)
        return Known(tuple(function(v) for v in whole), node.scalar if relabels else None)
    return Mapped(PositionMap(function, (node.shape,), tuple(shape), aligned, relabels), (node,))


def relabel(function: Callable, node: Node, shape: Sequence[int]) -> Node:
    """A node whose positions are rearranged: each one of `shape` is one of the old."""
    return map_positions(function, node, shape, aligned=True, relabels=True)


def reshape_positions(node: Node, shape: tuple[int, ...]) -> Node:
    """Split or merge neighbouring positions."""
    if node.shape == shape:
        return node
    old = len(node.shape)
    return relabel(lambda v: v.reshape(*v.shape[: v.ndim - old], *shape), node, shape)


def reshape_known(known: Known, shape: tuple[int, ...]) -> Known:
    """Split or merge neighbouring positions of numbers."""
    result = reshape_positions(known, shape)
    assert isinstance(result, Known)
    return result


def reshape(value: Value, shape: Sequence[int]) -> Value:
    """Group the factors of all axes anew, splitting and merging where the new shape cuts them."""
    waiting, axes = value.factors[::-1], []
    for size in shape:
        axis: list[Factor] = []
        while (have := math.prod(f.size for f in axis)) != size:
            missing, factor = size // have, waiting.pop()
            if missing % factor.size == 0:
                axis.append(factor)
            elif factor.size % missing == 0:
                rest = factor.size // missing
                axis.append(factor._replace(size=missing, stride=factor.stride * rest))
                waiting.append(factor._replace(size=rest))
            elif axis and _mergeable(axis[-1], factor):
                waiting.append(factor._replace(size=axis.pop().size * factor.size))
            elif waiting and _mergeable(factor, waiting[-1]):
                inner = waiting.pop()
                waiting.append(inner._replace(size=inner.size * factor.size))
            else:
                raise Unfollowed("a reshape that mixes channels with positions")
        axes.append(tuple(axis))
    result = tuple(axes)
    return Value(reshape_positions(value.node, positions(result)), result)


def _mergeable(outer: Factor, inner: Factor) -> bool:
    if outer.kind != inner.kind:
        return False
    return outer.kind != "channel" or outer.stride == inner.stride * inner.size


def fresh(axes: Sequence[Axis]) -> tuple[Axis, ...]:
    """Axes of a new field, whose channels are counted along them."""
    stride = 1
    result: list[Axis] = []
    for axis in reversed(axes):
        factors: list[Factor] = []
        for f in reversed(axis):
            factors.insert(0, f._replace(stride=stride) if f.kind in ("channel", "any") else f)
            stride *= f.size if f.kind in ("channel", "any") else 1
        result.insert(0, tuple(factors))
    return tuple(result)


def transpose(value: Value, order: Sequence[int]) -> Value:
    """Permute axes."""
    axes = tuple(value.axes[i] for i in order)
    counts = [sum(f.kind == "position" for f in axis) for axis in value.axes]
    starts = [sum(counts[:i]) for i in range(len(counts))]
    moved = [starts[i] + k for i in order for k in range(counts[i])]
    if moved == sorted(moved):
        return Value(value.node, axes)

    def function(v):
        batch = v.ndim - len(moved)
        return v.transpose(*range(batch), *(batch + i for i in moved))

    return Value(relabel(function, value.node, positions(axes)), axes)


def broadcast(value: Value, shape: Sequence[int], dimensions: Sequence[int]) -> Value:
    """As `lax.broadcast_in_dim`: new axes and stretched ones are constant."""
    axes: list[Axis] = [((Factor(size, "constant"),) if size > 1 else ()) for size in shape]
    for old, new in enumerate(dimensions):
        if value.shape[old] == shape[new]:
            axes[new] = value.axes[old]
    return Value(value.node, tuple(axes))


def squeeze(value: Value, dimensions: Sequence[int]) -> Value:
    """Leave out axes of size 1."""
    return Value(value.node, tuple(a for i, a in enumerate(value.axes) if i not in dimensions))


def materialized(value: Value) -> list[Any]:
    """The numbers of a known value, one array per data set, (n or 1, *shape)."""
    assert isinstance(value.node, Known)
    factors = value.factors
    arrays = []
    for array in value.node.values:
        sizes = iter(array.shape[1:])
        thin = [next(sizes) if f.kind == "position" else 1 for f in factors]
        array = jnp.broadcast_to(
            array.reshape(len(array), *thin), (len(array), *(f.size for f in factors))
        )
        arrays.append(array.reshape(len(array), *value.shape))
    return arrays


def simplified(value: Value) -> Value:
    """One number for all entries, where a value turned out to be that."""
    if not isinstance(value.node, Known) or value.node.scalar is None:
        return value
    axes = tuple(tuple(f._replace(kind="constant") for f in axis) for axis in value.axes)
    return Value(number(value.node.scalar), axes)


def settle(value: Value, kinds: Sequence[Kind]) -> Value:
    """A value whose undecided axes are channels or positions, as `kinds` says for each."""
    if not value.undecided:
        return value
    axes = tuple(
        tuple(f._replace(kind=kind) if f.kind == "any" else f for f in axis)
        for axis, kind in zip(value.axes, kinds, strict=True)
    )
    shape = positions(axes)
    return Value(place(value.node, shape) if shape else value.node, axes)


def unify(values: Sequence[Value]) -> tuple[list[Node], tuple[Axis, ...]]:
    """Bring values of one shape to common axes, and their nodes to the positions of these.

    Returns:
      The nodes, with size 1 at positions along which they are constant, and the axes.
    """
    rank = max(len(v.axes) for v in values)
    shape = tuple(map(max, zip(*(v.shape for v in values if len(v.axes) == rank), strict=True)))
    values = [
        broadcast(v, shape, range(len(v.axes))) if len(v.axes) == rank else broadcast(v, shape, ())
        for v in values
    ]
    axes: list[Axis] = []
    split: list[list[Axis]] = [[] for _ in values]
    for i in range(rank):
        parts = _common_factors([v.axes[i] for v in values])
        for own, part in zip(split, parts, strict=True):
            own.append(part)
        axes.append(tuple(_common_factor(factors) for factors in zip(*parts, strict=True)))
    _refuse_other_channels(values, split)
    nodes = [
        _expand(reshape_positions(v.node, positions(own)), own, axes)
        for v, own in zip(values, split, strict=True)
    ]
    return nodes, tuple(axes)


def _common_factors(axes: list[Axis]) -> list[Axis]:
    """Split the factors of one axis so that their sizes agree in all values."""
    sizes: list[int] = []
    total = math.prod(f.size for f in axes[0])
    cuts = sorted({c for axis in axes for c in _cuts(axis)} | {total} - {1})
    previous = 1
    for cut in cuts:
        if cut % previous:
            raise Unfollowed("axes that were split in two ways")
        sizes.append(cut // previous)
        previous = cut
    result = []
    for axis in axes:
        parts: list[Factor] = []
        factors = list(reversed(axis))  # the last varies fastest: cuts count from there
        for size in sizes:
            factor = factors.pop(0)
            if factor.size != size:
                outer = factor._replace(size=factor.size // size, stride=factor.stride * size)
                factors.insert(0, outer)
            parts.append(factor._replace(size=size))
        result.append(tuple(reversed(parts)))
    return result


def _cuts(axis: Axis) -> list[int]:
    cuts, product = [], 1
    for factor in reversed(axis):
        product *= factor.size
        if factor.kind != "constant" or len(axis) > 1:
            cuts.append(product)
    return cuts


def _common_factor(factors: Sequence[Factor]) -> Factor:
    order: tuple[Kind, ...] = ("channel", "position", "any", "constant")
    kind = next(kind for kind in order if any(f.kind == kind for f in factors))
    return next(f for f in factors if f.kind == kind)


def _refuse_other_channels(values: Sequence[Value], axes: Sequence[Sequence[Axis]]) -> None:
    """Refuse to let channels of a field meet other channels of the same: it is not what is left
    of the law of one channel."""
    rows = [
        ({key for key in v.node.leaves if key[0] != "channels"}, [f for a in own for f in a])
        for v, own in zip(values, axes, strict=True)
    ]
    for i, (leaves1, factors1) in enumerate(rows):
        for leaves2, factors2 in rows[:i]:
            if leaves1.isdisjoint(leaves2):
                continue
            for f, g in zip(factors1, factors2, strict=True):
                kinds = {f.kind, g.kind}
                entries = kinds <= {"channel", "any"} and f.stride != g.stride
                if entries or kinds in ({"channel", "constant"}, {"any", "constant"}):
                    raise Unfollowed("channels of a field that meet other channels of the same")


def _expand(node: Node, own: list[Axis], axes: Sequence[Axis]) -> Node:
    """A node at the positions of common axes."""
    kinds = [f.kind for axis in own for f in axis]
    goal = [f for axis in axes for f in axis]
    if any(k == "position" and g.kind == "channel" for k, g in zip(kinds, goal, strict=True)):
        if not isinstance(node, Known):
            raise Unfollowed(
                "an axis that is a channel in one field and a position, or a channel already "
                "summed by weights, in another"
            )
        return _channels(node, kinds, goal)
    placed = any(k == "any" and g.kind == "position" for k, g in zip(kinds, goal, strict=True))
    sizes = tuple(
        g.size if k in ("position", "any") else 1
        for k, g in zip(kinds, goal, strict=True)
        if g.kind == "position"
    )
    if placed:
        return place(node, sizes)
    return reshape_positions(node, sizes)


def _channels(node: Known, kinds: list[Kind], goal: list[Factor]) -> Node:
    """Known numbers that differ between channels, the channels last in one axis."""
    arrays = []
    for array in node.values:
        sizes = iter(array.shape[1:])
        thin = [next(sizes) if k == "position" else 1 for k in kinds]
        at = [i for i, g in enumerate(goal) if g.kind == "position"]
        channels = [i for i, g in enumerate(goal) if g.kind == "channel"]
        array = array.reshape(len(array), *thin)
        full = [1] * (1 + len(goal))
        for i in channels:
            full[1 + i] = goal[i].size
        array = jnp.broadcast_to(array, jnp.broadcast_shapes(array.shape, tuple(full)))
        array = array.transpose(0, *(1 + i for i in at), *(1 + i for i in channels))
        arrays.append(array.reshape(*array.shape[: 1 + len(at)], -1))
    return Channels(tuple(arrays))


def place(node: Node, sizes: tuple[int, ...]) -> Node:
    """A function of parameters or noise, with entries at positions of these sizes.

    Entries are independent, so that it does not matter in which order they are laid out.
    """
    match node:
        case Known():
            return reshape_known(node, (1,) * len(sizes))
        case Parameter():
            return Parameter(node.key, sizes, node.gaussian, node.variance, node.rate)
        case Noise():
            return Noise(node.key, sizes, node.bit_width)
        case Function():
            return Function(node.phi, place(node.base, sizes), node.shift)
        case Sum():
            return Sum(tuple(place(term, sizes) for term in node.terms))
        case Scale():
            return Scale(reshape_known(node.known, (1,) * len(sizes)), place(node.node, sizes))
    raise Unfollowed("parameters or noise at positions, after an operation on them", node.origin)


def block(node: Node, offset: int) -> Node:
    """Channels of a node from an offset on: independent of those at any other offset."""
    if offset == 0:
        return node
    match node:
        case Known():
            return node
        case Leaf():
            kind, which, start = node.key
            return node.renamed((kind, which, start + offset))
        case Function():
            return Function(node.phi, block(node.base, offset), node.shift)
        case Sum():
            return Sum(tuple(block(term, offset) for term in node.terms))
        case Scale():
            return Scale(node.known, block(node.node, offset))
        case Product():
            return Product(tuple(block(factor, offset) for factor in node.factors))
        case Probe():
            return Probe(block(node.node, offset), block(node.parameter, offset))
        case Mapped():
            nodes = tuple(block(inner, offset) for inner in node.nodes)
            return Mapped(node.map, nodes, node.known)
    raise Unfollowed("a slice of channels that hold known numbers", node.origin)
