"""Gradient by regions against autodiff; Gaussian closed forms against kernel and Monte Carlo."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled, samples

from ntkflow.kernels.arccos import arccos_kernel
from ntkflow.systems.convolutional_filter.network import predict
from ntkflow.systems.convolutional_filter.population import (
    angle,
    descent_terms,
    gaussian_gradient,
    gaussian_loss,
    gradient_terms,
    population_gradient,
    population_loss,
    regions,
)
from ntkflow.training.descent import descend

W, W_STAR = [0.7, -1.2, 0.4], [0.9, 0.3, -0.5]
CROSS = ("both_student", "both_teacher", "student_teacher")


def filters(dtype="float64"):
    return jnp.asarray(W, dtype), jnp.asarray(W_STAR, dtype)


def on_host(f):
    return jax.tree.map(np.asarray, compiled(f)())


@pytest.mark.quick
def test_the_assembled_gradient_is_autodiff_and_the_printed_one_is_not(dtype):
    w, w_star = filters(dtype)
    z = samples(0, 50, 4, 3, dtype=dtype).at[0].set(0)
    gradient, automatic, printed = compiled(
        lambda w: (
            population_gradient(w, w_star, z),
            jax.grad(population_loss)(w, w_star, z),
            population_gradient(w, w_star, z, printed=True),
        )
    )(w)
    assert gradient.dtype == dtype
    assert_close(gradient, automatic)
    assert np.linalg.norm(printed - automatic) > 0.1 * np.linalg.norm(automatic)


def test_regions_share_out_the_outputs():
    w, w_star = filters()
    z = samples(0, 50, 4, 3)
    parts, terms, outputs = on_host(
        lambda: (
            regions(w, w_star, z),
            gradient_terms(w, w_star, z),
            (predict(w, z), predict(w_star, z)),
        )
    )
    assert_close((parts.both + parts.student) @ np.asarray(w), outputs[0])
    assert_close((parts.both + parts.teacher) @ np.asarray(w_star), outputs[1])
    for name in CROSS:
        first, second = (getattr(parts, part) for part in name.split("_"))
        assert_close(getattr(terms, name), first.T @ second / 50)
    assert_close(terms.student, parts.student.T @ parts.student / 50)


@pytest.mark.parametrize("copies", [1, 3])
def test_one_patch_and_equal_patches_have_no_cross_terms(copies):
    w, w_star = filters()
    one = samples(0, 50, 1, 3)
    terms, alone, automatic = on_host(
        lambda: (
            gradient_terms(w, w_star, jnp.tile(one, (1, copies, 1))),
            gradient_terms(w, w_star, one),
            jax.grad(population_loss)(w, w_star, one),
        )
    )
    assert all(not np.any(getattr(terms, name)) for name in CROSS)
    assert_close(terms.both, alone.both)
    # Section 6.2: A_{w,w*}(w − w*) + A_{w,−w*} w.
    w, w_star = np.asarray(w), np.asarray(w_star)
    assert_close(terms.both @ (w - w_star) + terms.student @ w, automatic)


@pytest.mark.parametrize("k", [1, 4])
def test_the_parts_of_the_inner_product(k):
    """Lemma 6.1 of every single sample; the cross terms are 0 for k = 1 alone."""
    w, w_star = filters()
    z = samples(0, 50, k, 3)
    each, whole, gradient = on_host(
        lambda: (
            jax.vmap(descent_terms, in_axes=(None, None, 0))(w, w_star, z[:, None]),
            descent_terms(w, w_star, z),
            population_gradient(w, w_star, z),
        )
    )
    assert np.all(each.both >= 0)
    assert np.all(each.student >= 0)
    assert np.any(each.student > 0)
    assert np.any(each.cross != 0) == (k > 1)
    assert_close(sum(whole), (np.asarray(w) - np.asarray(w_star)) @ gradient)
    assert_close(whole.cross, each.cross.mean(), scale=1.0)


def by_kernel(w, w_star, k):
    """½ E(f − f*)² from E σσ' = ½ k₁ and E σ = ‖w‖/√2π, of independent patches."""
    norm, target = jnp.linalg.norm(w), jnp.linalg.norm(w_star)
    one = (norm**2 + target**2) / 4 - arccos_kernel(1, norm, target, w @ w_star) / 2
    return one / k + (1 - 1 / k) * (norm - target) ** 2 / (4 * jnp.pi)


@pytest.mark.quick
@pytest.mark.parametrize(("dtype", "k"), [("float32", 1), ("float64", 3)])
def test_gaussian_loss_and_gradient_are_those_of_the_arc_cosine_kernel(dtype, k):
    w, w_star = filters(dtype)

    @compiled
    def both(w):
        by_hand = gaussian_loss(w, w_star, k), gaussian_gradient(w, w_star, k)
        automatic = jax.value_and_grad(functools.partial(gaussian_loss, k=k), (0, 1))(w, w_star)
        kernel = jax.value_and_grad(functools.partial(by_kernel, k=k), (0, 1))(w, w_star)
        losses = (gaussian_loss, by_kernel) if dtype == "float64" else ()
        return by_hand, automatic, kernel, [jax.hessian(f)(w, w_star, k) for f in losses]

    by_hand, automatic, kernel, hessians = both(w)
    assert by_hand[1].dtype == dtype
    assert_close(by_hand[0], kernel[0])
    assert_close(automatic[0], kernel[0])
    assert_close(by_hand[1], automatic[1][0])
    for mine, theirs in zip(automatic[1], kernel[1], strict=True):
        assert_close(mine, theirs)
    if hessians:
        assert_close(*hessians, factor=1000)


@pytest.mark.parametrize("k", [1, 3])
def test_gaussian_loss_and_gradient_against_monte_carlo(k):
    n = 20000
    w, w_star = filters()
    z = np.random.default_rng(5).normal(size=(n, k, 3))
    active = z @ np.asarray(w) > 0
    errors = np.mean(np.maximum(z @ np.array(W), 0) - np.maximum(z @ np.array(W_STAR), 0), axis=1)
    gradients = errors[:, None] * np.mean(active[:, :, None] * z, axis=1)
    exact = on_host(lambda: (gaussian_loss(w, w_star, k), gaussian_gradient(w, w_star, k)))
    for drawn, expected in zip((errors**2 / 2, gradients), exact, strict=True):
        deviation = np.abs(drawn.mean(axis=0) - expected)
        assert np.all(deviation < 3 * drawn.std(axis=0) / np.sqrt(n))


def test_gaussian_derivatives_where_the_angle_has_none(dtype):
    """At φ = 0 and π: (w − w*)/2 and w/2, and the Hessian I/2; at w = 0 the mean, −w*/4."""
    _, w_star = filters(dtype)
    gradient = jax.grad(gaussian_loss)

    @compiled
    @jax.vmap
    def run(w):
        return jax.jvp(lambda w: gradient(w, w_star), (w,), (jnp.asarray(W, dtype),))

    factors = np.array([1.0, 2.0, 0.3, -1.0, -2.0, 0.0], dtype)
    gradients, products = run(factors[:, None] * np.asarray(w_star))
    expected = np.where(factors > 0, (factors - 1) / 2, np.where(factors < 0, factors / 2, -0.25))
    assert_close(gradients, expected[:, None] * np.asarray(w_star), scale=1.0)
    assert_close(products[:5], np.tile(np.array(W, dtype) / 2, (5, 1)))
    assert np.isfinite(products[5]).all()


def test_descent_on_the_gaussian_loss_ends_at_the_teacher():
    """No angle of √eps is left over: the last distance is a few roundings."""
    w, w_star = filters()
    run = compiled(descend(gaussian_loss, optax.sgd(1.0), 120, every=30))
    trajectory = run({"params": {"filter": w}}, w_star)
    losses = trajectory.history["loss"]
    assert np.all(losses[1:3] < 1e-6 * losses[:2])
    assert np.linalg.norm(trajectory.params["params"]["filter"] - w_star) < 1e-14


def test_angles_near_zero_and_pi_are_exact(dtype):
    size = 1e-3 if dtype == "float32" else 1e-9
    w_star = jnp.asarray([2.0, 0.0], dtype)
    w = jnp.asarray([[1.0, size], [-1.0, size], [3.0, 0.0], [-3.0, 0.0]], dtype)
    both = compiled(jax.vmap(jax.value_and_grad(angle), in_axes=(0, None)))
    phi, slopes = both(w, w_star)
    assert phi.dtype == dtype
    expected = np.array([size, np.pi - size, 0.0, np.pi])
    np.testing.assert_allclose(phi, expected, rtol=0, atol=4 * np.finfo(dtype).eps)
    assert np.isfinite(slopes).all()
    # Norms whose squares leave the range of the dtype.
    largest = float(np.finfo(dtype).max)
    rows = np.array([[1e-3, 1e-3], [0.0, 1e-3]]) * largest, np.array([[100.0, 100.0]] * 2) / largest
    for row in rows:
        phi, _ = both(jnp.asarray(np.concatenate([row, row]), dtype), w_star)
        expected = np.arctan2(row[:, 1], row[:, 0])
        np.testing.assert_allclose(phi[:2], expected, rtol=0, atol=4 * np.finfo(dtype).eps)


def test_errors_say_what_is_wrong():
    w, w_star = np.array(W), np.array(W_STAR)
    with pytest.raises(ValueError, match="filters of the same size"):
        gaussian_loss(w[:2], w_star)
    with pytest.raises(ValueError, match="k is 0; expected a whole number"):
        gaussian_gradient(w, w_star, 0)
    with pytest.raises(ValueError, match=r"expected \(n, k, p\)"):
        gradient_terms(w, w_star, np.ones((4, 3)))
