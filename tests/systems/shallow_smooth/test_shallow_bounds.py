"""Bounds at initialization: singular values of φ(W_0X), ν_Φ, β_Φ and h(Θ_0), and what they take."""

import functools
import math

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ndtr

from ntkflow.systems.composite.constants import NearIsometry
from ntkflow.systems.shallow_smooth import bounds, network_bounds, setting
from ntkflow.systems.shallow_smooth.exponents import Exponents
from ntkflow.systems.shallow_smooth.initialization import largest_product
from ntkflow.systems.shallow_smooth.network import gelu
from ntkflow.systems.shallow_smooth.setting import DataConstants, Slack
from ntkflow.systems.shallow_smooth.spectra import ActivationConstants, constants

N, D_0, D_1, D_2 = 12, 6, 2000, 3
numbers = functools.cache(functools.partial(constants, terms=41))
IDENTITY = ActivationConstants(1.0, 0.0, np.array([0.0, 1.0, 0.0]), 0.0, Exponents(1.0, 1.0))


@functools.cache
def inputs(dtype="float64"):
    x = np.asarray(helpers.samples(0, N, D_0, dtype=dtype))
    return jnp.asarray(x / np.linalg.norm(x, axis=1)[:, None])


def expected_gram(phi, x):
    """E M_0/d_1 by its series; what is left of it has rows of inputs that are parallel, alone."""
    gram = np.asarray(x @ x.T)
    series = sum(c**2 / math.factorial(i) * gram**i for i, c in enumerate(phi.coefficients))
    np.fill_diagonal(series, phi.coefficients[0] ** 2 + phi.coefficients[1] ** 2 + phi.tail)
    return series


@functools.cache
def initial(seeds=20, omega2=0.01):
    """Singular values of φ(W_0X) and V_0, h(Θ_0) and Lemma 3's constants, of many draws; GELU."""
    x, y = np.asarray(inputs()), np.asarray(helpers.samples(1, N, D_2)) / 10
    generator = np.random.default_rng(0)
    hidden = x @ generator.standard_normal((seeds, D_0, D_1))
    output = omega2 * generator.standard_normal((seeds, D_1, D_2))
    features = hidden * ndtr(hidden)
    singular = np.linalg.svd(features, compute_uv=False)
    norm, slope = np.linalg.norm(output, 2, axis=(1, 2)), numbers(gelu).slope
    near = NearIsometry(
        mu=singular[:, -1],
        nu=slope * np.linalg.norm(x, 2) * norm + singular[:, 0],
        smoothness=2**0.5 * np.linalg.norm(x, 2) * (slope + numbers(gelu).curvature * norm),
    )
    return (singular, norm, np.sum(np.square(features @ output - y), axis=(1, 2)), near), y


def test_numbers_of_data(dtype):
    x, y = inputs(dtype), np.ones((N, D_2), dtype)
    data = setting.data_constants(x, 2, y)
    points = np.asarray(x)
    power = np.linalg.svd(np.einsum("ni,nj->nij", points, points).reshape(N, -1), compute_uv=False)
    eps = float(jnp.finfo(dtype).eps)
    assert data[:2] == (N, D_0)
    assert data.norm == pytest.approx(float(np.linalg.norm(points, 2)), rel=100 * eps)
    assert data.power == pytest.approx(float(power[-1]), rel=1e4 * eps)
    assert data.label_norm == pytest.approx((N * D_2) ** 0.5, rel=10 * eps)
    traced = jax.eval_shape(lambda x, y: setting.data_constants(x, 2, y), x, y)
    assert {traced.norm.dtype, traced.power.dtype, traced.label_norm.dtype} == {np.dtype(dtype)}
    found = []  # numbers of the host also where a trace is under way
    jax.eval_shape(lambda: found.append(setting.data_constants(x, 2, y)))
    assert found == [data]


def test_order_estimates_are_reached_by_data_in_all_directions():
    # Copies of an orthonormal basis: σ_max(X) = √(n/d_0) exactly.
    x = np.tile(np.eye(6), (2, 1))
    found, estimate = setting.data_constants(x, 2), setting.order_estimates(12, 6)
    assert found.norm == pytest.approx(estimate.norm)
    assert found.power == 0  # copies are parallel, which the estimate excludes


@pytest.mark.quick
@pytest.mark.parametrize("omega1", [0.1, 1.0, 5.0])
@pytest.mark.parametrize(("activation", "t"), [(gelu, 2), (jnp.tanh, 3)])
def test_expected_gram_lies_between_the_bounds(activation, t, omega1):
    phi, data = numbers(activation, scale=omega1), setting.data_constants(inputs(), t)
    values = np.linalg.eigvalsh(10 * expected_gram(numbers(activation, scale=omega1), inputs()))
    smallest = bounds.expected_gram_smallest(phi, data, 10).value
    largest = bounds.expected_gram_norm(phi, data, 10).value
    assert 0 < smallest <= values[0]
    assert values[-1] <= largest


def test_bounds_on_the_expected_gram_are_reached():
    # φ = He₂ has one coefficient, and equal inputs have one direction.
    he2 = ActivationConstants(1.0, 2.0, np.array([0.0, 0.0, 2.0]), 2.0, Exponents(2.0, 2.0))
    data = setting.data_constants(inputs(), 2)
    gram = 10 * 2 * np.square(np.asarray(inputs()) @ np.asarray(inputs()).T)
    smallest = bounds.expected_gram_smallest(he2, data, 10).value
    assert smallest == pytest.approx(np.linalg.eigvalsh(gram)[0])
    equal = data._replace(n=5, norm=5**0.5, power=0.0)
    assert bounds.higher_gram_norm(he2, equal).value == pytest.approx(2 * 5)
    phi = numbers(gelu)
    second_moment = float(expected_gram(phi, inputs())[0, 0])
    assert bounds.expected_gram_norm(phi, equal, 10).value == pytest.approx(50 * second_moment)


def test_higher_gram_norm_bounds_the_series():
    phi, data = numbers(gelu), setting.data_constants(inputs(), 2)
    gram = np.asarray(inputs()) @ np.asarray(inputs()).T
    series = sum(phi.coefficients[i] ** 2 / math.factorial(i) * gram**i for i in range(2, 41))
    norm = np.linalg.eigvalsh(series)[-1]
    assert norm <= bounds.higher_gram_norm(phi, data).value
    assert norm >= phi.tail * 0.9  # the diagonal alone, up to the terms left out


def test_printed_power_of_omega_is_false_and_coefficients_of_the_scale_are_right():
    # tanh at ω₁ = 0.1 is linear: n > d_0 leaves a smallest eigenvalue of the order ω₁⁶, not ω₁².
    data, omega1 = setting.data_constants(inputs(), 3), 0.1
    small = numbers(jnp.tanh, scale=omega1)
    smallest = np.linalg.eigvalsh(expected_gram(small, inputs()))[0]
    printed = bounds.expected_gram_smallest(
        numbers(jnp.tanh), data, 1, omega1=omega1, printed=True
    ).value
    right = bounds.expected_gram_smallest(small, data, 1).value
    assert right <= smallest < printed / 100
    assert right >= smallest / 2


def test_printed_power_of_omega_is_false_above_one():
    # r₂ = 0 of tanh: the printed bound does not grow, and E tanh(ω₁z)² does.
    data, large = setting.data_constants(inputs(), 3), numbers(jnp.tanh, scale=5.0)
    largest = np.linalg.eigvalsh(expected_gram(large, inputs()))[-1]
    printed = bounds.expected_gram_norm(numbers(jnp.tanh), data, 1, omega1=5.0, printed=True)
    assert bounds.expected_gram_norm(large, data, 1).value >= largest > printed.value


def test_printed_equals_default_at_omega_one():
    phi, data = numbers(gelu), setting.data_constants(inputs(), 2)  # GELU has no r₂
    for bound in (
        bounds.expected_gram_norm,
        bounds.expected_gram_smallest,
        bounds.feature_smallest_singular_value,
        bounds.feature_largest_singular_value,
    ):
        assert bound(phi, data, 50).value == bound(phi, data, 50, printed=True).value
        assert "as printed" in bound(phi, data, 50, printed=True).source
    with pytest.raises(ValueError, match="The activation has no exponent r2"):
        bounds.expected_gram_norm(phi, data, 50, omega1=0.5, printed=True)


def test_random_features_keep_within_the_bounds():
    (singular, output, loss, near), y = initial()
    phi, data = numbers(gelu), setting.data_constants(inputs(), 2, y)
    least = bounds.feature_smallest_singular_value(phi, data, D_1).value
    most = bounds.feature_largest_singular_value(phi, data, D_1).value
    assert least > 0
    assert np.all(singular[:, -1] >= least)
    assert np.all(singular[:, 0] <= most)
    assert np.all(singular[:, 0] >= most / 3)  # of the right order
    assert np.all(output <= network_bounds.initial_output_norm(D_1, D_2, 0.01).value)
    assert np.all(loss <= network_bounds.initial_loss(phi, data, D_1, D_2, 1.0, 0.01).value)
    whole = network_bounds.near_isometry_bound(
        phi, data, D_1, D_2, 0.01, largest_output_norm=float(output.max())
    )
    assert np.all(whole.mu <= near.mu)
    assert np.all(near.nu <= whole.nu)
    assert np.all(near.smoothness <= whole.smoothness * (1 + 1e-12))


def test_printed_bound_on_the_output_layer_is_too_small():
    (_, output, _, _), _ = initial()
    assert np.all(output > 0.01 * D_1**0.5)  # what (76) has for σ_max(V_0)
    phi, data = numbers(gelu), setting.data_constants(inputs(), 2)
    args = (phi, data, D_1, D_2, 0.01)
    right = network_bounds.tangent_largest_singular_value(*args).value
    printed = network_bounds.tangent_largest_singular_value(*args, printed=True).value
    difference = 0.01 * phi.slope * data.norm * (D_1**0.5 + D_2**0.5)
    assert right - printed == pytest.approx(difference)


def test_initial_loss_is_reached_where_the_printed_one_is_exceeded():
    # φ(z) = z, one input: w_i = R, |w_i v_i| within (60), and V_0φ(W_0x) = u against −y.
    d_1, omega1, omega2, slack = 50, 0.3, 0.2, Slack(delta_3=1.0)
    data = DataConstants(n=1, d_0=1, norm=1.0, power=1.0, t=1, label_norm=0.7)
    value = network_bounds.initial_loss(IDENTITY, data, d_1, 1, omega1, omega2, slack=slack).value
    u = value**0.5 - 0.7
    w = slack.k_1 * omega1 * math.log(d_1) ** 0.5
    v = u / (d_1 * w)
    assert v <= slack.k_2 * omega2 * math.log(d_1) ** 0.5
    loss = (d_1 * v * w + 0.7) ** 2
    assert loss == pytest.approx(value)
    printed = network_bounds.initial_loss(
        IDENTITY, data, d_1, 1, omega1, omega2, slack=slack, printed=True
    ).value
    assert loss > printed == pytest.approx(u**2 + 0.49)


def test_initial_loss_of_small_scales_is_that_of_their_product():
    data, phi, d_1, d_2 = setting.data_constants(inputs(), 2), numbers(gelu), 300, 9
    product = largest_product(D_0, d_1, phi.slope).value
    general = network_bounds.initial_loss(phi, data, d_1, d_2, 1.0, product).value
    special = network_bounds.initial_loss_of_small_scales(data, d_2).value
    assert special == pytest.approx(general)
    printed = network_bounds.initial_loss_of_small_scales(data, d_2, printed=True).value
    assert printed == pytest.approx((special**0.5 - 1) ** 2 / d_2)  # without d_2 and ‖Y‖


def test_trajectory_output_norm_adds_the_length():
    near = NearIsometry(0.5, 2.0, 1.0)
    bound = network_bounds.trajectory_output_norm(near, 0.04, 3.0)
    assert bound.value == pytest.approx(3 + 12 * 2**0.5 * 2 * 0.2 / (2**0.5 * 0.25))
    assert bound.constant == pytest.approx(12 * 2**0.5)


def test_near_isometry_bound_takes_the_loss_or_the_norm():
    phi, data = numbers(gelu), setting.data_constants(inputs(), 2)
    near = network_bounds.near_isometry_bound(phi, data, 100, 2, 0.1, initial_loss=0.01)
    chi = network_bounds.trajectory_output_norm(
        near, 0.01, network_bounds.initial_output_norm(100, 2, 0.1).value
    ).value
    assert near.smoothness == pytest.approx(2**0.5 * data.norm * (phi.slope + phi.curvature * chi))
    with pytest.raises(ValueError, match="expected one, and got neither"):
        network_bounds.near_isometry_bound(phi, data, 100, 2, 0.1)
    with pytest.raises(ValueError, match="got both"):
        network_bounds.near_isometry_bound(
            phi, data, 100, 2, 0.1, initial_loss=0.1, largest_output_norm=1.0
        )
    assert network_bounds.smoothness(IDENTITY, data, math.inf).value == 2**0.5 * data.norm


def test_widths_may_be_traced_and_mapped():
    phi, data = numbers(gelu), setting.data_constants(inputs(), 2)
    widths = jnp.array([10.0, 100.0])

    def all_of(d_1):
        return (
            bounds.feature_smallest_singular_value(phi, data, d_1).value,
            network_bounds.tangent_largest_singular_value(phi, data, d_1, 2, 0.1).value,
            network_bounds.initial_loss(phi, data, d_1, 2, 1.0, 0.1).value,
        )

    mapped = helpers.compiled(jax.vmap(all_of))(widths)
    for column, direct in zip(mapped, all_of(np.array([10.0, 100.0])), strict=True):
        helpers.assert_close(column, direct)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda phi, data: bounds.expected_gram_smallest(phi, data._replace(t=3), 9), "c_3 of the"),
        (lambda phi, data: bounds.expected_gram_smallest(phi, data._replace(t=41), 9), "terms=42"),
        (lambda phi, data: bounds.expected_gram_smallest(phi, data._replace(t=0), 9), "t is 0"),
        (lambda phi, data: bounds.expected_gram_norm(phi, data, 0), "d_1 is 0"),
        (lambda phi, data: bounds.expected_gram_norm(phi, data, 9, omega1=0.0), "omega1 is 0.0"),
        (lambda phi, data: network_bounds.initial_output_norm(9, 1, -1.0), "omega2 is -1.0"),
        (lambda phi, data: setting.check_data((1, 2)), "data is of type tuple"),
        (lambda phi, data: bounds.expected_gram_norm(gelu, data, 9), "phi is of type function"),
        (lambda phi, data: bounds.expected_gram_smallest(phi._asdict(), data, 9), "phi is of type"),
        (lambda phi, data: setting.has_mean(gelu), "expected ActivationConstants"),
        (
            lambda phi, data: bounds.feature_smallest_singular_value(
                phi, data, 9, slack=Slack(delta_1=1.0)
            ),
            r"delta_1 is 1.0; expected a number in \(0, 1\)",
        ),
        (
            lambda phi, data: network_bounds.initial_loss(
                phi, data, 9, 1, 1.0, 1.0, slack=Slack(k_2=0.0)
            ),
            "k_2 is 0.0; expected a finite number greater than 0",
        ),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call(numbers(gelu), setting.data_constants(inputs(), 2))
