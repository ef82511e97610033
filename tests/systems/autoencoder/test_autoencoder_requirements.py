"""Widths, radii and step sizes against the conditions that they are derived from, and Table 1."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import compiled

from ntkflow.systems.autoencoder.bounds import initial_error
from ntkflow.systems.autoencoder.bounds_joint import decoder_gram_perturbation, joint_distances
from ntkflow.systems.autoencoder.bounds_weak import (
    contraction_factor,
    gram_perturbation,
    neuron_distance,
    pattern_flips_failure,
)
from ntkflow.systems.autoencoder.concentration import (
    decoder_gram_width,
    encoder_gram_width,
    initial_decoder_norm,
    initial_features_norm,
    limit_gram_norm,
)
from ntkflow.systems.autoencoder.gram import limit_smallest_eigenvalue
from ntkflow.systems.autoencoder.requirements import (
    confined_width,
    joint_confined_width,
    joint_stable_radius,
    largest_step_size,
    required_width,
    stable_radius,
    sufficient_width,
)
from ntkflow.systems.autoencoder.table import (
    du_joint_width,
    eigenvalue_from_separation,
    smallest_separation,
    table_1,
    width_ratio,
)

# n, d, λ_0, λ_n, δ
SETTINGS = [(2, 3, 0.4, 1.3, 0.5), (20, 10, 0.124, 4.5, 0.1), (200, 50, 0.044, 8.3, 1e-3)]
DYNAMICS = ["flow", "descent"]


@pytest.mark.quick
@pytest.mark.parametrize("dynamics", DYNAMICS)
@pytest.mark.parametrize(("n", "d", "lambda_0", "lambda_n", "delta"), SETTINGS)
def test_a_sufficient_width_for_the_encoder(n, d, lambda_0, lambda_n, delta, dynamics):
    """R' = R at that width, each event with its share of δ; the other widths are smaller."""
    m = round(sufficient_width("encoder", n, d, lambda_0, lambda_n, delta, dynamics).value)
    share = delta / (3 if dynamics == "flow" else 4)
    residual = initial_error(n, share).value ** 0.5
    radius = stable_radius(n, d, lambda_0, share, dynamics).value
    moved = neuron_distance(d, m, lambda_0, lambda_n, residual, dynamics).value
    np.testing.assert_allclose(moved, radius, rtol=1e-6)
    assert gram_perturbation(n, d, radius, share).value <= lambda_0 / 4 * (1 + 1e-12)
    assert encoder_gram_width(n, d, lambda_0, lambda_n, share).value < m
    assert pattern_flips_failure(n, m, radius).value < share
    if dynamics == "descent":
        step = largest_step_size("encoder", n, d, lambda_0, lambda_n).value
        factor = contraction_factor(n, d, lambda_0, lambda_n, step, radius).value
        assert factor <= 1 - step * lambda_0 / (2 * d) + 1e-15


@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_confined_widths_make_the_radii_equal(dynamics):
    n, d, lambda_0, lambda_n, delta = SETTINGS[1]
    for printed in (False, True):
        args = (n, d, lambda_0, lambda_n, delta, 7.0, dynamics)
        m = round(float(confined_width(*args, printed=printed).value))
        moved = neuron_distance(d, m, lambda_0, lambda_n, 7.0, dynamics, printed=printed).value
        radius = stable_radius(n, d, lambda_0, delta, dynamics, printed=printed).value
        np.testing.assert_allclose(moved, radius, rtol=1e-6)
    # n³ from λ_0/(64nd), the smaller radius for one sample and likely failure.
    n, d, lambda_0, lambda_n, delta = 1, 2, 0.5, 1.0, 0.9
    residual = (2 * n / delta) ** 0.5
    m = confined_width(n, d, lambda_0, lambda_n, delta, residual, "descent").value
    np.testing.assert_allclose(m, 131072 * n**3 * d**4 * lambda_n / (lambda_0**4 * delta))


def test_the_printed_radius_of_descent_allows_too_large_a_change():
    n, d, lambda_0, _, delta = SETTINGS[2]
    changes = [
        gram_perturbation(
            n, d, stable_radius(n, d, lambda_0, delta, "descent", printed=printed).value, delta
        ).value
        for printed in (False, True)
    ]
    np.testing.assert_allclose(changes, [lambda_0 / 4, lambda_0])


@pytest.mark.parametrize("dynamics", DYNAMICS)
@pytest.mark.parametrize(("n", "d", "lambda_0", "lambda_n", "delta"), SETTINGS)
def test_widths_for_both_layers(n, d, lambda_0, lambda_n, delta, dynamics):
    args = (n, d, lambda_0, lambda_n, delta, dynamics)
    share = delta / 3
    smallest = float(joint_confined_width(*args).value)
    floor = float(decoder_gram_width(n, d, lambda_0, lambda_n, share).value)
    margins = []
    for m in (math.ceil(smallest), round(float(sufficient_width("both", *args).value))):
        decoder = initial_decoder_norm(d, m, share).value
        assert decoder <= 2 * m**0.5
        features = initial_features_norm(n, m, lambda_0, lambda_n).value
        residual = initial_error(n, share).value ** 0.5
        sizes = (d, m, lambda_0, lambda_n, residual, decoder, features, dynamics)
        moved = joint_distances(*sizes)[0].value
        change = decoder_gram_perturbation(m, lambda_n, features, moved).value
        margins.append(change / (lambda_0 / 4))
        assert m >= floor
    assert smallest > 1.01 * floor
    np.testing.assert_allclose(margins[0], 1.0, rtol=1e-6)
    assert 0.2 < margins[1] < 1  # ‖A(0)‖ ≤ 2√m is taken there


def test_the_fixed_point_as_printed():
    """δ⁻¹, not δ⁻², and the constant 131072 where R_w ≪ ‖W(0)‖ and d ≪ m."""
    n, d, lambda_0, lambda_n = 20, 4, 0.01, 4.5
    delta = np.array([0.1, 1e-3, 1e-5])
    m = joint_confined_width(n, d, lambda_0, lambda_n, delta, "descent", printed=True).value
    order = n * d * lambda_n**3 / (lambda_0**4 * delta)
    np.testing.assert_allclose(m / order, 131072, rtol=1e-3)
    # The catalog of constants with R_w = ‖W(0)‖, R_a = ‖A(0)‖ is larger, and suffices.
    assert (m <= 294912 * order).all()
    flow = joint_confined_width(n, d, lambda_0, lambda_n, delta, "flow", printed=True).value
    np.testing.assert_allclose(m / flow, 4 * 4 * (4 / 3), rtol=1e-3)


@pytest.mark.parametrize("printed", [False, True])
@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_the_stable_radius_of_both_layers(dynamics, printed):
    m, lambda_0, lambda_n, size = 300, 0.2, np.array([1.0, 3.0]), 12.0
    args = (m, lambda_0, lambda_n, size, dynamics)
    radius = joint_stable_radius(*args, printed=printed).value
    given = 2 * size if printed and dynamics == "descent" else size
    change = decoder_gram_perturbation(m, lambda_n, given, radius, printed=printed).value
    np.testing.assert_allclose(change, lambda_0 / 4, rtol=1e-12)


def test_the_orders_of_the_theorems():
    n, d, lambda_0, lambda_n, delta = SETTINGS[1]
    args = (n, d, lambda_0, lambda_n, delta)
    weak, joint = (required_width(trains, *args).value for trains in ("encoder", "both"))
    np.testing.assert_allclose(weak, n**5 * d**4 * lambda_n / (lambda_0**4 * delta**3))
    np.testing.assert_allclose(joint, n * d * lambda_n**3 / (lambda_0**4 * delta**2))
    np.testing.assert_allclose(joint / weak, width_ratio(n, d, lambda_n, delta).value)
    printed = required_width("encoder", *args, printed=True).value
    np.testing.assert_allclose(printed, weak * delta)
    printed = required_width("both", *args, constant=2.0, printed=True).value
    np.testing.assert_allclose(printed, 2 * n * d / (lambda_0 * delta**2))
    # The proof's own width has δ³, by either form of it.
    residuals = [(2 * n / delta) ** 0.5 for delta in (0.1, 0.01)]
    a, b = (
        confined_width(*args[:4], delta, residual, "flow", printed=True).value
        for delta, residual in zip((0.1, 0.01), residuals, strict=True)
    )
    np.testing.assert_allclose(b / a, 1e3)


def test_step_sizes_are_those_of_the_catalog_and_stable():
    """At n = d = 10, λ_0 = 0.1661, λ_n = 2.885; ‖G^∞‖ ≤ λ_n/2."""
    sizes = (10, 10, 0.1661, 2.885)
    for trains, wanted, constant in (("encoder", 1.44e-4, 4), ("both", 9.0e-5, 64)):
        step = largest_step_size(trains, *sizes).value
        np.testing.assert_allclose(step, wanted, rtol=5e-3)
        largest = 2.885 / 2 + limit_gram_norm(10, 2.885).value
        assert step < 2 * 10 / largest / 100
        scaled = largest_step_size(trains, *sizes, constant=1.0).value
        np.testing.assert_allclose(scaled / step, constant)


def test_table_1():
    n, d, lambda_0, lambda_n, delta = SETTINGS[1]
    rows = table_1(n, d, lambda_0, lambda_n, delta, separation=0.5, constant=3.0)
    value = {(r.regime, r.reference[:2], r.outputs): r.width.value for r in rows}
    assert len(value) == len(rows) == 9
    scale = 3 / lambda_0**4
    expected = {
        ("weak", "Du", "single"): scale * n**6 / delta**3,
        ("weak", "th", "single"): scale * n**5 * lambda_n / delta**3,
        ("weak", "th", "multiple"): scale * n**5 * d**4 * lambda_n / delta**3,
        ("weak", "Oy", "single"): scale * n * lambda_n**3,
        ("joint", "Zo", "single"): 3 * n**8 / 0.5**4,
        ("joint", "Zo", "multiple"): 3 * n**8 * d / 0.5**4,
        ("joint", "th", "single"): scale * n * lambda_n**3 / delta**2,
        ("joint", "th", "multiple"): scale * n * d * lambda_n**3 / delta**2,
    }
    for key, wanted in expected.items():
        np.testing.assert_allclose(value[key], wanted, rtol=1e-12)
    assert all(row.width.constant == 3.0 for row in rows)
    assert len(table_1(n, d, lambda_0, lambda_n, delta)) == 7
    swept = table_1(np.array([10.0, 20.0]), d, lambda_0, lambda_n, delta, separation=0.5)
    assert all(np.shape(row.width.value) == (2,) for row in swept)


def test_du_joint_is_the_largest_fixed_point():
    constant = np.array([1e-16, 1e-15, 1e-14, 1.0, 1e6])
    m = du_joint_width(20, 0.124, 0.1, constant=constant).value
    right = constant * 20**6 * np.log(m / 0.1) / (0.124**4 * 0.1**3)
    some = m > 1
    assert some.tolist() == [False, False, True, True, True]
    np.testing.assert_allclose(m[some], right[some], rtol=1e-12)
    more = m[some] * 1.01  # beyond the largest one the width suffices
    assert (more > constant[some] * 20**6 * np.log(more / 0.1) / (0.124**4 * 0.1**3)).all()
    single = du_joint_width(np.float32(500), np.float32(0.1), np.float32(0.1)).value
    assert single.dtype == "float32"
    np.testing.assert_allclose(single, du_joint_width(500, 0.1, 0.1).value, rtol=1e-5)


def test_whole_numbers_do_not_overflow():
    """λ_n³ is beyond 32 bits."""
    whole, real = (
        [
            required_width("both", 20, 10, 0.1, lambda_n, 0.1).value,
            sufficient_width("both", 20, 10, 0.1, lambda_n, 0.1, "flow").value,
            width_ratio(20, 10, lambda_n, 0.1).value,
            *(row.width.value for row in table_1(20, 10, 0.1, lambda_n, 0.1)),
        ]
        for lambda_n in (np.int32(50_000), 50_000.0)
    )
    assert whole == real


def test_separation_bounds_the_smallest_eigenvalue():
    n, d = 10, 4

    @compiled
    def quantities(x):
        return *jax.value_and_grad(smallest_separation)(x), limit_smallest_eigenvalue(x)

    for seed in range(5):
        x = np.random.default_rng(seed).normal(size=(n, d))
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        pairs = [np.linalg.norm(x[i] - x[j]) for i in range(n) for j in range(i)]
        separation, slopes, smallest = quantities(x)
        np.testing.assert_allclose(separation, min(pairs), rtol=1e-12)
        assert eigenvalue_from_separation(n, separation).value < smallest
        closest = np.linalg.norm(slopes, axis=1)  # the two samples that attain it, no others
        np.testing.assert_allclose(np.sort(closest), [0] * (n - 2) + [1, 1], atol=1e-12)
    with pytest.raises(ValueError, match="expected at least two samples"):
        smallest_separation(jnp.ones((1, 2)))


def test_errors_at_the_door():
    args = SETTINGS[0]
    for width in (required_width, lambda *a: sufficient_width(*a, "flow")):
        with pytest.raises(ValueError, match="no theorem on training the decoder alone"):
            width("decoder", *args)
    with pytest.raises(ValueError, match=r"lambda_0 is 0\.0; expected greater than 0"):
        largest_step_size("both", 3, 2, 0.0, 1.0)
    with pytest.raises(ValueError, match="dynamics is 'adam'"):
        joint_confined_width(*args, "adam")
    with pytest.raises(ValueError, match="searches on the host; call it outside of jit"):
        jax.jit(lambda l: joint_confined_width(3, 2, l, 1.0, 0.1, "flow").value)(0.1)
