import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkflow.data import sphere, sphere_gaussian_labels


@pytest.mark.quick
@pytest.mark.parametrize("d", [2, 50])
def test_points_have_norm_one(dtype, d):
    x = sphere(jax.random.key(1), 200, d, dtype)
    assert x.shape == (200, d)
    assert x.dtype == dtype
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(jnp.linalg.norm(x, axis=1), 1, rtol=0, atol=4 * eps)


def test_points_are_uniform():
    # Uniform on the sphere: E x = 0, E xxᵀ = I/d, E x⁴ = 3/(d(d+2)); each within 5 standard errors.
    n, d = 20_000, 4
    x = np.asarray(sphere(jax.random.key(2), n, d))
    for sample, mean in (
        (x, np.zeros(d)),
        (x[:, :, None] * x[:, None, :], np.eye(d) / d),
        (x**4, np.full(d, 3 / (d * (d + 2)))),
    ):
        error = sample.std(axis=0) / n**0.5
        # The trace of xxᵀ is fixed, not its entries; none has standard error 0.
        assert (np.abs(sample.mean(axis=0) - mean) < 5 * error).all()


def test_one_dimension_gives_both_signs():
    x = np.asarray(sphere(jax.random.key(3), 100, 1))
    assert set(x[:, 0].tolist()) == {-1.0, 1.0}


def test_labels_are_gaussian_and_independent_of_inputs():
    n = 20_000
    x, y = (np.asarray(a) for a in sphere_gaussian_labels(jax.random.key(4), n, 3))
    assert abs(y.mean()) < 5 / n**0.5
    assert abs((y**2).mean() - 1) < 5 * 2**0.5 / n**0.5
    assert abs((y**4).mean() - 3) < 5 * 96**0.5 / n**0.5
    assert (np.abs((x * y[:, None]).mean(axis=0)) < 5 * (x * y[:, None]).std(axis=0) / n**0.5).all()


def test_jit_and_vmap_equal_plain_calls():
    keys = jax.random.split(jax.random.key(5), 3)
    mapped = jax.jit(jax.vmap(lambda key: sphere_gaussian_labels(key, 4, 3)))(keys)
    for s in range(3):
        single = sphere_gaussian_labels(keys[s], 4, 3)
        chex.assert_trees_all_close(jax.tree.map(lambda a: a[s], mapped), single, rtol=1e-14)


@pytest.mark.parametrize(("n", "d", "name"), [(0, 3, "n"), (3, -1, "d")])
def test_sizes_are_checked(n, d, name):
    with pytest.raises(ValueError, match=rf"{name} is .*whole number"):
        sphere_gaussian_labels(jax.random.key(0), n, d)
