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
    leaves, structure = jax.tree.flatten(params)
    moved = [np.asarray(p) + scale * samples(9 + i, *p.shape) for i, p in enumerate(leaves)]
    return jax.tree.unflatten(structure, moved)


@pytest.mark.quick
def test_linear_model_is_linear_and_has_the_same_kernel_everywhere(network):
    apply, params, x = network
    linear = linearize(apply, params)
    far = shifted(params, 1.0)

    @compiled
    def compute(params, far):
        middle = jax.tree.map(lambda a, b: (a + b) / 2, params, far)
        values = apply(params, x), [linear(at, x) for at in (params, middle, far)]
        return values, empirical_ntk(apply)(params, x), empirical_ntk(linear)(far, x)

    (own, (start, half, end)), expected, found = compute(params, far)
    assert_close(start, own)
    assert_close(half, (start + end) / 2)
    assert_close(found, expected)


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
