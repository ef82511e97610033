import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import compiled, samples

from ntkflow import data
from ntkflow.data import check_inputs, find_violations, inputs, load

sphere = compiled(data.sphere, static_argnums=(1, 2, 3))


def brute_force(x, tolerance):
    """All pairs by the difference of directions, in float64."""
    x = np.asarray(x, dtype=float)
    norm = np.linalg.norm(x, axis=1)
    u = x / np.where(norm > 0, norm, 1)[:, None]
    return [
        [i, j]
        for i in range(len(x))
        for j in range(i + 1, len(x))
        if norm[i] > 0 < norm[j]
        and min(np.linalg.norm(u[i] - u[j]), np.linalg.norm(u[i] + u[j])) <= tolerance
    ]


@pytest.mark.quick
def test_points_on_the_sphere_pass(dtype):
    for d in (2, 1000):
        check_inputs(sphere(jax.random.key(d), 30, d, dtype))


def test_all_pairs_are_found(dtype, monkeypatch):
    monkeypatch.setattr(inputs, "_BLOCK", 7)  # several tiles, the last one incomplete
    x = np.array(sphere(jax.random.key(1), 31, 5, dtype))
    x[3] = -2.5 * x[1]
    x[20] = x[1] / 3
    x[30] = x[29]
    x[10] = 0
    x[12] = 0
    x[15] *= 1.01
    found = find_violations(jnp.asarray(x))
    assert found.parallel.tolist() == [[1, 3], [1, 20], [3, 20], [29, 30]]
    assert found.zero.tolist() == [10, 12]
    assert found.norm.tolist() == [3, 15, 20]
    assert found.redundant.tolist() == [3, 10, 12, 20, 30]
    check_inputs(np.delete(x, found.redundant, axis=0), unit_norm=False)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_pairs_equal_brute_force_for_any_tolerance(seed, monkeypatch):
    monkeypatch.setattr(inputs, "_BLOCK", 16)
    x = np.asarray(samples(seed, 60, 2))
    for tolerance in (1e-4, 0.01, 0.3):
        expected = brute_force(x, tolerance)
        assert find_violations(x, tolerance=tolerance).parallel.tolist() == expected
    assert expected  # the widest tolerance finds some


@pytest.mark.parametrize("sign", [1, -1])
def test_angles_far_below_what_a_cosine_resolves(dtype, sign):
    # cos(angle) rounds to 1 for all of these: 1 − cos = angle²/2 < eps.
    eps = float(jnp.finfo(dtype).eps)
    tolerance = (8 + 2**0.5) * eps
    for factor, parallel in ((0.5, True), (0.9, True), (1.2, False), (100.0, False)):
        angle = factor * tolerance
        assert 1 - np.cos(angle) < eps
        x = jnp.array([[1.0, 0.0], [sign, sign * angle]], dtype)
        assert len(find_violations(x).parallel) == parallel, factor


def test_an_angle_bounds_the_smallest_eigenvalue():
    # H^∞ of two inputs of norm 1 at angle θ: 1/2 and cos θ·(π − θ)/(2π).
    for angle in (1e-2, 1e-3, 1e-4):
        other = np.cos(angle) * (np.pi - angle) / (2 * np.pi)
        smallest = np.linalg.eigvalsh([[0.5, other], [other, 0.5]])[0]
        np.testing.assert_allclose(smallest, angle / (2 * np.pi), rtol=2 * angle + 1e-10)


def test_multiples_of_a_vector_are_parallel_after_rounding(dtype):
    x = samples(2, 50, 64, dtype=dtype)
    scaled = x * jnp.linspace(0.1, 7, 50, dtype=dtype)[:, None]
    both = jnp.concatenate([x, scaled / jnp.linalg.norm(scaled, axis=1, keepdims=True)])
    assert find_violations(both).parallel.tolist() == [[i, 50 + i] for i in range(50)]


@pytest.mark.parametrize("scale", [1e-300, 1e300, 5e-324])
def test_huge_and_tiny_rows_neither_overflow_nor_vanish(scale):
    x = np.array([[3.0, 4.0], [0.0, 1.0], [0.6, 0.8]])
    x[0] *= scale
    found = find_violations(x)
    assert found.zero.tolist() == []
    assert found.norm.tolist() == [0]
    assert find_violations(x, tolerance=0.1).parallel.tolist() == [[0, 2]]


def test_message_counts_all_and_shows_the_first():
    x = jnp.concatenate([jnp.eye(6), -2 * jnp.eye(6), jnp.zeros((1, 6))])
    with pytest.raises(ValueError, match="exclude") as info:
        check_inputs(x)
    text = str(info.value)
    assert "1 zero row: 12;" in text
    assert "6 rows of norm other than 1: 6 (‖x‖ = 2), 7 (‖x‖ = 2)" in text
    assert "6 pairs of parallel rows: (0, 6), (1, 7), (2, 8), (3, 9), (4, 10), ..." in text
    with pytest.raises(ValueError, match="6 pairs") as info:
        check_inputs(x, unit_norm=False)
    assert "norm other" not in str(info.value)


def test_rows_of_several_tiles():
    x = np.array(samples(3, 2500, 8, dtype="float32"))
    x[2_499], x[2_000] = -x[17], x[1_100]
    assert find_violations(x).parallel.tolist() == [[17, 2_499], [1_100, 2_000]]


def test_all_rows_parallel():
    assert len(find_violations(jnp.ones((300, 3))).parallel) == 300 * 299 // 2


@pytest.mark.parametrize("name", ["digits", "diabetes", "breast_cancer"])
def test_real_sets_hold_no_parallel_inputs(name):
    check_inputs(load(name, unit_norm=True).x)


def test_bad_arguments():
    with pytest.raises(ValueError, match="expected \\(samples, features\\)"):
        find_violations(jnp.ones(3))
    with pytest.raises(ValueError, match="NaN"):
        check_inputs(jnp.array([[1.0, jnp.nan]]))
    with pytest.raises(ValueError, match="tolerance is -1"):
        check_inputs(jnp.eye(2), tolerance=-1.0)
    with pytest.raises(ValueError, match="outside jit"):
        jax.jit(lambda x: find_violations(x).zero)(jnp.eye(2))


def test_norms_up_to_a_largest_one_pass(dtype):
    x = np.array([[0.5, 0.0], [0.6, 0.8], [0.0, 0.01]], dtype)  # Assumption 2.1 of Caron et al.
    check_inputs(x, largest_norm=1.0)
    check_inputs(10 * x, largest_norm=10.0)
    with pytest.raises(ValueError, match=r"2 rows of norm other than 1: 0 \(‖x‖ = 0.5\)"):
        check_inputs(x)
    with pytest.raises(
        ValueError, match=r"1 row of norm above 0.9: 1 .* norm in \(0, 0.9\], no two"
    ):
        check_inputs(x, largest_norm=0.9)
    with pytest.raises(ValueError, match=r"1 pair of parallel rows: \(0, 1\)"):
        check_inputs(np.array([[0.5, 0.0], [-0.1, 0.0]], dtype), largest_norm=1.0)
    with pytest.raises(ValueError, match="1 zero row: 1"):
        check_inputs(np.array([[0.5, 0.0], [0.0, 0.0]], dtype), largest_norm=1.0)
    with pytest.raises(ValueError, match="largest_norm is 0; expected a number greater than 0"):
        check_inputs(x, largest_norm=0)
