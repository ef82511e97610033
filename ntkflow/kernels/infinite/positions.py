"""Operations along positions: sums, pooling, slices, padding, concatenation, indexing."""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ntkflow.kernels.infinite import elementwise
from ntkflow.kernels.infinite.context import Context, Params
from ntkflow.kernels.infinite.fields import (
    ChannelSum,
    Copies,
    Known,
    Mapped,
    Node,
    PositionMap,
    Product,
    Unfollowed,
    number,
)
from ntkflow.kernels.infinite.values import (
    Axis,
    Factor,
    Kind,
    Value,
    block,
    broadcast,
    known_value,
    map_positions,
    materialized,
    positions,
    relabel,
    reshape_positions,
    settle,
    squeeze,
    unify,
)
from ntkflow.kernels.infinite.windows import Window, window_sums


def reduce_sum(context: Context, params: Params, x: Value) -> Value:
    """Over channels: a number by the law of large numbers; over positions: a linear map."""
    axes = params["axes"]
    if x.undecided:
        raise Unfollowed("a sum of parameters, or of noise")
    node = x.node
    reduced = [f for i in axes for f in x.axes[i]]
    channels = math.prod(f.size for f in reduced if f.kind == "channel")
    constant = math.prod(f.size for f in reduced if f.kind == "constant")
    rest: list[Axis] = [axis for i, axis in enumerate(x.axes) if i not in axes]
    summed = positions_along(x, axes)
    if summed:
        node = _sum_positions(node, summed)
    remaining = math.prod(f.size for axis in rest for f in axis if f.kind == "channel")
    if channels > 1 and channels < remaining and not isinstance(node, Product):
        # A few experts, heads or members of an ensemble, not a wide layer.
        node = Copies(context.key_of_sum(node), node, channels)
    elif channels > 1 and node.centered:
        # Over few entries a mean is no zero.
        whole = channels * math.prod(n for i, n in enumerate(x.node.shape) if i in summed)
        whole = whole if channels >= remaining else math.inf
        node = ChannelSum(context.key_of_sum(node), node, channels, whole)
    elif channels > 1:
        node = context.average(node, channels)
        rest = [
            tuple(f._replace(kind="constant") if f.kind == "channel" else f for f in axis)
            for axis in rest
        ]
    if constant > 1:
        node = elementwise.scale(node, number(float(constant), len(node.shape)))
    return Value(node, tuple(rest))


def positions_along(x: Value, axes: Sequence[int]) -> tuple[int, ...]:
    """Which of the node's positions lie along some axes of the array."""
    owners = [i for i, axis in enumerate(x.axes) for f in axis if f.kind == "position"]
    return tuple(index for index, i in enumerate(owners) if i in axes)


def _sum_positions(node: Node, summed: Sequence[int]) -> Node:
    """Σ over some of the positions of a node."""
    axes = tuple(i - len(node.shape) for i in summed)
    kept = [n for i, n in enumerate(node.shape) if i not in summed]
    return map_positions(lambda v: jnp.sum(v, axis=axes), node, kept)


def _explicit(x: Value, axes: Sequence[int]) -> Node:
    """The node with exactly one position per axis of the array: of size 1 where it has none, and
    of the array's size along `axes`."""
    for i in axes:
        kinds = {f.kind for f in x.axes[i]}
        if kinds & {"channel", "any"}:
            raise Unfollowed("this operation along an axis of channels")
        if len(kinds) > 1:
            raise Unfollowed("this operation along an axis that was broadcast in part")
    sizes = tuple(math.prod(positions([axis])) for axis in x.axes)
    node = reshape_positions(x.node, sizes)
    return _stretched(node, tuple(x.shape[i] if i in axes else n for i, n in enumerate(sizes)))


def _stretched(node: Node, shape: tuple[int, ...]) -> Node:
    """The node, constant along positions that it did not have."""
    if node.shape == shape:
        return node

    def function(v):
        return jnp.broadcast_to(v, (*v.shape[: v.ndim - len(shape)], *shape))

    return relabel(function, node, shape)


def _along(x: Value, axes: Sequence[int], function, shape, **properties) -> Value:
    """Apply a linear function of arrays with one axis per axis of the value to positions."""
    node, old = _explicit(x, axes), x.axes
    new = [
        ((Factor(shape[i], "position"),) if shape[i] > 1 else ()) if i in axes else axis
        for i, axis in enumerate(old)
    ]
    goal = tuple(shape[i] if i in axes else node.shape[i] for i in range(len(old)))
    node = map_positions(function, node, goal, **properties)
    return Value(reshape_positions(node, positions(new)), tuple(new))


def slice_(context: Context, params: Params, x: Value) -> Value:
    starts, limits = params["start_indices"], params["limit_indices"]
    strides = params["strides"] or (1,) * len(starts)
    shape = [-(-(b - a) // s) for a, b, s in zip(starts, limits, strides, strict=True)]
    touched = []
    node, axes = x.node, list(x.axes)
    for i, axis in enumerate(x.axes):
        if shape[i] == x.shape[i]:
            continue
        kinds = {f.kind for f in axis}
        if kinds == {"position"}:
            touched.append(i)
        elif kinds == {"constant"}:
            axes[i] = (Factor(shape[i], "constant"),) if shape[i] > 1 else ()
        elif len(kinds) == 1:
            (kind,) = kinds
            for outer, inner in itertools.pairwise(axis):
                if outer.stride != inner.stride * inner.size:
                    raise Unfollowed("a slice of channels in another order")
            if kind == "any":
                context.take_part(node, i, starts[i], limits[i])
            stride = axis[-1].stride
            node = block(node, starts[i] * stride)
            left = Factor(shape[i], kind, strides[i] * stride)
            axes[i] = (left,) if shape[i] > 1 else ()
        else:
            raise Unfollowed("a slice of an axis of channels and positions")
    x = Value(node, tuple(axes))
    if not touched:
        return x

    def function(v):
        batch = v.ndim - len(starts)
        a = [0] * batch + [starts[i] if i in touched else 0 for i in range(len(starts))]
        b = list(v.shape[:batch])
        b += [limits[i] if i in touched else v.shape[batch + i] for i in range(len(starts))]
        s = [1] * batch + [strides[i] if i in touched else 1 for i in range(len(starts))]
        return jax.lax.slice(v, a, b, s)

    return _along(x, touched, function, shape, aligned=True, relabels=True)


def split(context: Context, params: Params, x: Value) -> list[Value]:
    axis, parts, start = params["axis"], [], 0
    for size in params["sizes"]:
        starts, limits = [0] * len(x.axes), list(x.shape)
        starts[axis], limits[axis] = start, start + int(size)
        parts.append(
            slice_(context, {"start_indices": starts, "limit_indices": limits, "strides": None}, x)
        )
        start += int(size)
    return parts


def stack(context: Context, params: Params, *values: Value) -> Value:
    axis = params["axis"]

    def raised(v: Value) -> Value:
        axes = (*v.axes[:axis], (), *v.axes[axis:])
        return Value(v.node, axes)

    return concatenate(context, {"dimension": axis}, *(raised(v) for v in values))


def unstack(context: Context, params: Params, x: Value) -> list[Value]:
    axis = params["axis"]
    parts = split(context, {"axis": axis, "sizes": [1] * x.shape[axis]}, x)
    return [squeeze(part, [axis]) for part in parts]


def tile(context: Context, params: Params, x: Value) -> Value:
    """Copies side by side: a constant factor before those of each axis."""
    repeated = [((Factor(n, "constant"),) if n > 1 else ()) for n in params["reps"]]
    return Value(x.node, tuple(r + axis for r, axis in zip(repeated, x.axes, strict=True)))


def pad(context: Context, params: Params, x: Value, fill: Value) -> Value:
    config = params["padding_config"]
    if not isinstance(fill.node, Known) or fill.node.scalar is None:
        raise Unfollowed("padding with values that are no known number")
    touched = [i for i, entry in enumerate(config) if tuple(entry) != (0, 0, 0)]
    shape = [
        lo + hi + n + max(n - 1, 0) * inside
        for n, (lo, hi, inside) in zip(x.shape, config, strict=True)
    ]

    def padded(v, value):
        batch = v.ndim - len(config)
        entries = [(0, 0, 0)] * batch
        entries += [tuple(c) if i in touched else (0, 0, 0) for i, c in enumerate(config)]
        return jax.lax.pad(v, jnp.asarray(value, v.dtype), entries)

    result = _along(x, touched, lambda v: padded(v, 0), shape, aligned=True)
    if fill.node.scalar == 0:
        return result
    frame = padded(jnp.zeros((1, *(n if i in touched else 1 for i, n in enumerate(x.shape)))), 1)
    border = known_value((fill.node.scalar * frame,))
    nodes, axes = unify([result, broadcast(border, result.shape, range(len(result.axes)))])
    return Value(elementwise.add(*nodes), axes)


def rev(context: Context, params: Params, x: Value) -> Value:
    dimensions = params["dimensions"]
    kinds = {f.kind for i in dimensions for f in x.axes[i]}
    if kinds <= {"any"}:
        return x  # independent entries in another order

    def function(v):
        batch = v.ndim - len(x.axes)
        return jnp.flip(v, tuple(batch + i for i in dimensions))

    return _along(x, dimensions, function, x.shape, aligned=True, relabels=True)


def cumsum(context: Context, params: Params, x: Value) -> Value:
    def function(v):
        axis = v.ndim - len(x.axes) + params["axis"]
        return jax.lax.cumsum(v, axis, reverse=params["reverse"])

    return _along(x, [params["axis"]], function, x.shape)


def reduce_window_sum(context: Context, params: Params, x: Value) -> Value:
    keys = ("window_strides", "padding", "base_dilation", "window_dilation")
    window = Window(x.shape, params["window_dimensions"], *(params[key] for key in keys))
    touched = window.touched
    inside = window.along(touched)

    def function(v):
        return window_sums(v, [v.ndim - len(x.axes) + i for i in touched], inside)

    single = all(size == 1 for size in inside.sizes)
    return _along(x, touched, function, window.results, aligned=single)


def concatenate(context: Context, params: Params, *values: Value) -> Value:
    """Along positions; along channels see `pieces`."""
    axis, rank = params["dimension"], len(values[0].axes)
    kinds = [_one_kind([v.axes[i] for v in values]) for i in range(rank)]
    kinds[axis] = "position"
    values = tuple(settle(v, kinds) for v in values)
    total = sum(v.shape[axis] for v in values)
    shape = [total if i == axis else n for i, n in enumerate(values[0].shape)]
    axes = tuple(((Factor(n, k),) if n > 1 else ()) for n, k in zip(shape, kinds, strict=True))
    nodes, sizes = [], [n if k == "position" else 1 for n, k in zip(shape, kinds, strict=True)]
    for value in values:
        sizes[axis] = value.shape[axis]
        nodes.append(_stretched(_explicit(value, [axis]), tuple(sizes)))
    sizes[axis] = total

    def function(*arrays):
        return jnp.concatenate(arrays, axis=arrays[0].ndim - rank + axis)

    map_ = PositionMap(
        function, tuple(n.shape for n in nodes), tuple(sizes), aligned=True, relabels=True
    )
    node = Mapped(map_, tuple(nodes))
    return Value(reshape_positions(node, positions(axes)), axes)


def _one_kind(axes: Sequence[Axis]) -> Kind:
    """What an axis is in all values that are laid side by side along another."""
    kinds = {f.kind for axis in axes for f in axis}
    if {"channel", "position"} <= kinds:
        raise Unfollowed("a concatenation of channels with positions")
    order: tuple[Kind, ...] = ("channel", "position", "any")
    return next((kind for kind in order if kind in kinds), "constant")


def select_positions(params: Params, x: Value, indices: Value) -> Value:
    """Which position each result is, found by indexing the positions' own numbers."""
    numbers, sizes = params["dimension_numbers"], list(params["slice_sizes"])
    with jax.ensure_compile_time_eval():
        fixed = materialized(indices)
    if len(fixed) > 1 or len(fixed[0]) > 1:
        raise Unfollowed("positions that differ by sample")
    whole = [i for i, axis in enumerate(x.axes) if {f.kind for f in axis} - {"position"}]
    moved = (*numbers.collapsed_slice_dims, *numbers.start_index_map)
    if any(i in moved or sizes[i] != x.shape[i] for i in whole):
        raise Unfollowed("an indexing of channels")
    node = _explicit(x, [i for i in range(len(x.axes)) if i not in whole])
    for i in whole:
        sizes[i] = 1
    numbered = np.arange(math.prod(node.shape)).reshape(node.shape)
    slim = [1 if i in whole else n for i, n in enumerate(node.shape)]
    if list(node.shape) != slim:
        raise Unfollowed("an indexing of axes of channels and positions")
    with jax.ensure_compile_time_eval():
        where = np.asarray(
            jax.lax.gather(
                jnp.asarray(numbered),
                jnp.asarray(fixed[0][0]),
                numbers,
                sizes,
                mode=params["mode"],
                fill_value=-1,
            )
        )
    if (where < 0).any():
        raise Unfollowed("an indexing out of bounds")
    kept = [i for i in range(len(x.axes)) if i not in numbers.collapsed_slice_dims]
    axes: list[Axis] = [((Factor(n, "position"),) if n > 1 else ()) for n in where.shape]
    for i in whole:
        axes[numbers.offset_dims[kept.index(i)]] = x.axes[i]
    rank, shape = len(node.shape), where.shape

    def function(v):
        batch = v.shape[: v.ndim - rank]
        taken = v.reshape(*batch, -1)[..., where.ravel()]
        return taken.reshape(*batch, *shape)

    result = relabel(function, node, shape)
    return Value(reshape_positions(result, positions(axes)), tuple(axes))
