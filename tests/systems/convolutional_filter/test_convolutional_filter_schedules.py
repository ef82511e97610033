"""Step sizes driven by γ, L, β and L_cross: in `descend`, and the iterations that they take."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled

from ntkflow.systems.convolutional_filter import bounds, schedules
from ntkflow.systems.convolutional_filter.gaussian import gaussian_gamma, gaussian_smoothness
from ntkflow.systems.convolutional_filter.moments import Moments
from ntkflow.systems.convolutional_filter.observables import observables
from ntkflow.systems.convolutional_filter.population import gaussian_loss
from ntkflow.training.descent import descend

RATES = (gaussian_gamma, gaussian_smoothness, 1 / np.pi)
PHI_0, EPSILON = 1.3, 1e-3
PHIS = np.linspace(0.0, PHI_0, 131)
W_STAR = np.array([1.0, 2.0, 2.0]) / 3


MIDDLE = 0.5  # the angle below which the second phase begins
AT_START = RATES[0](PHI_0), RATES[1](0.0), RATES[2]
SWITCH = int(np.ceil(bounds.iterations(np.sin(MIDDLE), PHI_0, *AT_START).value))


@functools.cache
def distances(name):
    """‖w_t − w*‖ from a start at right angles to w_0 − w*, where the angle is largest."""
    across = np.array([2.0, -2.0, 1.0]) / 3
    w_0 = jnp.asarray(np.cos(PHI_0) * (np.cos(PHI_0) * W_STAR + np.sin(PHI_0) * across))
    observe = observables(W_STAR)
    if name == "adaptive":
        optimizer = schedules.scale_by_adaptive_step(schedules.adaptive_step(*RATES), W_STAR)
        run = descend(gaussian_loss, optimizer, 1000, observe=observe)
        return np.asarray(compiled(run)(w_0, jnp.asarray(W_STAR)).history["distance"])
    names = ["constant", "two phases", "early switch"]
    return dict(zip(names, _scheduled(w_0, observe), strict=True))[name]


@functools.cache
def _constant_steps():
    return [schedules.constant_step(phi, *RATES) for phi in (PHI_0, MIDDLE)]


_HISTORY = {}


def _scheduled(w_0, observe):
    if not _HISTORY:
        early, late = _constant_steps()

        def run(late, switch):
            optimizer = optax.sgd(schedules.two_phase_schedule(early, late, switch))
            history = descend(gaussian_loss, optimizer, 2500, observe=observe)(w_0, W_STAR).history
            return history["distance"]

        switches = np.array([0, SWITCH, 80])
        _HISTORY["all"] = np.asarray(
            compiled(jax.vmap(run))(np.stack([early, late, late]), switches)
        )
    return _HISTORY["all"]


def steps_to(distance):
    assert distance[-1] <= EPSILON
    return int(np.argmax(distance <= EPSILON))


def test_adaptive_steps_take_fewer_iterations_than_constant_ones():
    adaptive, early, constant = (
        steps_to(distances(name)) for name in ("adaptive", "early switch", "constant")
    )
    assert adaptive < early < constant
    assert adaptive < constant / 2


def test_iterations_suffice():
    assert steps_to(distances("constant")) <= bounds.iterations(EPSILON, PHI_0, *AT_START).value
    table = RATES[0](PHIS), RATES[1](PHIS), RATES[2]
    promised = bounds.adaptive_iterations(EPSILON, PHIS, *table).value
    assert steps_to(distances("adaptive")) <= promised
    # The maximum of the text is that of its largest angle: hardly better than the constant step.
    printed = bounds.adaptive_iterations(EPSILON, PHIS, *table, printed=True).value
    assert promised < 0.5 * printed
    assert 0.8 < printed / bounds.iterations(EPSILON, PHI_0, *AT_START).value < 1


def test_the_second_phase_starts_where_its_step_is_allowed():
    distance = distances("two phases")
    assert len(distance) > SWITCH
    assert distance[SWITCH] <= np.sin(MIDDLE)
    assert np.all(np.diff(distance)[distance[1:] > 1e-12] < 0)


@pytest.mark.quick
def test_the_rule_is_the_smallest_ratio_up_to_phi(dtype):
    phi = jnp.asarray([0.0, 0.7, 1.5], dtype)
    step = compiled(schedules.adaptive_step(*RATES))(phi)
    assert step.dtype == dtype
    angles = np.linspace(0, np.asarray(phi, float), 1001)
    ratios = gaussian_gamma(angles) / (2 * (gaussian_smoothness(angles) + 4 / np.pi) ** 2)
    expected = ratios.min(axis=0).astype(dtype)
    assert_close(step, expected)
    constant = schedules.constant_step(np.asarray(phi)[1], *RATES)
    assert constant.dtype == dtype
    assert_close(constant, expected[1])


def test_a_table_never_allows_more_than_the_function():
    grid = np.linspace(0.0, np.pi / 2, 21)
    table = Moments(gaussian_gamma(grid), gaussian_smoothness(grid), np.full(21, 1 / np.pi), 0.0)
    rule = compiled(schedules.adaptive_step(*table, phis=grid))
    exact = compiled(schedules.adaptive_step(*RATES))
    fine = np.linspace(0.0, np.pi / 2, 201)
    fine[::10] = grid  # exactly: an angle above it would be given the next one's step
    assert np.all(rule(fine) <= exact(fine) * (1 + 1e-12))
    assert np.all(rule(fine)[:-10] >= exact(fine)[10:] * (1 - 1e-12))
    assert_close(rule(fine)[::10], exact(fine)[::10])


def test_the_rule_looks_at_smaller_angles_too():
    grid = np.array([0.0, 0.5, 1.0])
    gamma, smoothness = np.array([0.1, 0.5, 0.3]), np.full(3, 0.5)
    rule = schedules.adaptive_step(gamma, smoothness, 0.0, phis=grid)
    assert_close(compiled(rule)(grid), np.full(3, 0.2))
    # and stands still where L_cross leaves nothing
    stopped = schedules.adaptive_step(gamma, smoothness, 0.0, 0.02, phis=grid)
    assert np.all(compiled(stopped)(grid) == 0)


def test_one_optimizer_for_many_starts_and_teachers():
    rule = schedules.adaptive_step(*RATES)

    def final(w, w_star):
        optimizer = schedules.scale_by_adaptive_step(rule, w_star)
        variables = {"params": {"filter": w}}
        return descend(gaussian_loss, optimizer, 3)(variables, w_star).params["params"]["filter"]

    w_star = jnp.eye(3)[:2]
    w = w_star + 0.3
    together = compiled(jax.vmap(final))(w, w_star)
    for one, target, got in zip(np.asarray(w), np.asarray(w_star), together, strict=True):
        for _ in range(3):
            phi = np.arcsin(np.linalg.norm(one - target))
            angles = np.linspace(0, phi, 65)
            ratios = gaussian_gamma(angles) / (2 * (gaussian_smoothness(angles) + 4 / np.pi) ** 2)
            unit = one / np.linalg.norm(one)
            theta = np.arccos(unit @ target)
            gradient = (one - target) / 2 + (theta * target - np.sin(theta) * unit) / (2 * np.pi)
            one = one - ratios.min() * gradient
        assert_close(got, one)


def test_far_away_the_angle_is_a_right_one():
    w = np.array([[3.0, 0.0], [1.0, 0.0], [0.0, 0.0], [np.nan, 0.0], [0.5, 0.0]])
    angle_of = compiled(jax.vmap(jax.value_and_grad(schedules.angle_of), in_axes=(0, None)))
    phi, slope = angle_of(w, np.array([1.0, 0.0]))
    assert np.isnan(phi[3])
    assert_close(np.delete(phi, 3), np.array([np.pi / 2, 0.0, np.pi / 2, np.pi / 6]))
    assert np.all(slope[:3] == 0)  # nowhere NaN, for gradients through whole runs
    assert_close(slope[4], np.array([-2 / np.sqrt(3), 0.0]))


def test_rates_and_rules_may_be_numbers():
    rule = schedules.adaptive_step(lambda phi: 0.5, lambda phi: 0.5, 0.125)
    optimizer = schedules.scale_by_adaptive_step(lambda phi: 0.25, W_STAR)
    gradient = np.array([1.0, 2.0, -4.0])
    steps, (updates, _) = compiled(
        lambda g: (rule(jnp.array([0.1, 1.0])), optimizer.update(g, None, W_STAR))
    )(gradient)
    assert steps.tolist() == [0.25, 0.25]
    assert_close(updates, -0.25 * gradient)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: schedules.adaptive_step([0.1], [0.2], 0.1), "without its angles"),
        (lambda: schedules.adaptive_step([0.1], [0.2], 0.1, phis=[0.0, 1.0]), "one value per"),
        (
            lambda: schedules.adaptive_step([0.1, 0], [0.2, 0], 0.1, phis=[0.1, 1]),
            "increase from 0",
        ),
        (lambda: schedules.adaptive_step(*RATES[:2], -0.1), "beta is -0.1"),
        (lambda: schedules.adaptive_step(*RATES[:2], np.nan), "beta holds NaN"),
        (lambda: schedules.constant_step(1.0, *RATES, 0.2), "expected γ > 6 L_cross"),
        (lambda: schedules.constant_step(2.0, *RATES), "expected less than π/2"),
        (
            lambda: schedules.constant_step(1.0, [0.5, 0.4], [0.5, 0.5], 0.1, phis=[0.0, 0.5]),
            "phi is 1 and the table ends at 0.5",
        ),
        (lambda: schedules.scale_by_adaptive_step(0.1, W_STAR), "expected a function φ ↦ η"),
        (
            lambda: schedules.scale_by_adaptive_step(lambda phi: phi, np.zeros(2)),
            "w_star is 0",
        ),
        (
            lambda: schedules.scale_by_adaptive_step(lambda phi: phi, W_STAR).update(W_STAR, None),
            "needs the parameters",
        ),
        (lambda: schedules.angle_of(np.ones(2), W_STAR), "expected one filter of shape"),
        (lambda: schedules.two_phase_schedule(0.0, 0.1, 3), "step_size is 0.0"),
        (lambda: schedules.two_phase_schedule(0.1, 0.1, -3), "switch is -3"),
        (lambda: schedules.two_phase_schedule(0.1, 0.1, np.nan), "switch holds NaN"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
