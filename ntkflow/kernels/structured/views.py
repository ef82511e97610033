"""How an array that is made of parameters alone shows one of them: rearranged, sliced, scaled.

Rearranging a parameter's entries does not change its kernel Σ_p ∂f/∂θ_p ∂f/∂θ_p, so that what is
shown may be named by axes of its own, the *source*: the parameter after reshapes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ntkflow.kernels.jaxprs import Atom, Constant, Equation, Variable

Range = tuple[int, int, int]  # start, length, stride


class Source(NamedTuple):
    """A parameter after some rearrangements: its number, its shape now, and what was done.

    `history` tells two sources of one parameter apart.
    """

    leaf: int
    shape: tuple[int, ...]
    history: tuple[Any, ...] = ()


class Scale(NamedTuple):
    """A scalar, as an atom of the program, or one over it."""

    atom: Atom
    inverse: bool = False


class View(NamedTuple):
    """An array that shows entries of a source, each at most once along its axes.

    Attributes:
      source: what it shows.
      ranges: for each axis of the source, the part that is shown.
      axes: for each axis of the array, the source's axis it runs along; None if it is constant.
      scales: scalars to multiply by.
    """

    source: Source
    ranges: tuple[Range, ...]
    axes: tuple[int | None, ...]
    scales: tuple["Scale", ...] = ()

    @property
    def shown(self) -> tuple[int, ...]:
        """The lengths of the ranges."""
        return tuple(length for _, length, _ in self.ranges)


Views = tuple[View, ...]  # an array that is their sum, and what does not depend on parameters


class Joined(NamedTuple):
    """An array in which others lie side by side: the weights that a loop over layers takes apart.

    Attributes:
      parts: what is shown by each of the others.
      axis: along which they lie.
      lengths: theirs along it.
    """

    parts: tuple[Views, ...]
    axis: int
    lengths: tuple[int, ...]

    @property
    def leaves(self) -> set[int]:
        """Which parameters it holds."""
        return {view.source.leaf for views in self.parts for view in views}


def whole(leaf: int, shape: Sequence[int]) -> View:
    """A parameter as it is."""
    ranges = tuple((0, length, 1) for length in shape)
    return View(Source(leaf, tuple(shape)), ranges, tuple(range(len(shape))))


def follow(equation: Equation, operands: Sequence[Any], uniform: dict[Variable, Atom]):
    """The views of an operation's result on parameters alone; None where it is no rearrangement.

    Arrays that lie side by side come as one `Joined`; a slice of one of them comes as its views.

    Args:
      equation: the operation.
      operands: the views of each input; None for one that does not depend on the parameters.
      uniform: arrays that hold one number everywhere, as scalar atoms.
    """
    name, params = equation.name, equation.params
    if len(equation.outputs) > 1:
        return None
    if name == "stop_gradient":
        return ()
    if name in ("concatenate", "stack"):
        return _join(equation, operands)
    if any(isinstance(operand, Joined) for operand in operands):
        return _part(equation, operands[0]) if name == "slice" else None
    if name == "convert_element_type":
        return _convert(equation, operands[0])
    if name in ("copy", "copy_p", "optimization_barrier"):
        return operands[0]
    old, shape = equation.inputs[0].shape, equation.outputs[0].shape
    if name == "neg":
        return tuple(scaled(view, _MINUS) for view in operands[0])
    if name in ("add", "sub"):
        return _add(operands, [atom.shape for atom in equation.inputs], shape, name)
    if name in ("mul", "div"):
        return _scale(equation, operands, uniform)
    change = _CHANGES.get(name)
    if change is None:
        return None
    changed = [change(view, params, old, shape) for view in operands[0]]
    return None if None in changed else tuple(changed)


_MINUS = Scale(Constant(-1.0))


def _join(equation: Equation, operands: Sequence[Any]) -> Joined | None:
    if any(isinstance(operand, Joined) for operand in operands):
        return None
    parts = tuple(operand or () for operand in operands)
    if equation.name == "concatenate":
        axis = equation.params["dimension"]
        return Joined(parts, axis, tuple(atom.shape[axis] for atom in equation.inputs))
    axis = equation.params["axis"]

    def raised(view: View) -> View:
        return view._replace(axes=(*view.axes[:axis], None, *view.axes[axis:]))

    return Joined(tuple(tuple(map(raised, part)) for part in parts), axis, (1,) * len(parts))


def _part(equation: Equation, joined: Joined) -> Views | None:
    """A slice that lies within one of the arrays."""
    params, shape = equation.params, equation.outputs[0].shape
    starts, limits = list(params["start_indices"]), params["limit_indices"]
    begin, axis = 0, joined.axis
    for views, length in zip(joined.parts, joined.lengths, strict=True):
        if begin <= starts[axis] and limits[axis] <= begin + length:
            starts[axis] -= begin
            own = {"start_indices": starts, "strides": params["strides"]}
            return tuple(_slice(view, own, (), shape) for view in views)
        begin += length
    return None


def _convert(equation: Equation, operand: Views) -> Views | None:
    new = equation.outputs[0].dtype
    if jnp.issubdtype(new, jnp.floating):
        return operand
    # Whole numbers and truth values move in steps: their derivative is 0.
    return None if jnp.issubdtype(new, jnp.complexfloating) else ()


def scaled(view: View, scale: Scale) -> View:
    return view._replace(scales=(*view.scales, scale))


def broadcast(view: View, old: Sequence[int], new: Sequence[int]) -> View:
    """Of an array of the same rank, or a scalar, whose axes of length 1 were repeated."""
    if len(old) != len(new):
        return view._replace(axes=(None,) * len(new))
    kept = zip(view.axes, old, new, strict=True)
    return view._replace(axes=tuple(axis if a == b else None for axis, a, b in kept))


def _add(operands, shapes, shape, name):
    terms = []
    for i, (views, old) in enumerate(zip(operands, shapes, strict=True)):
        for view in views or ():
            own = broadcast(view, old, shape)
            terms.append(scaled(own, _MINUS) if name == "sub" and i == 1 else own)
    return tuple(terms)


def _scale(equation, operands, uniform):
    first, second = operands
    if (first is None) == (second is None) or (equation.name == "div" and second is not None):
        return None
    which = 1 if second is None else 0
    atom = equation.inputs[which]
    number = scalar_atom(atom, uniform)
    if number is None:
        return None
    old, shape = equation.inputs[1 - which].shape, equation.outputs[0].shape
    scale = Scale(number, inverse=equation.name == "div")
    return tuple(scaled(broadcast(view, old, shape), scale) for view in operands[1 - which])


def scalar_atom(atom: Atom, uniform: dict[Variable, Atom]) -> Atom | None:
    """The one number that an array holds everywhere, if the program shows that it does."""
    if atom.shape == ():
        return atom
    return uniform.get(atom) if isinstance(atom, Variable) else None


def _transpose(view, params, old, shape):
    return view._replace(axes=tuple(view.axes[i] for i in params["permutation"]))


def _broadcast_in_dim(view, params, old, shape):
    axes: list[int | None] = [None] * len(shape)
    for own, position in zip(view.axes, params["broadcast_dimensions"], strict=True):
        # An axis of length 1 shows one entry, also when it is repeated.
        repeated = own is None or view.ranges[own][1] != shape[position]
        axes[position] = None if repeated else own
    return view._replace(axes=tuple(axes))


def _squeeze(view, params, old, shape):
    dropped = params["dimensions"]
    return view._replace(axes=tuple(a for i, a in enumerate(view.axes) if i not in dropped))


def _slice(view, params, old, shape):
    ranges = list(view.ranges)
    strides = params["strides"] or (1,) * len(shape)
    for axis, start, length, stride in zip(
        view.axes, params["start_indices"], shape, strides, strict=True
    ):
        if axis is not None:
            first, _, step = ranges[axis]
            ranges[axis] = (first + start * step, length, step * stride)
    return view._replace(ranges=tuple(ranges))


def _reshape(view, params, old, shape):
    if params.get("dimensions") is not None:
        return None
    if [n for n in old if n != 1] == [n for n in shape if n != 1]:
        longer = iter([axis for axis, n in zip(view.axes, old, strict=True) if n != 1])
        return view._replace(axes=tuple(next(longer) if n != 1 else None for n in shape))
    return _anew(view, shape, ("reshape", tuple(shape)))


def _reverse(view, params, old, shape):
    return _anew(view, shape, ("rev", tuple(params["dimensions"])))


def _anew(view: View, shape, change: tuple[Any, ...]) -> View | None:
    """The array itself as a source: its entries are the parameter's, each once, or not at all."""
    shown = [axis for axis in view.axes if axis is not None]
    missing = [i for i, n in enumerate(view.shown) if n > 1 and i not in shown]
    if missing or np.prod(shape) != np.prod(view.shown):
        return None  # an axis was repeated
    seen = ("of", view.ranges, view.axes, change)
    source = Source(view.source.leaf, tuple(shape), (*view.source.history, seen))
    return whole(source.leaf, shape)._replace(source=source, scales=view.scales)


def split(view: View, shape: Sequence[int], axis: int, lengths: Sequence[int]) -> View | None:
    """The view with one of the axes of an array of this shape taken apart into several."""
    return _reshape(view, {}, shape, (*shape[:axis], *lengths, *shape[axis + 1 :]))


_CHANGES = {
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast_in_dim,
    "squeeze": _squeeze,
    "slice": _slice,
    "reshape": _reshape,
    "rev": _reverse,
}


def overlap(one: View, two: View) -> bool | None:
    """Whether two views of one parameter show the same entries, axis by axis, or none in common.

    None: neither, or nobody knows.
    """
    for first, second in zip(_steps(one), _steps(two), strict=False):
        (ranges1, rest1), (ranges2, rest2) = first, second
        if any(_disjoint(a, b) for a, b in zip(ranges1, ranges2, strict=True)):
            return False
        if ranges1 != ranges2 or rest1 != rest2:
            return None
    return True if len(_steps(one)) == len(_steps(two)) else None


def _steps(view: View) -> list[tuple[tuple[Range, ...], Any]]:
    """The ranges of every source on the way, and what was done then; nothing after the last."""
    steps = [(ranges, (axes, change)) for _, ranges, axes, change in view.source.history]
    return [*steps, (view.ranges, None)]


def _disjoint(one: Range, two: Range) -> bool:
    (start1, n1, step1), (start2, n2, step2) = one, two
    if n1 == 0 or n2 == 0:
        return True
    if start1 + (n1 - 1) * step1 < start2 or start2 + (n2 - 1) * step2 < start1:
        return True
    return step1 == step2 and (start1 - start2) % step1 != 0
