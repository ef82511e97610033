"""Lemma 4.1 at every step: the theorem's schedule, the footnote's, and steps that are too large."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close

from ntkflow.systems import matrix_factorization as system
from ntkflow.training.descent import descend
from ntkflow.training.observe import Snapshot

D_1, D_2, RANK, EPSILON, STEPS = 12, 9, 2, 0.1, 6000
EXCESS = 0.1
START = system.initial_variance(D_1, RANK, EPSILON, 0.1)
SCHEDULES = {
    "theorem": system.theorem_schedule(EPSILON, RANK, 1.0),
    "footnote": system.power_schedule(
        float(system.largest_initial_step(RANK, 1.0, EPSILON, EXCESS).value), EXCESS
    ),
    "footnote in practice": system.power_schedule(0.5, EXCESS),
}


CASES = {  # schedule, and the standard deviation of the start
    **{name: (schedule, START.value**0.5) for name, schedule in SCHEDULES.items()},
    "large step": (optax.constant_schedule(1.5), 0.05),
    "large start": (optax.constant_schedule(0.1), 0.5),
    "diverging": (optax.constant_schedule(50.0), 0.5),
}


def problem(std=START.value**0.5, dtype="float64"):
    random = np.random.default_rng(0)
    left, right = (np.linalg.qr(random.normal(size=(d, RANK)))[0] for d in (D_1, D_2))
    target = left * np.array([0.84, 0.5426]) @ right.T
    params = {"u": random.normal(size=(D_1, RANK)), "v": random.normal(size=(D_2, RANK))}
    params = {name: jnp.asarray(std * factor, dtype) for name, factor in params.items()}
    return params, jnp.asarray(target / np.linalg.norm(target), dtype)


def by_statement(certificate):
    return {entry.statement: entry for entry in (*certificate.hypotheses, *certificate.claims)}


@pytest.fixture(scope="module")
def runs():
    """All cases for 6000 steps, every step recorded, in one compiled program."""
    _, target = problem()

    def one(params, which):
        schedule = lambda t: jnp.stack([jnp.asarray(f(t)) for f, _ in CASES.values()])[which]  # noqa: E731
        observe = system.step_observables(schedule)
        run = descend(system.objective, optax.sgd(schedule), STEPS, observe=observe)
        return run(params, target)

    starts = [problem(std)[0] for _, std in CASES.values()]
    starts = {name: jnp.stack([start[name] for start in starts]) for name in ("u", "v")}
    return jax.device_get(jax.jit(jax.vmap(one))(starts, jnp.arange(len(CASES))))


def certificate_of(runs, name):
    index = list(CASES).index(name)
    history = {key: value[index] for key, value in runs.history.items()}
    return system.certificate_gradient_descent(history, runs.steps[index], RANK, EPSILON)


@pytest.mark.quick
@pytest.mark.parametrize("name", ["theorem", "footnote"])
def test_lemma_4_1_applies_and_holds_at_every_step(runs, name):
    certificate = certificate_of(runs, name)
    assert certificate.applies
    assert certificate.holds
    assert len(certificate.claims[0].slack) == STEPS + 1
    entries = by_statement(certificate)
    for statement in (
        "‖U_tᵀU_t − V_tᵀV_t‖_F ≤ ε",
        "f_t ≤ 2 ‖M*‖_F²",
        "‖U_t‖_F², ‖V_t‖_F² ≤ 5 √r ‖M*‖_F",
        "f_{t+1} ≤ f_t − ½ η_t ‖∇f_t‖_F²",
    ):
        assert entries[statement].margin > 0, statement


def test_the_schedules_that_the_proof_admits_go_nowhere_and_a_larger_one_converges(runs):
    """The practical warning, and what saves it: the footnote's Θ with a larger factor."""
    final = dict(zip(CASES, runs.history["objective"][:, -1], strict=True))
    assert final["theorem"] > 0.499
    assert final["footnote"] > 0.45
    assert final["footnote in practice"] < 1e-8
    certificate = certificate_of(runs, "footnote in practice")
    entries = by_statement(certificate)
    assert certificate.holds  # every claim, at every step
    assert not certificate.applies
    assert not entries["η_t ≤ 1 / ((66√r + 2) ‖M*‖_F)"].holds
    assert not entries["Σ η_t² ≤ ε / (80 √r ‖M*‖_F³), over the run"].holds
    # Theorem 4.4's limit is a stationary point, and accurate.
    end = {name: factor[2] for name, factor in runs.params.items()}
    point = jax.jit(system.landscape)(end, problem()[1])
    limit = system.certificate_stationary_point(point, EPSILON)
    assert limit.applies
    assert limit.holds
    assert point.error < 1e-3


def test_the_drift_is_exact_at_every_step(runs):
    scale = (runs.history["u_norm"] ** 2 + runs.history["v_norm"] ** 2)[:5]  # one diverges
    assert (runs.history["drift_error"][:5] <= 1e-12 * scale).all()


def test_a_large_step_fails_where_it_should(runs):
    certificate = certificate_of(runs, "large step")
    entries = by_statement(certificate)
    assert not certificate.holds
    assert not entries["f_{t+1} ≤ f_t − ½ η_t ‖∇f_t‖_F²"].holds
    # What no step size can break.
    for statement in (
        "D_{t+1} = D_t + η_t² (Vᵀ RᵀR V − Uᵀ RRᵀ U), up to rounding",
        "[∇²f](∇f, ∇f) ≤ (6c + 2) ‖M*‖_F ‖∇f‖_F², c of the point",
        "‖U_t‖_F², ‖V_t‖_F² ≤ √(r (‖D_t‖_F² + 2 ‖U_tV_tᵀ‖_F²))",
    ):
        assert entries[statement].holds, statement


def test_a_large_start_breaks_balance_alone(runs):
    entries = by_statement(certificate_of(runs, "large start"))
    assert not entries["‖U_0‖_F² ≤ ε"].holds
    assert not entries["‖U_tᵀU_t − V_tᵀV_t‖_F ≤ ε"].holds
    assert entries["f_{t+1} ≤ f_t"].holds


def test_divergence_is_data_and_each_run_has_its_verdict(runs):
    assert not np.isfinite(runs.history["objective"][-1, -1])
    certificate = system.certificate_gradient_descent(runs.history, runs.steps[0], RANK, EPSILON)
    assert certificate.holds.tolist() == [True, True, True, False, False, False]
    assert certificate.applies.tolist() == [True, True, False, False, False, False]


def test_observers_are_what_their_names_say():
    (params, target), eta = problem(0.3), 0.1
    initial = jax.tree.map(lambda p: 2 * p, params)
    snapshot = Snapshot(jnp.int32(4), params, initial, target)
    schedule = system.power_schedule(eta, 0.5)
    observers = system.step_observables(schedule)
    seen = jax.jit(lambda s: {n: observe(s) for n, observe in observers.items()})(snapshot)
    u, v, m = (np.asarray(a, float) for a in (params["u"], params["v"], target))
    r, eta = u @ v.T - m, eta / 5
    u_next, v_next = u - eta * r @ v, v - eta * r.T @ u
    slope = {"u": r @ v, "v": r.T @ u}
    squared = sum(np.sum(s**2) for s in slope.values())
    form = 2 * np.sum(r * (slope["u"] @ slope["v"].T))
    form += np.sum((u @ slope["v"].T + slope["u"] @ v.T) ** 2)
    gap = lambda a, b: np.linalg.norm(a.T @ a - b.T @ b)  # noqa: E731
    expected = {
        "objective": 0.5 * np.sum(r**2),
        "imbalance_norm": gap(u, v),
        "imbalance_change": 3 * gap(u, v),
        "u_norm": np.linalg.norm(u),
        "v_norm": np.linalg.norm(v),
        "product_norm": np.linalg.norm(u @ v.T),
        "gradient_norm": squared**0.5,
        "target_norm": np.linalg.norm(m),
        "next_objective": 0.5 * np.sum((u_next @ v_next.T - m) ** 2),
        "next_imbalance_norm": gap(u_next, v_next),
        "next_norm": max(np.linalg.norm(u_next), np.linalg.norm(v_next)),
        "step_curvature": form / squared,
    }
    for name, value in expected.items():
        assert_close(seen[name], np.asarray(value), scale=max(abs(float(value)), 0.1))
    np.testing.assert_allclose(seen["step_size"], eta, rtol=1e-12)
    assert seen["drift_error"] < 1e-15
    single = Snapshot(jnp.int32(4), *(problem(0.3, "float32")[i] for i in (0, 0, 1)))
    for name in expected:
        assert jax.eval_shape(observers[name], single).dtype == "float32", name
    assert set(expected) | {"step_size", "drift_error"} == set(observers)


def test_what_is_refused(runs):
    history, steps = runs.history, runs.steps[0]
    partial = {name: value for name, value in history.items() if name != "drift_error"}
    with pytest.raises(ValueError, match=r"lacks \['drift_error'\]; .*step_observables\("):
        system.certificate_gradient_descent(partial, steps, RANK, EPSILON)
    with pytest.raises(ValueError, match=r"history is of type NoneType; .*trajectory.history"):
        system.certificate_gradient_descent(None, steps, RANK, EPSILON)
    with pytest.raises(ValueError, match="the first at 0"):
        system.certificate_gradient_descent(history, steps + 1, RANK, EPSILON)
    with pytest.raises(ValueError, match=r"epsilon is 1\.5"):
        system.certificate_gradient_descent(history, steps, RANK, 1.5)
    with pytest.raises(ValueError, match="rank is 0"):
        system.certificate_gradient_descent(history, steps, 0, EPSILON)
    with pytest.raises(ValueError, match=r"schedule is 0.1; .*constant_schedule\(0.1\)"):
        system.step_observables(0.1)


def test_records_in_bfloat16(runs):
    history = jax.tree.map(lambda records: records[0, :5].astype("bfloat16"), runs.history)
    certificate = system.certificate_gradient_descent(history, runs.steps[0, :5], RANK, EPSILON)
    assert certificate.applies
    assert certificate.holds
