"""The quantities of the theorems: each correction of the text by a test that decides."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import compiled

from ntkflow.systems import two_layer_relu as system
from ntkflow.systems.two_layer_relu import (
    TwoLayerReLU,
    certificate_gradient_flow,
    gram,
    limit_gram,
    observables,
    predict,
    unstable_patterns,
)
from ntkflow.training.flow import gradient_flow
from ntkflow.training.losses import squared_loss

SETTINGS = [(1, 0.5, 0.5), (3, 0.31, 0.1), (10, 0.05, 1e-3), (1000, 0.246, 0.02)]  # n, λ_0, δ


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def sphere(seed, n, d):
    x = np.random.default_rng(seed).normal(size=(n, d))
    return jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def variables_of(kernel):
    signs = jnp.asarray(np.ones(kernel.shape[-1]))
    return {"params": {"kernel": kernel}, "fixed": {"output": signs}}


# The widths and radii: the chain of the proof, with its constants.


@pytest.mark.quick
@pytest.mark.parametrize("dynamics", ["flow", "descent"])
@pytest.mark.parametrize(("n", "lambda_0", "delta"), SETTINGS)
def test_the_sufficient_constant_is_that_of_the_proof(n, lambda_0, delta, dynamics):
    """At the required width R' = R, with ‖y − u(0)‖² at Markov's bound and δ/3 for each event."""
    labels = 1.3
    constant = system.sufficient_constant(labels, dynamics).value
    m = system.required_width(n, lambda_0, delta, constant=constant).value
    residual = math.sqrt(3 * n * (labels**2 + 0.5) / delta)
    radius = system.stable_radius(n, lambda_0, delta / 3, dynamics).value
    m_confined = system.confined_width(n, lambda_0, delta / 3, residual, dynamics).value
    np.testing.assert_allclose(m, m_confined, rtol=1e-12)
    distance = system.largest_distance(n, round(m), lambda_0, residual, dynamics).value
    np.testing.assert_allclose(distance, radius, rtol=1e-4)
    assert m > system.initial_gram_width(n, lambda_0, delta / 3).value


def test_the_printed_power_of_lambda_0_is_not_that_of_the_proof():
    ratio = {}
    for printed in (True, False):
        a, b = (system.required_width(5, l, 0.1, printed=printed).value for l in (0.1, 0.2))
        ratio[printed] = a / b
    a, b = (system.confined_width(5, l, 0.1, 1.0, "flow").value for l in (0.1, 0.2))
    np.testing.assert_allclose([ratio[False], ratio[True], a / b], [16.0, 64.0, 16.0])


@pytest.mark.parametrize(("n", "lambda_0", "delta"), SETTINGS)
def test_the_radii_are_what_the_proofs_need(n, lambda_0, delta):
    flow = system.stable_radius(n, lambda_0, delta, "flow").value
    change = system.gram_perturbation(n, flow, delta).value
    np.testing.assert_allclose(change, lambda_0 / 4, rtol=1e-12)
    descent = system.stable_radius(n, lambda_0, delta, "descent").value
    step = system.largest_step_size(n, lambda_0, constant=0.25).value
    factor = system.contraction_factor(n, lambda_0, delta, step, descent).value
    assert factor <= 1 - step * lambda_0 / 2 + 1e-15
    if n == 1:  # there the two perturbations are equal, and nothing is given away
        np.testing.assert_allclose(factor, 1 - step * lambda_0 / 2, rtol=1e-12)


@pytest.mark.parametrize("c", [1.0, 1e-2, 1e-4])
def test_the_printed_radius_of_descent_fails_for_small_delta(c):
    """Without δ in R, 2C η (n² + n^1.5) R / δ is not below ηλ_0/2, however small c and η."""
    n, lambda_0, delta, step = 5, 0.2, 1e-6, 1e-12
    factors = {}
    for printed in (True, False):
        radius = system.stable_radius(
            n, lambda_0, delta, "descent", constant=min(c, 0.05), printed=printed
        ).value
        factors[printed] = system.contraction_factor(n, lambda_0, delta, step, radius).value
    assert factors[True] > 1  # no contraction at all
    assert factors[False] < 1 - step * lambda_0 / 2


# Lemma 2.3 and Corollary 2.1: how far the weights move.


def test_lemma_2_3_wants_the_factor_2():
    """One sample, 3 of 8 neurons active: λ_min(H) = 3/8 ≥ λ_0/2 = 1/4, as the lemma asks.

    u' = (3/8)(y − u), and an active weight moves by ∫ |y − u| / √m = (8/3) |y − u(0)| / √m, more
    than the printed |y − u(0)| / (√m λ_0) = 2 |y − u(0)| / √m.
    """
    x = jnp.array([[1.0, 0.0]])
    first = np.array([1.0, 0.8, 1.2, -1.0, -0.5, -0.7, -0.9, -1.1])
    variables = variables_of(jnp.asarray(np.stack([first, np.zeros(8)])))
    y = np.asarray(compiled(predict)(variables, x)) + 0.3
    run = gradient_flow(
        squared_loss(TwoLayerReLU(8).apply), np.linspace(0, 40, 9), observe=observables()
    )
    trajectory = jax.device_get(compiled(run)(variables, (x, y)))
    history = trajectory.history
    assert (history["gram_smallest_eigenvalue"] >= 0.25).all()
    moved = history["largest_weight_distance"][-1]
    np.testing.assert_allclose(moved, 8 / 3 * 0.3 / 8**0.5, rtol=1e-5)
    printed = system.largest_distance(1, 8, 0.5, 0.3, "flow", printed=True).value
    corrected = system.largest_distance(1, 8, 0.5, 0.3, "flow").value
    assert printed < moved < corrected
    certificate = certificate_gradient_flow(history, trajectory.steps, (x, y), 8)
    claims = {claim.statement: claim for claim in certificate.claims}
    np.testing.assert_allclose(claims["‖w_r − w_r(0)‖ ≤ R'"].ratio, 2 / 3, rtol=1e-5)


def test_the_factors_of_the_distance_are_those_of_the_sums():
    lambda_0, e = 0.3, 1.0
    for step in (1e-4, 0.1, 1.0):
        k = np.arange(int(400 / step))
        total = step * np.sum((1 - step * lambda_0 / 2) ** (k / 2))
        factor = system.largest_distance(1, 1, lambda_0, e, "descent").value
        assert total <= factor
    s = np.linspace(0, 400, 400_001)
    rates = system.error_decay_flow(s, lambda_0).value ** 0.5
    integral = np.sum((rates[1:] + rates[:-1]) / 2) * (s[1] - s[0])
    np.testing.assert_allclose(
        integral, system.largest_distance(1, 1, lambda_0, e, "flow").value, rtol=1e-6
    )
    np.testing.assert_allclose(
        4 / lambda_0, 1e-4 * np.sum((1 - 1e-4 * 0.15) ** (np.arange(4e6) / 2)), rtol=1e-3
    )


# Initialization: Lemma 2.1 and the initial error, by Monte Carlo.


def test_expected_initial_error_is_exact_where_the_printed_one_is_not():
    x = jnp.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 0.5]])
    y = jnp.array([1.0, -0.5, 0.0])
    module = TwoLayerReLU(5)
    keys = jax.random.split(jax.random.key(0), 20_000)
    errors = lambda key: jnp.sum((y - module.apply(module.init(key, x), x)) ** 2)  # noqa: E731
    draws = np.asarray(compiled(jax.vmap(errors))(keys))
    error = draws.std() / len(draws) ** 0.5
    exact, printed = (system.expected_initial_error(x, y, printed=p).value for p in (False, True))
    assert float(exact) == 1.25 + 0.5 + 0.5 + 0.125
    assert abs(draws.mean() - exact) < 4 * error
    assert abs(draws.mean() - printed) > 10 * abs(draws.mean() - exact)
    delta = 0.1
    assert (draws > exact / delta).mean() < delta


def test_hoeffding_deviation_covers_and_the_printed_one_is_looser():
    n, m, delta, draws = 4, 60, 0.2, 4000
    x = sphere(1, n, 3)
    largest = lambda w: jnp.max(jnp.abs(gram(variables_of(w), x) - limit_gram(x)))  # noqa: E731
    deviation = np.asarray(compiled(jax.vmap(largest))(normal(2, draws, 3, m)))
    bound = system.initial_gram_entry_deviation(n, m, delta).value
    assert (deviation > bound).mean() < delta
    assert (deviation > 0.5 * bound).mean() > delta  # within a factor of two of the truth
    for size in (2, 10, 1000):
        for probability in (1e-6, 0.1, 0.9):
            a, b = (
                system.initial_gram_entry_deviation(size, m, probability, printed=p).value
                for p in (False, True)
            )
            assert a < b


@pytest.mark.parametrize("printed", [False, True])
@pytest.mark.parametrize(("n", "lambda_0", "delta"), SETTINGS[1:])
def test_lemma_2_1_width_follows_from_the_deviation(n, lambda_0, delta, printed):
    m = math.ceil(system.initial_gram_width(n, lambda_0, delta, printed=printed).value)
    entry = system.initial_gram_entry_deviation(n, m, delta, printed=printed).value
    np.testing.assert_allclose(n * entry, lambda_0 / 4, rtol=1e-3)


def test_lemma_2_2_needs_the_width_of_lemma_2_1():
    """Its statement has none: with two neurons most draws have λ_min(H(0)) < λ_0/2, unmoved."""
    x = sphere(3, 3, 4)
    grams = compiled(jax.vmap(lambda w: gram(variables_of(w), x)))(normal(4, 200, 4, 2))
    least = np.linalg.eigvalsh(grams)[:, 0]
    lambda_0 = float(compiled(system.limit_smallest_eigenvalue)(x))
    assert (least < lambda_0 / 2).mean() > 0.5


# Patterns: Lemmas 2.2 and 2.5.


def test_probability_of_a_pattern_change():
    x = 3 * np.asarray(sphere(5, 1, 4))  # the norm cancels
    variables, compute = variables_of(normal(6, 4, 200_000)), compiled(unstable_patterns)
    for radius in (0.05, 0.5):
        unstable = np.asarray(compute(variables, x, radius))
        share, exact = unstable.mean(), math.erf(radius / math.sqrt(2))
        error = math.sqrt(exact * (1 - exact) / 200_000)
        assert abs(share - exact) < 4 * error
        assert exact < system.pattern_change_probability(radius).value < exact * 1.05


def test_unstable_neurons_by_markov():
    n, m, radius, delta = 3, 40, 0.05, 0.3
    x = sphere(7, n, 3)
    count = lambda w: unstable_patterns(variables_of(w), x, radius).sum()  # noqa: E731
    counts = np.asarray(compiled(jax.vmap(count))(normal(8, 4000, 3, m)))
    mean = delta * system.unstable_neurons(n, m, radius, delta).value  # (2.11), summed
    assert abs(counts.mean() - mean) < 4 * counts.std() / 4000**0.5 + 1e-3 * mean
    assert (counts > system.unstable_neurons(n, m, radius, delta).value).mean() < delta


def test_gram_change_is_bounded_by_the_unstable_neurons_at_the_worst_weights():
    n, m, radius = 4, 500, 0.1
    x = sphere(9, n, 4)
    w = np.asarray(normal(10, 4, m))
    changes = []
    gram_of = compiled(lambda w: gram(variables_of(w), x))
    for point in np.asarray(x):  # each weight moves by R against its sign on x_i
        direction = -np.sign(point @ w)[None, :] * point[:, None]
        change = np.subtract(*map(np.asarray, (gram_of(w + radius * direction), gram_of(w))))
        changes.append(np.linalg.norm(change, 2))
    unstable = compiled(unstable_patterns)(variables_of(jnp.asarray(w)), x, radius)
    sizes = 2 * n * np.asarray(unstable).sum() / m
    assert 0 < max(changes) <= sizes
    mean_size = 2 * n * system.unstable_neurons(n, m, radius, 0.5).value / m
    np.testing.assert_allclose(system.gram_perturbation(n, radius, 0.5).value, mean_size)


# Doors.


def test_arrays_broadcast_and_large_n_does_not_overflow():
    lambda_0 = np.array([0.1, 0.2])
    width = system.required_width(np.array([10, 3000])[:, None], lambda_0, 0.1)
    assert np.asarray(width.value).shape == (2, 2)
    np.testing.assert_allclose(width.value[1, 0], 3000.0**6 / (1e-4 * 1e-3))
    assert system.error_decay_descent(np.arange(5), 0.5, 0.1).value.shape == (5,)
    assert system.initial_gram_entry_deviation(np.array([2, 3]), 100, 0.1).value.shape == (2,)


def test_bounds_are_functions_under_jit():
    compute = lambda n, l, d: (  # noqa: E731
        system.required_width(n, l, d).value,
        system.initial_gram_width(n, l, d).value,
        system.stable_radius(n, l, d, "descent").value,
        system.error_decay_flow(2.0, l).value,
    )
    arguments = (3.0, 0.25, 0.1)
    np.testing.assert_allclose(jax.jit(compute)(*arguments), compute(*arguments), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("required_width", (0, 0.2, 0.1), "n is 0; expected a whole number greater than 0"),
        ("required_width", (2.5, 0.2, 0.1), "n is 2.5"),
        ("required_width", (3, 0.0, 0.1), "lambda_0 is 0.0; expected greater than 0"),
        ("required_width", (3, 0.2, 1.0), r"delta is 1.0; .* in \(0, 1\)"),
        ("stable_radius", (3, np.array([0.2, -0.1]), 0.1, "flow"), "lambda_0 is"),
        ("stable_radius", (3, 0.2, 0.1, "sgd"), r"dynamics is 'sgd'; .*'descent'"),
        ("largest_distance", (3, 10, 0.2, -1.0, "flow"), "residual_norm is -1.0"),
        ("unstable_neurons", (3, 0, 0.1, 0.1), "m is 0"),
        ("error_decay_descent", (3, 0.2, -0.1), "step_size is -0.1; expected 0 or greater"),
        ("expected_initial_error", (jnp.ones((3, 2)), jnp.ones(2)), "x has 3, y has 2"),
    ],
)
def test_bad_arguments_are_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(system, name)(*arguments)
