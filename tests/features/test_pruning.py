import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled, samples

from ntkflow import features, over_seeds
from ntkflow.systems.node_scaling import NodeScaledNetwork
from ntkflow.training.descent import descend
from ntkflow.training.losses import cross_entropy_loss, squared_loss

WIDTH = 6
MODEL = nn.Sequential([nn.Dense(WIDTH), nn.tanh, nn.Dense(3, use_bias=False)])


def out(path):
    return "layers_2" in path


def network(seed=0, dtype="float64"):
    hidden = {"kernel": samples(seed, 4, WIDTH, dtype=dtype), "bias": jnp.ones(WIDTH, dtype)}
    return {
        "params": {
            "layers_0": hidden,
            "layers_2": {"kernel": samples(seed + 1, WIDTH, 3, dtype=dtype)},
        }
    }


def outputs_without(variables, nodes, x):
    """Of the smaller network, from which nodes are deleted, in NumPy."""
    first, last = variables["params"]["layers_0"], variables["params"]["layers_2"]
    kernel, bias = (np.delete(first[name], nodes, axis=-1) for name in ("kernel", "bias"))
    return np.tanh(np.asarray(x) @ kernel + bias) @ np.delete(last["kernel"], nodes, axis=0)


@pytest.mark.quick
def test_removed_nodes_are_as_if_they_were_not_there(dtype):
    variables, x = network(dtype=dtype), samples(3, 5, 4, dtype=dtype)
    importance = jnp.array([3.0, 1.0, 5.0, 2.0, 6.0, 4.0], dtype)
    removed = (0, 2, 5, 1)  # in any order
    evaluate = lambda variables, x: {"outputs": MODEL.apply(variables, x)}  # noqa: E731
    curve = compiled(features.pruning_curve(evaluate, out, removed))
    outputs = curve(variables, importance, x)["outputs"]
    assert outputs.shape == (4, 5, 3)
    assert outputs.dtype == dtype
    weakest = np.argsort(importance)
    for values, count in zip(outputs, removed, strict=True):
        assert_close(values, outputs_without(variables, weakest[:count], x), scale=1.0)
    pruned = features.prune(variables, out, importance, 2)
    assert jax.tree.structure(pruned) == jax.tree.structure(variables)
    kernel = np.array(variables["params"]["layers_2"]["kernel"])
    kernel[weakest[:2]] = 0
    assert_close(pruned["params"]["layers_2"]["kernel"], kernel)
    assert pruned["params"]["layers_0"]["kernel"] is variables["params"]["layers_0"]["kernel"]


def test_channels_go_with_their_filters_and_with_their_pixels():
    second, dense = samples(1, 2, 2, 3, 2), samples(2, 8, 3)  # 2 channels, flattened: 4 pixels
    variables = {
        "params": {
            "Conv_1": {"kernel": second, "bias": jnp.ones(2)},
            "Dense_0": {"kernel": dense, "bias": jnp.ones(3)},
        }
    }

    # Of three channels that enter Conv_1, number 1 is removed: no filter sees it.
    between = features.prune(variables, lambda p: "Conv_1" in p, jnp.array([2.0, 1.0, 3.0]), 1)
    second = np.array(second)
    second[:, :, 1] = 0
    assert_close(between["params"]["Conv_1"]["kernel"], second)
    assert between["params"]["Conv_1"]["bias"] is variables["params"]["Conv_1"]["bias"]

    def evaluate(variables, images):
        layer = variables["params"]["Dense_0"]
        return images.reshape(len(images), -1) @ layer["kernel"] + layer["bias"][None, :]

    curve = features.pruning_curve(evaluate, lambda p: "Dense_0" in p, [0, 1, 2], positions=4)
    images = samples(3, 5, 2, 2, 2)
    outputs = compiled(curve)(variables, jnp.array([1.0, 2.0]), images)
    for values, removed in zip(outputs, ([], [0], [0, 1]), strict=True):
        silenced = np.array(images)
        silenced[..., removed] = 0
        assert_close(values, silenced.reshape(5, 8) @ np.asarray(dense) + 1, scale=1.0)


def test_without_nodes_a_network_knows_nothing():
    variables, x, classes = network(), samples(0, 8, 4), 3
    one_hot = np.eye(classes)[np.arange(8) % classes]
    real = np.asarray(samples(1, 8, classes))
    standardized = (real - real.mean(axis=0)) / real.std(axis=0)
    mean = squared_loss(MODEL.apply, "mean")

    def evaluate(variables, data):
        x, one_hot, standardized = data
        return {
            "cross entropy": cross_entropy_loss(MODEL.apply)(variables, (x, one_hot)),
            "one-hot": mean(variables, (x, one_hot)),
            "standardized": mean(variables, (x, standardized)),
        }

    curve = compiled(features.pruning_curve(evaluate, out, [0, WIDTH]))
    values = curve(variables, jnp.arange(WIDTH * 1.0), (x, one_hot, standardized))
    limits = {"cross entropy": math.log(classes), "one-hot": 1 / classes, "standardized": 1.0}
    for name, limit in limits.items():
        assert values[name][1] == pytest.approx(limit, rel=1e-12)
        assert abs(values[name][0] - limit) > 0.1


def test_a_removed_node_has_scale_zero():
    scales = np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
    model, x = NodeScaledNetwork(scales), samples(0, 5, 3)
    signs = jnp.array([1.0, -1.0, 1.0, 1.0, -1.0, -1.0])
    kernel = samples(1, 3, WIDTH)
    variables = {"params": {"kernel": kernel}, "fixed": {"output": signs, "scales": scales}}
    curve = features.pruning_curve(model.apply, lambda p: "output" in p, range(WIDTH + 1))
    importance = scales * np.sum(np.asarray(kernel) ** 2, axis=0)
    rank = np.argsort(np.argsort(importance))

    def both(variables, x):
        measured = features.importance(variables, lambda p: "kernel" in p, scales=scales)
        outputs = curve(variables, measured, x)
        kept = jnp.asarray(rank[None, :] >= np.arange(WIDTH + 1)[:, None])

        def silenced(keep):
            scaled = {"output": signs, "scales": jnp.where(keep, scales, 0)}
            return model.apply(variables | {"fixed": scaled}, x)

        return outputs, jax.vmap(silenced)(kept)

    outputs, expected = compiled(both)(variables, x)
    assert_close(outputs, expected)
    assert not outputs[-1].any()


def test_nodes_on_the_last_axis_of_a_decoder():
    encoder, decoder = samples(0, 4, WIDTH), samples(1, 4, WIDTH)
    variables = {"params": {"encoder": encoder}, "fixed": {"decoder": decoder}}
    choices = [lambda path: "encoder" in path, lambda path: "decoder" in path]
    importance = np.asarray(features.importance(variables, *choices, axis=-1))
    assert_close(importance, np.sum(np.square(encoder), 0) * np.sum(np.square(decoder), 0))
    pruned = features.prune(variables, choices[1], importance, 2, axis=-1)
    expected = np.array(decoder)
    expected[:, np.argsort(importance)[:2]] = 0
    assert_close(pruned["fixed"]["decoder"], expected)
    with pytest.raises(ValueError, match=r"decoder \(4, 6\); .*axis -2, .*or give axis=-1"):
        features.prune(variables, choices[1], importance, 2)
    with pytest.raises(ValueError, match="axis is 0; expected −2, or −1"):
        features.prune(variables, choices[1], importance, 2, axis=0)


def test_one_evaluation_for_each_entry():
    calls = []

    def evaluate(variables, x):
        jax.debug.callback(lambda: calls.append(1))
        return jnp.sum(MODEL.apply(variables, x))

    curve = compiled(features.pruning_curve(evaluate, out, [0, 3, 6]))
    jax.block_until_ready(curve(network(), jnp.arange(6.0), jnp.ones((1, 4))))
    jax.effects_barrier()
    assert len(calls) == 3


def test_a_curve_compiles_once():
    traced = []

    def evaluate(variables, x):
        traced.append(1)
        return x @ variables["output"]

    curve = features.pruning_curve(evaluate, lambda path: True, [0, 1])
    for value in (1.0, 2.0, 3.0):
        outputs = curve({"output": np.array([value, 5.0])}, np.array([0.0, value]), np.ones(2))
        assert outputs.tolist() == [5 + value, 5.0]
    assert len(traced) == 1


def test_in_an_experiment_of_many_seeds():
    x = samples(0, 7, 4)
    data = (x, samples(1, 7, 3))
    loss = squared_loss(MODEL.apply, "mean")
    curve = features.pruning_curve(loss, out, range(0, WIDTH + 1, 3))

    def experiment(key):
        run = descend(loss, optax.sgd(0.5), 5)
        scale = 1 + jax.random.uniform(key, dtype=float)
        variables = run(jax.tree.map(lambda leaf: scale * leaf, network()), data).params
        importance = features.importance(variables, lambda path: "layers_0" in path, out)
        return curve(variables, importance, data)

    keys = jax.random.split(jax.random.key(0), 2)
    curves = compiled(over_seeds(experiment))(keys)
    assert curves.shape == (2, 3)
    single = compiled(experiment)(keys[1])
    assert_close(curves[1], single)
    assert curves[0, 0] != curves[1, 0]
    assert_close(curves[:, -1], np.full(2, np.mean(np.square(data[1]))))


def test_infinite_weights_go_too():
    variables = {"output": jnp.array([jnp.inf, 1.0])}
    pruned = features.prune(variables, lambda path: True, jnp.array([0.0, 1.0]), 1)
    assert pruned["output"].tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("evaluate", "outgoing", "removed", "message"),
    [
        (None, out, [1], r"evaluate is of type NoneType; expected a function evaluate"),
        (MODEL.apply, "output", [1], "outgoing is 'output'; expected a predicate"),
        (MODEL.apply, out, [], r"removed is \[\]; expected at least one number"),
        (MODEL.apply, out, [0, -1], "expected at least one number, none negative"),
        (MODEL.apply, out, [0.5], r"removed is \[0.5\]; expected whole numbers"),
        (MODEL.apply, out, 3, "removed is 3; expected whole numbers"),
        (MODEL.apply, out, [0, 7], "7 nodes are to be removed, and there are 6"),
        (MODEL.apply, lambda path: "layers_9" in path, [1], "outgoing matches none of"),
        (MODEL.apply, lambda path: "layers_0" in path, [1], r"matches layers_0/kernel \(4, 6\)"),
    ],
)
def test_bad_input(evaluate, outgoing, removed, message):
    with pytest.raises(ValueError, match=message):
        features.pruning_curve(evaluate, outgoing, removed)(
            network(), jnp.ones(WIDTH), jnp.ones((1, 4))
        )


def test_more_bad_input():
    with pytest.raises(ValueError, match="7 nodes are to be removed, and there are 6"):
        features.prune(network(), out, jnp.ones(WIDTH), 7)
    with pytest.raises(ValueError, match="expected whole numbers that are known before tracing"):
        jax.jit(lambda k: features.prune(network(), out, jnp.ones(WIDTH), k))(1)
