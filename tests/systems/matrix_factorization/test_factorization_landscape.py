"""The Hessian form, stationary points, and Lemma 4.2 with every step of its proof."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled

from ntkflow.systems import matrix_factorization as system
from ntkflow.systems.matrix_factorization import Landscape

VALUES = [3.0, 2.0, 0.5]


def normal(seed, *shape, dtype="float64"):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def target(dtype="float64"):
    random = np.random.default_rng(10)
    left, right = (np.linalg.qr(random.normal(size=(d, 3)))[0] for d in (6, 5))
    return jnp.asarray(left * np.array(VALUES) @ right.T, dtype)


landscape = compiled(system.landscape)
hessian_eigenvalues = compiled(system.hessian_eigenvalues)


def saddles():
    return [c for size in range(3) for c in itertools.combinations(range(3), size)]


@compiled
def _stationary_points(m, scale):
    return [system.stationary_point(m, 3, c, scale=scale) for c in (*saddles(), None)]


def stationary_points(scale=1.0):
    """By the singular vectors chosen; None is the global minimum."""
    found = jax.device_get(_stationary_points(target(), scale))
    return dict(zip((*saddles(), None), found, strict=True))


@pytest.mark.quick
def test_the_hessian_form_is_the_second_derivative(dtype):
    params = {"u": normal(0, 4, 2, dtype=dtype), "v": normal(1, 3, 2, dtype=dtype)}
    along = {"u": normal(2, 4, 2, dtype=dtype), "v": normal(3, 3, 2, dtype=dtype)}
    m = normal(4, 4, 3, dtype=dtype)

    def line(s):
        return system.objective(jax.tree.map(lambda p, a: p + s * a, params, along), m)

    both = compiled(lambda s: (system.hessian_form(params, along, m), jax.grad(jax.grad(line))(s)))
    assert_close(*both(jnp.zeros((), dtype)))


def test_eigenvalues_of_the_hessian_bound_the_form():
    params, m = {"u": normal(0, 6, 3), "v": normal(1, 5, 3)}, normal(4, 6, 5)
    eigenvalues = np.asarray(hessian_eigenvalues(params, m))
    assert eigenvalues.shape == (33,)
    assert (np.diff(eigenvalues) >= 0).all()
    along = {"u": normal(5, 40, 6, 3), "v": normal(6, 40, 5, 3)}
    size = sum(np.sum(np.square(part), axis=(1, 2)) for part in along.values())
    form = jax.vmap(system.hessian_form, in_axes=(None, 0, None))
    forms = np.asarray(compiled(form)(params, along, m)) / size
    assert eigenvalues[0] <= min(forms) < max(forms) <= eigenvalues[-1]
    # Trace: ‖V‖² for each row of U, ‖U‖² for each row of V.
    u, v = (np.asarray(factor) for factor in params.values())
    trace = 6 * np.sum(v**2) + 5 * np.sum(u**2)
    np.testing.assert_allclose(eigenvalues.sum(), trace, rtol=1e-12)


@pytest.mark.quick
@pytest.mark.parametrize("scale", [1.0, 1.005])
def test_every_saddle_is_strict_and_the_certificate_says_so(scale):
    """All seven subsets of singular vectors but the whole; balanced, and slightly not so."""
    m, epsilon = target(), 0.08
    points = stationary_points(scale)
    for chosen in saddles():
        point = jax.device_get(landscape(points[chosen], m))
        certificate = system.certificate_stationary_point(point, epsilon)
        assert certificate.applies, chosen
        assert certificate.holds, chosen
        missing = np.linalg.norm([VALUES[i] for i in range(3) if i not in chosen])
        np.testing.assert_allclose(point.error, missing, rtol=1e-10)
        assert point.error > epsilon
        assert point.curvature <= -(missing**2) + point.imbalance**2 / 2 + 1e-12
        assert point.curvature <= -(epsilon**2) / 2
        assert (float(point.imbalance) > 0.004) == (scale != 1.0 and chosen != ())


def test_the_least_eigenvalue_of_saddles_and_minima():
    m, points = target(), stationary_points()
    for chosen in saddles():
        least = np.asarray(hessian_eigenvalues(points[chosen], m))[0]
        missing = max(VALUES[i] for i in range(3) if i not in chosen)
        np.testing.assert_allclose(least, -missing, rtol=1e-10)  # along both singular vectors
    minimum = np.asarray(hessian_eigenvalues(points[None], m))
    assert abs(minimum[0]) < 1e-12


@pytest.mark.parametrize("scale", [1.0, 1.3])
def test_a_global_minimum_takes_the_other_branch(scale):
    m = target()
    params = stationary_points(scale)[None]
    assert_close(params["u"] @ params["v"].T, m)
    point = jax.device_get(landscape(params, m))
    epsilon = float(point.imbalance) + 1e-3
    certificate = system.certificate_stationary_point(point, epsilon)
    assert certificate.applies
    assert certificate.holds
    assert point.error < 1e-12
    assert point.curvature >= 0


def test_more_columns_than_the_rank_and_than_the_dimensions():
    m, points = target(), stationary_points()
    for chosen in saddles():
        saddle = points[chosen]
        turn = np.linalg.qr(np.random.default_rng(8).normal(size=(8, 8)))[0]
        wide = {name: np.pad(factor, ((0, 0), (0, 5))) @ turn for name, factor in saddle.items()}
        certificate = system.certificate_stationary_point(landscape(wide, m), 0.05)
        assert certificate.applies
        assert certificate.holds


def test_fewer_columns_than_the_rank_are_beyond_the_lemma():
    """The best approximation of rank 1 is a local minimum, not ε-accurate: the hypothesis fails."""
    m = target()
    point = compiled(lambda m: system.landscape(system.stationary_point(m, 1), m))(m)
    certificate = system.certificate_stationary_point(point, 0.1)
    assert not certificate.applies
    assert not certificate.holds
    rows = {row["statement"]: row["holds"] for row in certificate.rows()}
    assert rows["rank M* ≤ r"] == 0
    np.testing.assert_allclose(point.excess_rank, 2.0, rtol=1e-12)


def test_the_steps_of_the_proof_hold_at_any_point(dtype):
    """Written with ⟨∇f, Δ⟩, which stationary points lack, they are identities everywhere."""
    m = target(dtype)
    points = {"u": normal(5, 40, 6, 3, dtype=dtype), "v": 0.3 * normal(6, 40, 5, 3, dtype=dtype)}
    both = lambda p: (  # noqa: E731
        system.landscape(p, m),
        system.hessian_form(p, system.escape_direction(p, m), m),
    )
    record, form = compiled(jax.vmap(both))(points)
    certificate = system.certificate_stationary_point(record, 0.1)
    assert record.error.shape == (40,)
    assert not certificate.applies
    for claim in certificate.claims[:-1]:
        assert claim.holds, claim.statement
    # Without that term Claim 4.4 is false away from stationary points.
    assert np.abs(record.first_term + record.error**2).max() > 1
    assert_close(record.curvature, form, factor=1000)


def test_the_rotation_is_the_nearest_one():
    reference = stationary_points()[None]
    turn = np.linalg.qr(np.random.default_rng(7).normal(size=(3, 3)))[0]
    turned = {name: factor @ turn for name, factor in reference.items()}
    assert_close(system.procrustes(turned, reference), turn)
    point = {"u": normal(8, 6, 3), "v": normal(9, 5, 3)}
    best = np.asarray(system.procrustes(point, reference))
    assert_close(best @ best.T, np.eye(3))

    point, reference = (
        {name: np.asarray(factor) for name, factor in pair.items()} for pair in (point, reference)
    )

    def distance(rotation):
        return sum(np.sum((point[n] - reference[n] @ rotation) ** 2) for n in point)

    for seed in range(20):
        other = np.linalg.qr(best + 0.1 * np.random.default_rng(seed).normal(size=(3, 3)))[0]
        other = other * np.sign(np.diagonal(other.T @ best))[None, :]
        assert distance(best) <= distance(other)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: system.stationary_point(m, 6), "rank is 6; expected at most 5"),
        (lambda m: system.stationary_point(m, 2, [0, 1, 2]), r"chosen is \[0, 1, 2\]; .*most 2"),
        (lambda m: system.stationary_point(m, 2, [0, 0]), "distinct numbers from 0 to 4"),
        (lambda m: system.stationary_point(m, 2, [7]), "from 0 to 4"),
        (lambda m: system.stationary_point(m, 2, 1), "chosen is 1; expected at most 2 distinct"),
        (lambda m: system.stationary_point(m, 2, [0.5]), r"chosen is \[0.5\]"),
        (lambda m: system.stationary_point(m, 2, scale=0.0), "scale is 0.0"),
        (
            lambda m: system.hessian_form(
                {"u": jnp.ones((6, 2)), "v": jnp.ones((5, 2))},
                {"u": jnp.ones((5, 2)), "v": jnp.ones((6, 2))},
                m,
            ),
            r"direction holds shapes \(5, 2\) and \(6, 2\); expected those of params, \(6, 2\)",
        ),
        (
            lambda m: system.procrustes(
                {"u": jnp.ones((6, 2)), "v": jnp.ones((5, 2))},
                {"u": jnp.ones((6, 1)), "v": jnp.ones((5, 1))},
            ),
            r"reference holds shapes \(6, 1\)",
        ),
        (lambda m: system.certificate_stationary_point({}, 0.1), "point is of type dict"),
        (
            lambda m: system.certificate_stationary_point(Landscape(*[0.0] * 12), -0.1),
            "epsilon is -0.1",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(target())


def test_half_precision():
    """Decompositions are made in float32, results have the dtype of the input."""
    m = target("bfloat16")

    @compiled
    def both(m):
        saddle = system.stationary_point(m, 3, [0])
        return saddle, system.landscape(saddle, m)

    saddle, point = both(m)
    assert {leaf.dtype for leaf in jax.tree.leaves((saddle, point))} == {m.dtype}
    assert abs(float(point.error) - np.hypot(2.0, 0.5)) < 0.1
    assert system.certificate_stationary_point(point, 0.5).claims[-1].holds
