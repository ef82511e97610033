"""Random initialization in a ball: Theorem 6.6 and Corollary 6.1 against draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import compiled

from ntkflow.systems.convolutional_filter import initialization as init

DRAWS, SIZE = 20_000, 6


@pytest.fixture(scope="module")
def draws():
    """Draws of w in the ball of radius α‖w*‖, and whether they are good; ‖w*‖ = 2."""
    w_star = np.full(SIZE, 2 / np.sqrt(SIZE))

    def one(key, alpha):
        variables = init.initialize_in_ball(key, SIZE, 2 * alpha)
        return variables["params"]["filter"], init.starts_well(variables, w_star, alpha)

    @compiled
    def draw(alpha):
        keys = jax.random.split(jax.random.key(1), DRAWS)
        return jax.vmap(one, in_axes=(0, None))(keys, alpha)

    return lambda alpha: jax.device_get(draw(alpha))


def test_bounds_exact_and_draws(draws):
    p = np.array([SIZE, SIZE, 2, 2, 20, 20])
    alpha = np.array([0.25, 1.0, 0.25, 1.0, 0.25, 1.0]) / np.sqrt(2 * np.pi * p)
    printed, corrected = (
        np.asarray(init.initialization_probability(alpha, p, printed=which).value)
        for which in (True, False)
    )
    exact = np.asarray(
        init.exact_initialization_probability(jnp.asarray(alpha), jnp.asarray(1.0 * p))
    )
    means = np.array([np.mean(draws(radius)[1]) for radius in alpha[:2]])
    error = np.sqrt(means * (1 - means) / DRAWS)
    assert np.all(np.abs(means - exact[:2]) < 4 * error)
    assert np.all((printed < corrected) & (corrected < exact))
    # π times closer for many entries: the printed bound carries π in place of 1/√π.
    assert np.all(0.5 - printed > 2.5 * (0.5 - corrected))
    assert np.all(exact - corrected < 0.4 * (0.5 - corrected))


CATALOG = [(0.0223, 20, 0.461), (0.0892, 20, 0.351)]  # of 20 000 draws each
# w_0 uniform in [−α, α]: |w_0 − 1| ≤ √(1 − α²) from 1 − √(1 − α²) on.
LINE = [(a, 1, (a - 1 + np.sqrt(1 - a**2)) / (2 * a)) for a in (0.1, 0.5, np.sqrt(0.5))]
MANY = (1 / np.sqrt(8e3 * np.pi), 4000)


@pytest.mark.quick
def test_exact_probabilities(dtype):
    alpha, p, expected = np.array([*CATALOG, *LINE, (*MANY, 0.0)]).T
    exact = init.exact_initialization_probability(jnp.asarray(alpha, dtype), jnp.asarray(p, dtype))
    assert exact.dtype == dtype
    exact = np.asarray(exact)
    np.testing.assert_allclose(exact[:2], expected[:2], atol=2e-3)
    np.testing.assert_allclose(exact[2:5], expected[2:5], rtol=100 * np.finfo(dtype).eps)
    # Many entries do not underflow, in float32 either; the bounds are below.
    assert np.all(init.initialization_probability(alpha, p).value < exact)
    assert exact[5] < 0.5
    printed = init.initialization_probability(alpha[:2], p[:2], printed=True).value
    np.testing.assert_allclose(printed, [0.375, 0.0], atol=1e-3)


def test_drawn_uniformly_in_the_ball(draws):
    w = draws(np.float64(0.25))[0]
    draw = lambda key: init.initialize_in_ball(key, 3, 0.5, "float32")  # noqa: E731
    shape = jax.eval_shape(draw, jax.random.key(0))["params"]["filter"]
    assert shape.dtype == "float32"
    radius = np.linalg.norm(w, axis=1)
    assert radius.max() <= 0.5
    share, expected = np.mean(radius <= 0.4), 0.8**SIZE
    assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / DRAWS)
    assert np.all(np.abs(w.mean(0)) < 4 * 0.5 / np.sqrt((SIZE + 2) * DRAWS))


def test_corollary_leaves_more_than_a_quarter():
    p = 7
    phi_star = np.arccos(0.999 / np.sqrt(8 * np.pi * p))
    printed = init.corollary_probability(phi_star, p, printed=True).value
    assert 0.25 < printed < init.corollary_probability(phi_star, p).value
    # The corrected condition reaches about π times further.
    wider = np.arccos(2.9 / np.sqrt(8 * np.pi * p))
    assert init.corollary_probability(wider, p).value > 0.25
    with pytest.raises(ValueError, match=r"cos φ_\* is .*; Corollary 6.1 promises more than ¼"):
        init.corollary_probability(wider, p, printed=True)
    with pytest.raises(ValueError, match=r"Corollary 6\.1"):
        init.corollary_probability(np.pi / 4, p)


def test_restarts_suffice():
    for probability in (0.2, 0.5, 0.95):
        count = float(init.restarts(probability, 0.01).value)
        assert (1 - probability) ** count <= 0.01 < (1 - probability) ** (count - 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: init.initialize_in_ball(jax.random.key(0), 0, 1.0), "p is 0"),
        (lambda: init.initialize_in_ball(jax.random.key(0), 2, 0.0), "radius is 0.0"),
        (lambda: init.initialization_probability(1.5, 2), "alpha is 1.5"),
        (lambda: init.initialization_probability(0.1, 0), "p is 0"),
        (lambda: init.initialization_probability(0.3, 2, printed=True), "α ≤ 1/√"),
        (lambda: init.exact_initialization_probability(0.8, 2), "the series asks"),
        (lambda: init.restarts(0.0, 0.1), "probability is 0.0"),
        (lambda: init.restarts(0.1, 1.0), "delta is 1.0"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
