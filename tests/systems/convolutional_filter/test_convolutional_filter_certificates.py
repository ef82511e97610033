"""Runs of one filter against Theorems 6.1 to 6.4: Gaussian, of several patches, stochastic."""

import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled

from ntkflow.systems.convolutional_filter import certificates, schedules
from ntkflow.systems.convolutional_filter.bounds_stochastic import StochasticSetting
from ntkflow.systems.convolutional_filter.gaussian import gaussian_gamma, gaussian_smoothness
from ntkflow.systems.convolutional_filter.moments import Moments
from ntkflow.systems.convolutional_filter.observables import observables
from ntkflow.systems.convolutional_filter.population import gaussian_loss
from ntkflow.training.descent import descend

RATES = (gaussian_gamma, gaussian_smoothness, 1 / np.pi)
RULE = schedules.adaptive_step(*RATES)
STEPS = 120


@compiled
@jax.vmap
def descents(start, w_star, step):
    """With a constant step size, or by the rule where that is 0."""
    rule = lambda phi: jnp.where(step > 0, step, RULE(phi))  # noqa: E731
    optimizer = schedules.scale_by_adaptive_step(rule, w_star)
    observe = observables(w_star, loss=gaussian_loss, rule=rule)
    trajectory = descend(gaussian_loss, optimizer, STEPS, observe=observe)(start, w_star)
    return trajectory.history, trajectory.steps


@pytest.fixture(scope="module")
def runs():
    """Adaptive and constant steps from the same starts, and others with w* = e_1."""
    w_star = np.array([0.0, 1.5, -2.0])
    starts = w_star + np.array([[2.4, 0.0, 0.0], [0.5, 0.6, -0.8], [0.0, -1.2, 1.6]])
    others = np.array([[0.4, 0.85, 0.0], [-0.5, 0.01, 0.0], [0.0, 0.0, 0.0]])
    step = schedules.constant_step(np.arcsin(2.4 / 2.5), *RATES)
    history, steps = jax.device_get(
        descents(
            np.concatenate([starts, starts, others]).astype("float32"),
            # w* in float64, as a table of it would be: the records are of the run's precision
            np.repeat([w_star, w_star, np.eye(3)[0]], 3, axis=0),
            np.repeat(np.array([0.0, step, 0.8], "float32"), 3),
        )
    )
    rows = {"adaptive": slice(3), "constant": slice(3, 6), "recovery": slice(6, 9)}
    return {
        kind: ({name: record[row] for name, record in history.items()}, steps[0])
        for kind, row in rows.items()
    }


def test_every_step_of_gaussian_runs_contracts(runs):
    for kind in ("adaptive", "constant"):
        history, steps = runs[kind]
        assert history["distance"].dtype == "float32"
        certificate = certificates.certificate_gradient_descent(history, steps, *RATES)
        assert certificate.theorem.startswith("Du (2019), Theorem 6.2")
        assert certificate.applies.all()
        assert certificate.holds.shape == (3,)
        assert certificate.holds.all()
        # and one step from each record is the next record
        assert_close(history["next_distance"][:, :-1], history["distance"][:, 1:], factor=1e3)


def test_a_table_certifies_as_well(runs):
    history, steps = runs["constant"]
    phi_0 = float(history["largest_angle"][0, 0])  # an angle of the table: its step is the rule's
    phis = np.append(np.linspace(0, phi_0, 300), np.pi / 2)
    table = RATES[0](phis), RATES[1](phis), RATES[2]
    certificate = certificates.certificate_gradient_descent(history, steps, *table, phis=phis)
    assert certificate.applies.all()
    assert certificate.holds.all()


def test_a_false_rate_is_seen(runs):
    history, steps = runs["constant"]
    quick = (lambda phi: 0 * phi + 3.0, lambda phi: 0 * phi + 3.0, 0.0)
    certificate = certificates.certificate_gradient_descent(history, steps, *quick)
    failed = [row.statement for row in certificate.claims if not row.holds.all()]
    assert len(failed) == 2
    assert all("γ" in statement for statement in failed)


@pytest.mark.quick
def test_forbidden_steps_are_refused_by_name(runs):
    history, steps = runs["constant"]
    phi_0 = float(history["largest_angle"][0, 0])
    largest = float(schedules.constant_step(phi_0, *RATES))
    long = history | {"step_size": 1.1 * history["step_size"]}
    with pytest.raises(ValueError, match=f"Theorem 6.2 of Du .* allows at most {largest:.6g}, at"):
        certificates.certificate_gradient_descent(long, steps, *RATES)


def test_a_start_too_far_is_a_hypothesis_that_fails(runs):
    history, steps = runs["constant"]
    far = {name: np.array(record) for name, record in history.items()}
    far["distance"][0, 0], far["largest_angle"][0, 0] = 3.0, np.nan
    certificate = certificates.certificate_gradient_descent(far, steps, *RATES)
    assert certificate.applies.tolist() == [False, True, True]
    # w_0 = 0 is not closer than ‖w*‖
    far["distance"][0, 0], far["largest_angle"][0, 0] = 2.5, np.pi / 2
    far["step_size"][0, 0] = 0.0
    assert not certificates.certificate_gradient_descent(far, steps, *RATES).applies[0]


def test_one_neuron_is_recovered_from_outside_of_the_ball(runs):
    """Theorem 6.1 asks for ℓ(w_0) < ℓ(0) alone: here ‖w_0 − w*‖ > ‖w*‖. A start behind 0 fails, and
    0 itself, where ℓ(w_0) = ℓ(0)."""
    history, steps = runs["recovery"]
    assert history["distance"][0, 0] > 1
    certificate = certificates.certificate_recovery(history, steps)
    assert certificate.applies.tolist() == [True, False, False]
    assert certificate.holds[0]
    # Lemma 6.1 holds of both
    assert certificate.claims[0].holds.all()
    # and where the run is not over, its end is not w*
    cut = {name: record[:, :3] for name, record in history.items()}
    assert not certificates.certificate_recovery(cut, steps[:3]).holds.any()


def moments_at(w, w_star, z):
    """E[Z_{++}Z_{++}ᵀ], E[Z_{+−}Z_{+−}ᵀ], and the three products of different regions."""
    active, target = z @ w > 0, z @ w_star > 0
    both, student, teacher = (
        np.mean(z * inside[..., None], axis=1)
        for inside in (active & target, active & ~target, ~active & target)
    )
    pairs = [(both,) * 2, (student,) * 2, (both, student), (both, teacher), (student, teacher)]
    return np.array([a.T @ b / len(z) for a, b in pairs])


def plane_moments(z, w_star, phis):
    """γ, L, β and L_cross in the plane, w* = (1, 0): both filters at each angle."""
    w = [[np.array([np.cos(phi), s * np.sin(phi)]) for phi in phis] for s in (1, -1)]
    terms = np.array([[moments_at(one, w_star, z) for one in side] for side in w])
    values = np.linalg.eigvalsh(terms[:, :, 0])
    norms = np.linalg.norm(terms[:, 1:, 1:], 2, axis=(-2, -1)) / phis[None, 1:, None]
    return Moments(
        values[..., 0].min(0),
        values[..., -1].max(0),
        norms[..., 0].max(),
        norms[..., 1:].sum(-1).max(),
    )


def test_close_patches_with_little_mass_at_the_boundary():
    """Theorem 6.3 on a sample: two patches 0.1 apart, angles from ±w* with σ = 0.6."""
    n = 400
    share = (np.arange(n // 2) + 0.5) / (n // 2)
    normal = statistics.NormalDist(sigma=0.6)
    tail = normal.cdf(-np.pi / 2)
    t = np.array([normal.inv_cdf(tail + (1 - 2 * tail) * x) for x in share])
    t = np.concatenate([t, t + np.pi])[:, None] + np.array([[-0.05, 0.05]])
    z = np.stack([np.cos(t), np.sin(t)], axis=-1)
    w_star = np.array([1.0, 0.0])
    phis = np.linspace(0.0, 0.6, 25)
    moments = plane_moments(z, w_star, phis)
    assert 0 < 6 * moments.cross < moments.gamma[-1]
    step = schedules.constant_step(0.5, *moments, phis=phis)

    def loss_and_gradient(w):
        output = np.maximum(z @ w, 0).mean(1)
        error = output - np.maximum(z @ w_star, 0).mean(1)
        gradient = error @ np.mean(z * (z @ w > 0)[..., None], axis=1) / n
        return np.mean(error**2) / 2, gradient

    w = w_star + 0.47 * np.array([-0.6, 0.8])
    rows = []
    for _ in range(60):
        loss, gradient = loss_and_gradient(w)
        after = w - step * gradient
        distance = np.linalg.norm(w - w_star)
        rows.append(
            {
                "distance": distance,
                "target_norm": 1.0,
                "angle": abs(np.arctan2(w[1], w[0])),
                "largest_angle": np.arcsin(distance),
                "zero_loss": loss_and_gradient(0 * w)[0],
                "gradient_norm": np.linalg.norm(gradient),
                "descent": gradient @ (w - w_star),
                "step_size": step,
                "next_distance": np.linalg.norm(after - w_star),
                "next_loss": loss_and_gradient(after)[0],
                "loss": loss,
            }
        )
        w = after
    history = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    certificate = certificates.certificate_gradient_descent(
        history, np.arange(60), *moments, phis=phis
    )
    assert "Theorem 6.3" in certificate.theorem
    assert certificate.applies
    assert certificate.holds
    short = moments._replace(gamma=moments.gamma[:13], smoothness=moments.smoothness[:13])
    with pytest.raises(ValueError, match=r"the table ends at 0\.3;"):
        certificates.certificate_gradient_descent(history, np.arange(60), *short, phis=phis[:13])


SETTING = StochasticSetting(0.5, 0.5, 0.0, 0.0, 1.0, 1.0, 0.2, 0.9, delta=0.2)


def stochastic(distance, step_size=5e-4):
    history = {"distance": np.asarray(distance), "target_norm": np.ones(np.shape(distance))}
    return certificates.certificate_stochastic_descent(
        history, np.array([0, 6000, 12_000]), SETTING, 0.1, step_size
    )


def test_stochastic_claims_are_about_shares_of_seeds():
    good = [[0.2, 0.1, 0.02]]
    certificate = stochastic(good * 20)
    assert certificate.applies
    assert certificate.holds
    left, far = [[0.2, 0.95, 0.02]], [[0.2, 0.1, 0.15]]
    for bad, claim in ((left, 0), (far, 1)):
        certificate = stochastic(good * 15 + bad * 5)
        assert [bool(row.holds) for row in certificate.claims[:2]] == [claim == 1, claim == 0]
        assert_close(certificate.claims[claim].smaller, np.array([0.25]))
    assert not stochastic([[0.3, 0.1, 0.02]]).applies
    assert not stochastic([[0.2, 0.1, np.nan]]).holds


def test_stochastic_steps_that_are_refused():
    with pytest.raises(ValueError, match=r"step_size is 0.001; Theorem 6.4 of Du .* 0.00066"):
        stochastic([[0.2, 0.1, 0.02]], step_size=1e-3)
    with pytest.raises(ValueError, match="expected \\(seeds, records\\)"):
        stochastic([0.2, 0.1, 0.02])


def test_observables_and_their_errors():
    w_star = jnp.array([1.0, 0.0])
    plain = set(observables(w_star))
    with_loss = set(observables(w_star, loss=gaussian_loss))
    assert with_loss - plain == {"zero_loss", "gradient_norm", "descent"}
    with pytest.raises(ValueError, match="expected one of them"):
        observables(w_star, loss=gaussian_loss, step_size=0.1, rule=RULE)
    with pytest.raises(ValueError, match="without loss"):
        observables(w_star, step_size=0.1)
    with pytest.raises(ValueError, match="step_size is nan"):
        observables(w_star, loss=gaussian_loss, step_size=np.nan)
    with pytest.raises(ValueError, match="w_star is 0"):
        observables(0 * w_star)
    with pytest.raises(ValueError, match=r"lacks \['angle'"):
        certificates.certificate_recovery({"distance": np.ones(3)}, np.arange(3))
