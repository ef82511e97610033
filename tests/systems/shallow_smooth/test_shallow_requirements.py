"""The width of Theorem 3: orders, the formula with ξ, and the smallest width for given data."""

import functools
import math

import helpers
import jax.numpy as jnp
import numpy as np
import pytest

from ntkflow.systems.composite.bounds import largest_initial_loss
from ntkflow.systems.composite.constants import NearIsometry
from ntkflow.systems.shallow_smooth import bounds, network_bounds, requirements, setting
from ntkflow.systems.shallow_smooth.initialization import Scales, he
from ntkflow.systems.shallow_smooth.network import gelu
from ntkflow.systems.shallow_smooth.requirements import (
    relaxed_width,
    required_width,
    requirement,
    smallest_integer,
    smallest_width,
    width_factor,
    width_order,
)
from ntkflow.systems.shallow_smooth.setting import Slack
from ntkflow.systems.shallow_smooth.spectra import constants
from ntkflow.systems.shallow_smooth.table import table_1

numbers = functools.cache(constants)
DATA = setting.DataConstants(n=8, d_0=4, norm=1.5, power=0.6, t=2, label_norm=0.5)


def slope(y, x):
    return np.diff(np.log(y)) / np.diff(np.log(x))


@pytest.mark.quick
def test_threshold_curves_have_the_slopes_of_the_paper():
    n, d_0 = np.array([1e2, 1e3, 1e4]), np.array([10.0, 20.0, 50.0])
    phi = numbers(gelu)
    for width, power in (
        (lambda n, d_0: width_order(n, d_0), 3 / 2),
        (lambda n, d_0: width_order(n, d_0, relaxed=True), 5 / 3),
        (lambda n, d_0: required_width(phi, setting.order_estimates(n, d_0)), 3 / 2),
        (lambda n, d_0: relaxed_width(setting.order_estimates(n, d_0)), 5 / 3),
    ):
        np.testing.assert_allclose(slope(width(n, 10.0).value, n), power, rtol=1e-12)
        np.testing.assert_allclose(slope(width(1e4, d_0).value, d_0), -1, rtol=1e-12)
    # parameters, and linear width for d_0 = √n
    squares = np.array([1e2, 1e4, 1e6])
    np.testing.assert_allclose(width_order(squares, squares**0.5).value, squares)
    xi = width_factor(phi, 2).value
    curve = required_width(phi, setting.order_estimates(n, 10.0), constant=1.0)
    np.testing.assert_allclose(curve.value, xi * width_order(n, 10.0).value)


@pytest.mark.parametrize("d_2", [1, 5])
def test_required_width_solves_the_condition_on_the_initial_loss(d_2):
    # (9) with h of (75), μ of (67), and ν = |c_0| √((1 + δ₂) d_1n): both sides are equal at d_1.
    phi, slack, chi = numbers(gelu), Slack(delta_3=2.0, k_1=1.5), 3.0
    args = {"d_2": d_2, "largest_output_norm": chi, "slack": slack}
    d_1 = required_width(phi, DATA, **args).value
    labels = DATA._replace(label_norm=0.0)
    h = network_bounds.initial_loss_of_small_scales(labels, d_2, slack=slack).value
    near = NearIsometry(
        mu=bounds.feature_smallest_singular_value(phi, DATA, math.ceil(d_1), slack=slack).value,
        nu=phi.coefficients[0] * (1.5 * d_1 * 8) ** 0.5,
        smoothness=network_bounds.smoothness(phi, DATA, chi).value,
    )
    allowed = largest_initial_loss(near, network_bounds.SQUARED_SUM, "descent").value
    assert h == pytest.approx(allowed, rel=1e-5)  # the width is a whole number in one of them


def test_printed_width_factor():
    phi = numbers(gelu)._replace(exponents=numbers(jnp.tanh).exponents)
    slack = Slack(k_1=1.0, k_2=3.0)
    printed = width_factor(phi, 2, d_2=7, omega1=0.5, slack=slack, printed=True).value
    right = width_factor(phi, 2, slack=slack).value
    assert printed == pytest.approx(right * 9 / 3 * 0.5**-3)  # δ₄² for k₁k₂, ω₁^{−3r₁+r₂}, no d_2
    assert width_factor(phi, 2, d_2=7, slack=slack).value == pytest.approx(right * 7**0.5)
    # Assumption 2 with its constant 1: φ''_max χ = φ'_max
    chi = phi.slope / phi.curvature
    same = width_factor(phi, 2, largest_output_norm=chi, slack=slack).value
    assert same == pytest.approx(right)


def test_relaxed_width_is_the_width_with_the_output_norm_of_the_path():
    # χ ≃ √n σ_max/(√d_1 σ_min²) in (77), all constants 1: d_1² = χ² σ_max⁴ n / σ_min⁶.
    d_1 = relaxed_width(DATA).value
    chi = 8**0.5 * 1.5 / (d_1**0.5 * 0.6**2)
    assert d_1**2 == pytest.approx(chi**2 * 1.5**4 * 8 / 0.6**6)


def test_requirement_gathers_the_bounds():
    phi, scales = numbers(gelu), Scales(1.0, 0.01)
    found = requirement(phi, DATA, 500, scales, d_2=2)
    assert found.initial_loss == network_bounds.initial_loss(phi, DATA, 500, 2, *scales).value
    near = network_bounds.near_isometry_bound(
        phi, DATA, 500, 2, 0.01, initial_loss=found.initial_loss
    )
    assert found.near == near
    flow = requirement(phi, DATA, 500, scales, d_2=2, constant=1 / 288)
    assert flow.largest_initial_loss == pytest.approx(4 * found.largest_initial_loss)
    assumed = requirement(phi, DATA, 500, scales, d_2=2, largest_output_norm=1.0)
    assert assumed.near.smoothness < found.near.smoothness
    assert not found.holds
    assert 0 <= found.failure <= 1


def test_smallest_width_is_where_the_requirement_starts_to_hold():
    scales = lambda width: he(4, width)  # noqa: E731
    width = smallest_width(gelu, DATA, scales)
    phi = numbers(gelu, scale=2**-0.5)
    assert requirement(phi, DATA, width, he(4, width)).holds
    assert not requirement(phi, DATA, width - 1, he(4, width - 1)).holds
    assert smallest_width(gelu, DATA, scales, largest_output_norm=1.0) < width
    assert smallest_width(gelu, DATA, scales, constant=1 / 288) < width
    sure = smallest_width(gelu, DATA, scales, failure=0.05)
    assert sure >= width
    assert requirement(phi, DATA, sure, he(4, sure)).failure <= 0.05
    # more samples of a larger σ_max(X) ask for more, an odd activation is none the less covered
    assert smallest_width(gelu, DATA._replace(n=16, norm=2.0), scales) > width
    assert smallest_width(jnp.tanh, DATA._replace(t=1), scales) > 10


def test_smallest_integer():
    for answer in (3, 4, 5, 6, 7, 8, 100, 127, 128, 129):
        asked = []
        found = smallest_integer(lambda k, a=answer: asked.append(k) or k >= a, start=3)
        assert found == answer
        assert len(asked) <= 2 * math.log2(answer) + 3
    with pytest.raises(ValueError, match="No number up to 100 suffices"):
        smallest_integer(lambda k: False, largest=100)


def test_table_has_the_six_rows_of_the_paper():
    rows = table_1(np.array([10.0, 100.0]), depth=3)
    assert [row.depth for row in rows] == ["2", "L", "2", "2", "L", "2"]
    exponents = [float(np.log10(row.scaling.value[1] / row.scaling.value[0])) for row in rows]
    np.testing.assert_allclose(exponents, [2, 1, 2, 6, 8, 1.5])
    assert rows[4].scaling.value[0] == pytest.approx(10.0**8 * 3**12)
    others = [row.scaling.value[1] for row in rows if row.algorithm == "GD"]
    assert min(others) == rows[-1].scaling.value[1]  # the claim: least of those that train all
    assert table_1(10, constant=2.0)[0].scaling.value == 200
    with pytest.raises(ValueError, match="n is 0"):
        table_1(0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: width_factor(numbers(jnp.tanh), 3), "c_0 of the activation is .*no odd one"),
        (lambda: width_factor(numbers(gelu), 3), "c_3 of the activation is 0.*one of .1, 2, 4"),
        (lambda: width_factor(numbers(gelu), 2, omega1=0.5, printed=True), "no exponent r"),
        (lambda: smallest_width(gelu, DATA._replace(power=0.0), lambda w: he(4, w)), "is 0 for t"),
        (lambda: smallest_width(gelu, DATA, he(4, 5)), "scales is of type Scales"),
        (lambda: smallest_width(gelu, DATA, lambda w: (0.0, 1.0)), "expected"),
        (lambda: smallest_width(gelu, DATA, lambda w: he(4, w), failure=0.01), "p_5 = 0.0222"),
        (lambda: width_factor(gelu, 2), "phi is of type function"),
        (lambda: width_order(n=10.5, d_0=3), "n is 10.5"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_widths_are_infinite_where_powers_are_dependent():
    data = DATA._replace(power=0.0)
    assert required_width(numbers(gelu), data).value == np.inf
    assert relaxed_width(data).value == np.inf
    helpers.assert_close(requirements.WIDTH_CONSTANT**2, 1152.0)
