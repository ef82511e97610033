"""infinite_width: the limits of a network's kernels, from the network itself."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels import elementwise
from ntkflow.kernels.fields import (
    ChannelSum,
    Known,
    Node,
    Noise,
    Parameter,
    Sum,
    Unfollowed,
    number,
)
from ntkflow.kernels.jaxprs import Constant, Equation, Program, location, trace
from ntkflow.kernels.laws import laws
from ntkflow.kernels.moments import Moments
from ntkflow.kernels.recursion import Kernels
from ntkflow.kernels.rules import RULES, STRUCTURAL, Context
from ntkflow.kernels.values import Factor, Value, known_value, materialized
from ntkflow.kernels.views import View
from ntkflow.parameters import Predicate, path_names


class _Key:
    """A PRNG key, of which only what it draws matters."""


def infinite_width(module: Any, *, trainable: Predicate | None = None) -> Callable[..., Kernels]:
    init, apply = functions_of(module)

    @jax.jit
    def evaluate(x1, x2):
        sides = (x1,) if x2 is None else (x1, x2)
        return _limit(init, apply, trainable, sides)

    def kernel(x1: ArrayLike, x2: ArrayLike | None = None) -> Kernels:
        x1 = jnp.asarray(x1)
        x2 = None if x2 is None else jnp.asarray(x2)
        checks.same_length(x1=x1)
        checks.finite("x1", x1)
        if x2 is not None:
            checks.same_length(x2=x2)
            checks.finite("x2", x2)
            if x1.shape[1:] != x2.shape[1:]:
                raise ValueError(
                    f"x1 has shape {x1.shape} and x2 {x2.shape}; expected samples of one shape."
                )
        return evaluate(x1, x2)

    return kernel


def functions_of(module: Any) -> tuple[Callable, Callable]:
    """`(init(key, x), apply(params, x, key))` of a Flax module or of a pair."""
    if isinstance(module, nn.Module):
        return (
            lambda key, x: module.init({"params": key, "dropout": key}, x),
            lambda params, x, key: module.apply(params, x, rngs={"dropout": key}),
        )
    if isinstance(module, tuple) and len(module) == 2 and all(map(callable, module)):
        init, apply = module
        return init, lambda params, x, key: apply(params, x)
    raise ValueError(
        f"module is {type(module).__name__}; expected a Flax module or a pair of functions "
        "(init(key, x) -> params, apply(params, x))."
    )


def _limit(init, apply, trainable, sides) -> Kernels:
    dtype = jnp.result_type(*sides)
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.result_type(float)
    sample = jax.ShapeDtypeStruct((1, *sides[0].shape[1:]), jnp.result_type(*sides))
    key = jax.eval_shape(lambda: jax.random.key(0))
    params = jax.eval_shape(init, key, sample)
    program = trace(apply, params, sample, key)
    output = _walk(program, _parameters(params, laws(init, key, sample), trainable), sides, dtype)
    return output


def _parameters(params, found, trainable) -> list[Value]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    collections = isinstance(params, dict) and isinstance(params.get("params"), dict)
    values = []
    for (path, leaf), law in zip(leaves, jax.tree.leaves(found, is_leaf=_is_law), strict=True):
        names = path_names(path)
        trains = True
        if collections:
            trains, names = names[0] == "params", names[1:]
        trains = trains and (trainable is None or bool(trainable(names)))
        axes = tuple((Factor(n, "any"),) if n > 1 else () for n in leaf.shape)
        node: Node = Parameter(path_names(path), (), law.normal, law.variance, float(trains))
        if law.variance == 0 and not trains:
            constant = tuple(
                tuple(f._replace(kind="constant") for f in axis) for axis in axes
            )
            values.append(Value(number(law.mean), constant))
            continue
        if law.mean:
            node = Sum((number(law.mean), node))
        values.append(Value(node, axes))
    return values


def _is_law(x):
    return hasattr(x, "variance")


def _walk(program: Program, parameters: list[Value], sides, dtype) -> Kernels:
    context = Context(Moments(tuple(len(x) for x in sides), dtype))
    values: dict[Any, Any] = {}
    inputs = [*parameters, known_value([x[:, None] for x in sides]), _Key()]
    values.update(zip(program.inputs, inputs, strict=True))
    for equation in program.equations:
        operands = [
            _constant(atom.value) if isinstance(atom, Constant) else values[atom]
            for atom in equation.inputs
        ]
        results = _step(context, equation, operands)
        for v in results:
            if isinstance(v, Value) and v.node.origin is None:
                v.node.origin = equation
        for v, variable in zip(results, equation.outputs, strict=True):
            assert not isinstance(v, Value) or v.shape == variable.shape, (equation.name, v, variable.shape)
        values.update(zip(equation.outputs, results, strict=True))
    (out,) = program.outputs
    value = values[out]
    moments = context.moments
    view = View(0, len(sides) - 1, paired=False, full=False)
    n1, n2 = len(sides[0]), len(sides[-1])
    nngp = moments.second(value.node, value.node, view)
    ntk = moments.tangent(value.node, value.node, view)

    def whole(k):
        return jnp.broadcast_to(jnp.zeros((), dtype) if k is None else k, (n1, n2))

    nngp, ntk = whole(nngp), whole(ntk)
    if len(sides) == 1:
        nngp, ntk = (nngp + nngp.T) / 2, (ntk + ntk.T) / 2
    return Kernels(nngp, ntk)


def _constant(array) -> Value:
    shape = np.shape(array)
    if np.size(array) == 1:
        with jax.ensure_compile_time_eval():
            item = np.asarray(array).item()
        return Value(number(item), tuple(() for _ in shape))
    return known_value((jnp.asarray(array)[None],))


def _step(context: Context, equation: Equation, operands: list[Any]) -> list[Any]:
    name, params = equation.name, equation.params
    if any(isinstance(o, _Key) for o in operands):
        if name == "random_bits":
            return [_bits(context, params)]
        return [_Key() for _ in equation.outputs]
    operands = [_resolved(o, name) for o in operands]
    rule = RULES.get(name)
    if all(o.known for o in operands) and name not in STRUCTURAL:
        return _evaluate(equation, operands)
    if name in elementwise.ELEMENTWISE:
        return [elementwise.apply(name, equation.bind, params, operands)]
    if rule is None:
        raise Unfollowed(f"the operation {name}")
    result = rule(context, params, *operands)
    return result if isinstance(result, list) else [result]


def _bits(context, params):
    key = context.new("bits")
    axes = tuple((Factor(n, "any"),) if n > 1 else () for n in params["shape"])
    return Value(Noise(key, (), params["bit_width"]), axes)


def _resolved(value: Value, name: str) -> Value:
    node = value.node
    if isinstance(node, ChannelSum) and node.vanishes and name not in ("mul", "div", *STRUCTURAL):
        return value._replace(node=number(0.0, len(node.shape)))
    return value


def _evaluate(equation: Equation, operands: list[Value]) -> list[Value]:
    """An operation on numbers alone."""
    if equation.name in elementwise.ELEMENTWISE:
        from ntkflow.kernels.values import unify

        nodes, axes = unify(operands)
        return [
            Value(
                elementwise.combine(
                    lambda *arrays: equation.bind(*_cast(arrays, equation), **equation.params), nodes
                ),
                axes,
            )
        ]
    arrays = [materialized(o) for o in operands]
    results = []
    for side in range(max(map(len, arrays))):
        own = [a[min(side, len(a) - 1)] for a in arrays]
        n = max(len(a) for a in own)
        mapped = [0 if len(a) == n and n > 1 else None for a in own]
        own = [a if m == 0 else a[0] for a, m in zip(own, mapped)]

        def bind(*xs):
            out = equation.bind(*xs, **equation.params)
            return out if isinstance(out, list | tuple) else [out]

        if any(m == 0 for m in mapped):
            out = jax.vmap(bind, mapped)(*own)
        else:
            out = [r[None] for r in bind(*own)]
        results.append(out)
    return [known_value(list(arrays)) for arrays in zip(*results)]


def _cast(arrays, equation):
    return arrays
