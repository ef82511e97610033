"""Theorems 5.1 and 5.2, against Monte Carlo, autodiff and the arc-cosine kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled, samples

from ntkflow.kernels.arccos import arccos_kernel
from ntkflow.systems.weight_normalized_filter.network import Teacher, sampled_loss, teacher_outputs
from ntkflow.systems.weight_normalized_filter.observables import observables
from ntkflow.systems.weight_normalized_filter.population import (
    angle,
    cross_matrix,
    inverse_overlap,
    moment_matrix,
    overlap_function,
    population_gradients,
    population_loss,
    wedge_moments,
    wedge_product,
)
from ntkflow.training.descent import descend

K, P = 4, 3
# Norms and signs that no two mistakes cancel on, and sums of output layers that are not small.
TEACHER = Teacher(np.array([1.2, -0.4, 0.9]), np.array([1.5, 0.7, -0.6, 1.1]))
POINT = {"params": {"filter": np.array([0.3, 0.8, 1.1]), "output": np.array([0.9, -1.3, 2.2, 1.4])}}
# About φ = 1.07, ℓ = 3.29, printed 15.1: of this many samples the standard error is 0.06.
N = 10_000

angles = compiled(jax.vmap(angle))
both_losses = compiled(lambda *point: [population_loss(*point, printed=p) for p in (False, True)])


def loss_at(variables, teacher, printed=False):
    return both_losses(variables, teacher)[printed]


def at_angle(phi, dtype="float64", length=1.7):
    """v at the angle φ of w*, in the plane of w* and the first axis."""
    w = np.asarray(TEACHER.filter, float)
    unit = w / np.linalg.norm(w)
    across = np.eye(P)[0] - unit[0] * unit
    across /= np.linalg.norm(across)
    return jnp.asarray(length * (np.cos(phi) * unit + np.sin(phi) * across), dtype)


def cast(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def g(phi):
    return (np.pi - phi) * np.cos(phi) + np.sin(phi)


def theorem_51(variables, teacher, share=1 / (2 * np.pi)):
    """(5.3) term by term; `share` is the factor of the last one, 1 in print."""
    v, a = (np.asarray(variables["params"][name], float) for name in ("filter", "output"))
    w, b = (np.asarray(part, float) for part in teacher)
    size = np.linalg.norm(w)
    phi = np.arccos(np.clip(v @ w / np.linalg.norm(v) / size, -1, 1))
    terms = [
        (np.pi - 1) * size**2 / (2 * np.pi) * b @ b,
        (np.pi - 1) / (2 * np.pi) * a @ a,
        -2 * (g(phi) - 1) * size / (2 * np.pi) * a @ b,
        size**2 / (2 * np.pi) * b.sum() ** 2,
        a.sum() ** 2 / (2 * np.pi),
        -2 * size * a.sum() * b.sum() * share,
    ]
    return sum(terms) / 2


def theorem_52(variables, teacher):
    v, a = (np.asarray(variables["params"][name], float) for name in ("filter", "output"))
    w, b = (np.asarray(part, float) for part in teacher)
    size, k = np.linalg.norm(w), len(a)
    phi = np.arccos(np.clip(v @ w / np.linalg.norm(v) / size, -1, 1))
    unit = v / np.linalg.norm(v)
    along_v = -(a @ b) * (np.pi - phi) / (2 * np.pi * np.linalg.norm(v)) * (w - unit * (unit @ w))
    ones, eye = np.ones((k, k)), np.eye(k)
    along_a = ((ones + (np.pi - 1) * eye) @ a - (ones + (g(phi) - 1) * eye) @ b * size) / 2 / np.pi
    return {"filter": along_v, "output": along_a}


@pytest.mark.quick
def test_angles_near_0_and_pi(dtype):
    """Vectors along the axes: the angle is known exactly, and arccos would give 0 or π."""
    eps = np.finfo(dtype).eps
    tiny = np.repeat(np.array([0.0, eps**2, eps, 1e-3, 0.5], dtype), 10)
    v, w = np.zeros((2, 50, 6), dtype)  # the shape of the next test, which shares the program
    v[:, 0] = 3.0
    w[:, 0], w[:, 1] = 5 * np.cos(tiny), 5 * np.sin(tiny)
    exact = np.arctan2(w[:, 1].astype(float), w[:, 0].astype(float))
    small, large, rest = angles(v, w), angles(v, -w), angles(-v, -w)
    assert small.dtype == dtype
    np.testing.assert_allclose(small, exact, rtol=4 * eps)
    np.testing.assert_allclose(large, np.pi - exact, rtol=2 * eps)
    np.testing.assert_array_equal(rest, small)
    assert np.arccos(np.cos(tiny[20])) == 0


def test_angles_of_general_vectors_to_rounding(dtype):
    v, w = samples(0, 50, 6, dtype=dtype), samples(1, 50, 6, dtype=dtype)
    wide_v, wide_w = (np.asarray(x, np.longdouble) for x in (v, w))
    wide_v, wide_w = (x / np.sqrt((x**2).sum(1))[:, None] for x in (wide_v, wide_w))
    # Kahan's formula, another stable one.
    halves = (np.sqrt(((wide_v + s * wide_w) ** 2).sum(1)) for s in (-1, 1))
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(angles(v, w), 2 * np.arctan2(*halves), atol=8 * eps)
    # Parallel vectors that were rounded apart.
    for scale, expected in ((1 / 3, 0.0), (-7.0, np.pi)):
        parallel = (scale * np.asarray(v)).astype(dtype)
        np.testing.assert_allclose(angles(v, parallel), expected, atol=8 * eps)


def test_the_derivative_of_the_angle():
    v, w = (np.asarray(x) for x in (POINT["params"]["filter"], TEACHER.filter))

    def one_angle(v, w):
        return np.arctan2(np.linalg.norm(np.cross(v, w)), v @ w)

    gradient = compiled(jax.grad(angle, argnums=(0, 1)))
    found = np.stack(gradient(v, w))
    for axis in range(P):
        step = 1e-6 * np.eye(P)[axis]
        difference = [
            (one_angle(v + step, w) - one_angle(v - step, w)) / 2e-6,
            (one_angle(v, w + step) - one_angle(v, w - step)) / 2e-6,
        ]
        np.testing.assert_allclose(found[:, axis], difference, rtol=1e-8)
    axis = np.array([2.0, 0.0, 0.0])
    for end in (axis, -axis):  # there is none; what stands there is finite
        assert (np.asarray(gradient(axis, end)) == 0).all()


@pytest.mark.quick
def test_the_overlap_function_and_its_inverse(dtype):
    phi = np.linspace(0, np.pi, 41).astype(dtype)
    one = np.ones_like(phi)

    @compiled
    def everything(phi):
        values = overlap_function(phi)
        back = inverse_overlap(values)
        outside = inverse_overlap(jnp.array([-0.1, 3.2], dtype))
        kernel = np.pi * arccos_kernel(1, one, one, jnp.cos(phi))
        return values, kernel, back, overlap_function(back), outside

    values, kernel, back, again, outside = everything(phi)
    assert values.dtype == dtype
    assert_close(values, kernel)
    assert (np.diff(np.asarray(values)) < 0).all()
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(again, values, atol=8 * eps)
    # g' = −(π − φ) sin φ vanishes at both ends, to the third order at π.
    assert np.abs(np.asarray(back) - phi).max() < 8 * eps ** (1 / 3)
    assert np.abs(np.asarray(back) - phi)[5:-5].max() < 200 * eps
    assert np.isnan(np.asarray(outside)).all()


def test_the_derivative_of_the_inverse_is_that_of_g():
    slope, at_ends = compiled(
        lambda value, ends: (
            jax.grad(inverse_overlap)(value),
            jax.vmap(jax.grad(inverse_overlap))(ends),
        )
    )(g(1.2), np.array([0.0, np.pi]))
    np.testing.assert_allclose(slope, -1 / ((np.pi - 1.2) * np.sin(1.2)), rtol=1e-12)
    assert (np.asarray(at_ends) < -1e6).all()


@pytest.mark.quick
def test_the_loss_is_53_with_its_last_factor(dtype):
    variables, teacher = cast(POINT, dtype), cast(TEACHER, dtype)
    found = loss_at(variables, teacher)
    assert found.dtype == dtype
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(found, theorem_51(POINT, TEACHER), rtol=20 * eps)
    printed = loss_at(variables, teacher, printed=True)
    np.testing.assert_allclose(printed, theorem_51(POINT, TEACHER, share=1.0), rtol=20 * eps)


@pytest.fixture(scope="module")
def sampled():
    """Losses and gradients of N samples, one by one."""
    z = np.random.default_rng(0).normal(size=(N, K, P))

    def one(z):
        z = z[None]
        return jax.value_and_grad(sampled_loss)(POINT, (z, teacher_outputs(TEACHER, z)))

    return jax.tree.map(np.asarray, compiled(jax.vmap(one))(z))


def within_three_errors(rows, exact):
    error = rows.std(axis=0) / np.sqrt(len(rows))
    return (np.abs(rows.mean(axis=0) - np.asarray(exact)) <= 3 * error).all()


def test_the_loss_against_monte_carlo_and_the_printed_one(sampled):
    losses, _ = sampled
    assert within_three_errors(losses, loss_at(POINT, TEACHER))
    printed = loss_at(POINT, TEACHER, printed=True)
    assert abs(float(printed) - losses.mean()) > 5


def test_the_gradients_against_monte_carlo(sampled):
    _, gradients = sampled
    exact = by_hand(POINT, TEACHER)["params"]
    for name, rows in gradients["params"].items():
        assert within_three_errors(rows, exact[name])
        assert not within_three_errors(rows, -exact[name])


PHIS = [0.0, 1e-9, 1e-3, 1.0, np.pi / 2, 2.5, np.pi - 1e-3, np.pi - 1e-9, np.pi]
slopes_at = compiled(
    lambda *point: (jax.grad(population_loss)(*point), population_gradients(*point))
)


def by_hand(variables, teacher):
    return slopes_at(variables, teacher)[1]


@pytest.mark.quick
@pytest.mark.parametrize("output", [POINT["params"]["output"], np.zeros(K)])
def test_gradients_at_every_angle(output, dtype):
    """Autodiff and by hand: Theorem 5.2, also at φ = 0, φ = π and a = 0."""
    teacher = cast(TEACHER, dtype)
    for phi in PHIS:
        variables = {"params": {"filter": at_angle(phi, dtype), "output": output.astype(dtype)}}
        expected = theorem_52(variables, teacher)
        for found in slopes_at(variables, teacher):
            for name, values in found["params"].items():
                assert values.dtype == dtype
                assert_close(values, expected[name].astype(dtype), scale=5.0, factor=20)


def test_gradients_at_exactly_parallel_and_antiparallel_filters(dtype):
    teacher = cast(TEACHER, dtype)
    for sign in (1, -1):
        variables = {
            "params": {
                "filter": sign * 0.5 * teacher.filter,
                "output": POINT["params"]["output"].astype(dtype),
            }
        }
        for found in slopes_at(variables, teacher):
            largest = np.abs(found["params"]["filter"]).max()
            assert largest <= 8 * np.finfo(dtype).eps * (sign > 0) + np.finfo(dtype).eps ** 2


def test_the_gradient_of_the_filter_near_pi_keeps_its_relative_precision():
    """(π − φ) sin φ ≈ δ², which decides how fast a run nears the spurious minimum."""
    w, delta = np.array([1.0, 0.0, 0.0]), 1e-7
    variables = {
        "params": {"filter": np.array([-1.0, delta, 0.0]), "output": POINT["params"]["output"]}
    }
    overlap = POINT["params"]["output"] @ TEACHER.output
    for found in slopes_at(variables, Teacher(w, TEACHER.output)):
        slope = found["params"]["filter"][1]
        np.testing.assert_allclose(slope, -overlap * delta**2 / (2 * np.pi), rtol=1e-10)


def test_the_gradient_of_the_filter_is_orthogonal_to_it(dtype):
    variables = cast(POINT, dtype)
    slope = by_hand(variables, cast(TEACHER, dtype))["params"]["filter"]
    inner = float(np.asarray(slope) @ variables["params"]["filter"])
    assert abs(inner) < 8 * np.finfo(dtype).eps


def test_second_derivatives():
    """Against differences of the gradient; at φ = 0 and π against the closed form."""
    hessian = compiled(
        lambda v, a: jax.hessian(
            lambda v: population_loss({"params": {"filter": v, "output": a}}, TEACHER)
        )(v)
    )
    a, v = POINT["params"]["output"], POINT["params"]["filter"]

    def slope(v):
        return by_hand({"params": {"filter": v, "output": a}}, TEACHER)["params"]["filter"]

    found = np.asarray(hessian(v, a))
    for axis in range(P):
        step = 1e-6 * np.eye(P)[axis]
        np.testing.assert_allclose(
            found[axis], (slope(v + step) - slope(v - step)) / 2e-6, atol=1e-8
        )
    w = np.asarray(TEACHER.filter)
    size = np.linalg.norm(w)
    curvature = a @ TEACHER.output * size / 2  # of g ≈ π − (π/2) φ²
    across = np.eye(P) - np.outer(w, w) / size**2
    np.testing.assert_allclose(hessian(2 * w, a), curvature * across / (2 * size) ** 2, atol=1e-14)
    np.testing.assert_allclose(hessian(-2 * w, a), 0, atol=1e-14)


def test_small_losses_do_not_cancel():
    """Near the minimum float32 gives the loss of its inputs, of size 1e-9, to some digits."""
    variables = {
        "params": {
            "filter": (TEACHER.filter + 3e-5 * np.array([1.0, -1.0, 0.5])).astype("float32"),
            "output": (np.linalg.norm(TEACHER.filter) * TEACHER.output).astype("float32"),
        }
    }
    exact = loss_at(cast(variables, "float64"), cast(cast(TEACHER, "float32"), "float64"))
    found = loss_at(variables, cast(TEACHER, "float32"))
    assert 1e-10 < float(exact) < 1e-8
    np.testing.assert_allclose(found, exact, rtol=0.02)
    assert abs(np.float32(theorem_51(variables, TEACHER)) - exact) < 1e-7  # float64 can do either


def test_the_matrices_give_the_loss_and_its_gradients():
    """ℓ = ½ (a*ᵀA(w*)a* + aᵀA(w)a − 2aᵀB(w, w*)a*), whose ½ the proof of Theorem 5.1 drops."""
    a = POINT["params"]["output"]
    unit = POINT["params"]["filter"] / np.linalg.norm(POINT["params"]["filter"])
    w_star, a_star = TEACHER

    def loss(w, a):
        own = a @ moment_matrix(w, K) @ a + a_star @ moment_matrix(w_star, K) @ a_star
        return own / 2 - a @ cross_matrix(w, w_star, K) @ a_star

    value_and_slopes = jax.value_and_grad(loss, argnums=(0, 1))
    turn = jax.jacfwd(wedge_product)
    axis = np.array([2.0, 0.0, 0.0])
    (value, (along_w, along_a)), product, flat = compiled(
        lambda w, a: (
            value_and_slopes(w, a),
            wedge_product(w, w_star),
            (turn(axis, axis), turn(axis, -axis)),  # 0, where that of the angle has no limit
        )
    )(unit, a)
    assert np.abs(flat).max() < 1e-15
    assert_close(value, loss_at(POINT, TEACHER))
    assert_close(along_a, by_hand(POINT, TEACHER)["params"]["output"])

    # Without normalization: the second and third term, printed with + in the proof of Theorem 5.2.
    a, unit, w_star, a_star, product = (np.asarray(x) for x in (a, unit, w_star, a_star, product))
    size = np.linalg.norm(w_star)
    phi = np.arccos(unit @ w_star / size)
    own = a @ a / 2 + (a.sum() ** 2 - a @ a) / (2 * np.pi)
    pairs = (a.sum() * a_star.sum() - a @ a_star) * size / (2 * np.pi)
    toward = (np.pi - phi) / (2 * np.pi) * w_star + np.sin(phi) * size / (2 * np.pi) * unit
    assert_close(product, toward)
    assert_close(along_w, own * unit - (a @ a_star) * toward - pairs * unit)


def test_algorithm_1_is_descend_on_the_population_loss():
    """Step by step, mapped over starts; and all curves of Figure 5.2 go to 0."""
    eta, steps = 0.3, 300
    observe = observables(TEACHER)
    descent = descend(population_loss, optax.sgd(eta), steps=steps, every=10, observe=observe)
    starts = jax.tree.map(lambda leaf: np.stack([leaf, 0.5 * leaf]), POINT)
    trajectory = compiled(jax.vmap(descent, in_axes=(0, None)))(starts, TEACHER)
    for run in range(2):
        variables = jax.tree.map(lambda leaf, run=run: leaf[run], starts)
        for step in range(41):
            if step % 10 == 0:
                found = trajectory.history["loss"][run, step // 10]
                np.testing.assert_allclose(found, theorem_51(variables, TEACHER), atol=1e-12)
            slopes = {"params": theorem_52(variables, TEACHER)}
            variables = jax.tree.map(lambda leaf, slope: leaf - eta * slope, variables, slopes)
    for name in ("angle", "output_error", "sum_error", "loss"):
        record = np.asarray(trajectory.history[name])
        assert record.shape == (2, 31)
        assert (record[:, -1] < 1e-6 * record[:, 0]).all()
    # ‖v‖ never falls, since the gradient is orthogonal to v.
    assert (np.diff(trajectory.history["filter_norm"], axis=1) > -1e-14).all()


def test_filters_with_one_entry():
    """There are two angles only, and no way between them."""
    variables = {"params": {"filter": np.array([-2.0]), "output": np.array([1.0])}}
    teacher = Teacher(np.array([1.0]), np.array([1.0]))
    loss, slopes = compiled(jax.value_and_grad(population_loss))(variables, teacher)
    np.testing.assert_allclose(loss, 0.5)  # ½ E z²
    assert slopes["params"]["filter"] == 0
    np.testing.assert_allclose(slopes["params"]["output"], 0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: angle(np.ones(2), np.ones(3)), r"shapes \(2,\) and \(3,\)"),
        (lambda: angle(np.zeros(2), np.ones(2)), "v is 0"),
        (lambda: overlap_function(4.0), r"angle is 4.0; expected an angle in \[0, π\]"),
        (lambda: wedge_moments(-0.1), "angle is -0.1"),
        (lambda: wedge_moments(np.ones(2)), r"phi has shape \(2,\); expected one number"),
        (lambda: moment_matrix(np.ones(2), 0), "k is 0"),
        (lambda: cross_matrix(np.ones(2), np.zeros(2), 3), "w is 0"),
        (lambda: population_loss(POINT, (np.ones(P), np.ones(K))), "teacher is of type tuple"),
        (
            lambda: population_loss(POINT, Teacher(np.ones(P), np.ones(K + 1))),
            r"output layer \(4,\), those of the teacher \(3,\) and \(5,\)",
        ),
        (
            lambda: population_gradients({"params": {"filter": np.zeros(P)}}, TEACHER),
            "missing: 'output'",
        ),
        (
            lambda: population_loss(
                {"params": {"filter": np.full(P, np.nan), "output": np.ones(K)}}, TEACHER
            ),
            "filter holds NaN",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
