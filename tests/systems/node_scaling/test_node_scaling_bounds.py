"""Bounds: numbers of the paper's own setting, the proofs' algebra, and lemmas against samples."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled

from ntkflow.systems.node_scaling import (
    bounds,
    bounds_descent,
    bounds_perturbation,
    bounds_relu,
    bounds_smooth,
)
from ntkflow.systems.node_scaling.bounds import Setting, measure_setting

# Swish on the simulated data: κ_n, C_1 and M; C = 4 bounds labels with noise of variance 1.
SIMULATED = Setting(100, 50, 1.0, 5.885e-5, 4.0, 0.0050738, 0.5, 0.1)
SMALL = Setting(7, 3, 0.4, 0.02, 1.5, 0.2, 0.7, 0.05)


def parts(m, gamma):
    """Both parts of λ for weights j⁻²: their sum is `node_scales(zipf(m, 0.5), gamma)`."""
    weights = np.arange(1, m + 1) ** -2.0
    return np.full(m, gamma / m), (1 - gamma) * weights / weights.sum()


def values(conditions):
    return np.array([float(condition.value) for condition in conditions])


@pytest.mark.quick
def test_the_widths_and_step_sizes_of_the_simulated_data():
    expected = [2.07e6, 1.6e18, 1.7e24]
    np.testing.assert_allclose(
        values(bounds_smooth.width_conditions(SIMULATED)), expected, rtol=0.03
    )
    assert float(bounds_smooth.required_width(SIMULATED).value) > 1.7e24
    caps = [3.4e4, 1.8e-6, 1.0e-7]
    np.testing.assert_allclose(
        values(bounds_descent.step_size_conditions(SIMULATED)), caps, rtol=0.04
    )
    smallest = values(bounds_descent.step_size_conditions(SIMULATED)).min()
    assert float(bounds_descent.largest_step_size(SIMULATED).value) == smallest


def test_theorem_4_1_is_lemma_e_5_at_the_radii_of_its_proof():
    """(c), (d) and the widths follow: the m that the theorem asks suffices for all of them."""
    scales = sum(parts(20, SMALL.gamma))
    radii = bounds_smooth.proof_radii(SMALL, scales).value
    conditions = bounds_smooth.confined_width_conditions(SMALL, radii)
    assert_close(values(conditions), values(bounds_smooth.width_conditions(SMALL)))
    radius = bounds_smooth.stable_radius(SMALL, radii).value
    assert_close(radius, bounds_smooth.weight_distance(SMALL, scales).value)
    change = bounds_smooth.gram_change(SMALL, scales).value
    assert_close(bounds_smooth.confined_gram_change(SMALL, scales, radii).value, change)
    norm = math.sqrt(bounds.initial_error(SMALL).value)
    least = bounds.run_smallest_eigenvalue(SMALL).value
    inner = bounds.node_distance(SMALL.n, SMALL.d, scales, norm, least).value
    assert_close(inner, radius / 2)  # R' of Markov's event is half of R
    # At these widths Lemma E.4 leaves half of γκ_n/2, which Proposition D.1 gives.
    width = values(conditions).max()
    drop = bounds_perturbation.eigenvalue_drop(
        SMALL.n,
        SMALL.d,
        SMALL.gamma,
        np.full(20, math.sqrt(np.sum(radii**2) / width)) * SMALL.delta / 4,
        SMALL.curvature,
    ).value
    assert drop <= SMALL.gamma * SMALL.kappa / 4 * (1 + 1e-12)


def test_theorem_a_1_is_lemma_e_3_at_the_radii_of_its_proof():
    """With 2²⁴ and 2³⁴, which suffice: Σ_j √λ_j ≤ √m is an equality for equal scales."""
    m = 1e6
    scales = np.full(16, 1 / m)
    radii = bounds_relu.proof_radii_relu(SMALL, scales).value
    total = m / 16 * np.asarray(radii)  # 16 nodes stand for m
    conditions = values(bounds_relu.confined_width_conditions_relu(SMALL, total))
    asked = values(bounds_relu.width_conditions_relu(SMALL))
    # m ≥ a √m is m ≥ a²
    assert_close(conditions[1:] ** 2 / m, asked[1:])
    assert_close(conditions[0], asked[0])
    printed = values(bounds_relu.width_conditions_relu(SMALL, printed=True))
    assert_close(printed, asked * np.array([1.0, 2.0, 2.0]))
    assert bounds_relu.required_width_relu(SMALL).value == asked.max()
    radius = bounds_relu.stable_radius_relu(SMALL, radii).value
    assert_close(radius, bounds_relu.weight_distance_relu(SMALL, scales).value)
    norm = math.sqrt(bounds.initial_error(SMALL._replace(second_moment=1 / SMALL.d)).value)
    least = bounds.run_smallest_eigenvalue(SMALL).value
    inner = bounds.node_distance(SMALL.n, SMALL.d, scales, norm, least).value
    assert_close(inner, radius / 2)
    scales = sum(parts(20, SMALL.gamma))
    n, d, gamma, kappa, c, _, _, delta = SMALL
    d_0, powers = math.sqrt(2 * c**2 + 2 / d), np.sum(scales**1.5)
    first = 2**9 * n**2 * d_0 / (kappa * d**1.5 * gamma * delta**2.5) * powers
    second = 2**6 * n**1.5 * math.sqrt(d_0 * powers / (kappa * gamma)) / (d * delta) ** 1.25
    assert_close(bounds_relu.gram_change_relu(SMALL, scales).value, first + second)


def test_theorem_h_1_tends_to_the_flow():
    """As η → 0 its widths are half of and as large as Theorem 4.1's, its rate is that of (b)."""
    step = 1e-9
    flow = values(bounds_smooth.width_conditions(SMALL))
    descent = values(bounds_descent.width_conditions_descent(SMALL, step))
    np.testing.assert_allclose(descent / flow, [1.0, 0.5, 1.0], rtol=1e-9)
    assert bounds_descent.required_width_descent(SMALL, step).value == descent.max()
    decay = bounds_descent.error_decay_descent(1e9, SMALL, step).value
    least = bounds.run_smallest_eigenvalue(SMALL).value
    np.testing.assert_allclose(decay, bounds.loss_decay(1.0, least).value, rtol=1e-7)
    scales = np.array([0.7, 0.3])
    distance = bounds_descent.weight_distance_descent(SMALL, scales, step).value
    np.testing.assert_allclose(
        distance, np.asarray(bounds_smooth.weight_distance(SMALL, scales).value) / 2, rtol=1e-9
    )


def test_the_four_terms_of_the_proof_of_theorem_h_1():
    """At its widths and step size each is at most γκ_n/16, and some are equal to it."""
    n, d, gamma, kappa, *_, delta = SMALL
    step = float(bounds_descent.largest_step_size(SMALL).value)
    m = values(bounds_descent.width_conditions_descent(SMALL, step))
    ones = np.ones(1)  # λ_j of all nodes together: Σ c_j² does not depend on how they are split
    squares = (2 * bounds_descent.weight_distance_descent(SMALL, ones, step).value) ** 2
    curvature, norm = SMALL.curvature, math.sqrt(bounds.initial_error(SMALL).value)
    terms = [
        n * curvature**2 * gamma / (4 * d**2 * m[1]) * squares.item(),
        n * curvature * gamma / d**1.5 * math.sqrt(squares.item() / m[2]),
        step * curvature * n**1.5 / d**2 * norm,
        step * n**2 / (2 * d**2),
    ]
    ratios = np.array(terms) * 16 / (gamma * kappa)
    assert_close(ratios[:2], np.ones(2))
    assert_close(ratios[2:].max(), np.float64(1.0))
    assert ratios.max() <= 1 + 1e-12
    least = float(bounds_descent.descent_smallest_eigenvalue(SMALL).value)
    factor = bounds_descent.contraction_factor(n, d, step, least, norm, curvature).value
    assert factor <= bounds_descent.error_decay_descent(1, SMALL, step).value + 1e-15
    assert delta < 1


def test_movement_vanishes_with_the_width_for_gamma_1_alone():
    widths = (10**3, 10**5)
    for gamma in (1.0, 0.5):
        setting = SMALL._replace(gamma=gamma)
        ratios = []
        for distance, change in (
            (bounds_smooth.weight_distance, bounds_smooth.gram_change),
            (bounds_relu.weight_distance_relu, bounds_relu.gram_change_relu),
        ):
            scales = [sum(parts(m, gamma)) for m in widths]
            few, many = (np.max(distance(setting, s).value) for s in scales)
            ratios += [
                many / few,
                change(setting, scales[1]).value / change(setting, scales[0]).value,
            ]
        assert (max(ratios) < 0.5) if gamma == 1 else (min(ratios) > 0.9)


def test_no_width_suffices_without_gamma_or_kappa():
    for setting in (SMALL._replace(gamma=0.0), SMALL._replace(kappa=0.0)):
        widths = (
            bounds_smooth.width_conditions(setting),
            bounds_relu.width_conditions_relu(setting),
            bounds_descent.width_conditions_descent(setting, 1e-3),
        )
        for conditions in widths:
            assert np.isinf(values(conditions)[1:]).all()
        assert np.isinf(bounds_smooth.gram_change(setting, np.array([0.6, 0.4])).value)
        assert values(bounds_descent.step_size_conditions(setting)).min() == 0
    relu = SMALL._replace(curvature=math.inf)
    assert np.isinf(values(bounds_smooth.width_conditions(relu))[1:]).all()


def test_traced_numbers_batches_and_dtypes(dtype):
    number = lambda value: jnp.asarray(value, dtype)  # noqa: E731
    scales = number(sum(parts(5, 0.5)))

    def of_gamma(gamma):
        setting = Setting(7, 3, gamma, number(0.02), number(1.5), number(0.2), number(0.7), 0.05)
        return (
            bounds_smooth.required_width(setting).value,
            bounds_relu.required_width_relu(setting).value,
            bounds_descent.required_width_descent(setting, number(1e-3)).value,
            bounds_smooth.gram_change(setting, scales).value,
            bounds_relu.gram_change_relu(setting, scales).value,
            bounds_perturbation.gram_perturbation(7, 3, scales, 2 * scales, 0.7).value,
        )

    gammas = number([0.0, 0.5, 1.0])
    batch = compiled(jax.vmap(of_gamma))(gammas)
    assert all(value.dtype == dtype for value in batch)
    setting = SMALL._replace(gamma=0.5)
    host = np.asarray(scales, float)
    expected = (
        bounds_smooth.required_width(setting).value,
        bounds_relu.required_width_relu(setting).value,
        bounds_descent.required_width_descent(setting, 1e-3).value,
        bounds_smooth.gram_change(setting, host).value,
        bounds_relu.gram_change_relu(setting, host).value,
        bounds_perturbation.gram_perturbation(7, 3, host, 2 * host, 0.7).value,
    )
    for value, number_on_host in zip(batch, expected, strict=True):
        np.testing.assert_allclose(value[1], number_on_host, rtol=300 * jnp.finfo(dtype).eps)


def test_the_setting_of_relu_and_of_other_weights():
    x, y = 0.5 * jnp.eye(3), jnp.array([1.0, -2.0, 0.5])
    setting = measure_setting(x, y, 0.25, activation=jax.nn.relu)
    assert_close(setting.kappa, np.float64(0.25 / 3 / 2))
    np.testing.assert_allclose(setting.second_moment, 1 / 6, rtol=1e-12)
    assert setting.curvature == math.inf
    assert float(setting.label_bound) == 2
    doubled = measure_setting(x, y, 0.25, activation=jax.nn.relu, variance=2.0, label_bound=3.0)
    np.testing.assert_allclose(doubled.second_moment, 1 / 3, rtol=1e-12)
    assert doubled.label_bound == 3
    assert_close(doubled.kappa, setting.kappa)  # the kernel of ReLU knows no scale


def test_the_expected_initial_error_against_monte_carlo():
    """Exact for any norms, labels and λ, and below what the proofs take for it."""
    x = np.array([[0.6, 0.0, 0.0], [0.3, -0.9, 0.0], [0.0, 0.2, 0.5]])
    y, scales, draws = np.array([0.5, -1.0, 0.2]), np.array([0.8, 0.2]), 40_000
    activation = jax.nn.relu
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(draws, 3, 2)) * math.sqrt(2.0)
    signs = np.sqrt(scales) * rng.choice([-1.0, 1.0], size=(draws, 2))
    hidden = np.maximum(x @ kernel / math.sqrt(3), 0)
    errors = np.sum((np.einsum("pij,pj->pi", hidden, signs) - y) ** 2, axis=1)
    expected = bounds.expected_initial_error(x, y, activation=activation, variance=2.0).value
    assert abs(errors.mean() - expected) < 3 * errors.std() / math.sqrt(draws)
    one = bounds.expected_initial_error(x, y, activation=activation).value
    printed = bounds.expected_initial_error(x, y, activation=activation, printed=True).value
    assert one < printed
    setting = measure_setting(x, y, 1.0, activation=activation, delta=0.5)
    assert one < bounds.initial_error(setting).value / 4


@pytest.fixture(scope="module")
def perturbed():
    """60 nodes of tanh or ReLU before and after a move of each, in plain NumPy."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4, 3))
    x *= np.array([1.0, 0.9, 0.7, 1.0])[:, None] / np.linalg.norm(x, axis=1, keepdims=True)
    return x, rng.normal(size=(3, 60)), rng.normal(size=(50, 3, 60))


def tanh_slope(z):
    return 1 - np.tanh(z) ** 2


def kernels(x, kernel, scales, slope):
    gates = slope(x @ kernel / math.sqrt(3))
    return x @ x.T / 3 * np.einsum("...ij,j,...kj->...ik", gates, scales, gates), gates


def spectral(matrices):
    return np.abs(np.linalg.eigvalsh(matrices)).max(axis=-1)


def test_lemma_e_4_is_no_matter_of_probability(perturbed):
    """For λ and both its parts; the γ_k under the root makes it sharper than as printed."""
    x, kernel, moves = perturbed
    gamma, curvature = 0.3, 4 / (3 * math.sqrt(3))
    uniform, asymmetric = parts(60, gamma)
    first, _ = kernels(x, kernel, uniform, tanh_slope)
    for size in (0.01, 0.3):
        moved = kernel + size * moves
        radii = 2 * np.linalg.norm(size * moves, axis=-2)
        after = None
        for scales in (uniform, asymmetric, uniform + asymmetric):
            before, gates = kernels(x, kernel, scales, tanh_slope)
            after, now = kernels(x, moved, scales, tanh_slope)
            change = spectral(after - before)
            bound = bounds_perturbation.gram_perturbation(4, 3, scales, radii, curvature).value
            printed = bounds_perturbation.gram_perturbation(
                4, 3, scales, radii, curvature, printed=True
            ).value
            assert (change <= bound).all()
            assert (bound <= printed * (1 + 1e-12)).all()
            squares = np.sum(x**2, axis=1) / 3
            frobenius = np.einsum("i,pij,j->p", squares, (now - gates) ** 2, scales)
            between = bounds_perturbation.gram_change_by_gradients(4, 3, scales, frobenius).value
            assert (change <= between).all()
            assert (between <= bound).all()
        drop = bounds_perturbation.eigenvalue_drop(4, 3, gamma, radii, curvature).value
        least = np.linalg.eigvalsh(after)[:, 0]
        assert (np.linalg.eigvalsh(first)[0] - least <= drop).all()
        uniform_bound = bounds_perturbation.gram_perturbation(4, 3, uniform, radii, curvature)
        assert_close(drop, uniform_bound.value)  # (23) is (22) for the equal part


def test_lemma_e_2_over_random_weights(perturbed):
    """The worst move within the radii flips each gate it can: rarely further than the bound."""
    x, _, _ = perturbed
    gamma, delta, rng = 0.3, 0.5, np.random.default_rng(2)
    radii = 0.5 * np.linspace(1.0, 0.2, 60)
    kernel = rng.normal(size=(2000, 3, 60))
    margins = np.abs(np.einsum("id,pdj->pij", x, kernel))
    norms = np.linalg.norm(x, axis=1)
    flips = margins <= delta**2 / 4 * radii[None, None] * norms[None, :, None]
    for scales in parts(60, gamma):
        changed = np.einsum("i,pij,j->p", norms**2 / 3, flips, scales)
        change = bounds_perturbation.gram_change_by_gradients(4, 3, scales, changed).value
        bound = bounds_perturbation.gram_perturbation_relu(4, 3, scales, radii).value
        printed = bounds_perturbation.gram_perturbation_relu(4, 3, scales, radii, printed=True)
        assert np.mean(change > bound) <= delta / 2
        assert bound < printed.value
        # Markov's inequality is of the mean, which holds without its factor.
        assert change.mean() <= delta / 2 * bound
    equal, _ = parts(60, gamma)
    drop = bounds_perturbation.eigenvalue_drop_relu(4, 3, gamma, radii).value
    assert_close(drop, bounds_perturbation.gram_perturbation_relu(4, 3, equal, radii).value)


def test_gates_flip_with_a_probability_that_no_norm_changes():
    rng, draws = np.random.default_rng(3), 200_000
    for norm, radius in itertools.product((1.0, 0.25), (0.05, 0.3)):
        projected = norm * rng.normal(size=draws)
        measured = np.mean(np.abs(projected) <= radius * norm)
        error = math.sqrt(measured / draws)
        sharp = bounds_perturbation.gate_flip_probability(radius, norm).value
        printed = bounds_perturbation.gate_flip_probability(radius, norm, printed=True).value
        assert measured <= sharp + 3 * error
        assert measured > 0.97 * sharp
        assert sharp < 0.8 * printed


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match=r"gamma is 1\.5; expected a number in"):
        bounds_smooth.required_width(SMALL._replace(gamma=1.5))
    with pytest.raises(ValueError, match="delta is 0; expected a probability of failure"):
        bounds_relu.required_width_relu(SMALL._replace(delta=0))
    with pytest.raises(ValueError, match="step_size is -1; expected 0 or greater"):
        bounds_descent.required_width_descent(SMALL, -1)
    with pytest.raises(ValueError, match="theorems are for one output"):
        measure_setting(jnp.eye(2), jnp.eye(2), 0.5, activation=jnp.sin)
