"""The door to traced computations: what `trace` writes out, and where an operation stands."""

import inspect
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from ntkflow.kernels.jaxprs import Constant, Variable, location, trace

X = jax.ShapeDtypeStruct((3,), "float64")
CALLS = {"jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2", "scan"}
CALLS |= {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}


def names(program):
    return [equation.name for equation in program.equations]


def run(program, *arrays):
    """What a program computes, equation after equation."""
    values = dict(zip(program.inputs, arrays, strict=True))

    def read(atom):
        return atom.value if isinstance(atom, Constant) else values[atom]

    for equation in program.equations:
        results = equation.bind(*map(read, equation.inputs), **equation.params)
        results = results if isinstance(results, list | tuple) else [results]
        values.update(zip(equation.outputs, results, strict=True))
    return [read(atom) for atom in program.outputs]


@jax.custom_jvp
def doubled(x):
    return 2 * x


doubled.defjvp(lambda primals, tangents: (doubled(*primals), 2 * tangents[0]))


@jax.custom_vjp
def tripled(x):
    return 3 * x


tripled.defvjp(lambda x: (tripled(x), None), lambda _, g: (3 * g,))


def remembered(x):
    return jax.checkpoint(lambda x: jnp.sin(jnp.sin(x)))(x)


def nested(x):
    return jax.jit(lambda x: jax.jit(doubled)(x) + tripled(remembered(x)))(x)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (jax.jit(jnp.exp), ["exp"]),
        (doubled, ["mul"]),
        (tripled, ["mul"]),
        (remembered, ["sin", "sin"]),
        (nested, ["mul", "sin", "sin", "mul", "add"]),
        (jax.nn.relu, ["max"]),
    ],
)
def test_calls_are_written_out(function, expected):
    program = trace(function, X)
    assert names(program) == expected
    x = jnp.array([-1.0, 0.5, 2.0])
    assert jnp.allclose(run(program, x)[0], function(x), rtol=1e-15)


@pytest.mark.parametrize("reverse", [False, True])
def test_loops_are_unrolled_in_their_order(reverse):
    def loop(x, rows, weights):
        def step(carry, inputs):
            row, weight = inputs
            carry = jnp.tanh(carry + weight * row * x)
            return carry, (carry[0], carry)

        return jax.lax.scan(step, jnp.zeros(3), (rows, weights), reverse=reverse)

    rows, weights = jnp.arange(12.0).reshape(4, 3) / 5, jnp.array([1.0, -1.0, 0.5, 2.0])
    x = jnp.array([0.3, -0.2, 0.1])
    program = trace(loop, x, rows, weights)
    assert CALLS.isdisjoint(names(program))
    assert names(program).count("tanh") == 4
    expected = jax.tree.leaves(loop(x, rows, weights))
    for got, value in zip(run(program, x, rows, weights), expected, strict=True):
        assert got.shape == value.shape
        assert jnp.allclose(got, value, rtol=1e-14)


@pytest.mark.parametrize("length", [1, 3])
def test_loops_without_inputs_or_results(length):
    def loop(x):
        return jax.lax.fori_loop(0, length, lambda i, x: x * x + i, x)

    x = jnp.array([0.5, 1.0, 2.0])
    program = trace(loop, x)
    assert CALLS.isdisjoint(names(program))
    assert jnp.allclose(run(program, x)[0], loop(x), rtol=1e-14)


def test_loops_within_loops():
    def loop(rows):
        def outer(carry, row):
            inner = jax.lax.scan(lambda c, r: (c * r, c + r), carry, row)
            return inner

        return jax.lax.scan(outer, 1.0, rows)

    rows = jnp.arange(1.0, 7.0).reshape(2, 3)
    got = run(trace(loop, rows), rows)
    for value, expected in zip(got, loop(rows), strict=True):
        assert jnp.array_equal(value, expected)


def test_what_reaches_no_result_is_removed():
    def function(x, y):
        jnp.linalg.norm(jnp.exp(y))
        first, _ = jnp.sin(x), jnp.cos(x)
        return first, y

    program = trace(function, X, X)
    assert names(program) == ["sin"]
    assert program.outputs[1] is program.inputs[1]


def test_dead_results_of_a_loop_are_removed():
    def function(x):
        carry, _ = jax.lax.scan(lambda c, _: (jnp.sin(c), jnp.cos(c)), x, None, length=3)
        return carry

    assert names(trace(function, X)) == ["sin"] * 3


def test_inputs_are_leaves_and_constants_are_known():
    table = jnp.arange(3.0)
    program = trace(lambda tree: (tree["b"] + table, table, 1.0), {"a": X, "b": X})
    assert len(program.inputs) == 2
    assert all(isinstance(variable, Variable) for variable in program.inputs)
    (add,) = program.equations
    assert add.inputs[0] is program.inputs[1]
    assert add.outputs[0].shape == (3,)
    assert add.outputs[0].dtype == jnp.float64
    assert isinstance(add.inputs[1], Constant)
    assert add.inputs[1].shape == (3,)
    assert jnp.array_equal(program.outputs[1].value, table)
    assert program.outputs[2].value == 1


def line_of(function, text):
    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if text in line)


def cube(x):
    return jnp.power(x, 3)


def calls_cube(x):
    x = jnp.sin(x)
    return cube(x)


def test_location_is_a_line_of_the_users_code():
    program = trace(calls_cube, X)
    sine, power = program.equations
    line = line_of(calls_cube, "jnp.sin")
    assert location(sine).startswith(f"line {line} of {__file__}, in calls_cube")
    line = line_of(cube, "jnp.power")
    assert location(power).startswith(f"line {line} of {__file__}, in cube")


def test_location_within_jitted_functions_and_modules():
    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            return jax.jit(calls_cube)(nn.Dense(2)(x))

    network = Network()
    params = jax.eval_shape(network.init, jax.random.key(0), X)
    program = trace(network.apply, params, X)
    found = {equation.name: location(equation) for equation in program.equations}
    assert f"line {line_of(Network, 'nn.Dense')} of {__file__}" in found["dot_general"]
    assert f"line {line_of(cube, 'jnp.power')} of {__file__}, in cube" in found["integer_pow"]


def test_location_of_code_that_was_traced_before_says_from_where_it_is_called():
    shared = jax.jit(cube)

    def first(x):
        return shared(x)

    def second(x):
        return shared(x)

    jax.make_jaxpr(first)(X)
    (power,) = trace(second, X).equations
    assert re.search(
        rf"in cube, called from line {line_of(second, 'shared(x)')} of .*second$", location(power)
    )
