"""Runs on the octopus against Lemmas 7.1 to 7.3, Theorem 7.3 and Corollary 7.1."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import compiled

from ntkflow.systems.saddles import certificates
from ntkflow.systems.saddles.arguments import Constants
from ntkflow.systems.saddles.escape import EscapeTimes, escape_times, simulate, simulate_perturbed
from ntkflow.systems.saddles.lipschitz import smoothness
from ntkflow.systems.saddles.octopus import in_domain

TAU = math.e
STARTS = np.random.default_rng(0).uniform(-1, 1, (20, 4))
NOISE = {"radius": TAU / 100, "gradient_threshold": TAU / 100}


def by_statement(certificate):
    return {entry.statement: entry for entry in (*certificate.hypotheses, *certificate.claims)}


@compiled
def times_of(starts, constants, eta):
    return jax.vmap(lambda x: escape_times(x, constants, step_size=eta))(starts)


def times_from(start, constants, eta):
    """Of one start in four dimensions, by the program for twenty."""
    many = times_of(jnp.tile(start, (20, 1)), constants, eta)
    return one(many, 0)


def one(run, i):
    return jax.tree.map(lambda array: array[i], run)


@pytest.mark.quick
@pytest.mark.parametrize(("big", "eta"), [(1.0, 0.25), (1.5, 1 / 3), (math.e, 0.02)])
def test_lemma_7_2_applies_and_holds_from_every_start(big, eta, dtype):
    starts = jnp.asarray(STARTS, dtype)
    constants = Constants(big)
    times = times_of(starts, constants, eta)
    certificate = certificates.certificate_escape_times(times, starts, constants, step_size=eta)
    assert certificate.applies.all()
    assert certificate.holds.shape == (20,)
    assert certificate.holds.all()
    alone = jax.tree.map(lambda array: array[3], times)
    one = certificates.certificate_escape_times(alone, starts[3], constants, step_size=eta)
    for all_of, of_one in zip(certificate.claims, one.claims, strict=True):
        np.testing.assert_array_equal(all_of.margin[3], of_one.margin)


def test_the_printed_constants_of_the_proof_fail():
    """1/(2ηγ), not rounded up, at L = 1.5 and η = 1/(2L); and 1/(ηγ) for the first entry."""
    start, constants = jnp.array([1.0001 * TAU * 0.6**2, 0.5, 0.5, 0.5]), Constants(1.5)
    arguments = (times_from(start, constants, 1 / 3), start, constants)
    right = certificates.certificate_escape_times(*arguments, step_size=1 / 3)
    printed = certificates.certificate_escape_times(*arguments, step_size=1 / 3, printed=True)
    assert right.applies
    assert right.holds
    assert not by_statement(printed)["T_k^τ ≤ 1/(2ηγ)"].holds
    assert not by_statement(printed)["1/(ηγ) ≤ T_1 − T_1^τ"].holds


def test_times_that_are_rounded_to_more_than_a_step_are_no_violation():
    buffer = np.float32(2**27)
    for stage, holds in ((buffer + 16, True), (buffer + 64, False)):
        times = EscapeTimes(buffer[None], np.float32(stage)[None])
        arguments = (times, np.ones(1), Constants(1.5))
        certificate = certificates.certificate_escape_times(*arguments, step_size=0.1)
        assert by_statement(certificate)["T_k^τ ≤ ⌈1/(2ηγ)⌉"].holds == holds


def test_starts_that_never_leave_and_one_dimension():
    start = jnp.array([0.5, 0.3, 0.0, 0.5])
    times = times_from(start, Constants(), 0.05)
    certificate = certificates.certificate_escape_times(times, start, step_size=0.05)
    assert np.isinf(times.stage[-1])
    assert certificate.holds
    # The first coordinate's times do not depend on the others.
    alone = jax.tree.map(lambda array: array[:1], times)
    certificate = certificates.certificate_escape_times(alone, start[:1], step_size=0.05)
    assert certificate.holds
    assert len(certificate.claims) == 6


def test_other_starts_and_constants_do_not_apply_and_may_fail():
    start, constants = jnp.array([2.7, 2.6, 2.7, 2.7]), Constants(1.0)
    times = times_from(start, constants, 0.3)
    certificate = certificates.certificate_escape_times(times, start, constants, step_size=0.3)
    entries = by_statement(certificate)
    assert not entries["|x_j^0| ≤ 1"].holds
    assert not entries["1/(2ηγ) ≤ T_1 − T_1^τ"].holds
    assert not certificate.holds
    flat, start = Constants(2.0, tau=1.5), jnp.full(4, 0.5)
    times = times_from(start, flat, 0.1)
    certificate = certificates.certificate_escape_times(times, start, flat, step_size=0.1)
    assert not by_statement(certificate)["e ≤ τ"].holds


@pytest.fixture(scope="module")
def runs():
    """Three dimensions at L = 1: η = 1/ℓ and 1/(4L), 320 steps, and perturbed descent."""
    starts = jnp.asarray(STARTS[:3, :3])
    eta = jnp.array([1 / float(smoothness(3, Constants(1.0)).gradient_lipschitz), 0.25, 0.25])
    plain = lambda x, eta: simulate(x, Constants(1.0), step_size=eta, steps=320, every=1)  # noqa: E731
    noisy = lambda key, x: simulate_perturbed(  # noqa: E731
        key, x, Constants(1.0), step_size=0.25, waiting_time=1, steps=320, every=1, **NOISE
    )
    both = lambda keys, x, eta: (jax.vmap(plain)(x, eta), jax.vmap(noisy)(keys, x))  # noqa: E731
    keys = jax.random.split(jax.random.key(0), 3)
    return jax.device_get(compiled(both)(keys, starts, eta)), np.asarray(eta)


def test_theorem_7_3_holds_at_every_record(runs):
    (plain, _), eta = runs
    certificate = certificates.certificate_descent(plain, Constants(1.0), step_size=0.25)
    assert certificate.holds.tolist() == [True] * 3
    assert not certificate.applies.any()  # 1/(4L) is more than 1/ℓ
    slow = certificates.certificate_descent(plain, Constants(1.0), step_size=eta[0])
    assert slow.applies[0]
    assert slow.holds[0]
    # Corollary 7.1 speaks until the last saddle point is left, and by a factor √2 at least.
    stationary = certificate.claims[-1]
    assert (stationary.larger[plain.stage < 3] >= 2**0.5 - 1e-9).all()
    assert (plain.stage[:, -1] == 3).any()


def test_a_run_that_leaves_the_domain_or_comes_too_soon_fails(runs):
    (plain, noisy), _ = runs
    outside = plain._replace(inside=np.array([True, False, True]))
    certificate = certificates.certificate_descent(outside, Constants(1.0), step_size=0.25)
    assert certificate.holds.tolist() == [True, False, True]
    # At L = 3 the lemma promises more steps than the run at L = 1 took.
    sooner = certificates.certificate_descent(noisy, Constants(3.0), step_size=0.01)
    assert not by_statement(sooner)["|x_d| ≤ 2τ for t ≤ ((L+γ)/γ)^{d−1} / (2ηγ)"].holds.any()


def test_perturbed_descent_finds_a_minimum_in_time(runs):
    (_, noisy), _ = runs
    arguments = {"step_size": 0.25, **NOISE, "epsilon": 0.1, "delta": math.exp(-3)}
    certificate = certificates.certificate_perturbed(noisy, Constants(1.0), **arguments)
    assert certificate.applies.all()
    assert certificate.holds.all()
    tight = certificates.certificate_perturbed(noisy, Constants(1.0), constant=1e-9, **arguments)
    assert not tight.holds.any()
    loud = certificates.certificate_perturbed(
        noisy, Constants(1.0), **(arguments | {"radius": 1.0})
    )
    assert not loud.applies.any()
    early = jax.tree.map(lambda array: array[:, :5] if array.ndim > 1 else array, noisy)
    missing = certificates.certificate_perturbed(early, Constants(1.0), **arguments)
    assert not missing.holds.any()


def domain_points(d, count):
    """Random points of every arm, settled and crossing coordinates among them."""
    rng = np.random.default_rng(4)
    stage = rng.integers(0, d + 1, count)[:, None]
    order = np.arange(d)[None, :]
    uniform = rng.uniform(0, 1, (count, d))
    size = np.where(order < stage, 2 + 4 * uniform, np.where(order == stage, 2, 1) * uniform)
    size[:2] = 0.0
    size[:2, 0] = 1.001, 0.9
    return TAU * size * rng.choice([-1, 1], (count, d))


def test_lemma_7_1_holds_at_random_points(dtype):
    points = jnp.asarray(domain_points(3, 200), dtype)
    assert in_domain(points).all()
    certificate = certificates.certificate_landscape(points)
    assert certificate.holds
    buffers, elsewhere = certificate.claims[-2:]
    # Both are sharp: near τ, and along the direction that leaves.
    assert 0.99 < buffers.ratio <= 1
    assert 0.99 < elsewhere.ratio <= 1
    assert ((buffers.smaller > 0) != (elsewhere.smaller > 0)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda run: certificates.certificate_descent(run, Constants(1.0), step_size=0.6),
            r"0 < η ≤ 1/\(2L\) = 0.5",
        ),
        (
            lambda run: certificates.certificate_escape_times(
                run.times, np.ones((3, 3)), Constants(1.0), step_size=0.6
            ),
            r"0 < η ≤ 1/\(2L\) = 0.5",
        ),
        (
            lambda run: certificates.certificate_perturbed(
                run, Constants(1.0), step_size=0.6, epsilon=0.1, delta=0.1, **NOISE
            ),
            r"0 < η ≤ 1/\(2L\) = 0.5",
        ),
        (
            lambda run: certificates.certificate_escape_times(
                run.times, np.ones(3), Constants(1.0), step_size=0.1
            ),
            r"start \(3,\); expected the same",
        ),
        (
            lambda run: certificates.certificate_descent(run.times, step_size=0.1),
            "expected the Escape of simulate",
        ),
        (
            lambda run: certificates.certificate_descent(
                run._replace(steps=run.steps + 1), step_size=0.1
            ),
            "expected 0, the start",
        ),
        (
            lambda run: certificates.certificate_landscape(jnp.array([[0.0, 3.0]])),
            "outside of the domain",
        ),
    ],
)
def test_they_refuse_at_the_door(runs, call, message):
    (plain, _), _ = runs
    with pytest.raises(ValueError, match=message):
        call(plain)
