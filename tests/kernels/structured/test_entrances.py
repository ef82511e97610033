"""Which parameters are followed, and networks in which following was wrong or dear once."""

import functools

import function_networks  # noqa: F401 (fills NETWORKS, as do the next ones)
import jax
import jax.numpy as jnp
import module_networks  # noqa: F401
import numpy as np
import pytest
import transform_networks  # noqa: F401
from helpers import assert_close, compiled, samples
from networks import NETWORKS

from ntkflow import empirical_ntk
from ntkflow.kernels.structured.entrances import entrances, traced
from ntkflow.parameters import partition, selected_paths

# Parameters that enter in ways without a rule; all others of `NETWORKS` are followed.
LOST = {
    "made_weights": {"top", "v", "w"},
    "straight_through": {"w"},
    "custom_jvp_layer": {"first", "second"},
    "custom_vjp_layer": {"first", "second"},
    "conditions": {"gate", "v", "w"},
    "nonlinear_parameters": {"log_w", "logits", "scale", "temperature_scale"},
    "parts_of_parameters": {"left", "qkv", "right"},
    "solved_parameters": {"w"},
    "outputs_without_inputs": {"constant", "w"},
    "message_passing": {"first", "scattered"},
    "fourier_filter": {"filter"},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_followed(name):
    apply, params, x1, *_ = NETWORKS[name]()
    selected, merge = partition(params)
    leaves, structure = jax.tree.flatten(selected)

    def function(arrays, x):
        return apply(merge(jax.tree.unflatten(structure, arrays)), x)

    network = entrances(
        traced(function, leaves, jax.ShapeDtypeStruct((1, *x1.shape[1:]), x1.dtype))
    )
    lost = {
        path[0] if path else ""
        for path, places in zip(selected_paths(selected), network.places, strict=True)
        if places is None
    }
    assert lost == LOST.get(name, set())


def barrier(p, x):
    w, v = jax.lax.optimization_barrier((p["w"], p["v"]))
    return jnp.tanh(x @ w) @ v


def empty_loop(w, x):
    step = lambda h, z: (h + (z @ w)[None], h)  # noqa: E731
    h, hs = jax.lax.scan(step, x @ w, jnp.zeros((0, 3)))
    return jnp.tanh(h) + hs.sum(0)


W, V, X = samples(1, 3, 4), samples(2, 4, 2), samples(0, 5, 3)
ONCE_WRONG = {
    "converted to whole numbers": (lambda w, x: x @ (3 * w).astype(int).astype(float) + x @ w, W),
    "converted to truth values": (lambda w, x: x @ (w.astype(bool).astype(float) + w), W),
    "a scale that is cut off": (lambda w, x: x @ (w * jnp.full(w.shape, 2.7).astype(int)), W),
    "a barrier of several arrays": (barrier, {"w": W, "v": V}),
    "divided by a root": (lambda w, x: jnp.tanh(x @ (w / jnp.sqrt(3.0)) / w.shape[1]), W),
    "divided by a parameter": (
        lambda p, x: x @ (p["w"] / p["t"]) / p["t"],
        {"w": W, "t": jnp.array(0.7)},
    ),
    "an empty sum": (lambda p, x: x[:, :0] @ p["w"][:0] + x @ p["w"], {"w": W}),
    "an empty loop": (empty_loop, W),
}


@pytest.mark.parametrize("name", ONCE_WRONG)
def test_networks_that_were_wrong_once(name):
    apply, params = ONCE_WRONG[name]
    methods = ("jacobian", "auto", "structured", "product")
    kernels = [empirical_ntk(apply, method=method) for method in methods]
    desired, *found = compiled(lambda params: [kernel(params, X) for kernel in kernels])(params)
    for kernel in found:
        assert_close(kernel, desired)


def test_samples_of_another_shape_may_see_other_parts_of_a_parameter():
    def apply(p, x):
        return jnp.tanh(x @ p["w"] + p["positions"][None, : x.shape[1]]).mean(1) @ p["v"]

    params = {"w": W, "positions": samples(3, 6, 4), "v": V}
    x1, x2 = samples(4, 3, 5, 3), samples(5, 2, 3, 3)
    methods = ("auto", "structured", "jacobian", "product")
    kernels = [empirical_ntk(apply, method=method) for method in methods]

    @compiled
    def compute(params, x1, x2):
        rows = [jax.jacrev(apply)(params, x) for x in (x1, x2)]
        return rows, [kernel(params, x1, x2) for kernel in kernels]

    rows, found = compute(params, x1, x2)
    blocks = [[j.reshape(len(j), 2, -1) for j in jax.tree.leaves(row)] for row in rows]
    desired = sum(np.einsum("iap,jbp->ijab", *pair) for pair in zip(*blocks, strict=True))
    for kernel in found:
        assert_close(kernel, desired)


def temporary_bytes(apply, params, x, method):
    kernel = jax.jit(empirical_ntk(apply, outputs="trace", method=method))
    return kernel.lower(params, x).compile().memory_analysis().temp_size_in_bytes


def test_auto_takes_little_memory():
    """A large table is never written as ones and zeros, nor a product of parameters per sample."""
    embedding = lambda p, x: jnp.tanh(p["table"][x]).mean(1) @ p["v"]  # noqa: E731
    params = {"table": samples(1, 5000, 4), "v": V}
    tokens = jnp.arange(8 * 6).reshape(8, 6) * 97
    assert temporary_bytes(embedding, params, tokens, "auto") < 8 * 6 * 5000

    low_rank = lambda p, x: jnp.tanh(x @ (p["w"] + p["a"] @ p["b"])) @ p["v"]  # noqa: E731
    shapes = {"w": (64, 128), "a": (64, 2), "b": (2, 128), "v": (128, 8)}
    params = {name: samples(i, *shape) for i, (name, shape) in enumerate(shapes.items())}
    x = samples(9, 8, 64)
    explicit = 8 * 8 * 64 * 128 * 8  # bytes of the Jacobian by w
    assert temporary_bytes(low_rank, params, x, "auto") < explicit / 2
    kernels = [empirical_ntk(low_rank, method=method) for method in ("auto", "jacobian")]
    found, desired = compiled(lambda params: [kernel(params, x) for kernel in kernels])(params)
    assert_close(found, desired)


@pytest.mark.parametrize("method", ["auto", "jacobian", "product"])
def test_outputs_without_derivatives_are_refused(method):
    kernel = functools.partial(empirical_ntk, method=method)
    with pytest.raises(ValueError, match="numbers of type int"):
        kernel(lambda w, x: (x @ w).astype(int))(W, X)
    with pytest.raises(ValueError, match="at least one output"):
        kernel(lambda w, x: (x @ w)[:, :0])(W, X)
    with pytest.raises(ValueError, match="mixes samples: its output"):
        kernel(lambda w, x: (x @ w) @ (x @ w).T)(W, X)
    assert (kernel(lambda w, x: np.zeros((len(x), 2)))(W, X) == 0).all()


def test_samples_that_a_shard_map_checks_are_refused():
    mesh = jax.make_mesh((4,), ("device",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("device")
    x = samples(0, 8, 3)
    diagonal = lambda x: jnp.diagonal(empirical_ntk(lambda w, x: (x @ w)[:, 0])(W, x))  # noqa: E731
    share = functools.partial(jax.shard_map, diagonal, mesh=mesh, in_specs=spec, out_specs=spec)
    with pytest.raises(ValueError, match="check_vma=False"):
        share()(x)
    assert_close(share(check_vma=False)(x), (x**2).sum(1))
