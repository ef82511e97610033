import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import assert_close, compiled, samples

from ntkflow import features
from ntkflow.nnx import from_nnx
from ntkflow.training.descent import descend
from ntkflow.training.losses import squared_loss
from ntkflow.training.observe import Snapshot

MODEL = nn.Sequential([nn.Dense(5), nn.relu, nn.Dense(2)])


def into(path):
    return "layers_0" in path


def out(path):
    return "layers_2" in path


def weights(path):
    return path == ("layers_0", "kernel")


def variables(seed=0, dtype="float64"):
    """Of MODEL, on inputs of three features; no bias is 0."""
    return {
        "params": {
            "layers_0": {
                "kernel": samples(seed, 3, 5, dtype=dtype),
                "bias": samples(seed + 1, 5, dtype=dtype),
            },
            "layers_2": {
                "kernel": samples(seed + 2, 5, 2, dtype=dtype),
                "bias": samples(seed + 3, 2, dtype=dtype),
            },
        }
    }


@pytest.mark.quick
def test_displacement_along_a_run(dtype):
    start, data = (
        variables(0, dtype),
        (samples(4, 6, 3, dtype=dtype), samples(5, 6, 2, dtype=dtype)),
    )
    observe = {"all": features.displacement(into), "kernel": features.displacement(weights)}
    run = descend(squared_loss(MODEL.apply), optax.sgd(0.01), 4, every=2, observe=observe)
    trajectory = compiled(run)(start, data)
    history = trajectory.history
    assert history["all"].shape == (3, 5)
    assert history["all"].dtype == dtype
    assert not history["all"][0].any()
    before, after = (
        np.asarray(tree["params"]["layers_0"]["kernel"], float)
        for tree in (start, trajectory.params)
    )
    moved = np.linalg.norm(after - before, axis=0)
    bias = np.subtract(*(tree["params"]["layers_0"]["bias"] for tree in (trajectory.params, start)))
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(history["kernel"][-1], moved, rtol=0, atol=20 * eps)
    np.testing.assert_allclose(history["all"][-1], np.hypot(moved, bias), rtol=0, atol=20 * eps)

    one = features.largest_displacement(history["all"])
    farthest = int(np.argmax(history["all"][-1]))
    assert_close(one, history["all"][:, farthest])


def test_the_farthest_is_chosen_at_the_end_and_per_run():
    history = np.array([[[0, 0], [5, 1], [2, 3]], [[0, 0], [1, 2], [4, 3]]], float)
    assert features.largest_displacement(history).tolist() == [[0, 1, 3], [0, 1, 4]]
    with pytest.raises(ValueError, match=r"history has shape \(3,\); expected \(records, nodes\)"):
        features.largest_displacement(jnp.ones(3))


def test_a_run_that_diverges_is_data():
    start = variables()
    now = jax.tree.map(lambda leaf: np.where(np.arange(leaf.shape[-1]) == 1, np.nan, leaf), start)

    def measured(now, start):
        moved = features.displacement(into)(Snapshot(1, now, start, None))
        return moved, features.largest_displacement(jnp.stack([jnp.zeros(5), moved]))

    moved, followed = compiled(measured)(now, start)
    assert np.isnan(moved).tolist() == [False, True, False, False, False]
    assert np.isnan(followed).tolist() == [False, True]


def test_a_node_of_a_convolution_is_a_channel():
    # Three channels enter a convolution of two channels, flattened over its 4 pixels.
    first, second, dense = samples(0, 3, 3, 2, 3), samples(1, 2, 2, 3, 2), samples(2, 8, 3)
    network = {
        "params": {
            "Conv_0": {"kernel": first, "bias": jnp.zeros(3)},
            "Conv_1": {"kernel": second, "bias": jnp.ones(2)},
            "Dense_0": {"kernel": dense, "bias": jnp.ones(3)},
        }
    }

    def measured(network):
        convolution = features.importance(
            network, lambda p: p == ("Conv_0", "kernel"), lambda p: "Conv_1" in p
        )
        flattened = features.importance(
            network, lambda p: "Conv_1" in p, lambda p: "Dense_0" in p, positions=4
        )
        return convolution, flattened

    between, last = compiled(measured)(network)
    first, second, dense = map(np.asarray, (first, second, dense))
    following = [np.sum(second[:, :, j] ** 2) for j in range(3)]
    assert_close(between, np.sum(first**2, axis=(0, 1, 2)) * following)
    leaving = np.sum(dense.reshape(4, 2, 3) ** 2, axis=(0, 2))
    assert_close(last, (np.sum(second**2, axis=(0, 1, 2)) + 1) * leaving)
    with pytest.raises(
        ValueError, match=r"Dense_0/kernel .* length 2, .* its pixels as positions="
    ):
        features.importance(network, lambda p: "Conv_1" in p, lambda p: "Dense_0" in p)


def test_importance_does_not_see_where_a_factor_stands():
    factor = jnp.array([0.1, 3.0, 1.0, 7.0, 0.5])

    def both(network, x):
        layers = network["params"]
        moved = {
            "layers_0": jax.tree.map(
                lambda leaf: leaf * factor.reshape((1,) * (leaf.ndim - 1) + (-1,)),
                layers["layers_0"],
            ),
            "layers_2": layers["layers_2"]
            | {"kernel": layers["layers_2"]["kernel"] / factor[:, None]},
        }
        return [
            (MODEL.apply(variables, x), features.importance(variables, into, out))
            for variables in (network, {"params": moved})
        ]

    (outputs, importance), (same_outputs, same) = compiled(both)(variables(), samples(7, 4, 3))
    assert_close(same_outputs, outputs)
    assert_close(same, importance)


def test_both_measures_of_the_paper():
    # √λ_j a_j in the output layer with signs a_j: the general measure is the paper's.
    scales, signs = jnp.array([0.5, 0.3, 0.2]), jnp.array([1.0, -1.0, 1.0])
    kernel = samples(0, 4, 3)
    folded = {"params": {"kernel": kernel}, "fixed": {"output": jnp.sqrt(scales) * signs}}
    apart = {"params": {"kernel": kernel}, "fixed": {"output": signs, "scales": scales}}

    def entering(path):
        return path == ("kernel",)

    def leaving(path):
        return path == ("output",)

    several = apart | {"fixed": {"output": jnp.stack([signs, 2 * signs], axis=1)}}

    def measured():
        return {
            "paper": features.importance(apart, entering, leaving, scales),
            "folded": features.importance(folded, entering, leaving),
            "without": features.importance(apart, entering, None, scales),
            "released": features.importance(apart, entering, leaving, scales, released=True),
            "scales": features.importance(apart, entering, None, scales, released=True),
            "several": features.importance(several, entering, leaving, scales, released=True),
        }

    values = compiled(measured)()
    paper = np.asarray(scales) * (np.asarray(kernel) ** 2).sum(axis=0)
    for name in ("paper", "folded", "without"):
        assert_close(values[name], paper)
    for name in ("released", "scales"):
        assert_close(values[name], scales)
    assert_close(values["several"], 5 * np.asarray(scales))


def test_under_jit_and_vmap():
    networks = [variables(seed) for seed in (0, 10)]
    scales = jnp.full((5,), 0.2)

    def both(network, scales):
        return (
            features.importance(network, into, out),
            features.importance(network, into, scales=scales),
            features.importance(network, into, scales=jnp.full((5,), 0.2)),
        )

    @compiled
    def everything(networks, scales):
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *networks)
        mapped = jax.vmap(both, in_axes=(0, None))(stacked, scales)
        return mapped, [both(network, scales) for network in networks]

    mapped, singles = jax.device_get(everything(networks, scales))
    for s, single_values in enumerate(singles):
        for values, single in zip(mapped, single_values, strict=True):
            assert_close(values[s], single)


def test_an_nnx_model():
    class Model(nnx.Module):
        def __init__(self, rngs):
            draw = lambda key, shape, dtype: samples(shape[0], *shape)  # noqa: E731
            self.encoder = nnx.Linear(4, 6, rngs=rngs, kernel_init=draw)
            self.decoder = nnx.Linear(6, 3, rngs=rngs, kernel_init=draw)

        def __call__(self, x):
            return self.decoder(nnx.relu(self.encoder(x)))

    _, params = from_nnx(Model(nnx.Rngs(0)))
    both = features.importance(
        params, lambda path: path == ("encoder", "kernel"), lambda path: "decoder" in path
    )
    before, behind = (np.asarray(samples(*shape)) for shape in ((4, 4, 6), (6, 6, 3)))
    assert_close(both, (before**2).sum(axis=0) * (behind**2).sum(axis=1))


def test_low_precision_is_measured_in_float32():
    kernel = samples(0, 300, 1).astype(jnp.bfloat16)
    norms = features.node_norms({"kernel": kernel}, lambda path: True)
    assert norms.dtype == jnp.float32
    np.testing.assert_allclose(norms, [np.linalg.norm(np.asarray(kernel, float))], rtol=1e-6)


def test_of_equal_nodes_the_first_counts_more():
    assert features.ranking(jnp.array([2.0, 1.0, 2.0, 3.0, 1.0])).tolist() == [3, 0, 2, 1, 4]
    assert features.ranking(jnp.array([2.0, 1.0, jnp.nan, 3.0, 1.0])).tolist() == [2, 3, 0, 1, 4]
    with pytest.raises(ValueError, match=r"importance has shape \(2, 5\); .*jax.vmap"):
        features.ranking(jnp.ones((2, 5)))


@pytest.mark.parametrize(
    ("arguments", "choices", "message"),
    [
        (("kernel", out), {}, r"incoming is 'kernel'; expected a predicate"),
        ((lambda path: "hidden" in path, out), {}, "incoming matches none of layers_0/bias"),
        ((lambda path: True, out), {}, r"incoming matches .*expected leaves of one layer"),
        ((into, lambda path: path == ("layers_2", "bias")), {}, "outgoing matches none of"),
        ((into, lambda path: "kernel" in path), {}, r"outgoing matches .*has length 5"),
        ((into, out), {"positions": 2}, r"has length 10 \(5 channels at 2 positions\)"),
        ((into, out), {"positions": 0}, "positions is 0; expected a whole number"),
        ((into,), {}, r"outgoing is None; expected the scales λ of shape \(5,\)"),
        ((into, out), {"released": True}, "scales is None"),
        ((into, out, np.ones(4)), {}, r"scales has shape \(4,\); expected \(5,\)"),
        ((into, out, -np.ones(5)), {}, "scales holds negative values"),
        ((into, out, np.full(5, np.nan)), {}, "scales holds negative values or NaN"),
    ],
)
def test_bad_input(arguments, choices, message):
    with pytest.raises(ValueError, match=message):
        features.importance(variables(), *arguments, **choices)


def test_predicates_are_checked_where_observers_are_built():
    with pytest.raises(ValueError, match="incoming is None; expected a predicate"):
        features.displacement(None)
