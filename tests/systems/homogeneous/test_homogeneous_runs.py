"""Runs: what the flow preserves, what descent adds up to, and certificates of both."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import compiled, samples

from ntkflow.systems.homogeneous import (
    HomogeneousNetwork,
    accumulate_drift,
    average_loss,
    certificate_gradient_descent,
    certificate_gradient_flow,
    convolution,
    drift,
    imbalance,
    observables,
    squared_norms,
)
from ntkflow.training.descent import descend
from ntkflow.training.flow import gradient_flow

X, Y, LABELS = samples(0, 8, 6), samples(1, 8, 3), jnp.arange(8) % 3
TIMES = np.array([0.0, 1.0, 3.0])


def weights(network, x, seed, scale=0.7):
    """Random parameters without a trace of `init`, whose random numbers take long to compile."""
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    return jax.tree.map(
        lambda leaf: jnp.asarray(scale * random.normal(size=leaf.shape), leaf.dtype), shapes
    )


@pytest.fixture(scope="module")
def flow():
    """Cross-entropy of a linear network: shared weights (Theorem 4.3), then dense (4.1, 4.2)."""
    network = HomogeneousNetwork((convolution(6, 1, 2, 3), 5, 4, 3), jax.nn.identity)
    loss = average_loss(network.apply, optax.softmax_cross_entropy_with_integer_labels)
    observe = observables(loss, linear=[2, 3])
    run = gradient_flow(loss, TIMES, observe=observe, rtol=1e-9, atol=1e-11)
    return compiled(run)(weights(network, X, 2), (X, LABELS))


def test_gradient_flow_preserves_the_balance(flow):
    assert flow.state.succeeded
    history = {name: jax.tree.map(np.asarray, value) for name, value in flow.history.items()}
    change = history["change"]
    assert [size.shape for size in change] == [(3, 3), (3, 2), (3, 2)]
    for size in change:
        assert 0 < size.max() < 1e-8
    moved = np.ptp(history["squared_norms"], axis=0)
    assert (moved > 0.1).all()  # while every layer itself changes
    assert history["alignment_gap"].max() < 1e-13
    certificate = certificate_gradient_flow(history, tolerance=1e-8)
    assert certificate.applies
    assert certificate.holds
    assert [claim.source.split()[-1] for claim in certificate.claims] == ["4.3"] * 3 + [
        "4.1",
        "4.2",
    ]
    tight = certificate_gradient_flow(history, tolerance=1e-14)  # below the error of the solver
    assert not tight.holds
    assert tight.applies


def test_another_activation_is_found_out():
    """The records of a run of many small steps, held against what the flow would do."""

    def loss(params, data):
        x, y = data
        hidden = jnp.tanh(x @ params["layer_1"]["kernel"])
        return jnp.mean(jnp.square(hidden @ params["layer_2"]["kernel"] - y))

    random = np.random.default_rng(8)
    params = {
        f"layer_{h}": {"kernel": jnp.asarray(random.normal(size=shape))}
        for h, shape in enumerate([(6, 4), (4, 3)], start=1)
    }
    run = descend(loss, optax.sgd(1e-3), 1000, every=500, observe=observables(loss))
    certificate = certificate_gradient_flow(compiled(run)(params, (X, Y)).history, tolerance=1e-2)
    assert not certificate.applies
    assert not certificate.holds


def test_a_flow_that_failed_holds_nothing(flow):
    lost = lambda leaf: np.append(leaf[:-1], np.full_like(leaf[-1:], np.inf), axis=0)  # noqa: E731
    failed = jax.tree.map(lost, jax.device_get(flow.history))
    assert not certificate_gradient_flow(failed).holds


def descent(network, step_size, steps, data, *, linear=(), key=None, **options):
    optimizer = optax.chain(optax.sgd(step_size), accumulate_drift(linear=linear))
    run = descend(average_loss(network.apply), optimizer, steps, every=steps, **options)
    return compiled(run)(weights(network, data[0], 3), data, key)


def test_the_drift_of_descent_is_exact(dtype):
    """Any step size, any form; leaky ReLU after the first layer, none after the second."""
    network = HomogeneousNetwork((5, 4, 3), (nn.leaky_relu, jax.nn.identity), param_dtype=dtype)
    data = X.astype(dtype), Y.astype(dtype)
    trajectory = descent(network, 0.1, 300, data, linear=[2])
    balance = compiled(lambda params: (imbalance(params, linear=[2]), squared_norms(params)))
    before, _ = jax.device_get(balance(trajectory.state.initial_params))
    after, norms = jax.device_get(balance(trajectory.params))
    total = jax.device_get(drift(trajectory.state))
    size = float(norms.max())
    tolerance = {"float64": 1e-12, "float32": 3e-5}[dtype] * size
    leaves = zip(*map(jax.tree.leaves, (after, before, total)), strict=True)
    for late, early, summed in leaves:
        assert summed.dtype == dtype
        assert np.max(np.abs(summed)) > 10 * tolerance
        np.testing.assert_allclose(late - early, summed, rtol=0, atol=tolerance)
    certificate = certificate_gradient_descent(trajectory, linear=[2])
    assert certificate.holds
    assert len(certificate.claims) == 4
    assert all(claim.margin > 0 for claim in certificate.claims)


def test_schedules_and_minibatches_drift_as_exactly():
    network = HomogeneousNetwork((convolution(6, 1, 2, 3), 4, 3))
    schedule = optax.exponential_decay(0.2, 10, 0.5)
    data = X, Y
    trajectory = descent(network, schedule, 40, data, key=jax.random.key(4), batch_size=3)
    assert np.abs(drift(trajectory.state).layer).min() > 1e-3
    assert certificate_gradient_descent(trajectory).holds


@pytest.mark.quick
def test_momentum_drifts_otherwise():
    network = HomogeneousNetwork((5, 3))
    optimizer = optax.chain(optax.sgd(0.05, momentum=0.5), accumulate_drift())
    run = descend(average_loss(network.apply), optimizer, 20, every=20)
    trajectory = compiled(run)(weights(network, X, 5), (X, Y))
    certificate = certificate_gradient_descent(trajectory)
    assert not certificate.holds
    assert certificate.claims[0].margin < -1e-3


def test_the_drift_is_of_first_order_in_the_step():
    """At equal times ηT, on a ReLU network, whose flow an adaptive solver does not follow."""
    network, time = HomogeneousNetwork((8, 6, 3)), 4.0
    changes = []
    for steps in (1000, 2000):
        trajectory = descent(network, time / steps, steps, (X, Y))
        changes.append(jax.device_get(drift(trajectory.state)))
    assert np.abs(changes[0].layer).min() > 1e-3
    for coarse, fine in zip(*map(jax.tree.leaves, changes), strict=True):
        np.testing.assert_allclose(coarse, 2 * fine, atol=0.1 * np.abs(coarse).max())


def test_seeds_have_a_verdict_each_and_runs_go_on():
    network = HomogeneousNetwork((5, 3), param_dtype="float32")
    optimizer = optax.chain(optax.sgd(0.1), accumulate_drift())
    run = descend(average_loss(network.apply), optimizer, 10, every=10)
    data = X.astype("float32"), Y.astype("float32")

    def twice(params):
        first = run(params, data)
        return run(first.params, data, state=first.state)

    params = [weights(network, data[0], seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *params)
    batch = jax.device_get(compiled(jax.vmap(twice))(stacked))
    assert batch.state.step.tolist() == [20] * 3
    certificate = certificate_gradient_descent(batch)
    assert certificate.holds.tolist() == [True] * 3
    single = certificate_gradient_descent(jax.tree.map(lambda leaf: leaf[1], batch))
    for one, many in zip(single.claims, certificate.claims, strict=True):
        assert one.margin.shape == ()
        np.testing.assert_allclose(one.margin, many.margin[1], rtol=1e-3)


def test_what_is_refused(flow):
    partial = {name: v for name, v in flow.history.items() if name == "change"}
    with pytest.raises(ValueError, match=r"The history lacks \['alignment_gap', 'squared_norms'\]"):
        certificate_gradient_flow(partial)
    with pytest.raises(ValueError, match=r"The state holds 0 sums of drift; .*accumulate_drift"):
        certificate_gradient_descent(flow)
    with pytest.raises(ValueError, match=r"history is of type Trajectory; .*trajectory.history"):
        certificate_gradient_flow(flow)
    with pytest.raises(ValueError, match="trajectory is of type dict"):
        certificate_gradient_descent(flow.history)
    last = jax.tree.map(lambda records: records[-1], flow.history)
    with pytest.raises(ValueError, match=r"squared_norms has shape .*, the whole history"):
        certificate_gradient_flow(last)


def test_a_run_in_bfloat16_has_certificates():
    network = HomogeneousNetwork((4, 3), param_dtype="bfloat16")
    loss = average_loss(network.apply)
    optimizer = optax.chain(optax.sgd(0.05), accumulate_drift())
    data = X.astype("bfloat16"), Y.astype("bfloat16")
    run = compiled(descend(loss, optimizer, 3, observe=observables(loss)))
    trajectory = run(weights(network, data[0], 0), data)
    assert trajectory.history["squared_norms"].dtype == "bfloat16"
    certificate = certificate_gradient_descent(trajectory)
    assert certificate.holds
    assert certificate_gradient_flow(trajectory.history).applies
    with pytest.raises(ValueError, match=r"1 hidden layers and 0 linear ones, .* of 1 and 1"):
        certificate_gradient_descent(trajectory, linear=[1])
