import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled

from ntkflow.kernels import empirical_ntk, extreme_eigenvalues
from ntkflow.kernels.matrix_free import (
    Lanczos,
    effective_dimension,
    lanczos,
    lanczos_extremes,
    log_determinant,
    spectral_density,
    trace,
)
from ntkflow.kernels.operators import kernel_operator, ntk_operator

KEY, N = jax.random.key(0), 100  # one size, that programs are compiled once
run_lanczos = compiled(lanczos, static_argnames=("steps", "probes"))
run_extremes, run_determinant = compiled(lanczos_extremes), compiled(log_determinant)
run_dimension = compiled(effective_dimension)


def normal(seed, *shape, dtype="float64"):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def entries(matrix, i, j):
    return matrix[i][:, j]


def of_matrix(matrix):
    return kernel_operator(functools.partial(entries, matrix), jnp.arange(len(matrix)), devices=1)


def with_spectrum(values, dtype="float64"):
    """An operator whose eigenvalues are known."""
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(len(values), len(values))))
    matrix = (q * np.asarray(values)) @ q.T
    return of_matrix(jnp.asarray((matrix + matrix.T) / 2, dtype))


def one_probe(operator, key=KEY, steps=60):
    return run_lanczos(key, operator, steps=steps, probes=1)


@pytest.fixture(scope="module")
def many_probes():
    """Eigenvalues, and 60 independent runs of 10 probes, in front."""
    values = np.logspace(-3, 1, N)
    run = run_lanczos(KEY, with_spectrum(values), steps=40, probes=600)
    alpha, beta = run.diagonal.reshape(60, 10, 40), run.off_diagonal.reshape(60, 10, 40)
    repeated = (jnp.full(60, part) for part in (run.size, run.resolution))
    return values, Lanczos(alpha, beta, *repeated)


@pytest.mark.quick
def test_extremes_lie_within_their_errors(dtype):
    values = np.concatenate([np.linspace(1.0, 2.0, 98), [0.5, 40.0]])
    extremes = run_extremes(one_probe(with_spectrum(values, dtype)))
    assert all(part.dtype == dtype for part in extremes if part.dtype != bool)
    assert extremes.smallest_resolved
    assert abs(extremes.smallest - 0.5) <= extremes.smallest_error
    assert abs(extremes.largest - 40) <= extremes.largest_error
    # Converged: what is left is rounding.
    assert extremes.smallest_error + extremes.largest_error < 3 * extremes.resolution
    assert extremes.resolution < 1000 * np.finfo(dtype).eps


def test_bounds_hold_before_anything_has_converged():
    operator = with_spectrum(np.logspace(-6, 0, N))
    for seed in range(5):
        run = one_probe(operator, jax.random.key(seed), steps=8)
        tridiagonal = np.diag(run.diagonal[0]) + np.diag(run.off_diagonal[0, :-1], -1)
        extremes = run_extremes(run)
        # The smallest Ritz value is a hundred times λ_min: it must not pass for it.
        assert np.linalg.eigvalsh(tridiagonal)[0] > 1e-4
        assert not extremes.smallest_resolved
        assert extremes.smallest == 0
        assert 1e-4 < extremes.smallest_error < 0.1
        assert 1e-6 < 1 - extremes.largest < extremes.largest_error < 0.5


def test_a_singular_kernel_is_not_resolved(dtype):
    x = normal(0, N - 3, 14, dtype=dtype)
    x = jnp.concatenate([x, x[:3]])  # duplicate samples: λ_min = 0
    kernel = jnp.square(1 + x @ x.T)
    run = lanczos(KEY, of_matrix(kernel), steps=60, probes=1)  # its rounding decides below
    extremes, exact = run_extremes(run), extreme_eigenvalues(kernel)
    assert exact.smallest == extremes.smallest == 0
    assert not extremes.smallest_resolved
    assert abs(extremes.largest - exact.largest) <= extremes.largest_error
    assert extremes.smallest_error < 1e-3 * exact.largest
    # The determinant is 0; what is said of its logarithm must not look like a number.
    assert run_determinant(run).truncation_error == jnp.inf


def test_an_exhausted_probe_is_not_noise():
    # Three different eigenvalues: after three steps a probe has seen them all.
    extremes = run_extremes(one_probe(with_spectrum(np.repeat([1.0, 2.0, 7.0], [20, 50, 30]))))
    assert extremes.smallest_resolved
    assert abs(extremes.smallest - 1) <= extremes.smallest_error < 1e-12
    # And here after one, to a residual that is exactly 0 in optimized programs.
    run = lanczos(KEY, of_matrix(2 * jnp.eye(N)), steps=60, probes=1)
    assert run_extremes(run)[:2] == (2.0, 2.0)
    assert_close(run_determinant(run).value, np.float64(N * np.log(2)))


def test_an_indefinite_matrix_is_not_hidden():
    extremes = run_extremes(one_probe(with_spectrum(np.linspace(-1, 3, N))))
    assert abs(extremes.smallest + 1) < extremes.smallest_error < 0.01


def test_estimates_lie_within_standard_errors_which_are_honest(many_probes):
    values, runs = many_probes
    truths = [values.sum(), np.log(values + 0.1).sum(), (values / (values + 0.1)).sum()]

    @compiled
    @jax.vmap
    def estimates(run):
        return trace(run), log_determinant(run, ridge=0.1), effective_dimension(run, ridge=0.1)

    for truth, found in zip(truths, estimates(runs), strict=True):
        deviation = (found.value - truth) / found.standard_error
        # Student's t with 9 degrees of freedom has a standard deviation of 1.13.
        assert abs(deviation.mean()) < 4 * 1.13 / np.sqrt(60)
        assert 0.8 < jnp.sqrt(jnp.mean(deviation**2)) < 1.5
        assert (found.truncation_error < 0.01 * found.standard_error).all()


def test_truncation_error_brackets_what_few_steps_leave_out():
    operator = with_spectrum(np.logspace(-3, 1, N))
    few, many = (one_probe(operator, steps=steps) for steps in (8, 60))
    for estimate in (run_determinant, run_dimension):
        short, full = estimate(few, ridge=0.1), estimate(many, ridge=0.1)
        missed = abs(short.value - full.value)
        assert 1e-3 < missed < short.truncation_error < 100 * missed
        assert full.truncation_error < 1e-8
        assert full.standard_error == jnp.inf  # of one probe


def test_density_is_that_of_the_eigenvalues(many_probes):
    values, runs = many_probes
    run = Lanczos(*(part.reshape(-1, 40) for part in runs[:2]), runs.size[0], runs.resolution[0])
    grid = jnp.linspace(-2, 12, 30).reshape(2, 15)
    smoothed = lambda run: spectral_density(run, grid, bandwidth=0.5)  # noqa: E731
    density = compiled(smoothed)(run)
    assert density.value.shape == density.standard_error.shape == grid.shape
    np.testing.assert_allclose(density.value.sum() * 14 / 29, 1, rtol=1e-3)
    kernel = np.exp(-2 * (np.asarray(grid)[..., None] - values) ** 2) / np.sqrt(np.pi / 2)
    assert (abs(density.value - kernel.mean(-1)) < 5 * density.standard_error + 1e-3).all()
    # The logarithms of the eigenvalues lie evenly.
    point = jnp.array([0.1])
    smoothed = lambda run: spectral_density(run, point, bandwidth=0.5, logarithmic=True)  # noqa: E731
    logarithmic = compiled(smoothed)(run)
    assert logarithmic.value[0] == pytest.approx(1 / np.log(1e4), rel=0.05)


def test_an_ntk_by_few_probes_at_once():
    def apply(params, x):
        return jnp.tanh(x @ params["first"]) @ params["second"]

    x, first, second = (
        normal(i, *s, dtype="float32") for i, s in enumerate([(30, 4), (4, 9), (9, 2)])
    )
    params = {"first": first, "second": second}
    operator = ntk_operator(apply, params, x, max_bytes=30_000)  # on all devices
    assert 1 < operator.at_once(6) < 6  # the others wait
    run = lanczos(KEY, operator, steps=20, probes=6)
    theta = compiled(empirical_ntk(apply))(params, x).transpose(0, 2, 1, 3).reshape(60, 60)
    values = np.linalg.eigvalsh(np.asarray(theta, "float64"))
    estimate = run_dimension(run, ridge=1.0)
    assert abs(estimate.value - np.sum(values / (values + 1))) < 3 * estimate.standard_error
    extremes = run_extremes(run)
    assert abs(extremes.largest - values[-1]) <= extremes.largest_error
    assert abs(extremes.smallest - values[0]) <= extremes.smallest_error


def test_refusals():
    operator = of_matrix(jnp.eye(N))
    with pytest.raises(ValueError, match="operator is of type ndarray"):
        lanczos(KEY, np.eye(3))
    with pytest.raises(ValueError, match="steps is 0"):
        lanczos(KEY, operator, steps=0)
    with pytest.raises(ValueError, match="key is of"):
        lanczos(3, operator)
    run = one_probe(operator)
    with pytest.raises(ValueError, match="ridge is -1"):
        log_determinant(run, ridge=-1)
    with pytest.raises(ValueError, match="ridge is 0; expected a number greater"):
        effective_dimension(run, ridge=0)
    with pytest.raises(ValueError, match="bandwidth is 0"):
        spectral_density(run, jnp.ones(2), bandwidth=0)
