"""Schedules and bounds: the chain of the proof of Lemma 4.1, with its constants."""

import jax
import numpy as np
import pytest

from ntkflow.systems import matrix_factorization as system

SETTINGS = [(1, 1.0, 0.5), (3, 2.0, 0.1), (20, 0.3, 1e-3)]  # r, ‖M*‖_F, ε


@pytest.mark.quick
@pytest.mark.parametrize(("rank", "norm", "epsilon"), SETTINGS)
def test_the_theorems_schedule_meets_what_the_proof_asks(rank, norm, epsilon):
    schedule = system.theorem_schedule(epsilon, rank, norm)
    steps = np.asarray(schedule(np.arange(1000)))
    t = np.arange(1000) + 1
    np.testing.assert_allclose(steps, np.sqrt(epsilon / rank) / (100 * t * norm**1.5), rtol=1e-14)
    assert steps[0] < system.largest_step_size(rank, norm).value
    total = np.pi**2 / 6 * steps[0] ** 2
    budget = system.largest_step_square_sum(rank, norm, epsilon).value
    np.testing.assert_allclose(budget / total, 1e4 * rank**0.5 / 80 / (np.pi**2 / 6), rtol=1e-12)
    # The whole induction: the imbalance stays within ε/2 + ε/2.
    growth = system.imbalance_growth(rank, norm, np.sqrt(budget)).value
    np.testing.assert_allclose(growth, epsilon / 2, rtol=1e-12)
    after = 2 * system.factor_norm(rank, norm).value * (1 + 4 * norm**2 * steps[0] ** 2)
    assert after <= system.next_factor_norm(rank, norm).value


def test_the_theorems_steps_do_not_add_up_to_anything():
    """The warning in the docstring: 0.046 units of time in a million steps."""
    schedule = system.theorem_schedule(epsilon=0.1, rank=1, norm=1.0)
    assert round(float(np.asarray(schedule(np.arange(10**6))).sum()), 3) == 0.046


@pytest.mark.parametrize("excess", [0.05, 0.5])
@pytest.mark.parametrize(("rank", "norm", "epsilon"), SETTINGS)
def test_the_footnotes_largest_step_is_enough(rank, norm, epsilon, excess):
    first = system.largest_initial_step(rank, norm, epsilon, excess).value
    schedule = system.power_schedule(first, excess)
    steps = np.asarray(schedule(np.arange(100_000)))
    np.testing.assert_allclose(steps[[0, 7]], [first, first * 8 ** (-0.5 - excess)], rtol=1e-12)
    assert first <= system.largest_step_size(rank, norm).value
    rest = first**2 * 100_000 ** (-2 * excess) / (2 * excess)  # ∫ of the tail
    total = (steps**2).sum() + rest
    assert total <= system.largest_step_square_sum(rank, norm, epsilon).value


def test_with_one_half_the_footnotes_schedule_is_the_theorems():
    theorem = system.theorem_schedule(0.1, 3, 2.0)
    power = system.power_schedule(float(theorem(0)), 0.5)
    t = np.arange(50)
    np.testing.assert_allclose(theorem(t), power(t), rtol=1e-14)
    traced = jax.jit(lambda eps, t: system.theorem_schedule(eps, 3, 2.0)(t))(0.1, t)
    np.testing.assert_allclose(traced, theorem(t), rtol=1e-14)
    assert system.constant_schedule(0.1, 2.0)(5) == 0.05


def test_the_initial_variance_keeps_its_promise():
    d_1, d_2, rank, epsilon, delta = 20, 15, 3, 0.1, 0.2
    std = system.initial_variance(d_1, rank, epsilon, delta).value ** 0.5

    random = np.random.default_rng(2)
    u, v = (std * random.normal(size=(2000, d, rank)) for d in (d_1, d_2))
    grams = (np.einsum("kij,kil->kjl", factor, factor) for factor in (u, v))
    gap = np.linalg.norm(np.subtract(*grams), axis=(1, 2))
    larger = np.maximum(np.sum(u**2, axis=(1, 2)), np.sum(v**2, axis=(1, 2)))
    good, strict = (larger <= epsilon) & (gap <= epsilon / 2), larger <= epsilon / 8**0.5
    assert good.all()  # the imbalance of two independent matrices is far below their sum
    assert 0 < (~strict).mean() < delta


def test_smoothness_holds_and_half_of_it_is_attained():
    """Lemma 4.3's constant is 2(3c + 1): at aligned u, v and −M* the curvature is 3c + 1."""
    c, norm = 2.0, 3.0
    root = (c * norm) ** 0.5
    params, target = {"u": np.zeros((6, 3)), "v": np.zeros((5, 3))}, np.zeros((6, 5))
    params["u"][0, 0] = params["v"][0, 0] = root
    target[0, 0] = -norm
    eigenvalues = jax.jit(system.hessian_eigenvalues)
    largest = float(eigenvalues(params, target)[-1])
    bound = system.smoothness(c, norm).value
    np.testing.assert_allclose(largest, bound / 2, rtol=1e-12)
    random = np.random.default_rng(0)
    for _ in range(3):
        drawn = {name: random.normal(size=factor.shape) for name, factor in params.items()}
        m = random.normal(size=(6, 5))
        size = np.linalg.norm(m)
        c = max(np.sum(factor**2) for factor in drawn.values()) / size
        assert eigenvalues(drawn, m)[-1] <= system.smoothness(c, size).value / 2


def test_the_norm_of_balanced_factors():
    """(4.15): for any pair, and with equality for orthogonal columns of one length."""
    random = np.random.default_rng(1)
    for scale in (0.1, 1.0, 10.0):
        u, v = scale * random.normal(size=(6, 3)), random.normal(size=(4, 3))
        gap = np.linalg.norm(u.T @ u - v.T @ v)
        bound = system.balanced_factor_norm(3, np.linalg.norm(u @ v.T), gap).value
        assert max(np.sum(u**2), np.sum(v**2)) <= bound
    # u alone, v = 0: ‖U‖_F² = 3, and √(3 · 3).
    np.testing.assert_allclose(system.balanced_factor_norm(3, 0.0, 3**0.5).value, 3.0)
    at_most = system.balanced_factor_norm(4, 3 * 0.7, 0.7).value
    assert at_most <= system.factor_norm(4, 0.7).value <= 1.15 * at_most


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("theorem_schedule", (1.0, 1, 1.0), "epsilon is 1.0 and .* 1.0; expected 0 < ε <"),
        ("theorem_schedule", (0.0, 1, 1.0), "epsilon is 0.0"),
        ("theorem_schedule", (0.1, 0, 1.0), "rank is 0; expected a whole number"),
        ("power_schedule", (0.1, 0.7), r"excess is 0.7; expected δ in \(0, ½\]"),
        ("power_schedule", (0.1, 0.0), "excess is 0.0"),
        ("power_schedule", (-0.1, 0.2), "initial is -0.1; expected greater than 0"),
        ("constant_schedule", (0.0, 1.0), "c_step is 0.0; expected greater than 0"),
        ("constant_schedule", (0.1, -1.0), "sigma_1 is -1.0"),
        ("largest_initial_step", (1, 1.0, 0.1, 0.6), "excess is 0.6"),
        ("largest_step_square_sum", (1, 1.0, 2.0), "epsilon is 2.0"),
        ("initial_variance", (10, 2, 0.1, 1.5), r"delta is 1.5; .* in \(0, 1\)"),
        ("smoothness", (-1.0, 1.0), "c is -1.0; expected 0 or greater"),
        ("rank_one_std", (10, 0.0, 0.1), "sigma_1 is 0.0"),
        ("escape_time", (0.0, 1.0, 0.1), "initial_signal is 0.0"),
        ("complement_time", (0.1, 0.1, -0.1, 0.1), "complement_ratio is -0.1"),
        ("signal_time", (0.1, 0.1, 0.0), "epsilon is 0.0"),
    ],
)
def test_bad_arguments_are_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(system, name)(*arguments)
