import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled

from ntkflow.kernels import empirical_ntk
from ntkflow.kernels.operators import kernel_operator, ntk_operator
from ntkflow.prediction.conjugate_gradients import kernel_regression


def normal(seed, *shape, dtype="float64"):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def laplace(x1, x2):
    return jnp.exp(-jnp.sqrt(jnp.sum((x1[:, None] - x2[None]) ** 2, axis=2) + 1e-12))


gram = compiled(laplace)


def problem(dtype="float64"):
    """Samples in two clusters, one of them narrow: an ill-conditioned kernel."""
    x = np.random.default_rng(0).normal(size=(60, 5)).astype(dtype)
    x[30:] = 0.03 * x[30:] + 1
    y = np.stack([np.sin(x[:, 0]), x[:, 1] * x[:, 2], np.zeros(60, dtype)], axis=1)
    return jnp.asarray(x), jnp.asarray(y)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("dtype", "tolerance", "landmarks"),
    [("float64", 1e-10, 0), ("float64", 1e-10, None), ("float32", 1e-4, None)],
)
def test_solves_the_dense_system(dtype, tolerance, landmarks):
    x, y = problem(dtype)
    operator = kernel_operator(laplace, x, devices=1)
    regression = kernel_regression(
        operator, y, ridge=1e-2, tolerance=tolerance, landmarks=landmarks
    )
    assert regression.converged.all()
    assert regression.coefficients.dtype == dtype
    assert regression.steps < (120 if landmarks == 0 else 35)  # of 60 unknowns
    matrix = np.asarray(gram(x, x), "float64") + 1e-2 * np.eye(60)
    exact = np.linalg.solve(matrix, np.asarray(y, "float64"))
    error = np.linalg.norm(regression.coefficients - exact, axis=0)
    bound = tolerance * np.linalg.cond(matrix) * np.linalg.norm(exact, axis=0)
    assert (error <= bound).all()
    # The residual is that of the coefficients returned, not of the recursion.
    true = np.linalg.norm(y - matrix @ np.asarray(regression.coefficients), axis=0)[:2]
    true /= np.linalg.norm(y, axis=0)[:2]
    np.testing.assert_allclose(regression.residual[:2], true, rtol=0.05)
    assert regression.residual[2] == 0  # no labels, no coefficients


def test_a_network_of_many_outputs_is_predicted_as_its_dense_kernel_predicts():
    def apply(params, x):
        return jnp.tanh(x @ params["first"]) @ params["second"]

    x, y, first, second = (normal(i, *s) for i, s in enumerate([(17, 4), (12, 2), (4, 9), (9, 2)]))
    params = {"first": first, "second": second}
    initial = apply(params, x)
    operator = ntk_operator(apply, params, x[:12])  # on all four devices
    regression = kernel_regression(operator, y - initial[:12], tolerance=1e-12)
    assert regression.converged
    assert regression.residual.shape == ()
    predicted = initial[12:] + operator.cross(x[12:], regression.coefficients)
    theta = compiled(empirical_ntk(apply))(params, x).transpose(0, 2, 1, 3).reshape(34, 34)
    theta = np.asarray(theta)
    exact = theta[24:, :24] @ np.linalg.solve(theta[:24, :24], np.ravel(y - initial[:12]))
    assert_close(predicted, initial[12:] + exact.reshape(5, 2), factor=1e7)


def test_what_has_not_converged_says_so():
    x, y = problem()
    doubled = jnp.concatenate([x[:50], x[:10]])  # equal samples with different labels
    operator = kernel_operator(laplace, doubled, devices=1)
    early = kernel_regression(operator, y, max_steps=3)
    assert early.steps == 3
    assert not early.converged[:2].any()
    late = kernel_regression(operator, y, max_steps=300)
    assert not late.converged[:2].any()
    assert (late.residual[:2] > 1e-3).all()
    # Rounding keeps float32 from 1e-9, though the recursion for the residual gets there.
    x, y = problem("float32")
    low = kernel_regression(kernel_operator(laplace, x, devices=1), y, ridge=1e-2, tolerance=1e-9)
    assert low.steps < 100
    assert ((low.residual[:2] > 1e-9) & (low.residual[:2] < 1e-4)).all()
    assert not low.converged[:2].any()


def test_landmarks_change_the_path_only():
    x, y = problem()
    operator = kernel_operator(laplace, x, devices=1)
    one, two = (
        kernel_regression(operator, y, ridge=1e-2, tolerance=1e-12, key=key)
        for key in (None, jax.random.key(5))
    )
    assert_close(one.coefficients, two.coefficients, factor=1e7)


def test_refusals():
    operator = kernel_operator(laplace, normal(0, 5, 3), devices=1)
    y = jnp.ones(5)
    with pytest.raises(ValueError, match="use gp_posterior"):
        kernel_regression(np.eye(5), y)
    with pytest.raises(ValueError, match=r"y has shape \(4,\); expected \(5,\), or \(5, k\)"):
        kernel_regression(operator, y[:4])
    with pytest.raises(ValueError, match="ridge is -1"):
        kernel_regression(operator, y, ridge=-1)
    with pytest.raises(ValueError, match="tolerance is 0"):
        kernel_regression(operator, y, tolerance=0)
    with pytest.raises(ValueError, match="landmarks is 6; expected at most the 5"):
        kernel_regression(operator, y, landmarks=6)
    with pytest.raises(ValueError, match="landmarks is -1"):
        kernel_regression(operator, y, landmarks=-1)
    with pytest.raises(ValueError, match="max_steps is 0"):
        kernel_regression(operator, y, max_steps=0)
