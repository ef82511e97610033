"""Theorems 6.2 to 6.5, Lemmas 6.2 and 6.3, as numbers: against draws and counterexamples."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled

from ntkflow.systems.convolutional_filter import (
    bounds,
    bounds_stochastic,
    close_patches,
    curves,
)
from ntkflow.systems.convolutional_filter.bounds_stochastic import StochasticSetting
from ntkflow.systems.convolutional_filter.gaussian import (
    gaussian_gamma,
    gaussian_smoothness,
    sphere_moments,
)
from ntkflow.systems.convolutional_filter.population import (
    angle,
    gaussian_gradient,
    gradient_terms,
    population_gradient,
)
from ntkflow.systems.convolutional_filter.stochastic_lemmas import (
    rate_conditions,
    stay_conditions,
)

BETA = 1 / np.pi


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.fixture(scope="module")
def ball():
    """Points of the ball around w* = e_1 of radius 1, p = 3, with their gradients."""
    w_star = np.eye(3)[0]
    radius = np.linspace(0.02, 0.999, 300)[:, None]
    delta = normal(0, 300, 3)
    delta = radius * delta / np.linalg.norm(delta, axis=1, keepdims=True)
    gradient = compiled(jax.vmap(lambda w: gaussian_gradient(w, w_star)))(w_star[None, :] + delta)
    return delta, np.asarray(gradient), np.arcsin(radius[:, 0])


def test_gradient_and_descent_in_the_ball(ball):
    delta, gradient, phi = ball
    distance = np.linalg.norm(delta, axis=1)
    factor = np.array([bounds.gradient_factor(gaussian_smoothness(0.0), BETA).value] * len(phi))
    kappa = np.array([bounds.curvature(gaussian_gamma(x)).value for x in phi])
    assert np.all(np.linalg.norm(gradient, axis=1) <= factor * distance)
    assert np.all(np.sum(gradient * delta, axis=1) >= kappa * distance**2)


@pytest.mark.parametrize("times", [1, 3])
def test_one_step_contracts(ball, times):
    """As promised at the largest step, and by as much again at three times it, as the proof can."""
    delta, gradient, phi = ball
    for i in range(0, len(phi), 7):
        angles = np.linspace(0, phi[i], 200)
        rates = gaussian_gamma(angles), gaussian_smoothness(angles), BETA
        step = bounds.largest_step_size(*rates).value
        assert_close(step, np.min(bounds.step_ratio(*rates)))
        promised = bounds.contraction(step, *rates).value
        assert 0.9 < promised < 1
        after = np.sum((delta[i] - times * step * gradient[i]) ** 2)
        assert after <= (1 - times * (1 - promised)) * np.sum(delta[i] ** 2)


def test_patches_of_one_sample_by_the_proof():
    """The proof's two displays with the cross terms as they are, and 6 L_cross for its 10."""
    z = normal(1, 500, 3, 3)
    w_star = np.array([0.5, -0.5, 1.0])
    norm = np.linalg.norm(w_star)

    def at(w):
        return gradient_terms(w, w_star, z), population_gradient(w, w_star, z)

    delta = normal(2, 40, 3)
    delta = delta * (norm * np.linspace(0.1, 0.99, 40) / np.linalg.norm(delta, axis=1))[:, None]
    terms, gradient = jax.device_get(compiled(jax.vmap(at))(w_star + delta))
    both, student = (np.linalg.eigvalsh(m) for m in terms[:2])
    crossing = np.stack([np.linalg.norm(m, 2, axis=(-2, -1)) for m in terms[2:]], axis=1)
    distance = np.linalg.norm(delta, axis=1)
    weighted = crossing @ np.array([3.0, 1.0, 1.0])
    descent = np.sum(gradient * delta, axis=1)
    assert np.all(descent >= both[:, 0] * distance**2 - weighted * norm * distance)
    size = both[:, -1] * distance + weighted * norm + 2 * student[:, -1] * norm
    assert np.all(np.linalg.norm(gradient, axis=1) <= size)


def test_gamma_of_several_patches_need_not_decrease():
    t = np.linspace(-np.pi, np.pi, 400, endpoint=False) + 1e-3
    z = np.stack([np.stack([np.cos(t), s * np.sin(t)], axis=1) for s in (1, -1)], axis=1)
    w_star = np.array([1.0, 0.0])
    turned = [[np.cos(phi), s * np.sin(phi)] for phi in (0.0, 0.8) for s in (1, -1)]
    both = compiled(jax.vmap(lambda w: gradient_terms(w, w_star, z).both))(jnp.array(turned))
    gamma = np.linalg.eigvalsh(both)[:, 0].reshape(2, 2).min(axis=1)
    assert abs(gamma[0]) < 1e-15 < 0.01 < gamma[1]
    # So the smallest of [0, φ] counts, and the theorem promises nothing here.
    with pytest.raises(ValueError, match="expected γ > 6 L_cross"):
        bounds.curvature(np.maximum(gamma, 0.0))


def test_harder_problems_take_more_iterations_unless_printed():
    easy, hard = (0.4, 0.5, 0.1), (0.2, 0.5, 0.1)
    count = [bounds.iterations(0.01, 0.5, *rates).value for rates in (easy, hard)]
    printed = [bounds.iterations(0.01, 0.5, *rates, printed=True).value for rates in (easy, hard)]
    assert_close(printed[0], (0.4 / 0.9) ** 2 * np.log(100))
    assert_close(count[1] / count[0], 4.0)
    assert_close(printed[1] / printed[0], 0.25)
    # With the step that it is for, the contraction reaches ε in as many steps.
    step = 0.4 / (2 * (0.5 + 4 * 0.1) ** 2)
    factor = bounds.contraction(step, *easy).value
    assert math.sin(0.5) ** 2 * factor ** count[0] <= 0.01**2


@pytest.mark.quick
def test_values_and_dtype(dtype):
    gamma, smoothness = jnp.asarray([0.4, 0.3], dtype), jnp.asarray([0.5, 0.45], dtype)
    bound = bounds.largest_step_size(gamma, smoothness, 0.1, 0.01)
    assert bound.value.dtype == dtype
    assert_close(bound.value, np.asarray(0.24 / (2 * 0.95**2), dtype))
    angles = jnp.asarray([0.0, 0.5], dtype)
    traced = jax.jit(lambda g: bounds.adaptive_iterations(0.01, angles, g, smoothness, 0.1).value)
    expected = bounds.adaptive_iterations(
        0.01, np.array([0.0, 0.5]), np.asarray(gamma), np.asarray(smoothness), 0.1
    ).value
    np.testing.assert_allclose(traced(gamma), expected, rtol=1e-5)


SAMPLES = 2000


def unit(t):
    return np.stack([np.cos(t), np.sin(t)], axis=-1)


def test_printed_patch_bound_on_gamma_is_false_and_the_corrected_one_holds():
    """γ is ¼ − ρ/2π + O(ρ²) in the docstring's case; 4(1 − cos ρ) = 2ρ² allows less."""
    rho = 0.02
    t = np.linspace(-np.pi, np.pi, SAMPLES, endpoint=False)[:, None] + 1e-4
    z = unit(t + np.array([-rho, rho]))
    w_star = jnp.array([1.0, 0.0])
    w = np.tile([[1.0, 1e-6]], (4, 1))
    printed = close_patches.certificate_close_patches(z, w_star, w, printed=True)
    corrected = close_patches.certificate_close_patches(z, w_star, w)
    assert printed.applies
    assert not printed.claims[0].holds
    assert corrected.applies
    assert corrected.holds
    np.testing.assert_allclose(printed.claims[0].larger, 0.25 - rho / (2 * np.pi), atol=3e-4)
    assert corrected.claims[0].smaller.min() > 0.19  # μ = 2/π of the circle: not an empty bound


def test_printed_patch_bound_on_cross_moments_is_false_beyond_rho():
    """All mass near the boundary of w, none within ρ of that of w*."""
    rho, phi = 0.1, 0.8
    z = np.tile(unit(-np.pi / 2 + phi + np.array([[-rho, rho]])), (SAMPLES, 1, 1))
    w = np.tile(unit(np.array([phi])), (4, 1))
    for printed in (True, False):
        certificate = close_patches.certificate_close_patches(
            z, jnp.array([1.0, 0.0]), w, printed=printed
        )
        assert bool(certificate.claims[1].holds) is not printed
    assert_close(certificate.claims[1].smaller, np.full(4, 0.25))


@pytest.mark.parametrize("spread", [0.05, 0.3, 1.0])
def test_corrected_patch_bounds_hold_of_any_sample(spread):
    t = np.pi * normal(3, SAMPLES, 1) + spread * normal(4, SAMPLES, 2)
    w = normal(5, 4, 2)
    certificate = close_patches.certificate_close_patches(unit(t), jnp.array([1.0, 0.5]), w)
    assert certificate.applies
    assert certificate.holds
    # shorter patches, in three dimensions
    if spread == 0.3:
        z = normal(6, 300, 1, 3) / 4 + spread * normal(7, 300, 3, 3) / 4
        z = z / np.maximum(np.linalg.norm(z, axis=-1, keepdims=True), 1.0)
        w_star, w = np.array([1.0, 1.0, 0.0]), normal(5, 6, 3)
        assert close_patches.certificate_close_patches(z, w_star, w).holds


# --- Stochastic gradient descent.

DELTA = 0.2


@pytest.fixture(scope="module")
def circle():
    """One patch uniform on the circle, w* = (1, 0), r_0 = ½: the setting of Theorem 6.4."""
    phis = np.linspace(0, np.pi / 2, 200)
    phi_star = bounds_stochastic.largest_good_angle(phis, sphere_moments(phis, 2).gamma).value
    radius = bounds_stochastic.middle_radius(0.5, phi_star, 1.0).value
    moments = sphere_moments(np.arcsin(radius), 2)
    return StochasticSetting(
        gamma=moments.gamma,
        smoothness=sphere_moments(0.0, 2).smoothness,
        beta=moments.beta,
        cross=moments.cross,
        gradient_bound=bounds_stochastic.sampled_gradient_bound(radius, 1.0).value,
        target_norm=1.0,
        initial_distance=0.5,
        radius=radius,
        delta=DELTA,
    )


def test_stochastic_descent_reaches_epsilon(circle):
    epsilon, seeds = 0.4, 40
    step = bounds_stochastic.stochastic_step_size(circle, epsilon).value
    steps = math.ceil(bounds_stochastic.stochastic_iterations(circle, epsilon).value)
    conditions = bounds_stochastic.stochastic_conditions(circle, step, steps, epsilon)
    assert all(row.holds for row in conditions)
    bound = bounds_stochastic.failure_probability(circle, step, steps, epsilon).value
    assert DELTA / 2 < bound <= DELTA  # δ/2 of the end, the rest of leaving r_1
    t = np.random.default_rng(0).uniform(0, 2 * np.pi, (steps, seeds))
    # w as a complex number, from the largest angle at this distance
    w, largest = np.full(seeds, 0.75 + 1j * np.sqrt(3) / 4), np.zeros(seeds)
    for z in np.exp(1j * t):
        output = (w.conj() * z).real
        w = w - step * np.where(output > 0, output - np.maximum(z.real, 0), 0) * z
        largest = np.maximum(largest, abs(w - 1))
    failed = (abs(w - 1) > epsilon) | (largest > circle.radius)
    assert np.mean(failed) <= DELTA


def walk_setting(noise, delta, initial, radius=0.9):
    """p = 1, Z = ±1, gradients ½(w − 1) ∓ s: everything in closed form."""
    return StochasticSetting(0.5, 0.5, 0.0, 0.0, noise + radius / 2, 1.0, initial, radius, delta)


def test_failure_probability_bounds_draws():
    setting = walk_setting(noise=2.0, delta=0.2, initial=0.1)
    epsilon, step, seeds = 0.2, 1.0e-3, 1000
    steps = 4000
    bound = bounds_stochastic.failure_probability(setting, step, steps, epsilon).value
    signs = np.random.default_rng(3).integers(0, 2, (steps, seeds), dtype=np.int8)
    x, largest = np.full(seeds, 0.1), np.zeros(seeds)
    for sign in signs:
        x = x - step * (x / 2 + 4.0 * sign - 2.0)
        largest = np.maximum(largest, abs(x))
    share = np.mean((abs(x) > epsilon) | (largest > setting.radius))
    assert 0 < share < bound < 0.5


def test_printed_lemma_fails_for_a_small_delta():
    """All its conditions hold, and ‖w_T − w*‖ > 2ε with more than 2δ."""
    noise, epsilon, delta = 10.0, 0.02, 5e-4
    setting = walk_setting(noise, delta, initial=0.00545)
    step = epsilon**2 * 0.5 / setting.gradient_bound**2 * (1 - 1e-5)
    steps = 5_500_000
    printed = rate_conditions(setting, step, steps, epsilon, printed=True)
    assert all(row.holds for row in printed)
    # w_T − 1 = a^T x_0 + η s Σ ± a^j with a = 1 − η/2: normal up to Berry and Esseen's error.
    a = math.exp(2 * steps * math.log1p(-step / 2))
    deviation = step * noise * math.sqrt((1 - a) / (1 - (1 - step / 2) ** 2))
    tail = math.erfc(2 * epsilon / deviation / math.sqrt(2))
    error = 2 * 0.56 * step * noise / deviation
    assert tail - error > 2 * delta
    corrected = rate_conditions(setting, step, steps, epsilon)
    assert not corrected[-1].holds
    # Nor does any η that does not know δ do, as the printed Theorem 6.4 has it.
    assert bounds_stochastic.stochastic_step_size(setting, epsilon).value < step


def test_printed_deviation_is_too_small_where_the_gradient_is_flat():
    """M < 1 in place of 1: Azuma's d must be at least the change of ‖w − w*‖² in one step."""
    setting = walk_setting(noise=1.0, delta=0.1, initial=0.2)
    step, x = 1e-3, setting.radius
    after = [(x - step * (x / 2 + s)) ** 2 for s in (1.0, -1.0)]
    change = abs(after[0] - after[1]) / 2
    deviations = [
        2 * step * setting.gradient_bound * x * factor + (step * setting.gradient_bound) ** 2
        for factor in (bounds.gradient_factor(0.5, 0.0).value, 1.0)
    ]
    assert deviations[0] < change < deviations[1]


def test_lemma_conditions_suffice():
    setting = walk_setting(noise=0.5, delta=0.1, initial=0.3)
    epsilon = 0.15
    step = 2.5e-3
    steps = 6000
    assert all(row.holds for row in rate_conditions(setting, step, steps, epsilon))
    assert all(row.holds for row in stay_conditions(setting, step, steps))
    # a longer step misses the one that bounds the noise, and a shorter run the one for T
    assert not rate_conditions(setting, 4 * step, steps, epsilon)[-1].holds
    assert not rate_conditions(setting, step, steps // 3, epsilon)[-2].holds
    assert not stay_conditions(setting, 20 * step, steps)[-1].holds
    assert not stay_conditions(setting, 3.0, steps)[0].holds
    assert not stay_conditions(setting, 2.0, steps)[-1].holds  # α = 0
    # a start at w* needs no time to get there
    assert rate_conditions(setting._replace(initial_distance=0.0), step, 1, epsilon)[-2].holds


def test_constants_of_the_corrected_theorem(circle):
    kappa = circle.gamma
    reach = 0.01 / circle.gradient_bound**2
    printed = bounds_stochastic.stochastic_step_size(circle, 0.1, printed=True).value
    assert_close(printed, kappa**2 * reach)
    steps = bounds_stochastic.stochastic_iterations(circle, 0.1, printed=True).value
    assert_close(steps, np.log(5 / DELTA) / (kappa**2 * reach))
    # η κ T of the printed pair is κ log(·): not the logarithm that it must be.
    assert printed * kappa * steps < kappa * np.log(5 / DELTA) * 1.0001
    mapped = jax.jit(
        jax.vmap(
            lambda delta: (
                bounds_stochastic.stochastic_step_size(circle._replace(delta=delta), 0.1).value
            )
        )
    )(jnp.array([0.1, 0.2]))
    assert_close(mapped[1], bounds_stochastic.stochastic_step_size(circle, 0.1).value)


def test_the_longest_step_has_a_bound_without_warnings():
    """η = 1/κ, where the logarithm of q = 0 is infinite, and one that overflowed."""
    for step in (10.0, 1e-300):
        assert bounds_stochastic.failure_probability(SETTING, step, 5, 0.3).value == 1.0


def test_largest_good_angle():
    gamma = np.array([0.5, 0.4, 0.1, 0.3])
    angle_of = bounds_stochastic.largest_good_angle
    assert angle_of([0.0, 0.5, 1.0, 1.5], gamma, 0.05).value == 0.5  # up to which, not at which
    assert angle_of([0.0, 0.5, 1.0, 2.0], gamma, 0.0).value == 1.0  # π/2 at most


def test_angles_are_below_the_largest(ball):
    delta, _, phi = ball
    w_star = np.eye(3)[0]
    angles = compiled(jax.vmap(lambda w: angle(w, w_star)))(w_star[None, :] + delta)
    largest = bounds.largest_angle(np.linalg.norm(delta, axis=1), 1.0).value
    assert_close(largest, phi, factor=1e4)
    assert np.all(angles <= largest)


Z = np.ones((2, 1, 2)) / np.sqrt(2)
SETTING = StochasticSetting(0.1, 0.25, 0.16, 0.0, 0.75, 1.0, 0.5, 0.87, 0.2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bounds.largest_angle(1.0, 1.0), "expected ‖w − w"),
        (lambda: bounds.contraction(0.3, 0.5, 0.5, 0.125), "step_size is 0.3; .* at most 0.25"),
        (lambda: bounds.largest_step_size(0.5, 0.5, 0.1, 0.1), "expected γ > 6 L_cross"),
        (lambda: bounds.iterations(0.5, 0.4, 0.5, 0.5, 0.1), "expected 0 < ε < sin φ_0"),
        (lambda: bounds.iterations(0.5, 1.6, 0.5, 0.5, 0.1), "expected less than π/2"),
        (lambda: bounds.contraction(np.nan, 0.5, 0.5, 0.125), "step_size is nan"),
        (lambda: bounds.largest_step_size(0.5, 0.0, 0.0), "expected finite numbers with L ≥ γ"),
        (lambda: bounds.largest_step_size(np.nan, 0.5, 0.0), "gamma is nan"),
        (lambda: curves.over_angles(jnp.cos, 4.0), "phi is 4.0"),
        (
            lambda: bounds.adaptive_iterations(0.1, [0.0, 0.6, 0.5], [0.5] * 3, [0.5] * 3, 0.1),
            "increase from 0",
        ),
        (lambda: bounds_stochastic.middle_radius(0.1, 3.0, 1.0), "expected at most π/2"),
        (lambda: bounds_stochastic.largest_good_angle([0.0, 1, 0.5], [0.5] * 3), "from 0"),
        (
            lambda: stay_conditions(SETTING._replace(gradient_bound=0.0), 0.1, 5),
            "gradient_bound is 0.0",
        ),
        (lambda: bounds_stochastic.middle_radius(0.9, 1.0, 1.0), "less than ‖w"),
        (lambda: bounds_stochastic.largest_good_angle([0.0], [0.1], 0.1), "at the first angle"),
        (lambda: bounds_stochastic.largest_good_angle([0.0], [0.1, 0.2]), "one value per angle"),
        (
            lambda: bounds_stochastic.stochastic_step_size(SETTING._replace(radius=0.4), 0.1),
            "expected r_0 < r_1",
        ),
        (lambda: bounds_stochastic.stochastic_step_size(SETTING, 0.0), "epsilon is 0.0"),
        (lambda: bounds_stochastic.stochastic_iterations(SETTING, 1.0), "nothing to do"),
        (
            lambda: bounds_stochastic.failure_probability(SETTING, 11.0, 5, 0.1),
            r"Theorem 6.4 .* at most 10",
        ),
        (lambda: rate_conditions(SETTING._replace(cross=0.1), 0.1, 5, 0.1), "γ > 6 L_cross"),
        (
            lambda: close_patches.certificate_close_patches(np.ones((2, 1, 2)), [1, 0], [1, 1]),
            "filters in rows",
        ),
        (lambda: close_patches.certificate_close_patches(Z, [1, 0], [[np.nan, 1]]), "w holds NaN"),
        (lambda: close_patches.certificate_close_patches(Z, [1, 0], [[0, 0]]), "A row of w"),
        (lambda: close_patches.certificate_close_patches(0 * Z, [1, 0], [[1, 1]]), "is 0; exp"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
