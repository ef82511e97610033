"""Parameters laid side by side for a loop over layers, which takes them apart again."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ntkflow.kernels.infinite import elementwise, positions
from ntkflow.kernels.infinite.values import Value, squeeze
from ntkflow.kernels.jaxprs import Equation

Step = Callable[[Any, Equation, list[Any]], list[Any]]


class Stack(NamedTuple):
    """Parameters, each of size 1 along the axis on which they are stacked.

    A loop over layers reads them one by one: they stay apart, as weights that fields can meet.
    What else is done with them is done to the one array that they are.

    Attributes:
      parts: the parameters.
      axis: along which they lie.
    """

    parts: tuple[Value, ...]
    axis: int

    @property
    def shape(self) -> tuple[int, ...]:
        first = self.parts[0].shape
        return (*first[: self.axis], len(self.parts), *first[self.axis + 1 :])

    def whole(self, context: Any) -> Value:
        """The array: the parameters at positions."""
        return positions.concatenate(context, {"dimension": self.axis}, *self.parts)


def stacked(equation: Equation, operands: Sequence[Any]) -> Stack | None:
    """The parameters that an operation stacks, if that is what it does."""
    if equation.name not in ("concatenate", "stack"):
        return None
    if not all(isinstance(o, Value) and o.undecided for o in operands):
        return None
    if equation.name == "stack":
        axis = equation.params["axis"]
        raised = (v._replace(axes=(*v.axes[:axis], (), *v.axes[axis:])) for v in operands)
        return Stack(tuple(raised), axis)
    axis = equation.params["dimension"]
    return Stack(tuple(operands), axis) if all(o.shape[axis] == 1 for o in operands) else None


def step(context: Any, equation: Equation, operands: list[Any], one: Step) -> list[Any]:
    """One operation on values of which some are stacks; `one` does it for whole values."""
    name, params = equation.name, equation.params
    stack = next(o for o in operands if isinstance(o, Stack))
    axis, shape = stack.axis, stack.shape
    if name == "slice":
        bounds = list(zip(params["start_indices"], params["limit_indices"], strict=True))
        start, limit = bounds.pop(axis)
        others = (*shape[:axis], *shape[axis + 1 :])
        if limit == start + 1 and bounds == [(0, size) for size in others]:
            return [stack.parts[start]]
    if name == "unstack" and params["axis"] == axis:
        return [squeeze(part, [axis]) for part in stack.parts]
    numbers = [o for o in operands if o is not stack]
    if name in elementwise.ELEMENTWISE and all(
        isinstance(o, Value) and o.known and not o.factors for o in numbers
    ):

        def each(part: Value) -> Value:
            return one(context, equation, [part if o is stack else o for o in operands])[0]

        return [Stack(tuple(map(each, stack.parts)), axis)]
    whole = [o.whole(context) if isinstance(o, Stack) else o for o in operands]
    return one(context, equation, whole)
