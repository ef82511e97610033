"""The node-scaled network and its gradient, against the formula and autodiff."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled, samples

from ntkflow.systems.node_scaling import (
    NodeScaledNetwork,
    hidden,
    node_scales,
    preactivations,
    predict,
    slopes,
    weight_gradient,
    weights,
    zipf,
)
from ntkflow.training.losses import squared_loss

N, D, M = 4, 3, 6


def scales_of(gamma=0.5, m=M, dtype="float64"):
    return _scales_of(m, np.asarray(0.5, dtype), gamma)


@functools.partial(compiled, static_argnums=0)
def _scales_of(m, alpha, gamma):
    return node_scales(zipf(m, alpha), gamma)


@functools.cache
def setup(outputs=None, output="fixed", activation=jax.nn.relu, dtype="float64"):
    """The module and variables that its init could have drawn, without compiling it."""
    module = NodeScaledNetwork(
        scales_of(dtype=dtype), outputs, activation, output, param_dtype=jnp.dtype(dtype)
    )
    shape = (M,) if outputs is None else (M, outputs)
    leaves = {"output": jnp.sign(samples(1, *shape, dtype=dtype)), "scales": module.scales}
    params = {"kernel": samples(2, D, M, dtype=dtype)}
    if output == "trained":
        params["output"] = leaves.pop("output")
    return module, {"params": params, "fixed": leaves}


@pytest.mark.quick
@pytest.mark.parametrize("outputs", [None, 2])
def test_forward_is_equation_2(outputs, dtype):
    module, variables = setup(outputs, dtype=dtype)
    x = samples(3, N, D, dtype=dtype)
    w, a, scales = (np.asarray(leaf, float) for leaf in weights(variables))
    expected = np.zeros((N, *a.shape[1:]))
    for i, row in enumerate(np.asarray(x, float)):
        for j in range(M):
            expected[i] += scales[j] ** 0.5 * a[j] * max(w[:, j] @ row / D**0.5, 0)

    @compiled
    def everything(v):
        found = [f(v, x, jax.nn.relu) for f in (predict, hidden, slopes)]
        return module.apply(v, x), *found, preactivations(v, x)

    outputs_, predicted, features, steps, z = everything(variables)
    assert outputs_.dtype == dtype
    assert_close(outputs_, expected.astype(dtype))
    assert_close(predicted, outputs_)
    assert_close(features @ jnp.asarray(a, dtype), outputs_)
    assert (steps == (z > 0)).all()


@pytest.mark.parametrize("outputs", [None, 2])
@pytest.mark.parametrize("activation", [jax.nn.relu, jax.nn.swish])
def test_the_gradient_by_hand_is_that_of_the_loss(outputs, activation):
    module, variables = setup(outputs, activation=activation)
    x = samples(3, N, D)
    y = samples(4, N) if outputs is None else samples(4, N, outputs)
    loss = squared_loss(module.apply)

    @compiled
    def both(v):
        expected = jax.grad(lambda p: loss({**v, "params": p}, (x, y)))(v["params"])
        return weight_gradient(v, x, y, activation), expected["kernel"]

    assert_close(*both(variables))


def test_init_draws_what_the_paper_says():
    def draw(key, gamma):
        scales = node_scales(zipf(4000, 0.5), gamma)
        variables = NodeScaledNetwork(scales, 2, variance=2.0).init(key, jnp.ones((1, D)))
        return variables, scales

    gammas = jnp.array([0.2, 1.0])
    fixed, given = compiled(jax.vmap(draw, (None, 0)))(jax.random.key(0), gammas)
    fixed, given = jax.device_get((fixed, given))
    assert sorted(fixed["fixed"]) == ["output", "scales"]
    trained = NodeScaledNetwork(scales_of(), output="trained")
    shapes = jax.eval_shape(lambda key: trained.init(key, jnp.ones((1, D))), jax.random.key(0))
    assert jax.tree.map(jnp.shape, shapes["params"]) == {"kernel": (D, M), "output": (M,)}
    for leaf in (fixed["params"]["kernel"], fixed["fixed"]["output"]):
        assert (leaf[0] == leaf[1]).all()  # one key, the same weights for every λ
    assert_close(fixed["fixed"]["scales"], given)
    kernel, signs = np.asarray(fixed["params"]["kernel"][0]), fixed["fixed"]["output"][0]
    assert abs(kernel.mean()) < 4 * (2 / kernel.size) ** 0.5
    assert abs(kernel.var() / 2 - 1) < 4 * (2 / kernel.size) ** 0.5
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert abs(signs.mean()) < 4 / signs.size**0.5


def test_settings_and_seeds_are_one_program():
    x, y = samples(3, N, D), samples(4, N)

    def experiment(seed, gamma, alpha):
        module = NodeScaledNetwork(node_scales(zipf(M, alpha), gamma), activation=jnp.tanh)
        variables = module.init(jax.random.key(seed), x)
        loss = squared_loss(module.apply)
        gradient = jax.grad(lambda p: loss({**variables, "params": p}, (x, y)))
        by_hand = weight_gradient(variables, x, y, jnp.tanh)
        return variables, gradient(variables["params"])["kernel"], by_hand

    settings = (jnp.arange(3), jnp.array([0.0, 0.5, 1.0]), jnp.array([0.4, 0.7, 0.5]))
    (variables, gradients, by_hand), one = compiled(
        lambda *columns: (jax.vmap(experiment)(*columns), experiment(*(c[1] for c in columns)))
    )(*settings)
    assert_close(gradients, by_hand)
    assert_close(gradients[1], one[1])
    _, gammas, alphas = (np.asarray(column)[:, None] for column in settings)
    tilde = np.arange(1, M + 1)[None, :] ** (-1 / alphas)
    expected = gammas / M + (1 - gammas) * tilde / tilde.sum(axis=1, keepdims=True)
    assert_close(variables["fixed"]["scales"], expected)


def test_a_constant_may_stand_in_a_trace():
    variance = jnp.asarray(2.0)
    module = NodeScaledNetwork(scales_of(), variance=variance)
    drawn = jax.eval_shape(lambda x: module.init(jax.random.key(0), x), jnp.ones((1, D)))
    assert drawn["params"]["kernel"].shape == (D, M)


def test_a_step_costs_little_beyond_its_two_products():
    n, d, m = 20, 8, 64
    module = NodeScaledNetwork(scales_of(m=m))
    x, y = samples(3, n, d), samples(4, n)
    fixed = {"output": jnp.ones(m), "scales": module.scales}
    loss = squared_loss(module.apply)
    gradient = jax.grad(lambda kernel: loss({"params": {"kernel": kernel}, "fixed": fixed}, (x, y)))
    step = jax.jit(gradient).lower(jnp.ones((d, m))).compile()
    cost = step.cost_analysis()
    two_products = 2 * 2 * n * d * m
    # Beside them, some operations for each of the n m hidden values.
    assert cost["flops"] < two_products + 12 * n * m
    assert "transpose(" not in step.as_text().split("ENTRY")[1].replace("/transpose(", "")


def variables_like(kernel_shape):
    return {
        "params": {"kernel": jnp.ones(kernel_shape)},
        "fixed": {"output": jnp.ones(M), "scales": scales_of()},
    }


def initialize(scales, x=None, **choices):
    x = jnp.ones((1, D)) if x is None else x
    return NodeScaledNetwork(scales, **choices).init(jax.random.key(0), x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: initialize(zipf(M, 0.5)), "sum 0.9.*; expected 1, as in \\(9\\): .*node_scales"),
        (lambda: initialize(jnp.array([1.5, -0.5])), "scales hold -0.5; expected λ_j ≥ 0"),
        (lambda: initialize(jnp.ones((2, 3))), "scales have shape \\(2, 3\\)"),
        (lambda: initialize(scales_of(), output="both"), "output is 'both'; expected one of"),
        (lambda: initialize(scales_of(), outputs=0), "outputs is 0; expected a whole number"),
        (lambda: initialize(scales_of(), variance=0.0), "variance is 0.0; expected"),
        (lambda: initialize(scales_of(), x=jnp.ones(3)), "x has shape \\(3,\\)"),
        (
            lambda: setup()[0].apply(variables_like((D + 1, M)), jnp.ones((2, D))),
            "x has shape \\(2, 3\\) and the kernel \\(4, 6\\)",
        ),
        (
            lambda: predict(variables_like((D + 1, M)), jnp.ones((2, D)), jnp.tanh),
            "x has shape \\(2, 3\\) and the kernel \\(4, 6\\)",
        ),
        (lambda: weights({"params": {}}), "Expected the variables of a NodeScaledNetwork"),
        (
            lambda: weight_gradient(setup()[1], jnp.ones((2, D)), jnp.ones((2, 1)), jnp.tanh),
            "y has shape \\(2, 1\\) and the outputs \\(2,\\)",
        ),
    ],
)
def test_mistakes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
