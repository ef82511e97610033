"""Algorithm 2 of Du (2019), step by step, against a loop in NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled

from ntkflow.training.descent import descend
from ntkflow.training.perturbed import perturbed_gradient_descent, uniform_in_ball

RATE, RADIUS, THRESHOLD, WAITING, STEPS = 0.1, 0.05, 0.3, 6.0, 200
CURVATURES = np.array([1.0, -0.4, 2.0])
START = {"a": jnp.array([[0.01, -0.02]]), "b": jnp.array(0.5)}


def quartic(params, curvatures):
    """A saddle point at 0 between two minima: Σ ½ c_i x_i² + ¼ x_i⁴."""
    x = jnp.concatenate([params["a"].ravel(), params["b"][None]])
    return jnp.sum(0.5 * curvatures * x**2 + 0.25 * x**4)


@compiled
def draw(key, t, like):
    return uniform_in_ball(jax.random.fold_in(key, t), like, RADIUS)


def reference(key, steps, start, rate=RATE, waiting=WAITING, threshold=THRESHOLD):
    """The printed algorithm with t from 0; only the draws of noise are the library's own."""
    x = np.concatenate([np.ravel(start["a"]), np.ravel(start["b"])])
    slope = lambda x: CURVATURES * x + x**3  # noqa: E731
    last_noise, path, noisy = -waiting - 1, [x], []
    for t in range(steps):
        if np.linalg.norm(slope(x)) <= threshold and t - last_noise > waiting:
            noise = draw(key, t, start)
            x = x + np.concatenate([np.ravel(noise["a"]), np.ravel(noise["b"])])
            last_noise = t
            noisy.append(t)
        x = x - rate * slope(x)
        path.append(x)
    return np.array(path), noisy


def one_run(key, params, rate, waiting, threshold, state=None):
    """All steps, every one recorded; key, step size, waiting time and threshold may be traced."""
    observe = {"x": lambda s: jnp.append(s.params["a"], s.params["b"])}
    optimizer = perturbed_gradient_descent(rate, RADIUS, threshold, waiting, key)
    steps = descend(quartic, optimizer, STEPS, observe=observe)
    return steps(params, jnp.asarray(CURVATURES, params["b"].dtype), state=state)


run = compiled(one_run)


@pytest.mark.quick
@pytest.mark.parametrize("waiting", [0.0, 1.0, 6.0, 7.5])
def test_every_step_is_that_of_the_printed_algorithm(waiting):
    key = jax.random.key(3)
    trajectory = run(key, START, RATE, waiting, THRESHOLD)
    path, noisy = reference(key, STEPS, START, waiting=waiting)
    assert_close(trajectory.history["x"], path)
    state = trajectory.state.optimizer
    assert int(state.step) == STEPS
    assert int(state.last_noise) == noisy[-1]
    # The start is too steep for noise, and the waiting time is kept between draws of it.
    assert noisy[0] > 0
    assert min(np.diff(noisy)) == np.floor(waiting) + 1
    assert len(noisy) < STEPS - noisy[0] or waiting == 0


def test_two_runs_in_a_row_are_one_long_run():
    key = jax.random.key(1)
    first = run(key, START, RATE, WAITING, THRESHOLD)
    second = run(key, first.params, RATE, WAITING, THRESHOLD, first.state)
    path, noisy = reference(key, 2 * STEPS, START)
    assert_close(second.history["x"], path[STEPS:])
    assert int(second.state.optimizer.last_noise) == noisy[-1]


def test_without_small_gradients_it_is_plain_descent():
    trajectory = run(jax.random.key(0), START, RATE, WAITING, 0.0)
    path, noisy = reference(jax.random.key(0), STEPS, START, threshold=0.0)
    assert noisy == []
    assert_close(trajectory.history["x"], path)
    assert int(trajectory.state.optimizer.last_noise) == -1


def test_it_maps_over_seeds_and_step_sizes():
    keys = jax.random.split(jax.random.key(2), 3)
    rates = np.array([0.1, 0.05, 0.1])
    mapped = compiled(jax.vmap(one_run, in_axes=(0, None, 0, None, None)))
    many = mapped(keys, START, rates, WAITING, THRESHOLD)
    for key, rate, x in zip(keys, rates, np.asarray(many.history["x"]), strict=True):
        assert_close(x, reference(key, STEPS, START, rate=float(rate))[0])
    assert not np.allclose(many.params["a"][0], many.params["a"][2])


def test_it_leaves_a_saddle_point_where_descent_stays_in_float32():
    dtype = "float32"
    start = {"a": jnp.zeros((1, 2), dtype), "b": jnp.zeros((), dtype)}
    trajectory = run(jax.random.key(0), start, RATE, WAITING, THRESHOLD)
    assert trajectory.params["a"].dtype == dtype
    # Noise goes on near the minimum: within r, and what descent has not taken back.
    assert abs(abs(float(trajectory.params["a"][0, 1])) - 0.4**0.5) < 2 * RADIUS
    assert float(trajectory.history["loss"][-1]) < -(0.4**2) / 4 + 2 * RADIUS**2


def test_leaves_of_several_dtypes_in_a_chain():
    """One norm and one ball of all, in float32 at least; an empty leaf; integers of any size."""
    params = {
        "half": jnp.zeros(70000, "float16"),
        "single": jnp.zeros(2, "float32"),
        "double": jnp.zeros((1, 1)),
        "empty": jnp.zeros((0, 3)),
    }
    value = lambda p: jnp.sum(p["double"])  # noqa: E731

    optimizer = optax.chain(
        perturbed_gradient_descent(0.1, 3.0, 0.02, 3 * 10**9, jax.random.key(0)),
        optax.scale(2.0),
    )

    @compiled
    def step(slope, state):
        gradient = jax.tree.map(lambda leaf: jnp.full_like(leaf, slope), params)
        return optimizer.update(gradient, state, params, value_fn=value)

    length = lambda tree: math.hypot(*(np.linalg.norm(np.float64(x)) for x in tree.values()))  # noqa: E731
    begin = optimizer.init(params)
    first, state = step(7e-5, begin)  # norm 0.0185, of squares that are 0 in float16
    dtypes = lambda tree: jax.tree.map(lambda leaf: leaf.dtype, tree)  # noqa: E731
    assert dtypes(first) == dtypes(params)
    assert 5.9 < length(first) < 6.1  # all but on the sphere, in 70003 dimensions
    assert length(step(7e-5, state)[0]) < 0.01  # waits
    assert length(step(8e-5, begin)[0]) < 0.01  # norm 0.0212
    assert jax.eval_shape(uniform_in_ball, jax.random.key(0), {}, 1.0) == {}


@pytest.mark.parametrize(("size", "dtype"), [(1, "float32"), (5, "float64")])
def test_noise_is_uniform_in_the_ball_of_all_leaves_together(size, dtype):
    """(‖ξ‖/r)^d is uniform on [0, 1], and E ξξᵀ = r²/(d+2) I."""
    like = {"a": jnp.zeros((1, 1), dtype), "b": jnp.zeros(size - 1, dtype)}
    draws = jax.vmap(lambda key: uniform_in_ball(key, like, 2.0))
    many = compiled(lambda key: draws(jax.random.split(key, 4000)))
    noise = jax.device_get(many(jax.random.key(size)))
    assert noise["a"].dtype == dtype
    noise = np.concatenate([noise["a"].reshape(4000, -1), noise["b"].reshape(4000, -1)], axis=1)
    share = np.sort((np.linalg.norm(noise, axis=1) / 2) ** size)
    distance = np.abs(share - (np.arange(4000) + 0.5) / 4000).max()
    assert distance < 1.95 / 4000**0.5  # Kolmogorov–Smirnov, level 1e-3
    error = 4 * 2.0**2 / 4000**0.5  # four standard errors of a mean of products below r²
    assert np.abs(noise.T @ noise / 4000 - np.eye(size) * 4 / (size + 2)).max() < error
    assert np.abs(noise.mean(axis=0)).max() < 4 * 2.0 / 4000**0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate is 0.0; expected one finite number, greater than"),
        ({"radius": -1.0}, "radius is -1.0"),
        ({"radius": jnp.ones(2)}, r"radius has shape \(2,\); expected one finite number"),
        ({"learning_rate": optax.constant_schedule(0.1)}, "is a function; .* Schedules are not"),
        ({"gradient_threshold": -0.1}, "gradient_threshold is -0.1; .* 0 or greater"),
        ({"waiting_time": jnp.nan}, "waiting_time is nan"),
        ({"key": jax.random.split(jax.random.key(0))}, "expected one PRNG key"),
        ({"key": None}, "key is None"),
    ],
)
def test_it_refuses_at_the_door(change, message):
    arguments = {
        "learning_rate": 0.1,
        "radius": 0.1,
        "gradient_threshold": 0.1,
        "waiting_time": 1,
        "key": jax.random.key(0),
    }
    with pytest.raises(ValueError, match=message):
        perturbed_gradient_descent(**(arguments | change))


def test_it_refuses_several_step_sizes_under_a_trace_too():
    with pytest.raises(ValueError, match="learning_rate has shape"):
        jax.eval_shape(
            lambda rates: perturbed_gradient_descent(rates, 1.0, 1.0, 1, jax.random.key(0)).init(0),
            jnp.ones(2),
        )


def test_it_needs_the_loss():
    optimizer = perturbed_gradient_descent(0.1, 0.1, 0.1, 1, jax.random.key(0))
    with pytest.raises(ValueError, match="no value_fn; call update"):
        optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)), jnp.ones(2))
