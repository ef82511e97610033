"""Constants of networks and losses, measured: against Jacobians, SVDs and known functions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import MLP, assert_close, compiled, samples

from ntkflow.systems.composite import (
    loss_of_outputs,
    measure_near_isometry,
    pl_ratio,
    singular_values,
    squared_loss_constants,
)
from ntkflow.training.losses import cross_entropy_loss, squared_loss


@pytest.mark.parametrize("reduction", ["sum", "half_sum", "mean"])
def test_squared_losses_are_pl_with_equality(reduction):
    """‖∇f‖² = 2 α_f f at every z, and ∇f has the Lipschitz constant β_f."""
    z, y = samples(1, 5, 2), samples(2, 5, 2)
    f = loss_of_outputs(functools.partial(squared_loss, reduction=reduction), (samples(3, 5, 3), y))
    constants = squared_loss_constants(reduction, outputs=z.size)
    found, at_y, change = compiled(lambda: (pl_ratio(f, z), pl_ratio(f, y), jax.grad(f)(z)))()
    assert_close(found, constants.pl)
    assert_close(np.linalg.norm(change), constants.smoothness * np.linalg.norm(z - y))  # ∇f(y) = 0
    assert at_y == jnp.inf


def test_cross_entropy_is_not_pl():
    """Its ratio falls to 0 as the logits grow: the theorems do not speak of it."""
    f = loss_of_outputs(cross_entropy_loss, (jnp.zeros((1, 1)), jnp.array([0])))
    ratio, right = compiled(functools.partial(pl_ratio, f)), jnp.array([[1.0, 0.0]])
    ratios = [float(ratio(scale * right)) for scale in (1.0, 10.0, 20.0)]
    assert ratios[1] < 1e-3 * ratios[0]
    assert ratios[2] < 1e-3 * ratios[1]


@pytest.mark.quick
def test_singular_values_are_those_of_the_jacobian(dtype):
    module, x = MLP(param_dtype=dtype), samples(4, 5, 4, dtype=dtype)
    random, shapes = np.random.default_rng(0), jax.eval_shape(module.init, jax.random.key(0), x)
    draw = lambda leaf: jnp.asarray(0.5 * random.normal(size=leaf.shape), leaf.dtype)  # noqa: E731
    variables = jax.tree.map(draw, shapes)
    # The decoder alone is linear: σ are those of its Jacobian, whatever its own value.
    chosen = lambda path: "decoder" in path  # noqa: E731

    def outputs(decoder):
        params = variables["params"] | {"decoder": decoder}
        return module.apply({"params": params}, x).ravel()

    def both(variables):
        near = measure_near_isometry(module.apply, variables, x, trainable=chosen)
        return near, jax.jacobian(outputs)(variables["params"]["decoder"])

    near, jacobian = compiled(both)(variables)
    matrix = np.concatenate([leaf.reshape(10, -1) for leaf in jax.tree.leaves(jacobian)], axis=1)
    expected = np.linalg.svd(matrix.astype(float), compute_uv=False)
    assert near.mu.dtype == dtype
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(near.nu, expected[0], rtol=100 * eps)
    np.testing.assert_allclose(near.mu**2, expected[-1] ** 2, atol=100 * eps * expected[0] ** 2)
    assert np.isnan(near.smoothness)


def test_a_probe_measures_smoothness():
    """Φ(w) = (w₁²/2, 3 w₂²/2): ∇Φ(u) − ∇Φ(v) = diag(1, 3) ⊙ (u − v), and β_Φ = 3."""
    apply = lambda w, x: x @ jnp.square(w) / 2  # noqa: E731
    x, start = jnp.diag(jnp.array([1.0, 3.0])), jnp.array([1.0, 1.0])
    measure = compiled(lambda probe: measure_near_isometry(apply, start, x, probe=probe))
    steepest = measure(start + jnp.array([0.0, 1e-3]))
    assert float(steepest.smoothness) == pytest.approx(3)
    assert (float(steepest.mu), float(steepest.nu)) == pytest.approx((1, 3))
    flattest = measure(start + jnp.array([0.5, 0.0]))
    assert float(flattest.smoothness) == pytest.approx(1)  # a lower estimate, as documented


def test_fewer_parameters_than_outputs_are_no_near_isometry():
    x = samples(5, 4, 2)
    smallest, largest = compiled(lambda w: singular_values(lambda w, x: x @ w, w, x))(jnp.ones(2))
    assert smallest == 0
    assert largest > 0


def test_refuses():
    with pytest.raises(ValueError, match="outputs is 0"):
        squared_loss_constants("mean", 0)
    with pytest.raises(ValueError, match="reduction is 'total'"):
        squared_loss_constants("total")
    apply, x = lambda w, x: x @ w, jnp.ones((3, 2))
    with pytest.raises(ValueError, match=r"probe has leaves of shapes \(3,\); expected another"):
        measure_near_isometry(apply, jnp.ones(2), x, probe=jnp.ones(3))
    with pytest.raises(ValueError, match="expected a builder"):
        loss_of_outputs(squared_loss(apply), (x, jnp.ones(3)))
