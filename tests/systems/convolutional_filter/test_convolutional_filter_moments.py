"""γ, L, β and L_cross: closed forms against samples, searches against grids, biases by sign."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import compiled

from ntkflow.data.patches import angle_mixture
from ntkflow.systems.convolutional_filter import moments as system
from ntkflow.systems.convolutional_filter.gaussian import (
    angle_mixture_moments,
    gaussian_beta,
    gaussian_cross,
    gaussian_gamma,
    gaussian_moments,
    gaussian_smoothness,
    sphere_moments,
)
from ntkflow.systems.convolutional_filter.search import QUANTITIES, Estimate, best, search

N = 20000
W_STAR = jnp.array([0.6, 0.8])


def estimates(z, w_star, phi, directions=None, rounds=0):
    """All four as one program; γ and L as they are, the others not yet divided by φ."""
    if directions is None:
        directions = system.cone_directions(jax.random.key(0), w_star, 6)
    return search(QUANTITIES, z, w_star, phi, directions, rounds, z)


def by_region(z, w, w_star):
    """Averages of patches in ++, +− and −+, each of shape (n, p)."""
    student, teacher = z @ w > 0, z @ w_star > 0
    inside = student & teacher, student & ~teacher, ~student & teacher
    return [np.einsum("nk,nkp->np", part.astype(z.dtype), z) / z.shape[1] for part in inside]


def by_numpy(z, w_star, phi, directions):
    """The four quantities, not divided by φ, of each direction, shape (4, m)."""
    values = []
    for direction in directions:
        w = np.cos(phi) * w_star / np.linalg.norm(w_star) + np.sin(phi) * direction
        both, student, teacher = by_region(z, w, w_star)
        ends = np.linalg.eigvalsh(both.T @ both)[[0, -1]], np.linalg.eigvalsh(student.T @ student)
        pairs = (both, student), (both, teacher), (student, teacher)
        cross = sum(np.linalg.norm(a.T @ b, 2) for a, b in pairs)
        values.append([*ends[0], ends[1][-1], cross])
    return np.transpose(values) / len(z)


@functools.cache
def gaussian(k):
    """Samples (N, 3, 2) of k patches, for k = 1 three times the same; and all four at PHIS."""
    z = np.tile(np.random.default_rng(k).normal(size=(N, k, 2)), (1, 3 // k, 1))
    return z, jax.tree.map(np.asarray, at_phis(z))


PHIS = np.array([0.3, 1.0, np.pi / 2])
at_phis = compiled(lambda z: jax.vmap(lambda phi: estimates(z, W_STAR, phi))(jnp.asarray(PHIS)))


@pytest.mark.quick
@pytest.mark.parametrize("k", [1, 3])
def test_gaussian_closed_forms_against_monte_carlo(k):
    """In the plane the two filters at an angle are all: nothing but Monte Carlo error is left."""
    phis, (_, found) = PHIS, gaussian(k)
    half, sine = 1 - np.cos(phis), np.sin(phis)
    exact = {
        "gamma": gaussian_gamma(phis, k),
        "smoothness": gaussian_smoothness(phis, k),
        "beta": ((phis + sine) / k + (1 - 1 / k) * half / 2) / (2 * np.pi),
        "cross": (1 - 1 / k) * (sine + half / 2) / (2 * np.pi),
    }
    for name, values in exact.items():
        deviation = np.abs(found[name].value - values)
        assert np.all(deviation <= 3 * found[name].standard_error), name
        assert np.all(found[name].standard_error < 0.05), name
        for w, phi in zip(found[name].filter, phis, strict=True):
            np.testing.assert_allclose(w @ np.asarray(W_STAR), np.cos(phi), atol=1e-14)


@pytest.mark.parametrize("k", [1, 2, 3, 8])
def test_beta_and_cross_are_the_smallest_that_the_assumptions_allow(k):
    phis = np.linspace(1e-3, np.pi / 2, 20001)
    half, sine = 1 - np.cos(phis), np.sin(phis)
    student = (phis + sine) / (2 * np.pi * k) + (1 - 1 / k) * half / (4 * np.pi)
    together = (1 - 1 / k) * (sine + half / 2) / (2 * np.pi)
    assert abs(gaussian_beta(2, k) / np.max(student / phis) - 1) < 1e-6
    np.testing.assert_allclose(gaussian_cross(k), np.max(together / phis), rtol=1e-8)
    if k > 1:  # Theorem 6.3 asks γ(φ_0) > 6 L_cross
        assert 6 * gaussian_cross(k) > gaussian_gamma(0.0, k)


def test_printed_betas_bound_the_smallest():
    """Theorem 6.7: 1 for 1/πp on the sphere; Theorem 6.8: p for 1/π of the Gaussian."""
    for p in (2, 10):
        np.testing.assert_allclose(gaussian_beta(p), 1 / np.pi)
        assert gaussian_beta(p, printed=True) == p
        np.testing.assert_allclose(sphere_moments(1.0, p).beta, 1 / (np.pi * p))
        assert sphere_moments(1.0, p, printed=True).beta == 1


def test_gamma_and_smoothness_differ_within_zero_and_pi(dtype):
    """Not γ(φ) = L(φ), as the text has it of rotation-invariant laws; both 0 at π."""
    phis = jnp.linspace(0, jnp.pi, 9, dtype=dtype)
    found = compiled(gaussian_moments)(phis)
    assert found.gamma.dtype == dtype
    difference = np.asarray(found.smoothness - found.gamma)
    assert np.all(difference[1:-1] > 0.1)
    np.testing.assert_allclose(difference[[0, -1]], 0, atol=1e-6)
    assert np.all(np.diff(found.gamma) < 0)
    assert np.all(np.diff(found.smoothness) < 0)
    assert float(found.gamma[-1]) == 0
    # The host's numbers are the traced ones.
    np.testing.assert_allclose(gaussian_gamma(np.asarray(phis)), found.gamma, atol=1e-6)


def within_three_errors(values, exact):
    """Of means of N numbers x in [0, 1], whose variance is at most E x."""
    return np.all(np.abs(np.asarray(values) - exact) < 3 * np.sqrt(np.asarray(exact) / N))


def test_sphere_against_monte_carlo():
    """In three dimensions every filter is as good as any other: no search is needed."""
    z = np.random.default_rng(3).normal(size=(N, 1, 3))
    z /= np.linalg.norm(z, axis=2, keepdims=True)
    phi, direction = 1.2, np.array([2.0, 1.0, 2.0]) / 3
    values = by_numpy(z, np.array([1.0, 2.0, -2.0]), phi, [direction])[:3, 0]
    exact = sphere_moments(phi, 3)
    student = (phi + np.sin(phi)) / (6 * np.pi)
    assert within_three_errors(values, [exact.gamma, exact.smoothness, student])


def test_angle_mixture_against_monte_carlo():
    z = compiled(lambda key: angle_mixture(key, N, W_STAR, 0.5)[:, None])(jax.random.key(7))
    phis = np.array([0.4, 1.0, np.pi / 2])
    exact = angle_mixture_moments(phis, 0.5)
    across = np.array([-0.8, 0.6])
    for i, phi in enumerate(phis):
        values = by_numpy(np.asarray(z), np.asarray(W_STAR), phi, [across, -across])
        for value in values.T:
            assert within_three_errors(value[:2], [exact.gamma[i], exact.smoothness[i]])
            assert value[2] < exact.beta * phi + 3 * np.sqrt(value[2] / N)
    assert value[2] > 0.9 * exact.beta * phi  # the largest ratio is near π/2


def test_smoother_mixtures_have_a_smaller_condition_number_and_beta_stays():
    sigmas = [0.05, 0.1, 0.3, 1.0, 3.0, 1e4]
    found = [angle_mixture_moments(1.0, sigma) for sigma in sigmas]
    assert np.all(np.diff([m.smoothness / m.gamma for m in found]) < 0)
    betas = 2 * np.pi * np.array([m.beta for m in found])
    assert np.all((betas > 0.83) & (betas < 1 + 1e-6))
    np.testing.assert_allclose(betas[[0, -1]], 1, atol=1e-3)
    for mine, theirs in zip(found[-1], sphere_moments(1.0, 2), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)
    traced = compiled(angle_mixture_moments)(1.0, 0.3)
    np.testing.assert_allclose(np.array(traced), np.array(found[2]), rtol=1e-10)


def test_the_table_decreases_ends_at_zero_and_takes_largest_ratios(dtype):
    z = np.random.default_rng(0).normal(size=(100, 1, 3)).astype(dtype)
    w_star, phis = np.array([1.0, -0.5, 0.2], dtype), np.linspace(0, np.pi, 8, dtype=dtype)

    @compiled
    def table(key):
        directions = system.cone_directions(key, w_star, 4)
        # With rounds the filters tried would differ between angles.
        return system.estimate_moments(z, w_star, phis, directions, rounds=0), directions

    found, directions = jax.device_get(table(jax.random.key(1)))
    assert found.gamma.dtype == dtype
    slack = 100 * np.finfo(dtype).eps
    assert np.all(np.diff(found.gamma) < slack)
    assert np.all(np.diff(found.smoothness) < slack)
    assert found.gamma[-1] == found.smoothness[-1] == 0
    assert found.gamma[0] > 0.1
    assert found.cross == 0
    each = np.array([by_numpy(z, w_star, p, directions) for p in phis])
    rtol = 1e-4 if dtype == "float32" else 1e-9
    np.testing.assert_allclose(found.gamma[:-1], each[:-1, 0].min(axis=1), rtol=rtol)
    np.testing.assert_allclose(found.smoothness[:-1], each[:-1, 1].max(axis=1), rtol=rtol)
    np.testing.assert_allclose(found.beta, max(each[1:4, 2].max(axis=1) / phis[1:4]), rtol=rtol)


def test_gamma_may_grow_where_patches_overlap():
    """Z_1 = (cos t, sin t), Z_2 = (cos t, −sin t): γ(0) = 0, for ++ averages out the sines."""
    t = 2 * np.pi * (np.arange(400) + 0.5) / 400
    z = np.stack([np.stack([np.cos(t), s * np.sin(t)], axis=1) for s in (1, -1)], axis=1)
    w_star, both = np.array([1.0, 0.0]), np.array([[0.0, 1.0], [0.0, -1.0]])
    gamma = [by_numpy(z, w_star, phi, both)[0].min() for phi in (0.0, 0.5, np.pi / 2)]
    assert gamma[0] < 1e-16
    assert gamma[1] > 0.005
    np.testing.assert_allclose(gamma[2], (np.pi / 4 - 1 / 2) / (4 * np.pi), rtol=1e-3)


def test_equal_patches_have_no_cross_terms_and_the_moments_of_one():
    z, found = gaussian(1)
    assert not np.any(found["cross"].value)
    across = np.array([-0.8, 0.6])
    one = by_numpy(z[:, :1], np.asarray(W_STAR), PHIS[1], [across, -across])
    np.testing.assert_allclose(found["gamma"].value[1], one[0].min(), rtol=1e-12)
    np.testing.assert_allclose(found["smoothness"].value[1], one[1].max(), rtol=1e-12)
    np.testing.assert_allclose(found["beta"].value[1], one[2].max(), rtol=1e-12)


def test_eigenvalues_of_the_cross_matrices_bound_nothing():
    """Assumption 6.3 prints λ_max: about 0 for independent patches, beside norms of 0.1."""
    z = np.random.default_rng(3).normal(size=(N, 3, 2))
    w_star = np.array([0.6, 0.8])
    both, student, teacher = by_region(
        z, np.sin(1) * np.array([-0.8, 0.6]) + np.cos(1) * w_star, w_star
    )
    for a, b in [(both, student), (both, teacher), (student, teacher)]:
        matrix = a.T @ b / N
        assert np.linalg.eigvals(matrix).real.max() < 0.004
        assert np.linalg.norm(matrix, 2) > 0.02


def test_the_search_finds_the_extremes_of_a_fine_grid():
    """In three dimensions the cone is a circle: 120 filters on it, and 16 refined ones."""
    z = np.random.default_rng(2).normal(size=(1000, 2, 3)) * np.array([1.0, 0.3, 2.0])
    w_star, phi = np.array([1.0, 1.0, -1.0]), 1.0
    first, second = np.array([1.0, -1.0, 0.0]) / 2**0.5, np.array([1.0, 1.0, 2.0]) / 6**0.5
    turns = np.linspace(0, 2 * np.pi, 120, endpoint=False)[:, None]

    @compiled
    def run(z):
        directions = system.cone_directions(jax.random.key(3), w_star, 16)
        return directions, estimates(z, jnp.asarray(w_star), phi, directions, rounds=6)

    few, found = jax.tree.map(np.asarray, run(z))
    np.testing.assert_allclose(few @ w_star, np.zeros(16), atol=1e-14)
    found = np.array([found[name].value for name in QUANTITIES])
    grid = np.cos(turns) * first + np.sin(turns) * second
    fine, coarse = (by_numpy(z, w_star, phi, directions) for directions in (grid, few))
    sign = np.array([-1, 1, 1, 1])
    best, start = (np.max(sign[:, None] * values, axis=1) for values in (fine, coarse))
    assert np.all(sign * found > best - 0.01 * np.abs(best))
    assert np.all(sign * found >= start - 1e-12)
    assert np.sum(sign * found > start + 1e-6) >= 2


def test_the_four_estimates_are_those_of_the_search(monkeypatch):
    """β and L_cross per φ; what the search finds is held against NumPy above."""
    asked = []

    def found(names, *given):
        asked.append((names, given))
        return {names[0]: Estimate(3.0, 1.0, w_star)}

    monkeypatch.setattr(system, "search", found)
    z, w_star, across = np.ones((5, 2, 3)), np.array([0.0, 0.0, 2.0]), np.eye(3)[:2]
    for name in QUANTITIES:
        held_out = None if name == "gamma" else 2 * z
        estimate = getattr(system, f"estimate_{name}")
        one = estimate(z, w_star, 0.5, across, rounds=4, held_out=held_out)
        share = 0.5 if name in ("beta", "cross") else 1.0
        assert one[:2] == (3.0 / share, 1.0 / share)
        names, given = asked.pop()
        assert names == (name,)
        for mine, theirs in zip(given, (z, w_star, 0.5, across, 4, held_out), strict=True):
            np.testing.assert_array_equal(mine, z if theirs is None else theirs)


def test_estimates_err_on_the_side_that_is_claimed():
    """Means over 2000 sets of 20 samples, in units of their standard errors."""
    sets = 2000
    z = np.random.default_rng(9).normal(size=(sets, 2, 20, 1, 2))
    phi = 1.0
    names, across = QUANTITIES[:3], np.array([[-0.8, 0.6], [0.8, -0.6]])

    @compiled
    @jax.vmap
    def run(z):
        _, values = best(names, z[0], W_STAR, phi, across, 0)
        return values, search(names, z[0], W_STAR, phi, across, 0, z[1])

    values, held_out = jax.device_get(run(z))
    plain = dict(zip(names, np.asarray(values).T, strict=True))
    for name, exact, side in [
        ("gamma", gaussian_gamma(phi), -1),
        ("smoothness", gaussian_smoothness(phi), 1),
        ("beta", (phi + np.sin(phi)) / (2 * np.pi), 1),
    ]:
        for values, sign, least in [(plain[name], side, 3), (held_out[name].value, -side, 0)]:
            excess = sign * (values.mean() - exact) / (values.std() / np.sqrt(sets))
            assert excess > least, (name, sign)
        # Of held-out samples the stated error is the whole one, whatever they were judged by.
        values, errors = (np.asarray(a) for a in held_out[name][:2])
        assert 0.9 < np.sqrt(np.mean(errors**2)) / values.std() < 1.1


def test_what_is_not_a_number_stays_so_in_a_trace():
    """Of a filter NaN no patch lies in any region: the means alone would be 0."""
    z, across = np.ones((4, 1, 2)), np.array([[-0.8, 0.6]])

    @compiled
    def run(z, phi):
        names = ("gamma",)
        _, values = best(names, z, W_STAR, phi, across, 0)
        return values[0], search(names, z, W_STAR, phi, across, 0, z)["gamma"].value

    for z_given, phi in [(z, np.nan), (np.full_like(z, np.nan), 1.0)]:
        assert np.isnan(run(z_given, phi)).all()
    assert np.isfinite(run(z, 1.0)).all()


def test_mixtures_keep_the_dtype_of_what_has_one():
    number = jax.ShapeDtypeStruct((), "float32")
    for given in (lambda x: angle_mixture_moments(x, 0.5), lambda x: angle_mixture_moments(1.0, x)):
        found = jax.eval_shape(given, number)
        assert found.gamma.dtype == found.smoothness.dtype == found.beta.dtype == "float32"


def test_errors_say_what_is_wrong():
    z, w_star, across = np.ones((4, 1, 2)), np.array([0.6, 0.8]), np.array([[-0.8, 0.6]])
    with pytest.raises(ValueError, match=r"phi is 4\.0; expected an angle in \[0, π\]"):
        system.estimate_gamma(z, w_star, 4.0, across)
    with pytest.raises(ValueError, match=r"phi is 2\.0; expected an angle in \(0, π/2\]"):
        system.estimate_beta(z, w_star, 2.0, across)
    with pytest.raises(ValueError, match=r"phi has shape \(2,\); expected one number"):
        system.estimate_smoothness(z, w_star, np.ones(2), across)
    with pytest.raises(ValueError, match=r"no angle in \(0, π/2\]"):
        system.estimate_moments(z, w_star, np.array([0.0, 2.0]), across)
    with pytest.raises(ValueError, match="w_star is 0"):
        system.estimate_gamma(z, 0 * w_star, 1.0, across)
    with pytest.raises(ValueError, match=r"w_star has shape \(1,\); expected \(p,\) with p ≥ 2"):
        system.cone_directions(jax.random.key(0), np.ones(1), 3)
    with pytest.raises(ValueError, match=r"directions have shape \(2, 3\)"):
        system.estimate_gamma(z, w_star, 1.0, np.ones((2, 3)))
    with pytest.raises(ValueError, match="directions holds NaN"):
        system.estimate_gamma(z, w_star, 1.0, np.full((1, 2), np.nan))
    with pytest.raises(ValueError, match="phi holds NaN"):
        system.estimate_gamma(z, w_star, np.nan, across)
    with pytest.raises(ValueError, match="phis holds NaN"):
        system.estimate_moments(z, w_star, np.array([np.nan, 1.0]), across)
    with pytest.raises(ValueError, match=r"held_out has shape \(4, 2, 2\) and z \(4, 1, 2\)"):
        system.estimate_gamma(z, w_star, 1.0, np.eye(2), held_out=np.ones((4, 2, 2)))
    with pytest.raises(ValueError, match=r"direction has shape \(1,\) and w_star \(2,\)"):
        system.at_angle(w_star, 1.0, np.ones(1))
    with pytest.raises(ValueError, match=r"k is 2\.0; expected a whole number"):
        gaussian_cross(2.0)
    with pytest.raises(ValueError, match="k is 3; Theorem"):
        gaussian_beta(2, 3, printed=True)
    with pytest.raises(ValueError, match="p is 1; expected at least 2"):
        sphere_moments(1.0, 1)
    with pytest.raises(ValueError, match=r"sigma is 0\.0"):
        angle_mixture_moments(1.0, 0.0)
