"""Tube and octopus: the pieces of the thesis, C², minima, saddles, domain, smoothness."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled

from ntkflow.stationarity import is_second_order_stationary
from ntkflow.systems.saddles import splines
from ntkflow.systems.saddles.arguments import Constants
from ntkflow.systems.saddles.lipschitz import smoothness
from ntkflow.systems.saddles.octopus import (
    check_domain,
    gradient,
    in_domain,
    minimum,
    minimum_value,
    multipliers,
    octopus,
    saddle_points,
    stage,
    tube,
)

D = 3
TAU = math.e
THESIS = Constants()


@compiled
def _derivatives(x, constants):
    of = lambda f: jax.vmap(f, (0, None))(x, constants)  # noqa: E731
    return (
        octopus(x, constants),
        of(jax.grad(octopus)),
        of(jax.hessian(octopus)),
        gradient(x, constants),
        multipliers(x, constants),
        tube(jnp.abs(x), constants),
        stage(x, constants),
    )


def derivatives(x, constants=THESIS):
    """f, ∇f and ∇²f of every point, by autodiff, ∇f by hand, multipliers, the tube, the stage."""
    rows = 512  # of all calls, one program for each dtype
    padded = np.concatenate([x, np.zeros((rows - len(x), D), x.dtype)])
    parts = _derivatives(padded, Constants(*map(float, constants)))
    return [np.asarray(part)[: len(x)] for part in parts]


def points(seed, count, d=D, tau=TAU):
    """Of all stages, arms, buffers: shape (count, d)."""
    rng = np.random.default_rng(seed)
    behind = rng.integers(0, d + 1, (count, 1))
    order = np.arange(d)[None, :]
    low = np.where(order < behind, 2 * tau, 0)
    high = np.where(order < behind, 6 * tau, np.where(order == behind, 2 * tau, tau))
    return rng.uniform(low, high) * rng.choice([-1, 1], (count, d))


def as_printed(x, constants):
    """(7.6)–(7.10) and (7.14)–(7.18), piece by piece."""
    smoothness, curvature, tau = constants
    x, d = np.abs(x), len(x)
    i = next((j for j in range(d) if x[j] < 2 * tau), d)
    value = smoothness * np.sum((x[:i] - 4 * tau) ** 2) - i * splines.offset(constants)
    if i == d:
        return value
    if x[i] <= tau:
        return value - curvature * x[i] ** 2 + smoothness * np.sum(x[i + 1 :] ** 2)
    value += float(splines.g_1(x[i], constants)) + smoothness * np.sum(x[i + 2 :] ** 2)
    return value + (float(splines.g_2(x[i], constants)) * x[i + 1] ** 2 if i + 1 < d else 0)


def test_the_sum_over_neighbours_is_the_function_of_the_thesis(dtype):
    x = points(0, 64)
    expected = np.array([as_printed(one, THESIS) for one in x])
    value, *_, of_tube, _ = derivatives(x.astype(dtype))
    assert value.dtype == dtype
    assert_close(value, expected.astype(dtype))
    assert_close(of_tube, value)


@pytest.mark.quick
def test_the_gradient_by_hand_is_that_of_autodiff(dtype):
    x = points(1, 64).astype(dtype)
    _, automatic, _, by_hand, c, *_ = derivatives(x)
    assert by_hand.dtype == c.dtype == dtype
    assert_close(automatic, by_hand)
    small = np.abs(x) <= TAU
    np.testing.assert_array_equal(c == 0, ~small)
    assert_close(np.where(small, c * x, 0), np.where(small, by_hand, 0), factor=4)


def test_it_is_twice_continuously_differentiable_across_every_seam(dtype):
    tau = np.asarray(TAU, dtype)
    below, on, above = [], [], []
    for i, seam, sign in itertools.product(range(D), (0 * tau, tau, 2 * tau), (1, -1)):
        rng = np.random.default_rng(i)
        for j in range(D):  # in the seam: coordinate j = 0 … for the kink of |x|, else i
            moving = i if seam else j
            x = np.where(np.arange(D) < i, rng.uniform(2 * tau, 6 * tau, D), rng.uniform(0, tau, D))
            if not seam and moving < i:
                continue  # far from 0 behind stage i
            x = x.astype(dtype)
            x *= rng.choice([-1, 1], D).astype(dtype)
            x[moving] = seam
            sides = [np.nextafter(seam, -np.inf, dtype=dtype), seam, np.nextafter(seam, np.inf)]
            if not seam:
                sides = [-(tau**0) * 1e-30, seam, tau**0 * 1e-30]
            for bucket, side in zip((below, on, above), sides, strict=True):
                y = x.copy()
                y[moving] = sign * side
                bucket.append(y)
    lower, exact, upper = (derivatives(np.array(x, dtype))[:4] for x in (below, on, above))
    for a, b, c in zip(lower, exact, upper, strict=True):
        assert np.all(np.isfinite(b))
        assert_close(a, b)
        assert_close(c, b)
    assert_close(exact[3], exact[1])


def test_every_arm_ends_in_a_minimum(dtype):
    d = D
    ends = np.array(list(itertools.product((-1.0, 1.0), repeat=d)), dtype)
    constants = Constants(2.0, 0.5, 1.5)
    x = ends * np.asarray(minimum(d, constants)).astype(dtype)
    values, slopes, hessians, *_ = derivatives(x, constants)
    assert len(x) == 8
    assert_close(values, np.full(8, minimum_value(d, constants), dtype))
    np.testing.assert_array_equal(slopes, 0)
    assert_close(hessians, np.broadcast_to(2 * 2.0 * np.eye(d, dtype=dtype), (8, d, d)))
    assert minimum_value(d, constants) == -d * splines.offset(constants)
    # Nothing in the domain is lower.
    others = derivatives(points(2, 256, d, 1.5).astype(dtype), constants)[0]
    assert np.all(others > minimum_value(d, constants))


def test_the_saddle_points_are_strict_and_the_minima_second_order_stationary():
    d = D
    x = np.asarray(saddle_points(d))
    values, slopes, hessians, *_ = derivatives(x)
    assert_close(values, -splines.offset() * np.arange(d), scale=1)
    np.testing.assert_array_equal(slopes, 0)
    signature = np.where(np.eye(d, dtype=bool), -2.0, 2 * math.e)  # saddle i leaves by x_{i+1}
    assert_close(hessians, np.einsum("ij,jk->ijk", signature, np.eye(d)))
    x = np.concatenate([x, np.asarray(minimum(d))[None]])
    second_order = compiled(jax.vmap(is_second_order_stationary(octopus)))(x)
    np.testing.assert_array_equal(second_order, [False] * d + [True])


def test_no_point_of_the_buffers_is_stationary():
    """Remark 7.2: the gradient is 2γτ there at least."""
    x = points(3, 512)
    crossing = np.any((np.abs(x) > TAU) & (np.abs(x) < 2 * TAU), axis=1)
    assert crossing.sum() > 100
    slopes = derivatives(x)[3]
    assert np.all(np.linalg.norm(slopes, axis=1)[crossing] >= 2 * TAU)


def test_the_domain_is_the_union_of_its_boxes():
    d, tau = D, 1.0
    constants = Constants(tau=tau)
    rng = np.random.default_rng(0)
    x = rng.choice([0, 0.5, 1, 1.5, 2, 3, 6, 6.5], (400, d)) * rng.choice([-1, 1], (400, d))
    z = np.abs(x)
    boxes = [
        np.all((z[:, :i] >= 2) & (z[:, :i] <= 6), axis=1)
        & np.all(z[:, i : i + 1] <= 2, axis=1)
        & np.all(z[:, i + 1 :] <= 1, axis=1)
        for i in range(d + 1)
    ]
    expected = np.any(boxes, axis=0)
    assert 50 < expected.sum() < 350
    np.testing.assert_array_equal(in_domain(x, constants), expected)
    # Under a trace, where no error can be raised, f and its gradients are NaN outside.
    value, slope, hessian, by_hand, c, of_tube, _ = derivatives(x, constants)
    parts = (value[:, None], slope, by_hand, hessian.reshape(-1, d * d), c, of_tube[:, None])
    for array in parts:
        np.testing.assert_array_equal(
            np.isfinite(array), np.repeat(expected[:, None], array.shape[1], 1)
        )
    assert np.all(in_domain(points(4, 400)))
    for edge in (jnp.float32, jnp.float64):  # 6τ is inside, however it was rounded
        check_domain(jnp.full(2, 6 * math.e, edge))


def test_stages_count_what_lies_behind():
    x = points(5, 64)
    expected = [next((j for j in range(D) if abs(one[j]) < 2 * TAU), D) for one in x]
    result = derivatives(x)[-1]
    assert result.dtype == np.int32
    np.testing.assert_array_equal(result, expected)
    assert set(expected) == set(range(D + 1))


def test_thousands_of_dimensions_cost_no_more_operations():
    sizes = {
        d: len(jax.make_jaxpr(lambda x: (octopus(x), gradient(x), stage(x)))(jnp.zeros(d)).eqns)
        for d in (2, 3000)
    }
    assert sizes[2] == sizes[3000]
    x = np.concatenate([np.full(1000, -4 * TAU), [1.5 * TAU, 1.0], np.zeros(1998)])
    value, behind = compiled(lambda x: (octopus(x), stage(x)))(x)
    assert_close(value, np.asarray(as_printed(x, THESIS)))
    assert behind == 1000


def test_constants_may_be_mapped_and_points_of_any_rank():
    x = points(6, 6).reshape(2, 3, D) / TAU
    pairs = [Constants(2.0, 1.0, 1.0), Constants(3.0, 0.5, 1.0)]
    stacked = Constants(*(np.array(pair) for pair in zip(*pairs, strict=True)))
    values, slopes = compiled(jax.vmap(lambda c: (octopus(x, c), gradient(x, c))))(stacked)
    for i, constants in enumerate(pairs):
        value, _, _, slope, *_ = derivatives(x.reshape(-1, D), constants)
        assert_close(np.asarray(values)[i].reshape(-1), value)
        assert_close(np.asarray(slopes)[i].reshape(-1, D), slope)


def test_one_coordinate_is_smoother_and_more_are_not():
    x = np.concatenate(
        [np.linspace(np.nextafter(TAU, 3), np.nextafter(2 * TAU, 0), 401), [4 * TAU]]
    )
    one = smoothness(1)
    slopes = np.asarray(splines.g_1_curvature(x[:-1]))
    assert np.abs(slopes).max() == pytest.approx(one.gradient_lipschitz, rel=1e-4)
    bends = np.diff(slopes) / np.diff(x[:-1])
    assert np.abs(bends).max() == pytest.approx(one.hessian_lipschitz, rel=1e-2)
    assert np.abs(bends).max() < one.hessian_lipschitz
    two, many = smoothness(2), smoothness(50)
    assert two[1:] == many[1:]
    assert many.bound == -minimum_value(50)
    # f is at most (d − 1) Lτ², at a corner of the cube [−τ, τ]^d.
    (top,) = derivatives(np.array([[0.0] + [TAU] * (D - 1)]))[0]
    assert_close(top, np.asarray((D - 1) * TAU**3))
    assert top < -minimum_value(D)


@pytest.mark.parametrize("steep", [1.0, math.e, 30.0])
def test_the_smoothness_of_two_coordinates_is_that_of_a_grid(steep):
    """∇² and ∇³ of g_1(u) + g_2(u) v² by NumPy's polynomials in t = u − 1, for γ = τ = 1."""
    p = np.polynomial.Polynomial([-2, -2, 10 - 14 * steep, 10 * steep - 6])
    q = steep - (steep + 1) * np.polynomial.Polynomial([0, 0, 0, 10, -15, 6])
    t, v = np.meshgrid(np.linspace(0, 1, 401), np.linspace(0, 1, 21))
    hessian = np.array(
        [[p.deriv()(t) + q.deriv(2)(t) * v**2, 2 * q.deriv()(t) * v], [0 * t, 2 * q(t)]]
    )
    curvature = np.abs(np.linalg.eigvalsh(hessian.transpose(2, 3, 0, 1), "U")).max()
    third = [p.deriv(2)(t) + q.deriv(3)(t) * v**2, 2 * q.deriv(2)(t) * v, 2 * q.deriv()(t)]
    c, s = (f(np.linspace(0, np.pi, 61)) for f in (np.cos, np.sin))
    form = np.stack([c**3, 3 * c**2 * s, 3 * c * s**2], axis=1)
    bend = np.abs(form @ np.reshape(third, (3, -1))).max()
    _, gradient_lipschitz, hessian_lipschitz = smoothness(2, Constants(steep, 1.0, 1.0))
    assert curvature <= gradient_lipschitz
    assert curvature == pytest.approx(float(gradient_lipschitz), rel=1e-4)
    assert bend == pytest.approx(hessian_lipschitz, rel=1e-12)  # at t = 0, v = 1
    single = smoothness(2, Constants(*np.array([steep, 1, 1], np.float32)))
    assert {np.asarray(value).dtype for value in single} == {np.dtype("float32")}


def test_points_outside_of_the_domain_are_named():
    with pytest.raises(ValueError, match=r"coordinate 3 of the point \[0. 1. 3.\] is 3.0 and coo"):
        octopus(jnp.array([0.0, 1.0, 3.0]))
    with pytest.raises(
        ValueError, match=r"x\[1\] is outside .* -17.0; expected \|x_j\| ≤ 6τ = 16.3"
    ):
        gradient(jnp.array([[1.0, 0.0], [-17.0, 0.0]]))
    with pytest.raises(ValueError, match=r"x\[1\] is -1.0; expected x_j ≥ 0 in the tube"):
        tube(jnp.array([0.0, -1.0]))
    with pytest.raises(ValueError, match=r"x has shape \(\); expected \(..., d\)"):
        multipliers(1.0)
    with pytest.raises(ValueError, match="x has dtype complex128; expected real numbers"):
        octopus(np.array([1.0, 2.0j]))
    with pytest.raises(ValueError, match=r"x has shape \(3, 0\)"):
        stage(jnp.ones((3, 0)))
    for function in (minimum_value, minimum, saddle_points, smoothness):
        with pytest.raises(ValueError, match="d is 0; expected a whole number greater than 0"):
            function(0)
        with pytest.raises(ValueError, match="expected L ≥ γ"):
            function(2, Constants(0.5))
    with pytest.raises(ValueError, match="expected L ≥ γ"):
        octopus(jnp.zeros(2), Constants(0.5))
