"""How each operation that is not elementwise acts on the values of a network, by its name."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkflow.kernels import elementwise
from ntkflow.kernels.fields import (
    ChannelSum,
    Contraction,
    Known,
    Lookup,
    Mapped,
    Node,
    Parameter,
    PositionMap,
    Product,
    Scale,
    Sum,
    Unfollowed,
    number,
)
from ntkflow.kernels.values import (
    Axis,
    Factor,
    Value,
    block,
    broadcast,
    known_value,
    materialized,
    positions,
    relabel,
    reshape,
    reshape_positions,
    squeeze,
    transpose,
    unify,
)
from ntkflow.kernels.moments import Moments
from ntkflow.kernels.windows import Window

Params = dict[str, Any]


class Context:
    """What the rules share along one network: moments, and which weights have been used."""

    def __init__(self, moments: Moments) -> None:
        self.moments = moments
        self.used: set[Any] = set()
        self.fresh = 0

    def take(self, parameter: Parameter) -> None:
        if parameter.key in self.used:
            raise Unfollowed(
                "a parameter that enters at two places (tied or recurrent weights): the fields "
                "behind are not independent"
            )
        self.used.add(parameter.key)

    def average(self, node: Node, count: int) -> Known:
        """`count` times the mean over channels: a number, by the law of large numbers."""
        values = []
        for side in range(len(self.moments.sizes)):
            mean = self.moments.mean(node, side)
            if mean is None:
                return number(0.0, len(node.shape))
            values.append(count * jnp.broadcast_to(mean, (len(mean), *node.shape)))
        return Known(tuple(values))

    def new(self, name: str) -> tuple[str, int]:
        """A key for a field that has none of its own."""
        self.fresh += 1
        return name, self.fresh


def weight_of(value: Value) -> tuple[Parameter, float] | None:
    """The parameter and the factor before it, where a value is one times a number."""
    if any(f.kind != "any" for f in value.factors):
        return None
    node, factor = value.node, 1.0
    while not isinstance(node, Parameter):
        if isinstance(node, Scale) and node.known.scalar is not None:
            node, factor = node.node, factor * node.known.scalar
        else:
            return None
    return node, factor


def is_parameter(value: Value) -> bool:
    """Whether all entries of a value are made of parameters or noise, not yet placed."""
    return any(f.kind == "any" for f in value.factors)


# Contractions


def dot_general(context: Context, params: Params, a: Value, b: Value) -> Value:
    (contract_a, contract_b), (batch_a, batch_b) = params["dimension_numbers"]
    for x, w, contract_x, contract_w, batch_x, batch_w, first in (
        (a, b, contract_a, contract_b, batch_a, batch_b, True),
        (b, a, contract_b, contract_a, batch_b, batch_a, False),
    ):
        weight = weight_of(w)
        if weight is not None and not is_parameter(x):
            free_w = [i for i in range(len(w.axes)) if i not in (*contract_w, *batch_w)]
            return _dense(context, weight, x, contract_x, batch_x, w, free_w, first)
    if is_parameter(a) or is_parameter(b):
        raise Unfollowed("a contraction of parameters that are no plain weights")
    for x, k, contract_x, contract_k, batch_x, batch_k, first in (
        (a, b, contract_a, contract_b, batch_a, batch_b, True),
        (b, a, contract_b, contract_a, batch_b, batch_a, False),
    ):
        if k.known and all(f.kind == "position" for i in contract_x for f in x.axes[i]):
            result = _mix_positions(x, k, contract_x, contract_k, batch_x, batch_k, first)
            if result is not None:
                return result
    return _inner_product(context, a, b, contract_a, contract_b, batch_a, batch_b)


def _dense(context, weight, x, contract, batch, w, free_w, x_first) -> Value:
    """A field, or inputs, times a weight."""
    parameter, factor = weight
    if batch and any(f.kind != "channel" for i in batch for f in x.axes[i]):
        raise Unfollowed("weights of their own at each position (a locally connected layer)")
    kept = [i for i in range(len(x.axes)) if i not in (*contract, *batch)]
    contracted = [f for i in contract for f in x.axes[i]]
    random = [f for f in contracted if f.kind == "channel"]
    free_channels = any(f.kind == "channel" for i in kept for f in x.axes[i])
    if free_channels:
        raise Unfollowed(
            "weights that mix positions and are shared by all channels"
            if not random
            else "weights that are shared by a part of the channels (heads)"
        )
    node, summed = _with_positions(x, contract)
    count = math.prod(f.size for f in contracted if f.kind in ("channel", "constant"))
    axes_x = [x.axes[i] for i in kept]
    axes_w = [tuple(f._replace(kind="channel") for f in w.axes[i]) for i in free_w]
    shared: list[Axis] = [x.axes[i] for i in batch]
    axes = tuple(shared + (axes_x + axes_w if x_first else axes_w + axes_x))
    context.take(parameter)
    # One channel in and none summed: a product with one weight is not Gaussian.
    gaussian = parameter.gaussian or math.prod(f.size for f in contracted) > 1
    single = isinstance(node, Known) or count > 1 or bool(summed)
    field = Contraction(
        parameter.key,
        node,
        summed,
        None,
        positions(axes),
        count,
        parameter.variance * factor**2,
        parameter.rate * factor**2,
        gaussian and (single or node.certain),
    )
    return Value(field, axes)


def _with_positions(x: Value, contract: Sequence[int]) -> tuple[Node, tuple[int, ...]]:
    """The node, and which of its positions belong to contracted axes."""
    summed, index = [], 0
    for i, axis in enumerate(x.axes):
        for f in axis:
            if f.kind == "position":
                if i in contract:
                    summed.append(index)
                index += 1
    return x.node, tuple(summed)


def _mix_positions(x, k, contract_x, contract_k, batch_x, batch_k, x_first) -> Value | None:
    """Positions of a field contracted with known numbers, such as attention weights."""
    if any(f.kind != "position" for i in batch_x for f in x.axes[i]):
        return None
    rank_x, rank_k = len(x.axes), len(k.axes)
    names_x = [100 + i for i in range(rank_x)]
    names_k = [200 + i for i in range(rank_k)]
    for i, j in (*zip(contract_x, contract_k, strict=True), *zip(batch_x, batch_k, strict=True)):
        names_k[j] = names_x[i]
    free_x = [i for i in range(rank_x) if i not in (*contract_x, *batch_x)]
    free_k = [j for j in range(rank_k) if j not in (*contract_k, *batch_k)]
    out_x, out_k = [(names_x[i], x.axes[i]) for i in free_x], []
    for j in free_k:
        out_k.append((names_k[j], (Factor(k.shape[j], "position"),) if k.shape[j] > 1 else ()))
    out = [(names_x[i], x.axes[i]) for i in batch_x]
    out += out_x + out_k if x_first else out_k + out_x
    axes = tuple(axis for _, axis in out)

    # On nodes: positions of x alone, one axis per array axis.
    plain = [i for i in range(rank_x) if positions([x.axes[i]])]
    sizes_x = [math.prod(positions([x.axes[i]])) for i in plain]
    names = [name for name, axis in out if positions([axis])]
    array_shape = x.node.shape
    ellipsis_x = [names_x[i] for i in plain]
    result_shape = positions(axes)
    letters: dict[int, str] = {}

    def word(group):
        return "".join(letters.setdefault(n, chr(97 + len(letters))) for n in group)

    subscripts = f"...{word(ellipsis_x)},...{word(names_k)}->...{word(names)}"

    def function(array, known):
        batch = array.shape[: array.ndim - len(array_shape)]
        array = array.reshape(*batch, *sizes_x)
        highest = jax.lax.Precision.HIGHEST
        result = jnp.einsum(subscripts, array, known, precision=highest)
        return result.reshape(*result.shape[: len(batch)], *result_shape)

    numbers = Known(tuple(materialized(k)))
    map_ = PositionMap(function, (array_shape,), result_shape, aligned=False, relabels=False)
    return Value(Mapped(map_, (x.node,), numbers), axes)


def _inner_product(context, a, b, contract_a, contract_b, batch_a, batch_b) -> Value:
    """Two fields contracted with each other: broadcast, multiply, sum."""
    free_a = [i for i in range(len(a.axes)) if i not in (*contract_a, *batch_a)]
    free_b = [i for i in range(len(b.axes)) if i not in (*contract_b, *batch_b)]
    order_a = [*batch_a, *free_a, *contract_a]
    order_b = [*batch_b, *free_b, *contract_b]
    shape_a, shape_b = a.shape, b.shape
    shape = [shape_a[i] for i in (*batch_a, *free_a)] + [shape_b[i] for i in free_b]
    contracted = [shape_a[i] for i in contract_a]
    n, fa, fb = len(batch_a), len(free_a), len(free_b)
    last = range(n + fa + fb, n + fa + fb + len(contracted))
    a = broadcast(transpose(a, order_a), [*shape, *contracted], [*range(n + fa), *last])
    at_b = [*range(n), *range(n + fa, n + fa + fb), *last]
    b = broadcast(transpose(b, order_b), [*shape, *contracted], at_b)
    nodes, axes = unify([a, b])
    product = elementwise.multiply(*nodes)
    return reduce_sum(context, {"axes": tuple(last)}, Value(product, axes))


def conv_general_dilated(context: Context, params: Params, x: Value, w: Value) -> Value:
    numbers = params["dimension_numbers"]
    weight = weight_of(w)
    if weight is None or is_parameter(x):
        raise Unfollowed("a convolution with a kernel that is no plain weight")
    if params["batch_group_count"] != 1:
        raise Unfollowed("a convolution with batch groups")
    parameter, factor = weight
    spec, groups = numbers.lhs_spec, params["feature_group_count"]
    x = transpose(x, [spec[0], *spec[2:], spec[1]])
    *spatial, features = x.axes[1:]
    random = any(f.kind == "channel" for f in features)
    if any(f.kind == "channel" for axis in spatial for f in axis):
        raise Unfollowed("a convolution along an axis of channels")
    if groups > 1 and not random:
        raise Unfollowed("a grouped convolution of inputs: its outputs see different inputs")
    if any(len({f.kind for f in axis}) > 1 for axis in spatial):
        raise Unfollowed("a convolution along an axis that was broadcast in part")
    inner = positions([features])
    rank = len(spatial)
    node = reshape_positions(
        x.node, (*(math.prod(positions([axis])) for axis in spatial), *inner)
    )
    window = Window(
        x.shape[1:-1],
        tuple(w.shape[i] for i in numbers.rhs_spec[2:]),
        tuple(params["window_strides"]),
        tuple(tuple(p) for p in params["padding"]),
        tuple(params["lhs_dilation"]),
        tuple(params["rhs_dilation"]),
    )
    context.take(parameter)
    kept = tuple(size for size in window.results if size > 1)
    count = math.prod(f.size for f in features if f.kind != "position") // groups
    # One channel that meets one weight per offset, as in depthwise convolution: no large sum.
    gaussian = not random or count > 1 or node.certain
    variance, rate = parameter.variance * factor**2, parameter.rate * factor**2
    summed = tuple(range(rank, rank + len(inner)))
    field = Contraction(
        parameter.key, node, summed, window, kept, count, variance, rate, gaussian
    )
    axes = [(Factor(size, "position"),) if size > 1 else () for size in window.results]
    channels = w.shape[numbers.rhs_spec[0]]
    axes = [(), *axes, (Factor(channels, "channel"),) if channels > 1 else ()]
    out = numbers.out_spec
    order = [out[0], *out[2:], out[1]]  # where each axis goes
    return transpose(Value(field, tuple(axes)), [order.index(i) for i in range(len(order))])


# Sums


def reduce_sum(context: Context, params: Params, x: Value) -> Value:
    """Over channels: a number by the law of large numbers; over positions: a linear map."""
    axes = params["axes"]
    if is_parameter(x):
        raise Unfollowed("a sum of parameters, or of noise")
    node = x.node
    reduced = [f for i in axes for f in x.axes[i]]
    channels = math.prod(f.size for f in reduced if f.kind == "channel")
    constant = math.prod(f.size for f in reduced if f.kind == "constant")
    rest: list[Axis] = [axis for i, axis in enumerate(x.axes) if i not in axes]
    _, summed = _with_positions(x, axes)
    if summed:
        node = sum_positions(node, summed)
    if channels > 1:
        if node.centered:
            node = ChannelSum(context.new("sum over channels"), node, channels, 1.0)
        else:
            node = context.average(node, channels)
            rest = [
                tuple(f._replace(kind="constant") if f.kind == "channel" else f for f in axis)
                for axis in rest
            ]
    if constant > 1:
        node = elementwise.scale(node, number(float(constant), len(node.shape)))
    return Value(node, tuple(rest))


def sum_positions(node: Node, summed: Sequence[int]) -> Node:
    """Σ over some of the positions of a node."""
    rank, axes = len(node.shape), tuple(i - len(node.shape) for i in summed)
    kept = tuple(n for i, n in enumerate(node.shape) if i not in summed)
    del rank
    return position_map(lambda v: jnp.sum(v, axis=axes), node, kept)


def position_map(function, node: Node, shape, *, aligned=False, relabels=False) -> Node:
    """A linear map of the last axes, the positions, of arrays."""
    if isinstance(node, Known):
        whole = [jnp.broadcast_to(v, (len(v), *node.shape)) for v in node.values]
        return Known(tuple(function(v) for v in whole))
    return Mapped(PositionMap(function, (node.shape,), tuple(shape), aligned, relabels), (node,))


# Operations along axes of positions


def _explicit(x: Value, axes: Sequence[int], stretch: bool = True) -> tuple[Node, list[Axis]]:
    """The node with exactly one position per axis of the array, of size 1 where it has none."""
    kinds = {f.kind for i in axes for f in x.axes[i]}
    if "channel" in kinds or "any" in kinds:
        raise Unfollowed("this operation along an axis of channels")
    for i in axes:
        if "constant" in kinds and len({f.kind for f in x.axes[i]}) > 1:
            raise Unfollowed("this operation along an axis that was broadcast in part")
    sizes = [math.prod(positions([axis])) for axis in x.axes]
    node = reshape_positions(x.node, tuple(sizes))
    if any(n < x.shape[i] for i, n in enumerate(sizes) if i in axes):
        goal = tuple(x.shape[i] if i in axes else n for i, n in enumerate(sizes))
        node = position_map(
            lambda v: jnp.broadcast_to(v, (*v.shape[: v.ndim - len(goal)], *goal)),
            node,
            goal,
            aligned=True,
            relabels=True,
        )
    return node, list(x.axes)


def _along(x: Value, axes: Sequence[int], function, shape, **properties) -> Value:
    """Apply a linear function of arrays with one axis per axis of the value to positions."""
    node, old = _explicit(x, axes)
    new = [
        ((Factor(shape[i], "position"),) if shape[i] > 1 else ()) if i in axes else axis
        for i, axis in enumerate(old)
    ]
    goal = tuple(shape[i] if i in axes else node.shape[i] for i in range(len(old)))
    node = position_map(function, node, goal, **properties)
    return Value(reshape_positions(node, positions(new)), tuple(new))


def _batched(primitive_function: Callable, rank: int) -> Callable:
    """A function of the last `rank` axes, for any number of leading ones."""

    def function(*arrays):
        batch = arrays[0].shape[: arrays[0].ndim - rank]
        flat = [a.reshape(math.prod(batch), *a.shape[len(batch) :]) for a in arrays]
        result = jax.vmap(primitive_function)(*flat)
        return result.reshape(*batch, *result.shape[1:])

    return function


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
            later = math.prod(
                f.size for other in x.axes[i + 1 :] for f in other if f.kind == kind
            )
            node = block(node, starts[i] * later, 1 if strides[i] == 1 else strides[i])
            axes[i] = (Factor(shape[i], kind),) if shape[i] > 1 else ()
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
            slice_(context, dict(start_indices=starts, limit_indices=limits, strides=None), x)
        )
        start += int(size)
    return parts


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
    rank = len(x.axes)
    keys = ("window_strides", "padding", "base_dilation", "window_dilation")
    windows, (strides, padding, base, dilation) = (
        params["window_dimensions"],
        (params[k] for k in keys),
    )
    window = Window(x.shape, windows, strides, padding, base, dilation)
    shape = window.results
    touched = [
        i
        for i in range(rank)
        if (windows[i], strides[i], tuple(padding[i]), base[i]) != (1, 1, (0, 0), 1)
    ]
    def function(v):
        batch = v.ndim - rank
        def whole(values, neutral):
            return (*(neutral,) * batch, *(values[i] if i in touched else neutral for i in range(rank)))

        return jax.lax.reduce_window(
            v,
            jnp.zeros((), v.dtype),
            jax.lax.add,
            whole(windows, 1),
            whole(strides, 1),
            whole([tuple(p) for p in padding], (0, 0)),
            whole(base, 1),
            whole(dilation, 1),
        )

    single = all(windows[i] == 1 for i in touched)
    return _along(x, touched, function, shape, aligned=single)


def concatenate(context: Context, params: Params, *values: Value) -> Value:
    """Along positions; along channels see `pieces`."""
    axis, rank = params["dimension"], len(values[0].axes)
    shapes = [v.shape for v in values]
    # Other axes must agree in kind: unify values that are made equally long along this one.
    slim = [Value(v.node, tuple(a if i != axis else () for i, a in enumerate(v.axes))) for v in values]
    explicit = [_explicit(v, [axis])[0] for v in values]
    kinds = [_explicit_kinds(v, axis) for v in values]
    common: list[Axis] = []
    del slim
    for i in range(rank):
        if i == axis:
            size = sum(s[axis] for s in shapes)
            common.append((Factor(size, "position"),))
            continue
        found = {k[i] for k in kinds}
        kind = "channel" if "channel" in found else "position" if "position" in found else "any"
        if found <= {"constant"}:
            kind = "constant"
        size = shapes[0][i]
        common.append((Factor(size, kind),) if size > 1 else ())
    goal = tuple(
        math.prod(positions([a])) if i != axis else None for i, a in enumerate(common)
    )
    nodes = []
    for node, value, kind_row in zip(explicit, values, kinds, strict=True):
        sizes = tuple(
            value.shape[axis] if i == axis else goal[i] for i in range(rank)
        )
        for i in range(rank):
            if i != axis and kind_row[i] == "position" and common[i] and common[i][0].kind == "channel":
                raise Unfollowed("a concatenation of channels with positions")
            if i != axis and kind_row[i] == "any" and common[i] and common[i][0].kind == "position":
                raise Unfollowed("a concatenation of parameters at positions")
        nodes.append(
            position_map(
                lambda v, sizes=sizes: jnp.broadcast_to(
                    v, (*v.shape[: v.ndim - rank], *sizes)
                ),
                node,
                sizes,
                aligned=True,
                relabels=True,
            )
            if node.shape != sizes
            else node
        )
    sizes = tuple(shapes and (sum(s[axis] for s in shapes) if i == axis else goal[i]) for i in range(rank))
    map_ = PositionMap(
        lambda *arrays: jnp.concatenate(
            jnp.broadcast_arrays(*arrays) if False else arrays, axis=arrays[0].ndim - rank + axis
        ),
        tuple(n.shape for n in nodes),
        sizes,
        aligned=True,
        relabels=True,
    )
    node = Mapped(map_, tuple(nodes))
    return Value(reshape_positions(node, positions(common)), tuple(common))


def _explicit_kinds(value: Value, axis: int) -> list[str]:
    kinds = []
    for i, a in enumerate(value.axes):
        found = {f.kind for f in a}
        if len(found) > 1 and i != axis:
            raise Unfollowed("a concatenation of arrays with axes of channels and positions")
        kinds.append(found.pop() if found else "constant")
    return kinds


def gather(context: Context, params: Params, x: Value, indices: Value) -> Value:
    """Rows of a table of weights at known indices; positions of a field at fixed ones."""
    if not indices.known:
        raise Unfollowed("an indexing by what is random")
    if weight_of(x) is None:
        return _select_positions(params, x, indices)
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    if (
        numbers.collapsed_slice_dims != (0,)
        or numbers.start_index_map != (0,)
        or numbers.operand_batching_dims
        or tuple(sizes[1:]) != x.shape[1:]
    ):
        raise Unfollowed("an indexing of weights other than rows at known indices")
    parameter, factor = weight_of(x)
    context.take(parameter)
    index = squeeze(indices, [len(indices.axes) - 1])
    explicit = known_value(materialized(index))
    assert isinstance(explicit.node, Known)
    variance, rate = parameter.variance * factor**2, parameter.rate * factor**2
    field = Lookup(parameter.key, explicit.node, parameter.gaussian, variance, rate)
    rows = iter(tuple(f._replace(kind="channel") for f in axis) for axis in x.axes[1:])
    batch = iter(explicit.axes)
    rank = len(explicit.axes) + len(x.axes) - 1
    offsets = numbers.offset_dims
    return Value(field, tuple(next(rows) if i in offsets else next(batch) for i in range(rank)))


def _select_positions(params: Params, x: Value, indices: Value) -> Value:
    """Which position each result is, found by indexing the positions' own numbers."""
    numbers, sizes = params["dimension_numbers"], list(params["slice_sizes"])
    fixed = materialized(indices)
    if len(fixed) > 1 or len(fixed[0]) > 1:
        raise Unfollowed("positions that differ by sample")
    whole = [i for i, axis in enumerate(x.axes) if {f.kind for f in axis} - {"position"}]
    moved = (*numbers.collapsed_slice_dims, *numbers.start_index_map)
    if any(i in moved or sizes[i] != x.shape[i] for i in whole):
        raise Unfollowed("an indexing of channels")
    node, _ = _explicit(x, [i for i in range(len(x.axes)) if i not in whole])
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

    result = position_map(function, node, shape, aligned=True, relabels=True)
    return Value(reshape_positions(result, positions(axes)), tuple(axes))


RULES: dict[str, Callable[..., Any]] = {
    "dot_general": dot_general,
    "conv_general_dilated": conv_general_dilated,
    "reduce_sum": reduce_sum,
    "reduce_window_sum": reduce_window_sum,
    "slice": slice_,
    "split": split,
    "pad": pad,
    "rev": rev,
    "cumsum": cumsum,
    "concatenate": concatenate,
    "gather": gather,
    "reshape": lambda context, params, x: reshape(x, params["new_sizes"]),
    "transpose": lambda context, params, x: transpose(x, params["permutation"]),
    "squeeze": lambda context, params, x: squeeze(x, params["dimensions"]),
    "broadcast_in_dim": lambda context, params, x: broadcast(
        x, params["shape"], params["broadcast_dimensions"]
    ),
}
STRUCTURAL = frozenset(["reshape", "transpose", "squeeze", "broadcast_in_dim"])
