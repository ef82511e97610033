"""Tied weights: (6.4) and its proof line by line, the limiting kernel, and training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled, samples

from ntkflow.kernels.empirical import empirical_ntk
from ntkflow.kernels.infinite import infinite_width
from ntkflow.prediction import gradient_descent_mse
from ntkflow.systems import tied_autoencoder as system
from ntkflow.systems.tied_autoencoder import TiedAutoencoder, limit_kernel, predict
from ntkflow.training.descent import descend
from ntkflow.training.losses import squared_loss
from ntkflow.training.observe import Snapshot

# d, m, σ², ‖x‖; the first four are those at which (6.4) was measured before.
SETTINGS = [
    (10, 50, 2.0, 1.0),
    (10, 200, 2.0, 1.0),
    (20, 50, 1.0, 1.0),
    (5, 100, 3.0, 1.0),
    (3, 4, 1.0, 2.5),
    (1, 7, 2.0, 0.5),
    (2, 30, 1.3, 1.0),
    (6, 1, 2.0, 1.0),
]


def sphere(seed, n, d):
    x = np.random.default_rng(seed).normal(size=(n, d))
    return jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def variables_of(w):
    return {"params": {"weights": w}}


def draw(seed, d, m, variance, norm, count):
    """φ(w·x) w and x·(φ(w·x) w) of `count` networks and one x, by NumPy: u is their mean."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=d)
    x *= norm / np.linalg.norm(x)
    w = variance**0.5 * generator.normal(size=(count, m, d))
    return x, np.maximum(w @ x, 0)[:, :, None] * w


def measured_errors(seed, d, m, variance, norm, count=2000):
    x, features = draw(seed, d, m, variance, norm, count)
    return np.square(features.mean(axis=1) - x).sum(axis=1)


def standard_error(draws):
    return draws.std(axis=0, ddof=1) / len(draws) ** 0.5


@pytest.mark.quick
def test_forward_is_the_formula(dtype):
    x = samples(0, 4, 3, dtype=dtype)
    module = TiedAutoencoder(6, param_dtype=dtype)

    @compiled
    def both(key, x):
        variables = module.init(key, x)
        return variables, module.apply(variables, x), predict(variables, x)

    variables, outputs, predicted = both(jax.random.key(0), x)
    w = np.asarray(system.weights(variables))
    assert w.shape == (3, 6)
    assert w.dtype == dtype
    by_hand = [sum(max(w[:, r] @ xi, 0) * w[:, r] for r in range(6)) / 6 for xi in np.asarray(x)]
    assert_close(outputs, np.array(by_hand, dtype))
    assert_close(predicted, outputs)


def test_errors_of_the_module_have_the_law_of_lemma_6_1():
    """By the module's own draws of W: mean (6.4), and the variance derived beside it."""
    d, m, variance, x = 4, 12, 1.7, jnp.array([[0.3, -1.0, 0.2, 0.5]])
    module, norm = TiedAutoencoder(m, variance), float(np.linalg.norm(x))

    def error(key):
        return system.reconstruction_error(module.init(key, x), x)

    errors = np.asarray(compiled(jax.vmap(error))(jax.random.split(jax.random.key(1), 20_000)))
    mean = system.expected_error(d, m, variance, norm).value
    assert abs(errors.mean() - mean) < 3 * standard_error(errors)
    squares = np.square(errors - errors.mean())
    spread = system.error_variance(d, m, variance, norm).value
    assert abs(squares.mean() - spread) < 3 * standard_error(squares)


@pytest.mark.quick
@pytest.mark.parametrize(("d", "m", "variance", "norm"), SETTINGS)
def test_expected_error_is_exact(d, m, variance, norm):
    errors = measured_errors(d * m, d, m, variance, norm)
    expected = system.expected_error(d, m, variance, norm).value
    assert abs(errors.mean() - expected) < 3 * standard_error(errors)
    # The exact standard deviation over draws of W gives the same test, a sharper one.
    exact = (system.error_variance(d, m, variance, norm).value / len(errors)) ** 0.5
    assert abs(errors.mean() - expected) < 3 * exact
    squares = np.square(errors - errors.mean())
    assert abs(squares.mean() - len(errors) * exact**2) < 4 * standard_error(squares)


def test_mean_feature_and_second_moment_decide_between_printed_and_corrected():
    d, variance, norm = 4, 1.5, 1.4
    x, features = draw(0, d, 1, variance, norm, 40_000)
    mean = features.mean(axis=(0, 1))
    expected = system.mean_feature(jnp.asarray(x), variance)
    assert (abs(mean - expected) < 3 * standard_error(features[:, 0])).all()
    # E[wwᵀ] is σ²I: with the printed I the mean would be x/2.
    assert (abs(mean - x / 2) > 5 * standard_error(features[:, 0])).any()

    squares = np.square(features[:, 0]).sum(axis=1)
    right = system.second_moment(d, variance, norm).value
    printed = system.second_moment(d, variance, norm, printed=True).value
    assert abs(squares.mean() - right) < 3 * standard_error(squares)
    assert abs(squares.mean() - printed) > 5 * standard_error(squares)


@pytest.mark.parametrize(("d", "m", "variance", "norm"), SETTINGS)
def test_the_terms_of_6_2_add_up(d, m, variance, norm):
    terms = system.error_terms(d, m, variance, norm)
    expected = system.expected_error(d, m, variance, norm).value
    np.testing.assert_allclose(sum(terms), expected, rtol=1e-13)
    second_line = (1 - variance) * norm**2 + (m - 1) / (4 * m) * variance**2 * norm**2 + terms.own
    np.testing.assert_allclose(second_line, expected, rtol=1e-13)


def test_the_first_line_of_6_2_is_misprinted():
    d, m, variance, norm = SETTINGS[3]
    _, features = draw(1, d, m, variance, norm, 2000)
    own = np.square(features).sum(axis=(1, 2)) / m**2
    terms = system.error_terms(d, m, variance, norm)
    printed = system.error_terms(d, m, variance, norm, printed=True)
    assert abs(own.mean() - terms.own) < 3 * standard_error(own)
    assert abs(own.mean() - printed.own) > 5 * standard_error(own)
    errors = measured_errors(2, d, m, variance, norm)
    assert abs(errors.mean() - sum(printed)) > 5 * standard_error(errors)
    # The missing σ² alone would do.
    assert abs(errors.mean() - sum(terms._replace(cross=printed.cross))) > 5 * standard_error(
        errors
    )


@pytest.mark.parametrize(("d", "m"), [(1, 1), (10, 50), (50, 2000)])
def test_best_variance_minimizes_the_error(d, m):
    best = system.best_variance(d, m).value
    least = system.expected_error(d, m, best).value
    np.testing.assert_allclose(least, (2 * d + 3) / (m + 2 * d + 3), rtol=1e-12)
    around = system.expected_error(d, m, best * np.array([0.5, 0.99, 1.01, 2.0])).value
    assert (around > least).all()


def test_best_variance_tends_to_two():
    best = system.best_variance(10, 10 ** np.arange(1, 9)).value
    assert (np.diff(best) > 0).all()
    np.testing.assert_allclose(best[-1], 2, rtol=1e-6)


def test_remark_6_1_suffices_from_dimension_three_on():
    d, error = np.arange(1, 60), 0.07
    exact, printed = (system.required_width(d, error, printed=p).value for p in (False, True))
    np.testing.assert_allclose(system.expected_error(d, np.ceil(exact)).value, error, rtol=0.02)
    assert (system.expected_error(d, np.ceil(exact)).value <= error).all()
    suffices = system.expected_error(d, np.ceil(printed)).value <= error
    assert suffices.tolist() == (d >= 3).tolist()


def test_quantities_are_jax_functions():
    def slope(m):
        errors = lambda variance: system.expected_error(10, m, variance).value  # noqa: E731
        return jax.grad(errors)(system.best_variance(10, m).value)

    assert (abs(compiled(jax.vmap(slope))(jnp.array([5.0, 69.0]))) < 1e-12).all()


def test_an_untrained_network_maps_any_unit_input_to_itself():
    d, m = 5, 40_000
    x = np.concatenate([sphere(3, 50, d), np.eye(d), -np.eye(d)])
    w = np.random.default_rng(4).normal(size=(d, m))
    outputs = compiled(predict)
    u = np.asarray(outputs(variables_of(2**0.5 * w), x))
    bound = 5 * system.expected_error(d, m).value ** 0.5  # five times the root mean square
    assert (np.linalg.norm(u - x, axis=1) < bound).all()
    for variance in (1.0, 3.0):  # and to σ²/2 of itself otherwise
        u = np.asarray(outputs(variables_of(variance**0.5 * w), x))
        mean = system.mean_feature(x, variance)
        assert (np.linalg.norm(u - mean, axis=1) < 2 * bound).all()
        assert (np.linalg.norm(u - x, axis=1) > 0.4).all()


def test_autodiff_gradient_is_the_one_by_hand(dtype):
    x = samples(5, 5, 3, dtype=dtype) * np.array([1, 1, 1, 1, 0], dtype)[:, None]  # w·0 = 0
    y = samples(6, 5, 3, dtype=dtype)
    module, variables = (
        TiedAutoencoder(7, param_dtype=dtype),
        variables_of(samples(7, 3, 7, dtype=dtype)),
    )

    @compiled
    def both(variables, x, y):
        exact = jax.grad(squared_loss(module.apply))(variables, (x, y))
        return system.weight_gradient(variables, x, y), exact["params"]["weights"]

    for target in (x, y):
        assert_close(*both(variables, x, target))


def test_limit_kernel_is_the_mean_of_the_kernel_at_every_width():
    x1 = jnp.array([[1.0, 0.2, 0.0], [0.5, -0.5, 1.0], [-2.0, 0.1, 0.3], [0.0, 0.0, 0.0]])
    x2 = jnp.array([[0.9, 0.3, 0.0], [-0.5, 0.5, -1.0]])  # the last against its opposite
    m, variance = 5, 1.5
    module = TiedAutoencoder(m, variance)
    kernel = empirical_ntk(module.apply)
    scaled = compiled(jax.vmap(lambda w: m * kernel(variables_of(w), x1, x2)))
    generator = np.random.default_rng(8)
    draws = np.asarray(scaled(variance**0.5 * generator.normal(size=(3000, 3, m))))
    error = standard_error(draws)
    limit = np.asarray(compiled(limit_kernel)(x1, x2, variance))
    assert (abs(draws.mean(axis=0) - limit) < 4 * error + 1e-12).all()


def test_limit_kernel_at_its_singular_points(dtype):
    v = jnp.array([0.6, 0.8, 0.0], dtype)
    v = np.asarray(v)
    x = jnp.asarray(np.stack([v, 3 * v, -v, 0 * v]))
    gram = np.eye(3) + np.outer(v, v)
    weight = np.array([[1, 3, 0, 0], [3, 9, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    expected = (2 * weight[:, :, None, None] * gram).astype(dtype)
    both = lambda x: (limit_kernel(x), jax.grad(lambda x: limit_kernel(x).sum())(x))  # noqa: E731
    kernel, gradient = jax.device_get(compiled(both)(x))
    assert_close(kernel, expected)
    assert jax.eval_shape(lambda x: limit_kernel(x, variance=np.float64(2)), x).dtype == dtype
    assert (kernel == kernel.transpose(1, 0, 3, 2)).all()
    assert np.isfinite(gradient).all()


def initial_weights(m):
    return 2**0.5 * np.random.default_rng(11).normal(size=(4, m))


@pytest.fixture(scope="module")
def runs():
    """Descent of step size cm at two widths, its records, and what the frozen K^∞ predicts."""
    n, d, rate, steps = 6, 4, 0.1, 40
    x, held_out = sphere(9, n, d), sphere(10, 30, d)
    both, results = jnp.asarray(np.concatenate([x, held_out])), {}

    @compiled
    def predicted(steps, outputs):
        kernel = limit_kernel(both, x)
        predict = gradient_descent_mse(kernel[:n], x, learning_rate=rate)
        frozen = predict(steps, outputs[:n], outputs[n:], kernel[n:])
        return jnp.concatenate(frozen, axis=1)

    for m in (100, 6400):
        module = TiedAutoencoder(m)
        variables = variables_of(jnp.asarray(initial_weights(m)))
        observers = system.observables() | {
            "held_out_error": system.held_out_error(held_out),
            "outputs": lambda snapshot: predict(snapshot.params, both),
        }
        run = descend(
            squared_loss(module.apply), optax.sgd(rate * m), steps, observe=observers, every=20
        )
        trajectory = jax.device_get(compiled(run)(variables, (x, x)))
        outputs = trajectory.history["outputs"]
        results[m] = trajectory, np.asarray(predicted(trajectory.steps, outputs[0]))
    return results


def test_wide_networks_follow_the_frozen_limit_kernel(runs):
    gaps = {}
    for m, (trajectory, frozen) in runs.items():
        outputs = trajectory.history["outputs"]
        gap, moved = (np.square(frozen - of).sum(axis=(0, 2)) for of in (outputs, frozen[:1]))
        gaps[m] = [
            (gap[part].sum() / moved[part].sum()) ** 0.5 for part in (slice(6), slice(6, None))
        ]
    assert max(gaps[6400]) < 0.05  # the training set, and the held-out inputs
    assert np.all(np.array(gaps[100]) > 3 * np.array(gaps[6400]))  # 1/√m would be 8


def test_training_helps_the_training_set_most_and_moves_wide_weights_little(runs):
    for m, (trajectory, _) in runs.items():
        history = trajectory.history
        assert_close(history["train_error"], 2 / 6 * history["loss"])
        assert history["relative_movement"][0] == 0
        before = np.array([history[name][0] for name in ("train_error", "held_out_error")])
        # Both within four standard deviations of one sample from (6.4).
        spread = system.error_variance(4, m).value ** 0.5
        assert (abs(before - system.expected_error(4, m).value) < 4 * spread).all()
        gain, held_out_gain = (
            history[name][0] / history[name][-1] for name in ("train_error", "held_out_error")
        )
        assert gain > 10 * held_out_gain
        assert (np.diff(history["train_error"]) < 0).all()
    movements = [float(runs[m][0].history["relative_movement"][-1]) for m in runs]
    assert movements[1] < movements[0] / 4


def test_observers_are_their_definitions(runs):
    trajectory = runs[100][0]
    x = np.asarray(sphere(10, 30, 4))
    w, after = initial_weights(100), system.weights(trajectory.params)
    last = {name: values[-1] for name, values in trajectory.history.items()}
    u = np.maximum(x @ after, 0) @ after.T / 100
    assert_close(last["held_out_error"], np.mean(np.sum(np.square(u - x), axis=1)))
    assert_close(last["relative_movement"], np.linalg.norm(after - w) / np.linalg.norm(w))
    # The largest over other unit inputs: above the root mean square of these.
    snapshot = Snapshot(0, trajectory.params, trajectory.params, (x, x))
    distance = compiled(system.identity_distance(jax.random.key(0)))(snapshot)
    assert last["held_out_error"] ** 0.5 < distance < 4 * last["held_out_error"] ** 0.5


def test_error_on_the_whole_sphere_by_arc_cosines(runs):
    """E over uniform unit x of ‖x − u‖², exactly: held-out errors are samples of it."""
    w = np.asarray(system.weights(runs[100][0].params))
    d, m = w.shape
    norms, inner = np.linalg.norm(w, axis=0), w.T @ w
    angles = np.arccos(np.clip(inner / np.outer(norms, norms), -1, 1))
    both = np.outer(norms, norms) * (np.sin(angles) + (np.pi - angles) * np.cos(angles))
    exact = 1 - np.sum(norms**2) / (m * d) + np.sum(inner * both) / (2 * np.pi * d * m**2)
    x = sphere(12, 4000, d)
    errors = np.square(np.maximum(x @ w, 0) @ w.T / m - x).sum(axis=1)
    assert abs(errors.mean() - exact) < 3 * standard_error(errors)


def test_what_is_refused():
    x = jnp.ones((2, 3))
    variables = variables_of(jnp.ones((3, 4)))
    with pytest.raises(ValueError, match="width is 0"):
        TiedAutoencoder(0).init(jax.random.key(0), x)
    with pytest.raises(ValueError, match=r"variance is -1"):
        TiedAutoencoder(3, -1.0).init(jax.random.key(0), x)
    with pytest.raises(ValueError, match=r"x has shape \(3,\); expected \(samples, features\)"):
        predict(variables, jnp.ones(3))
    with pytest.raises(ValueError, match=r"x has 2 features and the weights 3.*samples are rows"):
        predict(variables, x.T)
    for wrong in ({"params": {"kernel": jnp.ones((3, 4))}}, np.ones((3, 4)), None):
        with pytest.raises(ValueError, match="variables of a TiedAutoencoder"):
            predict(wrong, x)
    for y in (x.T, x[:1], x[0]):
        with pytest.raises(ValueError, match=r"y has shape .* and x \(2, 3\); expected the same"):
            system.weight_gradient(variables, x, y)
    with pytest.raises(ValueError, match="x1 has 3 features and x2 2"):
        limit_kernel(x, x.T)
    with pytest.raises(ValueError, match="holds NaN"):
        system.held_out_error(x.at[0, 0].set(jnp.nan))
    with pytest.raises(ValueError, match="m is 0; expected a whole number"):
        system.expected_error(3, 0)
    with pytest.raises(ValueError, match=r"d is 2\.5; expected a whole number"):
        system.best_variance(2.5, 3)
    with pytest.raises(ValueError, match=r"error is 0.*no finite width"):
        system.required_width(3, 0.0)
    with pytest.raises(ValueError, match="points is 0"):
        system.identity_distance(jax.random.key(0), 0)
    with pytest.raises(ValueError, match="tied or recurrent weights"):
        infinite_width(TiedAutoencoder(4))(x)
