"""The walk over a traced network: every place where a parameter meets the data."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ntkflow.kernels.jaxprs import Atom, Equation, Program, Variable, atom_dtype, trace
from ntkflow.kernels.structured import rules, views
from ntkflow.kernels.structured.rules import Entrance

# Loops whose bodies read parameters are written out: so many steps at most, which take a few
# seconds to compile.
_STEPS = 64


class Place(NamedTuple):
    """An operation on a parameter and on data, or on another parameter.

    Attributes:
      entrance: how the parameter enters.
      other: the other operand; None if the Jacobian does not need it.
      sampled: whether that one depends on the samples.
      result: what the operation defines.
      varies: whether that depends on the samples.
    """

    entrance: Entrance
    other: Atom | None
    sampled: bool
    result: Variable
    varies: bool


class Network(NamedTuple):
    """A network on one sample, and how its parameters enter.

    Attributes:
      program: its trace; the inputs are the parameters, then a batch of one sample.
      places: for each parameter, where it enters; None if a rule is missing somewhere.
      products: how many products one forward pass takes, roughly.
      activations: how many numbers it computes where parameters meet the data.
    """

    program: Program
    places: tuple[tuple[Place, ...] | None, ...]
    products: int
    activations: int


def entrances(program: Program) -> Network:
    """Find where the parameters of a traced network enter; its last input is the data."""
    parameters = program.inputs[:-1]
    data = len(parameters)
    places: list[list[Place]] = [[] for _ in parameters]
    lost: set[int] = set()
    seen: dict[Variable, views.Views | views.Joined] = {
        variable: (views.whole(leaf, variable.shape),) for leaf, variable in enumerate(parameters)
    }
    uniform: dict[Variable, Atom] = {}

    def views_of(atom):
        return seen.get(atom) if isinstance(atom, Variable) else None

    for equation in program.equations:
        operands = [views_of(atom) for atom in equation.inputs]
        if all(operand is None for operand in operands):
            _note_uniform(equation, uniform)
            continue
        if data not in equation.outputs[0].origins:
            followed = views.follow(equation, operands, uniform)
            if followed is not None:
                seen[equation.outputs[0]] = followed
                continue
        for which, operand in enumerate(operands):
            if isinstance(operand, views.Joined):  # used as one array: no rule knows its parts
                lost.update(operand.leaves)
                continue
            for view in operand or ():
                entrance = rules.enter(equation, which, view)
                if entrance is None:
                    lost.add(view.source.leaf)
                else:
                    other = rules.other_operand(equation, which)
                    sampled = other is not None and data in other.origins
                    result = equation.outputs[0]
                    place = Place(entrance, other, sampled, result, data in result.origins)
                    places[view.source.leaf].append(place)
    for output in program.outputs:
        shown = views_of(output) or ()
        if isinstance(shown, views.Joined):
            lost.update(shown.leaves)
        else:
            lost.update(view.source.leaf for view in shown)
    lost.update(leaf for leaf, own in enumerate(places) if collide(own, own))
    met = {place.result for own in places for place in own if place.varies}
    return Network(
        program,
        tuple(None if leaf in lost else tuple(own) for leaf, own in enumerate(places)),
        sum(map(_products, program.equations)),
        sum(math.prod(variable.shape) for variable in met),
    )


def collide(one: Sequence[Place], two: Sequence[Place]) -> bool:
    """Whether a parameter is seen in two ways of which nobody knows what they have in common."""
    shown = [
        dict.fromkeys(place.entrance.view._replace(axes=(), scales=()) for place in side)
        for side in (one, two)
    ]
    return any(views.overlap(a, b) is None for a, b in itertools.product(*shown))


def traced(function: Callable[..., jax.Array], parameters: Sequence[Any], x: Any) -> Program:
    """The trace of `function(parameters, x)`, with calls written out only where parameters go in.

    A call with a derivative rule of its own is never written out: its rule is what counts.

    Args:
      function: a pure function of a list of arrays and of samples.
      parameters, x: arrays, or their shapes and dtypes.
    """
    data, left = len(parameters), _STEPS

    def opened(equation: Equation) -> bool:
        nonlocal left
        if equation.name.startswith("custom") or not any(
            atom.origins and data not in atom.origins for atom in equation.inputs
        ):
            return False
        if equation.name == "scan":
            left -= equation.params["length"]
            return left >= 0
        return True

    def flat(*arrays):
        return function(list(arrays[:-1]), arrays[-1])

    return trace(flat, *parameters, x, opened=opened)


def _note_uniform(equation: Equation, uniform: dict[Variable, Atom]) -> None:
    """Note an array that is one number everywhere."""
    if equation.name not in ("broadcast_in_dim", "convert_element_type", "reshape"):
        return
    old, new = atom_dtype(equation.inputs[0]), equation.outputs[0].dtype
    if jnp.promote_types(old, new) == new:  # a conversion to less would change the number
        number = views.scalar_atom(equation.inputs[0], uniform)
        if number is not None:
            uniform[equation.outputs[0]] = number


def _products(equation: Equation) -> int:
    """How many products an operation takes, of those that take many."""
    if equation.name == "dot_general":
        shape = equation.inputs[0].shape
        summed = equation.params["dimension_numbers"][0][0]
        return math.prod(equation.outputs[0].shape) * math.prod(shape[i] for i in summed)
    if equation.name == "conv_general_dilated":
        kernel = equation.inputs[1].shape
        out = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
        return math.prod(equation.outputs[0].shape) * (math.prod(kernel) // max(out, 1))
    return max((math.prod(v.shape) for v in equation.outputs), default=0)
