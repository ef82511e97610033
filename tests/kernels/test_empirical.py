"""Empirical kernels: shapes, symmetry, products, groups, refusals.

That all methods agree on networks of every kind stands in `structured/test_agreement.py`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    CNN,
    MLP,
    assert_close,
    compiled,
    reduce_outputs,
    samples,
    transpose_samples,
)

from ntkflow.kernels.empirical import (
    empirical_nngp,
    empirical_ntk,
    ntk_by_group,
    ntk_diagonal,
    ntk_product,
)


def linen(module, x):
    return module.apply, compiled(module.init)(jax.random.key(1), x)


NETWORKS = {
    "linen": lambda: (linen(MLP(3), samples(0, 1, 4)), (4,)),
    "scalar": lambda: (linen(MLP(None), samples(0, 1, 4)), (4,)),
    "convolutional": lambda: (linen(CNN(), samples(0, 1, 6, 6, 2)), (6, 6, 2)),
    "plain function": lambda: ((lambda w, x: jnp.sin(x @ w), samples(3, 4, 2)), (4,)),
}
OUTPUTS = ["full", "diagonal", "trace"]


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    (apply, params), shape = NETWORKS[request.param]()
    return apply, params, samples(5, 6, *shape), samples(6, 3, *shape)


def explicit_ntk(apply, params, x1, x2, keep=lambda path: True):
    """The definition, by one Jacobian of the whole batch: no vmap, no partition."""
    blocks = [
        np.asarray(leaf).reshape(len(x1) + len(x2), leaf.shape[1], -1)
        for path, leaf in jax.tree_util.tree_leaves_with_path(
            jacobian(apply)(params, jnp.concatenate([x1, x2]))
        )
        if keep(jax.tree_util.keystr(path))
    ]
    full = np.concatenate(blocks, -1)
    return np.einsum("iap,jbp->ijab", full[: len(x1)], full[len(x1) :])


@functools.cache
def jacobian(apply):
    return compiled(jax.jacfwd(apply))


@pytest.mark.quick
def test_every_shape_equals_explicit_jacobians():
    x1, x2 = samples(5, 6, 4), samples(6, 3, 4)
    apply, params = linen(MLP(3), x1)

    @compiled
    def compute(second):
        kernels = [empirical_ntk(apply, outputs=outputs) for outputs in OUTPUTS]
        return [kernel(params, x1, second) for kernel in kernels]

    for second in (x2, None):
        theta = explicit_ntk(apply, params, x1, x1 if second is None else second)
        for outputs, actual in zip(OUTPUTS, compute(second), strict=True):
            assert_close(actual, reduce_outputs(theta, outputs, scalar=False))
            if second is None:
                assert (actual == transpose_samples(actual)).all()


@pytest.mark.parametrize("outputs", [2, None])
def test_diagonal_is_that_of_the_kernel(outputs):
    x = samples(5, 6, 4)
    apply, params = linen(MLP(outputs), x)

    @compiled
    def compute(params, x):
        kernels = [empirical_ntk(apply, outputs=o, method="jacobian") for o in OUTPUTS]
        diagonals = [ntk_diagonal(apply, outputs=o) for o in OUTPUTS]
        pairs = zip(kernels, diagonals, strict=True)
        return [(kernel(params, x), diagonal(params, x)) for kernel, diagonal in pairs]

    for theta, diagonal in compute(params, x):
        assert_close(diagonal, np.stack([theta[i, i] for i in range(6)]))


def test_product_equals_the_kernel_times_a_vector(network):
    apply, params, x1, x2 = network

    @compiled
    def both(v, w):
        theta = empirical_ntk(apply)(params, x1, x2)
        subscripts = "ij,j->i" if v.ndim == 1 else "ijab,jb->ia"
        product = ntk_product(apply)
        return (
            (jnp.einsum(subscripts, theta, v), product(params, x1, x2, v)),
            (product(params, x1, None, w), product(params, x1, x1, w)),
        )

    v, w = (samples(9, *jax.eval_shape(apply, params, x).shape) for x in (x2, x1))
    for expected, actual in both(v, w):
        assert_close(actual, expected, factor=1000)


def test_trainable_keeps_some_parameters_and_the_parts_add_up():
    apply, params = linen(MLP(3), samples(0, 1, 4))
    x1, x2 = samples(5, 6, 4), samples(6, 3, 4)
    groups = ("encoder", "middle", "decoder")
    kernels = [empirical_ntk(apply, trainable=lambda path, g=g: g in path) for g in groups]
    *parts, whole = compiled(
        lambda: [kernel(params, x1, x2) for kernel in [*kernels, empirical_ntk(apply)]]
    )()
    expected = explicit_ntk(apply, params, x1, x2, keep=lambda path: "encoder" in path)
    assert_close(parts[0], expected)
    assert_close(sum(parts), whole)
    v = samples(9, 3, 3)
    product = compiled(ntk_product(apply, trainable=lambda path: "encoder" in path))
    assert_close(product(params, x1, x2, v), np.einsum("ijab,jb->ia", parts[0], v), factor=1000)


def test_groups_are_parts_of_the_sum():
    apply, params = linen(MLP(3), samples(0, 1, 4))
    x1, x2 = samples(5, 6, 4), samples(6, 3, 4)
    layers = compiled(ntk_by_group(apply))(params, x1, x2)
    assert sorted(layers) == ["decoder", "encoder", "middle"]
    encoder = explicit_ntk(apply, params, x1, x2, keep=lambda path: "encoder" in path)
    assert_close(layers["encoder"], encoder)
    assert_close(sum(layers.values()), explicit_ntk(apply, params, x1, x2))
    by_kind = ntk_by_group(
        apply,
        group=lambda path: (path[-1], len(path)),
        trainable=lambda path: path[0] != "middle",
        outputs="trace",
    )
    kinds = compiled(by_kind)(params, x1)
    assert list(kinds) == [("bias", 2), ("kernel", 2)]
    whole = explicit_ntk(apply, params, x1, x1, keep=lambda path: "middle" not in path)
    assert_close(sum(kinds.values()), np.einsum("ijaa->ij", whole))
    bare = ntk_by_group(lambda w, x: x @ w)(samples(0, 4), x1)
    assert_close(bare[()], x1 @ x1.T)


def test_float32_stays_float32_and_agrees_with_float64():
    x = samples(5, 6, 4)
    apply, params = linen(MLP(2), x)
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    kernel = compiled(empirical_ntk(apply))
    theta = kernel(low, x.astype(jnp.float32))
    assert theta.dtype == jnp.float32
    assert_close(theta, kernel(params, x), factor=100)


def test_transforms_compose():
    apply, params = linen(MLP(None), samples(0, 1, 4))
    x = samples(5, 6, 4)
    kernel = jax.jit(empirical_ntk(apply))
    params = jax.device_get(params)
    many = jax.tree.map(lambda leaf: np.stack([leaf, 2 * leaf]), params)

    @compiled
    def compute(params, many):
        trace = lambda p: jnp.trace(kernel(p, x))  # noqa: E731
        direction = jax.tree.map(jnp.ones_like, params)
        slope = jax.jvp(trace, (params,), (direction,))[1]
        return jax.vmap(kernel, (0, None))(many, x)[0], kernel(params, x), trace(params), slope

    batched, single, start, slope = compute(params, many)
    assert_close(batched, single)
    moved = [
        compute(jax.tree.map(lambda leaf, s=s: leaf + s, params), many)[2] for s in (1e-6, -1e-6)
    ]
    assert moved[0] != start
    np.testing.assert_allclose(slope, (moved[0] - moved[1]) / 2e-6, rtol=1e-6)


def test_integer_inputs_reach_the_network_as_they_are():
    table = samples(0, 10, 3)
    theta = empirical_ntk(lambda p, tokens: p[tokens].sum(-2))(table, jnp.array([[0, 1], [1, 1]]))
    assert_close(theta[:, :, 0, 0], np.array([[2.0, 2.0], [2.0, 4.0]]))


@pytest.mark.parametrize("shape", [(), (3,)])
def test_nngp_is_the_product_of_outputs(shape):
    apply, w = lambda w, x: jnp.sin(x @ w), samples(3, 4, *shape)
    x1, x2 = samples(5, 6, 4), samples(6, 3, 4)
    f1, f2 = (np.asarray(apply(w, x)).reshape(len(x), -1) for x in (x1, x2))
    for outputs in OUTPUTS:
        kernel = empirical_nngp(apply, outputs=outputs)
        expected = reduce_outputs(np.einsum("ia,jb->ijab", f1, f2), outputs, shape == ())
        assert_close(kernel(w, x1, x2), expected)
        symmetric = np.asarray(kernel(w, x1))
        assert (symmetric == transpose_samples(symmetric)).all()


class TestBadInput:
    apply = staticmethod(lambda w, x: x @ w)
    w = np.ones((4, 2))

    def test_unknown_outputs_and_method(self):
        with pytest.raises(ValueError, match=r"outputs is 'all'; expected one of .*'trace'"):
            empirical_ntk(self.apply, outputs="all")
        with pytest.raises(ValueError, match="outputs is 'all'"):
            empirical_nngp(self.apply, outputs="all")
        with pytest.raises(ValueError, match="method is 'fast'; expected one of"):
            empirical_ntk(self.apply, method="fast")

    @pytest.mark.parametrize("build", [empirical_ntk, empirical_nngp])
    @pytest.mark.parametrize(
        ("x", "message"),
        [
            (np.ones((0, 4)), "x1 hold no samples"),
            (np.float64(1.0), "x1 is a scalar"),
            (np.full((2, 4), np.nan), r"x1 holds NaN .* 8 of 8"),
        ],
    )
    def test_inputs(self, build, x, message):
        with pytest.raises(ValueError, match=message):
            build(self.apply)(self.w, x)

    def test_output_of_another_batch_size_or_rank(self):
        x = np.ones((3, 4))
        with pytest.raises(ValueError, match=r"returned shape \(1, 2\) for 3 samples in x1"):
            empirical_ntk(lambda w, x: x[:1] @ w)(self.w, x)
        with pytest.raises(ValueError, match=r"returned shape \(3, 2, 1\)"):
            empirical_ntk(lambda w, x: (x @ w)[..., None])(self.w, x)
        with pytest.raises(ValueError, match="expected one array"):
            empirical_ntk(lambda w, x: (x @ w, {}))(self.w, x)

    def test_v_of_another_shape(self):
        x = np.ones((3, 4))
        with pytest.raises(ValueError, match=r"v has shape \(3,\); expected \(3, 2\)"):
            ntk_product(self.apply)(self.w, x, x, np.ones(3))

    def test_arguments_in_the_wrong_places(self):
        with pytest.raises(ValueError, match=r"write module.apply"):
            empirical_ntk(MLP(2))
        with pytest.raises(ValueError, match=r"x1 is a dict; .* order is \(params, x1, x2\)"):
            empirical_ntk(self.apply)(np.ones((3, 4)), {"w": self.w})
