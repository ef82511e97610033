"""Rank one: four numbers follow the whole iteration, and Theorem 4.5 over many seeds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close

from ntkflow.systems import matrix_factorization as system
from ntkflow.systems.matrix_factorization import RankOne
from ntkflow.training.descent import descend

D_1, D_2, SIGMA, C_INIT, C_STEP, STEPS = 30, 20, 2.0, 0.1, 0.1, 300


def starts(seeds, d_1, d_2, c_init, sigma_1=SIGMA):
    """(α, β, α_⊥, β_⊥) of Gaussian u_0 and v_0; u* and v* are the first unit vectors."""
    random = np.random.default_rng(seeds + d_1)
    std = system.rank_one_std(max(d_1, d_2), sigma_1, c_init).value
    u, v = (std * random.normal(size=(seeds, d)) for d in (d_1, d_2))
    rest = (np.linalg.norm(factor[:, 1:], axis=1) for factor in (u, v))
    return RankOne(u[:, 0], v[:, 0], *rest)


simulate = jax.jit(jax.vmap(system.simulate, (0, None, None, None)), static_argnums=3)


@pytest.fixture(scope="module")
def thousand():
    path = simulate(starts(1000, D_1, D_2, C_INIT), C_STEP / SIGMA, SIGMA, STEPS)
    return RankOne(*map(np.asarray, path))


@pytest.fixture(scope="module")
def full():
    """Thirty seeds of the iteration on u and v itself: ‖uvᵀ − M*‖_F, and its state."""
    random = np.random.default_rng(3)
    unit = lambda d: (x := random.normal(size=(30, d))) / np.linalg.norm(x, axis=1)[:, None]  # noqa: E731
    left, right = unit(D_1), unit(D_2)
    std = system.rank_one_std(D_1, SIGMA, C_INIT).value
    params = {n: std * random.normal(size=(30, d, 1)) for n, d in (("u", D_1), ("v", D_2))}

    def run(params, left, right):
        schedule = system.constant_schedule(C_STEP, SIGMA)
        observe = {"state": lambda s: system.reduce(s.params, left, right)}
        target = SIGMA * left[:, None] * right[None, :]
        run = descend(system.objective, optax.sgd(schedule), STEPS, observe=observe)
        return run(params, target).history

    history = jax.device_get(jax.jit(jax.vmap(run))(params, left, right))
    return np.sqrt(2 * history["loss"]), history["state"]


@pytest.mark.quick
def test_four_numbers_follow_the_whole_iteration(full):
    error, path = full
    start = RankOne(*(np.resize(part[:, 0], 1000) for part in path))
    alone = [part[:30] for part in simulate(start, C_STEP / SIGMA, SIGMA, STEPS)]
    for observed, reduced in zip(path, alone, strict=True):
        assert np.abs(observed - reduced).max() < 1e-12 * SIGMA
    np.testing.assert_allclose(system.product_error(path, SIGMA), error, rtol=1e-9, atol=1e-14)


@pytest.mark.quick
def test_the_recursion_of_h_and_xi_is_exact(full):
    """(4.24) along the iteration on u and v, to 1e-12."""
    _, path = full
    eta = C_STEP / SIGMA
    h, xi = system.signal_error(path, SIGMA), system.complement(path)
    h_next, xi_next = (
        system.next_signal_error(path, eta, SIGMA),
        system.next_complement(path, eta),
    )
    assert np.abs(h_next[:, :-1] - h[:, 1:]).max() < 1e-12
    assert np.abs(xi_next[:, :-1] - xi[:, 1:]).max() < 1e-12


def test_iterations_to_convergence_at_the_catalogs_setting(thousand):
    """1e-6 after 161 iterations in the median, 150 to 187 for nine seeds in ten."""
    error = system.product_error(thousand, SIGMA) / SIGMA
    assert (error[:, -1] < 1e-6).all()
    low, median, high = np.percentile((error < 1e-6).argmax(axis=1), [5, 50, 95])
    assert abs(median - 161) <= 2
    assert abs(low - 150) <= 3
    assert abs(high - 187) <= 6


def test_the_convergence_is_linear_at_the_rate_of_the_complement(thousand):
    """α, β → √σ_1 up to a ratio near 1: 1 − ηα² is nearly 1 − c_step, the factor per step."""
    error = system.product_error(thousand, SIGMA)
    factors = error[:, 201:] / error[:, 200:-1]
    assert abs(np.median(factors) - (1 - C_STEP)) < 1e-3
    assert (np.abs(factors - (1 - C_STEP)) < 0.02).mean() > 0.99


def test_theorem_4_5_holds_for_the_half_of_the_seeds_that_it_speaks_of(thousand):
    certificate = system.certificate_rank_one(thousand, SIGMA, C_STEP / SIGMA, D_1, C_INIT)
    same_sign = thousand.alpha[:, 0] * thousand.beta[:, 0] > 0
    entries = {e.statement: e for e in (*certificate.hypotheses, *certificate.claims)}
    assert abs(same_sign.mean() - 0.5) < 4 * 0.5 / 1000**0.5
    start = [
        "0 < α_0β_0",
        "0.1 c_init √(σ_1/d) ≤ |α_0|, |β_0|",
        "|α_0|, |β_0| ≤ 10 c_init √(σ_1/d)",
        "α_{0,⊥}, β_{0,⊥} ≤ 10 c_init √σ_1",
    ]
    spoken_of = np.logical_and.reduce([np.broadcast_to(entries[s].holds, 1000) for s in start])
    assert 0.35 < spoken_of.mean() < 0.5  # constant probability
    assert certificate.holds[spoken_of].all()
    assert not certificate.holds[~same_sign].any()  # α or β is negative at first
    assert entries["T_1 ≤ 1 + log(√σ_1 / (α_0 + β_0)) / log(1 + c_step/3)"].holds[spoken_of].all()
    # c_step is not "sufficiently small" for the proof.
    assert not entries["c_step ≤ c_1/2"].holds.any()
    assert not certificate.applies.any()


@pytest.mark.quick
def test_theorem_4_5_applies_with_small_constants(dtype):
    c_init, c_step, steps = 0.05, 0.03, 1200
    start = RankOne(*(np.abs(part).astype(dtype) for part in starts(50, D_1, D_2, c_init)))
    path = simulate(start, c_step / SIGMA, SIGMA, steps)
    assert path.alpha.dtype == dtype
    certificate = system.certificate_rank_one(path, SIGMA, c_step / SIGMA, D_1, c_init, epsilon=0.5)
    assert certificate.applies.mean() > 0.6
    assert certificate.holds[certificate.applies].all()
    last = certificate.claims[-1]
    assert np.isfinite(last.larger).any()  # T_1 + T_2 + T_3 is within the run for some


def test_t_1_grows_with_the_logarithm_of_d():
    """α_0 + β_0 is of order √(1/d): half a log d, at ln(1 + c_step) per step."""
    dimensions = 10.0 ** np.arange(2, 9)
    z = np.abs(np.random.default_rng(1).normal(size=(200, 2)))
    scale = C_INIT / np.sqrt(dimensions)[:, None, None]
    first = (scale * z[None]).reshape(-1, 2)  # the same draws for every d, σ_1 = 1
    rest = np.full(len(first), C_INIT)
    path = simulate(RankOne(first[:, 0], first[:, 1], rest, rest), C_STEP, 1.0, STEPS)
    escape = system.stage_times(path, 1.0, 1e-3).escape.reshape(7, 200)
    assert np.isfinite(escape).all()
    slopes = np.diff(escape.mean(axis=1)) / np.log(10)
    expected = 0.5 / np.log(1 + C_STEP)
    np.testing.assert_allclose(slopes, expected, rtol=0.02)
    bound = system.escape_time(first.sum(axis=1), 1.0, C_STEP).value
    assert (escape.ravel() <= bound).all()


def test_the_second_stage_needs_the_square_of_epsilon(thousand):
    """At ξ ≤ εσ_1 and |h| ≤ εσ_1, as printed, the error is still of order √ε σ_1."""
    error = system.product_error(thousand, SIGMA) / SIGMA
    epsilon, rows = 1e-4, np.arange(1000)
    reached = {}
    for printed in (True, False):
        times = system.stage_times(thousand, SIGMA, epsilon, printed=printed)
        end = sum(times).astype(int)
        reached[printed] = error[rows, end]
    assert (reached[True] > 5 * epsilon).all()
    assert (reached[False] < 2 * epsilon).all()


def test_stage_times_by_hand():
    ones, small = np.ones(5), np.array([0.2, 0.1, 0.01, 0.0, 0.0])
    path = RankOne(
        np.array([0.1, 0.4, 0.8, 0.9, 1.0]), ones * [0.1, 0.5, 0.9, 1.0, 1.0], small, 0 * ones
    )
    times = system.stage_times(path, 1.0, 0.05)
    assert [float(time) for time in times] == [2.0, 0.0, 2.0]  # ξ = 1e-4 at 2; h = −0.1 at 3
    assert float(system.signal_constant(path, 1.0, times)) == 0.8**2 / 4
    times = system.stage_times(path, 10.0, 0.05)
    assert [float(time) for time in times] == [np.inf, np.inf, np.inf]
    assert np.isnan(system.signal_constant(path, 10.0, times))


def test_one_step_of_u_and_v_with_a_large_step():
    """η‖v‖² > 1 turns u around: α_⊥ is a norm, where (4.23) prints no absolute value."""
    random = np.random.default_rng(2)
    u, v = jnp.asarray(random.normal(size=(4, 1))), jnp.asarray(random.normal(size=(3, 1)))
    u_star, v_star = jnp.eye(4)[0], jnp.eye(3)[0]
    target = 1.5 * u_star[:, None] * v_star[None, :]

    def step(eta):
        after = system.gradient_step({"u": u, "v": v}, target, eta)
        state = system.reduce({"u": u, "v": v}, u_star, v_star)
        return system.reduce(after, u_star, v_star), state, system.advance(state, eta, 1.5)

    step = jax.jit(step)
    for eta in (0.1, 2.0):
        moved, state, expected = (RankOne(*map(np.asarray, s)) for s in step(eta))
        for a, b in zip(moved, expected, strict=True):
            assert_close(a, b)
        h = system.signal_error(moved, 1.5)
        assert_close(system.next_signal_error(state, eta, 1.5), h, scale=max(abs(float(h)), 1))
        assert_close(system.next_complement(state, eta), system.complement(moved))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda p: system.stage_times(p._replace(alpha=0 * p.alpha, beta=0 * p.beta), 1.0, 0.1),
            r"u_0 is orthogonal to u\* and v_0 to v\*.*at random",
        ),
        (lambda p: system.stage_times(p, 1.0, 1.5), r"epsilon is 1.5; .* in \(0, 1\)"),
        (
            lambda p: system.certificate_rank_one(RankOne(1.0, 1.0, 0.0, 0.0), 1.0, 0.1, 3, 0.1),
            r"path has shape \(\)",
        ),
        (lambda p: system.certificate_rank_one(p, 1.0, -0.1, 3, 0.1), "step_size is -0.1"),
        (lambda p: system.certificate_rank_one(p, 1.0, 0.1, 0, 0.1), "d is 0"),
        (
            lambda p: system.certificate_rank_one(p, 1.0, np.array([0.1, 0.2]), 3, 0.1),
            "step_size or c_init is an array; expected one number each",
        ),
        (lambda p: system.certificate_rank_one({"u": 1}, 1.0, 0.1, 3, 0.1), "path is of type dict"),
        (lambda p: system.stage_times(RankOne(1.0, 1.0, 0.0, 0.0), 1.0, 0.1), r"path has shape \("),
        (
            lambda p: system.stage_times(p._replace(beta=p.beta[:2]), 1.0, 0.1),
            r"path has shape \[\(5,\), \(2,\)",
        ),
        (lambda p: system.stage_times(p, 0.0, 0.1), "sigma_1 is 0.0"),
        (lambda p: system.stage_times(p, 1.0, None), "epsilon is None"),
        (lambda p: system.simulate(p, 0.1, 1.0, 5), r"shapes \[\(5,\).* jax.vmap"),
        (
            lambda p: system.reduce(
                {"u": jnp.ones((3, 1)), "v": jnp.ones((2, 1))}, jnp.eye(3)[:, :1], jnp.eye(2)[0]
            ),
            r"u_star \(3, 1\); expected \(d, 1\) and \(d,\)",
        ),
        (lambda p: system.simulate(RankOne(1.0, 1.0, 0.0, 0.0), 0.1, 0.0, 5), "sigma_1 is 0.0"),
        (
            lambda p: system.reduce(
                {"u": jnp.ones((3, 2)), "v": jnp.ones((2, 2))}, jnp.eye(3)[0], jnp.eye(2)[0]
            ),
            "the reduction is of rank one",
        ),
        (
            lambda p: system.reduce(
                {"u": jnp.ones((3, 1)), "v": jnp.ones((2, 1))}, 2 * jnp.eye(3)[0], jnp.eye(2)[0]
            ),
            "u_star has norm 2.0; expected a unit vector",
        ),
    ],
)
def test_what_is_refused(call, message):
    path = RankOne(*(np.full(5, 0.5) for _ in range(4)))
    with pytest.raises(ValueError, match=message):
        call(path)


def test_a_simulation_is_traced_once_for_all_calls_of_a_length(monkeypatch):
    traces = []

    def advance(*arguments):
        traces.append(arguments)
        return system.advance(*arguments)

    monkeypatch.setattr("ntkflow.systems.matrix_factorization.rank_one.advance", advance)
    counts = []
    for step_size in (0.1, 0.2, 0.3):
        system.simulate(RankOne(0.1, 0.1, 0.2, 0.2), step_size, 1.0, 17)
        counts.append(len(traces))
    assert counts[0] == counts[-1] > 0


def test_a_path_in_bfloat16_has_a_certificate():
    start = RankOne(*(jnp.asarray(value, "bfloat16") for value in (0.1, 0.1, 0.2, 0.2)))
    path = system.simulate(start, 0.1, 1.0, 9)
    assert path.alpha.dtype == "bfloat16"
    certificate = system.certificate_rank_one(path, 1.0, 0.1, 5, 0.1)
    recursion = [claim for claim in certificate.claims if "(4.24)" in claim.source]
    assert len(recursion) == 2
    assert all(claim.holds for claim in recursion)


def test_the_reduction_of_whole_numbers():
    """u* is not truncated to the integers of u."""
    params = {"u": jnp.array([[1], [2]]), "v": jnp.array([[2]])}
    path = system.reduce(params, jnp.array([0.6, 0.8]), jnp.array([1.0]))
    np.testing.assert_allclose(path, [2.2, 2.0, 0.4, 0.0], atol=1e-6)
