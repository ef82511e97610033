"""The network, its Gram matrices and its single step, against definitions and autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled

from ntkflow.kernels.empirical import empirical_ntk
from ntkflow.kernels.spectrum import extreme_eigenvalues
from ntkflow.systems.two_layer_relu import (
    TwoLayerReLU,
    gram,
    limit_gram,
    limit_smallest_eigenvalue,
    one_step,
    patterns,
    predict,
    relu,
    unstable_gram,
    unstable_patterns,
    weight_gradient,
)
from ntkflow.training.descent import descend
from ntkflow.training.losses import squared_loss

PREDICT = compiled(predict)
GRADIENT, UNSTABLE = compiled(weight_gradient), compiled(unstable_patterns)


def normal(seed, *shape, dtype="float64"):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def sphere(seed, n, d):
    x = np.random.default_rng(seed).normal(size=(n, d))
    return jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def initialize(width, x, output="fixed", seed=0):
    """The module and variables as its init draws them, without compiling that for each shape."""
    generator = np.random.default_rng(seed)
    kernel = jnp.asarray(generator.normal(size=(x.shape[1], width)), x.dtype)
    signs = jnp.asarray(generator.choice([-1.0, 1.0], width), x.dtype)
    module = TwoLayerReLU(width, output, param_dtype=x.dtype)
    if output == "trained":
        return module, {"params": {"kernel": kernel, "output": signs}}
    return module, {"params": {"kernel": kernel}, "fixed": {"output": signs}}


@pytest.mark.quick
def test_forward_is_the_formula(dtype):
    x = normal(0, 4, 3, dtype=dtype)
    module = TwoLayerReLU(6, param_dtype=dtype)
    variables = compiled(module.init)(jax.random.key(0), x)
    w, a = variables["params"]["kernel"], variables["fixed"]["output"]
    assert w.dtype == a.dtype == dtype
    assert set(np.unique(a)) <= {-1.0, 1.0}
    x, w, a = np.asarray(x), np.asarray(w), np.asarray(a)
    f = [sum(a[r] * max(w[:, r] @ xi, 0) for r in range(6)) / 6**0.5 for xi in x]
    assert_close(module.apply(variables, x), np.array(f, dtype))
    assert_close(PREDICT(variables, x), module.apply(variables, x))


@pytest.mark.parametrize("output", ["fixed", "trained"])
def test_weights_are_standard_normal_and_signs_are_fair(output):
    variables = compiled(TwoLayerReLU(40_000, output).init)(jax.random.key(0), jnp.ones((1, 2)))
    assert ("fixed" in variables) is (output == "fixed")
    w = variables["params"]["kernel"]
    a = variables.get("fixed", variables["params"])["output"]
    assert abs(w.mean()) < 4 / w.size**0.5
    assert abs(w.var() - 1) < 4 * (2 / w.size) ** 0.5
    assert abs(a.mean()) < 4 / a.size**0.5


def test_relu_has_derivative_one_at_zero():
    assert jax.vmap(jax.grad(relu))(jnp.array([-1.0, 0.0, 1.0])).tolist() == [0.0, 1.0, 1.0]


def test_autodiff_gradient_is_equation_2_3():
    x = jnp.concatenate([sphere(1, 4, 3), jnp.zeros((1, 3))])  # w·0 = 0: the kink itself
    y = normal(2, 5)
    module, variables = initialize(7, x)
    gradient = compiled(jax.grad(squared_loss(module.apply)))(variables, (x, y))
    found = GRADIENT(variables, x, y)
    assert_close(found, gradient["params"]["kernel"])

    w, a, u = variables["params"]["kernel"], variables["fixed"]["output"], PREDICT(variables, x)
    w, a, u, x, y = (np.asarray(array) for array in (w, a, u, x, y))
    by_hand = np.zeros_like(w)
    for r in range(7):
        for i in range(5):
            by_hand[:, r] += (u[i] - y[i]) * a[r] * x[i] * float(w[:, r] @ x[i] >= 0) / 7**0.5
    assert_close(found, by_hand)


@pytest.mark.parametrize("output", ["fixed", "trained"])
def test_training_changes_the_params_collection_alone(output):
    x, y = sphere(3, 4, 3), normal(4, 4)
    module, variables = initialize(8, x, output)
    run = descend(squared_loss(module.apply), optax.adam(0.1), steps=3)
    after = compiled(run)(variables, (x, y)).params
    before, after = jax.device_get((variables, after))
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before, after)
    assert all(jax.tree.leaves(moved["params"]))
    assert len(moved["params"]) == (1 if output == "fixed" else 2)
    if output == "fixed":
        assert not moved["fixed"]["output"]


@pytest.mark.quick
@pytest.mark.parametrize("output", ["fixed", "trained"])
def test_gram_is_the_empirical_kernel(output, dtype):
    x1, x2 = 2 * normal(5, 5, 4, dtype=dtype), normal(6, 3, 4, dtype=dtype)
    module, variables = initialize(30, x1, output)
    variables = jax.device_get(variables)
    variables["params"]["kernel"] = variables["params"]["kernel"] + 0.3  # away from initialization
    if output == "trained":
        variables["params"]["output"] = variables["params"]["output"] * 1.7
    kernel = empirical_ntk(module.apply)
    both = compiled(lambda v: (gram(v, x1), kernel(v, x1), gram(v, x1, x2), kernel(v, x1, x2)))
    square, expected_square, rectangle, expected_rectangle = jax.device_get(both(variables))
    assert_close(square, expected_square)
    assert_close(rectangle, expected_rectangle)
    assert (square == square.T).all()
    assert square.dtype == dtype


def test_predictions_move_by_the_gram_matrix():
    """du/dt = H (y − u) along dW/dt = −∂L/∂W: equation (2.6), exactly."""
    x, y = sphere(7, 5, 3), normal(8, 5)
    _, variables = initialize(20, x)

    @compiled
    def compute(variables):
        velocity = jax.tree.map(jnp.zeros_like, variables)
        velocity["params"]["kernel"] = -weight_gradient(variables, x, y)
        u, du = jax.jvp(lambda v: predict(v, x), (variables,), (velocity,))
        return du, gram(variables, x) @ (y - u)

    assert_close(*compute(variables))


@pytest.mark.parametrize("output", ["fixed", "trained"])
def test_limit_gram_is_the_mean_of_the_gram_matrix(output):
    x = jnp.array([[1.0, 0.2, 0.0], [0.5, -0.5, 1.0], [-2.0, 0.1, 0.3], [0.0, 0.0, 1.5]])
    module = TwoLayerReLU(2000, output)
    keys = jax.random.split(jax.random.key(9), 100)
    draws = np.asarray(compiled(jax.vmap(lambda key: gram(module.init(key, x), x)))(keys))
    error = draws.std(axis=0) / 10
    limit = np.asarray(compiled(lambda x: limit_gram(x, output=output))(x))
    assert (abs(draws.mean(axis=0) - limit) < 5 * error + 1e-12).all()


def test_limit_gram_by_quadrature():
    """H^∞ = x·x' P(both active), the probability as an angle integral over directions of w."""
    x = np.array([[0.6, 0.8], [2.0, -0.5]])
    angles = (np.arange(200_000) + 0.5) * 2 * np.pi / 200_000
    active = np.stack([np.cos(angles), np.sin(angles)], axis=1) @ x.T >= 0
    expected = (x @ x.T) * (active.T @ active.astype(float)) / len(angles)
    np.testing.assert_allclose(compiled(limit_gram)(x), expected, atol=2e-5)


@pytest.mark.parametrize("output", ["fixed", "trained"])
def test_limit_gram_at_its_singular_points(output, dtype):
    v = np.array([0.6, 0.8, 0.0], dtype)
    x = jnp.asarray(np.stack([v, 3 * v, -v, 0 * v]))
    share = 0.5 if output == "fixed" else 1.0
    expected = share * np.array([[1, 3, 0, 0], [3, 9, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])

    @compiled
    def compute(x):
        gradient = jax.grad(lambda x: limit_gram(x, output=output).sum())(x)
        return limit_gram(x, output=output), limit_gram(x, x, output=output), gradient

    alone, pair, gradient = compute(x)
    assert_close(alone, expected.astype(dtype))
    assert_close(pair, expected.astype(dtype))
    assert np.isfinite(gradient).all()


def test_theorem_2_1_and_why_antiparallel_inputs_are_excluded():
    least = compiled(limit_smallest_eigenvalue)
    assert least(sphere(10, 8, 3)) > 1e-3
    angles = np.array([0.3, 1.4, 2.6])
    plane = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    parallel = np.concatenate([plane, 2 * plane[:1]])
    assert least(parallel) == 0
    # One antiparallel pair does no harm. Of three pairs in the plane, Σ α_k x_k = 0 gives
    # Σ α_k (φ(x_k) − φ(−x_k)) = 0.
    pair = np.concatenate([plane[:1], -plane[:1]])
    assert_close(least(pair), np.float64(0.5))
    assert least(np.concatenate([plane, -plane])) == 0


def test_lambda_0_of_a_thousand_points_on_the_sphere():
    smallest, largest, _ = extreme_eigenvalues(compiled(limit_gram)(sphere(11, 1000, 1000)))
    assert abs(smallest - 0.2461) < 1e-3
    assert abs(largest - 1.2461) < 1e-2


def test_least_eigenvalue_at_initialization_rises_with_the_width_towards_lambda_0():
    """λ_min is concave and E H(0) = H^∞, so that E λ_min(H(0)) ≤ λ_0."""
    x = sphere(12, 20, 20)
    weights = np.asarray(normal(13, 100, 20, 400))

    def least_eigenvalues(weights):
        signs = jnp.asarray(np.ones(weights.shape[-1]))
        variables = lambda w: {"params": {"kernel": w}, "fixed": {"output": signs}}  # noqa: E731
        grams = compiled(jax.vmap(lambda w: gram(variables(w), x)))(weights)
        return np.linalg.eigvalsh(grams)[:, 0]

    narrow, wide = least_eigenvalues(weights[..., :50]), least_eigenvalues(weights)
    assert narrow.mean() < wide.mean() - 4 * (narrow.std() + wide.std()) / 10
    lambda_0 = compiled(limit_smallest_eigenvalue)(x)
    assert wide.mean() < lambda_0 - 4 * wide.std() / 10


def test_unstable_patterns_are_those_that_a_weight_within_the_radius_changes():
    x, radius = 2 * sphere(14, 4, 3), 0.3
    _, initial = initialize(200, x)
    w = initial["params"]["kernel"]
    unit = x / jnp.linalg.norm(x, axis=1, keepdims=True)
    patterns_of = compiled(lambda w: patterns({**initial, "params": {"kernel": w}}, x))
    before, expected = patterns_of(w), []
    for i in range(4):
        # The weights within R whose pattern on x_i differs first are those along ±x_i.
        moved = [w + s * radius * unit[i][:, None] for s in (1, -1)]
        expected.append(sum(np.asarray(patterns_of(v) != before)[i] for v in moved) > 0)
    assert (np.asarray(UNSTABLE(initial, x, radius)) == np.stack(expected)).all()


def test_unstable_gram_is_the_sum_over_unstable_neurons():
    x, radius = sphere(15, 3, 4), 0.5
    _, initial = initialize(50, x)
    variables = {**initial, "params": {"kernel": initial["params"]["kernel"] + 0.1}}
    unstable = np.asarray(UNSTABLE(initial, x, radius))
    active, points = np.asarray(patterns(variables, x)), np.asarray(x)
    expected = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            together = unstable[i] & active[i] & active[j]
            expected[i, j] = points[i] @ points[j] * together.sum() / 50
    result = compiled(unstable_gram)(variables, initial, x, radius)
    assert_close(result, expected)
    assert not np.allclose(result, result.T)


def test_one_step_is_the_change_of_the_predictions():
    x, y = sphere(16, 5, 3), 3 * normal(17, 5)
    module, initial = initialize(60, x)
    run = compiled(descend(squared_loss(module.apply), optax.sgd(0.05), steps=1))
    variables = run(initial, (x, y)).params
    after = run(variables, (x, y)).params
    change = np.subtract(
        *compiled(jax.vmap(predict, (0, None)))(
            jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), after, variables), x
        )
    )
    single = compiled(one_step)
    for radius, stays in ((1.0, True), (1e-3, False)):
        step = jax.device_get(single(variables, initial, x, y, 0.05, radius))
        assert_close(step.stable + step.unstable, change, scale=1.0)
        unstable = np.asarray(UNSTABLE(initial, x, radius))
        assert step.unstable_neurons.tolist() == unstable.sum(1).tolist()
        assert bool(step.changes == 0) is stays
        # I_1 = −η (H − H^⊥)(u − y) rests on patterns of S_i that do not change.
        assert np.allclose(step.stable, step.linear, atol=1e-12) is stays


def test_what_is_refused():
    x = jnp.ones((2, 3))
    module, variables = initialize(4, x)
    for width in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="width is"):
            TwoLayerReLU(width).init(jax.random.key(0), x)
    with pytest.raises(ValueError, match=r"x has shape \(3,\); expected \(samples, features\)"):
        module.apply(variables, jnp.ones(3))
    with pytest.raises(ValueError, match="x1 has 3 features and x2 2"):
        gram(variables, x, jnp.ones((2, 2)))
    with pytest.raises(ValueError, match="output is 'both'"):
        limit_gram(x, output="both")
    with pytest.raises(ValueError, match="holds NaN"):
        limit_gram(x.at[0, 0].set(jnp.nan))
    with pytest.raises(ValueError, match="variables of a TwoLayerReLU"):
        gram({"params": {"bias": jnp.ones(3)}}, x)
    _, trained = initialize(4, x, "trained")
    with pytest.raises(ValueError, match="fixed output layer"):
        one_step(trained, trained, x, jnp.ones(2), 0.1, 0.1)
