"""Every method of the empirical NTK against explicit Jacobians, for networks of every kind."""

import functools
import itertools

import function_networks  # noqa: F401 (fills NETWORKS, as do the next ones)
import jax
import jax.numpy as jnp
import mixing_networks  # noqa: F401
import module_networks  # noqa: F401
import numpy as np
import pytest
import transform_networks  # noqa: F401
from helpers import compiled, reduce_outputs, transpose_samples
from networks import MIXING, NETWORKS

from ntkflow import empirical_ntk

METHODS = ["auto", "jacobian", "structured", "product"]
OUTPUTS = ["full", "diagonal", "trace"]
PAIRS = [(outputs, second) for second in (True, False) for outputs in OUTPUTS]
EVERYTHING = ("scalar", "custom_vjp_layer")  # between the two of them


@functools.cache
def built(name):
    return NETWORKS[name]()


def jacobians(apply, params, x, keep=lambda path: True):
    """(n, o, entries) of all trained parameters, by reverse mode over the whole batch."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    trained = [
        i
        for i, (path, leaf) in enumerate(leaves)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
        and (not _is_linen(params) or path[0].key == "params")
        and keep(jax.tree_util.keystr(path))
    ]

    def f(own):
        whole = [leaf for _, leaf in leaves]
        for i, leaf in zip(trained, own, strict=True):
            whole[i] = leaf
        return apply(jax.tree.unflatten(structure, whole), x)

    blocks = jax.jacrev(f)([leaves[i][1] for i in trained])
    return jnp.concatenate(
        [
            b.reshape(x.shape[0], -1, leaves[i][1].size)
            for i, b in zip(trained, blocks, strict=True)
        ],
        -1,
    )


def _is_linen(params):
    return isinstance(params, dict) and "params" in params


def explicit_ntk(apply, params, x1, x2, keep=lambda path: True):
    """Θ(x1, x1 and then x2), by one Jacobian."""
    whole = jacobians(apply, params, jnp.concatenate([x1, x2]), keep)
    return jnp.einsum("iap,jbp->ijab", whole[: x1.shape[0]], whole)


def assert_within(actual, desired, tolerance, what=""):
    actual, desired = np.asarray(actual), np.asarray(desired)
    assert actual.shape == desired.shape, (what, actual.shape, desired.shape)
    apart, scale = np.abs(actual - desired).max(), np.abs(desired).max()
    assert scale > 0, f"{what}: the kernel vanishes, and tests nothing"
    assert apart <= tolerance * scale, f"{what}: {apart / scale:.1e} of the largest entry apart"


def asked(name):
    """(method, outputs, whether x2 is given): what is computed for this network.

    All of it for two, one with x2 where the other has none; the others, since compiling takes
    long, take turns.
    """
    if name in EVERYTHING:
        every = enumerate(itertools.product(METHODS, OUTPUTS), EVERYTHING.index(name))
        return [(method, outputs, i % 2 == 0) for i, (method, outputs) in every]
    turn = list(NETWORKS).index(name)
    other = ("structured", *PAIRS[3 + turn // 2 % 3])
    if turn % 2:
        other = (("auto", "jacobian", "product")[turn % 3], *PAIRS[turn // 3 % 6])
    return [("structured", "full", True), other]


@pytest.mark.parametrize("name", NETWORKS)
def test_methods_equal_explicit_jacobians(name):
    apply, params, x1, x2, tolerance = built(name)

    @compiled
    def compute(params, x1, x2):
        found = {}
        for method, outputs, second in asked(name):
            kernel = empirical_ntk(apply, outputs=outputs, method=method)
            found[method, outputs, second] = kernel(params, x1, x2 if second else None)
        return found, explicit_ntk(apply, params, x1, x2)

    found, explicit = compute(params, x1, x2)
    scalar = jax.eval_shape(apply, params, x1).ndim == 1
    for (method, outputs, second), actual in found.items():
        what = f"{name}, {method}, {outputs}, {'x2' if second else 'x1 alone'}"
        assert actual.dtype == jnp.float64, what
        columns = np.s_[:, x1.shape[0] :] if second else np.s_[:, : x1.shape[0]]
        desired = reduce_outputs(np.asarray(explicit)[columns], outputs, scalar)
        assert_within(actual, desired, tolerance, what)
        if not second:
            actual = np.asarray(actual)
            assert (actual == transpose_samples(actual)).all(), f"{what}: not symmetric"


@pytest.mark.quick
@pytest.mark.parametrize("name", ["lenet", "parts_of_parameters"])
def test_one_sample(name):
    apply, params, x1, x2, _ = built(name)

    @compiled
    def compute(params, x1, x2):
        kernels = [empirical_ntk(apply, method=method) for method in METHODS]
        return [kernel(params, x1, x2) for kernel in kernels], explicit_ntk(apply, params, x1, x2)

    found, desired = compute(params, x1[:1], x2[:1])
    for method, actual in zip(METHODS, found, strict=True):
        assert_within(actual, desired[:, 1:], 1e-10, method)


@pytest.mark.parametrize("name", ["ten_outputs", "lenet", "causal_language_model"])
def test_float32_stays_float32(name):
    apply, params, x1, x2, _ = built(name)
    floating = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating)  # noqa: E731
    low = jax.tree.map(
        lambda leaf: np.asarray(leaf, "float32") if floating(leaf) else leaf, (params, x1, x2)
    )

    @compiled
    def compute(low, high):
        return empirical_ntk(apply, method="structured")(*low), explicit_ntk(apply, *high)

    actual, desired = compute(low, (params, x1, x2))
    assert actual.dtype == jnp.float32
    assert_within(actual, desired[:, x1.shape[0] :], 1e-5)


@pytest.mark.parametrize("name", ["tied_autoencoder", "depthwise", "lookups"])
def test_transforms_of_structured_equal_those_of_the_reference(name):
    """vmap over seeds, jvp and grad with respect to the parameters."""
    apply, params, x1, x2, _ = built(name)
    rng = np.random.default_rng(7)
    params = jax.device_get(params)
    moved = jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape), params)
    seeds = jax.tree.map(lambda a, b: np.stack([a, b]), params, moved)
    direction = jax.tree.map(np.subtract, moved, params)

    def transforms(method, x1, x2):
        kernel = empirical_ntk(apply, method=method)
        shape = jax.eval_shape(kernel, params, x1, x2).shape
        weights = np.random.default_rng(8).normal(size=shape)
        return {
            "vmap": jax.vmap(kernel, (0, None, None))(seeds, x1, x2),
            "jvp": jax.jvp(lambda p: kernel(p, x1), (params,), (direction,)),
            "grad": jax.grad(lambda p: jnp.sum(weights * kernel(p, x1, x2)))(params),
        }

    @compiled
    def compute(x1, x2):
        return [transforms(method, x1, x2) for method in ("structured", "jacobian")]

    found, desired = compute(x1, x2)
    for part, wanted in desired.items():
        leaves = [map(np.ravel, jax.tree.leaves(tree)) for tree in (found[part], wanted)]
        assert_within(*(np.concatenate(list(own)) for own in leaves), 1e-10, part)


def test_the_kernel_along_a_training_loop():
    apply, params, x1, x2, _ = built("lenet")
    y = jnp.asarray(np.random.default_rng(9).normal(size=jax.eval_shape(apply, params, x1).shape))
    loss = lambda params: jnp.mean((apply(params, x1) - y) ** 2)  # noqa: E731

    @compiled
    def train(params):
        def step(params, _):
            kernels = [empirical_ntk(apply, method=m)(params, x1, x2) for m in methods]
            return jax.tree.map(lambda p, g: p - 0.05 * g, params, jax.grad(loss)(params)), kernels

        return *jax.lax.scan(step, params, length=3), explicit_ntk(apply, params, x1, x2)

    methods = ("structured", "jacobian")
    _, (structured, reference), first = train(params)
    assert np.abs(reference[2] - reference[0]).max() > 1e-3 * np.abs(reference).max()
    assert_within(structured[0], first[:, x1.shape[0] :], 1e-10)
    assert_within(structured, reference, 1e-10)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("lenet", "layers_3"),
        ("tied_autoencoder", "w"),
        ("nnx_convolution", "linear"),
        ("containers", "1"),
        ("made_weights", "mask"),
    ],
)
def test_trainable_takes_a_part(name, part):
    apply, params, x1, x2, _ = built(name)
    chosen = lambda path: any(part in entry for entry in path)  # noqa: E731

    @compiled
    def compute(params, x1, x2):
        kernels = [empirical_ntk(apply, trainable=chosen, method=m) for m in methods]
        desired = explicit_ntk(apply, params, x1, x2, keep=lambda path: part in path)
        return [kernel(params, x1, x2) for kernel in kernels], desired

    methods = ("auto", "structured")

    found, desired = compute(params, x1, x2)
    for method, actual in zip(methods, found, strict=True):
        assert_within(actual, desired[:, x1.shape[0] :], 1e-10, method)


@pytest.mark.parametrize(
    ("name", "method"), [(n, m) for n, m in itertools.product(MIXING, METHODS)]
)
def test_networks_that_mix_samples_are_refused(name, method):
    apply, params, x1, x2, _ = MIXING[name]()
    kernel = empirical_ntk(apply, method=method)
    with pytest.raises(ValueError, match="mixes samples"):
        jax.eval_shape(kernel, params, x1)
    with pytest.raises(ValueError, match="mixes samples"):
        jax.eval_shape(kernel, params, x1, x2)
