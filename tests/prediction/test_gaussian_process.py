import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, samples

from ntkflow.prediction.gaussian_process import gp_posterior

X, X_TEST = np.asarray(samples(0, 5, 8)), np.asarray(samples(1, 3, 8))
K, K_TEST, K_BOTH = X @ X.T, X_TEST @ X.T, X_TEST @ X_TEST.T


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("shape", [(5,), (5, 2)])
def test_equals_bayesian_linear_regression(noise, shape):
    # With f = xᵀw, w ~ N(0, 1): condition the joint Gaussian of w and y by hand.
    y = np.asarray(samples(2, *shape))
    gain = X.T @ np.linalg.inv(K + noise * np.eye(5))
    mean_w, cov_w = gain @ y, np.eye(8) - gain @ X
    posterior = gp_posterior(K, y, K_TEST, K_BOTH, noise=noise)
    assert_close(posterior.mean, X_TEST @ mean_w, factor=1e4)
    assert_close(posterior.covariance, X_TEST @ cov_w @ X_TEST.T, factor=1e4, scale=10.0)


def test_training_points_are_certain_without_noise(dtype):
    k = jnp.asarray(K, dtype)
    posterior = gp_posterior(k, samples(2, 5).astype(dtype), k, k)
    assert posterior.mean.dtype == dtype
    assert_close(posterior.covariance, np.zeros((5, 5), dtype), factor=1e3, scale=20.0)


def test_bad_input():
    y = np.ones(5)
    with pytest.raises(ValueError, match="noise is -1"):
        gp_posterior(K, y, K_TEST, K_BOTH, noise=-1.0)
    with pytest.raises(ValueError, match=r"k_test_test has shape \(5, 5\); expected \(3, 3\)"):
        gp_posterior(K, y, K_TEST, K)
    with pytest.raises(ValueError, match=r"k_train_train has shape \(5, 5, 1, 1\)"):
        gp_posterior(K[..., None, None], y[:, None], K_TEST, K_BOTH)
    with pytest.raises(ValueError, match="y_train has 4"):
        gp_posterior(K, y[:4], K_TEST, K_BOTH)
