"""What elementwise operations make of fields: one function of one field, sums, and products."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ntkflow.kernels.infinite.expectations import as_function
from ntkflow.kernels.infinite.fields import (
    ChannelSum,
    Function,
    Known,
    Mapped,
    Node,
    Noise,
    Parameter,
    Phi,
    Probe,
    Product,
    Scale,
    Sum,
    Unfollowed,
    number,
)
from ntkflow.kernels.infinite.values import Axis, Value, unify

# Primitives that act entry by entry, whatever they compute.
ELEMENTWISE = frozenset(
    [
        *("abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2"),
        *("atanh", "bitcast_convert_type", "cbrt", "ceil", "clamp", "convert_element_type", "copy"),
        *("cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1"),
        *("floor", "ge", "gt", "integer_pow", "is_finite", "le", "lgamma", "log", "log1p"),
        *("logistic", "lt", "max", "min", "mul", "ne", "neg", "nextafter", "not", "or"),
        *("polynomial", "pow", "reduce_precision", "rem", "round", "rsqrt", "select_n"),
        *("shift_left", "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh"),
        *("sqrt", "square", "sub", "tan", "tanh", "xor"),
    ]
)


def apply(name: str, bind: Callable, params: dict[str, Any], values: Sequence[Value]) -> Value:
    """One elementwise operation on values, some of which are random."""
    nodes, axes = unify(values)
    for value in values:
        _refuse_shared(value, axes)
    node = _apply(name, lambda *arrays: bind(*arrays, **params), params, nodes)
    node.shared = node.shared or any(_is_shared(value, axes) for value in values)
    return Value(node, axes)


def _is_shared(value: Value, axes: Sequence[Axis]) -> bool:
    """Whether a random value is the same for all channels. Scores of attention do not count:
    their limit is that of many heads, of which a network may have one."""
    if value.node.certain or all(key[0] == "sum over channels" for key in value.node.leaves):
        return False
    counts = _channel_counts(value, axes)
    return bool(counts) and all(own == 1 for own, _ in counts)


def _refuse_shared(value: Value, axes: Sequence[Axis]) -> None:
    """Refuse parameters that many channels share: what they add to the NTK has no limit."""
    leaves = value.node.leaves
    if not leaves or not all(key[0] == "parameter" for key in leaves):
        return
    if any(own < common for own, common in _channel_counts(value, axes)):
        raise Unfollowed(
            "a parameter that all channels share, such as a trained scalar: what it adds to the "
            "NTK stays random at any width"
        )


def _channel_counts(value: Value, axes: Sequence[Axis]) -> list[tuple[int, int]]:
    """Along each axis with channels: how many entries a value has of its own, and channels."""
    aligned = [*[()] * (len(axes) - len(value.axes)), *value.axes]

    def count(axis: Axis, *kinds: str) -> int:
        return math.prod(f.size for f in axis if f.kind in kinds)

    counts = (
        (count(own, "channel", "any"), count(common, "channel"))
        for own, common in zip(aligned, axes, strict=True)
    )
    return [(own, channels) for own, channels in counts if channels > 1]


def _apply(name: str, operation: Callable, params: dict[str, Any], nodes: list[Node]) -> Node:
    match name, nodes:
        case ("convert_element_type", [node]) if not _is_noise(node) and is_floating(
            params["new_dtype"]
        ):
            return node  # precision of the network's own arithmetic does not enter
        case ("copy" | "reduce_precision", [node]):
            return node
        case ("neg", [node]):
            return scale(node, number(-1.0, len(node.shape)))
        case ("add" | "add_any", [a, b]):
            return add(a, b)
        case ("sub", [a, b]):
            return add(a, scale(b, number(-1.0, len(b.shape))))
        case ("mul", [a, b]):
            return multiply(a, b)
        case ("div", [a, Known() as b]):
            return multiply(a, _reciprocal(b))
        case ("square", [a]):
            return multiply(a, a)
        case ("integer_pow", [a]) if params["y"] == 2:
            return multiply(a, a)
        case ("select_n", [which, a, b]) if isinstance(which, Known) or (
            _is_noise(which) and not _same_base(nodes)
        ):
            chosen = _function_of(which, lambda w: w.astype(float))
            other = _function_of(which, lambda w: 1 - w.astype(float))
            return add(multiply(chosen, b), multiply(other, a))
    return compose(operation, nodes)


def _function_of(node: Node, phi: Phi) -> Node:
    return combine(phi, [node]) if isinstance(node, Known) else compose(phi, [node])


def add(a: Node, b: Node) -> Node:
    """a + b: Gaussian where both are, one function where both are functions of one field."""
    if isinstance(a, Known) and isinstance(b, Known):
        return combine(jnp.add, [a, b])
    for known, node in ((a, b), (b, a)):
        if isinstance(known, Known) and known.scalar == 0:
            return node
        if isinstance(known, Known) and known.scalar is not None and base_of(node) is not None:
            base, shift = split_shift(node)
            if shift is not None:
                return shifted(base, shift + known.scalar)
            return compose(jnp.add, [a, b])
    (base1, shift1), (base2, shift2) = split_shift(a), split_shift(b)
    if base1.gaussian and base2.gaussian and shift1 is not None and shift2 is not None:
        return shifted(Sum((base1, base2)), shift1 + shift2)
    if _same_base([a, b]):
        return compose(jnp.add, [a, b])
    return Sum((a, b))


def shifted(base: Node, shift: float) -> Node:
    """base + shift."""
    return base if shift == 0 else Function(lambda x: x + shift, base, shift)


def split_shift(node: Node) -> tuple[Node, float | None]:
    """A Gaussian node and the number added to it; (node, None) where it is none of that kind."""
    if node.gaussian:
        return node, 0.0
    if isinstance(node, Function) and node.shift is not None:
        return node.base, node.shift
    return node, None


def scale(node: Node, known: Known) -> Node:
    """A node times known numbers."""
    if isinstance(node, Known):
        return combine(jnp.multiply, [node, known])
    if known.scalar == 1:
        return node
    if known.scalar == 0:
        return number(0.0, len(node.shape))
    if isinstance(node, ChannelSum) and known.scalar is not None:
        factor = node.scale * known.scalar
        return ChannelSum(node.key, node.source, node.count, node.whole, factor)
    if isinstance(node, Sum) and any(isinstance(term, ChannelSum) for term in node.terms):
        return Sum(tuple(scale(term, known) for term in node.terms))
    if isinstance(node, Function) and known.scalar is not None:
        factor = known.scalar
        return compose(lambda x: x * factor, [node])
    return Scale(known, node)


def multiply(a: Node, b: Node) -> Node:
    """a · b: of a known number, of one field with itself, of a scale that trains, of fields."""
    for known, node in ((a, b), (b, a)):
        if isinstance(known, Known):
            return scale(node, known)
    if _same_base([a, b]):
        return compose(jnp.multiply, [a, b])
    for parameter, node in ((a, b), (b, a)):
        if parameter.certain and not node.certain:
            # y (μ + δ) = μ y + y δ, where δ is zero but for its derivative
            value = known_part(parameter)
            scaled = scale(node, value)
            probe = Probe(node, parameter)
            return probe if value.scalar == 0 else Sum((scaled, probe))
    factors = [*(a.factors if isinstance(a, Product) else (a,))]
    factors += b.factors if isinstance(b, Product) else (b,)
    return Product(tuple(factors))


def known_part(node: Node) -> Known:
    """The value of a node that does not vary."""
    rank = len(node.shape)
    match node:
        case Known():
            return node
        case Sum():
            parts = [known_part(term) for term in node.terms]
            total = parts[0]
            for part in parts[1:]:
                total = combine(jnp.add, [total, part])
            return total
        case Scale():
            return combine(jnp.multiply, [node.known, known_part(node.node)])
        case Function() if node.base.certain and not isinstance(node.base, Noise):
            return combine(node.phi, [known_part(node.base)])
        case Mapped(known=None):
            parts = [known_part(inner) for inner in node.nodes]
            if node.map.relabels and len(parts) == 1 and parts[0].scalar is not None:
                return number(parts[0].scalar, rank)
            values = []
            for side in range(max(len(part.values) for part in parts)):
                pairs = zip(parts, node.map.shapes, strict=True)
                whole = [jnp.broadcast_to(k.of(side), (len(k.of(side)), *n)) for k, n in pairs]
                values.append(node.map.function(*whole))
            return Known(tuple(values))
        case Parameter() | Probe():
            return number(0.0, rank)
        case _ if node.centered:
            return number(0.0, rank)
    raise Unfollowed("a product with a parameter, after an operation on it", node.origin)


def combine(operation: Callable, knowns: Sequence[Known]) -> Known:
    """An elementwise operation on numbers; concrete ones stay concrete."""
    if all(k.scalar is not None for k in knowns):
        rank = max(len(k.shape) for k in knowns)
        with jax.ensure_compile_time_eval():
            result = operation(*(jnp.asarray(k.scalar) for k in knowns))
            return number(result.item(), rank)
    values = []
    for side in range(max(len(k.values) for k in knowns)):
        arrays = [k.of(side) for k in knowns]
        values.append(operation(*jnp.broadcast_arrays(*arrays)))
    return Known(tuple(values))


def _reciprocal(known: Known) -> Known:
    return combine(lambda x: 1 / x, [known])


def base_of(node: Node) -> Node | None:
    """What the node is a function of: a Gaussian node of itself."""
    if isinstance(node, Function):
        return node.base
    return node if node.gaussian or isinstance(node, Noise) else None


def _is_noise(node: Node) -> bool:
    """Whether the node is a function of random bits."""
    return isinstance(base_of(node), Noise)


def _same_base(nodes: Sequence[Node]) -> bool:
    bases = [
        base_of(node) for node in nodes if not (isinstance(node, Known) and node.scalar is not None)
    ]
    roots = [None if base is None else root(base)[0] for base in bases]
    return roots[0] is not None and all(other is roots[0] for other in roots)


def root(node: Node) -> tuple[Node, float]:
    """A node without the numbers that it is multiplied with, and their product."""
    factor = 1.0
    while isinstance(node, Scale) and node.known.scalar is not None:
        factor, node = factor * node.known.scalar, node.node
    return node, factor


def compose(operation: Callable, nodes: Sequence[Node]) -> Node:
    """One function of the one field that all nodes are functions of."""
    random = [n for n in nodes if not isinstance(n, Known)]
    if any(isinstance(n, Known) and n.scalar is None for n in nodes):
        raise Unfollowed("a nonlinear function of a field and of numbers that differ by sample")
    if any(base_of(n) is None for n in random):
        raise Unfollowed(
            "a nonlinear function of what is no Gaussian field: of a sum or average of "
            "activations, of a product, of noise or parameters that are not normal, or of what "
            "contains a random number that all channels share"
        )
    if not _same_base(random):
        raise Unfollowed("a nonlinear function of two different fields")
    # The field as it stands, rather than as it stands inside of another function: the function
    # that is left has more often a name.
    base = base_of(next((n for n in random if n.gaussian), random[0]))
    assert base is not None
    factor = root(base)[1]
    phis = [_as_function_of(n, factor) for n in nodes]

    def phi(x):
        return operation(*_like(x, [p(x) if callable(p) else p for p in phis]))

    return Function(phi, base)


def _as_function_of(node: Node, factor: float) -> Phi | float:
    """A node as a function of its root times `factor`."""
    if isinstance(node, Known):
        assert node.scalar is not None
        return node.scalar
    inner, base = as_function(node)
    ratio = root(base)[1] / factor
    return inner if ratio == 1 else lambda x: inner(ratio * x)


def _like(x, arrays):
    """Numbers in the shape and dtype of the arrays that they stand beside."""
    dtypes = [a.dtype for a in arrays if hasattr(a, "dtype")]
    dtype = jnp.result_type(*dtypes) if dtypes else x.dtype
    result = []
    for a in arrays:
        if not hasattr(a, "dtype"):
            a = jnp.full(x.shape, a, bool if isinstance(a, bool) else dtype)
        result.append(a)
    kinds = {a.dtype for a in result if a.dtype != jnp.bool_}
    if len(kinds) > 1:
        common = jnp.result_type(*kinds)
        result = [a if a.dtype == jnp.bool_ else a.astype(common) for a in result]
    return result


def is_floating(dtype: Any) -> bool:
    """Whether it is a floating-point type."""
    return jnp.issubdtype(dtype, jnp.floating)
