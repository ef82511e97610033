"""Chapter 5's lemmas against random runs of random problems, and the printed ones against states
that break them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import compiled

from ntkflow.systems.weight_normalized_filter import (
    bounds,
    bounds_descent,
    bounds_initialization,
    bounds_phase_two,
    bounds_spurious,
)
from ntkflow.systems.weight_normalized_filter.reduction import (
    Problem,
    Reduced,
    reduced_observables,
    simulate,
)

RUNS, STEPS = 600, 300  # of each kind
EPS = 1e-9


def random_problem(random):
    """k from 1 on, ‖w*‖ and ‖a*‖ over decades, s of both signs, 0, and √k‖a*‖."""
    k = random.choice([1.0, 2.0, 5.0, 20.0, 60.0], RUNS)
    norm, filter_norm = 10 ** random.uniform(-1.5, 1.5, RUNS), 10 ** random.uniform(-2, 2, RUNS)
    share = random.choice([0.0, 1.0, 2.0], RUNS)
    share = np.where(share < 2, share, random.uniform(0, 1, RUNS) ** 3)
    share = np.where(k == 1, 1.0, share)
    s = random.choice([-1, 1], RUNS) * np.sqrt(k * share) * norm
    return Problem(k, s, norm, filter_norm)


def overlap_of(problem, total, wanted):
    """A Q that belongs to some a with 1ᵀa = S: any at all, unless a* is a multiple of 1."""
    k, s, norm, _ = problem
    return np.where(s**2 > (1 - 1e-9) * k * norm**2, total * s / k, wanted)


def extreme_angles(random):
    """In (0, π/2), also close to its ends."""
    near = 10 ** random.uniform(-6, 0, RUNS)
    return random.permutation(
        np.concatenate([near[::3], np.pi / 2 - near[1::3], random.uniform(0, np.pi / 2, RUNS // 3)])
    )


def states(problem, angle, total, overlap, v_norm):
    return Reduced(v_norm * np.cos(angle), v_norm * np.sin(angle), total, overlap, 0.0 * total)


def successful(random):
    """Starts of Theorem 5.3, with any Q⁰ ≥ 0, and steps up to the largest."""
    problem = random_problem(random)
    k, s, norm, filter_norm = problem
    total = filter_norm * np.abs(s) * random.uniform(-1, 1, RUNS)
    total = np.where(s**2 > (1 - 1e-9) * k * norm**2, np.abs(total) * np.sign(s), total)
    wanted = filter_norm * (norm**2 + s**2) * random.choice([0.0, 1e-4, 0.1, 1.0, 3.0], RUNS)
    overlap, angle = overlap_of(problem, total, wanted), extreme_angles(random)
    v_norm = random.choice([0.5, 1.0, 3.0], RUNS)
    largest = bounds_descent.largest_step_size(overlap, angle, norm, s, k, filter_norm, v_norm)
    eta = largest.value * random.choice([1.0, 0.3, 0.01], RUNS)
    return problem, states(problem, angle, total, overlap, v_norm), eta


def failing(random):
    """Starts of Theorem 5.5, also at the edge of its condition on g; steps up to the largest."""
    angle = np.pi - extreme_angles(random)
    problem = random_problem(random)
    k = np.maximum(problem.patches, 2.0)
    largest = -bounds.level(angle) / 2  # of s²/‖a*‖²
    s = np.sqrt(largest * random.choice([0.0, 0.3, 1.0], RUNS)) * problem.norm
    problem = Problem(k, s * random.choice([-1, 1], RUNS), problem.norm, problem.filter_norm)
    _, s, norm, filter_norm = problem
    total = filter_norm * np.abs(s) * random.uniform(-1, 1, RUNS)
    overlap = -filter_norm * norm**2 * random.choice([0.0, 1e-4, 0.1, 1.0, 10.0], RUNS)
    v_norm = random.choice([0.5, 1.0, 3.0], RUNS)
    most = bounds_spurious.largest_spurious_step_size(overlap, norm, k, filter_norm, v_norm)
    eta = most.value * random.choice([1.0, 0.3, 0.01], RUNS)
    return problem, states(problem, angle, total, overlap, v_norm), eta


def arbitrary(random):
    """Any start and any step: S and Q of both signs, angles up to π, steps that diverge."""
    problem = random_problem(random)
    k, s, norm, filter_norm = problem
    total = filter_norm * norm * np.sqrt(k) * random.normal(size=RUNS)
    overlap = overlap_of(problem, total, filter_norm * norm**2 * random.normal(size=RUNS))
    angle = np.where(random.uniform(size=RUNS) < 0.5, 1, -1) * extreme_angles(random) % np.pi
    scale = filter_norm**2 * (norm**2 + s**2)
    eta = 10 ** random.uniform(-3, 1.5, RUNS) * np.minimum(1 / scale, 6 / (k + 2))
    return problem, states(problem, angle, total, overlap, np.ones(RUNS)), eta


class Runs:
    """Recorded runs: problems, starts and steps (runs, 1), records (runs, records)."""

    def __init__(self, problem, record, eta):
        self.k, self.s, self.norm, self.filter_norm = (part[:, None] for part in problem)
        self.eta, self.record = eta[:, None], record
        self.angle, self.overlap, self.total = (
            record[name] for name in ("angle", "overlap", "total")
        )
        self.v_norm, self.size = record["filter_norm"], self.filter_norm * self.norm
        self.signal = bounds.signal(self.overlap, self.angle, self.filter_norm, self.v_norm).value
        self.t = np.arange(STEPS + 1.0)[None, :]

    def first(self, name):
        return self.record[name][:, :1]


@functools.partial(compiled, static_argnums=3)
def records(state, problem, step_size, steps):
    """What is observed along reduced runs, records last."""
    _, path = simulate(state, problem, step_size, steps)
    return reduced_observables(path, Problem(*(jnp.asarray(part)[..., None] for part in problem)))


@pytest.fixture(scope="module")
def runs():
    """Every kind of run, in one compiled program."""
    random = np.random.default_rng(0)
    kinds = [successful(random), failing(random), arbitrary(random)]
    problem = Problem(
        *(np.concatenate(parts) for parts in zip(*(k[0] for k in kinds), strict=True))
    )
    state = Reduced(*(np.concatenate(parts) for parts in zip(*(k[1] for k in kinds), strict=True)))
    eta = np.concatenate([k[2] for k in kinds])
    with np.errstate(all="ignore"):
        record = {name: np.array(x) for name, x in records(state, problem, eta, STEPS).items()}
        for array in record.values():  # NaN is what certificates make of infinities
            array[~np.isfinite(array) | (np.abs(array) > 1e100)] = np.nan
        found = []
        for i, (problem, _, eta) in enumerate(kinds):
            rows = slice(i * RUNS, (i + 1) * RUNS)
            part = {name: array[rows] for name, array in record.items()}
            found.append(Runs(problem, part, eta))
    return dict(zip(("successful", "failing", "arbitrary"), found, strict=True))


def path_of(state, problem, step_size):
    """600 steps of one run; one compiled program for all of them."""
    state, problem = (type(x)(*(np.float64(part) for part in x)) for x in (state, problem))
    return jax.device_get(records(state, problem, np.float64(step_size), 600))


def below(smaller, larger, scale, where=True):
    """smaller ≤ larger up to rounding, where claimed and finite; returns whether it ever is."""
    claimed = where & np.isfinite(smaller + larger)
    excess = np.where(claimed, (smaller - larger) / scale, -np.inf)
    assert excess.max() <= EPS, (excess.max(), np.unravel_index(np.argmax(excess), excess.shape))
    return claimed.any()


@pytest.mark.quick
@pytest.mark.parametrize("kind", ["successful", "failing", "arbitrary"])
def test_single_steps_obey_the_lemmas_wherever_their_conditions_hold(runs, kind):
    run = runs[kind]
    now, after = slice(None, -1), slice(1, None)
    angle, overlap, signal = run.angle[:, now], run.overlap[:, now], run.signal[:, now]
    following = run.angle[:, after]
    small = run.s * run.total[:, now] <= run.s**2 * run.filter_norm
    eta, claimed = np.broadcast_to(run.eta, angle.shape), []
    turned = bounds.next_angle(eta, signal, np.minimum(angle, np.pi)).value
    finite = np.isfinite(signal) & (np.abs(eta * signal) < 1e6)
    claimed.append(below(np.abs(following - turned), 0.0, 1.0, finite))
    # Lemma 5.2, and its mirror image.
    may = finite & (eta <= bounds.turn_step_size(signal, angle).value)
    claimed.append(below(following, angle, 1.0, may & (overlap > 0)))
    claimed.append(below(angle, following, 1.0, may & (overlap < 0)))
    # Lemma 5.3 and Lemma 5.4.
    scale = run.size * run.norm * np.sqrt(run.k)
    positive = small & (overlap > 0) & (angle < np.pi / 2)
    claimed.append(
        below(
            0.0 * overlap, run.overlap[:, after], scale, positive & (eta <= 2 * np.pi / (np.pi - 1))
        )
    )
    fits = small & (eta <= bounds.sum_step_size(run.k).value)
    claimed.append(below(run.s * run.total[:, after], run.s**2 * run.filter_norm, scale, fits))
    # Lemma 5.5, (5.9), and the factor itself.
    square, next_square = np.sin(angle) ** 2, np.sin(following) ** 2
    contracts = finite & (signal > 0) & (angle < np.pi / 2)
    contracts &= eta <= bounds.contraction_step_size(np.abs(signal), angle).value
    factor = bounds.sine_contraction(eta, signal, angle).value
    claimed.append(below(next_square, factor * square, 1.0, contracts))
    exact = bounds.exact_sine_contraction(eta, signal, angle).value
    claimed.append(below(np.abs(next_square - exact * square), 0.0, 1.0, finite))
    claimed.append(below(next_square, (2 * factor - 1 + (eta * signal) ** 2) * square, 1.0, finite))
    # Lemma 5.7.
    slow = small & (eta <= bounds.overlap_step_size().value)
    least = bounds.output_alignment(eta, overlap, angle, run.norm, run.filter_norm).value
    claimed.append(below(least, run.overlap[:, after], scale, slow))
    assert all(claimed) or kind != "arbitrary"  # those meet every condition somewhere


def test_runs_that_succeed_obey_the_lemmas_on_whole_runs(runs):
    run = runs["successful"]
    angle, overlap, total, v_norm = (
        run.first(name) for name in ("angle", "overlap", "total", "filter_norm")
    )
    target = (run.norm, run.filter_norm)
    everywhere = np.ones_like(run.angle, bool)
    assert np.isfinite(run.overlap).all()
    most = np.maximum(overlap, bounds.largest_overlap(run.norm, run.s, run.filter_norm).value)
    below(run.overlap, most, most, everywhere)
    sharp = bounds.sharp_largest_overlap(overlap, total, run.norm, run.s, run.k, run.filter_norm)
    below(run.overlap, sharp.value, sharp.value, everywhere)
    least = bounds.smallest_overlap(overlap, angle, *target).value
    below(least, run.overlap, run.filter_norm * run.norm**2, everywhere)
    most_signal = bounds.largest_signal(most, run.filter_norm, v_norm).value
    below(run.signal, most_signal, most_signal, everywhere)
    progress = bounds_descent.initial_progress(overlap, angle, *target).value
    below(progress / (8 * v_norm**2), run.signal, most_signal, everywhere)
    growth = bounds_descent.largest_filter_norm(run.eta, most, angle, run.filter_norm, v_norm)
    below(run.v_norm, growth.value, v_norm, everywhere)
    assert (growth.value <= 1.26 * v_norm).all()
    decay = bounds_descent.angle_decay(run.t, run.eta, progress, angle, v_norm).value
    below(np.sin(run.angle) ** 2, decay * np.sin(angle) ** 2, 1.0, everywhere)
    error = run.first("output_error")
    sums = bounds_phase_two.sum_error_decay(
        run.t, run.eta, run.first("sum_error"), angle, run.s, run.k, run.filter_norm
    )
    below(run.record["sum_error"], sums.value, run.size * np.sqrt(run.k), everywhere)
    outputs = bounds_phase_two.output_error_decay(run.t, run.eta, error, angle, run.size)
    below(run.record["output_error"], outputs.value, error + run.size, everywhere)
    # Lemma 5.12 at every record, with its own ε.
    epsilon = np.maximum(bounds.gap(run.angle), run.record["output_error"] / run.size)
    loss = bounds_phase_two.final_loss(np.maximum(epsilon, 0), run.k, *target).value
    below(run.record["loss"], loss, run.size**2, everywhere)
    # Theorem 5.3's times: many of these runs are long enough for them.
    time = bounds_descent.phase_one_time(run.eta, overlap, angle, *target, v_norm).value
    later = run.t >= time
    assert later[:, -1].sum() > 20
    below(run.angle, np.pi / 3, 1.0, later)
    below(bounds_descent.phase_one_overlap(*target).value, run.overlap, 1.0, later)
    epsilon = 0.5
    rest = bounds_phase_two.phase_two_time(
        run.eta, epsilon, run.norm, run.s, run.k, error, run.filter_norm, v_norm
    )
    last = run.t >= time + rest.value
    assert last[:, -1].sum() > 20
    below(run.record["loss"], epsilon * run.size**2, run.size**2, last)


def test_runs_of_theorem_5_5_turn_to_the_spurious_minimum_like_1_over_t(runs):
    run = runs["failing"]
    angle, overlap, v_norm = (run.first(name) for name in ("angle", "overlap", "filter_norm"))
    everywhere = np.ones_like(run.angle, bool)
    scale = run.filter_norm * run.norm**2
    below(run.overlap, 0.0, scale, everywhere)
    below(run.angle[:, :-1], run.angle[:, 1:], 1.0)
    level = bounds_spurious.largest_spurious_level(run.norm, run.s).value
    below(bounds.level(run.angle) + 1, level, 1.0, everywhere)
    most = bounds_spurious.most_negative_overlap(overlap, run.norm, run.filter_norm).value
    below(-run.overlap, most, most, everywhere)
    least = bounds_spurious.least_negative_overlap(
        overlap, angle, run.norm, run.s, run.filter_norm
    ).value
    below(least, -run.overlap, scale, everywhere)
    low, high = bounds_spurious.supplement_bounds(
        run.t, run.eta, overlap, angle, run.norm, run.s, run.filter_norm, v_norm
    )
    below(low.value, np.pi - run.angle, 1.0, everywhere)
    below(np.pi - run.angle, high.value, 1.0, everywhere)
    floor = bounds_spurious.smallest_spurious_loss(run.norm, run.s, run.k, run.filter_norm).value
    below(floor, run.record["loss"], floor, everywhere)
    assert (floor >= (np.pi - 2) / (4 * (np.pi - 1)) * run.size**2 * (1 - 1e-12)).all()


def test_a_point_with_negative_overlap_is_no_better_than_the_spurious_minimum(runs):
    run = runs["arbitrary"]
    floor = bounds_spurious.smallest_spurious_loss(run.norm, run.s, run.k, run.filter_norm).value
    below(floor, run.record["loss"], np.abs(floor), run.overlap <= 0)


def test_the_sublinear_rate_is_reached():
    """Close to the spurious minimum 1/(π − φ) grows by the same at every step."""
    k, s, start = 20.0, 0.3, 0.01
    total, overlap = (
        (k - 1) / (k + np.pi - 1) * s,
        (np.pi * s**2 / (k + np.pi - 1) - 1) / (np.pi - 1),
    )
    state = Reduced(-1.3, 1.3 * np.tan(start), total, overlap, 0.0)
    inverse = 1 / (np.pi - path_of(state, Problem(k, s, 1.0), 0.25)["angle"])
    rate = bounds_spurious.spurious_rate(0.25, 1.0, s, k, v_norm=1.3).value
    np.testing.assert_allclose(np.diff(inverse), rate, rtol=1e-3)


def test_steps_far_too_large_break_what_needs_a_step_size(runs):
    """The conditions on steps are not idle: random runs violate the lemmas beyond them."""
    run = runs["arbitrary"]
    angle, following = run.angle[:, :-1], run.angle[:, 1:]
    assert ((run.overlap[:, :-1] > 0) & (following > angle + 1e-3)).any()  # Lemma 5.2 as printed
    small = run.s * run.total[:, :-1] <= run.s**2 * run.filter_norm
    grows = run.s * run.total[:, 1:] > run.s**2 * run.filter_norm * (1 + 1e-3)
    assert (small & grows).any()


class TestPrinted:
    """States at which the thesis' lemmas, as printed, are false."""

    def test_lemma_5_2_needs_a_step_size(self):
        assert bounds.next_angle(3.0, 1.0, 0.01).value > 0.0199
        assert bounds.turn_step_size(1.0, 0.01).value < 2.001
        assert bounds.turn_step_size(1.0, 0.01, printed=True).value == np.inf
        assert bounds.turn_step_size(-1.0, np.pi - 0.01).value < 2.001
        # Where v turns away from, nothing is forbidden.
        assert bounds.turn_step_size(1.0, np.pi - 0.01).value == np.inf
        assert bounds.next_angle(1e9, 1.0, np.pi - 0.01).value < np.pi - 0.01

    def test_theorem_5_3_needs_the_norm_of_the_filter_in_the_condition_on_the_sum(self):
        """(a⁰)ᵀa* > 0, |1ᵀa⁰| = |1ᵀa*|, φ⁰ < π/2: the spurious minimum, at any small step."""
        problem = Problem(4.0, 10.0, 10.0, 0.5)
        largest = bounds_descent.largest_step_size(0.01, 1.5, 10.0, 10.0, 4.0, 0.5).value
        spurious = problem.filter_norm * (np.pi * 100 / (np.pi + 3) - 100) / (np.pi - 1)
        for step_size in (largest, largest / 2):
            fails = path_of(states(problem, 1.5, 10.0, 0.01, 1.0), problem, step_size)
            assert fails["angle"][-1] > 2.8
            assert fails["overlap"][-1] < 0.8 * spurious < 0
            succeeds = path_of(states(problem, 1.5, 5.0, 0.01, 1.0), problem, step_size)
            assert succeeds["angle"][-1] < 1e-6

    def test_lemma_5_7_lacks_a_third(self):
        path = path_of(Reduced(1.0, 0.0, 0.0, 0.0, 0.0), Problem(4.0, 0.0, 1.0), 0.1)
        arguments = (0.1, 0.0, 0.0, 1.0)
        np.testing.assert_allclose(path["overlap"][1], bounds.output_alignment(*arguments).value)
        assert bounds.output_alignment(*arguments, printed=True).value > 2.9 * path["overlap"][1]

    def test_lemmas_5_7_and_5_8_and_5_5_at_the_global_minimum(self):
        """Q = ‖a*‖²‖w*‖ = q there, and λ = ‖w*‖²‖a*‖²/2."""
        for filter_norm in (0.1, 1.0, 10.0):
            overlap = filter_norm
            most = bounds.largest_overlap(1.0, 0.0, filter_norm)
            printed = bounds.largest_overlap(1.0, 0.0, filter_norm, printed=True)
            assert overlap <= most.value
            assert (overlap <= printed.value) == (filter_norm >= 1)
            least = bounds.smallest_overlap(overlap, 0.0, 1.0, filter_norm)
            np.testing.assert_allclose(least.value, overlap)
            least = bounds.smallest_overlap(1.0, 0.0, 1.0, filter_norm, printed=True)
            assert (least.value <= overlap) == (filter_norm >= 1)
            signal = bounds.signal(overlap, 0.0, filter_norm).value
            np.testing.assert_allclose(signal, bounds.largest_signal(overlap, filter_norm).value)
            assert signal > bounds.largest_signal(overlap, filter_norm, printed=True).value

    def test_lemma_5_9_with_the_printed_progress(self):
        # Without π − 1, λ falls below β⁰/8, where a is much faster than v.
        problem, angle = Problem(2.0, 0.0, 0.005), 1.5
        found = path_of(states(problem, angle, 0.0, 0.005**2, 1.0), problem, 0.3)
        signal = bounds.signal(found["overlap"], found["angle"], 1.0, found["filter_norm"]).value
        arguments = (0.005**2, angle, 0.005)
        assert signal.min() >= bounds_descent.initial_progress(*arguments).value / 8
        assert signal.min() < bounds_descent.initial_progress(*arguments, printed=True).value / 8
        # With ‖w*‖², the rate itself is false.
        problem, arguments = Problem(2.0, 0.0, 1.0, 20.0), (0.4, 1.0, 1.0)
        eta = bounds_descent.largest_step_size(*arguments, 0.0, 2.0, 20.0, printed=True).value
        found = path_of(states(problem, 1.0, 0.0, 0.4, 1.0), problem, eta)
        square = np.sin(found["angle"]) ** 2
        right, wrong = (
            bounds_descent.initial_progress(*arguments, 20.0, printed=printed).value
            for printed in (False, True)
        )
        decay = bounds_descent.angle_decay(np.arange(601.0), eta, right, 1.0).value
        assert (square <= decay * square[0] + 1e-14).all()
        assert (square > bounds_descent.angle_decay(np.arange(601.0), eta, wrong, 1.0).value).any()

    def test_lemma_5_11_says_nothing_at_sum_zero(self):
        """Its condition holds at every angle there, and a goes where the angle lets it."""
        problem = Problem(4.0, 0.0, 0.01)  # so small that v hardly moves
        path = path_of(states(problem, 1.5, 0.0, 0.0, 1.0), problem, 0.3)
        assert path["output_error"][-1] / 0.01 > 0.9  # not C ε
        assert bounds_phase_two.output_time(0.3, 0.01, 1e-3, 0.01).value < 600

    def test_lemma_5_12_with_a_constant(self):
        """a = ‖w*‖a* + ε‖a*‖ 1/√k has the loss (k+π−1)ε²/(4π)."""
        k, epsilon = 10_000.0, 0.1
        state = Reduced(1.0, 0.0, epsilon * np.sqrt(k), 1.0, 0.0)
        loss = path_of(state, Problem(k, 0.0, 1.0), 1e-4)["loss"][0]
        assert loss > 7
        assert loss < bounds_phase_two.final_loss(epsilon, k, 1.0).value < loss * 1.01
        assert loss > 300 * bounds_phase_two.final_loss(epsilon, 1.0, 1.0).value

    def test_theorem_5_5_with_the_inverted_step(self):
        eta = bounds_spurious.largest_spurious_step_size(-0.1, 1.0, 20.0, printed=True).value
        state, problem = Reduced(-0.5, 1.0, 0.2, -0.1, 0.0), Problem(20.0, 0.2, 1.0)
        path = path_of(state, problem, eta)
        assert not np.abs(path["total"][20]) < 1e10

    def test_the_printed_step_is_never_larger(self, runs):
        run = runs["successful"]
        overlap, angle, v_norm = (run.first(name) for name in ("overlap", "angle", "filter_norm"))
        most = bounds.largest_overlap(run.norm, run.s, run.filter_norm).value
        where = (overlap <= most) & (v_norm == 1)
        arguments = (overlap, angle, run.norm, run.s, run.k, run.filter_norm)
        printed = bounds_descent.largest_step_size(*arguments, printed=True).value
        ours = bounds_descent.largest_step_size(*arguments).value
        assert where.sum() > 50
        assert (printed <= ours)[where].all()
        theorem = bounds_descent.theorem_step_size(*arguments, constant=1.0).value
        assert (theorem <= ours)[where].all()


# One compiled program for the whole table each.
PROBABILITY = compiled(lambda *a: bounds_initialization.initialization_probability(*a).value)
SPURIOUS = compiled(lambda *a: bounds_initialization.spurious_probability(*a).value)
DRAWS = 20_000


def agree(share, expected):
    """Within four standard errors."""
    variance = np.maximum(expected * (1 - expected), 1 / DRAWS) / DRAWS
    assert (np.abs(share - expected) <= 4 * np.sqrt(variance)).all(), (share, expected)


def first_entries(random, n, power):
    """|x_1| of x uniform on the sphere, or in the ball (power = 1/n), in n dimensions."""
    x = random.normal(size=(DRAWS, n))
    return np.abs(x[:, 0]) / np.linalg.norm(x, axis=1) * random.uniform(size=DRAWS) ** power


def test_the_initialization_has_the_orders_of_theorem_5_4():
    random, shares, arguments = np.random.default_rng(0), [], []
    for k, p in [(1, 1), (1, 25), (2, 2), (20, 1), (20, 25)]:
        norm, total = 1.0, 0.5 * np.sqrt(k)
        cosine = first_entries(random, p, 0.0)
        overlap = total / np.sqrt(k) * norm * first_entries(random, k, 1 / k)  # along a*
        unit = bounds_initialization.initial_overlap(k, norm, total).value
        order = bounds_initialization.initial_cosine(p).value
        for lower, upper in [(0.0, 0.5), (0.3, 2.0), (0.1, 4.0)]:
            inside = (lower * unit <= overlap) & (overlap <= upper * unit)
            inside &= (lower * order <= cosine) & (cosine <= upper * order)
            shares.append(inside.mean())
            arguments.append((lower, upper, k, p))
    agree(np.array(shares), np.asarray(PROBABILITY(*np.array(arguments).T)))


def test_the_spurious_start_exists_with_the_probability_of_theorem_5_5():
    random, shares, arguments, largest, deltas = np.random.default_rng(1), [], [], [], []
    for p in (1, 2, 3, 25):
        far = np.pi - np.arccos(first_entries(random, p, 0.0))  # the sign further from w*
        for ratio in (0.0, 0.02, 0.2, 0.6):
            shares.append(np.mean(bounds.level(far) + 1 <= 1 - 2 * ratio))
            arguments.append((ratio, p))
        for delta in (0.01, 0.1, 0.3, 0.5):
            largest.append((bounds_initialization.largest_spurious_ratio(p, delta).value, p))
            deltas.append(delta)
    agree(np.array(shares), np.asarray(SPURIOUS(*np.array(arguments).T)))
    assert (np.asarray(SPURIOUS(*np.array(largest).T)) >= 1 - np.array(deltas) - 1e-6).all()


def test_the_overlap_at_initialization_is_within_a_quarter_of_the_target():
    """From Theorem 5.4's ball, max Q ≤ (1 + √2)/2 ‖a*‖²‖w*‖, free of (1ᵀa*)²."""
    random = np.random.default_rng(0)
    target = random.normal(size=(500, 20))
    a = random.normal(size=(500, 20))
    norm, s = np.linalg.norm(target, axis=1), target.sum(axis=1)
    a *= (np.abs(s) / np.sqrt(20) / np.linalg.norm(a, axis=1))[:, None]
    a[0] = -(s[0] / 20) * (1 - 2**0.5)  # anything in the ball
    most = bounds.sharp_largest_overlap(np.sum(a * target, axis=1), a.sum(axis=1), norm, s, 20)
    assert (most.value <= (1 + np.sqrt(2)) / 2 * norm**2).all()


def test_bounds_are_pure_functions_in_the_dtype_of_their_input(dtype):
    def everything(overlap, angle):
        one = overlap * 0 + 1
        norm, k, eta, s = one, 20 * one, one / 10, one / 2
        return (
            bounds.signal(overlap, angle, norm).value,
            bounds.output_alignment(eta, overlap, angle, norm).value,
            bounds.smallest_overlap(overlap, angle, norm).value,
            bounds.turn_step_size(overlap, angle).value,
            bounds.alignment_time(eta).value,
            bounds_descent.largest_step_size(overlap, angle, norm, s, k).value,
            bounds_descent.theorem_step_size(overlap, angle, norm, s, k).value,
            bounds_descent.phase_one_time(eta, overlap, angle, norm).value,
            bounds_phase_two.phase_two_time(eta, one / 100, norm, s, k, norm).value,
            *(
                bound.value
                for bound in bounds_spurious.supplement_bounds(
                    100 * one, eta, -overlap, np.pi - angle, norm, s
                )
            ),
        )

    arguments = jnp.array([0.1, 0.7], dtype), jnp.array([0.4, 1.5], dtype)
    shapes = jax.eval_shape(jax.vmap(everything), *arguments)
    assert [array.dtype.name for array in shapes] == [dtype] * len(shapes)
    host = [everything(*(np.asarray(x)[i] for x in arguments)) for i in range(2)]
    if dtype == "float64":
        mapped = compiled(jax.vmap(everything))(*arguments)
        np.testing.assert_allclose(np.stack(mapped, axis=1), host, rtol=1e-9)
    else:
        wide = [everything(*(float(x[i]) for x in arguments)) for i in range(2)]
        np.testing.assert_allclose(host, wide, rtol=1e-4)


@pytest.mark.quick
def test_errors_at_the_door():
    with pytest.raises(ValueError, match="k is 0; expected a whole number"):
        bounds.sum_step_size(0)
    with pytest.raises(ValueError, match=r"p is 0\.5; expected a whole number"):
        bounds_initialization.initial_cosine(0.5)
    with pytest.raises(ValueError, match=r"angle is 4\.0; expected an angle in \[0, π\]"):
        bounds.signal(1.0, 4.0)
    with pytest.raises(
        ValueError, match=r"v_norm is 0\.0; expected a finite number greater than 0"
    ):
        bounds.signal(1.0, 1.0, v_norm=0.0)
    with pytest.raises(ValueError, match=r"epsilon is 2\.0; expected an accuracy in \(0, 1\]"):
        bounds_phase_two.sum_time(0.1, 1.0, 2.0, 1.0, 4)
    with pytest.raises(ValueError, match=r"share is 1\.0; expected a share in \(0, 1\)"):
        bounds.alignment_time(0.1, 1.0)
    with pytest.raises(ValueError, match=r"lower is 3\.0 and upper 0\.1; expected lower ≤ upper"):
        bounds_initialization.initialization_probability(3.0, 0.1, 20, 25)
    with pytest.raises(ValueError, match=r"ratio is -1\.0"):
        bounds_initialization.spurious_probability(-1.0, 6)
    with pytest.raises(ValueError, match=r"delta is 1\.0"):
        bounds_initialization.largest_spurious_ratio(6, 1.0)
    with pytest.raises(ValueError, match=r"step_size is -0\.1"):
        bounds_spurious.spurious_rate(-0.1, 1.0, 0.0, 4)
