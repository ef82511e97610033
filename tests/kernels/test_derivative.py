import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled, samples

from ntkflow.kernels.derivative import ntk_derivative, ntk_time_derivative, third_order_kernel
from ntkflow.kernels.empirical import empirical_ntk
from ntkflow.training.flow import gradient_flow
from ntkflow.training.kernel_observers import kernel_observer
from ntkflow.training.losses import cross_entropy_loss, squared_loss

X1, X2 = samples(0, 4, 3), samples(1, 2, 3)


def quadratic(params, x):
    """Σ_r a_r (w_r · x)²"""
    return jnp.square(x @ params["w"]) @ params["a"]


@compiled
def quadratic_derivative(params, direction, x1, x2):
    """Of Θ = Σ_r 4 a_r² u_r v_r x1·x2 + u_r² v_r², with u = x1 W and v = x2 W."""
    a, da = params["a"][None, None], direction["a"][None, None]
    u, du = ((x1 @ tree["w"])[:, None] for tree in (params, direction))
    v, dv = ((x2 @ tree["w"])[None] for tree in (params, direction))
    inner = (x1 @ x2.T)[..., None]
    from_first = 8 * a * da * u * v + 4 * a**2 * (du * v + u * dv)
    return jnp.sum(from_first * inner + 2 * u * du * v**2 + 2 * u**2 * v * dv, axis=-1)


def tree(seed, dtype="float64"):
    return {"w": samples(seed, 3, 5, dtype=dtype), "a": samples(seed + 1, 5, dtype=dtype)}


@pytest.mark.quick
def test_a_two_layer_network_in_closed_form(dtype):
    params, direction, x1, x2 = tree(2, dtype), tree(4, dtype), *(X1, X2)
    x1, x2 = x1.astype(dtype), x2.astype(dtype)
    derivative = ntk_derivative(empirical_ntk(quadratic))
    moved, own = compiled(lambda *of: (derivative(*of, x1, x2), derivative(*of, x1)))(
        params, direction
    )
    assert moved.dtype == own.dtype == dtype
    assert_close(moved, quadratic_derivative(params, direction, x1, x2))
    assert_close(own, quadratic_derivative(params, direction, x1, x1))
    assert np.array_equal(own, own.T)


def test_a_linear_model_has_a_kernel_that_stays():
    kernel = empirical_ntk(lambda w, x: x @ w)
    loss = squared_loss(lambda w, x: x @ w)
    data = (X1, samples(5, 4))
    assert not np.any(compiled(ntk_time_derivative(kernel, loss))(samples(6, 3), data, X1))


def smooth(params, x):
    """Two outputs, of which the derivatives exist to any order."""
    return jnp.tanh(x @ params["w"]) @ jnp.stack([params["a"], params["a"][::-1]], axis=1)


def test_finite_differences_along_a_flow():
    params, data = tree(2), (X1, samples(7, 4, 2))
    choices = {"trainable": lambda path: path == ("w",)}
    kernel = empirical_ntk(smooth, outputs="trace", method="jacobian", **choices)
    loss = squared_loss(smooth)
    step = 1e-3
    run = gradient_flow(
        loss,
        np.array([0.05 - step, 0.05, 0.05 + step]),
        observe={"params": lambda s: s.params, "ntk": kernel_observer(kernel, "kernel")},
        rtol=1e-11,
        atol=1e-12,
        **choices,
    )
    history = compiled(run)(params, data).history
    at_half = jax.tree.map(lambda leaf: leaf[1], history["params"])
    moved = compiled(ntk_time_derivative(kernel, loss, **choices))(at_half, data, X1)
    before, _, after = history["ntk"]["kernel"]
    difference = (after - before) / (2 * step)
    assert np.abs(difference).max() > 1
    # The difference is off by step²/6 times a third derivative in time, of about 100 here.
    np.testing.assert_allclose(moved, difference, atol=1e-4 * np.abs(difference).max())


def test_the_time_derivative_is_the_sum_over_samples_of_the_third_order_kernel():
    params, kernel = tree(2), empirical_ntk(smooth)
    data = (X1, jnp.array([0, 1, 1, 0]))
    loss = cross_entropy_loss(smooth)
    third = compiled(third_order_kernel(kernel, smooth))(params, X2, X1[:3], X1)
    assert third.shape == (2, 3, 2, 2, 4, 2)
    of_outputs = lambda f: cross_entropy_loss(lambda _, x: f)(None, data)  # noqa: E731
    pull = compiled(lambda p: jax.grad(of_outputs)(smooth(p, X1)))(params)
    moved = compiled(ntk_time_derivative(kernel, loss))(params, data, X2, X1[:3])
    assert_close(moved, -jnp.einsum("ijabkc,kc->ijab", third, pull))


def test_the_third_order_kernel_is_a_product_of_gradients():
    params, x3 = tree(2), samples(8, 3, 3)
    kernel = empirical_ntk(quadratic)
    whole = third_order_kernel(kernel, quadratic)
    part = third_order_kernel(kernel, quadratic, trainable=lambda path: path == ("a",))

    def by_definition(params):
        of_kernel = jax.jacrev(lambda p: kernel(p, X1, X2))(params)
        of_network = jax.jacrev(lambda p: quadratic(p, x3))(params)
        rows = lambda k, f: k.reshape(4, 2, -1) @ f.reshape(3, -1).T  # noqa: E731
        return jax.tree.map(rows, of_kernel, of_network)

    third, own, products = compiled(
        lambda p: (whole(p, X1, X2, x3), part(p, X1, X2, x3), by_definition(p))
    )(params)
    assert_close(third, products["w"] + products["a"])
    assert_close(own, products["a"])


def test_what_does_not_move_ignores_its_direction():
    params, direction = tree(2), tree(4)
    kernel = empirical_ntk(quadratic)
    expected = quadratic_derivative(params, direction | {"a": jnp.zeros(5)}, X1, X1)
    only_first = compiled(ntk_derivative(kernel, trainable=lambda path: path == ("w",)))
    for ignored in (direction["a"], None, jnp.full(5, jnp.nan)):
        assert_close(only_first(params, direction | {"a": ignored}, X1), expected)

    counted = lambda params, x: params["count"] * quadratic(params["own"], x)  # noqa: E731
    params = {"own": params, "count": jnp.array(2)}
    derivative = compiled(ntk_derivative(empirical_ntk(counted)))
    moved = derivative(params, {"own": direction, "count": jnp.array(7)}, X1)
    assert_close(moved, 4 * quadratic_derivative(params["own"], direction, X1, X1))
    # What jax.grad gives for integers is accepted as well.
    loss = lambda p: jnp.sum(counted(p, X1))  # noqa: E731
    gradient = compiled(jax.grad(loss, allow_int=True))(params)
    assert_close(
        derivative(params, gradient, X1),
        4 * quadratic_derivative(params["own"], gradient["own"], X1, X1),
    )


def test_errors():
    kernel, params = empirical_ntk(quadratic), tree(2)
    with pytest.raises(ValueError, match="kernel is of type dict; expected a function kernel"):
        ntk_derivative(params)
    with pytest.raises(ValueError, match=r"loss is of type tuple; .*ntkflow.squared_loss"):
        ntk_time_derivative(kernel, (X1, X1))
    derivative = ntk_derivative(kernel)
    for wrong in (X1, {"w": params["w"]}, params | {"a": params}):
        with pytest.raises(ValueError, match=r"direction does not fit params; .*structure"):
            derivative(params, wrong, X1)
    with pytest.raises(ValueError, match=r"an entry of shape \(2,\), a parameter of shape \(5,\)"):
        derivative(params, params | {"a": jnp.ones(2)}, X1)
    with pytest.raises(ValueError, match="Nothing to differentiate"):
        ntk_derivative(kernel, trainable=lambda path: False)(params, params, X1)
