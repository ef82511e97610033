"""The network, its gradients by hand, and the initial scales."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled

from ntkflow.systems.shallow_smooth import (
    ShallowSmooth,
    features,
    fixed_product,
    gelu,
    gradients,
    he,
    largest_product,
    lecun,
    predict,
    weights,
)
from ntkflow.training.descent import descend
from ntkflow.training.losses import squared_loss


def normal(seed, *shape, dtype="float64"):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def initialize(seed, d_0, d_1, d_2, omega1=1.0, omega2=1.0, dtype="float64"):
    hidden = normal(seed, d_0, d_1)
    output = normal(seed + 100, d_1, d_2)
    leaves = {"hidden": omega1 * hidden, "output": omega2 * output}
    return {"params": {name: leaf.astype(dtype) for name, leaf in leaves.items()}}


@pytest.mark.quick
def test_forward_is_the_formula(dtype):
    x = 2 * normal(0, 4, 3, dtype=dtype)
    module = ShallowSmooth(6, 2, 0.7, 0.3, param_dtype=dtype)
    variables = compiled(module.init)(jax.random.key(0), x)
    hidden, output = weights(variables)
    assert hidden.shape == (3, 6)
    assert output.shape == (6, 2)
    assert hidden.dtype == output.dtype == dtype
    z = np.asarray(x, float) @ np.asarray(hidden, float)
    phi = z * np.vectorize(lambda t: math.erfc(-t / math.sqrt(2)) / 2)(z)
    expected = (phi @ np.asarray(output, float)).astype(dtype)
    found = compiled(lambda v: (module.apply(v, x), predict(v, x, gelu), features(v, x, gelu)))(
        variables
    )
    assert found[0].dtype == dtype
    assert_close(found[0], expected)
    assert_close(found[1], expected)
    assert_close(found[2], phi.astype(dtype))


def test_weights_are_normal_with_deviations_that_may_be_traced():
    """One program draws and applies networks of many scales, as a study does."""
    x, scales = jnp.ones((1, 2)), jnp.array([[0.1, 2.0], [0.5, 0.02], [1.5, 1.0]])

    @jax.vmap
    def draw(pair):
        module = ShallowSmooth(10_000, 1, pair[0], pair[1])
        variables = module.init(jax.random.key(1), x)
        return weights(variables), module.apply(variables, x)

    alone = ShallowSmooth(10_000, 1, 0.5, 0.02)
    init = lambda: weights(alone.init(jax.random.key(1), x))[0]  # noqa: E731
    ((hidden, output), outputs), expected = compiled(lambda s: (draw(s), init()))(scales)
    assert outputs.shape == (3, 1, 1)
    assert_close(hidden[1], expected)  # traced numbers draw what numbers do
    for leaf, omega in ((hidden, scales[:, 0]), (output, scales[:, 1])):
        values = np.asarray(leaf).reshape(3, -1) / np.asarray(omega)[:, None]
        assert (abs(values.mean(axis=1)) < 4 / values.shape[1] ** 0.5).all()
        assert (abs(values.var(axis=1) - 1) < 4 * (2 / values.shape[1]) ** 0.5).all()


@pytest.mark.parametrize(("activation", "dtype"), [(gelu, "float64"), (jnp.tanh, "float32")])
def test_gradients_by_hand_are_those_of_the_loss(activation, dtype):
    x, y = normal(1, 5, 3, dtype=dtype), normal(2, 5, 2, dtype=dtype)
    variables = initialize(3, 3, 7, 2, 0.8, 0.4, dtype)
    loss = squared_loss(ShallowSmooth(7, 2, activation=activation).apply, "sum")
    found, expected = compiled(
        lambda v: (gradients(v, x, y, activation), jax.grad(loss)(v, (x, y)))
    )(variables)
    jax.tree.map(assert_close, found, expected)


def test_training_moves_both_layers():
    x, y, variables = normal(4, 5, 3), normal(5, 5, 1), initialize(6, 3, 20, 1, 1.0, 0.2)
    module = ShallowSmooth(20)
    run = descend(squared_loss(module.apply, "sum"), optax.sgd(0.005), steps=20)
    result = compiled(run)(variables, (x, y))
    assert result.history["loss"][-1] < result.history["loss"][0]
    moved = jax.tree.map(lambda a, b: bool((a != b).all()), variables, dict(result.params))
    assert moved == {"params": {"hidden": True, "output": True}}


def test_he_is_the_default_and_has_the_product_of_the_experiment():
    scales = he(784, 1000)
    assert float(f"{scales.omega1 * scales.omega2:.7f}") == 0.0022588
    assert round(scales.omega2 / scales.omega1, 3) == 0.885
    module, given = ShallowSmooth(50), ShallowSmooth(50, 1, *he(3, 50))
    drawn = compiled(lambda key: [m.init(key, jnp.ones((1, 3))) for m in (module, given)])
    jax.tree.map(assert_close, *drawn(jax.random.key(2)))
    for found, gain in ((he(3, 50), 2), (lecun(3, 50), 1)):
        assert found.omega1**2 * 3 == pytest.approx(gain)
        assert found.omega2**2 * 50 == pytest.approx(gain)


def test_family_of_one_product():
    omega2 = jnp.geomspace(0.002, 0.1, 10)
    scales = fixed_product(0.002259, omega2)
    assert_close(scales.omega1 * scales.omega2, np.full(10, 0.002259))
    assert round(float(scales.omega1[0]), 4) == 1.1295
    assert round(float(scales.omega1[-1]), 5) == 0.02259


def test_largest_product():
    assert largest_product(784, 1000).value * 2 == pytest.approx(math.prod(he(784, 1000)))
    proof = largest_product(784, 1000, slope=2.0, constant=3.0)
    expected = 3 / (2 * math.sqrt(784_000) * math.log(1000))
    assert proof.value == pytest.approx(expected)
    assert "(74)" in proof.source
    many = largest_product(10, jnp.array([10, 100]))
    assert_close(many.value, np.array([0.1, 0.1 / 10**0.5]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"width": 0}, "width is 0; expected a whole number greater than 0"),
        ({"outputs": -1}, "outputs is -1; expected a whole number"),
        ({"omega1": 0.0}, "omega1 is 0.0; expected a finite number greater than 0"),
        ({"omega2": -1.0}, "omega2 is -1.0; expected a finite number"),
        ({"omega2": jnp.ones(2)}, r"omega2 has shape \(2,\); expected one number"),
        ({"activation": jnp.sum}, "activation turns an array"),
    ],
)
def test_module_refuses(given, message):
    with pytest.raises(ValueError, match=message):
        ShallowSmooth(**{"width": 4, **given}).init(jax.random.key(0), jnp.ones((2, 3)))


def test_functions_refuse():
    variables, x = initialize(7, 3, 4, 2), np.ones((2, 3))
    with pytest.raises(ValueError, match=r"x has shape \(2, 4\) and 'hidden' \(3, 4\)"):
        predict(variables, np.ones((2, 4)), gelu)
    with pytest.raises(ValueError, match=r"x has shape \(2, 4\) and 'hidden' \(3, 4\)"):
        ShallowSmooth(4, 2).apply(variables, np.ones((2, 4)))
    with pytest.raises(ValueError, match="Expected the variables of a ShallowSmooth"):
        weights({"params": {"kernel": 0}})
    with pytest.raises(ValueError, match="For several seeds use jax"):
        weights(jax.tree.map(lambda leaf: np.asarray(leaf)[None], variables))
    with pytest.raises(ValueError, match=r"For one output, write y\[:, None\]"):
        gradients(variables, x, np.ones(2), gelu)
    with pytest.raises(ValueError, match="d_1 is 1; expected 2 or greater"):
        largest_product(3, 1, slope=1.0)
    with pytest.raises(ValueError, match="omega2 is 0"):
        fixed_product(1.0, 0)
    with pytest.raises(ValueError, match="d_0 is 0; expected a whole number"):
        he(0, 3)
