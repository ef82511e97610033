"""The start of Theorem 5.4: its law in five numbers, its four signs, restarts and halving."""

import jax
import numpy as np
import pytest
from helpers import compiled
from scipy import stats

from ntkflow.systems.weight_normalized_filter.initialization import (
    initialize,
    initialize_reduced,
    learn_filter,
    sign_trials,
)
from ntkflow.systems.weight_normalized_filter.network import Teacher, make_teacher
from ntkflow.systems.weight_normalized_filter.reduction import (
    Problem,
    Reduced,
    reduce,
)

RUNS = 4000
PLAIN = Problem(9, 1.0, 1.0)
draw = compiled(initialize_reduced, static_argnums=1)


def statistics_of(state):
    """Each number, and products that show how they depend on each other."""
    x, y, total, overlap, rest = state
    return {**state._asdict(), "mixed": total * overlap, "size": total**2 + rest**2, "xy": x * y}


def reduced_vectors(teacher, radius):
    """The five numbers of vectors drawn by NumPy, for k = p = 2, w* along the first axis."""
    random = np.random.default_rng(0)
    angle, turn = 2 * np.pi * random.uniform(size=(2, RUNS))
    a = radius * np.sqrt(random.uniform(size=RUNS)) * np.stack([np.cos(turn), np.sin(turn)])
    return Reduced(
        np.cos(angle), np.abs(np.sin(angle)), a.sum(axis=0), teacher.output @ a, np.zeros(RUNS)
    )


K, P = np.array([5, 2]), np.array([4, 2])


@pytest.mark.quick
def test_five_uniform_numbers_have_the_law_of_vectors():
    problem = Problem(K, np.array([2.0, -0.7]), 1.5, 2.0)
    own = jax.device_get(draw(jax.random.key(1), RUNS, problem, P))
    keys = jax.random.split(jax.random.key(0), RUNS)
    for i, (k, p) in enumerate(zip(K, P, strict=True)):
        s = problem.sum[i]
        across = np.sqrt((1.5**2 - s**2 / k) / (k * (k - 1))) * (1 - k * (np.arange(k) == 0))
        teacher = Teacher(2 * np.eye(p)[0], s / k + across)
        if k > 2:
            full = compiled(jax.vmap(lambda key, t=teacher: reduce(initialize(key, t), t)))(keys)
            full = jax.device_get(full)
        else:
            full = reduced_vectors(teacher, abs(s) * 2 / k**0.5)
        full = statistics_of(full)
        for name, drawn in statistics_of(Reduced(*(part[:, i] for part in own))).items():
            if np.ptp(full[name]) < 1e-6:  # no remainder for k = 2
                np.testing.assert_allclose(drawn, full[name], atol=1e-7)
                continue
            assert stats.ks_2samp(drawn, full[name]).pvalue > 1e-3, (k, name)


def test_start_lies_on_the_sphere_and_in_the_ball(dtype):
    """And so for k = 1 and p = 1, where it has no second direction."""
    k = np.asarray([1, 2, 9], dtype)
    problem = Problem(k[:, None], 1.0, 1.0, 3.0)
    p = np.asarray([1, 2, 40], dtype)[None]
    start = jax.device_get(draw(jax.random.key(0), 500, problem, p))
    assert start.total.shape == (500, 3, 3)
    assert start.total.dtype == dtype
    np.testing.assert_allclose(np.hypot(start.parallel, start.orthogonal), 1, rtol=1e-6)
    assert (np.abs(start.total) <= 3 * (1 + 1e-6)).all()  # |1ᵀa| ≤ |1ᵀa*|‖w*‖
    assert (np.abs(start.parallel[..., 0]) == 1).all()
    np.testing.assert_allclose(start.overlap[:, 0], start.total[:, 0], rtol=1e-6)
    assert (start.remainder[:, 0] == 0).all()
    # E x² = 1/p and E (1ᵀa)² = r²k/(k + 2), both within four standard errors.
    for values, mean in (
        (start.parallel[:, 0] ** 2, 1 / np.asarray(p)[0]),
        (start.total[:, :, 0] ** 2, 9 / (np.asarray(k) + 2)),
    ):
        error = np.std(values, axis=0) / 500**0.5
        assert (np.abs(np.mean(values, axis=0) - mean) <= 4 * error + 1e-6).all()


def test_radius_scales_the_output_layer_alone():
    radius = np.array([0.0, 1.0, 2.0])
    start = jax.device_get(draw(jax.random.key(0), 5, PLAIN, 3, radius))
    again = jax.device_get(draw(jax.random.key(0), 5, PLAIN, 3, 2 * radius))
    np.testing.assert_array_equal(start.parallel, again.parallel)
    for name in ("total", "overlap", "remainder"):
        one, two = getattr(start, name), getattr(again, name)
        np.testing.assert_allclose(two, 2 * one, rtol=1e-12)
        assert not one[:, 0].any()
        assert one[:, 1:].all()


def test_four_signs_of_vectors_and_of_five_numbers_are_the_same():
    random = np.random.default_rng(0)
    teacher = Teacher(random.normal(size=3), random.normal(size=4))
    start = {"params": {"filter": random.normal(size=3), "output": random.normal(size=4)}}

    @compiled
    def both(start):
        return (
            sign_trials(reduce(start, teacher)),
            jax.vmap(lambda each: reduce(each, teacher))(sign_trials(start)),
        )

    own, full = jax.device_get(both(start))
    for a, b in zip(own, full, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-15)
    signs = np.sign(own.parallel), np.sign(own.overlap)
    assert set(zip(*map(np.ndarray.tolist, signs), strict=True)) == {
        (x, q) for x in (1.0, -1.0) for q in (1.0, -1.0)
    }


@compiled
def learn(key, teacher, radius):
    return learn_filter(key, teacher, 0.6, 300, restarts=2, halvings=2, radius=radius)


@pytest.fixture(scope="module")
def learned():
    teacher = compiled(lambda key: make_teacher(key, 6, 3, 0.5))(jax.random.key(0))
    return teacher, jax.device_get(learn(jax.random.key(1), teacher, radius=2.0))


def test_one_of_four_trials_learns_the_filter_from_every_start(learned):
    teacher, found = learned
    won = np.asarray(found.succeeded)
    assert won.shape == (2, 3, 4)
    assert won.any(axis=-1).all()
    assert not won.all()  # the spurious minimum is there
    assert float(found.loss) == np.asarray(found.losses).min() < 1e-8
    leaves = found.variables["params"]
    np.testing.assert_allclose(leaves["output"], teacher.output, atol=1e-3)
    unit = leaves["filter"] / np.linalg.norm(leaves["filter"])
    np.testing.assert_allclose(unit, teacher.filter, atol=1e-3)


def test_halving_divides_the_radius(learned):
    """Remark 5.3: after two halvings of the radius 2 the starts are those of the radius 1/2."""
    teacher, found = learned
    small = jax.device_get(learn(jax.random.key(1), teacher, radius=0.5))
    np.testing.assert_allclose(small.losses[:, 0], found.losses[:, 2], rtol=1e-9, atol=1e-15)
    assert np.abs(small.losses[:, 1] - found.losses[:, 2]).max() > 1e-15


def test_numbers_that_make_no_start_are_refused():
    teacher = Teacher(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="p is 0; expected a whole number greater than 0"):
        initialize_reduced(jax.random.key(0), 5, PLAIN, 0)
    with pytest.raises(ValueError, match="runs is 0"):
        initialize_reduced(jax.random.key(0), 0, PLAIN, 3)
    with pytest.raises(ValueError, match="radius is -1"):
        initialize_reduced(jax.random.key(0), 5, PLAIN, 3, radius=-1.0)
    with pytest.raises(ValueError, match="radius is -1"):
        initialize(jax.random.key(0), teacher, radius=-1.0)
    with pytest.raises(ValueError, match="halvings is -1"):
        learn_filter(jax.random.key(0), teacher, 0.1, 5, halvings=-1)
    with pytest.raises(ValueError, match="radius is -1"):
        learn_filter(jax.random.key(0), teacher, 0.1, 5, radius=-1.0)
    with pytest.raises(ValueError, match=r"a\* is 0; expected a vector that has a direction"):
        learn_filter(jax.random.key(0), Teacher(np.ones(2), np.zeros(3)), 0.1, 5)
