"""Reading of traced computations: the one file that looks into jaxprs.

`trace` turns a function into a `Program`: plain records of its primitive operations, in order,
with every nested call written out. Whoever follows a computation walks over these, by name.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
from jax.extend.core import Literal, jaxpr_as_fun


class Variable:
    """One array of a program, told from others by identity."""

    __slots__ = ("dtype", "shape")

    def __init__(self, aval: Any):
        self.shape, self.dtype = aval.shape, aval.dtype


class Constant(NamedTuple):
    """An array that the program knows already."""

    value: Any

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


def trace(function: Callable, *arguments: Any) -> Program:
    """Trace a function into a program, without what does not reach its results.

    Calls (`jit`, `remat`, `custom_jvp`, `custom_vjp`) are written out, and loops of known length
    (`scan`) unrolled.

    Args:
      function: a function of pytrees of arrays.
      arguments: arrays, or `jax.ShapeDtypeStruct` in place of them.

    Returns:
      The program; inputs and outputs are the leaves of `arguments` and of the result.

    Example:
      >>> program = trace(lambda x: jax.nn.relu(2 * x), jax.ShapeDtypeStruct((3,), "float32"))
      >>> [equation.name for equation in program.equations]
      ['mul', 'max']
    """
    closed = jax.make_jaxpr(function)(*arguments)
    inputs = tuple(Variable(v.aval) for v in closed.jaxpr.invars)
    equations: list[Any] = []
    outputs = _write_out(closed.jaxpr, closed.consts, list(inputs), (), equations)
    custom = tuple(e for e in equations if isinstance(e, CustomCall))
    equations = [e for e in equations if isinstance(e, Equation)]
    return Program(inputs, _live(equations, outputs), tuple(outputs), custom)


def _write_out(jaxpr, constants, arguments, sources, equations) -> list[Atom]:
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
        if name in _CALLS and inner is not None:
            body, constants = getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
            if name.startswith("custom") and not _is_from_library(body):
                equations.append(_custom_call(equation, inner))
            outputs: list[Any] = _write_out(body, constants, inputs, here, equations)
        elif name == "scan":
            outputs = _unroll(equation.params, equation.outvars, inputs, here, equations)
        else:
            outputs = [Variable(v.aval) for v in equation.outvars]
            equations.append(
                Equation(
                    name,
                    equation.params,
                    tuple(inputs),
                    tuple(outputs),
                    equation.primitive.bind,
                    here,
                )
            )
        atoms.update(zip(equation.outvars, outputs, strict=True))
    return [read(v) for v in jaxpr.outvars]


_CALLS = (
    *("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
)
_INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def _custom_call(equation, inner) -> CustomCall:
    primitive, params = equation.primitive, equation.params
    return CustomCall(
        lambda *xs: primitive.bind(*xs, **primitive.get_bind_params(params)),
        jaxpr_as_fun(inner),
        tuple(jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in equation.invars),
        getattr(inner, "jaxpr", inner).debug_info.func_src_info or "a function",
    )


def _is_from_library(jaxpr) -> bool:
    """Whether the function was written in JAX or Flax, whose derivative rules are true."""
    at = (jaxpr.debug_info.func_src_info or "").rpartition(" at ")[2]
    return at.startswith(_LIBRARIES[:2])


def _unroll(params, results_outside, inputs, sources, equations) -> list[Atom]:
    inner, length = params["jaxpr"], params["length"]
    body, constants = getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
    # What is scanned over has an axis more outside than inside: JAX versions name the counts
    # of the three kinds of inputs differently, shapes tell them in all.
    carries = len(body.outvars) - sum(
        len(outer.aval.shape) > len(v.aval.shape)
        for outer, v in zip(results_outside, body.outvars, strict=True)
    )
    scanned = sum(
        len(atom.shape) > len(v.aval.shape) for atom, v in zip(inputs, body.invars, strict=True)
    )
    consts = len(inputs) - carries - scanned
    constant, carry = inputs[:consts], inputs[consts : consts + carries]
    stacked = inputs[consts + carries :]

    def append(function, *arguments):
        """Apply a JAX function to atoms, as equations."""
        avals = [jax.ShapeDtypeStruct(a.shape, atom_dtype(a)) for a in arguments]
        traced = jax.make_jaxpr(function)(*avals)
        return _write_out(traced.jaxpr, traced.consts, list(arguments), sources, equations)

    steps: list[Any] = [None] * length
    for i in reversed(range(length)) if params["reverse"] else range(length):
        rows = [append(lambda x: jax.lax.index_in_dim(x, i, keepdims=False), x)[0] for x in stacked]
        results = _write_out(body, constants, [*constant, *carry, *rows], sources, equations)
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
