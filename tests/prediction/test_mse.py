"""Closed forms against the runs they predict: descent and flow of a linear model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled, samples

from ntkflow.kernels.empirical import empirical_ntk
from ntkflow.prediction.mse import gradient_descent_mse, gradient_flow_mse
from ntkflow.training.descent import descend
from ntkflow.training.flow import gradient_flow
from ntkflow.training.losses import squared_loss

X, X_TEST = samples(0, 6, 9), samples(1, 4, 9)


def apply(params, x):
    """Linear in the parameters, with outputs that share them: Θ couples the outputs."""
    return x @ params["a"] @ jnp.ones((3, 2)) + (x @ params["b"])


def setting(coupled):
    if coupled:
        params = {"a": samples(2, 9, 3), "b": samples(3, 9, 2)}
        return apply, params, samples(4, 6, 2)
    return (lambda w, x: x @ w), samples(2, 9), samples(4, 6)


def kernels(network, params):
    kernel = empirical_ntk(network)
    return kernel(params, X), kernel(params, X_TEST, X)


def observers(network):
    return {
        "train": lambda s: network(s.params, X),
        "test": lambda s: network(s.params, X_TEST),
    }


@pytest.mark.quick
@pytest.mark.parametrize(
    ("reduction", "momentum", "coupled"),  # every pair of choices
    [
        ("half_sum", None, False),
        ("half_sum", 0.9, True),
        ("sum", None, True),
        ("sum", 0.9, False),
        ("mean", None, False),
        ("mean", 0.9, True),
    ],
)
def test_descent_of_a_linear_model(reduction, momentum, coupled):
    network, params, y = setting(coupled)
    optimizer = optax.sgd(0.005, momentum=momentum)
    run = descend(squared_loss(network, reduction), optimizer, 20, observe=observers(network))

    @compiled
    def compute(params, y):
        history = run(params, (X, y)).history
        k, k_test = kernels(network, params)
        predict = gradient_descent_mse(
            k, y, learning_rate=0.005, momentum=momentum, reduction=reduction
        )
        start = history["train"][0], history["test"][0]
        return history, predict(jnp.arange(21), *start, k_test)

    history, (train, test) = compute(params, y)
    assert_close(train, history["train"], factor=1e4)
    assert_close(test, history["test"], factor=1e4)


def test_flow_of_a_linear_model():
    network, params, y = setting(True)
    times = np.array([0.0, 0.3, 1.0, 4.0])
    run = gradient_flow(squared_loss(network, "mean"), times, observe=observers(network))

    @compiled
    def compute(params, y):
        history = run(params, (X, y)).history
        k, k_test = kernels(network, params)
        predict = gradient_flow_mse(k, y, reduction="mean")
        return history, predict(times, history["train"][0], history["test"][0], k_test)

    history, (train, test) = compute(params, y)
    np.testing.assert_allclose(train, history["train"], atol=1e-5)
    np.testing.assert_allclose(test, history["test"], atol=1e-5)


def test_one_kernel_serves_many_outputs():
    k, y = X @ X.T, samples(4, 6, 3)
    predict = compiled(lambda y: gradient_flow_mse(k, y)(0.3).train)
    together, apart = predict(y), [predict(y[:, i]) for i in range(3)]
    assert_close(together, np.stack(apart, 1))


def test_the_end_is_kernel_regression():
    k, k_test, y = X @ X.T, X_TEST @ X.T, samples(4, 6)
    regression = k_test @ np.linalg.solve(k, y)

    @compiled
    def ends(k, y):
        flow = gradient_flow_mse(k, y)
        descent = gradient_descent_mse(k, y, learning_rate=0.01)
        return (
            flow(1e6, k_test_train=k_test),
            descent(10**6, k_test_train=k_test),
        )

    for train, test in ends(k, y):
        np.testing.assert_allclose(train, y, atol=1e-9)
        np.testing.assert_allclose(test, regression, atol=1e-9)


def test_small_steps_of_descent_are_the_flow():
    k, y = X @ X.T, samples(4, 6)
    flow = compiled(lambda k: gradient_flow_mse(k, y)(0.1).train)(k)
    descent = compiled(lambda rate, n: gradient_descent_mse(k, y, learning_rate=rate)(n).train)
    errors = [np.abs(descent(0.1 / n, n) - flow).max() for n in (1000, 2000)]
    np.testing.assert_allclose(errors[0] / errors[1], 2, rtol=0.02)


@pytest.mark.parametrize(
    "build",
    [gradient_flow_mse, functools.partial(gradient_descent_mse, learning_rate=0.5)],
    ids=["flow", "descent"],
)
def test_directions_that_are_not_seen_are_not_learnt(build):
    # Two equal samples with different labels: only their mean can be learnt.
    k = jnp.array([[1.0, 1.0], [1.0, 1.0]])
    y = jnp.array([0.0, 2.0])

    @compiled
    def compute(k):
        slope = jax.jacfwd(lambda t: gradient_flow_mse(k, y)(t).train)(0.0)
        return build(k, y)(1000, k_test_train=k), slope

    (train, test), slope = compute(k)
    assert_close(train, np.array([1.0, 1.0]))
    assert_close(test, np.array([1.0, 1.0]))
    assert_close(slope, np.array([2.0, 2.0]))


def test_a_step_that_is_too_large_diverges_as_the_network_does():
    k, y = jnp.eye(1), jnp.ones(1)
    predict = compiled(lambda k: gradient_descent_mse(k, y, learning_rate=3.0)(jnp.arange(4)).train)
    assert_close(predict(k)[:, 0], 1 - (-2.0) ** np.arange(4))


def test_dtype_and_shape_of_times(dtype):
    k, y = (X @ X.T).astype(dtype), samples(4, 6).astype(dtype)
    descent = lambda k, y, n: gradient_descent_mse(k, y, learning_rate=0.01)(n).train  # noqa: E731
    several = jax.eval_shape(descent, k, y, jnp.ones((2, 3), int))
    assert several.shape == (2, 3, 6)
    assert several.dtype == dtype
    for build, times in ((gradient_flow_mse, jnp.linspace(0.0, 1, 3)), (gradient_descent_mse, 3)):
        constant = lambda k: build(k, y)(jnp.asarray(times)).train  # noqa: E731
        assert jax.eval_shape(constant, k).dtype == dtype
    if dtype == "float32":
        train = descent(k, y, 5)  # without jit
        assert train.dtype == dtype
        full = compiled(descent)(X @ X.T, samples(4, 6), 5)
        np.testing.assert_allclose(train, full, atol=1e-5)


def test_the_rate_can_be_differentiated_where_high_powers_overflow():
    k, y = 100 * X @ X.T, samples(4, 6)
    final = lambda rate: gradient_descent_mse(k, y, learning_rate=rate)(3).train.sum()  # noqa: E731
    value, slope = compiled(final), compiled(jax.grad(final))
    numeric = (value(0.5 + 1e-6) - value(0.5 - 1e-6)) / 2e-6
    np.testing.assert_allclose(slope(0.5), numeric, rtol=1e-5)


def test_infinite_time_is_the_end_also_for_a_singular_kernel():
    train = compiled(lambda k: gradient_flow_mse(k, jnp.arange(3.0))(jnp.inf).train)
    assert_close(train(jnp.ones((3, 3))), np.ones(3), factor=1e3)


class TestBadInput:
    k, y = np.eye(3), np.ones(3)

    @pytest.mark.parametrize("build", [gradient_flow_mse, gradient_descent_mse])
    def test_shapes(self, build):
        with pytest.raises(ValueError, match="k_train_train has 3, y_train has 2"):
            build(self.k, self.y[:2])
        with pytest.raises(ValueError, match=r"shape \(3, 2\) and y_train \(3,\)"):
            build(self.k[:, :2], self.y)
        with pytest.raises(ValueError, match="k_train_train holds NaN"):
            build(self.k * np.nan, self.y)
        with pytest.raises(ValueError, match=r"k_test_train has shape \(2, 2\)"):
            build(self.k, self.y)(1, k_test_train=np.ones((2, 2)))

    def test_settings_of_descent(self):
        with pytest.raises(ValueError, match="learning_rate is 0"):
            gradient_descent_mse(self.k, self.y, learning_rate=0.0)
        with pytest.raises(ValueError, match=r"momentum is 1.0; expected a number in \[0, 1\)"):
            gradient_descent_mse(self.k, self.y, momentum=1.0)
        with pytest.raises(ValueError, match="whole numbers of steps"):
            gradient_descent_mse(self.k, self.y)(1.5)
        with pytest.raises(ValueError, match="reduction is 'average'"):
            gradient_flow_mse(self.k, self.y, reduction="average")

    def test_times_before_the_start(self):
        with pytest.raises(ValueError, match="steps holds -1"):
            gradient_descent_mse(self.k, self.y)(-1)
        with pytest.raises(ValueError, match=r"times holds -0.5"):
            gradient_flow_mse(self.k, self.y)([0.0, -0.5])
