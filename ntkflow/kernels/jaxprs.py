"""Reading of traced computations: the one file that looks into jaxprs.

`trace` turns a function into a `Program`: plain records of its primitive operations, in order,
with every nested call written out. Whoever follows a computation walks over these, by name.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
from jax.extend.core import Literal, jaxpr_as_fun


class Variable:
    """One array of a program, told from others by identity.

    Attributes:
      shape, dtype: of the array.
      origins: which of the program's inputs, by position, it is computed from.
    """

    __slots__ = ("dtype", "origins", "shape")

    def __init__(self, aval: Any, origins: frozenset[int]):
        self.shape, self.dtype, self.origins = aval.shape, aval.dtype, origins


class Constant(NamedTuple):
    """An array that the program knows already."""

    value: Any

    @property
    def origins(self) -> frozenset[int]:
        return frozenset()

    @property
    def shape(self) -> tuple[int, ...]:
        return jnp.shape(self.value)


Atom = Variable | Constant


class Equation(NamedTuple):
    """One primitive operation.

    Attributes:
      name: the primitive's name, e.g. "dot_general".
      params: its static parameters.
      inputs, outputs: what it reads and what it defines.
      bind: the operation itself, on arrays: `bind(*arrays, **params)`.
      sources: where it was traced, innermost call first; see `location`.
    """

    name: str
    params: dict[str, Any]
    inputs: tuple[Atom, ...]
    outputs: tuple[Variable, ...]
    bind: Callable[..., Any]
    sources: tuple[Any, ...]


class Program(NamedTuple):
    """A traced function: every equation stands after those whose results it reads.

    `custom` holds the user's calls with derivative rules of their own (`jax.custom_jvp`,
    `jax.custom_vjp`), which the equations write out without these rules.
    """

    inputs: tuple[Variable, ...]
    equations: tuple[Equation, ...]
    outputs: tuple[Atom, ...]
    custom: tuple["CustomCall", ...]


class CustomCall(NamedTuple):
    """A function with its own derivative rule, and the same one written out.

    Attributes:
      custom, plain: the two, from arrays to a list of arrays.
      inputs: shapes and dtypes of the arrays.
      definition: the function's name and where it is written.
    """

    custom: Callable[..., Any]
    plain: Callable[..., Any]
    inputs: tuple[Any, ...]
    definition: str


def trace(
    function: Callable, *arguments: Any, opened: Callable[[Equation], bool] | None = None
) -> Program:
    """Trace a function into a program, without what does not reach its results.

    Calls (`jit`, `remat`, `custom_jvp`, `custom_vjp`) are written out, and loops of known length
    (`scan`) unrolled.

    Args:
      function: a function of pytrees of arrays.
      arguments: arrays, or `jax.ShapeDtypeStruct` in place of them.
      opened: which calls and loops to write out; the others stay one equation. None: all.

    Returns:
      The program; inputs and outputs are the leaves of `arguments` and of the result.

    Example:
      >>> program = trace(lambda x: jax.nn.relu(2 * x), jax.ShapeDtypeStruct((3,), "float32"))
      >>> [equation.name for equation in program.equations]
      ['mul', 'max']
    """
    closed = jax.make_jaxpr(function)(*arguments)
    inputs = tuple(Variable(v.aval, frozenset([i])) for i, v in enumerate(closed.jaxpr.invars))
    equations: list[Any] = []
    opened = opened or (lambda equation: True)
    outputs = _write_out(closed.jaxpr, closed.consts, list(inputs), (), equations, opened)
    custom = tuple(e for e in equations if isinstance(e, CustomCall))
    equations = [e for e in equations if isinstance(e, Equation)]
    return Program(inputs, _live(equations, outputs), tuple(outputs), custom)


def _write_out(jaxpr, constants, arguments, sources, equations, opened) -> list[Atom]:
    """Append the equations of a jaxpr to `equations`; return what stands for its results."""
    atoms: dict[Any, Atom] = dict(zip(jaxpr.invars, arguments, strict=True))
    atoms.update(zip(jaxpr.constvars, map(Constant, constants), strict=True))

    def read(variable) -> Atom:
        return Constant(variable.val) if isinstance(variable, Literal) else atoms[variable]

    for equation in jaxpr.eqns:
        name = equation.primitive.name
        inputs = [read(v) for v in equation.invars]
        here = (equation.source_info.traceback, *sources)
        inner = next((equation.params[key] for key in _INNER if key in equation.params), None)
        called = name in _CALLS and inner is not None
        origins = frozenset[int]().union(*(atom.origins for atom in inputs))
        outputs: list[Any] = [Variable(v.aval, origins) for v in equation.outvars]
        bind = _bind_call(equation.primitive) if called else equation.primitive.bind
        whole = Equation(name, equation.params, tuple(inputs), tuple(outputs), bind, here)
        if called and opened(whole):
            body, constants = getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
            if name.startswith("custom") and not _is_from_library(body):
                equations.append(_custom_call(whole, inner))
            outputs = _write_out(body, constants, inputs, here, equations, opened)
        elif name == "scan" and equation.params["length"] > 0 and opened(whole):
            outputs = _unroll(whole, here, equations, opened)
        else:
            equations.append(whole)
        atoms.update(zip(equation.outvars, outputs, strict=True))
    return [read(v) for v in jaxpr.outvars]


_CALLS = (
    *("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
)
_INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def _bind_call(primitive) -> Callable[..., Any]:
    """A call as an operation: its parameters hold traced functions, and binding wants functions."""
    return lambda *arrays, **params: primitive.bind(*arrays, **primitive.get_bind_params(params))


def _custom_call(equation: Equation, inner) -> CustomCall:
    return CustomCall(
        lambda *arrays: equation.bind(*arrays, **equation.params),
        jaxpr_as_fun(inner),
        tuple(jax.ShapeDtypeStruct(a.shape, atom_dtype(a)) for a in equation.inputs),
        getattr(inner, "jaxpr", inner).debug_info.func_src_info or "a function",
    )


def _is_from_library(jaxpr) -> bool:
    """Whether the function was written in JAX or Flax, whose derivative rules are true."""
    at = (jaxpr.debug_info.func_src_info or "").rpartition(" at ")[2]
    return at.startswith(_LIBRARIES[:2])


def _unroll(loop: Equation, sources, equations, opened) -> list[Atom]:
    params, inputs = loop.params, loop.inputs
    inner, length = params["jaxpr"], params["length"]
    body, constants = getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
    # What is scanned over has an axis more outside than inside: JAX versions name the counts
    # of the three kinds of inputs differently, shapes tell them in all.
    carries = len(body.outvars) - sum(
        len(outer.shape) > len(v.aval.shape)
        for outer, v in zip(loop.outputs, body.outvars, strict=True)
    )
    scanned = sum(
        len(atom.shape) > len(v.aval.shape) for atom, v in zip(inputs, body.invars, strict=True)
    )
    consts = len(inputs) - carries - scanned
    constant, carry = inputs[:consts], list(inputs[consts : consts + carries])
    stacked = inputs[consts + carries :]

    def append(function, *arguments):
        """Apply a JAX function to atoms, as equations."""
        avals = [jax.ShapeDtypeStruct(a.shape, atom_dtype(a)) for a in arguments]
        traced = jax.make_jaxpr(function)(*avals)
        atoms = list(arguments)
        return _write_out(traced.jaxpr, traced.consts, atoms, sources, equations, opened)

    steps: list[Any] = [None] * length
    for i in reversed(range(length)) if params["reverse"] else range(length):
        rows = [append(lambda x: jax.lax.index_in_dim(x, i, keepdims=False), x)[0] for x in stacked]
        atoms = [*constant, *carry, *rows]
        results = _write_out(body, constants, atoms, sources, equations, opened)
        carry, steps[i] = results[:carries], results[carries:]
    columns = zip(*steps, strict=True)
    ys = [append(lambda *ys: jnp.stack(ys), *column)[0] for column in columns]
    return [*carry, *ys]


def atom_dtype(atom: Atom) -> Any:
    """The dtype of an array of a program."""
    return atom.dtype if isinstance(atom, Variable) else jnp.result_type(atom.value)


def _live(equations: list[Equation], outputs: list[Atom]) -> tuple[Equation, ...]:
    """The equations that reach the outputs: traced functions carry much that does not."""
    needed = {atom for atom in outputs if isinstance(atom, Variable)}
    kept = []
    for equation in reversed(equations):
        if not needed.isdisjoint(equation.outputs):
            needed.update(atom for atom in equation.inputs if isinstance(atom, Variable))
            kept.append(equation)
    return tuple(reversed(kept))


def evaluate(
    program: Program, arguments: Sequence[Any], shifts: Mapping[Variable, Any] | None = None
) -> dict[Variable, Any]:
    """Compute every array of a program.

    Args:
      program: what `trace` returned.
      arguments: one array for each of its inputs.
      shifts: what to add to some of its arrays before they are used.

    Returns:
      The arrays by their variables.

    Example:
      >>> program = trace(lambda x: 2 * x + 1, 3.0)
      >>> float(evaluate(program, [3.0])[program.outputs[0]])
      7.0
    """
    shifts = shifts or {}
    known: dict[Variable, Any] = dict(zip(program.inputs, arguments, strict=True))
    for equation in program.equations:
        arrays = [a.value if isinstance(a, Constant) else known[a] for a in equation.inputs]
        results = equation.bind(*arrays, **equation.params)
        results = results if isinstance(results, list | tuple) else [results]
        for variable, result in zip(equation.outputs, results, strict=True):
            known[variable] = result + shifts[variable] if variable in shifts else result
    return known


def fingerprint(phi: Callable) -> str:
    """The computation of an elementwise function as text, the same for the same computation.

    Example:
      >>> fingerprint(jnp.tanh) == fingerprint(lambda x: jnp.tanh(x))
      True
    """
    return str(jax.make_jaxpr(phi)(jax.ShapeDtypeStruct((), jnp.result_type(float))))


_LIBRARIES = tuple(os.path.dirname(str(package.__file__)) + os.sep for package in (jax, flax))
_LIBRARIES += (os.path.dirname(os.path.dirname(__file__)) + os.sep,)


def location(equation: Equation) -> str:
    """Where in the user's code an equation was written, as far as the trace tells.

    Lines inside JAX, Flax and this library do not count. A function that JAX had traced before
    shows where that was, and then where it is called from now.

    Example:
      >>> program = trace(lambda x: jnp.sort(x), jax.ShapeDtypeStruct((3,), "float32"))
      >>> location(program.equations[-1])
      'line 1 of <doctest ...
    """
    found: list[str] = []
    for source in equation.sources:
        frame = next(_user_frames(source), None)
        if frame is not None:
            text = f"line {frame.line_num} of {frame.file_name}, in {frame.function_name}"
            if text not in found:
                found.append(text)
    return ", called from ".join(found) if found else "code without a known place"


def _user_frames(source: Any) -> Iterator[Any]:
    for frame in source.frames if source is not None else ():
        if not frame.file_name.startswith((*_LIBRARIES, "<frozen")) and not _is_standard(frame):
            yield frame


def _is_standard(frame: Any) -> bool:
    return os.path.dirname(frame.file_name).startswith(os.path.dirname(os.__file__)) and (
        "site-packages" not in frame.file_name
    )
