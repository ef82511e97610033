"""The splines of Lemma 7.4: boundary conditions, the drop ν, and which of its bounds hold."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled

from ntkflow.systems.saddles import splines
from ntkflow.systems.saddles.splines import Constants

OFFSETS = {
    1.0: 61.575467491,
    1.5: 84.358390463,
    2.0: 107.141313434,
    math.e: 139.870432574,
    3.0: 152.707159378,
}


@pytest.mark.quick
def test_the_offset_and_the_coefficients_are_those_of_the_thesis():
    for smoothness, nu in OFFSETS.items():
        constants = Constants(smoothness)
        assert abs(splines.offset(constants) - nu) < 1e-9
        end = splines.g_1(2 * constants.tau, constants)
        assert_close(4 * smoothness * constants.tau**2 - end, np.asarray(splines.offset(constants)))
    expected = (-5.436563657, -2.0, -10.321205588, 2.866782712)
    np.testing.assert_allclose(splines.hermite_cubic(), expected, rtol=0, atol=1e-9)
    assert abs(float(splines.g_1(2 * math.e)) + 59.528284881) < 1e-9
    whole = splines.hermite_cubic(Constants(2, 1, 1))
    assert whole == (-2, -2, -18, 14)
    assert {type(c) for c in whole} == {float}


FUNCTIONS = [
    getattr(splines, f"g_{i}{kind}") for i in (1, 2) for kind in ("", "_slope", "_curvature")
]
of_all = compiled(lambda x, constants: [function(x, constants) for function in FUNCTIONS])


@pytest.mark.parametrize("constants", [Constants(), Constants(3.0, 0.5, 4.0), Constants(1, 1, 1)])
def test_both_ends_meet_the_quadratics(constants, dtype):
    smoothness, curvature, tau = constants
    scale = smoothness * max(tau, 1) ** 2 * 20
    results = of_all(np.array([tau, 2 * tau], dtype), Constants(*map(float, constants)))
    ends = {
        splines.g_1: (-curvature * tau**2, 4 * smoothness * tau**2 - splines.offset(constants)),
        splines.g_1_slope: (-2 * curvature * tau, -4 * smoothness * tau),
        splines.g_1_curvature: (-2 * curvature, 2 * smoothness),
        splines.g_2: (smoothness, -curvature),
        splines.g_2_slope: (0, 0),
        splines.g_2_curvature: (0, 0),
    }
    assert list(ends) == FUNCTIONS
    for result, values in zip(results, ends.values(), strict=True):
        assert result.dtype == dtype
        assert_close(result, np.array(values, dtype), scale=scale)


def test_slopes_and_curvatures_are_derivatives_and_the_cubic_of_theorem_7_4(dtype):
    constants = Constants(2.0, 0.5, 1.5)
    x = jnp.linspace(1.5, 3.0, 33, dtype=dtype)
    pairs = (
        (splines.g_1, splines.g_1_slope),
        (splines.g_1_slope, splines.g_1_curvature),
        (splines.g_2, splines.g_2_slope),
        (splines.g_2_slope, splines.g_2_curvature),
    )

    def both(f, slope):
        return jax.jvp(lambda y: f(y, constants), (x,), (x**0,))[1], slope(x, constants)

    for derivative, by_hand in compiled(lambda: [both(*pair) for pair in pairs])():
        assert_close(derivative, by_hand, scale=100)
    y = np.asarray(x)
    cubic = sum(c * (y - 1.5) ** k for k, c in enumerate(splines.hermite_cubic(constants)))
    assert_close(splines.g_1_slope(x, constants), cubic)
    # As the lemma prints g_2, around 2τ.
    s = (y - 3.0) / 1.5
    printed = -0.5 - 2.5 * (10 * s**3 + 15 * s**4 + 6 * s**5)
    assert_close(splines.g_2(x, constants), printed, scale=20)


@pytest.mark.parametrize("smoothness", OFFSETS)
def test_the_upper_bound_of_lemma_7_4_holds_and_the_lower_one_does_not(smoothness):
    constants = Constants(smoothness)
    tau = constants.tau
    x, after = np.linspace(tau, 2 * tau, 1001), np.linspace(0, tau, 41)
    _, own, _, g_2, change, _ = (np.asarray(part)[:, None] for part in of_all(x, constants))
    slope = own + change * after**2  # ∂g/∂x_i
    largest, least = splines.largest_slope(constants).value, splines.least_slope(constants).value
    printed = splines.least_slope(constants, printed=True).value
    assert np.all(slope <= largest + 1e-12)
    assert slope.max() == pytest.approx(largest, rel=1e-12)
    assert own.min() < printed  # of g_1 alone already
    assert np.all(slope >= least - 1e-12)
    assert slope.min() == pytest.approx(float(least), rel=1e-5)
    # ∂g/∂x_{i+1} = 2 g_2 x_{i+1} ≥ −2γ x_{i+1}, and g_2 falls.
    assert np.all(g_2 >= -1 - 1e-12)
    assert np.all(change <= 0)
    np.testing.assert_allclose(
        [own.min(), slope.min()],
        {1.0: (-11.24, -19.90), math.e: (-30.15, -41.23)}.get(smoothness, [own.min(), slope.min()]),
        atol=0.01,
    )


def test_constants_may_be_traced():
    constants = Constants(*(jnp.array([a, b]) for a, b in ((2.0, 3.0), (1.0, 0.5), (1.0, 4.0))))
    single = [Constants(2.0, 1.0, 1.0), Constants(3.0, 0.5, 4.0)]
    both = lambda c: (splines.offset(c), splines.least_slope(c).value)  # noqa: E731
    values = compiled(jax.vmap(both))(constants)
    for i, one in enumerate(single):
        assert_close(values[0][i], np.asarray(splines.offset(one)))
        assert_close(values[1][i], splines.least_slope(one).value)


def test_constants_are_checked_at_the_door():
    with pytest.raises(ValueError, match=r"L is 0.5 and curvature γ is 1.0; expected L ≥ γ"):
        splines.g_1(jnp.ones(3), Constants(0.5))
    with pytest.raises(ValueError, match=r"tau is 0\.0; expected a finite number greater than 0"):
        splines.offset(Constants(tau=0.0))
    with pytest.raises(ValueError, match=r"curvature is -1\.0"):
        splines.g_2(jnp.ones(3), Constants(curvature=-1.0))
    with pytest.raises(ValueError, match="constants is of type float"):
        splines.offset(2.0)
    with pytest.raises(ValueError, match=r"smoothness has shape \(2,\); expected one number"):
        splines.g_2(jnp.ones(2), Constants(jnp.ones(2)))
    with pytest.raises(ValueError, match="x holds NaN"):
        splines.g_2(jnp.array([jnp.nan]))
