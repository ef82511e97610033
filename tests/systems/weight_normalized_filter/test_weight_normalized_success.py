"""Where runs lead: decisions are final, and Table 5.1 comes out of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import compiled
from scipy import integrate, optimize

from ntkflow.systems.weight_normalized_filter.initialization import sign_trials
from ntkflow.systems.weight_normalized_filter.reduction import (
    Problem,
    Reduced,
    simulate,
)
from ntkflow.systems.weight_normalized_filter.success import (
    Decision,
    limit_success_probability,
    outcome,
    run_until_decided,
    success_probability,
)

ETA = 0.9 * 2 * np.pi / (9 + np.pi - 1)

decide = compiled(outcome)
follow = compiled(simulate, static_argnums=(3, 4))
run = compiled(run_until_decided, static_argnames="limit")
limit_of = compiled(limit_success_probability)

# Table 5.1, in part: k = 25, 64, 100 by (1ᵀa*)²/‖a*‖² = 0, 4, 9, 16.
PATCHES, RATIOS = np.array([25.0, 64.0, 100.0]), np.array([0.0, 4.0, 9.0, 16.0])
THESIS = np.array([[0.50, 0.73, 1, 1], [0.50, 0.59, 0.71, 0.89], [0.50, 0.57, 0.63, 0.75]])


def drawn(seed, shape, problem, p, radius):
    """Starts from vectors themselves; a* lies in the plane of 1 and one more direction."""
    random = np.random.default_rng(seed)
    v = random.normal(size=(p, *shape))
    v = v / np.linalg.norm(v, axis=0)
    k, s, norm, _ = problem
    k = int(k)
    a = random.normal(size=(k, *shape))
    a = a / np.linalg.norm(a, axis=0) * radius * random.uniform(size=shape) ** (1 / k)
    total = a.sum(axis=0)
    across = np.sqrt(np.maximum(norm**2 - s**2 / k, 0)) * (a[0] - a[1]) / np.sqrt(2)
    return Reduced(v[0], np.linalg.norm(v[1:], axis=0), total, s / k * total + across, 0 * total)


@pytest.fixture(scope="module")
def starts():
    """Starts from a ball of up to 30 times the theorem's, for ‖a*‖ up to 5."""
    norm = np.array([0.7, 2.0, 5.0])[:, None]
    problem = Problem(9.0, np.array([0.0, 1.0, 2.5])[None] ** 0.5 * norm, norm)
    radius = np.array([1.0, 30.0])[:, None, None] * problem.sum / 3
    return problem, drawn(0, (250, 2, 3, 3), problem, 4, radius)


@pytest.mark.quick
def test_decisions_are_final_and_right(starts):
    """Along 3000 steps none is ever taken back, and the last state is where it said."""
    problem, start = starts
    some = Reduced(*(part[:60] for part in start))
    path = jax.device_get(follow(some, problem, ETA, 3000, 5)[1])
    columns = Problem(*(np.asarray(part)[..., None] for part in problem))
    found = np.asarray(decide(path, columns, ETA))
    assert (found[..., -1] != 0).all()
    first = (found != 0).argmax(axis=-1)
    later = np.arange(found.shape[-1]) >= first[..., None]
    assert (found == np.where(later, found[..., -1:], 0)).all()
    angle = np.arctan2(path.orthogonal, path.parallel)[..., -1]
    won = found[..., -1] == 1
    assert 0.3 < won.mean() < 0.9
    assert (angle[won] < 1e-3).all()
    assert (angle[~won] > np.pi / 2).all()
    assert (path.overlap[..., -1][~won] < 0).all()
    # Nearly all are decided long before: an angle of 0.1 takes 7 times as many steps.
    small = (np.arctan2(path.orthogonal, path.parallel) < 0.1).argmax(axis=-1)
    assert np.mean(first[won]) < 0.2 * np.mean(small[won])
    alone = Decision(*(part[:60] for part in jax.device_get(run(start, problem, ETA))))
    np.testing.assert_array_equal(alone.outcome, found[..., -1])
    assert (np.asarray(alone.steps) % 8 == 0).all()
    assert (alone.steps < 5 * first + 8).all()
    assert (alone.steps >= 5 * (first - 1)).all()


def test_starts_of_the_two_theorems_are_decided_at_once(dtype):
    random = np.random.default_rng(0)
    problem = Problem(20, 0.1, 1.0)
    phi, total = random.uniform(0, np.pi, 4000), random.uniform(-0.1, 0.1, 4000)
    g = (np.pi - phi) * np.cos(phi) + np.sin(phi)
    overlap = 0.3 * random.normal(size=4000)
    state = Reduced(*(jnp.asarray(x, dtype) for x in (np.cos(phi), np.sin(phi), total, overlap)), 0)
    found = np.asarray(decide(state, problem, 0.2))
    success = (overlap > 0) & (phi < np.pi / 2)  # Theorem 5.3
    failure = (overlap < 0) & (g <= 1 - 2 * 0.1**2)  # Theorem 5.5
    assert success.sum() > 800
    assert failure.sum() > 800
    assert (found[success] == 1).all()
    assert (found[failure] == -1).all()
    assert (found[(overlap > 0) & (phi > 2)] == 0).all()


def test_one_of_four_signs_reaches_the_global_minimum(starts):
    """Certain in the ball of Theorem 5.4; seen in one thirty times as large, too."""
    problem, start = starts
    four = jax.device_get(compiled(sign_trials)(start))
    each = (run(Reduced(*(part[i] for part in four)), problem, ETA) for i in range(4))
    found = np.stack([np.asarray(found.outcome) for found in each])
    assert (found.max(axis=0) == 1).all()
    assert (found.min(axis=0)[..., 0] == -1).all()  # (1ᵀa*)² = 0


def test_saddles_and_nan_are_left_undecided():
    """φ = π with F(π) > 0, and the saddle between the basins, where F = Q = 0.

    Among runs that are decided sooner or later, all have the same limit: 41 up to a multiple of 8.
    """
    at_pi, saddle, nan = (-1, 0, 0, 1, 0), (0, 1, 0, 0, 0), (np.nan, 1, 0, 0, 0)
    soon, late = (-0.8, 0.6, -1.5, -0.2, 0), (-0.3, 0.95, -6.0, -0.2, 0)
    columns = np.array([at_pi, saddle, nan, soon, late] * 200, "float32").T
    sums = np.array([2.7, 0.0, 0.0, 1.0, 1.0] * 200, "float32")
    found = run(Reduced(*columns), Problem(np.float32(9), sums, np.float32(1)), ETA / 9, limit=41)
    assert (np.asarray(found.outcome) == [0, 0, 0, -1, 0] * 200).all(), found
    assert (np.asarray(found.steps).reshape(-1, 5)[:, :3] == 48).all()


def test_minima_are_decided_whatever_rounding_does():
    """There u is 0 up to rounding, of either sign, also where reflection at 0 is not excluded."""
    k, norm = 9, 7.0
    s = norm * np.linspace(-2.9, 2.9, 101)
    problem = Problem(k, s, norm, 1.3)
    best = Reduced(0.01, 0.0, 1.3 * s * (1 + np.finfo(float).eps), 1.3 * norm**2, 0.0)
    assert (np.asarray(decide(best, problem, ETA)) == 1).all()
    # One patch: F(π) = 0, there is no spurious minimum.
    one = Problem(1, s, np.abs(s), 1.3)
    assert (np.asarray(decide(Reduced(-1.0, 0.0, 0 * s, -1e-3, 0.0), one, ETA)) == 0).all()


@pytest.fixture
def few_optimizations():
    """As of `compiled`, in the program that the function itself compiles."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.quick
@pytest.mark.usefixtures("few_optimizations")
def test_cells_of_table_5_1():
    """Within 0.05 of the thesis, more ratio is better, more patches are worse."""
    problem = Problem(PATCHES[:, None], 0.5 * np.sqrt(RATIOS)[None], 0.5)
    found = jax.device_get(success_probability(jax.random.key(0), problem, 6, 1501))
    assert (np.abs(found.probability - THESIS) < 0.05).all()
    assert (found.undecided == 0).all()
    error = found.standard_error
    np.testing.assert_allclose(
        error, np.sqrt(found.probability * (1 - found.probability) / 1501), rtol=1e-12
    )
    assert abs(found.probability[:, 0] - 0.5).max() < 4 * error[:, 0].max()
    for axis, sign in ((1, 1), (0, -1)):
        steps = sign * np.diff(found.probability, axis=axis)
        spread = np.hypot(np.delete(error, 0, axis), np.delete(error, -1, axis))
        assert (steps >= -3 * spread).all()
    assert found.steps.mean() < 20


def test_small_output_layers_have_the_probability_of_the_integral():
    """‖a*‖ = 0.01: a comes to rest before v turns."""
    ratio, norm = np.array([1.0, 4.0, 9.0]), np.full((3, 1), 0.01)
    problem = Problem(36.0, np.sqrt(ratio)[None] * norm, norm)
    start = drawn(1, (250, 2, 3, 3), problem, 6, problem.sum / 6)
    found = np.asarray(run(start, problem, 0.1).outcome)
    exact = np.asarray(limit_of(ratio, 36.0, 6.0))
    np.testing.assert_allclose(exact, [0.532, 0.641, 0.875], atol=6e-4)
    error = np.sqrt(exact * (1 - exact) / 1500)
    assert (np.abs(np.mean(found == 1, axis=(0, 1, 2)) - exact) < 4 * error).all()
    rounded = np.asarray(limit_of(ratio.astype("float32"), 36.0, 6.0))
    assert rounded.dtype == "float32"
    np.testing.assert_allclose(rounded, exact, atol=1e-5)


def test_limit_is_the_share_of_the_sphere_below_the_critical_angle():
    cases = np.array([(1, 4, 2), (5, 50, 3), (16, 81, 25), (25, 25, 6), (4, 25, 1)], float)
    exact = np.asarray(limit_of(*cases.T))
    for (ratio, k, p), value in zip(cases[:3], exact, strict=False):
        rho = ratio / (k + np.pi - 1)
        level = (1 - np.pi * rho) / (1 - rho)
        g = lambda phi: (np.pi - phi) * np.cos(phi) + np.sin(phi) - level  # noqa: E731
        density = lambda phi: np.sin(phi) ** (p - 2)  # noqa: E731
        below, _ = integrate.quad(density, 0, optimize.brentq(g, 0, np.pi))
        share = below / integrate.quad(density, 0, np.pi)[0]
        assert abs(value - share) < 1e-9
    assert exact[3:].tolist() == [1.0, 0.5]


def test_steps_that_are_too_large_and_ratios_that_cannot_be_are_refused():
    state, problem = Reduced(*[1.0] * 5), Problem(25, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"at most 2π/\(k \+ π − 1\) = 0.231497 for k = 25"):
        run_until_decided(state, problem, 0.24)
    with pytest.raises(ValueError, match=r"at most 2π/\(k \+ π − 1\)"):
        success_probability(jax.random.key(0), problem, 6, 10, step_size=0.24)
    with pytest.raises(ValueError, match=r"at most 2π/\(k \+ π − 1\)"):
        outcome(state, problem, 0.24)
    with pytest.raises(ValueError, match="limit is 0"):
        run_until_decided(state, problem, 0.1, limit=0)
    with pytest.raises(ValueError, match=r"expected .* in \[0, k\]"):
        limit_success_probability(26.0, 25, 6)
    with pytest.raises(ValueError, match="p is 0"):
        success_probability(jax.random.key(0), problem, 0, 10)
