"""The warm-up functions and the sketch (7.3): seams, and times in closed form against descent."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled

from ntkflow.systems.saddles.arguments import Constants
from ntkflow.systems.saddles.sketch import (
    SketchTimes,
    sketch,
    sketch_escape_times,
    sketch_second_time,
)
from ntkflow.systems.saddles.warm_up import (
    far_start,
    far_start_times,
    thin_band,
    thin_band_escape_time,
    thin_band_start,
)


def descent(f, x, step_size, steps):
    """The path of every start, (steps + 1, n, 2)."""
    slope = jax.vmap(jax.grad(f))

    def step(x, _):
        return x - step_size * slope(x), x

    return np.asarray(compiled(lambda x: jax.lax.scan(step, x, length=steps + 1)[1])(x))


def first(reached):
    assert np.all(np.any(reached, axis=0))
    return np.argmax(reached, axis=0)


def test_the_thin_band_holds_descent_for_as_many_steps_as_it_says():
    x = jnp.array([[1.0, 0.3], [-0.4, -1e-3], [0.0, 0.99]])
    path = descent(thin_band, x, 0.25, 30)
    assert_close(path[1], np.asarray(x) * np.array([0.5, 1.5]))
    assert thin_band_escape_time(math.log(2.0)) == 0  # it is out already
    times = thin_band_escape_time(np.log(np.abs(np.asarray(x)[:, 1])))
    np.testing.assert_array_equal(times, first(np.abs(path[..., 1]) > 1))
    # exp(1/ε) steps at ε = 0.1: the band is thinner than any float.
    steps = math.exp(10)
    starts = np.asarray(
        compiled(lambda key: thin_band_start(key, steps, (1000,)))(jax.random.key(0))
    )
    assert np.all(thin_band_escape_time(starts) > steps)
    # Uniform: |x_2| / (3/2)^(−steps) is below a half with probability 1/2.
    share = np.mean(starts + steps * math.log(1.5) < math.log(0.5))
    assert abs(share - 0.5) < 4 * 0.5 / math.sqrt(1000)


def test_the_far_start_is_twice_continuously_differentiable(dtype):
    edges = np.array([-2.0, -1.0], dtype)
    sides = [np.nextafter(edges, np.asarray(to, dtype)) for to in (-9, 9)]
    seams = np.concatenate([*sides, edges])
    grid = np.stack(np.meshgrid(np.linspace(-2, -1, 41), np.linspace(-1, 1, 9)), -1).reshape(-1, 2)
    grid = np.concatenate([grid, [[-1e12, 0.5]]])  # where the spline's powers overflow in float32
    x = np.concatenate([np.stack([seams, 0.7 * seams**0], axis=1), grid]).astype(dtype)
    of = lambda f: jax.vmap(f)(jnp.asarray(x))  # noqa: E731
    parts = compiled(
        lambda: [of(f) for f in (far_start, jax.grad(far_start), jax.hessian(far_start))]
    )()
    for part in parts:
        assert part.dtype == dtype
        below, above, on = np.split(np.asarray(part)[:6], 3)
        # The spline's third derivative is 600 at most.
        assert_close(below, on, factor=2000)
        assert_close(above, on, factor=2000)
    slope = np.asarray(parts[1])[6:]
    assert np.all(slope[:, 0] <= -2 + 1e-4)  # no stationary point in the seam
    np.testing.assert_array_equal(slope[grid[:, 1] == 0, 1], 0)


@pytest.mark.quick
def test_the_far_start_takes_as_long_as_its_closed_form_says():
    x = jnp.array([[-20.0, 1.0], [-49.3, 0.2], [-7.5, -0.9], [-2.0, 0.5], [-1.4, 0.1], [0.3, 1e-4]])
    seam = np.stack([np.linspace(-2.0, -1.0, 400)[:-1], np.zeros(399)], axis=1)
    path = descent(far_start, jnp.asarray(np.concatenate([x, seam])), 0.25, 200)
    landed, path = path[1, len(x) :], path[:, : len(x)]
    times = far_start_times(np.asarray(x)[:, 0], np.log(np.abs(x)[:, 1]))
    inside = path[..., 0] >= -1
    np.testing.assert_array_equal(times.enter, first(inside))
    np.testing.assert_array_equal(times.leave, first(inside & (np.abs(path[..., 1]) > 1)))
    # One step of size 1/4 crosses the seam. Its middle leads beyond x_1 = 1, from x_2 = 0 to 1.112.
    assert np.all(landed[:, 0] >= -1)
    assert landed[:, 0].max() == pytest.approx(1.112, abs=5e-4)
    # From R the saddle point holds it for R ln 2 / ln 1.5 steps, be x_2 below any float.
    far = far_start_times(-1e4, 0.0)
    assert float(far.leave - far.enter) == pytest.approx(
        1e4 * math.log(2) / math.log(1.5), rel=1e-3
    )


def test_the_sketch_takes_as_long_as_its_closed_form_says_and_longer_than_the_bound():
    constants, eta = Constants(2.0, 0.8), 0.1
    x = jnp.asarray(np.random.default_rng(0).uniform(0.05, 1, (40, 2)))
    path = descent(lambda y: sketch(y, constants), x, eta, 200)
    times = SketchTimes(*map(np.asarray, sketch_escape_times(x, eta, constants)))
    np.testing.assert_array_equal(times.first, first(path[..., 0] >= 1))
    np.testing.assert_array_equal(times.second, first(path[..., 1] >= 1))
    bound = sketch_second_time(times.first, eta, constants, x_2=np.asarray(x)[:, 1]).value
    simple = sketch_second_time(times.first, eta, constants).value
    assert np.all(times.second >= bound)
    assert np.all(bound >= simple)
    assert_close(simple, (2.8 / 0.8) * times.first)
    last = path[-1]
    np.testing.assert_allclose(last, 2, atol=1e-3)
    # Without a wait t_2 is that of one saddle; at η = 1/(2L) the wait is for good.
    edge = sketch_escape_times(jnp.array([[1.0, 0.5], [0.5, 0.5]]), 0.25, constants)
    np.testing.assert_array_equal(edge.second, [3.0, np.inf])
    edge = sketch_escape_times(jnp.array([[0.5, 0.5]] * 2), 1 / (2 * 1.153), Constants(1.153))
    np.testing.assert_array_equal(edge.second, np.inf)  # 1 − 2ηL is 2e-16


def test_the_sketch_has_its_pieces_and_no_others(dtype):
    x = np.array([[0.5, 0.5], [1.0, 0.5], [3.0, 1.0], [2.0, 2.0], [0.0, 1.0]], dtype)
    expected = [0.75 * 0.25, 1.75 * 1 - 0.25 * 0.25 + 0.0, 1.75 + 1.75, 0.0, 1.75]
    expected[0] = 1.75 * 0.25 - 0.25 * 0.25
    outside = np.array([[0.5, 2.0], [-0.1, 0.0], [3.1, 1.0], [2.0, 3.1]], dtype)
    value = compiled(sketch)(np.concatenate([x, outside]), Constants(1.75, 0.25))
    assert value.dtype == dtype
    assert_close(value[:5], np.array(expected, dtype))
    assert np.all(np.isnan(value[5:]))
    for point in outside:
        with pytest.raises(ValueError, match="expected 0 ≤ x_1, x_2 ≤ 3, and x_2 ≤ 1"):
            sketch(point)


def test_what_is_no_start_is_refused():
    for function in (thin_band, far_start, sketch):
        with pytest.raises(ValueError, match=r"x has shape \(3,\); expected \(..., 2\)"):
            function(jnp.zeros(3))
    with pytest.raises(ValueError, match=r"expected 0 < η ≤ 1/\(2L\) = 0.25"):
        sketch_escape_times(jnp.ones(2), 0.3, Constants(2.0))
    with pytest.raises(ValueError, match=r"expected 0 < η ≤ 1/\(2L\) = 0.25"):
        sketch_second_time(1.0, 0.0, Constants(2.0))
    with pytest.raises(ValueError, match=r"x_2 is 0\.0; expected a start in \(0, 1\]"):
        sketch_second_time(1.0, 0.1, x_2=0.0)
    with pytest.raises(ValueError, match=r"step_size has shape \(2,\); expected one number"):
        sketch_escape_times(jnp.ones(2), np.array([0.1, 0.2]))
    with pytest.raises(ValueError, match=r"steps has shape \(3,\); expected one number"):
        thin_band_start(jax.random.key(0), np.arange(3.0))
    with pytest.raises(ValueError, match=r"steps is -1\.0; expected 0 or greater"):
        thin_band_start(jax.random.key(0), -1.0)
    with pytest.raises(ValueError, match=r"starts outside of \(0, 1\]²"):
        sketch_escape_times(jnp.array([0.5, 0.0]), 0.1)
