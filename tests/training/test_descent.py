"""Runs against loops written by hand, and a run in pieces against a whole one."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import MLP, assert_close, compiled, samples

from ntkflow.training.descent import descend
from ntkflow.training.losses import squared_loss

X, Y = samples(0, 12, 3), samples(1, 12)


def linear_loss(params, data):
    x, y = data
    return 0.5 * jnp.sum((x @ params - y) ** 2)


def start(*shape, dtype="float64"):
    return samples(2, *shape, dtype=dtype)


def loop(loss, optimizer, params, batches):
    """Plain Python: every parameter and loss along the way."""
    state = optimizer.init(params)
    visited, losses = [params], []
    step = compiled(
        lambda params, state, batch: (
            (vg := jax.value_and_grad(loss)(params, batch))[0],
            optimizer.update(vg[1], state, params),
        )
    )
    for batch in batches:
        value, (updates, state) = step(params, state, batch)
        losses.append(value)
        params = optax.apply_updates(params, updates)
        visited.append(params)
    return visited, losses


@pytest.mark.quick
@pytest.mark.parametrize(("steps", "every"), [(7, 1), (7, 3), (6, 3), (2, 5)])
def test_plain_descent_equals_a_loop(steps, every, dtype):
    x, y, w = X.astype(dtype), Y.astype(dtype), start(3, dtype=dtype)
    visited = [np.asarray(w)]
    for _ in range(steps):
        w_now = visited[-1]
        visited.append(w_now - np.asarray(0.01, dtype) * (x.T @ (x @ w_now - y)))
    run = compiled(
        descend(linear_loss, optax.sgd(0.01), steps, every=every, observe={"w": lambda s: s.params})
    )
    trajectory = run(w, (x, y))
    recorded = sorted({*range(0, steps, every), steps})
    assert trajectory.steps.tolist() == recorded
    assert_close(trajectory.params, visited[-1])
    assert_close(trajectory.history["w"], np.stack([visited[k] for k in recorded]))
    losses = [linear_loss(visited[k], (x, y)) for k in recorded]
    assert_close(trajectory.history["loss"], np.stack(losses))
    assert trajectory.history["loss"].dtype == dtype


@pytest.mark.parametrize(
    "optimizer",
    [optax.sgd(0.01, momentum=0.9), optax.adamw(0.1), optax.contrib.muon(0.1)],
)
def test_optimizers_equal_their_own_loop(optimizer):
    network = MLP(2)
    params = compiled(network.init)(jax.random.key(0), X)
    data = (X, samples(3, 12, 2))
    loss = squared_loss(network.apply)
    visited, _ = loop(loss, optimizer, params, [data] * 4)
    trajectory = compiled(descend(loss, optimizer, 4))(params, data)
    jax.tree.map(
        lambda a, b: assert_close(a, b, factor=1e6, scale=1.0), trajectory.params, visited[-1]
    )


@pytest.mark.parametrize("build", [optax.lbfgs, optax.polyak_sgd, optax.contrib.momo])
def test_optimizers_that_ask_for_more_get_it(build):
    target = jnp.array([1.0, -2.0, 0.5])
    data = (X, X @ target)
    trajectory = compiled(descend(linear_loss, build(), 30, every=30))(start(3), data)
    assert trajectory.history["loss"][-1] < 0.5 * trajectory.history["loss"][0]


def test_accumulated_gradients():
    optimizer = optax.MultiSteps(optax.sgd(0.01), 2)
    trajectory = compiled(descend(linear_loss, optimizer, 4))(start(3), (X, Y))
    plain = compiled(descend(linear_loss, optax.sgd(0.01), 2))(start(3), (X, Y))
    np.testing.assert_allclose(trajectory.params, plain.params, atol=1e-7)  # optax adds in float32


def test_observers_see_the_run():
    observe = {
        "step": lambda s: s.step,
        "moved": lambda s: jnp.linalg.norm(s.params - s.initial_params),
        "samples": lambda s: {"x": len(s.data[0]), "y": jnp.float64(len(s.data[1]))},
    }
    run = descend(linear_loss, optax.sgd(0.01), 6, observe=observe, every=2, batch_size=5)
    trajectory = compiled(run)(start(3), (X, Y), jax.random.key(0))
    assert trajectory.history["step"].tolist() == [0, 2, 4, 6]
    assert trajectory.history["moved"][0] == 0
    assert (np.diff(trajectory.history["moved"]) != 0).all()
    assert trajectory.history["samples"]["x"].tolist() == [12] * 4
    full = [linear_loss(start(3), (X, Y)), linear_loss(trajectory.params, (X, Y))]
    assert_close(trajectory.history["loss"][jnp.array([0, -1])], np.stack(full))


def test_minibatches_visit_every_sample_once_an_epoch():
    # The gradient of Σᵢ wᵢ on a batch is 1 at its samples: w counts the visits.
    n, size = 12, 5
    loss = lambda w, rows: w[rows].sum()  # noqa: E731
    run = compiled(
        descend(loss, optax.sgd(-1.0), 6, batch_size=size, observe={"w": lambda s: s.params})
    )
    visits = np.asarray(run(jnp.zeros(n), jnp.arange(n), jax.random.key(3)).history["w"])
    for epoch in range(3):
        first, last = visits[2 * epoch], visits[2 * epoch + 2]
        gained = last - first
        assert sorted(gained) == [0] * 2 + [1] * 10  # the incomplete batch is dropped
    assert not (visits[2] - visits[0] == visits[4] - visits[2]).all()  # shuffled anew
    other = run(jnp.zeros(n), jnp.arange(n), jax.random.key(4)).history["w"]
    assert not (visits == np.asarray(other)).all()


@pytest.mark.parametrize("batch_size", [None, 5])
def test_a_continued_run_equals_a_whole_one(batch_size):
    build = lambda steps: compiled(  # noqa: E731
        descend(
            linear_loss,
            optax.adam(0.1),
            steps,
            batch_size=batch_size,
            observe={"moved": lambda s: s.params - s.initial_params},
        )
    )
    key = jax.random.key(0)
    whole = build(8)(start(3), (X, Y), key)
    first = build(5)(start(3), (X, Y), key)  # stops within an epoch
    second = build(3)(first.params, (X, Y), key, first.state)
    assert second.steps.tolist() == [5, 6, 7, 8]
    assert_close(second.params, whole.params)
    assert_close(second.history["moved"], whole.history["moved"][5:])
    assert_close(second.history["loss"], whole.history["loss"][5:])
    chex.assert_trees_all_close(second.state, whole.state, rtol=1e-12)


def test_trainable_leaves_the_rest_alone_and_away_from_the_optimizer():
    network = MLP(2)
    params = compiled(network.init)(jax.random.key(0), X)
    data = (X, samples(3, 12, 2))
    # Weight decay would move a parameter that merely has no gradient.
    run = descend(
        squared_loss(network.apply),
        optax.adamw(0.1, weight_decay=0.5),
        3,
        trainable=lambda path: "decoder" in path,
    )
    end = compiled(run)(params, data).params["params"]
    for name, moves in (("encoder", False), ("middle", False), ("decoder", True)):
        same = (end[name]["kernel"] == params["params"][name]["kernel"]).all()
        assert bool(same) is not moves


def test_hypergradients_flow_through_a_run():
    def final(rate):
        return descend(linear_loss, optax.sgd(rate), 5, every=2)(start(3), (X, Y)).history["loss"][
            -1
        ]

    value, slope = compiled(final), compiled(jax.grad(final))
    difference = (value(0.01 + 1e-6) - value(0.01 - 1e-6)) / 2e-6
    np.testing.assert_allclose(slope(0.01), difference, rtol=1e-6)


def test_divergence_is_data():
    trajectory = compiled(descend(linear_loss, optax.sgd(1e3), 200, every=100))(start(3), (X, Y))
    assert trajectory.steps.tolist() == [0, 100, 200]
    assert not np.isfinite(trajectory.history["loss"][-1])


class TestBadInput:
    @pytest.mark.parametrize("name", ["steps", "every", "batch_size"])
    def test_counts(self, name):
        arguments = {"steps": 3, name: 0}
        with pytest.raises(ValueError, match=f"{name} is 0; expected a whole number"):
            descend(linear_loss, optax.sgd(0.1), **arguments)

    def test_loss_and_optimizer_in_the_wrong_places(self):
        with pytest.raises(ValueError, match=r"descend got GradientTransformation.* as its loss"):
            descend(optax.sgd(0.1), linear_loss, 3)
        with pytest.raises(ValueError, match=r"optimizer is of type float; .* optax.sgd"):
            descend(linear_loss, 0.1, 3)

    def test_observers(self):
        with pytest.raises(ValueError, match='"loss" is recorded always'):
            descend(linear_loss, optax.sgd(0.1), 3, observe={"loss": lambda s: 0})
        with pytest.raises(ValueError, match="expected a mapping from names to functions"):
            descend(linear_loss, optax.sgd(0.1), 3, observe=[len])

    @pytest.mark.parametrize(
        ("w", "data", "message"),
        [
            (np.full(3, np.nan), (X, Y), "params holds NaN"),
            (np.ones(3), (X.at[0, 0].set(np.inf), Y), r"data\[0\] holds NaN or infinite"),
            (np.ones(3), (X[:0], Y[:0]), "no samples"),
        ],
    )
    def test_values(self, w, data, message):
        with pytest.raises(ValueError, match=message):
            descend(linear_loss, optax.sgd(0.1), 3)(w, data)

    def test_labels_of_another_length(self):
        run = descend(squared_loss(lambda w, x: x @ w), optax.sgd(0.1), 3)
        with pytest.raises(ValueError, match="x has 12, y has 11"):
            run(start(3), (X, Y[:-1]))

    def test_a_loss_that_is_no_scalar(self):
        with pytest.raises(ValueError, match="expected a scalar"):
            descend(lambda w, data: w, optax.sgd(0.1), 3)(start(3), (X, Y))

    def test_batches(self):
        run = descend(linear_loss, optax.sgd(0.1), 3, batch_size=13)
        with pytest.raises(ValueError, match="batch_size is 13, and there are only 12"):
            run(start(3), (X, Y), jax.random.key(0))
        run = descend(linear_loss, optax.sgd(0.1), 3, batch_size=4)
        with pytest.raises(ValueError, match="batch_size needs a key"):
            run(start(3), (X, Y))

    def test_optimizers_with_parameters_of_their_own(self):
        optimizer = optax.lookahead(optax.sgd(0.1), 5, 0.5)
        with pytest.raises(ValueError, match=r"optax.lookahead, is not supported"):
            descend(linear_loss, optimizer, 3)(start(3), (X, Y))

    def test_optimizers_that_want_what_a_run_does_not_have(self):
        def update(updates, state, params=None, *, hessian):
            return updates, state

        optimizer = optax.GradientTransformationExtraArgs(lambda params: (), update)
        with pytest.raises(ValueError, match=r"wants \['hessian'\]"):
            descend(linear_loss, optimizer, 3)

    def test_keys_states_and_losses_of_another_kind(self):
        run = descend(linear_loss, optax.adam(0.1), 3)
        end = run(start(3), (X, Y))
        for key in (end.state, 0, jax.random.split(jax.random.key(0), 2)):
            with pytest.raises(ValueError, match="expected one PRNG key"):
                run(start(3), (X, Y), key)
        with pytest.raises(ValueError, match="state is of type tuple; expected DescentState"):
            run(start(3), (X, Y), state=(1, 2))
        with pytest.raises(ValueError, match="A state of another optimizer cannot be continued"):
            descend(linear_loss, optax.sgd(0.1, momentum=0.9), 3)(
                end.params, (X, Y), state=end.state
            )
        with pytest.raises(ValueError, match="expected a scalar, real and floating point"):
            descend(lambda w, data: 1, optax.sgd(0.1), 3)(start(3), (X, Y))
        with pytest.raises(ValueError, match="data holds no arrays"):
            descend(lambda w, data: w.sum(), optax.sgd(0.1), 3, batch_size=2)(
                start(3), None, jax.random.key(0)
            )

    def test_a_predicate_that_is_none(self):
        with pytest.raises(ValueError, match="trainable is 'decoder'; expected a predicate"):
            descend(linear_loss, optax.sgd(0.1), 3, trainable="decoder")(start(3), (X, Y))
