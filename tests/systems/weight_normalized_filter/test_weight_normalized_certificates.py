"""Theorems 5.3 and 5.5 and the lemmas along real runs, of `descend` and of the reduction."""

import jax
import numpy as np
import optax
import pytest
from helpers import compiled

from ntkflow.systems.weight_normalized_filter.certificates import certificate_convergence
from ntkflow.systems.weight_normalized_filter.certificates_spurious import certificate_spurious
from ntkflow.systems.weight_normalized_filter.lemmas import certificate_lemmas
from ntkflow.systems.weight_normalized_filter.network import Teacher
from ntkflow.systems.weight_normalized_filter.observables import observables
from ntkflow.systems.weight_normalized_filter.population import population_loss
from ntkflow.systems.weight_normalized_filter.reduction import (
    Problem,
    Reduced,
    reduced_observables,
    simulate,
)
from ntkflow.training.descent import descend

K, P, STEPS = 6, 5, 1200


def draw(seed, size, *others):
    """A unit vector orthogonal to others, which are orthogonal to each other."""
    vector = np.random.default_rng(seed).normal(size=size)
    for other in others:
        vector = vector - vector @ other / (other @ other) * other
    return vector / np.linalg.norm(vector)


def teacher_of(share, filter_norm, norm):
    """w* and a* with (1ᵀa*)² = share · k‖a*‖² and 1ᵀa* < 0, on the host."""
    rest = draw(1, K, np.ones(K))
    return Teacher(
        draw(0, P) * filter_norm, norm * (rest * (1 - share) ** 0.5 - (share / K) ** 0.5)
    )


def start_of(teacher, cosine, total, along):
    """v at an angle, a with 1ᵀa = total · 1ᵀa*‖w*‖ and a part along a*'s rest."""
    w, a = teacher
    size, rest = np.linalg.norm(w), a - a.mean()
    v = cosine * w / size + (1 - cosine**2) ** 0.5 * draw(2, P, w)
    noise = 0.4 * draw(3, K, np.ones(K), rest)
    return {"params": {"filter": v, "output": size * (total * a.mean() + along * rest + noise)}}


CASES = {  # share of 1ᵀa*, ‖w*‖, ‖a*‖; cos φ⁰, 1ᵀa⁰, aᵀa*'s part; η
    "success": (0.1, 1.0, 1.0, 0.3, 0.5, 0.2, 0.4),
    "success, large filter": (0.1, 5.0, 0.3, 0.2, -1.0, 0.3, 0.2),
    "success, small filter": (0.5, 0.2, 5.0, 0.5, 1.0, -0.1, 0.24),
    "success from zero": (0.0, 1.0, 1.0, 0.3, 0.0, 0.0, 0.4),
    "spurious": (0.01, 1.0, 1.0, -0.4, 0.5, -0.3, 0.4),
    "spurious, large filter": (0.02, 5.0, 0.3, -0.4, -1.0, -0.3, 0.2),
    "spurious from zero": (0.0, 1.0, 1.0, -0.2, 0.0, 0.0, 0.7),
    "too large a step": (0.1, 1.0, 4.0, 0.3, 0.5, 0.2, 1.5),
}
SUCCESS = [name for name in CASES if name.startswith("success")]
SPURIOUS = [name for name in CASES if name.startswith("spurious")]


def build(dtype):
    """Algorithm 1 for all cases, every step recorded, in one compiled program."""
    teachers, starts = [], []
    for share, filter_norm, norm, cosine, total, along, _ in CASES.values():
        teachers.append(teacher_of(share, filter_norm, norm))
        starts.append(start_of(teachers[-1], cosine, total, along))
    stack = lambda trees: jax.tree.map(lambda *x: np.stack(x).astype(dtype), *trees)  # noqa: E731
    etas = np.array([case[-1] for case in CASES.values()], dtype)

    @compiled
    @jax.vmap
    def run(start, teacher, eta):
        observe = observables(teacher)
        return descend(population_loss, optax.sgd(eta), STEPS, observe=observe)(start, teacher)

    trajectory = jax.device_get(run(stack(starts), stack(teachers), etas))
    found = {}
    for i, name in enumerate(CASES):
        history = {key: array[i] for key, array in trajectory.history.items()}
        found[name] = (history, trajectory.steps[i], teachers[i], CASES[name][-1])
    return found


@pytest.fixture(scope="module")
def runs():
    return build("float64")


@pytest.fixture(scope="module")
def single_precision():
    return build("float32")


def failures(certificate):
    return [(e.statement, float(e.margin)) for e in certificate.claims if not e.holds]


@pytest.mark.quick
@pytest.mark.parametrize("name", SUCCESS)
def test_theorem_5_3_applies_and_holds(runs, name):
    certificate = certificate_convergence(*runs[name], epsilon=1e-2)
    assert certificate.applies, [e.statement for e in certificate.hypotheses if not e.holds]
    assert certificate.holds, failures(certificate)
    entries = {entry.statement: entry for entry in certificate.claims}
    # The run is long enough for the theorem's own times.
    last = next(entry for text, entry in entries.items() if "T_1 + T_2" in text)
    assert np.isfinite(last.larger).sum() > 50
    assert np.isfinite(entries["φ_t ≤ π/3 for t ≥ T_1"].larger).sum() > 50


@pytest.mark.parametrize("name", SPURIOUS)
def test_theorem_5_5_applies_and_holds(runs, name):
    history, steps, teacher, step_size = runs[name]
    certificate = certificate_spurious(history, steps, teacher, step_size)
    assert certificate.applies, [e.statement for e in certificate.hypotheses if not e.holds]
    assert certificate.holds, failures(certificate)
    assert not certificate_convergence(*runs[name]).applies
    # Sublinear: half of the way to π takes as long again.
    supplement = np.pi - history["angle"]
    assert 0.4 < supplement[-1] / supplement[STEPS // 2] < 0.6
    target = np.linalg.norm(teacher.filter) * np.linalg.norm(teacher.output)
    assert history["loss"][-1] >= 0.133264 * target**2


@pytest.mark.parametrize("name", [*CASES])
def test_single_steps_obey_the_lemmas_at_any_step_size(runs, name):
    certificate = certificate_lemmas(*runs[name])
    assert certificate.holds, failures(certificate)
    assert certificate.applies


@pytest.mark.parametrize("name", [*SUCCESS, *SPURIOUS])
def test_in_float32(single_precision, name):
    theorem = certificate_convergence if name in SUCCESS else certificate_spurious
    for certificate in (
        theorem(*single_precision[name]),
        certificate_lemmas(*single_precision[name]),
    ):
        assert certificate.claims[0].smaller.dtype == "float32"
        assert certificate.applies, [e.statement for e in certificate.hypotheses if not e.holds]
        assert certificate.holds, failures(certificate)


def test_a_step_that_the_theorems_forbid_is_refused_by_the_largest_allowed_one(runs):
    history, steps, teacher, step_size = runs["too large a step"]
    largest = 1 / (16 * (1 + 0.1 * K))  # ‖v⁰‖²/((‖a*‖² + s²)‖w*‖²), smaller than 2π/(k+π−1)
    with pytest.raises(ValueError, match=f"Theorem 5.3 allows at most {largest:.5f}"):
        certificate_convergence(history, steps, teacher, step_size)
    history, steps, teacher, _ = runs["success"]
    # At the largest step itself nothing is refused.
    certificate_convergence(history, steps, teacher, 1 / 1.6)
    with pytest.raises(ValueError, match=r"step_size is 0\.63; Theorem 5\.3 allows at most 0\.625"):
        certificate_convergence(history, steps, teacher, 0.63)
    with pytest.raises(ValueError, match=r"allows at most 0\.00\d+, min\{β⁰cos φ⁰/\(8D\)"):
        certificate_convergence(*runs["success"], printed=True)
    history, steps, teacher, _ = runs["spurious"]
    largest = 2 * np.pi / (K + np.pi - 1)
    with pytest.raises(ValueError, match=f"Theorem 5.5 allows at most {largest:.6f}"):
        certificate_spurious(history, steps, teacher, 0.8)


REDUCED = {  # start, problem, η
    "equal sums": (Reduced(1.0, 0.3, 0.5, 0.9, 0.0), Problem(20.0, 1.0, 1.0), 5e-3),
    "sum zero": (Reduced(1.0, 0.3, 0.0, 0.9, 0.0), Problem(20.0, 0.0, 1.0), 5e-3),
    "half a filter": (
        Reduced(np.cos(1.5), np.sin(1.5), 10.0, 0.01, 0.0),
        Problem(4.0, 10.0, 10.0, 0.5),
        0.02,
    ),
    # k = 1: a* is a multiple of 1, and there is no spurious minimum.
    "one patch, far": (Reduced(0.1, 1.0, -0.1, 0.2, 0.0), Problem(1.0, -2.0, 2.0), 0.125),
    "one patch, near": (Reduced(0.9, 0.5, -0.9, 1.8, 0.0), Problem(1.0, -2.0, 2.0), 0.125),
}


@pytest.fixture(scope="module")
def reduced():
    """Reduced runs, every step recorded, in one compiled program."""
    stack = lambda i: [np.stack(x) for x in zip(*(c[i] for c in REDUCED.values()), strict=True)]  # noqa: E731
    problems = Problem(*stack(1))
    eta = np.array([case[2] for case in REDUCED.values()])

    @compiled
    def simulated(start, problems):
        steps, path = simulate(start, problems, eta, STEPS)
        return reduced_observables(path, Problem(*(x[:, None] for x in problems))), steps

    history, steps = jax.device_get(simulated(Reduced(*stack(0)), problems))

    def run(*names):
        rows = [list(REDUCED).index(name) for name in names]
        rows = rows[0] if len(rows) == 1 else rows
        _, problem, step_size = REDUCED[names[0]]
        return {key: array[rows] for key, array in history.items()}, steps, problem, step_size

    return run


def test_the_printed_lemmas_fail_on_these_runs(runs, reduced):
    """Lemma 5.7 at 1ᵀa* = 0, and λ ≤ D/4 at the end of a run of small 1ᵀa*."""
    certificate = certificate_lemmas(*runs["success from zero"], printed=True)
    assert "Du (2019), Lemma 5.7" in {e.source for e in certificate.claims if not e.holds}
    certificate = certificate_convergence(*reduced("equal sums"), printed=True)
    assert certificate.applies
    assert certificate.holds, failures(certificate)  # here λ ≤ D/4, since s² = ‖a*‖²
    certificate = certificate_convergence(*reduced("sum zero"), printed=True)
    assert certificate.applies
    assert [entry.statement for entry in certificate.claims if not entry.holds] == ["λ_t ≤ max λ"]


def test_a_run_that_meets_the_printed_conditions_alone_fails(reduced):
    """‖w*‖ = ½, 1ᵀa⁰ = 1ᵀa*: printed, the theorem promises success; the run turns away."""
    run = reduced("half a filter")
    certificate = certificate_convergence(*run)
    entries = {entry.statement: entry for entry in certificate.hypotheses}
    assert not entries["|1ᵀa⁰| ≤ |1ᵀa*|‖w*‖"].holds
    assert all(entry.holds for text, entry in entries.items() if not text.startswith("|1ᵀa⁰|"))
    assert not certificate.holds
    assert run[0]["angle"][-1] > 3


def test_seeds_records_far_apart_and_one_patch(reduced):
    history, steps, problem, step_size = reduced("one patch, far", "one patch, near")
    certificate = certificate_convergence(history, steps, problem, step_size)
    assert certificate.holds.shape == (2,)
    assert certificate.applies.all()
    assert certificate.holds.all(), [(e.statement, e.margin) for e in certificate.claims]
    assert certificate_lemmas(history, steps, problem, step_size).holds.all()
    sparse = {name: array[:, ::100] for name, array in history.items()}
    certificate = certificate_convergence(sparse, steps[::100], problem, step_size)
    assert certificate.holds.all()
    with pytest.raises(ValueError, match="expected records one step apart"):
        certificate_lemmas(sparse, steps[::100], problem, step_size)


def test_divergence_is_data(runs):
    history, steps, teacher, step_size = runs["success"]
    broken = {name: np.where(steps > 700, np.inf, array) for name, array in history.items()}
    certificate = certificate_convergence(broken, steps, teacher, step_size)
    assert certificate.applies
    assert not certificate.holds
    assert not certificate_lemmas(broken, steps, teacher, step_size).holds
    assert not certificate_spurious(broken, steps, teacher, step_size).holds


@pytest.mark.quick
def test_errors_at_the_door(runs):
    history, steps, teacher, step_size = runs["success"]
    with pytest.raises(ValueError, match="step_size is 0; expected a finite number greater than 0"):
        certificate_lemmas(history, steps, teacher, 0)
    with pytest.raises(ValueError, match="step_size has shape"):
        certificate_spurious(history, steps, teacher, np.array([0.1, 0.1]))
    few = {name: array for name, array in history.items() if name != "overlap"}
    with pytest.raises(ValueError, match=r"lacks \['overlap'\]"):
        certificate_convergence(few, steps, teacher, step_size)
    with pytest.raises(ValueError, match=r"epsilon is 0\.0"):
        certificate_convergence(history, steps, teacher, step_size, epsilon=0.0)
