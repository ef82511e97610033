"""The tangent kernel of the node-scaled network and its third-order kernel, against autodiff."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled, samples

from ntkflow.kernels.derivative import ntk_time_derivative, third_order_kernel as by_autodiff
from ntkflow.kernels.empirical import empirical_ntk
from ntkflow.systems.node_scaling import (
    NodeScaledNetwork,
    gram,
    node_scales,
    predict,
    third_order_kernel,
    zipf,
)
from ntkflow.training.losses import squared_loss

D, M, GAMMA = 3, 6, 0.4
SCALES = node_scales(zipf(M, 0.5), GAMMA)


@functools.cache
def setup(outputs=None, output="fixed", activation=jnp.tanh, dtype="float64"):
    module = NodeScaledNetwork(SCALES, outputs, activation, output)
    shape = (M,) if outputs is None else (M, outputs)
    # Trained outputs are no signs after a step.
    draw = samples(1, *shape, dtype=dtype)
    fixed = {"output": jnp.sign(draw), "scales": SCALES.astype(dtype)}
    params = {"kernel": samples(2, D, M, dtype=dtype)}
    if output == "trained":
        params["output"] = fixed.pop("output") * jnp.abs(draw)
    return module, {"params": params, "fixed": fixed}


@pytest.mark.quick
@pytest.mark.parametrize(
    ("outputs", "output", "activation"),
    [
        (None, "fixed", jax.nn.relu),
        (None, "trained", jnp.tanh),
        (3, "fixed", jax.nn.swish),
        (3, "trained", jax.nn.relu),
    ],
)
def test_the_closed_form_is_the_empirical_ntk(outputs, output, activation):
    module, variables = setup(outputs, output, activation)
    x1, x2 = samples(3, 5, D), samples(4, 2, D)
    kernel = empirical_ntk(module.apply)

    @compiled
    def kernels(v):
        pairs = [(x1, None), (x1, x2)]
        return [(gram(v, *pair, activation=activation), kernel(v, *pair)) for pair in pairs]

    (symmetric, expected), other = kernels(variables)
    for closed, autodiff in ((symmetric, expected), other):
        assert closed.shape == autodiff.shape
        np.testing.assert_allclose(closed, autodiff, rtol=0, atol=1e-12)
    swapped = symmetric.T if outputs is None else symmetric.transpose(1, 0, 3, 2)
    assert (symmetric == swapped).all()


def test_the_parts_add_up(dtype):
    _, variables = setup(dtype=dtype)
    x = samples(3, 5, D, dtype=dtype)
    parts = ("whole", "uniform", "asymmetric")
    whole, uniform, asymmetric = compiled(
        lambda v: [gram(v, x, activation=jnp.tanh, part=part, gamma=GAMMA) for part in parts]
    )(variables)
    assert whole.dtype == dtype
    assert_close(uniform + asymmetric, whole)
    x, kernel = (np.asarray(leaf, float) for leaf in (x, variables["params"]["kernel"]))
    steps = 1 - np.tanh(x @ kernel / D**0.5) ** 2
    equal = np.full(M, GAMMA / M)
    for part, scales in ((uniform, equal), (asymmetric, np.asarray(SCALES) - equal)):
        expected = (steps * scales) @ steps.T * (x @ x.T) / D
        assert_close(part, expected.astype(dtype))
        assert np.linalg.eigvalsh(part)[0] >= -100 * np.finfo(dtype).eps


@pytest.mark.parametrize("activation", [jnp.tanh, jax.nn.relu])
def test_the_third_order_kernel_is_that_of_the_hierarchy(activation):
    module, variables = setup(activation=activation)
    x1, x2, x3 = samples(3, 3, D), samples(4, 2, D), samples(5, 4, D)
    theta = empirical_ntk(module.apply)
    closed = functools.partial(third_order_kernel, activation=activation)

    @compiled
    def kernels(v):
        both = [closed(v, x1, x2, x3, printed=printed) for printed in (False, True)]
        return by_autodiff(theta, module.apply)(v, x1, x2, x3), *both

    expected, corrected, printed = kernels(variables)
    assert expected.shape == (3, 2, 4)
    if activation is jax.nn.relu:
        assert not np.any(expected)
    assert_close(corrected, expected, scale=1.0)
    # The paper's power of d is off by √d.
    assert_close(printed, expected * D**0.5, scale=1.0)


def test_the_third_order_kernel_moves_the_kernel_under_the_flow():
    module, variables = setup()
    x, y = samples(3, 4, D), samples(4, 4)
    loss = squared_loss(module.apply)
    velocity = ntk_time_derivative(empirical_ntk(module.apply), loss)

    @compiled
    def both(v):
        cube = third_order_kernel(v, x, None, x, activation=jnp.tanh)
        return velocity(v, (x, y), x), -cube @ (predict(v, x, jnp.tanh) - y)

    assert_close(*both(variables))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v, x: gram(v, x, activation=jnp.tanh, part="half"), "part is 'half'; expected"),
        (lambda v, x: gram(v, x, activation=jnp.tanh, part="uniform"), "gamma is None; expected"),
        (
            lambda v, x: gram(v, x, activation=jnp.tanh, part="asymmetric", gamma=0.6),
            "gamma is 0.6, but the smallest scale is .* < γ/m",
        ),
        (
            lambda v, x: gram(v, x, activation=jnp.tanh, part="uniform", gamma=jnp.ones(6)),
            "gamma has shape \\(6,\\); expected one number",
        ),
        (lambda v, x: gram(v, x, jnp.ones((1, 2)), activation=jnp.tanh), "expected the same"),
        (
            lambda v, x: third_order_kernel(setup(3)[1], x, None, x, activation=jnp.tanh),
            "about one output and a fixed output layer",
        ),
        (
            lambda v, x: third_order_kernel(
                setup(output="trained")[1], x, None, x, activation=jnp.tanh
            ),
            "about one output and a fixed output layer",
        ),
    ],
)
def test_mistakes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(setup()[1], jnp.ones((2, D)))
