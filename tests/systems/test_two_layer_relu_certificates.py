"""Observers and certificates: wide runs that hold, narrow ones that fail, and batches of seeds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled

from ntkflow.systems.two_layer_relu import (
    TwoLayerReLU,
    certificate_gradient_descent,
    certificate_gradient_flow,
    gram,
    largest_step_size,
    limit_gram,
    limit_smallest_eigenvalue,
    observables,
    one_step,
    patterns,
    predict,
    stable_radius,
    step_observables,
)
from ntkflow.training.descent import descend
from ntkflow.training.flow import gradient_flow
from ntkflow.training.losses import squared_loss
from ntkflow.training.mapping import over_seeds
from ntkflow.training.observe import Snapshot

RATE = "‖u − y‖² ≤ (1 − ηλ_0/2)ᵏ ‖u(0) − y‖²"
CONFINED = "patterns of S_i do not change in the step"


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def sphere(seed, n, d):
    x = np.random.default_rng(seed).normal(size=(n, d))
    return jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def descent(width, steps, every):
    """An experiment (key, x, y, η, R): initialize, train, return what the certificate reads."""
    module = TwoLayerReLU(width)

    def experiment(key, x, y, step_size, radius):
        optimizer, observe = optax.sgd(step_size), step_observables(step_size, radius)
        loss = squared_loss(module.apply)
        run = descend(loss, optimizer, steps, observe=observe, every=every)
        trajectory = run(module.init(key, x), (x, y))
        return trajectory.history, trajectory.steps

    return experiment


NARROW = 3


@pytest.fixture(scope="module")
def narrow_runs():
    """One compiled study, 60 steps of five seeds for four samples in four dimensions."""
    study = compiled(over_seeds(descent(NARROW, steps=60, every=20)))
    return lambda seed, *given: jax.device_get(
        study(jax.random.split(jax.random.key(seed), 5), *given)
    )


@pytest.fixture(scope="module")
def narrow_run(narrow_runs):
    """The first of the five."""
    return lambda *given: seed_of(narrow_runs(*given), 0)


def seed_of(runs, seed):
    return jax.tree.map(lambda leaf: leaf[seed], runs)


def by_statement(certificate):
    return {entry.statement: entry for entry in (*certificate.hypotheses, *certificate.claims)}


@pytest.mark.quick
def test_theorem_2_3_applies_and_holds():
    """One sample and δ = 0.9: the smallest case whose width, 7.7e5, fits into a test."""
    x, y, delta, m = jnp.array([[1.0]]), jnp.array([0.0]), 0.9, 2**20
    step = largest_step_size(1, 0.5, constant=0.25).value
    radius = stable_radius(1, 0.5, delta / 3, "descent").value
    run = compiled(descent(m, steps=4, every=2))(jax.random.key(0), x, y, step, radius)
    certificate = certificate_gradient_descent(*run, (x, y), m, delta=delta)
    assert certificate.applies
    assert certificate.holds
    assert by_statement(certificate)[RATE].ratio < 0.98


def test_a_wide_network_satisfies_every_claim_with_room():
    n, m, delta, key = 4, 2**14, 0.9, jax.random.key(1)
    x = sphere(0, n, 8)
    lambda_0 = limit_smallest_eigenvalue(x)
    step = largest_step_size(n, lambda_0, constant=0.25).value
    radius = stable_radius(n, lambda_0, delta / 3, "descent").value
    # Labels near the initial predictions: R' < R would take m = 10⁹ for labels of size 1.
    initial = compiled(lambda key: predict(TwoLayerReLU(m).init(key, x), x))(key)
    y = jnp.asarray(np.asarray(initial) + 1e-3 * np.array([1.0, -1.0, 1.0, -1.0]))
    run = compiled(descent(m, steps=20, every=4))(key, x, y, step, radius)
    certificate = certificate_gradient_descent(*run, (x, y), m, delta=delta)
    entries = by_statement(certificate)
    assert certificate.holds
    assert entries["R' < R"].holds
    assert not certificate.applies  # Theorem 2.3's own width is far larger
    assert not entries["Ω(n⁶ / (λ_0⁴ δ³)) ≤ m"].holds
    for claim in certificate.claims:
        assert claim.margin > 0 or claim.statement == CONFINED, claim.statement
        assert claim.ratio < 0.999, claim.statement
    assert entries[CONFINED].ratio == 0


def test_a_wide_flow_satisfies_every_claim_with_room():
    x, m = sphere(2, 4, 8), 2048
    y = jnp.array([0.5, -1.0, 1.0, -0.5])
    module = TwoLayerReLU(m)
    run = gradient_flow(
        squared_loss(module.apply), np.linspace(0, 10, 6), observe=observables(), rtol=1e-4
    )
    signs = jnp.asarray(np.sign(normal(3, m)))
    initial = {"params": {"kernel": normal(4, 8, m)}, "fixed": {"output": signs}}
    trajectory = jax.device_get(compiled(run)(initial, (x, y)))
    certificate = certificate_gradient_flow(trajectory.history, trajectory.steps, (x, y), m)
    assert certificate.holds
    assert not certificate.applies
    assert all(claim.margin > 0 for claim in certificate.claims)
    assert certificate.rows()[-1]["statement"] == "‖u − y‖² ≤ exp(−λ_0 t) ‖u(0) − y‖²"


def test_a_narrow_network_with_a_large_step_fails_and_the_certificate_says_where(narrow_run):
    x, y = sphere(4, 4, 4), jnp.asarray(2 * np.asarray(normal(5, 4)))
    history, steps = narrow_run(6, x, y, 8.0, 1e-3)
    certificate = certificate_gradient_descent(history, steps, (x, y), NARROW)
    entries = by_statement(certificate)
    assert not certificate.applies
    assert not certificate.holds
    assert not entries[RATE].holds
    assert not entries["η ≤ λ_0 / 4n²"].holds
    assert not entries["λ_0/2 ≤ λ_min(H)"].holds
    # What holds for every step and width holds here too.
    for statement in (
        "‖∂L/∂w_r‖ ≤ √n ‖y − u‖ / √m",
        "‖u(k+1) − u(k)‖² ≤ η² n² ‖y − u(k)‖²",
        "|I_2^i| ≤ η |S_i^⊥| √n ‖u(k) − y‖ / m",
        "‖H^⊥(k)‖ ≤ n Σ_i |S_i^⊥| / m",
    ):
        assert entries[statement].holds, statement
    rows = {row["statement"]: row for row in certificate.rows()}
    assert rows[RATE]["margin"] < 0
    assert rows[RATE]["holds"] == 0


def test_divergence_is_data(narrow_run):
    x, y = sphere(4, 4, 4), jnp.asarray(2 * np.asarray(normal(5, 4)))
    history, steps = narrow_run(2, x, y, 1e6, 1e-3)
    assert not np.isfinite(history["squared_error"][-1])
    certificate = certificate_gradient_descent(history, steps, (x, y), NARROW)
    assert not certificate.holds
    assert not by_statement(certificate)[RATE].holds


def test_a_batch_of_seeds_gives_one_verdict_each(narrow_runs):
    x, y = sphere(7, 4, 4), normal(8, 4)
    runs = narrow_runs(9, x, y, 0.5, 1e-3)
    batch = certificate_gradient_descent(*runs, (x, y), NARROW)
    assert batch.holds.shape == batch.applies.shape == (5,)
    assert set(by_statement(batch)[RATE].holds.tolist()) == {True, False}
    for seed in range(5):
        single = certificate_gradient_descent(*seed_of(runs, seed), (x, y), NARROW)
        assert bool(single.holds) == bool(batch.holds[seed])
        for one, many in zip(single.claims, batch.claims, strict=True):
            assert one.statement == many.statement
            margin = np.broadcast_to(many.margin, 5)[seed]
            np.testing.assert_allclose(margin, one.margin, rtol=1e-8, atol=1e-12)


def test_observers_are_what_their_names_say(dtype):
    w0, signs = np.asarray(normal(12, 5, 30)), np.sign(normal(12, 30))
    w = w0 * 0.5 - 0.2
    x, y, w0, w, signs = (
        jnp.asarray(np.asarray(a, dtype)) for a in (sphere(10, 4, 5), normal(11, 4), w0, w, signs)
    )
    initial, variables = (
        {"params": {"kernel": kernel}, "fixed": {"output": signs}} for kernel in (w0, w)
    )
    step, radius = 0.1, 0.3
    snapshot = Snapshot(3, variables, initial, (x, y))
    observers = step_observables(step, radius)
    see = jax.jit(lambda s: {name: observe(s) for name, observe in observers.items()})
    seen = jax.device_get(see(snapshot))

    @compiled
    def functions(variables):
        return predict(variables, x), gram(variables, x), patterns(variables, x), limit_gram(x)

    u, h, active, limit = jax.device_get(functions(variables))
    _, h0, before, _ = jax.device_get(functions(initial))
    taken = jax.device_get(jax.jit(one_step)(variables, initial, x, y, step, radius))
    w, w0, y = jax.device_get((w, w0, y))
    change = taken.stable + taken.unstable
    flipped = active != before
    assert 0 < flipped.sum() < flipped.size
    expected = {
        "squared_error": np.sum((u - y) ** 2),
        "pattern_changes": flipped.sum() / flipped.size,
        "largest_weight_distance": max(np.linalg.norm(w - w0, axis=0)),
        "gram_smallest_eigenvalue": np.linalg.eigvalsh(h)[0],
        "gram_change": np.linalg.norm(h - h0, 2),
        "gram_error": np.linalg.norm(h - limit, 2),
        "gram_entry_error": np.abs(h - limit).max(),
        "unstable_gram_norm": np.linalg.norm(taken.unstable_gram, 2),
        "squared_change": np.sum(np.square(change)),
        "next_squared_error": np.sum(np.square(u + change - y)),
    }
    for name, value in expected.items():
        assert seen[name].dtype == dtype, name
        assert_close(seen[name], np.asarray(value, dtype), scale=max(abs(float(value)), 0.1))
    assert seen["unstable_change"].tolist() == taken.unstable.tolist()
    assert seen["unstable_neurons"].tolist() == taken.unstable_neurons.tolist()
    assert float(seen["step_size"]) == np.asarray(step, dtype)


def test_wider_networks_change_less():
    x, y = sphere(13, 30, 30), normal(14, 30)

    def last(width):
        module = TwoLayerReLU(width)
        observe = {n: observables()[n] for n in ("pattern_changes", "largest_weight_distance")}
        run = descend(squared_loss(module.apply), optax.sgd(0.5), 20, observe=observe, every=20)
        signs = jnp.asarray(np.sign(normal(15, width)))
        initial = {"params": {"kernel": normal(16, 30, width)}, "fixed": {"output": signs}}
        history = compiled(run)(initial, (x, y)).history
        return [float(history[name][-1]) for name in observe]

    changes, distances = zip(*(last(width) for width in (100, 1600)), strict=True)
    # Both fall like 1/√m.
    assert 2 < changes[0] / changes[1] < 8
    assert 2 < distances[0] / distances[1] < 8


def test_what_is_refused(narrow_run):
    x, y = sphere(16, 4, 4), np.ones(4)
    history, steps = narrow_run(0, x, y, 0.1, 0.1)
    partial = {name: value for name, value in history.items() if name != "gram_change"}
    with pytest.raises(ValueError, match=r"lacks \['gram_change'\]; .*step_observables\("):
        certificate_gradient_descent(partial, steps, (x, y), 5)
    with pytest.raises(ValueError, match="the first at 0"):
        certificate_gradient_descent(history, steps + 2, (x, y), 5)
    with pytest.raises(ValueError, match=r"steps has shape \(2,\) and the history 4 records"):
        certificate_gradient_descent(history, steps[:2], (x, y), 5)
    with pytest.raises(ValueError, match="width is 0"):
        certificate_gradient_descent(history, steps, (x, y), 0)
    with pytest.raises(ValueError, match="delta is"):
        certificate_gradient_descent(history, steps, (x, y), 5, delta=3.5)
    with pytest.raises(ValueError, match="x has 4, y has 2"):
        certificate_gradient_flow(history, steps, (x, y[:2]), 5)
    x = np.asarray(x)
    parallel = x[[0, 1, 0, 3]]
    with pytest.raises(ValueError, match=r"λ_0 is 0, up to rounding: rows 0 and 2 of x"):
        certificate_gradient_flow(history, steps, (parallel, y), 5)
    with pytest.raises(ValueError, match="row 1 of x is zero"):
        certificate_gradient_flow(history, steps, (x * (np.arange(4) != 1)[:, None], y), 5)
