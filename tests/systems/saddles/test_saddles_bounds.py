"""The bounds of chapter 7: what a loop finds, where they are sharp, and what is misprinted."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import compiled

from ntkflow.systems.saddles import bounds, bounds_perturbed, splines
from ntkflow.systems.saddles.arguments import Constants
from ntkflow.systems.saddles.escape import escape_times
from ntkflow.systems.saddles.lipschitz import smoothness
from ntkflow.systems.saddles.octopus import gradient, multipliers, saddle_points


def test_growth_ratio_is_the_catalogued_one_and_above_the_printed_one():
    for big, expected in ((1.0, 2.710), (1.5, 3.409), (2.0, 4.106), (math.e, 5.105), (3.0, 5.497)):
        constants = Constants(big)
        ratio = bounds.growth_ratio(constants, step_size=0.25 / big)
        printed = bounds.growth_ratio(constants, step_size=0.25 / big, printed=True)
        assert abs(float(ratio.value) - expected) < 5e-4
        assert "corrected" in ratio.source
        assert printed.value == 1 + big
        for eta in (1e-6, 0.01, 0.49 / big):
            assert bounds.growth_ratio(constants, step_size=eta).value > 1 + big
    small = bounds.growth_ratio(Constants(2.0), step_size=1e-7).value
    assert abs(small - 3) < 1e-5
    assert bounds.growth_ratio(Constants(2.0), step_size=0.25).value == math.inf


def crossing_steps(z, big, eta):
    """Steps from z ≥ τ until 2τ, alone, by the library's spline."""
    constants, count = Constants(big), 0
    while z < 2 * math.e:
        z -= eta * float(splines.g_1_slope(z, constants))
        count += 1
    return count


def test_time_in_a_buffer_must_be_rounded_up():
    """At L = 1.5, η = 1/(2L) a coordinate at τ is in its buffer for two steps, not 1.5."""
    constants, eta = Constants(1.5), 1 / 3
    assert crossing_steps(math.e, 1.5, eta) == 2
    assert bounds.buffer_time(constants, step_size=eta).value == 2
    assert abs(bounds.buffer_time(constants, step_size=eta, printed=True).value - 1.5) < 1e-12
    # The same within [−1, 1]: |x| (1 + 2ηγ)² is just above τ.
    times = escape_times(jnp.array([1.0001 * math.e * 0.6**2]), constants, step_size=eta)
    assert times.stage.tolist() == [4.0]
    assert times.buffer.tolist() == [2.0]
    # Sharp at L = γ, η = 1/(2L): one step of exactly τ.
    assert (
        crossing_steps(math.e, 1.0, 0.5)
        == 1
        == bounds.buffer_time(Constants(1.0), step_size=0.5).value
    )


def test_large_dimensions_and_rounded_quotients():
    """inf where a number ends, as for arrays; and 2, not 3, for 2.0000002 in float32 too."""
    assert bounds.escape_time(540, step_size=0.1).value < math.inf
    assert bounds.escape_time(542, step_size=0.1).value == math.inf
    assert bounds.escape_time(np.array([2, 600]), step_size=0.1).value[1] == math.inf
    eta = np.nextafter(np.float32(0.25), np.float32(0))
    assert 1 / (2 * eta) > 2
    assert bounds.buffer_time(Constants(1.0), step_size=eta).value == 2


def test_the_first_entry_is_not_as_late_as_printed():
    """A_1 ≥ 1/(2ηγ) for |x_1| ≤ 1, and less than the 1/(ηγ) that the proof goes on to."""
    for eta in (0.01, 0.1):
        entry = float(escape_times(jnp.ones(1), step_size=eta).buffer[0])
        least = float(bounds.first_entry(1.0, step_size=eta).value)
        assert abs(least - 1 / (2 * eta)) < 1e-9
        assert least <= entry <= 1.2 * least < 1 / eta


@compiled
def times_of(starts, constants, eta):
    return jax.vmap(lambda x: escape_times(x, constants, step_size=eta))(starts)


@pytest.mark.quick
def test_entry_times_are_bracketed(dtype):
    rng = np.random.default_rng(0)
    starts = jnp.asarray(rng.uniform(-1, 1, (50, 6)), dtype)
    for big, eta in ((1.0, 0.25), (math.e, 0.03), (2.0, 0.2)):
        constants = Constants(big)
        times = times_of(starts, constants, eta)
        entry, x = np.asarray(times.buffer, float), np.asarray(starts, float)
        before = (entry[:, :-1], x[:, 1:], constants)
        earliest = bounds.earliest_entry(*before, step_size=eta).value
        latest = bounds.latest_entry(*before, step_size=eta).value
        rounding = 1e-5 * entry[:, 1:] if dtype == "float32" else 0.0
        assert (earliest <= entry[:, 1:] + rounding).all()
        assert (entry[:, 1:] <= latest + rounding).all()
        assert (earliest >= bounds.earliest_entry(*before, step_size=eta, printed=True).value).all()
        last = bounds.escape_time(6, constants, step_size=eta).value
        assert (np.asarray(times.stage)[:, -1] > last).all()
    # A first coordinate that never comes, and one that comes with an infinite ratio.
    assert bounds.earliest_entry(np.inf, 0.5, step_size=0.1).value == math.inf
    assert bounds.earliest_entry(5.0, 0.0, step_size=0.1).value == math.inf
    assert bounds.earliest_entry(0.0, 0.5, Constants(2.0), step_size=0.25).value < 10


def test_bounds_are_functions_of_traced_arguments():
    def all_of(big, eta, x):
        constants = Constants(big)
        return (
            bounds.growth_ratio(constants, step_size=eta).value,
            bounds.buffer_time(constants, step_size=eta).value,
            bounds.first_entry(x, constants, step_size=eta).value,
            bounds.earliest_entry(7.0, x, constants, step_size=eta).value,
            bounds.latest_entry(7.0, x, constants, step_size=eta).value,
            bounds.escape_time(4, constants, step_size=eta).value,
        )

    traced = compiled(all_of)(2.0, 0.11, 0.3)
    np.testing.assert_allclose(traced, all_of(2.0, 0.11, 0.3), rtol=1e-12)


def test_the_crossing_coordinate_stays_below_six_tau():
    """The proof adds 2ηγτ to x_j, and 4ηLτ by Lemma 7.4's −4Lτ; −8Lτ is right, and enough."""
    for ratio in (1.0, 1.01, 1.5, 3.0, 30.0, 1e4):
        constants = Constants(ratio, 1.0, 1.0)
        least = float(splines.least_slope(constants).value)
        assert -8 * ratio <= least
        assert least < -4 * ratio  # the lemma's
        step = 1 / (2 * ratio)
        assert 2 - step * least <= 6


def test_saddle_points_are_second_order_stationary_at_the_printed_accuracy():
    """Remark 7.2 needs ε < 4γ²/ρ: at equality −2γ ≥ −√(ρε) holds."""
    constants = Constants()
    rho = smoothness(2, constants).hessian_lipschitz
    epsilon = float(bounds.stationarity_accuracy(constants, rho, printed=True).value)
    assert abs(epsilon - 4 / rho) < 1e-12
    point = np.zeros(2)
    np.testing.assert_array_equal(np.asarray(saddle_points(2, constants))[0], point)
    lowest = np.asarray(multipliers(point)).min()  # of the Hessian, which is diagonal there
    assert np.linalg.norm(gradient(point)) <= epsilon
    assert lowest >= -((rho * epsilon) ** 0.5) - 1e-12
    assert lowest < -((rho * 0.999 * epsilon) ** 0.5)
    assert "corrected" in bounds.stationarity_accuracy(constants).source
    # Where ρ is small, gradients in the buffers decide: 2γτ at least, not only γτ.
    assert float(bounds.stationarity_accuracy(constants, 1e-3).value) == 2 * math.e
    assert float(bounds.stationarity_accuracy(constants, 1e-3, printed=True).value) == math.e


def test_escape_time_is_that_of_the_lemma():
    assert bounds.escape_time(1, Constants(2.0), step_size=0.25).value == 2
    assert bounds.escape_time(4, Constants(2.0), step_size=0.25, printed=True).value == 27
    assert bounds.largest_step_size(Constants(2.0)).value == 0.25
    assert bounds.distance_to_minima().value == 2 * math.e
    many = bounds.escape_time(np.arange(1, 4), Constants(2.0), step_size=0.1)
    assert many.value.tolist() == pytest.approx([5, 15, 45])


def test_hyperparameters_are_those_of_the_source():
    """χ = 12 where the logarithm is small, and the relations between the four."""
    chosen = bounds_perturbed.perturbed_hyperparameters(
        4.0, 2.0, 1.0, d=2, epsilon=1.0, delta=0.9, c=0.25
    )
    assert chosen.step_size == 0.25 / 4
    assert abs(chosen.gradient_threshold - 0.5 / 144) < 1e-15
    assert abs(chosen.radius - chosen.gradient_threshold / 4) < 1e-15
    assert abs(chosen.waiting_time - 12 * 16 * 4 / 2**0.5) < 1e-9
    hard = bounds_perturbed.perturbed_hyperparameters(4.0, 2.0, 1e6, d=2, epsilon=0.1, delta=0.5)
    chi = 3 * math.log(2 * 4 * 1e6 / (0.01 * 0.5))
    assert abs(hard.gradient_threshold - 0.1 / chi**2) < 1e-15


def test_iterations_of_theorem_7_2():
    few = bounds_perturbed.perturbed_iterations(4.0, 2.0, 3.0, 2, epsilon=0.5, delta=0.1)
    assert abs(few.value - 48 * math.log(48 * 20) ** 4) < 1e-6
    twice = bounds_perturbed.perturbed_iterations(
        4.0, 2.0, 3.0, 2, epsilon=0.5, delta=0.1, constant=2.0
    )
    assert twice.value == 2 * few.value
    assert twice.constant == 2.0
    assert bounds_perturbed.largest_radius().value == math.e / 20
    assert bounds_perturbed.largest_gradient_threshold(Constants(2.0, 0.5)).value == math.e / 20


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bounds.growth_ratio(Constants(2.0), step_size=0.3), r"0 < η ≤ 1/\(2L\) = 0.25"),
        (lambda: bounds.escape_time(0, step_size=0.1), "d is 0; expected a whole number"),
        (lambda: bounds.escape_time(2, Constants(0.5), step_size=0.1), "expected L ≥ γ"),
        (lambda: bounds.first_entry(math.nan, step_size=0.1), "coordinate is nan"),
        (lambda: bounds.stationarity_accuracy(rho=0.0), "rho is 0.0"),
        (
            lambda: bounds_perturbed.perturbed_iterations(1.0, 2.0, 1.0, 2, 0.6, 0.1),
            r"epsilon is 0.6; expected at most ℓ²/ρ = 0.5",
        ),
        (
            lambda: bounds_perturbed.perturbed_hyperparameters(1.0, 2.0, 1.0, 2, 0.1, 1.5),
            "delta is 1.5; expected a probability",
        ),
    ],
)
def test_they_refuse_at_the_door(call, message):
    with pytest.raises(ValueError, match=message):
        call()
