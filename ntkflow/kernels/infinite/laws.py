"""Laws of random parameters, read from the code that draws them.

Every entry of a freshly initialized array is a function of random bits of its own: the traced
initialization is followed from the keys over the bits to the parameters. Nothing is sampled.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntkflow.kernels.infinite import distributions
from ntkflow.kernels.infinite.distributions import Law as Law, law_of_bits as law_of_bits
from ntkflow.kernels.jaxprs import (
    Constant,
    Equation,
    Program,
    Variable,
    atom_dtype,
    location,
    trace,
)


def laws(init: Callable, *arguments: Any) -> Any:
    """Laws of the entries of freshly initialized parameters.

    Each leaf must be a constant, or a function of random bits of its own, entry by entry. Stacked
    arrays (`nn.scan`, `nn.vmap`) are followed where all pieces have one law. Uniform laws,
    normal ones (also truncated), signs and other finite laws are those that the code means in
    exact arithmetic, with its constants rounded to the dtype; others are integrated over the
    bits, to about 1e-6 in double precision and 1e-5 below.

    Args:
      init: a function `init(keys, ...)` that returns a pytree of arrays.
      arguments: those of `init`, of which only shapes and dtypes count
        (`jax.ShapeDtypeStruct` in place of arrays): first a PRNG key or a pytree of them.

    Returns:
      A pytree of the structure of the result, with a `Law` in place of each array.

    Raises:
      ValueError: entries depend on each other (an orthogonal matrix, vectors of length one, two
        parameters from one key) or on the inputs, have different laws or no finite variance.

    Example:
      >>> import flax.linen as nn
      >>> key = jax.eval_shape(lambda: jax.random.key(0))
      >>> found = laws(nn.Dense(3).init, key, jax.ShapeDtypeStruct((1, 4), float))
      >>> found["params"]["bias"]
      Law(mean=0.0, variance=0.0, normal=True)
      >>> round(found["params"]["kernel"].variance, 12)  # lecun_normal: a truncated normal
      0.25
    """
    paths: list[str] = []
    structure: list[Any] = []

    def flat(*inputs):
        leaves, tree = jax.tree_util.tree_flatten_with_path(init(*inputs))
        paths[:] = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
        structure[:] = [tree]
        return [leaf for _, leaf in leaves]

    program = trace(flat, *arguments)
    values = _follow(program, program.inputs[: len(jax.tree.leaves(arguments[:1]))])
    known: dict[int, Law] = {}
    users: dict[int, str] = {}
    found = []
    for path, atom in zip(paths, program.outputs, strict=True):
        name = f"parameter {path}" if path else "the array"
        value = values[atom] if isinstance(atom, Variable) else _constant(atom, {})
        try:
            for key in value.keys if isinstance(value, Draw) else ():
                if users.setdefault(key, name) != name:
                    raise ValueError(f"is drawn with the same key as {users[key]}")
            found.append(_leaf_law(value, known))
        except ValueError as error:
            raise ValueError(
                f"{name[0].upper()}{name[1:]} {error}; expected independent entries of one law. "
                "Use an initializer that draws every entry by itself, each array with a key of "
                "its own, or ntkflow.monte_carlo_kernel."
            ) from None
    return jax.tree.unflatten(structure[0], found)


def _leaf_law(value: Any, known: dict[int, Law]) -> Law:
    if isinstance(value, Draw):
        if value.code not in known:
            known[value.code] = law(value)
        return known[value.code]
    if isinstance(value, Known):
        if value.value.ndim:
            raise ValueError("holds different constants")
        return Law(float(value.value), 0.0, True)
    if isinstance(value, Refused):
        cause = value.equation
        raise ValueError(value.reason + (f" ({cause.name}, {location(cause)})" if cause else ""))
    raise ValueError("is made of the key itself")


class Key(NamedTuple):
    """Random keys; equal codes are equal keys."""

    code: int


class Known(NamedTuple):
    """A constant array: its values, or the one that fills it; floats are kept in float64."""

    value: np.ndarray
    dtype: Any


class Draw(NamedTuple):
    """An array whose entries are one function of random bits, each of its own bits.

    Attributes:
      keys: codes of the keys that drew the bits.
      layout: two draws of one layout have the same bits at the same entries.
      code: equal codes are equal functions of the bits.
      width: of the bits.
      family: the law, where the code tells it.
      equation, operands: the last elementwise operation; None and () for the bits themselves.
    """

    keys: frozenset[int]
    layout: int
    code: int
    width: int
    family: Any = None
    equation: Equation | None = None
    operands: tuple[Any, ...] = ()

    @property
    def operation(self) -> str:
        return self.equation.name if self.equation else "random_bits"


class Refused(NamedTuple):
    """What is none of these, and the operation that made it so."""

    reason: str
    equation: Equation | None


def law(draw: Draw) -> Law:
    """The law of the entries of a draw.

    Raises:
      ValueError: values that are not finite, or an infinite variance.
    """
    if draw.family is not None:
        return draw.family.law()

    def function(bits: jax.Array) -> Any:  # of one entry
        done: dict[int, Any] = {}

        def value(operand: Any) -> Any:
            if isinstance(operand, Known):
                return jnp.asarray(operand.value, operand.dtype)
            if operand.equation is None:
                return bits
            if operand.code not in done:
                inputs = map(value, operand.operands)
                done[operand.code] = operand.equation.bind(*inputs, **operand.equation.params)
            return done[operand.code]

        return value(draw)

    return law_of_bits(jax.vmap(function), draw.width)


def _follow(program: Program, keys: tuple[Variable, ...]) -> dict[Any, Any]:
    """What each variable is: a Key, Known, a Draw or Refused."""
    codes: dict[Any, int] = {}
    inputs = Refused("depends on the values of the inputs", None)
    values: dict[Any, Any] = dict.fromkeys(program.inputs, inputs)
    values |= {key: Key(_code(codes, "input", i)) for i, key in enumerate(keys)}
    for equation in program.equations:
        operands = [
            values[atom] if isinstance(atom, Variable) else _constant(atom, codes)
            for atom in equation.inputs
        ]
        values.update(zip(equation.outputs, _step(equation, operands, codes), strict=True))
    return values


def _code(codes: dict[Any, int], *item: Any) -> int:
    """A number for what is described by `item`: equal ones for equal descriptions."""
    try:
        return codes.setdefault(item, len(codes))
    except TypeError:  # parameters that cannot be hashed
        return codes.setdefault(repr(item), len(codes))


def _description(equation: Equation, operands: list[Any]) -> tuple[Any, ...]:
    parts = [
        (str(v.dtype), v.value.shape, v.value.tobytes()) if isinstance(v, Known) else v.code
        for v in operands
    ]
    return (equation.name, tuple(equation.params.items()), *parts)


def _constant(atom: Constant, codes: dict[Any, int]) -> Any:
    dtype = atom_dtype(atom)
    try:
        if jnp.issubdtype(dtype, jax.dtypes.prng_key):
            with jax.ensure_compile_time_eval():
                return Key(_code(codes, np.asarray(jax.random.key_data(atom.value)).tobytes()))
        return _known(np.asarray(atom.value), dtype)
    except jax.errors.TracerArrayConversionError:
        return Refused("depends on values that are traced", None)


# √2 and the standard deviation of N(0, 1) cut at ±2: samplers round them to the dtype.
_ROUNDED = (math.sqrt(2), 0.8796256610342398)


def _known(value: np.ndarray, dtype: Any) -> Known:
    floating = jnp.issubdtype(dtype, jnp.floating)
    value = np.asarray(value, np.float64 if floating else dtype)
    first = value.reshape(-1)[:1]
    if value.size and bool(np.all(value == first)):
        value = first.reshape(())
        for exact in _ROUNDED if floating else ():
            if float(value) == float(np.asarray(exact, dtype)):
                value = np.asarray(exact)
    return Known(value, dtype)


def _step(equation: Equation, operands: list[Any], codes: dict[Any, int]) -> list[Any]:
    """What the outputs of an equation are."""
    name, outputs = equation.name, equation.outputs
    if name in _SAME:
        return operands

    def refuse(reason: str) -> list[Refused]:
        return [Refused(reason, equation)] * len(outputs)

    sizes = [math.prod(atom.shape) for atom in equation.inputs]
    size = math.prod(outputs[0].shape)
    pieces = [value for value in operands if isinstance(value, Draw)]
    for value in operands:
        if isinstance(value, Refused):
            return [Refused(value.reason, value.equation or equation)] * len(outputs)
    if name == "random_bits":
        key, width = operands[0].code, equation.params["bit_width"]
        layout = _code(codes, "layout", key, width, outputs[0].shape)
        return [Draw(frozenset([key]), layout, _code(codes, "bits", width), width)]
    if name.startswith("random_") or any(isinstance(value, Key) for value in operands):
        if name == "broadcast_in_dim" and size > sizes[0]:
            return refuse("is drawn with copies of one key")
        if pieces or not all(_is_key(variable.dtype) for variable in outputs):
            return refuse("is drawn by an operation of unknown law")
        description = _description(equation, operands)
        return [Key(_code(codes, *description, i)) for i in range(len(outputs))]
    if not pieces:
        return _constants(equation, operands)
    draw = pieces[0]
    if len(frozenset(piece.keys for piece in pieces)) > 1 and name not in _JOINING:
        return refuse("is made of several random draws")
    if name in _MOVING and draw is operands[0] and len(pieces) == 1:
        if size > sizes[0]:
            return refuse("holds copies of one random number")
        where = _description(equation, operands[1:])
        layouts = (_code(codes, draw.layout, *where, i) for i in range(len(outputs)))
        return [draw._replace(layout=layout) for layout in layouts]
    if name in _JOINING:
        keys = frozenset().union(*(piece.keys for piece in pieces))
        if len(pieces) < len(operands) or len({piece.code for piece in pieces}) > 1:
            return refuse("is put together of pieces with different laws")
        if len(keys) < sum(len(piece.keys) for piece in pieces):
            return refuse("is put together of pieces drawn with the same key")
        layouts = (piece.layout for piece in pieces)
        layout = _code(codes, name, tuple(equation.params.items()), *layouts)
        return [draw._replace(keys=keys, layout=layout)]
    if name not in _ELEMENTWISE or len({piece.layout for piece in pieces}) > 1:
        return refuse("has entries that depend on each other")
    if any(value is draw and size > sizes[i] for i, value in enumerate(operands)):
        return refuse("holds copies of one random number")
    if any(isinstance(value, Known) and value.value.ndim for value in operands):
        return refuse("has entries with different laws")
    code = _code(codes, *_description(equation, operands))
    family = _family(equation, operands) if len(pieces) == 1 else None
    return [Draw(draw.keys, draw.layout, code, draw.width, family, equation, tuple(operands))]


def _is_key(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jax.dtypes.prng_key) or dtype == jnp.uint32  # raw key data


def _family(equation: Equation, operands: list[Any]) -> Any:
    """The law of a function of one draw, or None where the code does not tell it."""
    name, dtype = equation.name, equation.outputs[0].dtype
    (draw,) = (value for value in operands if isinstance(value, Draw))
    family, floating = draw.family, jnp.issubdtype(dtype, jnp.floating)
    if name == "bitcast_convert_type" and floating:
        return _unit_floats(draw, dtype)
    if family is None:
        return family
    if isinstance(family, distributions.Points):
        values = [family.values if value is draw else value.value for value in operands]
        return family._replace(values=_compute(equation, values))
    if name == "convert_element_type":
        return family if floating else None
    constants = [float(value.value) for value in operands if value is not draw]
    eps = float(jnp.finfo(dtype).eps) / 2 if floating else 0.0
    return distributions.transformed(name, family, operands[0] is draw, constants, eps)


def _unit_floats(draw: Draw, dtype: Any) -> Any:
    """Uniform on [1, 2): random bits as the mantissa of a number with the exponent of 1."""
    one = np.asarray(1, dtype).view(f"uint{8 * np.dtype(dtype).itemsize}")
    steps = (("or", one), ("shift_right_logical", draw.width - jnp.finfo(dtype).nmant))
    for name, constant in steps:
        if draw.operation != name:
            return None
        draw, other = draw.operands
        if not isinstance(draw, Draw) or not isinstance(other, Known) or other.value != constant:
            return None
    while draw.operation == "convert_element_type":
        (draw,) = draw.operands
    return distributions.Uniform(1.0, 2.0) if draw.operation == "random_bits" else None


def _constants(equation: Equation, operands: list[Known]) -> list[Known]:
    """An operation on constants."""
    values, outputs = [operand.value for operand in operands], equation.outputs
    if values and all(value.ndim == 0 for value in values):
        if equation.name in _ELEMENTWISE:
            return [_known(_compute(equation, values), outputs[0].dtype)]
        equal = all(value == values[0] for value in values)
        if equation.name in _MOVING or (equation.name in _JOINING and equal):
            return [operands[0]] * len(outputs)
    shapes = [atom.shape for atom in equation.inputs]
    results = _bind(equation, map(np.broadcast_to, values, shapes))
    return [_known(value, output.dtype) for value, output in zip(results, outputs, strict=True)]


def _compute(equation: Equation, values: list[np.ndarray]) -> np.ndarray:
    """An elementwise operation on constants, as the code means it: in float64."""
    dtype = equation.outputs[0].dtype
    floating = jnp.issubdtype(dtype, jnp.floating)
    rule = distributions.EXACT.get(equation.name)
    if rule is None or (equation.name == "div" and not floating):
        return _known(_bind(equation, np.broadcast_arrays(*values))[0], dtype).value
    with np.errstate(all="ignore"):
        return np.asarray(rule(*values)).astype(np.float64 if floating else dtype)


def _bind(equation: Equation, values: Iterable[Any]) -> list[np.ndarray]:
    with jax.ensure_compile_time_eval():
        arrays = [
            jnp.asarray(v, atom_dtype(a)) for v, a in zip(values, equation.inputs, strict=True)
        ]
        outputs = equation.bind(*arrays, **equation.params)
        outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
        return [np.asarray(output) for output in outputs]


_SAME = {
    *("copy", "copy_p", "random_clone", "stop_gradient", "reduce_precision"),
    *("optimization_barrier", "sharding_constraint"),
}
_ELEMENTWISE = {
    *distributions.EXACT,
    *("floor", "ceil", "round", "is_finite", "exp2", "cbrt", "integer_pow", "rem", "clamp"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "atan2", "logistic", "erfc", "erf_inv"),
    *("sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "lgamma", "digamma", "polynomial"),
    *("not", "and", "or", "xor", "shift_left", "shift_right_logical"),
    *("shift_right_arithmetic", "bitcast_convert_type", "population_count", "clz"),
}
_MOVING = {
    *("reshape", "transpose", "squeeze", "broadcast_in_dim", "expand_dims", "rev"),
    *("slice", "dynamic_slice", "split", "unstack"),
}
_JOINING = ("concatenate", "stack")
