"""Node scales: the paper's table and curve, and what Proposition B.2 says of their sums."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled

from ntkflow.systems.node_scaling import (
    block,
    inverse_squares,
    kernel_departure,
    node_scales,
    power_sum,
    power_sum_limit,
    power_sum_lower,
    power_sum_upper,
    root_sum_lower,
    root_sum_upper,
    scale_parts,
    zipf,
)

# (γ, α), m = 2000: λ_1, Σ λ², its limit, Σ λ^{3/2}.
TABLE = [
    (1.0, 0.5, 0.00050, 0.000500, 0.0, 0.02236),
    (0.5, 0.7, 0.17562, 0.038297, 0.03564, 0.12217),
    (0.5, 0.5, 0.30431, 0.100436, 0.10000, 0.21034),
    (0.2, 0.5, 0.48659, 0.256336, 0.25600, 0.41040),
    (0.0, 0.4, 0.74545, 0.576209, 0.57620, 0.70913),
]
SETTINGS = [(row[0], row[1]) for row in TABLE]


@pytest.mark.quick
def test_the_settings_of_the_experiments_have_these_sums():
    @compiled
    def columns(gamma, alpha):
        scales = jax.vmap(lambda g, a: node_scales(zipf(2000, a), g))(gamma, alpha)
        sums = power_sum(scales, 2), kernel_departure(gamma, alpha), power_sum(scales, 1.5)
        return jnp.stack([scales[:, 0], *sums], axis=1)

    table = np.array(TABLE)
    found = columns(jnp.array(table[:, 0]), jnp.array(table[:, 1]))
    np.testing.assert_allclose(found, table[:, 2:], atol=5.1e-6)
    assert_close(found[1, 0], node_scales(zipf(2000, 0.7), 0.5)[0])  # not traced


def test_the_first_weights_of_zipf():
    first = {0.7: [0.340039, 0.126324, 0.070783, 0.046929], 0.4: [0.745441, 0.131777, 0.047820]}
    for alpha, expected in first.items():
        np.testing.assert_allclose(zipf(9, alpha)[: len(expected)], expected, atol=5.1e-7)
    assert_close(zipf(9, 0.5), inverse_squares(9))


def test_the_curve_of_figure_1():
    alphas = jnp.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99])
    expected = [0.99801, 0.93097, 0.76771, 0.5762, 0.4, 0.25444, 0.14257, 0.06353, 0.01607]
    expected += [0.00406, 0.00016]
    np.testing.assert_allclose(kernel_departure(0.0, alphas), expected, atol=5.1e-6)
    assert_close(kernel_departure(0.3, alphas), 0.49 * kernel_departure(0.0, alphas))
    # The sum itself; its tail beyond N is N^(1 − 2/α) / (2/α − 1) at most.
    tail = 10**5 ** (1 - 2 / 0.8)
    assert 0 < kernel_departure(0.0, 0.8) - power_sum(zipf(10**5, 0.8), 2) < tail


def test_scales_obey_proposition_b2(dtype):
    def sums(m, gamma, alpha):
        weights = zipf(m, alpha)
        scales = node_scales(weights, gamma)
        triples = [(root_sum_lower(m, gamma).value, power_sum(scales, 0.5), math.sqrt(m))]
        for r in (1.5, 3.0):
            lower, upper = power_sum_lower(weights, gamma, r), power_sum_upper(weights, gamma, r)
            triples.append((lower.value, power_sum(scales, r), upper.value))
        return scales, sum(scale_parts(weights, gamma)), power_sum(scales, 1.0), triples

    widths = (1, 7, 2000)
    everything = compiled(lambda *a: [jax.vmap(functools.partial(sums, m))(*a) for m in widths])
    margin = 1 + 20 * np.finfo(dtype).eps
    gammas, alphas = (jnp.asarray(column, dtype) for column in zip(*SETTINGS, strict=True))
    for scales, added, total, triples in everything(gammas, alphas):
        assert scales.dtype == dtype
        assert (added == scales).all()
        assert_close(total, np.ones(5, dtype), factor=20)
        for lower, value, upper in triples:
            assert (lower <= value * margin).all()
            assert (value <= upper * margin).all()


def test_the_bounds_of_proposition_b2_are_attained():
    # γ = 1: all nodes alike, so that λ⁽²⁾ vanishes and both sides of (10) meet.
    assert_close(root_sum_lower(50, 1.0).value, root_sum_upper(50).value)

    @compiled
    def sums(weights):
        uniform, asymmetric = (power_sum(node_scales(weights, gamma), 2) for gamma in (1.0, 0.0))
        upper, lower = power_sum_upper(weights, 1.0, 2), power_sum_lower(weights, 0.0, 2)
        return (upper.value, uniform), (lower.value, asymmetric)

    for bound, value in sums(zipf(50, 0.5)):
        assert_close(bound, value)


def test_power_sums_approach_their_limit():
    gammas, alphas = (jnp.array(column) for column in zip(*SETTINGS[1:], strict=True))
    widths = (10**2, 10**4, 10**5)

    def sum_of(m, gamma, alpha, r):
        return power_sum(node_scales(zipf(m, alpha), gamma), r)

    @compiled
    def errors(r):
        limits = power_sum_limit(gammas, alphas, r)
        sums = [jax.vmap(functools.partial(sum_of, m, r=r))(gammas, alphas) for m in widths]
        return [jnp.abs(total / limits - 1) for total in sums]

    for r in (1.5, 2.0):
        first, second, third = errors(r)
        assert (first > 3 * second).all()
        assert (second > 2 * third).all()
        assert (third < 0.05).all()
    assert power_sum_limit(1.0, 0.5, 2.0) == 0


def test_a_block_without_the_equal_part_is_a_narrow_network():
    assert node_scales(block(5, 2), 0.0).tolist() == [0.5, 0.5, 0.0, 0.0, 0.0]
    assert_close(node_scales(block(5, 5), 0.0), node_scales(block(5, 2), 1.0))


def test_the_dtype_is_that_of_arrays_and_whole_numbers_are_real():
    for dtype in ("float32", "bfloat16"):
        gammas = jax.ShapeDtypeStruct((3,), dtype)
        assert jax.eval_shape(lambda g: power_sum_limit(g, 0.5, 2), gammas).dtype == dtype
    assert power_sum(np.array([4, 1]), 0.5) == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: node_scales(jnp.ones(3), 1.5), "gamma is 1.5; expected a number in \\[0, 1\\]"),
        (lambda: node_scales(jnp.ones(3), -0.1), "gamma is -0.1"),
        (lambda: node_scales(jnp.ones(3), jnp.full(3, 0.5)), "gamma has shape \\(3,\\); .*vmap"),
        (lambda: zipf(3, jnp.full(3, 0.5)), "alpha has shape \\(3,\\); .*vmap"),
        (lambda: zipf(3, 1.0), "alpha is 1.0; expected a number in \\(0, 1\\)"),
        (lambda: kernel_departure(0.5, 0.0), "alpha is 0.0"),
        (lambda: zipf(0, 0.5), "m is 0; expected a whole number"),
        (lambda: node_scales(jnp.array([1.0, -1.0]), 0.5), "expected 0 or greater, and not 0 all"),
        (lambda: node_scales(jnp.zeros(3), 0.5), "and not 0 all"),
        (
            lambda: node_scales(jnp.array([0.2, 0.1, 0.3]), 0.5),
            "increase from 0.1 at 1 to 0.3; .* sort them",
        ),
        (lambda: node_scales(jnp.ones((2, 3)), 0.5), "shape \\(2, 3\\); expected \\(m,\\)"),
        (lambda: node_scales(jnp.array([1.0, jnp.nan]), 0.5), "weights holds NaN"),
        (lambda: block(3, 4), "k is 4, m is 3; expected at most m nodes"),
        (lambda: power_sum_limit(0.5, 0.5, 1.0), "r is 1.0; expected a number greater than 1"),
    ],
)
def test_what_equation_1_does_not_allow_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
