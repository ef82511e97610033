"""The walk over a traced network, one operation after another, with fields in place of arrays."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkflow.kernels.infinite import elementwise, stacks
from ntkflow.kernels.infinite.context import Context
from ntkflow.kernels.infinite.fields import ChannelSum, Known, Node, Noise, Sum, Unfollowed, number
from ntkflow.kernels.infinite.pieces import (
    Pieces,
    concatenated,
    is_concatenation_of_channels,
    step as step_in_pieces,
)
from ntkflow.kernels.infinite.rules import RULES, STRUCTURAL
from ntkflow.kernels.infinite.stacks import Stack
from ntkflow.kernels.infinite.values import (
    Factor,
    Value,
    fresh,
    known_value,
    materialized,
    simplified,
    unify,
)
from ntkflow.kernels.jaxprs import Constant, Equation, Program, atom_dtype, location


class Key:
    """A PRNG key, of which only what is drawn from it matters."""


def walk(context: Context, program: Program, inputs: Sequence[Any]) -> Value | Pieces:
    """Follow a program from the values of its inputs to that of its one output."""
    values: dict[Any, Any] = dict(zip(program.inputs, inputs, strict=True))

    def read(atom):
        return _constant(atom.value) if isinstance(atom, Constant) else values[atom]

    for equation in program.equations:
        with reported(equation):
            results = step(context, equation, [read(atom) for atom in equation.inputs])
        for result, variable in zip(results, equation.outputs, strict=True):
            if isinstance(result, Value):
                assert result.shape == variable.shape, (equation.name, result, variable.shape)
                result.node.origin = result.node.origin or equation
        values.update(zip(equation.outputs, results, strict=True))
    if len(program.outputs) != 1:
        raise ValueError(
            f"apply returns {len(program.outputs)} arrays; expected one. Wrap a network with "
            "several outputs, or with mutable collections, and return one output alone."
        )
    (output,) = program.outputs
    result = read(output)
    return _resolved(result.whole(context) if isinstance(result, Stack) else result)


@contextmanager
def reported(equation: Equation | None = None) -> Iterator[None]:
    """Say in words what could not be followed, and where in the user's code it stands."""
    try:
        yield
    except Unfollowed as error:
        at = error.origin or equation
        where = f" ({at.name} at {location(at)})" if at is not None else ""
        raise ValueError(
            f"infinite_width cannot follow {error}{where}. For such a network use "
            "ntkflow.monte_carlo_kernel, an average over initializations at finite width."
        ) from error


def step(context: Context, equation: Equation, operands: list[Any]) -> list[Any]:
    """The results of one operation."""
    name, params = equation.name, equation.params
    if any(isinstance(o, Key) for o in operands):
        if name == "random_bits":
            axes = fresh([(Factor(n, "any"),) if n > 1 else () for n in params["shape"]])
            return [Value(Noise(context.new("bits"), (), params["bit_width"]), axes)]
        return [Key() for _ in equation.outputs]
    if any(isinstance(o, Stack) for o in operands):
        return stacks.step(context, equation, operands, step)
    stack = stacks.stacked(equation, operands)
    if stack is not None:
        return [stack]
    if name not in ("mul", "div", *STRUCTURAL):
        operands = [_resolved(o) for o in operands]
    if is_concatenation_of_channels(equation, operands):
        return [concatenated(operands, params["dimension"])]
    if any(isinstance(o, Pieces) for o in operands):
        return step_in_pieces(context, equation, operands, step)
    if all(o.known for o in operands) and name not in STRUCTURAL:
        results = _evaluate(context, equation, operands)
    elif name in elementwise.ELEMENTWISE:
        results = [elementwise.apply(name, equation.bind, params, operands)]
    elif name in RULES:
        result = RULES[name](context, params, *operands)
        results = result if isinstance(result, list) else [result]
    else:
        raise Unfollowed(f"the operation {name} on random fields")
    return [simplified(result) for result in results]


def _constant(array: Any) -> Value:
    with jax.ensure_compile_time_eval():
        if np.size(array) == 1:
            return Value(number(np.asarray(array).item()), tuple(() for _ in np.shape(array)))
        return known_value((jnp.asarray(array)[None],))


def _resolved(value: Any) -> Any:
    """A sum over channels once its scale is known: zero if it turned out to be a mean."""
    if not isinstance(value, Value):
        return value
    terms = value.node.terms if isinstance(value.node, Sum) else (value.node,)
    kept = [t for t in terms if not (isinstance(t, ChannelSum) and t.vanishes)]
    if len(kept) == len(terms):
        return value
    node: Node = number(0.0, len(value.node.shape))
    for term in kept:
        node = elementwise.add(node, term)
    return simplified(value._replace(node=node))


def _evaluate(context: Context, equation: Equation, operands: list[Value]) -> list[Value]:
    """An operation on numbers alone."""

    def dtype(atom):
        """Floating-point numbers are computed in the kernel's precision, not the network's."""
        own = atom_dtype(atom)
        return context.moments.dtype if elementwise.is_floating(own) else own

    def bind(*arrays):
        typed = [a.astype(dtype(atom)) for a, atom in zip(arrays, equation.inputs, strict=True)]
        results = equation.bind(*typed, **equation.params)
        return results if isinstance(results, list | tuple) else [results]

    # Indices and masks that do not depend on the samples stay concrete.
    with jax.ensure_compile_time_eval():
        if equation.name in elementwise.ELEMENTWISE:
            nodes, axes = unify(operands)
            types = (atom_dtype(equation.inputs[0]), equation.outputs[0].dtype)
            if equation.name == "convert_element_type" and all(map(elementwise.is_floating, types)):
                return [Value(nodes[0], axes)]
            knowns = [node for node in nodes if isinstance(node, Known)]
            return [Value(elementwise.combine(lambda *arrays: bind(*arrays)[0], knowns), axes)]
        arrays = [materialized(o) for o in operands]
        sides = []
        for side in range(max(map(len, arrays), default=1)):
            own = [a[min(side, len(a) - 1)] for a in arrays]
            n = max(map(len, own), default=1)
            if n == 1:
                sides.append([result[None] for result in bind(*(a[0] for a in own))])
            else:
                whole = [jnp.broadcast_to(a, (n, *a.shape[1:])) for a in own]
                sides.append(jax.vmap(bind)(*whole))
        return [known_value(list(results)) for results in zip(*sides, strict=True)]


def refuse_own_derivatives(program: Program) -> None:
    """Refuse functions whose derivative rule is not their derivative (straight-through and such).

    The walk sees what a function computes, and differentiates that.
    """
    random = np.random.default_rng(0)
    for call in program.custom:
        with jax.ensure_compile_time_eval():
            inputs = [
                jnp.asarray(random.normal(size=a.shape), a.dtype)
                if elementwise.is_floating(a.dtype)
                else jnp.zeros(a.shape, a.dtype)
                for a in call.inputs
            ]
            slopes = []
            for function in (call.custom, call.plain):
                outputs, pullback = jax.vjp(lambda *xs: jax.tree.leaves(function(*xs)), *inputs)
                slopes.append(pullback([jnp.ones_like(y) for y in outputs]))
            alike = [
                np.allclose(a, b, rtol=1e-3, atol=1e-3)
                for a, b, x in zip(*slopes, inputs, strict=True)
                if elementwise.is_floating(x.dtype)
            ]
        if not all(alike):
            raise ValueError(
                "infinite_width cannot follow a function whose custom derivative rule is not its "
                f"derivative ({call.definition}). For such a network use "
                "ntkflow.monte_carlo_kernel, an average over initializations at finite width."
            )
