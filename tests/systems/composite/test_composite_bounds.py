"""The general theorems' quantities: units, constants derived anew, tight and extreme cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkflow.systems.composite import (
    LossConstants,
    NearIsometry,
    ball_radius,
    bounds,
    descent_length,
    descent_rate,
    flow_length,
    flow_rate,
    gradient_bound,
    largest_initial_loss,
    largest_step_size,
    output_change,
    singular_values_in_ball,
    step_decrease,
)

NEAR, LOSS = NearIsometry(0.3, 1.7, 2.3), LossConstants(1.5, 2.5)
LENGTH = {"flow": flow_length, "descent": descent_length}


@pytest.mark.quick
@pytest.mark.parametrize("sharpened", [False, True])
@pytest.mark.parametrize("dynamics", ["flow", "descent"])
def test_the_condition_is_where_the_path_just_reaches_the_sphere(dynamics, sharpened):
    """The constants 1/288 and 1/1152 of (9), from those of the lengths."""
    limit = largest_initial_loss(NEAR, LOSS, dynamics, sharpened=sharpened)
    length = LENGTH[dynamics](NEAR, LOSS, limit.value, sharpened=sharpened)
    np.testing.assert_allclose(length.value, ball_radius(NEAR).value, rtol=1e-12)
    assert (
        round(1 / limit.constant)
        == {
            ("flow", False): 288,
            ("descent", False): 1152,
            ("flow", True): 32,
            ("descent", True): 128,
        }[dynamics, sharpened]
    )


def test_the_sharpened_condition_lacks_the_condition_number():
    plain = largest_initial_loss(NEAR, LOSS, "flow").value
    sharp = largest_initial_loss(NEAR, LOSS, "flow", sharpened=True).value
    np.testing.assert_allclose(sharp / plain, 9 * (NEAR.nu / NEAR.mu) ** 2)


@pytest.mark.parametrize("mu", [0.01, 0.16228, 0.5, 1.0])
def test_step_sizes_leave_half_of_the_descent(mu):
    """At the largest η, 1 − η β ‖∇f‖/2 − 9 η β_f ν²/8 ≥ ½ with ‖∇f‖ as large as (34) allows."""
    near, loss, start = NearIsometry(mu, 1.0, 2.0), LossConstants(2.0, 2.0), 0.0
    steepest = gradient_bound(near, loss, start).value
    eta = largest_step_size(near, loss, start).value
    decrease = step_decrease(near, loss, eta, 1.0, steepest).value
    np.testing.assert_allclose(decrease, eta / 2, rtol=1e-12)
    # (13) as printed, with the constant that suffices: exact where μ/ν = √10 − 3 = 0.16228.
    constant = bounds.PRINTED_STEP_CONSTANT
    printed = largest_step_size(near, loss, start, printed=True, constant=constant).value
    assert printed <= eta * (1 + 1e-9)
    assert (printed > 0.99999 * eta) == (mu == 0.16228)
    # With the printed constant 1 that half is lost, for every μ/ν.
    eta = largest_step_size(near, loss, start, printed=True).value
    assert step_decrease(near, loss, eta, 1.0, steepest).value < 0.49 * eta


def test_with_constant_one_the_length_is_no_bound():
    """Φ(w) = w, f(z) = z²: the flow from 3 to 0 has length 3 (Lemma 2 is stated up to O)."""
    near, loss = NearIsometry(1.0, 1.0, 0.0), LossConstants(2.0, 2.0)
    assert flow_length(near, loss, 9.0, constant=1.0).value < 3
    assert flow_length(near, loss, 9.0, sharpened=True).value > 3


def test_the_flow_s_rate_is_the_limit_of_twice_that_of_descent():
    """C = ¼ at the largest step, ½ as η → 0: descent keeps half of the decrease."""
    t, eta = 3.0, 1e-6
    rate = descent_rate(NEAR, LOSS, eta, t / eta, constant=0.5).value
    np.testing.assert_allclose(rate, flow_rate(NEAR, LOSS, t).value, rtol=1e-6)


def test_units():
    lower, upper = singular_values_in_ball(NEAR)
    assert (lower.value, upper.value) == pytest.approx((0.15, 2.55))
    assert output_change(NEAR, 2.0).value == pytest.approx(5.1)
    assert gradient_bound(NEAR, LOSS, 1.0).value == pytest.approx(
        1 + 1.5 * LOSS.smoothness * NEAR.nu * ball_radius(NEAR).value
    )
    assert "derived" in flow_length(NEAR, LOSS, 1.0).source
    assert "printed" in largest_step_size(NEAR, LOSS, 1.0, printed=True).source


def test_a_linear_network_and_a_singular_one():
    linear, singular = NearIsometry(1.0, 2.0, 0.0), NearIsometry(0.0, 2.0, 1.0)
    assert ball_radius(linear).value == np.inf
    assert largest_initial_loss(linear, LOSS, "descent").value == np.inf
    assert ball_radius(singular).value == 0
    assert largest_initial_loss(singular, LOSS, "flow").value == 0
    assert flow_length(singular, LOSS, 1.0).value == np.inf


def test_arrays_and_transforms(dtype):
    mu = jnp.linspace(0.1, 1.0, 4, dtype=dtype)
    near = NearIsometry(mu, jnp.full(4, 2.0, dtype), jnp.ones(4, dtype))
    loss = LossConstants(2.0, 2.0)
    whole = largest_initial_loss(near, loss, "flow").value
    assert whole.dtype == dtype
    one = jax.jit(
        jax.vmap(lambda *near: largest_initial_loss(NearIsometry(*near), loss, "flow")[0])
    )
    np.testing.assert_allclose(one(*near), whole, rtol=1e-5)
    assert flow_length(near, loss, 1.0).value.shape == (4,)


def test_refuses():
    with pytest.raises(ValueError, match=r"mu is 2\.0 and nu is 1\.0; expected mu <= nu"):
        ball_radius(NearIsometry(2.0, 1.0, 1.0))
    with pytest.raises(ValueError, match=r"smoothness is -1\.0; expected 0 or greater"):
        ball_radius(NearIsometry(0.5, 1.0, -1.0))
    with pytest.raises(
        ValueError, match=r"pl = 3\.0 and smoothness = 2\.0; expected pl <= smoothness"
    ):
        flow_rate(NEAR, LossConstants(3.0, 2.0), 1.0)
    with pytest.raises(ValueError, match="dynamics is 'sgd'"):
        largest_initial_loss(NEAR, LOSS, "sgd")
    with pytest.raises(ValueError, match=r"initial_loss is -1\.0"):
        flow_length(NEAR, LOSS, -1.0)
