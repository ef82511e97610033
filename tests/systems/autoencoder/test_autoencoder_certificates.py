"""Certificates of the autoencoder: wide, narrow and diverged runs, and batches of seeds.

Runs to which Theorems 4.1 and 5.2 apply are the examples in the certificates' docstrings.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import compiled, samples

from ntkflow.systems.autoencoder.certificates import (
    certificate_gradient_descent,
    certificate_gradient_flow,
)
from ntkflow.systems.autoencoder.gram import limit_smallest_eigenvalue
from ntkflow.systems.autoencoder.network import Autoencoder
from ntkflow.systems.autoencoder.observables import step_observables
from ntkflow.training.descent import descend
from ntkflow.training.losses import squared_loss

RATE = "‖X − U(k)‖² ≤ (1 − ηλ_0/(2d))ᵏ ‖X − U(0)‖²"
PROVEN_RATE = "‖X − U(k)‖² ≤ (1 − ηλ_H/(2d))ᵏ ‖X − U(0)‖²"
# What holds of every step and width, for it is about norms of products.
ALWAYS = (
    "‖∂L/∂W‖ ≤ √λ_n ‖A‖ ‖X − U‖ / √(md)",
    "‖∂L/∂A‖ ≤ ‖φ(XᵀW)‖ ‖X − U‖ / √(md)",
    "‖H − H(0)‖ ≤ (√λ_n/m) (2 ‖φ(XᵀW(0))‖ + √λ_n R) R, R = ‖W − W(0)‖",
    "‖K^⊥‖ ≤ (λ_n ‖A‖² + ‖φ(XᵀW)‖²) / m",
    "C_2 ≤ (2η/d) (λ_n ‖A‖² + ‖φ(XᵀW)‖²)/m ‖X − U(k)‖²",
    "C_3 ≤ (2η/(md)) √(2n (‖φ(XᵀW)‖² ‖W‖² + λ_n ‖A‖⁴)) ‖X − U(k)‖²",
    "C_5 ≤ 2η² (‖φ(XᵀW)‖⁴ + λ_n² ‖A‖⁴) / (md)² ‖X − U(k)‖²",
)


def sphere(seed, n, d):
    x = np.asarray(samples(seed, n, d))
    return jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def descent(width, trains, steps, every):
    """An experiment (key, x, η): initialize, train, return what the certificate reads."""
    module = Autoencoder(width, trains=trains)

    def experiment(key, x, step_size):
        run = descend(
            squared_loss(module.apply),
            optax.sgd(step_size),
            steps,
            observe=step_observables(step_size),
            every=every,
        )
        trajectory = run(module.init(key, x), (x, x))
        return trajectory.history, trajectory.steps

    return experiment


def by_statement(certificate):
    return {entry.statement: entry for entry in (*certificate.hypotheses, *certificate.claims)}


WIDE = 2048


@pytest.mark.quick
@pytest.mark.parametrize(
    ("trains", "needed"),
    [
        ("encoder", ("|S_i^⊥| ≤ 4mR, R = max_r ‖w_r − w_r(0)‖", "‖w_r − w_r(0)‖ ≤ R'")),
        ("both", (*ALWAYS, PROVEN_RATE)),
    ],
)
def test_a_wide_network_satisfies_every_claim_with_room(trains, needed):
    x = sphere(0, 3, 6)
    run = jax.device_get(compiled(descent(WIDE, trains, 60, every=20))(jax.random.key(2), x, 1.0))
    certificate = certificate_gradient_descent(*run, (x, x), WIDE, trains)
    entries = by_statement(certificate)
    assert certificate.holds
    assert not certificate.applies  # the theorems' widths are far larger
    assert entries["‖x_i‖ = 1, to 10⁻⁶"].holds
    for claim in certificate.claims:
        assert claim.ratio < 0.999, claim.statement
    history, _ = run
    lambda_0, lambda_h = (limit_smallest_eigenvalue(x, kind) for kind in ("encoder", "decoder"))
    # Lemma 5.1 as printed, with λ_0 for λ_H, fails where the corrected one holds.
    assert lambda_h < history["decoder_gram_smallest_eigenvalue"][0] / 0.75 < lambda_0
    # Descent of size 1 is ahead of the flow, whose time is the number of steps.
    flow = certificate_gradient_flow(history, run[1], (x, x), WIDE, trains)
    assert flow.holds
    assert flow.claims[-1].statement == "‖X − U(t)‖² ≤ exp(−λ_0 t/d) ‖X − U(0)‖²"
    assert flow.claims[-1].ratio > entries[RATE].ratio
    for statement in (*needed, RATE):
        assert entries[statement].ratio > 0, statement  # none is about nothing


NARROW, SEEDS = 3, 5


@pytest.fixture(scope="module")
def narrow():
    """One compiled study of both layers, 40 steps, for four samples in three dimensions."""
    x = sphere(3, 4, 3)
    study = compiled(jax.vmap(descent(NARROW, "both", steps=40, every=20), (0, None, None)))
    keys = jax.random.split(jax.random.key(4), SEEDS)
    return x, lambda step_size: jax.device_get(study(keys, x, step_size))


def certified(narrow, step_size):
    x, study = narrow
    history, steps = study(step_size)
    return certificate_gradient_descent(history, steps[0], (x, x), NARROW, "both")


def test_a_narrow_network_fails_and_the_certificate_says_where(narrow):
    certificate = certified(narrow, 2.0)
    entries = by_statement(certificate)
    assert not certificate.applies.any()
    assert not certificate.holds.any()
    assert not entries["‖H(0) − H^∞‖ ≤ λ_H/4"].holds.all()
    assert not entries["R'_w ≤ R_w"].holds.any()
    assert not entries["η ≤ λ_H / (64nλ_n)"].holds.any()
    assert set(entries[RATE].holds.tolist()) == {True, False}
    for statement in ALWAYS:
        assert entries[statement].holds.all(), statement


def test_a_batch_of_seeds_gives_one_verdict_each(narrow):
    x, study = narrow
    batch = certified(narrow, 2.0)
    history, steps = study(2.0)
    assert batch.holds.shape == batch.applies.shape == (SEEDS,)
    for seed in range(SEEDS):
        one = {name: values[seed] for name, values in history.items()}
        single = certificate_gradient_descent(one, steps[seed], (x, x), NARROW, "both")
        for entry, many in zip(single.claims, batch.claims, strict=True):
            assert entry.statement == many.statement
            assert bool(entry.holds) == np.broadcast_to(many.holds, SEEDS)[seed]
            np.testing.assert_array_equal(entry.margin, np.broadcast_to(many.margin, SEEDS)[seed])


def test_records_of_many_keys(narrow):
    _, study = narrow
    history, steps = study(2.0)
    assert steps[0].tolist() == [0, 20, 40]
    assert history["flips"].shape == (SEEDS, 3, 4)
    np.testing.assert_allclose(history["squared_error"], 2 * history["loss"], rtol=1e-12)
    terms = ("kernel_term", "perpendicular_term", "unstable_term", "second_order_term")
    change = sum(history[name] for name in (*terms, "squared_change"))
    following = history["squared_error"] + change
    scale = np.abs(history["squared_error"]) + np.abs(change)
    np.testing.assert_array_less(np.abs(history["next_squared_error"] - following), 1e-12 * scale)
    for name in ("encoder_distance", "largest_decoder_distance", "gram_change", "pattern_changes"):
        assert (history[name][:, 0] == 0).all()
        assert (history[name][:, 1:] > 0).all()


def test_divergence_is_data(narrow):
    history, _ = narrow[1](1e120)
    assert not np.isfinite(history["squared_error"][:, 1:]).any()
    assert np.isnan(history["gram_smallest_eigenvalue"][:, 1:]).all()
    certificate = certified(narrow, 1e120)
    assert not certificate.holds.any()
    assert not by_statement(certificate)[RATE].holds.any()
    assert {row["kind"] for row in certificate.rows()} == {"hypothesis", "claim"}


def test_what_is_refused(narrow):
    x, study = narrow
    history, steps = study(2.0)
    steps = steps[0]

    def certify(history=history, steps=steps, data=(x, x), width=NARROW, trains="both", **options):
        return certificate_gradient_descent(history, steps, data, width, trains, **options)

    partial = {name: value for name, value in history.items() if name != "hidden_norm"}
    with pytest.raises(ValueError, match=r"lacks \['hidden_norm'\]; .*step_observables\("):
        certify(partial)
    with pytest.raises(ValueError, match="the first at 0"):
        certify(steps=steps + 2)
    with pytest.raises(ValueError, match="width is 0"):
        certify(width=0)
    with pytest.raises(ValueError, match=r"delta is .*; expected a probability"):
        certify(delta=3.5)
    with pytest.raises(ValueError, match=r"trains is 'decoder'; expected one of \['encoder', 'bo"):
        certify(trains="decoder")
    with pytest.raises(ValueError, match="trains is 'encoder', and the decoder moved"):
        certify(trains="encoder")
    with pytest.raises(ValueError, match=r"another y, of shape \(4, 3\); expected \(x, x\)"):
        certify(data=(x, x + 1))
    parallel = np.asarray(x)[[0, 1, 0, 3]]
    with pytest.raises(ValueError, match="no zero rows in x and no parallel ones"):
        certificate_gradient_flow(history, steps, (parallel, parallel), NARROW, "both")
