import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import CNN, assert_close, compiled

from ntkflow.kernels import empirical_ntk, fully_connected_relu
from ntkflow.kernels.operators import kernel_operator, ntk_operator


def normal(seed, *shape, dtype="float64"):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def apply(params, x):
    return jnp.tanh(x @ params["first"]) @ params["second"]


def network(outputs):
    """Parameters of a network of some outputs, or of a scalar one, and samples."""
    second = normal(1, 6, *([outputs] if outputs else []))
    return {"first": normal(0, 4, 6), "second": second}, normal(2, 13, 4)


def as_matrix(theta):
    """(n1, n2, o, o) as (n1·o, n2·o); (n1, n2) as it is."""
    if theta.ndim == 2:
        return theta
    n1, n2, o, _ = theta.shape
    return theta.transpose(0, 2, 1, 3).reshape(n1 * o, n2 * o)


def polynomial(x1, x2):
    return jnp.square(1 + x1 @ x2.T)


# All samples at once on one device; blocks with a remainder, of an odd share of three devices.
@pytest.mark.parametrize(("outputs", "devices", "max_bytes"), [(None, 1, 2**28), (3, 3, 2500)])
def test_ntk_operator_is_the_ntk(outputs, devices, max_bytes):
    params, x = network(outputs)
    operator = ntk_operator(apply, params, x, devices=devices, max_bytes=max_bytes)
    assert (operator.rule.rows < 5) == (devices == 3)
    kernel, chosen = empirical_ntk(apply), np.array([3, 0, 7])
    x_test = x[:6] + 0.1
    both = np.asarray(compiled(kernel)(params, jnp.concatenate([x, x_test]), x))
    theta, matrix, cross = both[:13], as_matrix(both[:13]), as_matrix(both[13:])
    assert operator.shape == matrix.shape
    v = normal(2, *operator.vector_shape, 5)

    @compiled
    def compute(operator, v, x_test):
        products = operator @ v, operator @ v[..., 0], operator.cross(x_test, v)
        return products, operator.diagonal(), operator.columns(chosen)

    (many, one, of_test), diagonal, of_chosen = compute(operator, v, x_test)
    flat = np.asarray(v).reshape(len(matrix), 5)
    assert_close(many, (matrix @ flat).reshape(v.shape))
    assert_close(one, (matrix @ flat[:, 0]).reshape(v.shape[:-1]))
    assert_close(np.ravel(diagonal), np.diag(matrix))
    columns = theta[:, chosen]
    assert_close(of_chosen, columns.transpose(0, 2, 1, 3) if outputs else columns)
    assert_close(of_test, (cross @ flat).reshape(6, *v.shape[1:]))


def test_blocks_are_within_the_budget():
    # XLA's own account of the temporaries of a product.
    def temporaries(operator, v):
        program = jax.jit(lambda operator, v: operator @ v).lower(operator, v).compile()
        return program.memory_analysis().temp_size_in_bytes

    images = normal(0, 64, 8, 8, 1)
    params = compiled(CNN().init)(jax.random.key(0), images)
    operator = ntk_operator(CNN().apply, params, images, devices=1, max_bytes=200_000)
    assert 1 < operator.rule.rows < 64
    assert 40_000 < temporaries(operator, jnp.ones((64, 3))) < 200_000
    limit = lambda x1, x2: fully_connected_relu(x1, x2, depth=2).ntk  # noqa: E731
    operator = kernel_operator(limit, normal(1, 300, 4), devices=1, max_bytes=500_000)
    assert 1 < operator.rule.tile < 300
    assert 100_000 < temporaries(operator, jnp.ones(300)) < 500_000


@pytest.mark.quick
@pytest.mark.parametrize(
    ("devices", "max_bytes", "dtype"), [(1, 2**28, "float32"), (3, 30_000, "float64")]
)
def test_kernel_operator_is_the_kernel(devices, max_bytes, dtype):
    x, x_test, v = (normal(n, n, 4, dtype=dtype) for n in (57, 6, 57))
    operator = kernel_operator(polynomial, x, devices=devices, max_bytes=max_bytes)
    matrix, cross = (
        np.square(1 + np.asarray(x) @ np.asarray(x).T),
        np.square(1 + np.asarray(x_test) @ np.asarray(x).T),
    )
    chosen = np.array([1, 5])
    assert operator.dtype == dtype
    assert (operator.rule.tile < 57) == (devices == 3)

    @compiled
    def compute(operator, v, x_test):
        products = operator @ v, operator @ v[:, 0], operator.cross(x_test, v)
        return products, operator.diagonal(), operator.columns(chosen)

    (many, one, of_test), diagonal, of_chosen = compute(operator, v, x_test)
    v = np.asarray(v)
    assert_close(many, matrix @ v)
    assert_close(one, matrix @ v[:, 0])
    assert_close(diagonal, np.diag(matrix))
    assert_close(of_chosen, matrix[:, chosen])
    assert_close(of_test, cross @ v)


def test_an_operator_is_an_argument_of_a_program_and_compiles_once():
    traces = []

    def neuron(params, x):
        traces.append(x.shape)
        return jnp.tanh(x @ params)

    @jax.jit
    def quadratic_form(operator, v):
        return v @ (operator @ v)

    x, v = normal(0, 7, 4), normal(1, 7)
    for seed in (2, 3):
        params = normal(seed, 4)
        operator = ntk_operator(neuron, params, x, devices=1)
        jacobian = (1 - jnp.tanh(x @ params) ** 2)[:, None] * x
        before = len(traces)
        assert_close(quadratic_form(operator, v), v @ jacobian @ jacobian.T @ v)
    assert len(traces) == before
    # Parameters may be traced as well: many seeds at once.
    over_seeds = jax.vmap(lambda params: ntk_operator(neuron, params, x, devices=1) @ v)
    assert over_seeds(normal(4, 3, 4)).shape == (3, 7)


def test_arrays_of_a_partial_kernel_are_arguments():
    x, scale = normal(0, 5, 2), jnp.float64(3.0)
    kernel = functools.partial(lambda scale, x1, x2, power: scale * (x1 @ x2.T) ** power, scale)
    operator = kernel_operator(functools.partial(kernel, power=2), x, devices=1)
    assert [leaf.shape for leaf in jax.tree.leaves(operator)] == [(), (5, 2)]
    assert_close(operator @ jnp.eye(5), 3 * (x @ x.T) ** 2)


def test_trainable_and_low_precision():
    params, x = network(None)
    first = lambda path: path[0] == "first"  # noqa: E731
    operator = ntk_operator(apply, params, x, trainable=first, devices=1)
    assert_close(operator @ jnp.eye(13), empirical_ntk(apply, trainable=first)(params, x))
    low = kernel_operator(lambda x1, x2: x1 @ x2.T, jnp.ones((2, 2), jnp.bfloat16), devices=1)
    assert low.dtype == jnp.float32
    assert (low @ jnp.ones(2)).tolist() == [4.0, 4.0]


def test_refusals():
    params, x = network(3)
    operator = ntk_operator(apply, params, x, devices=1)
    with pytest.raises(ValueError, match=r"v has shape \(3, 13\); expected \(13, 3\), or"):
        operator @ jnp.ones((3, 13))
    with pytest.raises(ValueError, match="v holds NaN"):
        operator @ jnp.full((13, 3), jnp.nan)
    with pytest.raises(ValueError, match=r"x_test has shape \(2, 5\); expected \(n_test, 4\)"):
        operator.cross(jnp.ones((2, 5)), jnp.ones((13, 3)))
    with pytest.raises(ValueError, match="max_bytes is 500; expected at least"):
        ntk_operator(apply, params, x, max_bytes=500)
    with pytest.raises(ValueError, match="x hold no samples"):
        ntk_operator(apply, params, x[:0])
    with pytest.raises(ValueError, match=r"apply returned shape \(13, 2, 2\) for 13 samples"):
        ntk_operator(lambda params, x: jnp.ones((len(x), 2, 2)), params, x)
    with pytest.raises(ValueError, match="devices is 9"):
        kernel_operator(polynomial, x, devices=9)
    with pytest.raises(ValueError, match=r"kernel\(x1, x2\).ntk"):
        kernel_operator(lambda x1, x2: (x1 @ x2.T, x1 @ x2.T), x)
    with pytest.raises(ValueError, match="expected a function kernel"):
        kernel_operator(np.eye(3), x)
    with pytest.raises(ValueError, match="what one pair of samples needs"):
        kernel_operator(polynomial, x, max_bytes=5)


def test_products_follow_the_rules_of_custom_vjp():
    @jax.custom_vjp
    def layer(w, x):
        return jnp.sin(x @ w)

    layer.defvjp(
        lambda w, x: (layer(w, x), (w, x)),
        lambda kept, u: (3 * kept[1].T @ (jnp.cos(kept[1] @ kept[0]) * u), jnp.zeros_like(kept[1])),
    )
    x, w, v = normal(0, 7, 4), normal(1, 4, 2), normal(2, 7, 2)
    operator = ntk_operator(layer, w, x, devices=1)
    theta = empirical_ntk(layer, method="jacobian")(w, x)
    assert_close(operator @ v, jnp.einsum("ijab,jb->ia", theta, v), factor=1000)
