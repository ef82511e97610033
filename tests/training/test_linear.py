import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import MLP, assert_close, compiled, samples

from ntkflow.kernels.empirical import empirical_ntk
from ntkflow.training.linear import linearize, taylor_expand


@pytest.fixture(scope="module")
def network():
    module = MLP(2)
    x = samples(0, 4, 3)
    return module.apply, compiled(module.init)(jax.random.key(0), x), x


def shifted(params, scale):
    keys = jax.random.split(jax.random.key(9), len(jax.tree.leaves(params)))
    keys = jax.tree.unflatten(jax.tree.structure(params), list(keys))
    return jax.tree.map(lambda p, k: p + scale * jax.random.normal(k, p.shape), params, keys)


@pytest.mark.quick
def test_linear_model_is_linear_and_has_the_same_kernel_everywhere(network):
    apply, params, x = network
    linear = jax.jit(linearize(apply, params))  # within another program below
    assert_close(linear(params, x), apply(params, x))
    far = shifted(params, 1.0)
    middle = jax.tree.map(lambda a, b: (a + b) / 2, params, far)
    assert_close(linear(middle, x), (linear(params, x) + linear(far, x)) / 2)
    expected = compiled(empirical_ntk(apply))(params, x)
    assert_close(compiled(empirical_ntk(linear))(far, x), expected)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_the_error_has_the_order_of_the_next_term(degree):
    apply = lambda w, x: jnp.tanh(x @ w)  # noqa: E731
    w, x = samples(0, 3, 2), samples(1, 4, 3)
    taylor = compiled(taylor_expand(apply, w, degree))
    errors = [
        np.abs(taylor(shifted(w, s), x) - apply(shifted(w, s), x)).max() for s in (1e-2, 5e-3)
    ]
    np.testing.assert_allclose(errors[0] / errors[1], 2 ** (degree + 1), rtol=0.1)


def test_a_polynomial_network_is_its_own_expansion():
    apply = lambda w, x: x @ (w**3 - w)  # noqa: E731
    w, x = samples(0, 3), samples(1, 4, 3)
    far = shifted(w, 2.0)
    assert_close(taylor_expand(apply, w, 3)(far, x), apply(far, x))


def test_other_collections_stay_where_they_were_expanded():
    apply = lambda v, x: x * v["params"]["w"] + v["stats"]["mean"]  # noqa: E731
    variables = {"params": {"w": jnp.array(2.0)}, "stats": {"mean": jnp.array(5.0)}}
    moved = {"params": {"w": jnp.array(3.0)}, "stats": {"mean": jnp.array(-1.0)}}
    assert linearize(apply, variables)(moved, jnp.array(1.0)) == 8.0


@pytest.mark.parametrize("degree", [-1, 1.5])
def test_refuses_a_degree_that_is_none(degree):
    with pytest.raises(ValueError, match="degree is"):
        taylor_expand(lambda w, x: x * w, jnp.array(1.0), degree)
