"""A four-layer autoencoder through the engine alone: section 3.1 of Nguyen, Wong and Hegde (2019a).

Kernel, dynamics, limit and prediction of any module with as many outputs as inputs.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled

from ntkflow.kernels.empirical import empirical_ntk
from ntkflow.kernels.infinite import infinite_width
from ntkflow.layers import Dense
from ntkflow.prediction import gradient_descent_mse
from ntkflow.training.descent import descend
from ntkflow.training.flow import gradient_flow
from ntkflow.training.losses import squared_loss

N, D = 4, 3
X = np.random.default_rng(0).normal(size=(N, D))
X = jnp.asarray(X / np.linalg.norm(X, axis=1, keepdims=True))


class Autoencoder(nn.Module):
    """d → width → width/2 → width → d, with u = f/√d."""

    width: int

    @nn.compact
    def __call__(self, x):
        dense = functools.partial(Dense, w_std=math.sqrt(2), b_std=0.1)
        z = nn.tanh(dense(self.width)(x))
        z = nn.relu(dense(self.width // 2, name="code")(z))
        z = nn.tanh(dense(self.width)(z))
        return dense(x.shape[1])(z) / math.sqrt(x.shape[1])


def initialize(module, seed, *batch):
    """Variables as its init draws them, N(0, 1) all of them, without compiling that."""
    generator = np.random.default_rng(seed)
    shapes = jax.eval_shape(module.init, jax.random.key(0), X)
    return jax.tree.map(lambda leaf: jnp.asarray(generator.normal(size=batch + leaf.shape)), shapes)


@pytest.fixture(scope="module")
def network():
    """A narrow one: module, variables, Jacobian of all outputs, full kernel, residual x − u."""
    module = Autoencoder(6)
    variables = initialize(module, 1)

    @compiled
    def quantities(variables):
        flat, unravel = jax.flatten_util.ravel_pytree(variables)
        outputs = lambda flat: module.apply(unravel(flat), X)  # noqa: E731
        kernel = empirical_ntk(module.apply)(variables, X)
        return jax.jacrev(outputs)(flat), kernel, X - outputs(flat)

    return module, variables, *jax.device_get(quantities(variables))


@pytest.mark.quick
def test_kernel_of_all_outputs_is_the_jacobian_times_its_transpose(network):
    _, _, jacobian, kernel, _ = network
    jacobian = jacobian.reshape(N * D, -1)
    assert kernel.shape == (N, N, D, D)
    # vec stacks samples: rows (i, a) in the paper's order.
    assert_close(kernel.transpose(0, 2, 1, 3).reshape(N * D, N * D), jacobian @ jacobian.T)


def test_outputs_move_by_the_kernel_and_lemma_3_1_divides_by_d_once(network):
    """d vec(U)/dt = (1/d) K vec(X − U) with K of f = √d u, along the flow of θ."""
    module, variables, _, kernel, residual = network

    @compiled
    def velocity(variables):
        gradient = jax.grad(squared_loss(module.apply))(variables, (X, X))
        flow = jax.tree.map(jnp.negative, gradient)
        return jax.jvp(lambda v: module.apply(v, X), (variables,), (flow,))[1]

    moved = velocity(variables)
    assert_close(moved, np.einsum("ijab,jb->ia", kernel, residual))
    scaled = compiled(empirical_ntk(lambda v, x: math.sqrt(D) * module.apply(v, x)))(variables, X)
    product = np.einsum("ijab,jb->ia", scaled, residual)
    assert_close(moved, product / D)
    # The printed block has 1/d of its own, before which the lemma puts another: d times too slow.
    printed = product / D / D
    assert_close(moved, D * printed)
    assert np.linalg.norm(moved - printed) > 0.5 * np.linalg.norm(moved)


def test_descent_and_flow_train_it(network):
    """Small steps of descent follow the flow, η units of time each; both start at −rᵀ K r."""
    module, variables, _, kernel, residual = network
    loss, steps, step_size = squared_loss(module.apply), 200, 0.005
    flow = compiled(gradient_flow(loss, [0.0, 1e-4, steps * step_size]))(variables, (X, X))
    descent = compiled(descend(loss, optax.sgd(step_size), steps, every=steps))(variables, (X, X))
    history = flow.history["loss"]
    rate = np.einsum("ia,ijab,jb->", residual, kernel, residual)
    np.testing.assert_allclose((history[0] - history[1]) / 1e-4, rate, rtol=2e-3)
    assert_close(history[0], descent.history["loss"][0])
    assert history[2] < 0.5 * history[0]
    np.testing.assert_allclose(descent.history["loss"][1], history[2], rtol=0.02)


def test_wide_networks_follow_the_frozen_limit():
    """Means over six draws of the distances along the run, relative to ‖X − U(0)‖."""
    ntk = np.asarray(compiled(infinite_width(Autoencoder(8)))(X).ntk)
    step_size, steps, module = 0.5 / float(np.linalg.eigvalsh(ntk)[-1]), 20, Autoencoder(300)
    predict = gradient_descent_mse(ntk, X, learning_rate=step_size)
    run = descend(
        squared_loss(module.apply),
        optax.sgd(step_size),
        steps,
        observe={"outputs": lambda snapshot: module.apply(snapshot.params, X)},
        every=5,
    )

    @compiled
    @jax.vmap
    def both(start):
        outputs = run(start, (X, X)).history["outputs"]
        return outputs, predict(np.arange(0, steps + 1, 5), outputs[0]).train

    outputs, predicted = (np.asarray(path) for path in both(initialize(module, 3, 6)))
    initial = outputs[:, :1]
    gap, moved = (
        np.linalg.norm(path - outputs, axis=(2, 3)).max(axis=1)
        / np.linalg.norm(X[None] - initial[:, 0], axis=(1, 2))
        for path in (predicted, initial)
    )
    assert gap.mean() < 0.1
    assert moved.mean() > 0.5
