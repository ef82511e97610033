"""Contractions with weights: new Gaussian fields; and contractions of fields with each other."""

import math

import jax
import jax.numpy as jnp

from ntkflow.kernels.infinite import elementwise
from ntkflow.kernels.infinite.context import Context, Params
from ntkflow.kernels.infinite.fields import (
    Contraction,
    Known,
    Lookup,
    Mapped,
    Parameter,
    PositionMap,
    Unfollowed,
)
from ntkflow.kernels.infinite.positions import positions_along, reduce_sum, select_positions
from ntkflow.kernels.infinite.values import (
    Axis,
    Factor,
    Value,
    broadcast,
    fresh,
    known_value,
    materialized,
    positions,
    reshape_positions,
    squeeze,
    transpose,
    unify,
)
from ntkflow.kernels.infinite.windows import Window


def weight_of(value: Value) -> tuple[Parameter, float] | None:
    """The parameter and the factor before it, where a value is one times a number."""
    if any(f.kind != "any" for f in value.factors):
        return None
    node, factor = elementwise.root(value.node)
    return (node, factor) if isinstance(node, Parameter) else None


def dot_general(context: Context, params: Params, a: Value, b: Value) -> Value:
    (contract_a, contract_b), (batch_a, batch_b) = params["dimension_numbers"]
    for x, w, contract_x, contract_w, batch_x, batch_w, first in (
        (a, b, contract_a, contract_b, batch_a, batch_b, True),
        (b, a, contract_b, contract_a, batch_b, batch_a, False),
    ):
        weight = weight_of(w)
        if weight is not None and not x.undecided:
            free_w = [i for i in range(len(w.axes)) if i not in (*contract_w, *batch_w)]
            return _dense(context, weight, x, contract_x, batch_x, w, free_w, first)
    if a.undecided or b.undecided:
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
    node, summed = x.node, positions_along(x, contract)
    count = math.prod(f.size for f in contracted if f.kind in ("channel", "constant"))
    axes_x = [x.axes[i] for i in kept]
    axes_w = [tuple(f._replace(kind="channel") for f in w.axes[i]) for i in free_w]
    shared: list[Axis] = [x.axes[i] for i in batch]
    axes = fresh(shared + (axes_x + axes_w if x_first else axes_w + axes_x))
    context.take(parameter)
    many = count > 1 or bool(summed)  # a product with one weight is no sum of many
    field = Contraction(
        context.new("contraction"),
        node,
        summed,
        None,
        positions(axes),
        count,
        parameter.variance * factor**2,
        parameter.rate * factor**2,
        (many or (parameter.gaussian and node.certain)) and not node.shared,
    )
    return Value(field, axes)


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
    inside = [..., *(names_x[i] for i in plain)]
    outside = [..., *(name for name, axis in out if positions([axis]))]
    array_shape, result_shape = x.node.shape, positions(axes)

    def function(array, known):
        batch = array.shape[: array.ndim - len(array_shape)]
        array = array.reshape(*batch, *sizes_x)
        highest = jax.lax.Precision.HIGHEST
        result = jnp.einsum(array, inside, known, [..., *names_k], outside, precision=highest)
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
    if weight is None or x.undecided:
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
    node = reshape_positions(x.node, (*(math.prod(positions([axis])) for axis in spatial), *inner))
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
    gaussian = (not random or count > 1 or node.certain) and not node.shared
    variance, rate = parameter.variance * factor**2, parameter.rate * factor**2
    summed = tuple(range(rank, rank + len(inner)))
    field = Contraction(
        context.new("contraction"), node, summed, window, kept, count, variance, rate, gaussian
    )
    axes = [(Factor(size, "position"),) if size > 1 else () for size in window.results]
    channels = w.shape[numbers.rhs_spec[0]]
    axes = [(), *axes, (Factor(channels, "channel"),) if channels > 1 else ()]
    out = numbers.out_spec
    order = [out[0], *out[2:], out[1]]  # where each axis goes
    return transpose(Value(field, tuple(axes)), [order.index(i) for i in range(len(order))])


def gather(context: Context, params: Params, x: Value, indices: Value) -> Value:
    """Rows of a table of weights at known indices; positions of a field at fixed ones."""
    if not indices.known:
        raise Unfollowed("an indexing by what is random")
    weight = weight_of(x)
    if weight is None:
        return select_positions(params, x, indices)
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    if (
        numbers.collapsed_slice_dims != (0,)
        or numbers.start_index_map != (0,)
        or numbers.operand_batching_dims
        or tuple(sizes[1:]) != x.shape[1:]
    ):
        raise Unfollowed("an indexing of weights other than rows at known indices")
    parameter, factor = weight
    context.take(parameter)
    index = squeeze(indices, [len(indices.axes) - 1])
    explicit = known_value(materialized(index))
    assert isinstance(explicit.node, Known)
    variance, rate = parameter.variance * factor**2, parameter.rate * factor**2
    field = Lookup(context.new("rows"), explicit.node, parameter.gaussian, variance, rate)
    rows = iter(tuple(f._replace(kind="channel") for f in axis) for axis in x.axes[1:])
    batch = iter(explicit.axes)
    rank = len(explicit.axes) + len(x.axes) - 1
    offsets = numbers.offset_dims
    axes = fresh([next(rows) if i in offsets else next(batch) for i in range(rank)])
    return Value(field, axes)
