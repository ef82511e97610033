import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, samples

from ntkflow.kernels.spectrum import extreme_eigenvalues, smallest_eigenvalue


def with_spectrum(values, seed=0):
    q, _ = np.linalg.qr(np.asarray(samples(seed, len(values), len(values))))
    return (q * np.asarray(values)) @ q.T


def test_extremes_of_a_known_spectrum(dtype):
    kernel = jnp.asarray(with_spectrum(np.linspace(0.5, 9.0, 20)), dtype)
    smallest, largest, resolution = extreme_eigenvalues(kernel)
    assert smallest.dtype == largest.dtype == dtype
    assert_close(smallest, np.asarray(0.5, dtype), scale=9.0)
    assert_close(largest, np.asarray(9.0, dtype))
    assert resolution < 0.5


def test_float32_kernels_are_decomposed_in_float64():
    # λ_min lies 300 roundings of λ_max above 0.
    values = np.concatenate([[3e-5], np.linspace(0.5, 1.0, 99)])
    kernel = with_spectrum(values).astype(np.float32)
    exact = np.linalg.eigvalsh(kernel.astype(np.float64))[0]
    np.testing.assert_allclose(smallest_eigenvalue(jnp.asarray(kernel)), exact, rtol=1e-6)


@pytest.mark.parametrize("n", [10, 50, 200])
def test_resolution_covers_the_rounding_of_entries_and_little_more(n):
    x = samples(n, n, n // 2)  # rank n/2: the true λ_min is 0
    low = np.asarray(x, np.float32)
    kernel = low @ low.T
    noise = abs(np.linalg.eigvalsh(kernel.astype(np.float64))[0])
    resolution = float(extreme_eigenvalues(jnp.asarray(kernel)).resolution)
    assert noise < resolution < 50 * noise
    assert smallest_eigenvalue(jnp.asarray(kernel)) == 0


def test_noise_is_never_returned_as_a_negative_value_but_indefiniteness_is():
    assert smallest_eigenvalue(with_spectrum([-1e-15, 1.0, 2.0])) == 0
    np.testing.assert_allclose(smallest_eigenvalue(with_spectrum([-0.1, 1.0, 2.0])), -0.1)


def test_leading_axes_and_jit():
    kernels = jnp.stack([jnp.eye(3), 2 * jnp.eye(3)])
    assert jax.jit(smallest_eigenvalue)(kernels).tolist() == [1.0, 2.0]
    assert jax.vmap(smallest_eigenvalue)(kernels).tolist() == [1.0, 2.0]


def test_bfloat16_is_computed_up():
    assert smallest_eigenvalue(jnp.eye(3, dtype=jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize("shape", [(3,), (3, 4), (0, 0), (2, 2, 3, 3, 1)])
def test_refuses_what_is_no_square_matrix(shape):
    with pytest.raises(ValueError, match="kernel has shape"):
        extreme_eigenvalues(np.ones(shape))


def test_integers_are_computed_as_floats_and_complex_numbers_refused():
    assert smallest_eigenvalue(np.eye(3, dtype=int)) == 1
    with pytest.raises(ValueError, match="expected a real symmetric matrix"):
        smallest_eigenvalue(np.eye(3) * 1j)


def test_a_full_ntk_is_not_taken_for_a_batch_of_output_blocks():
    with pytest.raises(ValueError, match=r"shape \(3, 3, 2, 2\).*transpose\(0, 2, 1, 3\)"):
        smallest_eigenvalue(np.ones((3, 3, 2, 2)))
