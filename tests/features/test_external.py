import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import assert_close, compiled, samples

from ntkflow import cross_entropy_loss, descend, features, squared_loss

IMPORTANCE = jnp.array([2.0, 5.0, 1.0, 3.0])
mean = functools.partial(squared_loss, reduction="mean")


def hidden(weights, x):
    return jnp.tanh(x @ weights)


def setting(dtype="float64"):
    x = np.asarray(samples(1, 20, 3, dtype=dtype))
    y = np.sin(x[:, 0])
    return samples(0, 3, 4, dtype=dtype), (x[:12], y[:12]), (x[12:], y[12:])


def test_the_most_important_come_first():
    x = samples(1, 12, 4)
    top = compiled(functools.partial(features.top_features(lambda variables, x: x, 3), None))
    assert_close(top(IMPORTANCE, x), np.asarray(x)[:, [1, 3, 0]])
    assert_close(top(jnp.ones(4), x), np.asarray(x)[:, :3])
    # They are what is left when the others are pruned.
    left = features.prune({"output": np.ones(4)}, lambda path: True, IMPORTANCE, 1)["output"]
    assert np.flatnonzero(left).tolist() == [0, 1, 3]


def test_channels_are_features_of_a_convolution():
    images = samples(0, 2, 3, 3, 4)
    values = features.top_features(lambda variables, x: x, 2)(None, IMPORTANCE, images)
    assert_close(values, np.asarray(images)[..., [1, 3]])
    external = features.ExternalNetwork(widths=(3,), outputs=2)
    params = jax.eval_shape(external.init, jax.random.key(0), values)
    assert params["params"]["Dense_0"]["kernel"].shape == (18, 3)


@pytest.mark.quick
def test_transfer_is_descent_on_the_top_features(dtype):
    weights, train, test = setting(dtype)
    seen, unseen = (np.tanh(np.asarray(x) @ weights)[:, [1, 3]] for x, _ in (train, test))
    external = features.ExternalNetwork(widths=(5,), param_dtype=dtype)
    loss = mean(external.apply)

    def both(key):
        run = features.transfer(hidden, 2, external, mean, optax.sgd(0.1), 20)
        # The module's own draw: its parameters' key is the first of two.
        start = external.init(jax.random.split(key)[0], seen)
        descent = descend(loss, optax.sgd(0.1), 20, every=20)(start, (seen, train[1]))
        params = descent.params
        result = run(key, weights, IMPORTANCE, train, test)
        outputs = external.apply(params, unseen)
        return result, params, descent.history["loss"], loss(params, (unseen, test[1])), outputs

    result, params, losses, test_loss, outputs = compiled(both)(jax.random.key(0))
    assert result.train_loss.dtype == dtype
    assert_close(result.train_loss, losses[-1])
    assert result.train_loss < 0.7 * losses[0]
    assert_close(result.test_loss, test_loss)
    assert_close(result.test_outputs, outputs)
    assert_close(result.train_loss, np.mean(np.square(result.train_outputs - train[1])))
    for leaf, expected in zip(*map(jax.tree.leaves, (result.params, params)), strict=True):
        assert_close(leaf, expected, scale=1.0)


def test_what_is_not_kept_does_not_matter_and_seeds_map():
    weights, train, test = setting()
    train, test = ((x, (np.asarray(y) > 0).astype(int)) for x, y in (train, test))
    external = features.ExternalNetwork((4, 4), outputs=2)
    run = features.transfer(hidden, 2, external, cross_entropy_loss, optax.sgd(0.3), 9)
    other = np.array(weights)
    other[:, 0] = 7.0  # node 0 is third in importance
    keys = jax.random.wrap_key_data(jnp.array([[0, 0], [0, 0], [0, 1]], jnp.uint32))

    def experiment(key, weights):
        return run(key, weights, IMPORTANCE, train, test)

    result = compiled(jax.vmap(experiment))(keys, jnp.stack([weights, other, weights]))
    assert result.test_outputs.shape == (3, 8, 2)
    assert_close(result.test_loss[0], result.test_loss[1])
    assert result.test_loss[0] != result.test_loss[2]


def test_an_external_network_may_be_a_pair_of_functions():
    weights, train, test = setting()
    pair = (lambda key, x: jnp.zeros(x.shape[1]), lambda params, x: x @ params)
    run = features.transfer(hidden, 4, pair, mean, optax.sgd(0.2), 500)
    result = compiled(run)(jax.random.key(0), weights, IMPORTANCE, train, test)
    inputs = hidden(weights, train[0])
    best, *_ = np.linalg.lstsq(inputs, train[1])
    least = np.mean(np.square(inputs @ best - train[1]))
    np.testing.assert_allclose(result.train_loss, least, rtol=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": None}, "hidden is of type NoneType; expected a function hidden"),
        ({"kept": 0}, "kept is 0; expected a whole number"),
        ({"kept": 5}, "kept is 5, and there are 4 nodes"),
        ({"hidden": lambda w, x: x}, r"shape \(12, 3\), .* expected \(12, ..., 4\)"),
        ({"hidden": lambda w, x: x[:, 0]}, r"shape \(12,\), .* nodes on the last axis"),
        ({"external": "mlp"}, "module is of type str; expected a Flax Linen module"),
        ({"external": nnx.Linear(4, 1, rngs=nnx.Rngs(0))}, "An NNX model holds values"),
        ({"external": features.ExternalNetwork(64)}, r"widths is 64; expected .* \(64,\)"),
        ({"external": features.ExternalNetwork((0,))}, "widths is 0; expected a whole number"),
        ({"external": features.ExternalNetwork(outputs=0)}, "outputs is 0; expected a whole"),
        ({"loss": lambda params, data: 0.0}, "loss does not turn a network into its loss"),
        ({"train": jnp.ones(3)}, r"train is of type .*; expected a pair \(x, y\)"),
        ({"test": (jnp.ones((3, 3)), jnp.ones(2))}, "Leading axes differ"),
        ({"key": 0}, "key is of int; expected one PRNG key"),
    ],
)
def test_bad_input(changes, message):
    weights, train, test = setting()
    given = {
        "hidden": hidden,
        "kept": 2,
        "external": features.ExternalNetwork((3,)),
        "loss": mean,
        "key": jax.random.key(0),
        "train": train,
        "test": test,
    } | changes
    with pytest.raises(ValueError, match=message):
        features.transfer(
            given["hidden"], given["kept"], given["external"], given["loss"], optax.sgd(0.1), 2
        )(given["key"], weights, IMPORTANCE, given["train"], given["test"])
