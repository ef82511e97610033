"""Chapter 1: plain descent on linear regression and on a deep network, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled

from ntkflow.systems.baselines import (
    FullyConnected,
    certificate_linear_regression,
    half_mean_loss,
    linear_model,
    linear_regression_smoothness,
    linear_regression_solution,
    suboptimality,
)
from ntkflow.training.descent import descend


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def observe_theta():
    return {"theta": lambda snapshot: snapshot.params}


@pytest.mark.quick
@pytest.mark.parametrize(("n", "d"), [(12, 4), (4, 7)])  # over- and underdetermined
def test_descent_on_linear_regression_is_its_closed_form(n, d):
    x, y, theta_0 = normal(0, n, d), normal(1, n), normal(2, d)
    step = 0.9 / float(linear_regression_smoothness(x).value)
    run = descend(
        half_mean_loss(linear_model), optax.sgd(step), 50, observe=observe_theta(), every=10
    )
    trajectory = compiled(run)(theta_0, (x, y))

    solution = linear_regression_solution(x, y, theta_0)
    values, vectors = np.linalg.eigh(x.T @ x / n)
    for k, theta in zip(trajectory.steps, trajectory.history["theta"], strict=True):
        shrink = vectors * (1 - step * values) ** int(k) @ vectors.T
        assert_close(theta, solution + shrink @ (theta_0 - solution), scale=10.0)


def test_smoothness_is_the_largest_eigenvalue_of_the_hessian():
    x = normal(3, 5, 3)
    hessian = compiled(jax.hessian(half_mean_loss(linear_model)))(jnp.zeros(3), (x, jnp.zeros(5)))
    assert_close(linear_regression_smoothness(x).value, np.linalg.eigvalsh(hessian)[-1])
    wide = linear_regression_smoothness(x.T).value  # by the smaller of the two Gram matrices
    assert_close(wide, np.linalg.eigvalsh(x.T @ x / 3)[-1])


def certificate(theta_0, step, steps=40):
    x, y = jnp.diag(jnp.array([2.0, 1.0, 0.1])), jnp.array([1.0, -1.0, 0.5])
    run = compiled(descend(half_mean_loss(linear_model), optax.sgd(step), steps))
    trajectory = run(theta_0, (x, y))
    return certificate_linear_regression(
        trajectory.history["loss"], trajectory.steps, (x, y), theta_0, step
    )


def test_linear_regression_certificate_holds_up_to_its_step_size_and_fails_above_two_of_it():
    theta_0 = jnp.array([3.0, -1.0, 0.0])
    good = certificate(theta_0, step=0.74)  # β = 4/3
    assert good.applies
    assert good.holds
    bad = certificate(theta_0, step=1.6)
    assert not bad.applies
    assert not bad.holds


def test_the_sublinear_bound_is_not_vacuous():
    """On 1/2 h θ² with h = 1/(ηk), L(k) tends to e⁻² of the bound."""
    ratios = []
    for k in (10, 100, 1000):
        h = 1 / k
        excess = 0.5 * h * (1 - h) ** (2 * k)
        ratios.append(excess / suboptimality(1.0, 1.0, np.array(k)).value)
    assert all(0.1 < ratio < np.exp(-2) for ratio in ratios)


def test_deep_network_is_equation_1_3():
    x, y = normal(4, 6, 3), normal(5, 6)
    network = FullyConnected(widths=(5, 4), activation=jnp.tanh)
    variables = compiled(network.init)(jax.random.key(0), x)
    w1, w2, w3 = (np.asarray(layer["kernel"]) for layer in variables["params"].values())
    f = (np.tanh(np.tanh(x @ w1) @ w2) @ w3)[:, 0]
    assert_close(network.apply(variables, x), f)
    loss = half_mean_loss(network.apply)
    assert_close(loss(variables, (x, y)), np.sum((f - np.asarray(y)) ** 2) / 12)
    run = descend(loss, optax.sgd(0.2), steps=100, every=100)
    losses = compiled(run)(variables, (x, y)).history["loss"]
    assert losses[-1] < 0.5 * losses[0]


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"widths\[1\] is 0"):
        FullyConnected(widths=(3, 0)).init(jax.random.key(0), jnp.ones((2, 3)))
    with pytest.raises(ValueError, match=r"expected \(samples, features\)"):
        linear_model(jnp.ones(3), jnp.ones(3))
    with pytest.raises(ValueError, match="x has 3, y has 2"):
        linear_regression_solution(jnp.ones((3, 2)), jnp.ones(2), jnp.zeros(2))
    with pytest.raises(ValueError, match="step_size is -1"):
        suboptimality(1.0, -1.0, np.arange(3))
