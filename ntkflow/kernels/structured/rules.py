"""How a parameter enters: for each operation, what its Jacobian is a product of.

The Jacobian of the outputs by a parameter is the product of the operation's other operand, known
from the forward pass, and the cotangent at its result, summed over positions. A rule names their
axes: axes of the parameter, `Own(i)`, and axes that are summed, `Position(i)`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntkflow.kernels.jaxprs import Equation, atom_dtype
from ntkflow.kernels.structured.factors import AnyFactor, Factor, OneHot
from ntkflow.kernels.structured.views import View, broadcast, split

SAMPLE, OUTPUT = "sample", "output"


class Own(NamedTuple):
    """An axis of the parameter, or of the source that stands for it."""

    axis: int


class Position(NamedTuple):
    """An axis that is summed: a position, or an axis along which the parameter is repeated."""

    axis: int


class Entrance(NamedTuple):
    """One place where a parameter meets data.

    Attributes:
      view: how it is seen there.
      factors: from the other operand (sample, ...), None if there is none, and from the cotangent
        (sample, output, ...), to the factors of the Jacobian.
    """

    view: View
    factors: Callable[[jax.Array | None, jax.Array], tuple[AnyFactor, ...]]


def enter(equation: Equation, which: int, view: View) -> Entrance | None:
    """How the operand number `which`, which shows a parameter, enters; None without a rule."""
    rule = _RULES.get(equation.name)
    numbers = [atom_dtype(atom) for atom in (*equation.inputs, *equation.outputs)]
    if rule is None or any(jnp.issubdtype(dtype, jnp.complexfloating) for dtype in numbers):
        return None
    return rule(equation, which, view)


def other_operand(equation: Equation, which: int) -> Any:
    """What a rule wants from the forward pass: the atom of the other operand, or None."""
    if equation.name in ("add", "sub"):
        return None
    return equation.inputs[1 - which]


class _Names:
    """Hands out names for the axes of an operation."""

    def __init__(self, view: View):
        self.view, self.positions = view, 0

    def position(self) -> Position:
        self.positions += 1
        return Position(self.positions)

    def own(self, array_axis: int) -> Own | Position:
        axis = self.view.axes[array_axis]
        return self.position() if axis is None else Own(axis)


def _dot_general(equation, which, view):
    contracting, batch = equation.params["dimension_numbers"]
    names = _Names(view)
    ranks = [len(atom.shape) for atom in equation.inputs]
    mine = [names.own(i) for i in range(ranks[which])]
    other: list[Any] = [None] * ranks[1 - which]
    for kind in (contracting, batch):
        for i, j in zip(kind[which], kind[1 - which], strict=True):
            other[j] = mine[i]
    other = [names.position() if name is None else name for name in other]
    sides = (mine, other) if which == 0 else (other, mine)
    free = [
        [name for i, name in enumerate(side) if i not in (*contracting[k], *batch[k])]
        for k, side in enumerate(sides)
    ]
    result = [mine[i] for i in batch[which]] + free[0] + free[1]
    return Entrance(view, _plain(other, result))


def _add(equation, which, view):
    _, names, view = _elementwise(equation, which, view)
    summed = tuple(2 + i for i, name in enumerate(names) if isinstance(name, Position))
    kept = [name for name in names if isinstance(name, Own)]
    negative = equation.name == "sub" and which == 1

    def factors(_, cotangent):
        array = cotangent.sum(summed) if summed else cotangent
        return (_factor(-array if negative else array, (SAMPLE, OUTPUT, *kept)),)

    return Entrance(view, factors)


def _multiply(equation, which, view):
    result, names, view = _elementwise(equation, which, view)

    def factors(other, cotangent):
        shape = (*other.shape[:1], *([1] * (len(result) - other.ndim + 1)), *other.shape[1:])
        other = jnp.broadcast_to(other.reshape(shape), (*other.shape[:1], *result))
        return _plain(names, names)(other, cotangent)

    return Entrance(view, factors)


def _elementwise(equation, which, view):
    result = equation.outputs[0].shape
    view = broadcast(view, equation.inputs[which].shape, result)
    names = _Names(view)
    return result, [names.own(i) for i in range(len(result))], view


def _gather(equation, which, view):
    """Rows of a table at places that the data tell: an embedding."""
    params = equation.params
    numbers, slices = params["dimension_numbers"], params["slice_sizes"]
    shape = equation.inputs[0].shape
    if which != 0 or len(numbers.start_index_map) != 1 or numbers.operand_batching_dims:
        return None
    (row,) = numbers.start_index_map
    whole = all(n == m for i, (n, m) in enumerate(zip(slices, shape, strict=True)) if i != row)
    if tuple(numbers.collapsed_slice_dims) != (row,) or not whole:
        return None
    if not isinstance(view.axes[row], int):
        return None
    names = _Names(view)
    mine = [names.own(i) for i in range(len(shape))]
    positions = [names.position() for _ in equation.inputs[1].shape[:-1]]
    rest = iter([name for i, name in enumerate(mine) if i != row])
    along = iter(positions)
    result = [
        next(rest if i in numbers.offset_dims else along)
        for i in range(len(equation.outputs[0].shape))
    ]
    clipped = "CLIP" in str(params["mode"]).upper()

    def factors(indices, cotangent):
        places = indices[..., 0]
        if clipped:
            places = jnp.clip(places, 0, shape[row] - 1)
        else:  # what is outside of the table is not read from it
            places = jnp.where((places >= 0) & (places < shape[row]), places, -1)
        rows = OneHot(_factor(places, (SAMPLE, *positions)), mine[row], shape[row], cotangent.dtype)
        return rows, _factor(cotangent, (SAMPLE, OUTPUT, *result))

    return Entrance(view, factors)


def _convolution(equation, which, view):
    params = equation.params
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    if which != 1 or params["batch_group_count"] != 1:
        return None
    kernel = equation.inputs[1].shape
    channels_out, channels_in, *windows = numbers.rhs_spec
    split_view = split(view, kernel, channels_out, (groups, kernel[channels_out] // groups))
    if split_view is None:
        return None
    names = _Names(split_view)
    # The array's axes after the split: those behind the output channels moved by one.
    moved = [i + (i > channels_out) for i in range(len(kernel))]
    group, out = names.own(channels_out), names.own(channels_out + 1)
    inputs = names.own(moved[channels_in])
    offsets = [names.own(moved[i]) for i in windows]
    batch, positions = names.position(), [names.position() for _ in windows]
    result: list[Any] = [None] * len(kernel)
    result[numbers.out_spec[0]] = [batch]
    result[numbers.out_spec[1]] = [group, out]
    for i, position in zip(numbers.out_spec[2:], positions, strict=True):
        result[i] = [position]
    to_patches = _patches(equation, groups)

    def factors(images, cotangent):
        pairs = zip(positions, offsets, strict=True)
        axes = (SAMPLE, batch, group, inputs, *(name for pair in pairs for name in pair))
        lengths = list(cotangent.shape)
        at = 2 + numbers.out_spec[1]
        lengths[at : at + 1] = [groups, lengths[at] // groups]
        flat = cotangent.reshape(lengths)
        own = (SAMPLE, OUTPUT, *(name for entry in result for name in entry))
        return _factor(to_patches(images), axes), _factor(flat, own)

    return Entrance(split_view, factors)


def _patches(equation: Equation, groups: int) -> Callable[[jax.Array], jax.Array]:
    """What each position reads: (n, batch, group, channel, then position and offset by axis)."""
    params = equation.params
    numbers = params["dimension_numbers"]
    lengths = [equation.inputs[1].shape[i] for i in numbers.rhs_spec[2:]]
    positions = [equation.outputs[0].shape[i] for i in numbers.out_spec[2:]]
    # Places in the padded image, whose entries stand `lhs_dilation` apart.
    places = [
        stride * np.arange(n)[:, None] + dilation * np.arange(k)[None, :]
        for stride, n, dilation, k in zip(
            params["window_strides"], positions, params["rhs_dilation"], lengths, strict=True
        )
    ]
    padding = [
        (low, high, dilation - 1)
        for (low, high), dilation in zip(params["padding"], params["lhs_dilation"], strict=True)
    ]

    def patches(images):
        order = (0, *(1 + i for i in numbers.lhs_spec))
        images = images.transpose(order)  # (n, batch, channel, …)
        zero = jnp.zeros((), images.dtype)
        images = jax.lax.pad(images, zero, [(0, 0, 0)] * 3 + padding)
        for i, index in enumerate(places):
            images = jnp.take(images, index, axis=3 + 2 * i, mode="clip")
        n, batch, channels, *rest = images.shape
        return images.reshape(n, batch, groups, channels // groups, *rest)

    return patches


def _plain(other_names: Sequence[Any], result_names: Sequence[Any]):
    def factors(other, cotangent):
        return (
            _factor(other, (SAMPLE, *other_names)),
            _factor(cotangent, (SAMPLE, OUTPUT, *result_names)),
        )

    return factors


def _factor(array: jax.Array, names: Sequence[Any]) -> Factor:
    """Without axes of length 1, which only slow down."""
    kept = [i for i, name in enumerate(names) if array.shape[i] != 1 or isinstance(name, str)]
    shape = [array.shape[i] for i in kept]
    assert math.prod(shape) == array.size
    return Factor(array.reshape(shape), tuple(names[i] for i in kept))


_RULES = {
    "dot_general": _dot_general,
    "add": _add,
    "sub": _add,
    "mul": _multiply,
    "gather": _gather,
    "conv_general_dilated": _convolution,
}
