"""Figure 5.2: the sum first, then a plateau, then everything, found in records of runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled, samples

from ntkflow.systems.weight_normalized_filter.bounds_descent import (
    phase_one_overlap,
    phase_one_time,
)
from ntkflow.systems.weight_normalized_filter.bounds_phase_two import phase_two_time
from ntkflow.systems.weight_normalized_filter.network import Teacher
from ntkflow.systems.weight_normalized_filter.phases import phase_rates, phases
from ntkflow.systems.weight_normalized_filter.reduction import (
    Problem,
    Reduced,
    reduce_teacher,
    reduced_observables,
    simulate,
)

ETA, EPSILON = 0.1, 1e-3
PROBLEM = Problem(20.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def figure():
    """k = 20, η = 0.1: a start of the size that Theorem 5.4 draws at p = 25, and one that fails."""
    cosine = np.array([0.2, -0.2])
    start = Reduced(
        cosine, np.sqrt(1 - cosine**2), np.zeros(2), 0.05 * np.sign(cosine), np.full(2, 0.1)
    )

    @compiled
    def run(start):
        steps, path = simulate(start, PROBLEM, ETA, 600)
        return reduced_observables(path, PROBLEM), steps

    return jax.tree.map(np.asarray, run(start))


@pytest.mark.quick
def test_a_run_that_succeeds_has_three_phases(figure):
    history, steps = figure
    found = phases(history, steps, PROBLEM, EPSILON)
    assert found.sums.shape == (2,)
    sums, signal, accuracy = (time[0] for time in found)
    assert 5 <= sums <= 15  # "first ~10 iterations"
    assert 50 <= signal <= 250  # "~200", which depends on the start
    assert signal < accuracy < 600
    # The definitions, read off the record.
    angle, overlap, loss = (history[name][0] for name in ("angle", "overlap", "loss"))
    ready = (angle <= np.pi / 3) & (overlap >= phase_one_overlap(1.0).value)
    assert ready[int(signal) :].all()
    assert not ready[int(signal) - 1]
    assert (loss[int(accuracy) :] <= EPSILON).all()
    assert loss[int(accuracy) - 1] > EPSILON
    # The theorem's times are upper bounds of them.
    start = (history[name][0, 0] for name in ("overlap", "angle"))
    first = phase_one_time(ETA, *start, 1.0).value
    rest = phase_two_time(ETA, EPSILON, 1.0, 1.0, 20, history["output_error"][0, 0]).value
    assert signal <= first
    assert accuracy <= first + rest


def test_the_middle_phase_is_slow_and_the_last_one_fast(figure):
    history, steps = figure
    rates = phase_rates(history, steps, PROBLEM, EPSILON)
    assert rates.loss.shape == (2, 3)
    success = {name: getattr(rates, name)[0] for name in rates._fields}
    assert success["sum_error"][0] > 20 * success["sum_error"][1]
    for name in ("loss", "sum_error", "angle"):
        assert success[name][2] > 3 * success[name][1], name
    end = int(phases(history, steps, PROBLEM, EPSILON).sums[0])
    loss = history["loss"][0]
    np.testing.assert_allclose(success["loss"][0], np.log(loss[0] / loss[end]) / end)


def test_a_run_that_fails_has_no_second_phase(figure):
    history, steps = figure
    found = phases(history, steps, PROBLEM, EPSILON)
    assert np.isfinite(found.sums[1])
    assert np.isinf(found.signal[1])
    assert np.isinf(found.accuracy[1])
    rates = phase_rates(history, steps, PROBLEM, EPSILON)
    assert np.isfinite(rates.loss[1, 0])
    assert np.isnan(rates.loss[1, 1:]).all()


def test_records_far_apart_and_divergence(figure):
    history, steps = figure
    sparse = {name: array[..., ::50] for name, array in history.items()}
    found = phases(sparse, steps[::50], PROBLEM)
    full = phases(history, steps, PROBLEM)
    for few, all_ in zip(found, full, strict=True):
        assert few[0] == 50 * np.ceil(all_[0] / 50)
    broken = {name: np.where(steps > 100, np.nan, array) for name, array in history.items()}
    assert np.isinf(np.stack(phases(broken, steps, PROBLEM))).all()


def test_teachers_and_float32_serve_as_well(figure):
    history, steps = figure
    output = np.asarray(samples(0, 20))
    output = output - output.mean()
    output = output / np.linalg.norm(output) * np.sqrt(1 - 1 / 20) + 1 / 20
    teacher = Teacher(jnp.array([0.0, 1.0]), jnp.asarray(output))
    assert_close(np.stack(reduce_teacher(teacher)), np.array([20.0, 1.0, 1.0, 1.0]))
    single = {name: array[0].astype("float32") for name, array in history.items()}
    found = np.stack(phases(single, steps, teacher))
    np.testing.assert_array_equal(found, np.stack(phases(history, steps, PROBLEM))[:, 0])


@pytest.mark.quick
def test_errors_at_the_door(figure):
    history, steps = figure
    with pytest.raises(ValueError, match=r"lacks \['angle'\]; record with observe=observables"):
        phases({name: x for name, x in history.items() if name != "angle"}, steps, PROBLEM)
    with pytest.raises(ValueError, match="expected the same number, at least two"):
        phases(history, steps[:10], PROBLEM)
    with pytest.raises(ValueError, match=r"epsilon is 0\.0; expected an accuracy in \(0, 1\]"):
        phases(history, steps, PROBLEM, epsilon=0.0)
    with pytest.raises(ValueError, match=r"patches has shape \(2,\); expected one number"):
        phases(history, steps, PROBLEM._replace(patches=np.array([20.0, 20.0])))
