"""Five numbers follow Algorithm 1 exactly: states, losses and all that Figure 5.2 shows."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled

from ntkflow.systems.weight_normalized_filter.network import Teacher, make_teacher
from ntkflow.systems.weight_normalized_filter.population import population_loss
from ntkflow.systems.weight_normalized_filter.reduction import (
    Problem,
    Reduced,
    advance,
    check_problem,
    reduce,
    reduce_teacher,
    reduced_loss,
    reduced_observables,
    simulate,
    table_problem,
)
from ntkflow.training.descent import descend

K, P, SEEDS, STEPS = 5, 4, 6, 120
STEP_SIZE = 0.9 * 2 * np.pi / (K + np.pi - 1)
PLAIN = Problem(10, 1.0, 1.0)

loss_of, quantities_of, step, reduced = (
    compiled(f) for f in (reduced_loss, reduced_observables, advance, reduce)
)
follow = compiled(simulate, static_argnums=(3, 4))


def descent(key):
    """A run of v and a themselves from a Gaussian start, with w* of another length than 1."""
    teacher_key, v_key, a_key = jax.random.split(key, 3)
    teacher = make_teacher(teacher_key, K, P, ratio=0.4, norm=1.3)
    teacher = Teacher(1.7 * teacher.filter, teacher.output)
    start = {
        "filter": jax.random.normal(v_key, (P,)),
        "output": 0.5 * jax.random.normal(a_key, (K,)),
    }
    observe = {
        "state": lambda now: reduce(now.params, teacher),
        "output_error": lambda now: jnp.linalg.norm(
            now.params["params"]["output"] - 1.7 * teacher.output
        ),
        "filter_norm": lambda now: jnp.linalg.norm(now.params["params"]["filter"]),
    }
    run = descend(population_loss, optax.sgd(STEP_SIZE), STEPS, observe=observe, every=30)
    return reduce_teacher(teacher), run({"params": start}, teacher).history


@pytest.fixture(scope="module")
def runs():
    return jax.device_get(compiled(jax.vmap(descent))(jax.random.split(jax.random.key(2), SEEDS)))


@pytest.mark.quick
def test_five_numbers_are_descend_on_the_population_loss(runs, dtype):
    """In float32 too, held against descent in float64."""
    problem, history = runs
    problem = Problem(*(part.astype(dtype) for part in problem))
    start = Reduced(*(rows[:, 0].astype(dtype) for rows in history["state"]))
    steps, path = follow(start, problem, STEP_SIZE, STEPS, 30)
    assert steps.tolist() == [0, 30, 60, 90, 120]
    for name, own, full in zip(Reduced._fields, path, history["state"], strict=True):
        assert own.dtype == dtype, name
        assert_close(own, full, factor=500, scale=2)
    column = Problem(*(np.reshape(part, (-1, 1)) for part in problem))
    found = jax.device_get(quantities_of(path, column))
    for name in ("loss", "output_error", "filter_norm"):
        assert_close(found[name], history[name], factor=1000, scale=2)
    # Runs of both kinds are among them: the comparison is not one of successes alone.
    assert (found["angle"][:, -1] < 1).any()
    assert (found["angle"][:, -1] > 2).any()


def test_quantities_of_figure_5_2_vanish_at_the_global_minimum(dtype):
    k, sums = np.asarray([4.0, 9.0], dtype), np.ones(2, dtype)
    problem = Problem(k, sums, np.asarray(0.5, dtype))  # k = 4: a* is a multiple of 1
    target = Reduced(2.0, 0.0, sums, np.asarray(0.25, dtype), 0.0)
    found = jax.device_get(quantities_of(target, problem))
    for name in ("angle", "output_error", "sum_error", "loss"):
        assert found[name].dtype == dtype
        assert (found[name] == 0).all(), name
    still = jax.device_get(step(target, problem, 0.1))
    np.testing.assert_allclose(still.total, [1.0, 1.0], rtol=4 * np.finfo(dtype).eps)
    assert (still.orthogonal == 0).all()


def test_loss_resolves_what_is_far_below_rounding_of_its_terms():
    """ℓ = ¼ φ²‖a*‖² + … for a = a*: relative accuracy at φ = 1e-6, where ℓ is 1e-13."""
    phi = np.array([1e-6, 1e-3, 0.3])
    rest = np.array([0.0, 0.1])[:, None]
    loss = np.asarray(loss_of(Reduced(np.cos(phi), np.sin(phi), 1.0, 1.0, rest), PLAIN))
    exact = np.pi * phi**2 / 2 - phi**3 / 3 + (phi**5 / 30 - np.pi * phi**4 / 24)
    assert (np.abs(loss[0] / (exact / (2 * np.pi)) - 1) < 1e-8 + phi**4).all()
    np.testing.assert_allclose(loss[1] - loss[0], (np.pi - 1) * 0.01 / (4 * np.pi), rtol=1e-9)


def test_spurious_minimum_stays_and_has_its_value():
    state = Reduced(-1.0, 0.0, 0.0, -1 / (np.pi - 1), 0.0)
    problem = Problem(7, 0.0, 1.0)
    after = step(state, problem, 0.3)
    np.testing.assert_allclose(after, state, atol=1e-15)
    value = (np.pi - 2) / (4 * (np.pi - 1))
    assert abs(float(loss_of(state, problem)) - value) < 1e-15
    assert abs(value - 0.133264) < 1e-6


def test_runs_times_settings_are_one_array():
    """Each entry is its own run, whatever stands beside it."""
    k, ratio = np.array([4.0, 25.0])[:, None], np.array([0.0, 1.0, 4.0])[None]
    problem = compiled(table_problem)(k, ratio, 0.5)
    np.testing.assert_allclose(problem.sum**2, np.broadcast_to(ratio / 4, problem.sum.shape))
    random = np.random.default_rng(0)
    state = Reduced(*np.abs(random.normal(size=(5, 7, 2, 3))))
    _, whole = follow(state, problem, 0.1, 20, 20)
    assert whole.total.shape == (7, 2, 3, 2)
    pick = lambda part, at: np.broadcast_to(np.asarray(part), (2, 3))[at]  # noqa: E731
    one = Reduced(*(part[3, 1, 2] for part in state))
    _, alone = follow(one, Problem(*(pick(part, (1, 2)) for part in problem)), 0.1, 20, 20)
    for a, b in zip(whole, alone, strict=True):
        assert_close(b, a[3, 1, 2])


def test_output_layer_that_is_a_multiple_of_one_has_no_second_direction():
    """Then aᵀa* = 1ᵀa 1ᵀa*/k says nothing new, and the remainder is all that is orthogonal to 1."""
    a_star = np.full(7, 0.3)
    teacher = Teacher(np.array([1.0, 2.0]), a_star)
    a = np.random.default_rng(1).normal(size=7)
    variables = {"params": {"filter": np.array([1.0, 0.0]), "output": a}}
    state, problem = reduced(variables, teacher), compiled(reduce_teacher)(teacher)
    np.testing.assert_allclose(state.remainder, np.linalg.norm(a - a.mean()), rtol=1e-12)
    error = quantities_of(state, problem)["output_error"]
    np.testing.assert_allclose(error, np.linalg.norm(a - 5**0.5 * a_star), rtol=1e-12)
    np.testing.assert_allclose(
        loss_of(state, problem), compiled(population_loss)(variables, teacher), rtol=1e-12
    )


def test_what_no_teacher_has_is_refused():
    state = Reduced(*[1.0] * 5)
    with pytest.raises(ValueError, match="k is 0; expected a whole number greater than 0"):
        simulate(state, Problem(0, 0.0, 1.0), 0.1, 5)
    with pytest.raises(ValueError, match="no a\\* has them"):
        simulate(state, Problem(4, 3.0, 1.0), 0.1, 5)
    with pytest.raises(ValueError, match=r"step_size is -0\.1; expected a finite number"):
        simulate(state, Problem(4, 1.0, 1.0), -0.1, 5)
    with pytest.raises(ValueError, match="problem is of type tuple; expected Problem"):
        check_problem((4, 1.0, 1.0))
    with pytest.raises(ValueError, match="no a\\* has them"):
        table_problem(4, 5.0, 1.0)
    with pytest.raises(ValueError, match="expected the same"):
        reduce(
            {"params": {"filter": np.ones(3), "output": np.ones(2)}},
            Teacher(np.ones(2), np.ones(2)),
        )
