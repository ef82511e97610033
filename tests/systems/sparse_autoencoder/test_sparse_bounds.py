"""The descent inequalities: they hold where their conditions do, but for slips of the text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import compiled

from ntkflow.data.generative import (
    mixture_of_gaussians,
    nonnegative_sparse_coding,
    sparse_coding,
)
from ntkflow.systems import sparse_autoencoder as system
from ntkflow.systems.sparse_autoencoder.population import (
    coefficients,
    leading_gradient,
    population_gradient,
)

gradient, leading = compiled(population_gradient), compiled(leading_gradient)


def unit(x):
    return x / np.linalg.norm(x, axis=0)


def admissible(seed, columns, m, low=-1.0):
    """Random pairs of unit columns with λ > 0.3, biases of any size, and the numbers they have."""
    rng = np.random.default_rng(seed)
    dictionary = unit(rng.normal(size=(4, columns)))
    weights = unit(dictionary + rng.uniform(0, 1.2, columns) * unit(rng.normal(size=(4, columns))))
    alignment = np.sum(weights * dictionary, axis=0)
    kept = alignment > 0.3
    dictionary, weights, alignment = dictionary[:, kept], weights[:, kept], alignment[kept]
    bias = rng.uniform(low, 0.4, len(alignment))
    return dictionary, weights, alignment, bias


def mixture_gradient(dictionary, weights, alignment, bias, p):
    return p * ((alignment + bias) ** 2 * weights - alignment * dictionary)


def correlation(g, weights, dictionary):
    return 2 * np.sum(g * (weights - dictionary), axis=0)


def moments_of(model):
    """On the host, where bounds are NumPy's: nothing of them is compiled."""
    return jax.tree.map(float, model.moments)


MIXTURE = moments_of(mixture_of_gaussians(np.eye(10)))


@pytest.mark.quick
def test_lemma_1_holds_where_its_condition_does():
    """γ = 0, thousands of random cases, and a violation for most that miss the condition."""
    a, w, alignment, bias = admissible(0, 12_000, 10)
    g = mixture_gradient(a, w, alignment, bias, 0.1)
    distance, squared = np.linalg.norm(w - a, axis=0), np.sum(g * g, axis=0)
    np.testing.assert_allclose(2 * (1 - alignment), distance**2, atol=1e-12)
    smaller, larger = system.bias_condition(bias, alignment, MIXTURE)
    condition = np.asarray(smaller <= larger)
    assert condition.sum() > 3000
    actual = correlation(g, w, a)
    for printed in (False, True):
        bound = system.gradient_correlation(
            distance, alignment, squared, distance, MIXTURE, printed=printed
        )
        holds = actual >= np.asarray(bound.value) - 1e-15
        reached = condition if not printed else condition & (alignment >= 0.5)
        assert holds[reached].all()
        assert (~holds[~condition]).mean() > 0.5
    none, full = system.bias_condition(0.0, alignment, MIXTURE)
    assert (np.asarray(none) <= np.asarray(full) + 1e-15).all()  # b = 0 is admissible


def test_lemma_1_as_printed_loses_a_factor_where_there_is_a_remainder():
    """The bias at the rim of the condition, and γ_i along W_i of the size of the rest of v_i."""
    alignment = np.linspace(0.7, 0.99, 30)
    a = np.stack([np.ones(30), np.zeros(30)])
    w = np.stack([alignment, np.sqrt(1 - alignment**2)])
    bias = np.sqrt(3 * alignment - 2) - alignment  # (b + λ)² − λ = −2 (1 − λ)
    smaller, larger = system.bias_condition(bias, alignment, MIXTURE)
    np.testing.assert_allclose(smaller, larger, rtol=1e-9)
    rest = 0.1 * 2 * (1 - alignment)
    g = mixture_gradient(a, w, alignment, bias, 0.1) - rest * w
    distance, squared = np.linalg.norm(w - a, axis=0), np.sum(g * g, axis=0)
    arguments = distance, alignment, squared, distance, MIXTURE, rest
    right = system.gradient_correlation(*arguments).value
    printed = system.gradient_correlation(*arguments, printed=True).value
    actual = correlation(g, w, a)
    np.testing.assert_allclose(actual, right, rtol=1e-9, atol=1e-15)  # the corrected form is sharp
    assert (actual < printed).all()


def test_the_bias_condition_of_lemma_4_admits_too_much_as_printed():
    """With a p_i inside of the bracket, among the k-sparse models also k = 1."""
    model = nonnegative_sparse_coding(np.eye(10), 1, 0.8, 1.2)
    moments = moments_of(model)
    k1, k2 = float(moments.kappa_1), float(moments.kappa_2)
    a, w, alignment, bias = admissible(1, 8000, 10, low=-0.5)
    on_w = k2 * alignment**2 + 2 * k1 * bias * alignment + bias**2
    g = 0.1 * (on_w * w - k2 * alignment * a)
    distance, squared = np.linalg.norm(w - a, axis=0), np.sum(g * g, axis=0)
    bound = system.gradient_correlation(distance, alignment, squared, distance, moments).value
    holds = correlation(g, w, a) >= np.asarray(bound) - 1e-15
    share = {}
    for printed in (False, True):
        smaller, larger = system.bias_condition(bias, alignment, moments, printed=printed)
        reached = np.asarray(smaller <= larger)
        assert reached.sum() > 1000
        share[printed] = holds[reached].mean()
    assert share[False] == 1
    assert share[True] < 0.9


@pytest.fixture(scope="module")
def sparse():
    rng = np.random.default_rng(2)
    n = m = 60
    dictionary = unit(rng.normal(size=(n, m)))
    weights = unit(dictionary + 0.3 * unit(rng.normal(size=(n, m))))
    return jnp.asarray(dictionary), jnp.asarray(weights)


def test_lemma_2_with_the_size_of_its_remainder(sparse):
    dictionary, weights = sparse
    n, m = dictionary.shape
    k, bias = 3, np.zeros(m)
    model = sparse_coding(dictionary, k)
    g, known = (np.asarray(f(weights, bias, model)) for f in (gradient, leading))
    distance = np.linalg.norm(weights - dictionary, axis=0)
    rest = np.linalg.norm(g - known, axis=0)
    constant = rest.max() / system.sparse_remainder(n, k, moments_of(model)).value
    assert 1 < constant < 6
    bound = system.sparse_gradient_correlation(
        distance,
        np.sum(weights * dictionary, axis=0),
        np.sum(g * g, axis=0),
        distance.max(),
        moments_of(model),
        system.sparse_remainder(n, k, moments_of(model), constant=constant).value,
    )
    assert (correlation(g, weights, dictionary) >= np.asarray(bound.value)).all()


def test_lemma_2_as_printed_is_false_without_a_remainder():
    """k = 1 and b = 0: the proof's factor 1 − δ²/2 is needed."""
    a, w, alignment, _ = admissible(3, 2000, 10)
    g = mixture_gradient(a, w, alignment, 0.0, 0.1)
    distance, squared = np.linalg.norm(w - a, axis=0), np.sum(g * g, axis=0)
    moments = moments_of(sparse_coding(np.eye(10), 1))
    arguments = distance, alignment, squared, distance, moments, 0.0
    actual = correlation(g, w, a)
    right = np.asarray(system.sparse_gradient_correlation(*arguments).value)
    assert (actual >= right - 1e-15).all()
    printed = np.asarray(system.sparse_gradient_correlation(*arguments, printed=True).value)
    assert (actual < printed - 1e-9)[distance > 0.1].all()


def test_lemma_4_holds_but_for_a_shift_that_columns_share():
    """With its p_i, Lemma 4 misses ‖e_i‖, which such a shift makes large; with it, it holds."""
    n, m, k = 64, 63, 6
    basis = np.linalg.qr(np.random.default_rng(4).normal(size=(n, n)))[0]
    dictionary = basis[:, :m]
    weights = unit(dictionary + 0.6 * basis[:, m:])
    model = nonnegative_sparse_coding(jnp.asarray(dictionary), k, 1.0, 1.0)
    bias = np.zeros(m)
    g = np.asarray(gradient(jnp.asarray(weights), bias, model))
    alpha, beta = (np.asarray(x) for x in compiled(coefficients)(weights, bias, model))
    left = np.linalg.norm(g - alpha * weights + beta * dictionary, axis=0)
    distance = np.linalg.norm(weights - dictionary, axis=0)
    alignment, squared = np.sum(weights * dictionary, axis=0), np.sum(g * g, axis=0)
    actual, holds = correlation(g, weights, dictionary), {}
    for coupling in (0.0, left):
        rest = system.nonnegative_remainder(m, k, moments_of(model), coupling).value
        bound = system.gradient_correlation(
            distance, alignment, squared, distance, moments_of(model), rest
        )
        holds[np.ndim(coupling)] = actual >= np.asarray(bound.value)
    assert not holds[0].any()
    assert holds[1].all()
    # As printed, without p_i, the remainder exceeds the whole gradient.
    printed = system.nonnegative_remainder(m, k, moments_of(model), printed=True).value
    assert float(printed) ** 2 > 5 * squared.max()


@pytest.mark.parametrize("k", [2, 5])
def test_claims_3_and_4_with_their_constants(k):
    rng = np.random.default_rng(k)
    for scale in (0.1, 1.0):
        dictionary = unit(np.eye(8, 12) + scale * rng.normal(size=(8, 12)))
        weights = unit(dictionary + 0.1 * rng.normal(size=(8, 12)))
        model = nonnegative_sparse_coding(jnp.asarray(dictionary), k, 0.5, 1.5)
        moments, bias = moments_of(model), rng.uniform(-0.5, 0.0, 12)
        alpha, beta = compiled(coefficients)(weights, bias, model)
        alignment = np.sum(weights * dictionary, axis=0)
        p, k1, k2 = moments.single, float(moments.kappa_1), float(moments.kappa_2)
        main = p * (k2 * alignment**2 + 2 * k1 * bias * alignment + bias**2)
        norm, weight_norm = np.linalg.norm(dictionary, 2), np.linalg.norm(weights, 2)
        off = np.abs(np.asarray(alpha) - main)
        assert (off <= np.asarray(system.alpha_deviation(bias, alignment, model, norm).value)).all()
        off = np.abs(np.asarray(beta) - k2 * p * alignment)
        largest = np.abs(bias).max()
        assert (
            off <= np.asarray(system.beta_deviation(largest, model, norm, weight_norm).value)
        ).all()


# Steps, normalization, floors.


def test_a_step_contracts_as_the_lemma_says():
    """The step min_i 1/(p_i λ_i), and smaller ones; the identity of the docstring besides."""
    a, w, alignment, _ = admissible(5, 4000, 10)
    near = alignment > 0.8
    a, w, alignment = a[:, near], w[:, near], alignment[near]
    g = mixture_gradient(a, w, alignment, 0.0, 0.1)
    distance, squared = np.linalg.norm(w - a, axis=0), np.sum(g * g, axis=0)
    c = 0.37
    v = g - c * (w - a)
    identity = c * distance**2 + (squared - np.sum(v * v, axis=0)) / c
    np.testing.assert_allclose(correlation(g, w, a), identity, rtol=1e-9, atol=1e-12)
    largest = float(system.lemma_step_size(alignment, MIXTURE).value)
    assert float(system.lemma_step_size(alignment[0], MIXTURE).value) >= largest  # of one column
    assert largest < float(system.lemma_step_size(alignment, MIXTURE, printed=True).value)
    for zeta in (largest, 0.5 * largest):
        tau = np.asarray(system.contraction(zeta, alignment, distance, MIXTURE).value)
        after = np.sum((w - zeta * g - a) ** 2, axis=0)
        assert (after <= (1 - tau) * distance**2 + 1e-15).all()
        assert (tau < 1).all()


def test_normalization_moves_a_column_no_further_than_a_chord():
    rng = np.random.default_rng(6)
    atom = np.eye(3)[:, :1]
    rho = rng.uniform(0.01, 0.99, 4000)
    moved = atom + rho * unit(rng.normal(size=(3, 4000)))
    after = np.linalg.norm(unit(moved) - atom, axis=0)
    bound = system.normalized_distance(rho).value
    assert (after <= bound + 1e-12).all()
    tangent = np.stack([1 - rho**2, rho * np.sqrt(1 - rho**2), 0 * rho])  # where it is attained
    np.testing.assert_allclose(np.linalg.norm(tangent - atom, axis=0), rho, rtol=1e-9)
    attained = np.linalg.norm(unit(tangent) - atom, axis=0)
    np.testing.assert_allclose(attained, bound, rtol=1e-9)
    beyond = system.normalized_distance(np.array([1.0, 1.01, np.nan])).value
    np.testing.assert_allclose(beyond, [2**0.5, 2.0, np.nan])
    slope = jax.grad(lambda rho: system.normalized_distance(rho).value)
    np.testing.assert_allclose(slope(0.0), 1.0)
    proven = 2 * rho / (1 - rho)
    assert (bound <= proven).all()
    printed = system.normalized_distance(rho, printed=True).value
    assert (attained > printed)[rho > 0.8].all()
    assert (attained < printed)[rho < 0.79].all()


@pytest.mark.parametrize("delta", [0.05, 0.5, 0.9])
def test_the_range_of_tau_of_lemma_5(delta):
    """From (1 + δ)/(2 + δ) on, δ-closeness survives; from (1 − δ)/(2 − δ) on not for δ = 0.9."""
    for printed in (False, True):
        tau = system.smallest_contraction(delta, printed=printed).value
        kept = system.normalized_distance((1 - tau) * delta).value <= delta
        assert kept == (not printed or delta < 0.9)
    tau = system.smallest_contraction(delta).value
    rho = (1 - tau) * delta
    np.testing.assert_allclose(2 * rho / (1 - rho), delta)  # the proof's chain, with its sign


def test_floors_and_their_sum():
    kinds = "mixture_of_gaussians", "sparse_coding", "nonnegative_sparse_coding"
    values = [system.floor(100, 200, 5, kind, constant=2.0).value for kind in kinds]
    np.testing.assert_allclose(values, [0.04, 1.0, 1.25])
    error, tau, floor = 3.0, 0.7, 0.2
    for steps in range(4):
        bound = system.error_decay(steps, tau, 3.0, floor).value
        np.testing.assert_allclose(bound, error)
        error = (1 - tau) * error + floor
    assert system.largest_spectral_distance(2.0).value == 4.0


def test_what_is_refused():
    with pytest.raises(ValueError, match="distance is -1"):
        system.normalized_distance(-1.0)
    with pytest.raises(ValueError, match=r"tau is 0\.0; expected a share in \(0, 1\]"):
        system.error_decay(2, 0.0, 1.0, 0.1)
    model = mixture_of_gaussians(np.eye(3))
    for call in (
        lambda: system.bias_condition(0.0, 1.0, model),
        lambda: system.nonnegative_remainder(8, 2, model),
        lambda: system.lemma_step_size(1.0, model),
        lambda: system.contraction(1.0, 1.0, 0.1, model),
    ):
        with pytest.raises(ValueError, match=r"moments is of type BilinearModel; .*model\.moments"):
            call()
    with pytest.raises(ValueError, match="model is of type Moments"):
        system.beta_deviation(0.0, model.moments)
    with pytest.raises(ValueError, match="n is 0"):
        system.floor(0, 1, 1, "sparse_coding")
    with pytest.raises(ValueError, match=r"closeness is -0\.1"):
        system.gradient_correlation(0.1, 0.9, 0.1, -0.1, MIXTURE)
