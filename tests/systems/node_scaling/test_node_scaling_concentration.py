"""The matrix Chernoff inequalities and Proposition D.1 against samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled

from ntkflow.systems.node_scaling.bounds import Setting
from ntkflow.systems.node_scaling.concentration import (
    chernoff_lower,
    chernoff_upper,
    initial_failure,
    initial_smallest_eigenvalue,
    initial_width,
)
from ntkflow.systems.node_scaling.limits import limit_smallest_eigenvalue

DRAWS = 20_000


def test_both_tails_against_sums_of_random_projections():
    """X_j = e eᵀ for one of four axes: the eigenvalues of the sum are how often each was drawn."""
    counts = np.random.default_rng(0).multinomial(60, [0.25] * 4, size=DRAWS)
    mean = 15.0
    for deviation in (0.3, 0.5, 0.6):
        below = np.mean(counts.min(axis=1) <= (1 - deviation) * mean)
        above = np.mean(counts.max(axis=1) >= (1 + deviation) * mean)
        for measured, tail in ((below, chernoff_lower), (above, chernoff_upper)):
            sharp = tail(4, mean, 1.0, deviation).value
            simple = tail(4, mean, 1.0, deviation, simplified=True).value
            assert 0 < measured <= sharp < simple
    assert chernoff_lower(4, mean, 1.0, 0.6).value < 0.2
    # It is tight for one projection drawn with a small probability: P(no draw) → e^(−μ).
    assert_close(chernoff_lower(1, mean, 1.0, 1.0).value, np.exp(-mean))


@pytest.mark.quick
def test_ends_of_the_range_traced_and_on_the_host(dtype):
    deviations = [0.0, 0.5, 1.0]
    for tail in (chernoff_lower, chernoff_upper):
        host = np.array([tail(3, 2.0, 0.5, d).value for d in deviations])
        traced = compiled(lambda d: tail(3, 2.0, 0.5, d).value)(jnp.asarray(deviations, dtype))
        assert traced.dtype == dtype
        assert_close(traced, host.astype(dtype))
        assert host[0] == 3


def test_proposition_d_1_over_random_weights():
    """ReLU, three inputs: λ_min falls below γκ_n/2 no more often than the bound allows."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    kappa = float(limit_smallest_eigenvalue(jnp.asarray(x), activation=jax.nn.relu))
    setting = Setting(3, 3, 0.6, kappa, delta=0.3)
    width = int(np.ceil(initial_width(setting).value))
    norm = np.linalg.eigvalsh(x @ x.T)[-1]
    sharp = int(np.ceil(initial_width(setting, data_norm=norm).value))
    assert sharp < width
    assert 0.297 < initial_failure(setting, width).value <= 0.3
    threshold = initial_smallest_eigenvalue(setting).value
    failures = {}
    for m in (8, sharp, width):
        gates = rng.normal(size=(1000, m, 3)) @ x.T > 0
        part = np.einsum("pji,pjk->pik", gates, gates * 1.0) * (x @ x.T) * 0.6 / (3 * m)
        failures[m] = np.mean(np.linalg.eigvalsh(part)[:, 0] <= threshold)
        assert failures[m] <= initial_failure(setting, m, data_norm=norm).value
        assert failures[m] <= initial_failure(setting, m).value
    assert failures[8] > 0.05
    assert failures[sharp] <= 0.3


def test_the_width_of_the_simulated_data():
    setting = Setting(100, 50, 1.0, 0.00365)
    np.testing.assert_allclose(initial_width(setting).value, 3.03e4, rtol=1e-3)
    # A slope of swish costs its square; half of δ costs log 2.
    steep = initial_width(setting, slope=1.0998).value / initial_width(setting).value
    assert_close(steep, np.float64(1.0998**2))
    more = initial_width(setting, 0.5).value - initial_width(setting).value
    np.testing.assert_allclose(more, 800 * np.log(2) / (50 * 0.00365), rtol=1e-12)
    assert initial_width(setting, 0.25).formula == "m = 2³ n log(4n/δ) / (κ_n d)"


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match=r"deviation is 1\.5; expected a number in \[0, 1\]"):
        chernoff_lower(3, 1.0, 1.0, 1.5)
    with pytest.raises(ValueError, match=r"mean is -1\.0; expected 0 or greater"):
        chernoff_upper(3, -1.0, 1.0, 0.5)
