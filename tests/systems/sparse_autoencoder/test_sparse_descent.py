"""Normalized descent: Theorem 4 on the population, and its three sources of gradients."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled, samples

from ntkflow.data.generative import (
    Samples,
    mixture_of_gaussians,
    nonnegative_sparse_coding,
    sparse_coding,
)
from ntkflow.systems.sparse_autoencoder.descent import (
    geometric_bias,
    gradient_bias,
    largest_step_size,
    learn,
    normalized_descent,
    step_size,
    zero_bias,
)
from ntkflow.systems.sparse_autoencoder.network import (
    mean_loss,
    parameters,
    threshold,
    variables,
)
from ntkflow.systems.sparse_autoencoder.population import population_gradient
from ntkflow.systems.sparse_autoencoder.sources import (
    Gradients,
    batch_source,
    fresh_source,
    population_source,
)
from ntkflow.training.descent import descend


def unit_columns(weights):
    weights = np.asarray(weights)
    return jnp.asarray(weights / np.linalg.norm(weights, axis=0))


def atoms(seed, n, m, dtype="float64"):
    return unit_columns(samples(seed, n, m, dtype=dtype))


def near(dictionary, delta):
    """Unit columns at about `delta` of the dictionary's."""
    n = dictionary.shape[0]
    noise = samples(9, *dictionary.shape, dtype=dictionary.dtype)
    return unit_columns(np.asarray(dictionary) + delta / math.sqrt(n) * np.asarray(noise))


def squared_distance(model):
    def observer(snapshot):
        weights, _ = parameters(snapshot.params)
        return jnp.sum(jnp.square(weights - model.dictionary))

    return {"squared_distance": observer}


def weights_and_bias(snapshot):
    return parameters(snapshot.params)


@pytest.fixture(scope="module")
def mixture():
    """The paper's dimensions."""
    model = mixture_of_gaussians(atoms(0, 784, 10), noise=0.01)
    return model, near(model.dictionary, 0.5)


@pytest.mark.quick
@pytest.mark.parametrize("activation", ["threshold", "relu"])
def test_mixtures_are_recovered(mixture, activation):
    """Theorem 4 (i), and an exact recursion: with ζ = m, step s takes W_i to the direction of
    (1 − (λ_i + b)²) W_i + λ_i A_i, in the plane of W_i and A_i."""
    model, start = mixture
    if activation == "threshold":
        optimizer, bias = normalized_descent(10.0, bias_schedule=zero_bias()), 0.0
    else:
        optimizer = normalized_descent(10.0, bias_schedule=geometric_bias(0.5))
        bias = -1 / math.log(784)
    observe = {"pair": weights_and_bias}
    run = compiled(learn(population_source(model), optimizer, steps=5, observe=observe))
    trajectory = run(start, bias)
    weights, biases = map(np.asarray, trajectory.history["pair"])
    dictionary, start = np.asarray(model.dictionary), np.asarray(start)
    assert_close(np.linalg.norm(weights, axis=1), np.ones((6, 10)))
    assert_close(biases[:, 0], bias * 0.5 ** np.arange(6))

    cosine = np.sum(start * dictionary, axis=0)
    tangent = 2 * (1 - cosine**2) ** 0.5 / (2 * cosine)  # of the angle between W_i and A_i
    for s in range(6):
        offset = weights[s] - dictionary
        angle = 2 * np.arcsin(np.linalg.norm(offset, axis=0) / 2)
        np.testing.assert_allclose(np.tan(angle), tangent, rtol=1e-8, atol=1e-15)
        cosine = 1 / np.sqrt(1 + tangent**2)
        kept = 1 - (cosine + bias * 0.5**s) ** 2
        tangent = kept * cosine * tangent / (kept * cosine + cosine)

    error = np.sum(np.square(weights - dictionary), axis=(1, 2))
    assert 1.8 < error[0] < 2.3
    assert (error[1:] <= np.maximum(error[:-1] / 2, 1e-29)).all()  # τ > 1/2
    assert error[3] < (1e-17 if activation == "threshold" else 1e-4)


def test_a_trained_bias_follows_the_schedule(mixture):
    """The expected gradient of the bias is +p_i b_i: ζ_b = m/2 halves it."""
    model, start = mixture
    ends = [
        compiled(
            learn(population_source(model), normalized_descent(10.0, bias_schedule=schedule), 3)
        )(start, -0.15).params
        for schedule in (gradient_bias(5.0), geometric_bias(0.5))
    ]
    for actual, desired in zip(*map(parameters, ends), strict=True):
        assert_close(actual, desired, scale=1.0)


def descents(model, start, sizes, steps):
    """‖W − A‖² along runs of several step sizes at once, shape (sizes, steps + 1)."""

    def run(size):
        source, optimizer = population_source(model), normalized_descent(size)
        observe = squared_distance(model)
        return learn(source, optimizer, steps, observe=observe)(start, 0.0).history

    return np.asarray(compiled(jax.vmap(run))(jnp.asarray(sizes))["squared_distance"])


def test_sparse_codes_lead_to_a_floor():
    """Theorem 4 (ii): contraction by 1 − τ < 1/2 down to O(m k²/n²)."""
    n, m, k = 60, 90, 3
    model = sparse_coding(atoms(0, n, m), k)
    start = near(model.dictionary, 0.2)
    (error,) = descents(model, start, [step_size(model)], 12)
    floor = m * k**2 / n**2
    assert error[0] > 10 * floor
    assert (error[1:] <= error[:-1] / 2 + floor).all()
    assert error[-1] < 1.5 * floor


def test_nonnegative_codes_need_a_smaller_step():
    """Theorem 4 (iii): down to O(k³/m) below `largest_step_size`, beyond which the proof's own step
    is for k = 3."""
    n, m, k = 60, 90, 3
    model = nonnegative_sparse_coding(atoms(0, n, m), k, smallest=1.0, largest=1.2)
    start = near(model.dictionary, 0.2)
    largest = float(largest_step_size(model))
    assert largest < step_size(model)
    sizes = [0.9 * largest, 1.15 * largest, step_size(model)]
    stable, *unstable = descents(model, start, sizes, 12)
    floor = k**3 / m
    assert stable[0] > 10 * floor
    assert (stable[1:] <= stable[:-1] / 2 + floor).all()
    assert stable[-1] < floor
    for error in unstable:
        assert (error[3:6] > 1.3 * error[2:5]).all()
        assert error.max() > 2 * error[0]


def test_the_largest_step_is_that_of_a_common_error():
    """W_i = A_i + ε s for all i, s = A1/√m: ⟨s, g_i⟩/ε is p (κ_2 + (k−1) κ_1²) (1 + O(k/m))."""
    m, k = 200, 3
    model = nonnegative_sparse_coding(np.eye(m), k, smallest=0.5, largest=1.2)
    common = np.full((m, m), m**-0.5)
    gradient = lambda weights: population_gradient(weights, np.zeros(m), model)  # noqa: E731
    change = compiled(lambda v: jax.jvp(gradient, (np.eye(m),), (v,))[1])(common)
    curvature = jnp.sum(common * change, axis=0)
    np.testing.assert_allclose(curvature, 2 / largest_step_size(model), rtol=4 * k / m)


@pytest.mark.quick
def test_descend_on_a_batch_takes_the_same_steps(dtype):
    """Autodiff of the mean loss, and the approximate gradient: also that of the bias."""
    model = mixture_of_gaussians(atoms(2, 20, 4, dtype), noise=0.05)
    y = np.asarray(model.dictionary).T[np.arange(12) % 4]
    y = y + np.asarray(0.1, dtype) * np.asarray(samples(3, 12, 20, dtype=dtype))
    start = near(model.dictionary, 0.4)
    optimizer = normalized_descent(2.0, bias_schedule=gradient_bias(1.0))
    by_loss = compiled(descend(mean_loss(), optimizer, 4))(variables(start, -0.2), (y, y))
    by_source = compiled(learn(batch_source(y), optimizer, 4))(start, -0.2)
    assert parameters(by_source.params)[0].dtype == dtype
    for actual, desired in zip(
        parameters(by_source.params), parameters(by_loss.params), strict=True
    ):
        assert_close(actual, desired)
    assert np.abs(np.asarray(parameters(by_source.params)[0]) - np.asarray(start)).max() > 0.05


def test_fresh_samples_have_the_gradients_of_the_population_in_expectation():
    """Within four standard errors of 64 batches, each of samples of its own."""
    model = mixture_of_gaussians(np.eye(10, 3), noise=0.03)
    weights, bias, batches = near(model.dictionary, 0.4), np.full(3, -0.2), 64
    source = fresh_source(model, 25, threshold(0.5))
    keys = jax.random.split(jax.random.key(0), batches)
    drawn = compiled(jax.vmap(lambda key: source(weights, bias, key)))(keys)
    expected = compiled(population_source(model))(weights, bias, None)
    for found, exact in zip(drawn, expected, strict=True):
        found = np.asarray(found)
        error = found.std(axis=0, ddof=1) / batches**0.5
        assert error.min() > 1e-4
        assert (np.abs(found.mean(axis=0) - exact) < 4 * error + 1e-15).all()


def noisy(weights, bias, key):
    return Gradients(weights * jax.random.uniform(key), bias)


def test_any_source_and_optimizer_and_a_continued_run():
    start, key = atoms(4, 5, 3), jax.random.key(1)
    observe = {"pair": weights_and_bias, "step": lambda snapshot: snapshot.step}
    build = lambda steps: compiled(  # noqa: E731
        learn(noisy, optax.sgd(0.1, 0.9), steps, observe=observe, every=2)
    )
    whole = build(5)(start, 1.0, key)
    assert whole.steps.tolist() == whole.history["step"].tolist() == [0, 2, 4, 5]
    assert_close(whole.history["pair"][0][0], start)
    assert_close(whole.history["pair"][0][-1], parameters(whole.params)[0])
    first = build(2)(start, 1.0, key)
    rest = build(3)(*parameters(first.params), key, first.state)
    assert rest.steps.tolist() == [2, 4, 5]
    assert_close(rest.params["params"]["weights"], whole.params["params"]["weights"])
    assert_close(rest.state.initial_params["params"]["weights"], start)


def test_every_step_has_a_key_of_its_own():
    run = compiled(learn(noisy, optax.sgd(1.0), 2, observe={"pair": weights_and_bias}))
    moved = run(np.ones((5, 3)), 0.0, jax.random.key(1))
    weights = np.asarray(moved.history["pair"][0])[:, 0, 0]
    first, second = weights[1:] / weights[:-1]
    assert abs(first - second) > 1e-3


def test_a_run_is_compiled_once():
    traces = []

    def source(weights, bias, key):
        traces.append(key)
        return Gradients(weights, bias)

    run = learn(source, optax.sgd(0.1), 2)
    run(np.ones((2, 2)), 0.0)
    found = len(traces)
    run(2 * np.ones((2, 2)), 1.0)
    assert len(traces) == found > 0


def test_columns_are_normalized_if_asked_and_zero_stays_zero():
    weights = np.array([[1.0, 0.0, 1.0], [0.0, 2.0, 0.0]])
    gradients = np.array([[0.5, 0.0, 0.0], [0.0, 0.0, -0.5]])
    for normal, expected in (
        (True, [[0.0, 0.0, 0.5**0.5], [0.0, 1.0, 0.5**0.5]]),
        (False, [[0.0, 0.0, 1.0], [0.0, 2.0, 1.0]]),
    ):
        optimizer = normalized_descent(2.0, normalize=normal)
        params = variables(weights, -0.3)
        updates, _ = optimizer.update(variables(gradients, 7.0), optimizer.init(params), params)
        moved, bias = parameters(optax.apply_updates(params, updates))
        assert_close(moved, np.array(expected))
        assert_close(bias, np.full(3, -0.3))  # without a schedule it stays


def test_step_sizes_of_the_proof():
    dictionary = np.eye(6)
    tilted = np.eye(6)
    tilted[:, 2] = 0.0, 0.0, 0.8, 0.6, 0.0, 0.0
    sparse = sparse_coding(dictionary, 2)
    nonnegative = nonnegative_sparse_coding(dictionary, 2, smallest=0.5, largest=1.5)
    assert_close(step_size(mixture_of_gaussians(dictionary)), 6.0)
    assert_close(step_size(sparse), 3.0)
    assert_close(step_size(sparse, tilted), 3.0)
    assert_close(step_size(sparse, tilted, printed=True), 3.75)
    assert_close(step_size(nonnegative), 3.0 / (13 / 12))
    assert_close(largest_step_size(sparse), 6.0)
    adaptive = normalized_descent(lambda weights: step_size(sparse, weights), normalize=False)
    params = variables(tilted, 0.0)
    updates, _ = adaptive.update(variables(np.ones((6, 6)), 0.0), adaptive.init(params), params)
    assert_close(parameters(updates)[0], np.full((6, 6), -3.0))


def test_refusals():
    model = mixture_of_gaussians(np.eye(3))
    optimizer, source = normalized_descent(1.0), population_source(model)
    with pytest.raises(ValueError, match="expected a number greater than 0"):
        normalized_descent(0.0)
    for bad in (float("nan"), float("inf"), "large", np.ones(3)):
        with pytest.raises(ValueError, match=r"step_size is .*a function of the weights"):
            normalized_descent(bad)
    with pytest.raises(ValueError, match=r"bias_schedule is 0\.5; expected a function"):
        normalized_descent(1.0, bias_schedule=0.5)
    with pytest.raises(ValueError, match=r"weights has shape \(2, 3\) and dictionary \(3, 3\)"):
        step_size(model, np.ones((2, 3)))
    for call in (
        lambda: population_source(np.eye(3)),
        lambda: fresh_source(np.eye(3), 4),
        lambda: step_size(np.eye(3)),
        lambda: largest_step_size(np.eye(3)),
    ):
        with pytest.raises(ValueError, match="model is of type ndarray"):
            call()
    with pytest.raises(ValueError, match="variables of a SparseAutoencoder"):
        optimizer.init({"weights": np.eye(3)})
    with pytest.raises(ValueError, match=r"source is of type BilinearModel.*population_source"):
        learn(model, optimizer, 3)
    with pytest.raises(ValueError, match="optimizer is of type float; expected an optax"):
        learn(source, 0.1, 3)
    with pytest.raises(ValueError, match="steps is 0"):
        learn(source, optimizer, 0)
    with pytest.raises(ValueError, match="every is -1"):
        learn(source, optimizer, 1, every=-1)
    with pytest.raises(ValueError, match=r"bias has shape \(2,\)"):
        learn(source, optimizer, 1)(np.eye(3), np.zeros(2))
    with pytest.raises(ValueError, match="bias holds NaN"):
        learn(source, optimizer, 1)(np.eye(3), jnp.nan)
    with pytest.raises(ValueError, match="need a key"):
        learn(fresh_source(model, 4), optimizer, 1)(np.eye(3), 0.0)
    with pytest.raises(ValueError, match="samples is 0"):
        fresh_source(model, 0)
    with pytest.raises(ValueError, match=r"y has shape \(3,\)"):
        batch_source(np.ones(3))
    with pytest.raises(ValueError, match=r"y is of type Samples; .*model\.sample\(key, N\)\.y"):
        batch_source(Samples(np.ones((2, 3)), np.ones((2, 3))))
    with pytest.raises(ValueError, match="activation is 'relu'"):
        batch_source(np.ones((2, 3)), "relu")
    with pytest.raises(ValueError, match="reduction is 'max'"):
        batch_source(np.ones((2, 3)), reduction="max")
    with pytest.raises(ValueError, match=r"expected an array \(n, m\): write run\(\*parameters"):
        learn(source, optimizer, 1)(variables(np.eye(3), 0.0), 0.0)
    with pytest.raises(ValueError, match="state is of type int; expected DescentState"):
        learn(source, optimizer, 1)(np.eye(3), 0.0, None, 3)
    with pytest.raises(ValueError, match=r"The source returned \w*Tracer; expected Gradients"):
        learn(lambda w, b, key: w, optimizer, 1)(np.eye(3), 0.0)
    with pytest.raises(ValueError, match=r"shapes \(\(3, 2\), \(3,\)\); expected Gradients"):
        learn(lambda w, b, key: Gradients(w.T, b), optimizer, 1)(np.ones((2, 3)), 0.0)
