"""Concatenation over channels: values side by side, each with a law of its own."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ntkflow.kernels.infinite import elementwise, positions
from ntkflow.kernels.infinite.fields import ChannelSum, Unfollowed
from ntkflow.kernels.infinite.values import Value, settle, unify
from ntkflow.kernels.jaxprs import Equation

Step = Callable[[Any, Equation, list[Any]], list[Any]]


class Pieces(NamedTuple):
    """Values laid side by side along an axis of channels.

    Attributes:
      parts: the values.
      axis: along which they lie.
      mixed: whether the axis was merged with axes before it: entries of the parts alternate, and
        only what does not tell them apart (weights, sums) may follow.
    """

    parts: tuple[Value, ...]
    axis: int
    mixed: bool = False

    @property
    def sizes(self) -> list[int]:
        return [part.shape[self.axis] for part in self.parts]

    @property
    def shape(self) -> tuple[int, ...]:
        first = self.parts[0].shape
        return (*first[: self.axis], sum(self.sizes), *first[self.axis + 1 :])

    @property
    def known(self) -> bool:
        return False


def is_concatenation_of_channels(equation: Equation, operands: Sequence[Any]) -> bool:
    """Whether values are concatenated along an axis that is a channel in one of them."""
    if equation.name != "concatenate" or any(isinstance(o, Pieces) for o in operands):
        return False
    axis = equation.params["dimension"]
    kinds = {f.kind for o in operands for f in o.axes[axis]}
    # A single channel has no factor: it is one where it stands beside others.
    return bool(kinds & {"channel", "any"}) and not all(o.known for o in operands)


def concatenated(operands: Sequence[Value], axis: int) -> Pieces:
    """Values side by side; parameters among them take the positions of the others."""
    rank = len(operands[0].axes)
    kinds: list[Any] = []
    for i in range(rank):
        placed = any(f.kind == "position" for o in operands for f in o.axes[i])
        kinds.append("position" if placed and i != axis else "channel")
    return Pieces(tuple(settle(o, kinds) for o in operands), axis)


def step(context: Any, equation: Equation, operands: list[Any], one: Step) -> list[Any]:
    """One operation on values of which some are in pieces; `one` does it for whole values."""
    name, params = equation.name, equation.params
    pieces = next(o for o in operands if isinstance(o, Pieces))
    axis, rank = pieces.axis, len(pieces.shape)

    def each(new_params: Callable[[int], dict[str, Any]] = lambda size: {}) -> list[Value]:
        return [
            one(
                context,
                equation._replace(params={**params, **new_params(part.shape[axis])}),
                [part, *operands[1:]],
            )[0]
            for part in pieces.parts
        ]

    def columns() -> list[Value]:
        aligned = _aligned(context, operands, pieces)
        return [one(context, equation, list(column))[0] for column in aligned]

    def at_axis(values: Sequence[Any], size: Any, where: int = axis) -> tuple[Any, ...]:
        return (*values[:where], size, *values[where + 1 :])

    if name in elementwise.ELEMENTWISE:
        return [Pieces(tuple(columns()), axis, pieces.mixed)]
    match name:
        case "concatenate" if params["dimension"] == axis:
            flat = (o.parts if isinstance(o, Pieces) else (o,) for o in operands)
            return [Pieces(tuple(itertools.chain(*flat)), axis)]
        case "concatenate":
            return [Pieces(tuple(columns()), axis)]
        case "dot_general":
            return [_contracted(context, equation, operands, pieces, one)]
        case "conv_general_dilated":
            numbers = params["dimension_numbers"]
            if operands[0] is not pieces or numbers.lhs_spec[1] != axis:
                raise Unfollowed("a convolution along concatenated channels")
            if params["feature_group_count"] > 1:
                raise Unfollowed("a grouped convolution of concatenated channels")
            kernels = _cut(context, operands[1], numbers.rhs_spec[1], pieces.sizes)
            results = [
                one(context, equation, [part, kernel])[0]
                for part, kernel in zip(pieces.parts, kernels, strict=True)
            ]
            return [_total(results)]
        case "reduce_sum" if axis in params["axes"]:
            results = each()
            whole = math.prod(pieces.shape[i] for i in params["axes"])
            for result in results:
                if isinstance(result.node, ChannelSum):  # a part of the mean of all
                    result.node.whole = whole
            return [_total(results)]
        case "reduce_sum":
            before = sum(i < axis for i in params["axes"])
            return [Pieces(tuple(each()), axis - before, pieces.mixed)]
        case "reduce_window_sum" | "rev" | "cumsum" | "pad" if not pieces.mixed:
            touched = {
                "rev": lambda: axis in params["dimensions"],
                "cumsum": lambda: axis == params["axis"],
                "pad": lambda: tuple(params["padding_config"][axis]) != (0, 0, 0),
                "reduce_window_sum": lambda: params["window_dimensions"][axis] != 1,
            }[name]()
            if not touched:
                return [Pieces(tuple(each()), axis)]
        case "slice" if not pieces.mixed:
            starts, limits = params["start_indices"], params["limit_indices"]
            strides = params["strides"] or (1,) * rank
            if strides[axis] != 1:
                raise Unfollowed("a slice with strides over concatenated channels")
            cut_parts, begin = [], 0
            for part, size in zip(pieces.parts, pieces.sizes, strict=True):
                low = min(max(starts[axis] - begin, 0), size)
                high = min(max(limits[axis] - begin, 0), size)
                if high > low:
                    own = {
                        "start_indices": at_axis(starts, low),
                        "limit_indices": at_axis(limits, high),
                    }
                    cut_parts.append(positions.slice_(context, {**params, **own}, part))
                begin += size
            return [cut_parts[0] if len(cut_parts) == 1 else Pieces(tuple(cut_parts), axis)]
        case "split":
            results, start = [], 0
            for size in map(int, params["sizes"]):
                along = [0] * rank, list(pieces.shape)
                along[0][params["axis"]], along[1][params["axis"]] = start, start + size
                bounds = {"start_indices": along[0], "limit_indices": along[1], "strides": None}
                cut = equation._replace(name="slice", params=bounds)
                results += step(context, cut, operands, one)
                start += size
            return results
        case "transpose":
            where = list(params["permutation"]).index(axis)
            return [Pieces(tuple(each()), where, pieces.mixed)]
        case "squeeze":
            before = sum(i < axis for i in params["dimensions"])
            return [Pieces(tuple(each()), axis - before, pieces.mixed)]
        case "broadcast_in_dim":
            where = params["broadcast_dimensions"][axis]
            stretched = each(lambda size: {"shape": at_axis(params["shape"], size, where)})
            return [Pieces(tuple(stretched), where, pieces.mixed)]
        case "reshape":
            return [_reshaped(pieces, params["new_sizes"], each)]
    raise Unfollowed(f"the operation {name} on concatenated channels")


def _reshaped(pieces: Pieces, new: Sequence[int], each: Callable) -> Pieces:
    old, axis = pieces.shape, pieces.axis
    after = math.prod(old[axis + 1 :])
    for where, size in enumerate(new):
        merged = size // old[axis] if size % old[axis] == 0 else 0
        if math.prod(new[where + 1 :]) == after and merged:
            parts = each(
                lambda part: {"new_sizes": (*new[:where], part * merged, *new[where + 1 :])}
            )
            return Pieces(tuple(parts), where, pieces.mixed or merged > 1)
    raise Unfollowed("a reshape that splits concatenated channels")


def _contracted(context, equation, operands, pieces: Pieces, one: Step) -> Value:
    (contract_a, contract_b), _ = equation.params["dimension_numbers"]
    first = operands[0] is pieces
    mine, others = (contract_a, contract_b) if first else (contract_b, contract_a)
    other = operands[1] if first else operands[0]
    if pieces.axis not in mine or isinstance(other, Pieces):
        raise Unfollowed("a contraction that leaves concatenated channels as they are")
    cut = _cut(context, other, others[list(mine).index(pieces.axis)], pieces.sizes)
    pairs = zip(pieces.parts, cut, strict=True)
    return _total(
        [one(context, equation, [part, o] if first else [o, part])[0] for part, o in pairs]
    )


def _total(values: Sequence[Value]) -> Value:
    total = values[0]
    for value in values[1:]:
        nodes, axes = unify([total, value])
        total = Value(elementwise.add(*nodes), axes)
    return total


def _cut(context: Any, value: Value, axis: int, sizes: Sequence[int]) -> list[Value]:
    """A whole value in parts along an axis."""
    if value.shape[axis] == 1:
        return [value] * len(sizes)
    return positions.split(context, {"axis": axis, "sizes": sizes}, value)


def _aligned(context: Any, operands: Sequence[Any], pieces: Pieces) -> list[tuple[Value, ...]]:
    """All operands of an elementwise operation, cut at the same places."""
    axis = pieces.axis
    ends: set[int] = set()
    for o in operands:
        if isinstance(o, Pieces):
            if o.axis != axis or (o.mixed and o.sizes != pieces.sizes):
                raise Unfollowed("two different concatenations of channels in one operation")
            ends.update(itertools.accumulate(o.sizes))
    cuts = sorted(ends)
    sizes = [b - a for a, b in zip([0, *cuts[:-1]], cuts, strict=True)]
    spans = list(zip([0, *cuts[:-1]], sizes, strict=True))
    columns = []
    for o in operands:
        if isinstance(o, Pieces):
            parts: list[Value] = []
            begin = 0
            for part, size in zip(o.parts, o.sizes, strict=True):
                inside = [n for at, n in spans if begin <= at and at + n <= begin + size]
                parts += [part] if len(inside) == 1 else _cut(context, part, axis, inside)
                begin += size
            columns.append(parts)
        elif len(o.axes) <= axis:
            columns.append([o] * len(sizes))
        else:
            whole = {f.kind for f in o.axes[axis]} <= {"any", "constant"}
            if pieces.mixed and not whole:
                raise Unfollowed("numbers that tell flattened, concatenated channels apart")
            columns.append(_cut(context, o, axis, sizes))
    return list(zip(*columns, strict=True))
