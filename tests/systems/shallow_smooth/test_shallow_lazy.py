"""The lazy bound along a family of one product, its limits, and the gap that networks have."""

import functools
import math

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkflow.systems.composite.lazy import lazy_gap
from ntkflow.systems.shallow_smooth import network_bounds, setting
from ntkflow.systems.shallow_smooth.gram import gram
from ntkflow.systems.shallow_smooth.initialization import Scales, fixed_product
from ntkflow.systems.shallow_smooth.lazy_bounds import (
    lazy_bound,
    lazy_bound_large_hidden,
    lazy_bound_large_outputs,
)
from ntkflow.systems.shallow_smooth.network import gelu, predict
from ntkflow.systems.shallow_smooth.setting import DataConstants, Slack
from ntkflow.systems.shallow_smooth.spectra import constants
from ntkflow.training.losses import squared_loss

numbers = functools.cache(constants)
DATA = DataConstants(n=20, d_0=10, norm=2.0, power=0.5, t=2)
ODD = DATA._replace(t=1)
PRODUCT = 0.02


def bound(activation, omega2, data=DATA, **options):
    scales = fixed_product(PRODUCT, float(omega2))
    return float(
        lazy_bound(numbers(activation, scale=scales.omega1), data, 100, scales, **options).value
    )


def test_bound_grows_along_the_family():
    values = [bound(gelu, omega2) for omega2 in np.geomspace(1e-3, 10, 9)]
    assert np.all(np.diff(values) > 0)
    assert values[0] < 1e-3 < 1e3 < values[-1]


def test_bound_is_the_ratio_of_the_constants():
    phi, scales = numbers(gelu, scale=0.5), Scales(0.5, 0.04)
    near = network_bounds.near_isometry_bound(phi, DATA, 100, 2, 0.04, initial_loss=0.3)
    found = lazy_bound(phi, DATA, 100, scales, d_2=2, initial_loss=0.3, constant=2.0)
    assert found.value == pytest.approx(2 * 0.3**0.5 * near.smoothness / near.nu**2)
    given = lazy_bound(phi, DATA, 100, scales, largest_output_norm=1.0).value
    beta = network_bounds.smoothness(phi, DATA, 1.0).value
    nu = network_bounds.tangent_largest_singular_value(phi, DATA, 100, 1, 0.04).value
    assert given == pytest.approx(beta / nu**2)


def test_printed_bound_is_the_display_of_the_paper():
    phi = numbers(jnp.tanh)._replace(coefficients=np.array([0.3, 0.6, 0.1]))
    omega1, omega2, d_1 = 0.4, 0.05, 100
    chi = (omega2 * 2 + 0.3 * 20**0.5) * 2 / (omega1**2 * 10 * 0.25) + omega2 * 10
    top = 2**0.5 * 2 * (1 + phi.curvature * chi)
    bottom = (omega2 * 2 * 10 + 0.3 * (1.5 * d_1 * 20) ** 0.5) ** 2
    found = lazy_bound(phi, DATA, d_1, Scales(omega1, omega2), printed=True)
    assert found.value == pytest.approx(top / bottom)
    assert "as printed" in found.source


@pytest.mark.parametrize("norm", [1.0, 3.0])
def test_limit_of_large_outputs_has_the_third_power_of_the_norm(norm):
    phi, data = numbers(jnp.tanh), ODD._replace(norm=norm)  # r₁ = 1, r₂ = 0, c_0 = 0

    def ratio(omega2, printed):
        scales = fixed_product(PRODUCT, omega2)
        full = lazy_bound(phi, data, 100, scales, printed=True).value
        return full / lazy_bound_large_outputs(phi, data, 100, scales, printed=printed).value

    assert ratio(1e3, printed=False) == pytest.approx(1, rel=1e-3)
    # the printed display, rid of its other constants: P d_0 d_1 in place of 1, √2 φ''_max
    rest = math.sqrt(2) * phi.curvature / (PRODUCT**2 * 10 * 100)
    assert ratio(1e3, printed=True) / rest == pytest.approx(norm, rel=1e-3)


def test_bound_grows_like_omega2_for_a_slope_at_zero():
    values = [bound(jnp.tanh, omega2, ODD, printed=True) for omega2 in (1e2, 1e3)]
    assert values[1] / values[0] == pytest.approx(10, rel=1e-2)  # 2r₁ − 1 = 1
    assert bound(jnp.tanh, 1e3, ODD) > 5 * bound(jnp.tanh, 1e2, ODD)


def test_limit_of_large_hidden_weights():
    ratios = []
    for omega1 in (1e4, 1e5):
        scales = fixed_product(PRODUCT, PRODUCT / omega1)
        phi = numbers(gelu, scale=omega1)
        limit = float(lazy_bound_large_hidden(phi, DATA, 100, scales).value)
        ratios.append(bound(gelu, PRODUCT / omega1) / limit)
        # c_0 → ω₁/√(2π), that of a rectifier
        assert phi.coefficients[0] == pytest.approx(omega1 / math.sqrt(2 * math.pi), rel=1e-3)
        assert limit == pytest.approx(
            math.sqrt(2) * 2 * phi.slope * 2 * math.pi / (omega1**2 * 100 * 20), rel=1e-2
        )
    assert ratios[1] == pytest.approx(ratios[0], rel=0.05)  # of the same order, ω₁^{−2}
    assert 0 < ratios[1] < 1


def test_limit_of_large_hidden_weights_says_nothing_of_tanh():
    scales = Scales(1e3, PRODUCT / 1e3)
    assert lazy_bound_large_hidden(numbers(jnp.tanh), ODD, 100, scales).value == np.inf
    assert (
        lazy_bound_large_hidden(numbers(jnp.tanh), ODD, 100, scales, printed=True).value == np.inf
    )
    # also as float32 finds c_0, and for many ω₁ at once, traced or not
    rounded = numbers(jnp.tanh)
    rounded = rounded._replace(coefficients=rounded.coefficients.astype("float32") + 3e-8)

    def family(omega1):
        scales = Scales(omega1, PRODUCT / omega1)
        return lazy_bound_large_hidden(rounded, ODD, 100, scales, printed=True).value

    omegas = np.array([10.0, 100.0])
    assert np.all(family(omegas) == np.inf)
    assert np.all(jax.vmap(family)(jnp.asarray(omegas)) == np.inf)
    even = numbers(jnp.tanh)._replace(coefficients=np.array([0.5, 0.6, 0.1]))
    values = lazy_bound_large_hidden(even, ODD, 100, Scales(omegas, 0 * omegas + 0.1), printed=True)
    assert values.value[0] == pytest.approx(values.value[1])  # r₂ = 0
    # its features are bounded, and the bound with them: no limit 0
    tails = [bound(jnp.tanh, omega2, ODD) for omega2 in (1e-4, 1e-5)]
    assert tails[1] == pytest.approx(tails[0], rel=0.1)
    assert tails[1] > 1e-4


@pytest.mark.quick
def test_measured_gap_follows_the_ratio_of_the_deviations():
    # More samples than inputs, so that no linear function fits, and 1000 steps of 1/(4 λ_max).
    n, d_0, d_1 = 8, 4, 64
    x = helpers.samples(0, n, d_0)
    x = x / jnp.linalg.norm(x, axis=1)[:, None]
    y = jnp.sign(helpers.samples(1, n, 1)) / n**0.5
    hidden, output = helpers.samples(2, d_0, d_1), helpers.samples(3, d_1, 1)
    product = 2 / (d_0 * d_1) ** 0.5
    apply = functools.partial(predict, activation=gelu)
    total = functools.partial(squared_loss, reduction="sum")

    @helpers.compiled
    @jax.vmap
    def relative_gap(omega2):
        params = {"hidden": product / omega2 * hidden, "output": omega2 * output}
        variables = {"params": params}
        largest = jnp.linalg.norm(gram(variables, x, activation=gelu)[:, :, 0, 0], 2)
        run = lazy_gap(apply, total, 0.25 / largest, 1000, every=100)(variables, (x, y))
        return jnp.max(run.gap) / run.loss[0], run.loss

    omegas = jnp.array([0.03, 0.25, 2.5])
    gaps, losses = relative_gap(omegas)
    assert np.all(losses[:, -1] < 0.02 * losses[:, 0])
    assert gaps[0] < gaps[1] < gaps[2]
    assert gaps[0] < gaps[2] / 1000  # 9e-8 and 3e-3
    data, estimates = setting.data_constants(x, 2, y), []
    for omega2 in np.asarray(omegas):
        scales = fixed_product(product, float(omega2))
        phi = numbers(gelu, scale=scales.omega1)
        estimates.append(float(lazy_bound(phi, data, d_1, scales).value))
    assert estimates[0] < estimates[1] < estimates[2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lazy_bound(numbers(gelu), DATA, 100, Scales(0.0, 1.0)), "omega1 is 0.0"),
        (lambda: lazy_bound(numbers(gelu), DATA, 100, Scales(1.0, -1.0)), "omega2 is -1.0"),
        (
            lambda: lazy_bound(numbers(gelu), DATA, 100, Scales(0.5, 1.0), printed=True),
            "no exponent r2",
        ),
        (lambda: lazy_bound(numbers(jnp.tanh), DATA, 100, Scales(1.0, 1.0)), "c_2 of the"),
        (
            lambda: lazy_bound(numbers(gelu), DATA, 9, Scales(1.0, 1.0), slack=Slack(delta_2=0.0)),
            "delta_2 is 0.0",
        ),
        (
            lambda: lazy_bound_large_hidden(numbers(gelu), DATA, 0, Scales(1.0, 1.0)),
            "d_1 is 0",
        ),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
